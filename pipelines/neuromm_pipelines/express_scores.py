"""Scores of ``neuromm express``: a row a section and model, and means over patients."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuromm.core.files import atomic_path

__all__ = [
    "COLUMNS",
    "MEASURES",
    "gene_table",
    "patient_means",
    "print_means",
    "section_rows",
    "write_table",
]

COLUMNS = (
    "section", "patient", "fold", "model", "pcc", "pcc_h", "mse", "mae", "gsc", "ssc",
    "n_spots", "n_constant",
)  # fmt: skip
MEASURES = ("pcc", "pcc_h", "mse", "mae", "gsc", "ssc")
_N_HIGH = 50


def section_rows(
    predicted: Mapping[str, NDArray[np.floating]],
    observed: NDArray[np.floating],
    adata: Any,
    *,
    section: str,
    patient: str,
    fold: str = "",
    best: Mapping[str, Any] | None = None,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Score what models predicted of one section.

    Parameters
    ----------
    predicted : mapping of model to array of shape (n_spots, n_genes)
    observed : array of shape (n_spots, n_genes)
    adata : anndata.AnnData
        With ``array_row`` and ``array_col``.
    section, patient, fold : str
    best : mapping of model to ExpressionScores, optional
        Scores on other spots, by which the genes of PCC(H) are chosen; on the scored
        ones themselves if not given.

    Returns
    -------
    rows : list of dict
        One a model, with `COLUMNS`.
    scores : dict of model to ExpressionScores
    """
    from neuromm.io.tissue_sections import grid_kind
    from neuromm.metrics import expression_correlation, expression_structure
    from neuromm.prepare.expression import neighbours

    obs = adata.obs
    touching = neighbours(obs["array_row"], obs["array_col"], grid_kind(adata))
    rows, scores = [], {}
    for model, values in predicted.items():
        found = expression_correlation(values, observed, [section] * len(observed))
        gsc = ssc = np.nan
        if touching.nnz:
            structure = expression_structure(values, observed, touching)
            gsc, ssc = structure.gene, structure.spatial
        judge = None if best is None else best.get(model)
        rows.append(
            {
                "section": section,
                "patient": patient,
                "fold": fold,
                "model": model,
                "pcc": found.pcc,
                "pcc_h": found.highly_predicted(_N_HIGH, chosen_on=judge),
                "mse": found.mse,
                "mae": found.mae,
                "gsc": gsc,
                "ssc": ssc,
                "n_spots": len(observed),
                "n_constant": found.n_constant,
            }
        )
        scores[model] = found
    return rows, scores


def patient_means(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean of each measure over patients, with 95 % intervals by resampling them.

    Parameters
    ----------
    rows : DataFrame
        With `COLUMNS`.

    Returns
    -------
    means : DataFrame
        A row a model and measure: ``model``, ``measure``, ``mean``, ``low``, ``high``
        (nan for one patient), ``n_patients``, ``n_sections``.
    """
    from neuromm.metrics import bootstrap_interval

    found = []
    for model, own in rows.groupby("model", sort=False):
        for measure in MEASURES:
            values = own[measure].astype(float)
            by_patient = values.groupby(own["patient"]).mean().dropna()
            low = high = np.nan
            if len(by_patient) > 1:
                low, high = bootstrap_interval(values, groups=list(own["patient"]))
            found.append(
                {
                    "model": model,
                    "measure": measure,
                    "mean": by_patient.mean() if len(by_patient) else np.nan,
                    "low": low,
                    "high": high,
                    "n_patients": len(by_patient),
                    "n_sections": int(values.notna().sum()),
                }
            )
    return pd.DataFrame(found)


def gene_table(
    genes: Sequence[Sequence[str]], correlations: Sequence[NDArray[np.floating]]
) -> pd.DataFrame:
    """Correlation of each gene over sections, whose panels may differ.

    Parameters
    ----------
    genes : sequence of sequences of str
        Panel of each section.
    correlations : sequence of arrays of shape (n_genes,)
        nan where a gene does not vary.

    Returns
    -------
    table : DataFrame
        ``gene``, ``pcc`` (mean over sections), ``n_sections``, ``n_constant``, best
        first.
    """
    long = pd.DataFrame(
        {
            "gene": np.concatenate([np.asarray(names, str) for names in genes]),
            "pcc": np.concatenate([np.asarray(r, float) for r in correlations]),
        }
    )
    by_gene = long.groupby("gene")["pcc"]
    table = pd.DataFrame(
        {
            "pcc": by_gene.mean(),
            "n_sections": by_gene.count(),
            "n_constant": by_gene.size() - by_gene.count(),
        }
    ).reset_index()
    table = table.sort_values(["pcc", "gene"], ascending=[False, True])
    return table.reset_index(drop=True)


def print_means(means: pd.DataFrame) -> None:
    """Print PCC(A) and PCC(H) of each model, with intervals where there are any."""
    for measure in ("pcc", "pcc_h"):
        for row in means[means["measure"] == measure].to_dict("records"):
            low_high = ""
            if np.isfinite(row["low"]):
                low_high = f"  [{row['low']:.3f}, {row['high']:.3f}]"
            name = "PCC(A)" if measure == "pcc" else "PCC(H)"
            print(
                f"  {name} {row['model']:<8} {row['mean']:6.3f}{low_high}  "
                f"{row['n_patients']} patient(s), {row['n_sections']} section(s)"
            )


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as TSV, whole or not at all."""
    with atomic_path(path) as temporary:
        table.to_csv(
            temporary, sep="\t", index=False, na_rep="n/a", float_format="%.6g"
        )
