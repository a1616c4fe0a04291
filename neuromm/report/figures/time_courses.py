"""Score over time around the event, for sensors, contacts or regions."""

from typing import Any

import numpy as np
import pandas as pd

from neuromm.report.figures.canvas import (
    Picture,
    canvas,
    png,
    space_colours,
    style,
)

__all__ = ["score_time_courses"]

_TITLE = 24  # characters
_MAX_PANELS = 8


def score_time_courses(table: pd.DataFrame, *, by: str = "channel") -> Picture:
    """Draw r over time, a panel a channel or region, the best first.

    Parameters
    ----------
    table : DataFrame
        ``time`` (s from the event), ``space``, ``r``, ``q`` and the column ``by``.
    by : {"channel", "region"}
        What a panel shows; for regions, the mean over their channels.
    """
    kept = table.dropna(subset=["time", "r", by])
    courses = (
        kept.assign(significant=kept["q"] < 0.05)
        .groupby([by, "space", "time"], observed=True, sort=False)
        .agg(r=("r", "mean"), significant=("significant", "any"), n=("r", "size"))
        .reset_index()
    )
    peaks = courses.groupby(by, observed=True)["r"].max().sort_values(ascending=False)
    panels = list(peaks.index[:_MAX_PANELS])
    spaces = list(dict.fromkeys(table["space"]))
    colours = space_colours(spaces)
    tested = bool(table["q"].notna().any())
    n_columns = min(4, len(panels))
    n_rows = -(-len(panels) // n_columns)
    with style():
        figure = canvas(9.6, 1.9 * n_rows + 0.5)
        grid = figure.subplots(
            n_rows, n_columns, sharex=True, sharey=True, squeeze=False
        )
        for axes in grid.ravel()[len(panels) :]:
            axes.set_axis_off()
        low, high = _span(courses[courses[by].isin(panels)]["r"], len(spaces))
        grid[0, 0].set_ylim(low, high)
        for axes, panel in zip(grid.ravel(), panels, strict=False):
            rows = courses[courses[by] == panel]
            _draw_course(axes, rows, colours, low, high)
            axes.set_title(_title(panel, rows, by), loc="left")
        for axes in grid[:, 0]:
            axes.set_ylabel("Pearson's r")
        for axes in grid[-1]:
            axes.set_xlabel("time from event (s)")
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=len(labels))
        drawn = png(figure)
    return Picture(drawn, _alt(courses, peaks, by), _caption(by, peaks, tested))


def _draw_course(
    axes: Any, rows: pd.DataFrame, colours: dict[str, str], low: float, high: float
) -> None:
    axes.axhline(0, color="#777777", linewidth=0.8)
    axes.axvline(0, color="#777777", linewidth=0.8)
    # Marks of significance lie under the curves, a row a feature space.
    height = 0.035 * (high - low)
    for i, (space, colour) in enumerate(colours.items()):
        line = rows[rows["space"] == space].sort_values("time")
        time = line["time"].to_numpy()
        axes.plot(time, line["r"], color=colour, linewidth=1.4, label=space)
        if len(time) < 2:
            continue
        step = float(np.median(np.diff(time)))
        starts = time[line["significant"].to_numpy(dtype=bool)] - step / 2
        bottom = low + height * (1.1 * i + 0.4)
        axes.broken_barh(
            [(start, step) for start in starts],
            (bottom, height * 0.7),
            facecolors=colour,
            linewidth=0,
        )


def _span(values: pd.Series, n_spaces: int) -> tuple[float, float]:
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.05)
    margin = 0.04 * (n_spaces + 1) * (high - low)
    return low - margin, high + 0.05 * (high - low)


def _title(panel: str, rows: pd.DataFrame, by: str) -> str:
    if by == "channel":
        return str(panel)
    # Longer names would run into the next panel; the table of regions has them whole.
    short = panel if len(panel) <= _TITLE else f"{panel[: _TITLE - 1]}…"
    return f"{short} (n = {int(rows['n'].max())})"


def _caption(by: str, peaks: pd.Series, tested: bool) -> str:
    unit = "Mean r of each region's channels" if by == "region" else "r of each channel"
    more = len(peaks) - _MAX_PANELS
    left_out = (
        f" The {_MAX_PANELS} highest of {len(peaks)} are shown." if more > 0 else ""
    )
    if not tested:
        mark = " No permutation test was run."
    elif by == "region":
        mark = " Bars below: times at which at least one channel has q < 0.05."
    else:
        mark = " Bars below: q < 0.05."
    return f"{unit} over time; lines at r = 0 and at the event.{left_out}{mark}"


def _alt(courses: pd.DataFrame, peaks: pd.Series, by: str) -> str:
    best = courses.iloc[int(courses["r"].to_numpy().argmax())]
    return (
        f"r over time for {min(len(peaks), _MAX_PANELS)} {by}s; highest r "
        f"{best['r']:.2f} at {best['time']:.3g} s in {best[by]} ({best['space']})."
    )
