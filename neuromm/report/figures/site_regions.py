"""How many targets of each region are sites, and how gains are spread."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuromm.core import UsageError
from neuromm.report.figures.canvas import style
from neuromm.report.figures.site_drawing import (
    PALE,
    SITE,
    Drawing,
    attrs_of,
    counted,
    finish,
    titled_canvas,
)

__all__ = ["gain_bins", "gain_distribution", "region_bars"]

_MAX_REGIONS = 30
_BAR = "#7A9CC6"
_ALONE = "#D5DFEC"  # of one subject: no interval


def region_bars(
    regions: pd.DataFrame,
    *,
    targets: str = "contacts",
    by: str = "region",
    min_targets: int = 1,
    max_regions: int = _MAX_REGIONS,
    attrs: Mapping[str, Any] | None = None,
) -> Drawing:
    """Share of sites in each region, the largest first, with its interval.

    Parameters
    ----------
    regions : DataFrame
        Of `neuromm.encoding.group_sites.region_table`.
    targets : str
        What is counted: "contacts", "vertices" or "voxels".
    by : str
        Column of regions.
    min_targets, max_regions : int
        Regions with fewer targets, and those beyond the first ``max_regions``, are not
        drawn; the table holds all, and the caption says so.
    attrs : mapping, optional
        `SiteMap.attrs`; a figure of stand-in features is marked.

    Returns
    -------
    drawing : Drawing
        ``table`` is ``regions``, sorted as it is drawn.
    """
    attrs = attrs_of(regions) if attrs is None else attrs
    ordered = regions.sort_values(
        ["share", "n_targets", by], ascending=[False, False, True]
    ).reset_index(drop=True)
    shown = ordered[ordered["n_targets"] >= min_targets].head(max_regions)
    if shown.empty:
        raise UsageError(
            f"no region has {counted(min_targets, targets)}: lower min_targets"
        )
    percent = 100 * shown[["share", "share_low", "share_high"]].to_numpy(dtype=float)
    known = np.isfinite(percent).all(axis=1)
    with style():
        title = "Sites of integration by region"
        figure = titled_canvas(7.2, 0.27 * len(shown) + 0.95, title, attrs)
        axes = figure.subplots()
        place = np.arange(len(shown))
        fill = np.where(known, _BAR, _ALONE)
        axes.barh(place, percent[:, 0], height=0.68, color=fill, zorder=2)
        low, high = percent[known, 1], percent[known, 2]
        axes.hlines(place[known], low, high, color=SITE, lw=1.3, zorder=3)
        for end in (low, high):
            axes.plot(end, place[known], "|", color=SITE, ms=6, zorder=3)
        overall = regions.attrs.get("share", _overall(ordered))
        top = min(100.0, 1.06 * max(np.nanmax(percent), 5.0))
        _mark_overall(axes, 100 * overall, top)
        labels = [_label(row, by, targets) for _, row in shown.iterrows()]
        axes.set_yticks(place, labels)
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(shown) - 0.4, -1.1)
        axes.set_xlim(0, top)
        axes.set_xlabel(f"sites (% of {targets})")
        return finish(
            figure,
            ordered,
            alt=f"Bars of the share of sites in {len(shown)} regions; largest: "
            f"{shown[by].iloc[0]}, {percent[0, 0]:.0f} %.",
            caption=_bars_caption(regions, len(shown), targets, bool(known.all())),
            attrs=attrs,
        )


def gain_bins(table: pd.DataFrame, *, n_bins: int = 40) -> pd.DataFrame:
    """Numbers of sites and other targets by gain: the data of `gain_distribution`.

    Parameters
    ----------
    table : DataFrame
        `SiteMap.table`: ``gain`` and ``is_site``.
    n_bins : int
        At most; 0 is an edge, so that no bin mixes gains and losses.

    Returns
    -------
    bins : DataFrame
        ``gain_low``, ``gain_high``, ``n_sites``, ``n_others``.
    """
    known = table[table["gain"].notna()]
    if known.empty:
        raise UsageError("no target has a gain")
    gain = known["gain"].to_numpy(dtype=float)
    found = known["is_site"].to_numpy(dtype=bool)
    edges = _edges(gain, min(n_bins, max(8, len(gain) // 4)))
    return pd.DataFrame(
        {
            "gain_low": edges[:-1],
            "gain_high": edges[1:],
            "n_sites": np.histogram(gain[found], edges)[0],
            "n_others": np.histogram(gain[~found], edges)[0],
        }
    )


def gain_distribution(
    table: pd.DataFrame,
    *,
    targets: str = "contacts",
    multimodal: str = "joint",
    attrs: Mapping[str, Any] | None = None,
) -> Drawing:
    """Histogram of the gain, of sites on top of that of all others.

    Parameters
    ----------
    table : DataFrame
        `SiteMap.table` of one or several subjects.
    targets : str
        What is counted.
    multimodal : str
        Model whose gain it is.
    attrs : mapping, optional
        `SiteMap.attrs`; a figure of stand-in features is marked.

    Returns
    -------
    drawing : Drawing
        ``table`` is that of `gain_bins`.
    """
    attrs = attrs_of(table) if attrs is None else attrs
    bins = gain_bins(table)
    width = (bins["gain_high"] - bins["gain_low"]).to_numpy()
    low, others = bins["gain_low"].to_numpy(), bins["n_others"].to_numpy()
    n_sites, n_others = int(bins["n_sites"].sum()), int(others.sum())
    found = table["is_site"].astype(bool)
    medians = {
        "sites": float(table.loc[found, "gain"].median()),
        "others": float(table.loc[~found, "gain"].median()),
    }
    with style():
        title = f"Gain of {multimodal} at sites and elsewhere"
        figure = titled_canvas(5.6, 3.0, title, attrs)
        axes = figure.subplots()
        look = {"align": "edge", "linewidth": 0.4, "edgecolor": "white"}
        label = f"not a site ({n_others:,})"
        axes.bar(low, others, width, color=PALE, label=label, **look)
        axes.bar(
            low,
            bins["n_sites"],
            width,
            bottom=others,
            color=SITE,
            label=f"site ({n_sites:,})",
            **look,
        )
        axes.axvline(0, color="#777777", linewidth=0.9)
        axes.set_xlabel(f"gain of {multimodal} over the best simpler model (r)")
        axes.set_ylabel(targets)
        axes.yaxis.get_major_locator().set_params(integer=True)
        # Bars may stand anywhere in the axes.
        figure.legend(loc="outside lower center", ncols=2)
        told = f"{medians['others']:.3f} elsewhere"
        if n_sites:
            told = f"{medians['sites']:.3f} at sites, {told}"
        return finish(
            figure,
            bins,
            alt=f"Histogram of gains of {n_sites} sites and {n_others} other "
            f"{targets}; medians: {told}.",
            caption=f"Bars are stacked. Median gain: {told}. Gains are taken over the "
            "best of several models: without integration they lie below 0.",
            attrs=attrs,
        )


def _mark_overall(axes: Any, percent: float, top: float) -> None:
    axes.axvline(percent, color="#555555", lw=1, ls=(0, (4, 3)), zorder=1)
    axes.text(
        percent,
        -0.75,
        f" all regions: {percent:.0f} % ",
        fontsize=8,
        color="#555555",
        va="bottom",
        ha="left" if percent < 0.6 * top else "right",
    )


def _label(row: pd.Series, by: str, targets: str) -> str:
    n = counted(int(row["n_targets"]), targets)
    return f"{row[by]}  ({n}, {counted(int(row['n_subjects']), 'subjects')})"


def _overall(regions: pd.DataFrame) -> float:
    return float(regions["n_sites"].sum() / regions["n_targets"].sum())


def _bars_caption(
    regions: pd.DataFrame, n_shown: int, targets: str, all_known: bool
) -> str:
    level = regions.attrs.get("confidence", 0.95)
    parts = [
        f"Share of {targets} that are sites; lines: {level:.0%} intervals over "
        "resampled subjects."
    ]
    if regions["share"].isin((0, 1)).any():
        parts.append(f"Where no {targets} or all are sites: exact binomial limit.")
    if not all_known:
        parts.append("Pale: one subject, so no interval.")
    if len(regions) > n_shown:
        parts.append(f"{n_shown} of {len(regions)} regions are shown.")
    left_out = regions.attrs.get("n_without_region", 0)
    if left_out:
        parts.append(f"{counted(left_out, targets)} without a region left out.")
    return " ".join(parts)


def _edges(gain: NDArray[np.floating], n_bins: int) -> NDArray[np.float64]:
    """Equal bins of a round width, one edge at 0."""
    low, high = min(float(gain.min()), 0.0), max(float(gain.max()), 0.0)
    span = max(high - low, 1e-6)
    power = 10.0 ** np.floor(np.log10(span / n_bins))
    width = next(s * power for s in (1, 2, 5, 10) if s * power >= span / n_bins)
    first, last = np.floor(low / width), np.floor(high / width) + 1
    return np.asarray(np.arange(first, last + 1) * width)
