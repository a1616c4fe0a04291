"""All sections of a run: how well their expression is predicted, one page and tables.

A row is a section. Means are over patients, of the means over each one's sections:
sections of one patient are near-copies, and no evidence of their own.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from neuromm.core import UsageError
from neuromm.core.files import write_json, write_text
from neuromm.report.expression import page_name
from neuromm.report.expression_means import (
    LEFT_OUT,
    checked_rows,
    left_out,
    model_differences,
    models_of,
    patient_means,
)
from neuromm.report.expression_scores import (
    INTERVAL,
    MEASURES,
    RIDGE,
    chosen_sentence,
    measure_name,
    model_title,
)
from neuromm.report.expression_settings import REFERENCES, ExpressionSettings
from neuromm.report.figures.expression_genes import gene_correlations, section_scores
from neuromm.report.figures.site_drawing import Drawing, counted
from neuromm.report.html import render
from neuromm.report.segmentation import number
from neuromm.report.sidecars import write_tsv

__all__ = ["write_expression_summary"]

_GROUPS = (
    ("Correlation", ("pcc", "pcc_h")),
    ("Errors", ("mse", "mae")),
    ("Structure", ("gsc", "ssc")),
)
_GENE_COLUMNS = ("gene", "pcc", "n_sections", "n_constant")
_FIGURES = ("sections", "genes")
_N_GENES = 20
_LEAKS = {
    "trained": (
        "Trained on: no test",
        "The model was trained on these sections, or on others of these patients: the "
        "scores tell how well it remembers, not how well it predicts.",
    ),
    "random": (
        "Random folds: a leak",
        "In these folds random spots were left out. Spots around them, which look and "
        "express nearly alike, were trained on: the scores are too high, and say "
        "nothing about a new section or patient.",
    ),
}


def write_expression_summary(
    output_dir: Path,
    rows: pd.DataFrame,
    *,
    genes: pd.DataFrame | None = None,
    told: Mapping[str, Any],
) -> Path:
    """Write ``report.html`` and ``report.tsv`` of all sections that were scored.

    Parameters
    ----------
    output_dir : path-like
        Made if missing. Pages of sections that lie there are linked.
    rows : DataFrame
        A row a section, fold and model: ``section``, ``patient``, ``fold`` (its name;
        one that left out random spots says "random" in it, one that left out nothing
        "trained on": these are shown apart, in no mean of the others), ``model``
        (``ridge`` for the probe), ``pcc``, ``pcc_h``, ``mse``, ``mae``, ``gsc``,
        ``ssc``, ``n_spots``, ``n_constant``; nan for what could not be measured.
    genes : DataFrame, optional
        ``gene``, ``pcc`` of the model (mean over sections), ``n_sections`` with a
        correlation and ``n_constant`` without one.
    told : mapping
        Settings, as ``uns["neuromm"]["express"]`` tells them, with ``warnings`` and,
        of PCC(H), ``highly_chosen_on`` ("test" or "train") and ``n_highly``.

    Returns
    -------
    path : Path
        The page. Beside it lie ``report.tsv``, ``report_means.tsv`` and, with genes,
        ``report_genes.tsv``, each with a JSON that describes its columns.

    Raises
    ------
    UsageError
        If a column or setting is missing, or a row comes twice.
    OutputError
        If a file cannot be written.
    """
    settings = ExpressionSettings.of(told)
    table = checked_rows(rows, settings.model)
    listed = None if genes is None else _checked_genes(genes)
    kinds = left_out(table)
    parts = {kind: table[kinds == kind] for kind in LEFT_OUT}
    parts = {kind: part for kind, part in parts.items() if len(part)}
    root = Path(output_dir)
    means = _all_means(parts, settings.model)
    drawings = _drawings(parts, listed, settings)
    page = render(
        "expression_summary.html.j2",
        _content(root, settings, parts, means, listed, drawings),
    )
    kept = []
    for name, drawing in drawings.items():
        kept += drawing.write(root / "figures" / f"report_{name}")
    kept += _write_tables(root, settings, table, means, listed)
    _remove_others(root, kept)
    return write_text(root / "report.html", page)


def _checked_genes(genes: pd.DataFrame) -> pd.DataFrame:
    if missing := [name for name in _GENE_COLUMNS if name not in genes]:
        raise UsageError(f"genes lack the columns {', '.join(missing)}")
    table = genes[list(_GENE_COLUMNS)].astype({"gene": str, "pcc": float})
    return table.sort_values(
        "pcc", ascending=False, kind="stable", na_position="last", ignore_index=True
    )


def _all_means(parts: Mapping[str, pd.DataFrame], model: str) -> pd.DataFrame:
    """Means of each kind of folds, models and what they add to the ridge probe."""
    found = []
    for kind, part in parts.items():
        models = models_of(part, model)
        own = [patient_means(part, [m for m in models if (part["model"] == m).any()])]
        if RIDGE in models:
            own += [
                model_differences(part, one, RIDGE) for one in models if one != RIDGE
            ]
        found.append(pd.concat(own, ignore_index=True).assign(kind=kind))
    return pd.concat(found, ignore_index=True)


def _drawings(
    parts: Mapping[str, pd.DataFrame],
    genes: pd.DataFrame | None,
    settings: ExpressionSettings,
) -> dict[str, Drawing]:
    kind = next(iter(parts))
    mark = "; ".join(
        text
        for text in (_LEAKS[kind][0].lower() if kind else "", settings.mark)
        if text
    )
    models = models_of(parts[kind], settings.model)
    drawings = {
        "sections": section_scores(
            parts[kind], {name: model_title(name) for name in models}, mark=mark
        )
    }
    if genes is not None:
        drawings["genes"] = gene_correlations(
            genes,
            model=settings.model,
            what="Pearson correlation over spots of predicted with measured "
            "expression, mean over sections",
            mark=mark,
        )
    return drawings


def _content(
    root: Path,
    settings: ExpressionSettings,
    parts: Mapping[str, pd.DataFrame],
    means: pd.DataFrame,
    genes: pd.DataFrame | None,
    drawings: Mapping[str, Drawing],
) -> dict[str, Any]:
    all_rows = pd.concat(parts.values())
    n_sections = all_rows["section"].nunique()
    warnings = [str(text) for text in settings.told.get("warnings") or []]
    with_ridge = RIDGE in set(all_rows["model"])
    own = []
    own += [
        f"{title}. {text}" for kind, (title, text) in _LEAKS.items() if kind in parts
    ]
    if not with_ridge:
        own.append(
            "No ridge probe was scored: without the linear baseline on the same "
            "features these scores do not tell what the model adds."
        )
    return {
        "title": "Predicted gene expression, all sections",
        "heading": "Predicted gene expression of " + counted(n_sections, "sections"),
        "version": settings.version,
        "dataset": "",
        "notices": settings.notices,
        "warnings": [*own, *warnings],
        "encoder": settings.encoder,
        "unit_meaning": settings.unit_meaning,
        "chosen": chosen_sentence(
            str(settings.told.get("highly_chosen_on", "test")),
            int(settings.told.get("n_highly", 50)),
        ),
        "meanings": [(MEASURES[name][0], MEASURES[name][3]) for name in MEASURES],
        "kinds": [
            _kind_content(root, kind, part, means, settings)
            for kind, part in parts.items()
        ],
        "sections_picture": drawings["sections"].picture,
        "genes": None if genes is None else _gene_content(genes),
        "gene_picture": drawings["genes"].picture if "genes" in drawings else None,
        "training": settings.training_rows(several=True),
        "methods": {
            "texts": [("", _methods(settings, with_ridge=with_ridge))],
            "references": list(REFERENCES),
        },
        "provenance": settings.provenance(),
    }


def _beside(means: pd.DataFrame, kind: str, model: str) -> str:
    """What a leak adds to the score; "" where there is nothing to compare it with."""
    own = means[(means["model"] == model) & (means["measure"] == "pcc")]
    scored = own.set_index("kind")["mean"]
    if not kind or "" not in scored:
        return ""
    return (
        f"PCC(A) of {model} is {number(scored[kind], 3)} here, and "
        f"{number(scored[''], 3)} where whole sections or regions were left out."
    )


def _methods(settings: ExpressionSettings, *, with_ridge: bool) -> list[str]:
    return [
        *settings.methods(scored=True, with_ridge=with_ridge),
        "Scores were averaged over the sections of a patient, then over patients. "
        f"Intervals are percentiles of the mean: {INTERVAL}; with few patients they "
        "are too narrow.",
    ]


def _kind_content(
    root: Path,
    kind: str,
    rows: pd.DataFrame,
    means: pd.DataFrame,
    settings: ExpressionSettings,
) -> dict[str, Any]:
    models = models_of(rows, settings.model)
    models = [name for name in models if (rows["model"] == name).any()]
    beside = _beside(means, kind, settings.model)
    means = means[means["kind"] == kind]
    names = list(dict.fromkeys(means["model"]))
    cells = {(m["model"], m["measure"]): m for m in means.to_dict("records")}
    n_patients = rows["patient"].nunique()
    sections = list(rows.groupby(["section", "fold"], sort=False))
    return {
        "id": kind or "scores",
        "leak": _LEAKS[kind][1] if kind else "",
        "heading": _LEAKS[kind][0] if kind else "Scores",
        "beside": beside,
        "counts": f"{counted(rows['section'].nunique(), 'sections')} of "
        f"{counted(n_patients, 'patients')} in "
        f"{counted(rows['fold'].nunique(), 'folds')}.",
        "lone": "One patient: there is no interval over patients."
        if n_patients == 1
        else "",
        "means": {
            "names": [_mean_title(name) for name in names],
            "rows": [
                {
                    "name": measure_name(measure, settings.unit),
                    "values": [
                        _interval(cells[name, measure], measure, " - " in name)
                        for name in names
                    ],
                }
                for measure in MEASURES
            ],
        },
        "models": [model_title(name) for name in models],
        "tables": [
            {
                "title": title,
                "measures": [measure_name(m, settings.unit) for m in measures],
                "rows": [
                    _section_row(root, own, measures, models) for _, own in sections
                ],
                "means": [
                    number(cells[name, measure]["mean"], MEASURES[measure][1])
                    for measure in measures
                    for name in models
                ],
            }
            for title, measures in _GROUPS
        ],
    }


def _mean_title(name: str) -> str:
    first, apart, second = name.partition(" - ")
    return f"{first} minus {model_title(second)}" if apart else model_title(first)


def _interval(cell: Mapping[Any, Any], measure: str, signed: bool) -> str:
    places = MEASURES[measure][1]
    shown = [number(cell[name], places) for name in ("mean", "low", "high")]
    if signed:
        shown = [f"+{text}" if text[0].isdigit() else text for text in shown]
    mean, low, high = shown
    return mean if pd.isna(cell["low"]) else f"{mean} [{low}, {high}]"


def _section_row(
    root: Path, own: pd.DataFrame, measures: Sequence[str], models: Sequence[str]
) -> dict[str, Any]:
    first = own.iloc[0]
    by_model = own.set_index("model")
    page = page_name(str(first["section"]))
    return {
        "section": str(first["section"]),
        "page": quote(page) if (root / page).is_file() else "",
        "patient": str(first["patient"]),
        "fold": str(first["fold"]),
        "n_spots": _count(first["n_spots"]),
        "n_constant": _count(first["n_constant"]),
        "values": [
            number(by_model[measure].get(name), MEASURES[measure][1])
            for measure in measures
            for name in models
        ],
    }


def _count(value: Any) -> str:
    return "n/a" if pd.isna(value) else f"{int(value):,}"


def _gene_content(genes: pd.DataFrame) -> dict[str, Any]:
    lost = int(genes["pcc"].isna().sum())
    told = (
        f"{counted(lost, 'genes')} {'has' if lost == 1 else 'have'} no correlation in "
        "any section."
        if lost
        else ""
    )
    return {
        "rows": [
            {
                "gene": row["gene"],
                "pcc": number(row["pcc"], 3),
                "n_sections": _count(row["n_sections"]),
                "n_constant": _count(row["n_constant"]),
            }
            for row in genes.head(_N_GENES).to_dict("records")
        ],
        "told": told,
        "n_genes": len(genes),
    }


def _write_tables(
    root: Path,
    settings: ExpressionSettings,
    rows: pd.DataFrame,
    means: pd.DataFrame,
    genes: pd.DataFrame | None,
) -> list[Path]:
    columns = ["section", "patient", "fold", "model", *MEASURES, "n_spots"]
    whole = rows[[*columns, "n_constant"]].assign(
        encoder=settings.encoder, left_out=left_out(rows).map(LEFT_OUT)
    )
    stored = means.assign(left_out=means["kind"].map(LEFT_OUT)).drop(columns="kind")
    tables = {"": whole, "_means": stored}
    tables["_means"].insert(0, "encoder", settings.encoder)
    if genes is not None:
        tables["_genes"] = genes.assign(encoder=settings.encoder)
    paths = []
    for name, table in tables.items():
        described = {str(c): _described(str(c), settings) for c in table}
        paths += [
            write_tsv(root / f"report{name}.tsv", table),
            write_json(
                root / f"report{name}.json",
                {"Notice": " ".join(settings.notices), **described},
            ),
        ]
    return paths


def _described(column: str, settings: ExpressionSettings) -> dict[str, Any]:
    if column in MEASURES:
        name = measure_name(column, settings.unit)
        return {"Description": f"{name}: {MEASURES[column][3]}"}
    told = {
        "section": "Section",
        "patient": "Patient",
        "fold": "Fold that left the spots out",
        "left_out": "What was left out in training; but for sections or regions, the "
        "scores are no test",
        "model": "Model; ridge is the linear baseline, a - b a difference",
        "measure": "What is measured, see report.json",
        "mean": "Mean over patients of the means over each one's sections",
        "low": f"Lower end: {INTERVAL}",
        "high": f"Upper end: {INTERVAL}",
        "n_patients": "Patients with a value",
        "n_rows": "Sections and folds with a value",
        "n_spots": "Spots",
        "n_constant": "Genes, or sections, without a correlation: no variation",
        "n_sections": "Sections with a correlation",
        "gene": "Gene",
        "encoder": "Patch encoder",
    }
    return {"Description": told[column]}


def _remove_others(root: Path, kept: Sequence[Path]) -> None:
    """What an earlier summary wrote and this one did not."""
    ours = [
        root / "figures" / f"report_{name}.{kind}"
        for name in _FIGURES
        for kind in ("png", "svg", "tsv")
    ]
    ours += [root / f"report_genes.{kind}" for kind in ("tsv", "json")]
    for path in ours:
        if path not in kept:
            path.unlink(missing_ok=True)
