"""Tables beside the page of a section: its genes, and its scores."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from neuromm.core.files import write_json
from neuromm.report.expression_scores import (
    MEASURES,
    RIDGE,
    ExpressionSectionScores,
    chosen_sentence,
    measure_name,
    model_title,
)
from neuromm.report.expression_settings import ExpressionSettings
from neuromm.report.expression_spots import SectionSpots
from neuromm.report.sidecars import write_tsv

__all__ = ["gene_table", "write_tables"]


def gene_table(
    spots: SectionSpots, scores: ExpressionSectionScores | None
) -> pd.DataFrame:
    """A row a gene, the best first; without scores that of most variance."""
    table = pd.DataFrame({"gene": list(spots.predicted)})
    if scores is not None:
        told = scores.genes.assign(gene=scores.genes["gene"].astype(str))
        table = table.merge(told[["gene", *scores.others]], on="gene", how="left")
    for kind, values in (("predicted", spots.predicted), ("measured", spots.measured)):
        if values is not None:
            table[f"{kind}_mean"] = values.mean().to_numpy()
            table[f"{kind}_sd"] = values.std(ddof=0).to_numpy()
    by = "predicted_sd" if scores is None else "pcc"
    table = table.sort_values(
        by, ascending=False, kind="stable", na_position="last", ignore_index=True
    )
    table["encoder"] = spots.settings.encoder
    return table


def write_tables(
    root: Path,
    spots: SectionSpots,
    scores: ExpressionSectionScores | None,
    genes: pd.DataFrame,
) -> list[Path]:
    """Write ``<section>_report_genes`` and, with scores, ``<section>_report_scores``.

    Returns
    -------
    paths : list of Path
        Tables (.tsv) and what their columns are (.json).
    """
    settings = spots.settings
    stem = f"{spots.section}_report"
    tables = {"genes": (genes, _gene_columns(genes, settings))}
    if scores is not None:
        tables["scores"] = _score_table(settings, scores)
    paths = []
    for name, (table, columns) in tables.items():
        paths += [
            write_tsv(root / f"{stem}_{name}.tsv", table),
            write_json(
                root / f"{stem}_{name}.json",
                {"Notice": " ".join(settings.notices), **columns},
            ),
        ]
    return paths


def _score_table(
    settings: ExpressionSettings, scores: ExpressionSectionScores
) -> tuple[pd.DataFrame, dict[str, Any]]:
    rows = []
    for model, measures in scores.models.items():
        for measure in MEASURES:
            low, high = scores.intervals.get(model, {}).get(measure, (np.nan, np.nan))
            value = measures.get(measure, np.nan)
            rows.append((model, settings.encoder, measure, value, low, high))
    table = pd.DataFrame(
        rows, columns=["model", "encoder", "measure", "value", "low", "high"]
    )
    columns = {
        "model": {"Description": "Model", "Levels": {RIDGE: "Linear baseline"}},
        "encoder": {"Description": "Patch encoder of all models"},
        "measure": {
            "Description": "What is measured, over the spots of the section",
            "Levels": {
                name: f"{measure_name(name, settings.unit)}: {MEASURES[name][3]}"
                for name in MEASURES
            },
        },
        "value": {
            "Description": "Of the measure. "
            + chosen_sentence(scores.highly_chosen_on, scores.n_highly)
        },
        "low": {"Description": f"Lower end: {scores.interval}"},
        "high": {"Description": f"Upper end: {scores.interval}"},
    }
    return table, columns


def _gene_columns(genes: pd.DataFrame, settings: ExpressionSettings) -> dict[str, Any]:
    unit = {"Units": settings.unit}
    told = {
        "gene": {"Description": "Gene"},
        "pcc": {
            "Description": "Pearson correlation over spots of predicted with measured "
            f"expression, {settings.model}; n/a for a gene that does not vary"
        },
        "predicted_mean": {"Description": "Mean over spots, predicted", **unit},
        "predicted_sd": {"Description": "Spread over spots, predicted", **unit},
        "measured_mean": {"Description": "Mean over spots, measured", **unit},
        "measured_sd": {"Description": "Spread over spots, measured", **unit},
        "encoder": {"Description": "Patch encoder"},
        "shown": {"Description": "Whether the report draws it"},
    }
    return {
        str(name): told.get(str(name))
        or {"Description": f"As pcc, of {model_title(str(name).removeprefix('pcc_'))}"}
        for name in genes
    }
