"""How scores are spread over targets."""

import numpy as np
import pandas as pd

from neuromm.report.figures.canvas import (
    Picture,
    canvas,
    png,
    space_colours,
    style,
)

__all__ = ["score_histograms"]


def score_histograms(table: pd.DataFrame, *, targets: str = "targets") -> Picture:
    """Histogram of r for each feature space, with chance marked.

    Parameters
    ----------
    table : DataFrame
        ``space``, ``r``, and ``q`` (nan without a permutation test).
    targets : str
        What is counted, such as ``"voxels"``.
    """
    spaces = list(dict.fromkeys(table["space"]))
    colours = space_colours(spaces)
    n_columns = min(4, len(spaces))
    n_rows = -(-len(spaces) // n_columns)
    finite = table["r"].to_numpy()[np.isfinite(table["r"].to_numpy())]
    bins = _bins(finite)
    tested = bool(table["q"].notna().any())
    with style():
        figure = canvas(2.4 * n_columns, 2.1 * n_rows)
        grid = figure.subplots(n_rows, n_columns, sharex=True, squeeze=False)
        for axes in grid.ravel()[len(spaces) :]:
            axes.set_axis_off()
        for axes, space in zip(grid.ravel(), spaces, strict=False):
            rows = table[table["space"] == space]
            axes.hist(rows["r"].dropna(), bins=bins, color=colours[space], alpha=0.85)
            axes.axvline(0, color="#777777", linewidth=0.8)
            threshold = rows.loc[rows["q"] < 0.05, "r"].min()
            if np.isfinite(threshold):
                axes.axvline(threshold, color="black", linewidth=1, linestyle="--")
            axes.set_title(space, loc="left")
            axes.set_xlabel("Pearson's r")
            axes.locator_params(axis="y", nbins=4)
        for axes in grid[:, 0]:
            axes.set_ylabel(targets)
        drawn = png(figure)
    mark = (
        "Dashed: the lowest r with q < 0.05; no such line: none reaches it."
        if tested
        else "No permutation test was run: how high r rises by chance is not known."
    )
    medians = table.groupby("space", observed=True, sort=False)["r"].median()
    told = ", ".join(f"{s} {medians[s]:.2f}" for s in spaces if s in medians)
    return Picture(
        drawn,
        f"Histograms of r, one a feature space; medians: {told}.",
        f"Held-out r of all {targets}. Grey line: r = 0. {mark}",
    )


def _bins(values: np.ndarray) -> np.ndarray:
    if not values.size:
        return np.linspace(-0.1, 0.1, 11)
    low, high = min(float(values.min()), -0.02), max(float(values.max()), 0.02)
    return np.linspace(low, high, 11 if values.size < 60 else 41)
