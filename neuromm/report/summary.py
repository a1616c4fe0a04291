"""What a unit found, in a few numbers a feature space."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = [
    "NO_REGION",
    "SIGNIFICANCE",
    "alpha_edges",
    "channel_peaks",
    "region_table",
    "unit_summary",
]

SIGNIFICANCE = 0.05  # false discovery rate below which a target counts
_N_TOP_REGIONS = 5
_N_NAMES = 20
NO_REGION = ("", "n/a", "unknown", "background")


def unit_summary(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Numbers of targets and scores of each feature space.

    Parameters
    ----------
    table : DataFrame
        The long table of a unit: ``space``, ``region``, ``r``, ``q``.

    Returns
    -------
    summary : dict
        Feature space to ``n_targets``, ``n_scored`` (finite r), ``median_r``,
        ``max_r`` and ``best_target`` (None where nothing is scored),
        ``unscored`` (names of targets without a score, at most 20),
        ``n_significant`` (q < 0.05; None without a permutation test) and
        ``top_regions``, a list of {region, mean_r, n_targets}.
    """
    return {
        str(space): _space_summary(rows)
        for space, rows in table.groupby("space", sort=False, observed=True)
    }


def region_table(table: pd.DataFrame) -> pd.DataFrame:
    """Mean score of each region in each feature space, best first.

    Parameters
    ----------
    table : DataFrame
        Columns ``space``, ``region``, ``r`` and, if tested, ``q``. Targets without a
        region or without a score are left out.

    Returns
    -------
    regions : DataFrame
        ``space``, ``region``, ``mean_r``, ``max_r``, ``n_targets``,
        ``n_significant`` (nan without a test); spaces in their order in ``table``.
    """
    columns = ["space", "region", "mean_r", "max_r", "n_targets", "n_significant"]
    kept = table[_has_region(table["region"]) & table["r"].notna()]
    if kept.empty:
        return pd.DataFrame(columns=columns)
    significant = (kept["q"] < SIGNIFICANCE).where(kept["q"].notna())
    grouped = kept.assign(significant=significant.astype(float)).groupby(
        ["space", "region"], sort=False, observed=True
    )
    regions = grouped.agg(
        mean_r=("r", "mean"), max_r=("r", "max"), n_targets=("r", "size")
    )
    regions["n_significant"] = grouped["significant"].sum(min_count=1)
    regions = regions.reset_index()
    order = {space: i for i, space in enumerate(pd.unique(table["space"]))}
    regions["_space"] = regions["space"].map(order).astype(int)
    regions = regions.sort_values(
        ["_space", "mean_r", "region"], ascending=[True, False, True]
    )
    return regions[columns].reset_index(drop=True)


def channel_peaks(table: pd.DataFrame) -> pd.DataFrame:
    """The highest score over time of each channel in each feature space.

    The peak of noise is above 0: peaks compare channels, and do not test them.

    Parameters
    ----------
    table : DataFrame
        The long table of a unit; without ``time`` it is handed back as it is.

    Returns
    -------
    peaks : DataFrame
        A row a feature space and channel: the row of its highest r, with ``target``
        the channel, ``time`` that of the peak, and ``q`` its lowest q.
    """
    if "time" not in table or table["time"].nunique() < 2:
        return table
    named = table.assign(target=_channels(table))
    scored = named[named["r"].notna()]
    grouped = scored.groupby(["space", "target"], observed=True, sort=False)
    peaks = scored.loc[grouped["r"].idxmax()]
    lowest = grouped["q"].min().to_numpy()
    return peaks.assign(q=lowest).reset_index(drop=True)


def _channels(table: pd.DataFrame) -> pd.Series:
    """Name of the channel: its own column, or the target before the "@" of its time."""
    if "channel" in table:
        return table["channel"].astype(str)
    return table["target"].astype(str).str.rpartition("@")[0]


def _space_summary(rows: pd.DataFrame) -> dict[str, Any]:
    scored = rows[rows["r"].notna()]
    tested = bool(rows["q"].notna().any())
    summary: dict[str, Any] = {
        "n_targets": len(rows),
        "n_scored": len(scored),
        "unscored": rows.loc[rows["r"].isna(), "target"]
        .astype(str)
        .tolist()[:_N_NAMES],
        "median_r": _rounded(scored["r"].median()) if len(scored) else None,
        "max_r": _rounded(scored["r"].max()) if len(scored) else None,
        "best_target": str(scored["target"].to_numpy()[scored["r"].argmax()])
        if len(scored)
        else None,
        "n_significant": int((rows["q"] < SIGNIFICANCE).sum()) if tested else None,
    }
    regions = region_table(channel_peaks(rows)).head(_N_TOP_REGIONS)
    summary["top_regions"] = [
        {
            "region": str(row["region"]),
            "mean_r": _rounded(row["mean_r"]),
            "n_targets": int(row["n_targets"]),
        }
        for row in regions.to_dict("records")
    ]
    return summary


def _has_region(regions: pd.Series) -> pd.Series:
    named = regions.notna()
    return named & ~regions.astype(str).str.strip().str.lower().isin(NO_REGION)


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def alpha_edges(alpha: NDArray[np.floating], grid: Any) -> dict[str, float] | None:
    """Share of targets whose alpha lies at each edge of the grid.

    Returns
    -------
    shares : mapping or None
        ``lowest`` and ``highest`` in [0, 1]; None without a grid of two or more.
    """
    values = np.unique(np.asarray([] if grid is None else grid, dtype=float))
    chosen = alpha[np.isfinite(alpha)]
    if len(values) < 2 or not len(chosen):
        return None
    return {
        "lowest": _rounded(float(np.isclose(chosen, values[0]).mean())),
        "highest": _rounded(float(np.isclose(chosen, values[-1]).mean())),
    }
