"""How well single genes are predicted, and models beside each other."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuromm.report.figures.expression_maps import plain_style
from neuromm.report.figures.site_drawing import Drawing, counted, titled_canvas

__all__ = ["gene_correlations", "section_scores"]

_MODEL = "#00588F"
# Apart in lightness; the shapes tell them apart as well.
_COLOURS = (_MODEL, "#EBA51E", "#12A07C", "#CC79A7", "#333333")
_MARKS = ("o", "s", "^", "D", "v")


def gene_correlations(
    genes: pd.DataFrame,
    *,
    model: str,
    other: str | None = None,
    other_title: str = "",
    title: str = "Correlation of each gene",
    what: str = "Pearson correlation over spots of predicted with measured expression",
    mark: str = "",
) -> Drawing:
    """How correlations are spread over genes, and beside those of another model.

    Parameters
    ----------
    genes : DataFrame
        ``gene``, ``pcc``, and the column of the other model; nan without one.
    model : str
        Name of the model of ``pcc``.
    other : str, optional
        Column of another model.
    other_title : str
        Its name.
    title : str
    what : str
        What the correlations are, for the caption.
    mark : str
        Shown in the figure.

    Returns
    -------
    drawing : Drawing
        Its table holds what is drawn.
    """
    columns = ["pcc"] if other is None else ["pcc", other]
    table = genes[["gene", *columns]].reset_index(drop=True)
    known = table.dropna(subset=["pcc"])
    n_lost = len(table) - len(known)
    median = float(known["pcc"].median()) if len(known) else float("nan")
    with plain_style():
        figure = titled_canvas(
            4.2 if other is None else 7.6, 3.2, title, None, mark=mark
        )
        panels = figure.subplots(1, len(columns), squeeze=False)[0]
        _histogram(panels[0], known["pcc"], median, model)
        if other is not None:
            _against(panels[1], table.dropna(), other, model, other_title)
    lost = (
        f" {counted(n_lost, 'genes')} that {'does' if n_lost == 1 else 'do'} not vary, "
        f"measured or predicted, {'has' if n_lost == 1 else 'have'} no correlation and "
        f"{'is' if n_lost == 1 else 'are'} not drawn."
        if n_lost
        else ""
    )
    told = f"median {median:.2f}" if len(known) else "none has one"
    beside = ""
    if other is not None:
        both = table.dropna()
        better = int((both["pcc"] > both[other]).sum())
        beside = (
            f" Right: above the dashed line the gene is predicted better by {model} "
            f"than by the {other_title}, {better} of {len(both)} genes."
        )
    return Drawing(
        figure,
        table,
        alt=f"Histogram of the correlations of {counted(len(known), 'genes')}, {told}."
        + beside.replace(" Right:", " Beside it a scatter:")
        + (f" Marked: {mark}." if mark else ""),
        caption=f"{what}, {counted(len(known), 'genes')}. Dashed: their {told}; "
        "grey: 0." + beside + lost,
    )


def section_scores(
    rows: pd.DataFrame, models: Mapping[str, str], *, mark: str = ""
) -> Drawing:
    """PCC(A) of each section by patient, models side by side.

    Parameters
    ----------
    rows : DataFrame
        ``section``, ``patient``, ``fold``, ``model``, ``pcc``.
    models : mapping of str to str
        Titles of models by their names, in the order drawn.
    mark : str
        Shown in the figure.

    Returns
    -------
    drawing : Drawing
    """
    table = rows[["section", "patient", "fold", "model", "pcc"]]
    table = table[table["model"].isin(list(models))].reset_index(drop=True)
    patients = list(dict.fromkeys(table["patient"]))
    n_lost = int(table["pcc"].isna().sum())
    with plain_style():
        width = float(np.clip(2.4 + 0.55 * len(patients) * len(models) / 2, 4.2, 9.0))
        figure = titled_canvas(width, 3.0, "PCC(A) of each section", None, mark=mark)
        axes = figure.subplots()
        axes.axhline(0, color="#777777", lw=0.8)
        step = 0.8 / len(models)
        for number, (name, title) in enumerate(models.items()):
            own = table[table["model"] == name]
            middle = (number - (len(models) - 1) / 2) * step
            for place, patient in enumerate(patients):
                values = own.loc[own["patient"] == patient, "pcc"].dropna().to_numpy()
                aside = _aside(len(values), 0.35 * step)
                axes.plot(
                    place + middle + aside, values, _MARKS[number % len(_MARKS)],
                    color=_COLOURS[number % len(_COLOURS)], ms=5, alpha=0.8,
                    label=title if place == 0 else "_", clip_on=False,
                )  # fmt: skip
        turned = len(patients) > 8 or max(map(len, patients)) > 6
        axes.set_xticks(
            range(len(patients)), patients, rotation=45 if turned else 0,
            ha="right" if turned else "center",
        )  # fmt: skip
        axes.set(xlabel="Patient", ylabel="PCC(A)", xlim=(-0.6, len(patients) - 0.4))
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0)
    named = ", ".join(models.values())
    lost = (
        f" {counted(n_lost, 'values')} could not be measured and "
        f"{'is' if n_lost == 1 else 'are'} not drawn."
        if n_lost
        else ""
    )
    return Drawing(
        figure,
        table,
        alt=f"PCC(A) of each section by patient, of {named}."
        + (f" Marked: {mark}." if mark else ""),
        caption="A mark is a section and fold, at its patient." + lost,
    )


def _aside(n_values: int, reach: float) -> NDArray[np.float64]:
    """Marks of one patient stand side by side."""
    return np.linspace(-reach, reach, n_values) if n_values > 1 else np.zeros(n_values)


def _histogram(axes: Any, values: pd.Series, median: float, model: str) -> None:
    low = min(float(values.min()) if len(values) else 0.0, -0.05)
    high = max(float(values.max()) if len(values) else 0.0, 0.05)
    bins = np.linspace(low, high, 11 if len(values) < 60 else 31)
    axes.hist(values, bins=bins, color=_MODEL, alpha=0.85)
    axes.axvline(0, color="#777777", lw=0.8)
    if len(values):
        axes.axvline(median, color="black", lw=1, ls="--")
    axes.set(xlabel=f"Pearson's r, {model}", ylabel="Genes")
    axes.locator_params(axis="y", nbins=4, integer=True)


def _against(
    axes: Any, table: pd.DataFrame, other: str, model: str, other_title: str
) -> None:
    values = table[["pcc", other]].to_numpy(float)
    low = min(0.0, float(values.min())) - 0.03 if len(values) else -0.05
    high = max(0.0, float(values.max())) + 0.03 if len(values) else 0.05
    axes.axhline(0, color="#CCCCCC", lw=0.8)
    axes.axvline(0, color="#CCCCCC", lw=0.8)
    axes.plot([low, high], [low, high], color="#777777", lw=0.8, ls="--")
    axes.plot(table[other], table["pcc"], "o", ms=3.5, color=_MODEL, alpha=0.7)
    axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    axes.locator_params(nbins=5)
    axes.set(xlabel=f"Pearson's r, {other_title}", ylabel=f"Pearson's r, {model}")
