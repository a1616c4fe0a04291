"""What a map of sites found, in counts of targets, regions and competitors."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuromm.report.site_protocol import follows_protocol, protocol_warning
from neuromm.report.summary import NO_REGION

__all__ = ["region_counts", "site_summary", "site_warnings", "sites_without"]


def sites_without(
    table: pd.DataFrame,
    controls: Sequence[str],
    *,
    level: float,
    correction: Literal["bh", "by"],
) -> NDArray[np.bool_]:
    """Targets that would be sites if these controls had not competed.

    Parameters
    ----------
    table : DataFrame
        ``p_<competitor>`` of every comparison, and ``score_<model>``.
    controls : sequence of str
    level : float
        Of the false discovery rate.
    correction : {"bh", "by"}

    Returns
    -------
    sites : boolean array of shape (n_targets,)
    """
    from scipy.stats import false_discovery_control

    left_out = {f"p_{name}" for name in controls}
    columns = [c for c in table if str(c).startswith("p_") and c not in left_out]
    p = table[columns].max(axis=1, skipna=False).to_numpy(dtype=float)
    found = np.zeros(len(p), dtype=bool)
    tested = np.isfinite(p)
    if tested.any():
        q = false_discovery_control(p[tested], method=correction)
        found[tested] = q <= level
    return found


def region_counts(table: pd.DataFrame) -> pd.DataFrame:
    """Sites of each region, most of them first.

    Parameters
    ----------
    table : DataFrame
        ``region``, ``q``, ``gain``, ``is_site``; a row a target. With ``winner``, the
        model with the best score, these are counted as well.

    Returns
    -------
    regions : DataFrame
        ``region``, ``n_targets`` (that could be tested), ``n_sites``, ``share``
        (sites of the tested) with ``share_low`` and ``share_high`` (95 %, Wilson: as
        if targets were independent, so too narrow for neighbours), ``mean_gain`` (over
        the tested), and ``n_best_<model>``, tested targets that this model predicts
        best. Targets without a region are left out.
    """
    from statsmodels.stats.proportion import proportion_confint

    named = ~table["region"].astype(str).str.strip().str.lower().isin(NO_REGION)
    kept = table[named & table["region"].notna() & table["q"].notna()]
    grouped = kept.groupby("region", observed=True, sort=True)
    regions = grouped.agg(
        n_targets=("is_site", "size"),
        n_sites=("is_site", "sum"),
        mean_gain=("gain", "mean"),
    ).reset_index()
    regions["share"] = regions["n_sites"] / regions["n_targets"]
    low, high = proportion_confint(
        regions["n_sites"].to_numpy(), regions["n_targets"].to_numpy(), method="wilson"
    )
    regions["share_low"], regions["share_high"] = low, high
    best: list[str] = []
    if "winner" in kept:
        counts = pd.crosstab(kept["region"], kept["winner"])
        counts.columns = pd.Index([f"n_best_{name}" for name in counts])
        best = [str(name) for name in counts.columns]
        regions = regions.merge(counts.reset_index(), on="region", how="left")
    regions = regions.sort_values(
        ["n_sites", "share", "region"], ascending=[False, False, True]
    )
    share = ["share", "share_low", "share_high"]
    columns = ["region", "n_targets", "n_sites", *share, "mean_gain", *best]
    return regions[columns].reset_index(drop=True)


def site_summary(
    table: pd.DataFrame, settings: Mapping[str, Any], models: Sequence[str]
) -> dict[str, Any]:
    """Numbers that the report tells.

    Parameters
    ----------
    table : DataFrame
        A row a target, see `neuromm.report.write_sites`.
    settings : mapping
        ``multimodal``, ``controls``, ``q``, ``correction``.
    models : sequence of str
        Names of the scores.

    Returns
    -------
    summary : dict
        ``n_targets``, ``n_tested``, ``n_sites``, ``strongest`` (competitor to the
        number of sites at which it is the best one, most first; of tested targets where
        there is no site), ``models``
        (name to ``median_score`` over the tested and ``mean_score_at_sites``, None
        where there is none) and, where there are controls, ``n_sites_without_controls``
        and ``controls``: name to ``n_not_beaten``, how many of those it stops.
    """
    tested, sites = table[table["q"].notna()], table[table["is_site"]]
    # Where nothing is predicted, the best of several models is a matter of chance.
    strongest = (sites if len(sites) else tested)["competitor"].value_counts()
    summary: dict[str, Any] = {
        "n_targets": len(table),
        "n_tested": len(tested),
        "n_sites": len(sites),
        "strongest": {str(name): int(n) for name, n in strongest.items()},
        "models": {
            name: {
                "median_score": _rounded(tested[f"score_{name}"].median()),
                "mean_score_at_sites": _rounded(sites[f"score_{name}"].mean()),
            }
            for name in models
        },
    }
    controls = list(settings["controls"])
    if follows_protocol(settings):
        summary["n_by_default"] = int(table["by_default"].sum())
    elif controls:
        level = settings["q"]
        candidates = table[
            sites_without(
                table, controls, level=level, correction=settings["correction"]
            )
        ]
        summary["n_sites_without_controls"] = len(candidates)
        summary["controls"] = {
            name: {"n_not_beaten": int((candidates[f"p_{name}"] > level).sum())}
            for name in controls
        }
    return summary


def site_warnings(
    summary: Mapping[str, Any],
    settings: Mapping[str, Any],
    feature_spaces: Mapping[str, Mapping[str, Any]],
) -> list[str]:
    """What a reader of the map has to know before believing it.

    Parameters
    ----------
    summary : mapping
        Of `site_summary`.
    settings : mapping
        ``multimodal``, ``unimodal``, ``controls``; ``protocol`` of a published one.
    feature_spaces : mapping
        Name to what its table says of itself: ``kind``, ``model``.
    """
    multimodal = settings["multimodal"]
    told = []
    if follows_protocol(settings):
        told.append(protocol_warning(settings, summary["n_by_default"]))
    candidates = summary.get("n_sites_without_controls", 0)
    for name, numbers in (summary.get("controls") or {}).items():
        count = numbers["n_not_beaten"]
        if count:
            told.append(
                f"The control '{name}' does as well as '{multimodal}' at {count:,} of "
                f"{candidates:,} targets that would be sites without controls: what "
                f"'{multimodal}' predicts there needs no trained multimodal network. "
                "They are not counted as sites."
            )
    used = [multimodal, *settings["unimodal"], *settings["controls"]]
    stand_ins = [name for name in used if _kind(feature_spaces, name) == "stand-in"]
    if stand_ins:
        told.append(
            f"{', '.join(stand_ins)} {_come(stand_ins)} from a stand-in backbone, not "
            "from a trained network: this map shows that the pipeline works, and says "
            "nothing about the brain."
        )
    if _kind(feature_spaces, multimodal) == "random twin":
        told.append(
            f"'{multimodal}' is a random twin of a network: its sites are none of "
            "learnt integration."
        )
    return told


def _kind(feature_spaces: Mapping[str, Mapping[str, Any]], name: str) -> str:
    return str((feature_spaces.get(name) or {}).get("kind", "")).lower()


def _come(names: Sequence[str]) -> str:
    return "comes" if len(names) == 1 else "come"


def _rounded(value: float) -> float | None:
    return float(f"{value:.6g}") if np.isfinite(value) else None
