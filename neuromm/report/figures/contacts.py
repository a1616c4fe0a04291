"""Scores of depth and surface contacts: on the glass brain, or along their shafts."""

import re
from typing import Any

import numpy as np
import pandas as pd

from neuromm.report.figures.canvas import (
    BAR_PLACE,
    Picture,
    canvas,
    colour_bar,
    colour_map,
    png,
    space_colours,
    style,
)

__all__ = ["contact_map", "contact_strips", "shaft_of"]

_CONTACT = re.compile(r"(?P<shaft>.*?)(?P<number>\d+)\D*$")
_MAX_SHAFTS = 24


def contact_map(
    contacts: pd.DataFrame, limits: tuple[float, float], *, name: str, note: str = ""
) -> Picture:
    """Contacts on the glass brain of MNI space, coloured by score.

    Parameters
    ----------
    contacts : DataFrame
        ``x``, ``y``, ``z`` (mm, MNI) and ``r``; rows with a nan are not drawn.
    limits : (float, float)
        Ends of the colour bar; scores below the lower end take its colour.
    name, note : str
        What is shown, and the end of the caption.
    """
    from nilearn import plotting

    drawn = contacts.dropna(subset=["x", "y", "z", "r"]).sort_values("r")
    cmap = colour_map(signed=limits[0] < 0)
    values = drawn["r"].clip(*limits).to_numpy()
    with style():
        figure = canvas(9.6, 2.5, constrained=False)
        plotting.plot_markers(
            values,
            drawn[["x", "y", "z"]].to_numpy(),
            node_size=22 if len(drawn) < 300 else 9,
            node_cmap=cmap,
            node_vmin=limits[0],
            node_vmax=limits[1],
            node_kwargs={"edgecolors": "#444444", "linewidths": 0.4},
            alpha=0.9,
            display_mode="lyrz",
            figure=figure,
            axes=(0.0, 0.0, 0.9, 1.0),
            colorbar=False,
        )
        colour_bar(figure, limits, "Pearson's r", place=BAR_PLACE, cmap=cmap)
        highest = drawn["r"].max()
        return Picture(
            png(figure),
            f"Glass brain with {len(drawn)} contacts coloured by r of {name}, highest "
            f"{highest:.2f}.",
            f"{name}: {len(drawn)} contacts. {note}".strip(),
        )


def contact_strips(contacts: pd.DataFrame, *, note: str = "") -> Picture:
    """Score along each shaft, for contacts whose place in MNI space is not known.

    Parameters
    ----------
    contacts : DataFrame
        ``target`` (such as ``LA3`` or ``LA3-LA4``), ``space``, ``r``, and ``q`` where
        it was tested: filled marks have q < 0.05.
    note : str
        Ends the caption: why no brain is drawn.
    """
    placed = contacts.dropna(subset=["r"]).copy()
    placed["shaft"], placed["number"] = zip(
        *map(shaft_of, placed["target"]), strict=True
    )
    shafts = sorted(placed["shaft"].unique())
    shown = shafts[:_MAX_SHAFTS]
    colours = space_colours(list(dict.fromkeys(contacts["space"])))
    n_columns = min(4, len(shown))
    n_rows = -(-len(shown) // n_columns)
    with style():
        figure = canvas(9.6, 1.55 * n_rows + 0.6)
        grid = figure.subplots(
            n_rows, n_columns, sharey=True, squeeze=False, sharex=False
        )
        for axes in grid.ravel()[len(shown) :]:
            axes.set_axis_off()
        for axes, shaft in zip(grid.ravel(), shown, strict=False):
            _draw_shaft(axes, placed[placed["shaft"] == shaft], colours)
            axes.set_title(shaft or "unnamed", loc="left")
        for axes in grid[:, 0]:
            axes.set_ylabel("r")
        for axes in grid[-1]:
            axes.set_xlabel("contact")
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=len(labels))
        more = len(shafts) - len(shown)
        left_out = f"{more} further shafts are in the table. " if more else ""
        return Picture(
            png(figure),
            f"r along {len(shown)} shafts, for {', '.join(colours)}.",
            f"r along each shaft, from its first contact on. {left_out}{note}".strip(),
        )


def shaft_of(target: str) -> tuple[str, int]:
    """Shaft and number of a contact, such as ``("LA", 3)`` for LA3 and LA3-LA4."""
    match = _CONTACT.match(target.split("-")[0].strip())
    if match is None:
        return target, 0
    return match["shaft"], int(match["number"])


def _draw_shaft(axes: Any, rows: pd.DataFrame, colours: dict[str, str]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.axhline(0, color="#999999", linewidth=0.8)
    for space, colour in colours.items():
        line = rows[rows["space"] == space].sort_values("number")
        x, y = line["number"].to_numpy(), line["r"].to_numpy()
        axes.plot(x, y, color=colour, linewidth=1, alpha=0.7)
        # Without a test every mark is filled: the legend needs one look.
        significant = line["q"].lt(0.05) | line["q"].isna()
        fill = np.where(significant, colour, "white")
        axes.scatter(
            x, y, s=16, c=fill, edgecolors=colour, linewidths=0.8, label=space, zorder=3
        )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
