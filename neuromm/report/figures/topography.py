"""Scores over the head, for sensors whose positions are known."""

from typing import Any

import numpy as np
import pandas as pd

from neuromm.report.figures.canvas import (
    Picture,
    canvas,
    colour_bar,
    colour_map,
    png,
    style,
)

__all__ = ["sensor_topography"]

_MIN_SENSORS = 8  # fewer do not carry an interpolation


def sensor_topography(
    table: pd.DataFrame, limits: tuple[float, float]
) -> Picture | None:
    """Draw r over the head, one map a feature space, at its best time.

    Parameters
    ----------
    table : DataFrame
        ``channel``, ``x``, ``y``, ``z`` (mm, head coordinates), ``space``, ``r`` and,
        where targets are resolved in time, ``time``.
    limits : (float, float)
        Ends of the colour bar.

    Returns
    -------
    picture : Picture or None
        None if fewer than eight places are known.
    """
    from mne.viz import plot_topomap

    placed = table.dropna(subset=["x", "y", "z", "r"])
    if placed.groupby(["x", "y", "z"]).ngroups < _MIN_SENSORS:
        return None
    spaces = list(dict.fromkeys(placed["space"]))
    cmap = colour_map(signed=limits[0] < 0)
    told = []
    with style():
        n_columns = min(4, len(spaces))
        n_rows = -(-len(spaces) // n_columns)
        figure = canvas(2.2 * n_columns + 0.8, 2.2 * n_rows)
        grid = figure.subplots(n_rows, n_columns, squeeze=False)
        for axes in grid.ravel()[len(spaces) :]:
            axes.set_axis_off()
        for axes, space in zip(grid.ravel(), spaces, strict=False):
            rows, when = _best_time(placed[placed["space"] == space])
            plot_topomap(
                rows["r"].clip(*limits).to_numpy(),
                _info(rows),
                axes=axes,
                show=False,
                cmap=cmap,
                vlim=limits,
                contours=0,
                sensors="k.",
            )
            axes.set_title(f"{space}{when}")
            told.append(f"{space}{when}: highest {rows['r'].max():.2f}")
        colour_bar(figure, limits, "Pearson's r", axes=grid, cmap=cmap)
        return Picture(
            png(figure),
            f"Head from above, coloured by r. {'; '.join(told)}.",
            "r over the head, nose up, at the time of the highest mean over sensors; "
            "dots are sensors, and the colour between them is interpolated.",
        )


def _best_time(rows: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    when = ""
    if "time" in rows and rows["time"].notna().any():
        best = rows.groupby("time")["r"].mean().idxmax()
        rows, when = rows[rows["time"] == best], f", {best:.3g} s"
    # Gradiometers of a pair share a place; the better one is shown.
    highest = rows.groupby(["x", "y", "z"], sort=False)["r"].max()
    return highest.reset_index(), when


def _info(rows: pd.DataFrame) -> Any:
    import mne

    names = [str(i) for i in range(len(rows))]
    metres = rows[["x", "y", "z"]].to_numpy(dtype=float) / 1000
    positions = dict(zip(names, np.ascontiguousarray(metres), strict=True))
    info = mne.create_info(names, sfreq=1.0, ch_types="eeg", verbose="error")
    montage = mne.channels.make_dig_montage(positions, coord_frame="head")
    return info.set_montage(montage, verbose="error")
