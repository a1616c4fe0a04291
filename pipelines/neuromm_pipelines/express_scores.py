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
    "N_HIGHLY",
    "gene_table",
    "highest",
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
N_HIGHLY = 50


def section_rows(
    predicted: Mapping[str, NDArray[np.floating]],
    observed: NDArray[np.floating],
    adata: Any,
    *,
    section: str,
    patient: str,
    fold: str = "",
    highly: Mapping[str, NDArray[np.bool_]] | None = None,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Score what models predicted of one section.

    Parameters
    ----------
    predicted : mapping of model to array of shape (n_spots, n_genes)
    observed : array of shape (n_spots, n_genes)
    adata : anndata.AnnData
        With ``array_row`` and ``array_col``.
    section, patient, fold : str
    highly : mapping of model to bool array of shape (n_genes,), optional
        The genes of PCC(H), chosen on other spots; chosen on the scored ones themselves
        if not given.

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
        known = None if highly is None else highly.get(model)
        rows.append(
            {
                "section": section,
                "patient": patient,
                "fold": fold,
                "model": model,
                "pcc": found.pcc,
                "pcc_h": found.highly_predicted(N_HIGHLY)
                if known is None
                else _mean(found.by_gene[0, known]),
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


def highest(by_gene: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Mark the genes of PCC(H): those of the highest correlation.

    Parameters
    ----------
    by_gene : array of shape (n_sections, n_genes)
        nan for a gene that does not vary; one that varies nowhere is never marked.
    """
    known = ~np.isnan(by_gene)
    total = np.where(known, by_gene, 0.0).sum(axis=0)
    with np.errstate(invalid="ignore"):
        correlations = total / known.sum(axis=0)
    order = np.argsort(-np.nan_to_num(correlations, nan=-np.inf), kind="stable")
    marked = np.zeros(len(correlations), dtype=bool)
    marked[order[:N_HIGHLY]] = True
    chosen: NDArray[np.bool_] = marked & ~np.isnan(correlations)
    return chosen


def _mean(values: NDArray[np.floating]) -> float:
    kept = values[~np.isnan(values)]
    return float(kept.mean()) if len(kept) else float("nan")


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
                    "n_sections": own.loc[values.notna(), "section"].nunique(),
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
            "gene": [name for names in genes for name in names],
            "pcc": [r for values in correlations for r in np.asarray(values, float)],
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
    """Print PCC(A) and PCC(H) of each model, with intervals where there are any.

    PCC(H) is left out where it is PCC(A): in a panel of no more genes.
    """
    by_measure = {name: means[means["measure"] == name] for name in ("pcc", "pcc_h")}
    shown = ["pcc"]
    if not np.allclose(by_measure["pcc_h"]["mean"], by_measure["pcc"]["mean"]):
        shown.append("pcc_h")
    for measure in shown:
        for row in by_measure[measure].to_dict("records"):
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
