"""Report of predicted gene expression: one self-contained HTML file a section.

Without dates, so that the same prediction gives the same bytes. Figures lie in
``figures/`` too, as PNG and SVG with their numbers; tables lie beside the page.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuromm.core import UsageError
from neuromm.core.files import write_text
from neuromm.models import ModelCard
from neuromm.report.expression_scores import (
    MEASURES,
    RIDGE,
    ExpressionSectionScores,
    chosen_sentence,
    measure_name,
    model_title,
)
from neuromm.report.expression_settings import (
    REFERENCES,
    ExpressionSettings,
    card_content,
)
from neuromm.report.expression_spots import (
    SectionSpots,
    check_scores,
    check_thumbnail,
)
from neuromm.report.expression_tables import gene_table, write_tables
from neuromm.report.figures.expression_genes import gene_correlations
from neuromm.report.figures.expression_maps import gene_maps, slide_picture
from neuromm.report.figures.site_drawing import Drawing, counted
from neuromm.report.html import render
from neuromm.report.segmentation import number

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["page_name", "write_expression_page"]

_FIGURES = ("slide", "maps", "correlations")
_MANY_GENES = 300  # that a page lists; the table on disk holds all
_NO_NAME = re.compile(r'^\.|^$|[<>:"/\\|?*\x00-\x1f]')  # of a file, on any system


def write_expression_page(
    output_dir: Path,
    section: str,
    adata: "AnnData",
    *,
    scores: ExpressionSectionScores | None = None,
    thumbnail: NDArray[np.uint8] | None = None,
    thumbnail_scale: float = 1.0,
    card: ModelCard,
    warnings: Sequence[str] = (),
    n_shown: int = 9,
) -> Path:
    """Write ``<section>_report.html`` with its figures and tables.

    Parameters
    ----------
    output_dir : path-like
        Made if missing.
    section : str
        Name of the section, which names the files.
    adata : anndata.AnnData
        ``layers["predicted"]`` and, where it was measured, ``layers["observed"]`` of
        shape (n_spots, n_genes) in the unit that ``uns["neuromm"]["express"]`` tells;
        ``obsm["spatial"]``, x and y in pixels of full resolution; and
        ``uns["spatial"]`` as `neuromm.io.spatial.load` gives it. Of an ``obs`` with a
        column ``section``, spots of other sections are left out. Not changed.
    scores : ExpressionSectionScores, optional
        Needs ``layers["observed"]``.
    thumbnail : array of uint8 of shape (height, width, 3), optional
        Picture of the whole slide.
    thumbnail_scale : float
        Pixels of the thumbnail a pixel of full resolution.
    card : ModelCard
        Of the model.
    warnings : sequence of str
    n_shown : int
        Genes that are drawn: with scores those of the highest correlation, otherwise
        those whose predictions vary most over spots.

    Returns
    -------
    path : Path
        The page. Beside it lie ``<section>_report_genes.tsv`` and, with scores,
        ``<section>_report_scores.tsv``, each with a JSON that describes its columns.

    Raises
    ------
    UsageError
        If an argument is out of range, a setting, layer or the size of a pixel is
        missing, or scores are of other genes.
    DataError
        If predictions are not finite.
    OutputError
        If a file cannot be written.
    """
    if _NO_NAME.search(section):
        raise UsageError(
            "section names the page, so it must not begin with a dot or hold any of "
            f'< > : " / \\ | ? *, got {section!r}'
        )
    if n_shown < 1:
        raise UsageError(f"n_shown must be at least 1, got {n_shown}")
    spots = SectionSpots.of(section, adata)
    check_scores(scores, spots)
    check_thumbnail(thumbnail, thumbnail_scale, spots)
    genes = gene_table(spots, scores)
    shown = _chosen(genes, n_shown, by_scores=scores is not None)
    genes["shown"] = genes["gene"].isin(shown)
    # All is drawn before anything is written.
    drawings = _drawings(spots, scores, shown, thumbnail, thumbnail_scale)
    content = _content(spots, scores, genes, shown, drawings, card, warnings)
    page = render("expression.html.j2", content)
    root = Path(output_dir)
    kept = []
    for name, drawing in drawings.items():
        kept += drawing.write(root / "figures" / f"{section}_report_{name}")
    kept += write_tables(root, spots, scores, genes)
    _remove_others(root, section, kept)
    return write_text(root / page_name(section), page)


def page_name(section: str) -> str:
    """File name of the page of a section."""
    return f"{section}_report.html"


def _chosen(genes: pd.DataFrame, n_shown: int, *, by_scores: bool) -> list[str]:
    """Names of the genes that are drawn."""
    rows = genes[genes["pcc"].notna()] if by_scores else genes
    rows = rows if len(rows) else genes
    return [str(gene) for gene in rows["gene"].head(n_shown)]


def _drawings(
    spots: SectionSpots,
    scores: ExpressionSectionScores | None,
    shown: Sequence[str],
    thumbnail: NDArray[np.uint8] | None,
    scale: float,
) -> dict[str, Drawing]:
    settings, section = spots.settings, spots.section
    mark = settings.mark
    drawings = {
        "slide": slide_picture(
            spots.places,
            thumbnail=thumbnail,
            pixel_mm=spots.pixel_mm / scale,
            title=f"{section}: section and its spots",
            mark=mark,
        )
    }
    correlations = None
    if scores is not None:
        names = scores.genes["gene"].astype(str)
        correlations = dict(zip(names, scores.genes["pcc"].astype(float), strict=True))
    drawings["maps"] = gene_maps(
        spots.places,
        spots.predicted[list(shown)],
        None if spots.measured is None else spots.measured[list(shown)],
        unit=settings.unit,
        correlations=correlations,
        title=f"{section}: {_how_chosen(len(shown), scores is not None)}",
        mark=mark,
    )
    if scores is not None:
        ridge = f"pcc_{RIDGE}"
        drawings["correlations"] = gene_correlations(
            scores.genes,
            model=settings.model,
            other=ridge if ridge in scores.others else None,
            other_title=model_title(RIDGE),
            title=f"{section}: correlation of each gene",
            mark=mark,
        )
    return drawings


def _how_chosen(n_shown: int, by_scores: bool) -> str:
    if by_scores:
        return f"the {counted(n_shown, 'genes')} predicted best"
    return f"the {counted(n_shown, 'genes')} whose predictions vary most over spots"


def _content(
    spots: SectionSpots,
    scores: ExpressionSectionScores | None,
    genes: pd.DataFrame,
    shown: Sequence[str],
    drawings: Mapping[str, Drawing],
    card: ModelCard,
    warnings: Sequence[str],
) -> dict[str, Any]:
    settings, section = spots.settings, spots.section
    n_spots, n_genes = spots.predicted.shape
    measured = "" if spots.measured is not None else "; they were not measured here"
    return {
        "title": f"{section}: predicted gene expression",
        "heading": f"Predicted gene expression of section {section}",
        "version": settings.version,
        "dataset": "",
        "notices": settings.notices,
        "warnings": [*_own_warnings(spots, scores), *map(str, warnings)],
        "counts": f"{counted(n_genes, 'genes')} at {counted(n_spots, 'spots')}, "
        f"predicted{measured or ' and measured'}.",
        "verdict": "" if scores is None else _verdict(settings, scores),
        "unit_meaning": settings.unit_meaning,
        "encoder": settings.encoder,
        "slide": drawings["slide"].picture,
        "maps": drawings["maps"].picture,
        "chosen": _choice_sentence(len(shown), n_genes, scores is not None),
        "correlations": None if scores is None else drawings["correlations"].picture,
        "scores": None if scores is None else _score_content(settings, scores),
        "genes": _gene_content(genes, section, scores),
        "training": settings.training_rows(),
        "card": card_content(card),
        "methods": {
            "texts": [
                (
                    "",
                    settings.methods(
                        scored=scores is not None,
                        with_ridge=scores is not None and RIDGE in scores.models,
                    ),
                )
            ],
            "references": sorted({card.reference, *REFERENCES})
            if scores is not None
            else [card.reference],
        },
        "provenance": settings.provenance(),
        "files": [f"figures/{section}_report_{name}.svg" for name in drawings],
    }


def _own_warnings(
    spots: SectionSpots, scores: ExpressionSectionScores | None
) -> list[str]:
    told = []
    if spots.section in spots.settings.trained_on:
        told.append(
            f"Section {spots.section} is one of those that the model was trained on: "
            "what is shown says nothing about tissue that it has not seen."
        )
    if scores is not None and RIDGE not in scores.models:
        told.append(
            "No ridge probe was scored: without the linear baseline on the same "
            "features these scores do not tell what the model adds."
        )
    return told


def _choice_sentence(n_shown: int, n_genes: int, by_scores: bool) -> str:
    if n_shown == n_genes:
        return "All genes are shown."
    if by_scores:
        return (
            f"Shown are the {n_shown} of {n_genes} genes with the highest correlation "
            "of predicted with measured expression in this very section: the best "
            "cases, not typical ones."
        )
    return (
        f"Shown are the {n_shown} of {n_genes} genes whose predictions vary most over "
        "spots. That says nothing about how well they are predicted."
    )


def _verdict(settings: ExpressionSettings, scores: ExpressionSectionScores) -> str:
    """The comparison with what was measured in one sentence."""
    told = f"PCC(A) {number(scores.models[settings.model].get('pcc'), 3)}"
    if RIDGE in scores.models:
        ridge = number(scores.models[RIDGE].get("pcc"), 3)
        told += f"; the {model_title(RIDGE)} on the same features reaches {ridge}"
    return told + "."


def _score_content(
    settings: ExpressionSettings, scores: ExpressionSectionScores
) -> dict[str, Any]:
    names = [settings.model, *(m for m in scores.models if m != settings.model)]
    return {
        "models": [model_title(name) for name in names],
        "rows": [
            {
                "name": measure_name(measure, settings.unit),
                "values": [_cell(scores, name, measure) for name in names],
                "meaning": MEASURES[measure][3],
            }
            for measure in MEASURES
        ],
        "chosen": chosen_sentence(
            scores.highly_chosen_on, min(scores.n_highly, len(scores.genes))
        ),
        "interval": f"Brackets: {scores.interval}." if scores.intervals else "",
        "constant": _constant_sentence(scores.n_constant, len(scores.genes)),
    }


def _cell(scores: ExpressionSectionScores, model: str, measure: str) -> str:
    places = MEASURES[measure][1]
    shown = number(scores.models[model].get(measure), places)
    interval = scores.intervals.get(model, {}).get(measure)
    if interval is None:
        return shown
    low, high = (number(end, places) for end in interval)
    return f"{shown} [{low}, {high}]"


def _constant_sentence(n_constant: int, n_genes: int) -> str:
    if not n_constant:
        return f"All {n_genes} genes vary, measured and predicted, and are scored."
    vary = "does not vary" if n_constant == 1 else "do not vary"
    have, are = ("it has", "is") if n_constant == 1 else ("they have", "are")
    return (
        f"{n_constant} of {counted(n_genes, 'genes')} {vary} in this section, measured "
        f"or predicted: {have} no correlation (n/a) and {are} left out of PCC, GSC and "
        "SSC."
    )


def _gene_content(
    genes: pd.DataFrame, section: str, scores: ExpressionSectionScores | None
) -> dict[str, Any]:
    others = [] if scores is None else scores.others
    heads = {
        "pcc": "r",
        **{n: f"r, {model_title(n.removeprefix('pcc_'))}" for n in others[1:]},
        "predicted_mean": "Mean, predicted",
        "measured_mean": "Mean, measured",
        "predicted_sd": "SD, predicted",
        "measured_sd": "SD, measured",
    }
    columns = [name for name in heads if name in genes]
    places = {name: 3 if name in others else 2 for name in columns}
    return {
        "heads": [heads[name] for name in columns],
        "rows": [
            {
                "gene": row["gene"],
                "values": [number(row[name], places[name]) for name in columns],
                "shown": bool(row["shown"]),
            }
            for row in genes.head(_MANY_GENES).to_dict("records")
        ],
        "n_left_out": max(0, len(genes) - _MANY_GENES),
        "file": f"{section}_report_genes.tsv",
    }


def _remove_others(root: Path, section: str, kept: Sequence[Path]) -> None:
    """What an earlier report of this section wrote and this one did not."""
    stem = f"{section}_report"
    ours = [
        root / "figures" / f"{stem}_{name}.{kind}"
        for name in _FIGURES
        for kind in ("png", "svg", "tsv")
    ]
    ours += [
        root / f"{stem}_{name}.{kind}"
        for name in ("genes", "scores")
        for kind in ("tsv", "json")
    ]
    for path in ours:
        if path not in kept:
            path.unlink(missing_ok=True)
