"""What sites of several subjects have in common: regions, effects, alignments, ranks.

Targets of one subject resemble each other, and subjects are covered differently. So
intervals come from resampled subjects, and tests flip signs of whole subjects. With
few subjects both say little, and say so.
"""

import warnings
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from neuromm.core import UsageError
from neuromm.encoding.group_comparisons import winner_counts
from neuromm.encoding.group_courses import peak_times
from neuromm.encoding.group_resampling import (
    Alternative,
    ratio_interval,
    sign_flip_p,
)
from neuromm.encoding.group_tables import Tables, joined_tables, named_regions
from neuromm.encoding.site_decision import adjusted

__all__ = ["both_alignments", "group_effect", "model_ranks", "region_table"]

_FEW_SUBJECTS = 6  # fewer cannot reach p < 0.05 in a two-sided test
_EVERYTHING = "all"


def region_table(
    tables: Tables,
    *,
    by: str = "region",
    courses: Tables | None = None,
    n_resamples: int = 2000,
    confidence: float = 0.95,
    level: float = 0.05,
    rng: int | np.random.Generator | None = 0,
) -> pd.DataFrame:
    """Count sites in each region, over subjects.

    Parameters
    ----------
    tables : DataFrame with ``subject``, or mapping of subject to DataFrame
        `SiteMap.table` with the column ``by``; with columns
        ``p_<first>_over_<second>`` (`comparison_table`) wins are counted as well.
    by : str
        Column of regions. Targets without one are left out.
    courses : as ``tables``, optional
        Rows a target and time bin: ``target``, ``time`` (s), ``gain`` and ``by``.
    n_resamples, confidence : int, float
        Of the intervals.
    level : float
        False discovery rate of the comparisons.
    rng : int, numpy.random.Generator or None

    Returns
    -------
    regions : DataFrame
        A row a region, the largest share first: ``by``, ``n_targets`` (tested:
        contacts, vertices or voxels), ``n_subjects``, ``n_sites``,
        ``n_subjects_with_sites``, ``share`` (n_sites / n_targets) with ``share_low``
        and ``share_high``, and ``mean_gain`` (of all targets). For each comparison
        ``share_<first>_over_<second>``, ``n_default_<first>_over_<second>`` and, in the
        other direction, ``n_default_<second>_over_<first>`` (`winner_counts`). With
        courses ``time_of_largest_gain``, ``time_low`` and ``time_high`` (s).
        ``attrs["share"]`` is the share in all regions,
        ``attrs["n_without_region"]`` the number of targets left out.

    Notes
    -----
    The interval of the share resamples subjects with all of their targets. Where no
    target or every target is a site, resamples do not differ; then the far end is that
    of the exact binomial interval over targets (Clopper & Pearson 1934), as if targets
    were independent. One subject has no interval (nan).

    The time of the largest gain is a description: a peak is always somewhere.
    """
    joined = joined_tables(tables, (by, "is_site", "gain"))
    named = named_regions(joined[by])
    kept = joined[named & joined["gain"].notna()]
    generator = np.random.default_rng(rng)
    rows = [
        {by: region, **_counts(one, n_resamples, confidence, generator)}
        for region, one in kept.groupby(by, sort=True, observed=True)
    ]
    if not rows:
        raise UsageError(
            f"no scored target has a region in the column {by!r}; name them with "
            "neuromm.atlas (load_atlas(...).label) or choose another column"
        )
    regions = pd.DataFrame(rows)
    if any("_over_" in str(name) for name in joined):
        regions = regions.merge(_wins(kept, by, level), on=by, how="left")
    if courses is not None:
        times = peak_times(courses, by, n_resamples, confidence, generator)
        regions = regions.merge(times, on=by, how="left")
    ordered = regions.sort_values(
        ["share", "n_targets", by], ascending=[False, False, True]
    ).reset_index(drop=True)
    ordered.attrs = {
        "by": by,
        "share": float(kept["is_site"].mean()),
        "confidence": confidence,
        "n_subjects": int(kept["subject"].nunique()),
        "n_without_region": int((~named & joined["gain"].notna()).sum()),
    }
    return ordered


def group_effect(
    values: ArrayLike,
    subjects: ArrayLike,
    *,
    regions: ArrayLike | None = None,
    kind: Literal["fixed", "random"] = "random",
    alternative: Alternative = "greater",
    n_resamples: int = 10_000,
    confidence: float = 0.95,
    rng: int | np.random.Generator | None = 0,
) -> pd.DataFrame:
    """Mean of a gain over targets of several subjects, and whether it is above 0.

    Parameters
    ----------
    values : array of shape (n_targets,)
        Gain of each target; nan is left out.
    subjects : array of shape (n_targets,)
        Subject of each target.
    regions : array of shape (n_targets,), optional
        Region of each target: an effect each. All targets together if not given.
    kind : {"random", "fixed"}
        Whether subjects are a sample of those one speaks of ("random"), or all of them
        ("fixed": targets are pooled, as if independent; nothing follows for others).
    alternative : {"greater", "two-sided"}
    n_resamples : int
        Of the units for the interval, and of signs where there are more than 16 units.
    confidence : float
    rng : int, numpy.random.Generator or None

    Returns
    -------
    effects : DataFrame
        A row a region, the largest mean first: ``region``, ``mean`` with ``ci_low``
        and ``ci_high``, ``p``, ``q`` (Benjamini-Hochberg over regions),
        ``smallest_p`` (that so many units can give), ``n_subjects``, ``n_targets``,
        ``kind``. The interval of a single unit is nan.

    Warns
    -----
    UserWarning
        If an effect of random subjects rests on fewer than 6 of them.

    Notes
    -----
    The unit is a subject's mean gain ("random"; every subject counts the same) or a
    target ("fixed"). p flips the signs of units: exact up to 16 units, where all
    patterns are tried. The interval is that of resampled units, whole subjects with all
    of their targets: resampling within them as well covers too often, 98 % at 95 %.
    """
    _check_choice("kind", kind, ("fixed", "random"))
    _check_choice("alternative", alternative, ("greater", "two-sided"))
    table = _columns(values, subjects, regions)
    generator = np.random.default_rng(rng)
    rows = []
    for region, one in table.groupby("region", sort=True):
        means = one.groupby("subject", sort=True)["value"].mean().to_numpy()
        units = means if kind == "random" else one["value"].to_numpy()
        low, high = ratio_interval(
            units,
            np.ones(len(units)),
            confidence=confidence,
            n_resamples=n_resamples,
            rng=generator,
        )
        p, smallest = sign_flip_p(
            units, alternative=alternative, n_resamples=n_resamples, rng=generator
        )
        row = {"region": region, "mean": units.mean(), "ci_low": low, "ci_high": high}
        row |= {"p": p, "smallest_p": smallest, "n_subjects": len(means)}
        rows.append({**row, "n_targets": len(one), "kind": kind})
    effects = pd.DataFrame(rows)
    effects.insert(5, "q", adjusted(effects["p"].to_numpy(), "bh"))
    if kind == "random":
        _warn_of_few(effects)
    return effects.sort_values(["mean", "region"], ascending=[False, True]).reset_index(
        drop=True
    )


def both_alignments(
    first: Tables,
    second: Tables,
    *,
    names: tuple[str, str] = ("word", "scene"),
) -> pd.DataFrame:
    """Sites in two alignments of the same recordings.

    Parameters
    ----------
    first, second : DataFrame, or mapping of subject to DataFrame
        `SiteMap.table` of the responses to words and to scene cuts, joined by
        ``target``, and by ``subject`` where there is one.
    names : (str, str)
        Of the alignments.

    Returns
    -------
    sites : DataFrame
        A row a target of either table: ``subject``, ``target``, columns of both such as
        ``region``, ``x``; ``is_site_<name>``, ``gain_<name>`` and ``q_<name>`` of each
        alignment; ``tested`` ("both", or the name of the only one that has a score);
        ``is_site`` (in both), and, as one alignment alone does not make a site,
        ``gain`` (the smaller) and ``q`` (the larger of the two; nan without both).
    """
    one, other = (_with_subject(table) for table in (first, second))
    keys = ["subject", "target"]
    columns = ["is_site", "gain", "q"]
    left, right = (
        joined_tables(table, columns)[[*keys, *columns]] for table in (one, other)
    )
    merged = left.merge(
        right, on=keys, how="outer", suffixes=(f"_{names[0]}", f"_{names[1]}")
    )
    for name in names:
        found = merged[f"is_site_{name}"].astype("boolean").fillna(False)
        merged[f"is_site_{name}"] = found.astype(bool)
    scored = merged[[f"gain_{name}" for name in names]].notna().to_numpy()
    merged["tested"] = np.select(
        [scored.all(axis=1), scored[:, 0], scored[:, 1]], ["both", *names], ""
    )
    merged["is_site"] = merged[[f"is_site_{name}" for name in names]].all(axis=1)
    merged["gain"] = merged[[f"gain_{name}" for name in names]].min(
        axis=1, skipna=False
    )
    merged["q"] = merged[[f"q_{name}" for name in names]].max(axis=1, skipna=False)
    places = [_places(table, (*keys, *columns)) for table in (one, other)]
    about = pd.concat(places, ignore_index=True).drop_duplicates(keys)
    merged = about.merge(merged, on=keys, how="right")
    named = not isinstance(first, pd.DataFrame) or "subject" in first
    return merged if named else merged.drop(columns="subject")


def model_ranks(
    scores: pd.DataFrame,
    regions: ArrayLike,
    *,
    subjects: ArrayLike | None = None,
) -> pd.DataFrame:
    """Rank of each model in each region.

    Parameters
    ----------
    scores : DataFrame
        A row a target, a column a model.
    regions : array of shape (n_targets,)
    subjects : array of shape (n_targets,), optional
        With it, each subject counts the same: means over subjects of their means.

    Returns
    -------
    ranks : DataFrame
        A row a region and model: ``region``, ``model``, ``mean_score``, ``rank`` (1 is
        best; ties share the mean of their ranks), ``n_targets`` and ``n_subjects``
        (nan without subjects). Models are compared on the targets at which all that
        have a score in the region have one; a model without any is nan.
    """
    models = [str(name) for name in scores.columns]
    table = scores.set_axis(models, axis=1).reset_index(drop=True)
    places = np.asarray(regions, dtype=object)
    people = np.zeros(len(table)) if subjects is None else np.asarray(subjects)
    if len(places) != len(table) or len(people) != len(table):
        raise UsageError(
            f"regions and subjects must have one entry a row of scores, {len(table)}, "
            f"got {len(places)} and {len(people)}"
        )
    rows = []
    named = named_regions(pd.Series(places))
    for region in sorted(set(places[named])):
        inside = table[places == region]
        present = inside.columns[inside.notna().any()]
        complete = inside[present].dropna()
        owners = people[complete.index]
        means = complete.groupby(owners).mean().mean().reindex(models)
        ranks = means.rank(ascending=False, method="average")
        n_subjects = np.nan if subjects is None else len(set(owners))
        rows += [
            {
                "region": region,
                "model": model,
                "mean_score": means[model],
                "rank": ranks[model],
                "n_targets": len(complete),
                "n_subjects": n_subjects,
            }
            for model in models
        ]
    return pd.DataFrame(rows)


def _counts(
    rows: pd.DataFrame,
    n_resamples: int,
    confidence: float,
    rng: np.random.Generator,
) -> dict[str, float]:
    """Numbers of one region."""
    by_subject = rows.groupby("subject", sort=True)["is_site"].agg(["sum", "size"])
    sites = by_subject["sum"].to_numpy(dtype=float)
    targets = by_subject["size"].to_numpy(dtype=float)
    low, high = ratio_interval(
        sites, targets, confidence=confidence, n_resamples=n_resamples, rng=rng
    )
    if len(sites) > 1 and sites.sum() in (0, targets.sum()):
        # (alpha / 2)^(1 / n): Clopper-Pearson's far end for none or all of n.
        far = ((1 - confidence) / 2) ** (1 / targets.sum())
        low, high = (0.0, 1 - far) if sites.sum() == 0 else (far, 1.0)
    return {
        "n_targets": int(targets.sum()),
        "n_subjects": len(sites),
        "n_sites": int(sites.sum()),
        "n_subjects_with_sites": int((sites > 0).sum()),
        "share": sites.sum() / targets.sum(),
        "share_low": low,
        "share_high": high,
        "mean_gain": rows["gain"].mean(),
    }


def _wins(tables: pd.DataFrame, by: str, level: float) -> pd.DataFrame:
    """Share of wins and number of default wins of each comparison, a row a region."""
    counts = winner_counts(tables, by=by, level=level)
    wide: dict[str, pd.Series] = {}
    for (first, second), rows in counts.groupby(["first", "second"], sort=False):
        numbers = rows.set_index(by)
        name, back = f"{first}_over_{second}", f"{second}_over_{first}"
        wide[f"share_{name}"] = numbers["share"]
        wide[f"n_default_{name}"] = numbers["n_default_first"]
        if second != "chance":
            wide[f"n_default_{back}"] = numbers["n_default_second"]
    return pd.DataFrame(wide).rename_axis(by).reset_index()


def _columns(
    values: ArrayLike, subjects: ArrayLike, regions: ArrayLike | None
) -> pd.DataFrame:
    gains = np.asarray(values, dtype=float)
    people = np.asarray(subjects)
    places = (
        np.full(len(gains), _EVERYTHING, dtype=object)
        if regions is None
        else np.asarray(regions, dtype=object)
    )
    if gains.ndim != 1 or people.shape != gains.shape or places.shape != gains.shape:
        raise UsageError(
            "values, subjects and regions must have one entry a target, got the shapes "
            f"{gains.shape}, {people.shape} and {places.shape}"
        )
    table = pd.DataFrame({"value": gains, "subject": people, "region": places})
    kept = table[named_regions(table["region"]) & table["value"].notna()]
    if kept.empty:
        raise UsageError("no target has both a value and a region")
    return kept


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise UsageError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def _warn_of_few(effects: pd.DataFrame) -> None:
    few = effects[effects["n_subjects"] < _FEW_SUBJECTS]
    if few.empty:
        return
    fewest = few.iloc[int(few["n_subjects"].to_numpy().argmin())]
    warnings.warn(
        f"{len(few)} of {len(effects)} regions rest on fewer than {_FEW_SUBJECTS} "
        f"subjects: {fewest['region']} on {fewest['n_subjects']}, where p cannot fall "
        f"below {fewest['smallest_p']:.3g} whatever the gain",
        stacklevel=3,
    )


def _with_subject(tables: Tables) -> Tables:
    if isinstance(tables, pd.DataFrame) and "subject" not in tables:
        return tables.assign(subject="")
    return tables


def _places(tables: Tables, without: Sequence[str]) -> pd.DataFrame:
    """Columns that say where a target lies, rather than what was found there."""
    joined = joined_tables(tables, ())
    found = ("score_", "p_", "q_", "is_site_", "gain_")
    kept = [
        str(name)
        for name in joined
        if not str(name).startswith(found)
        and name not in (*without, "ci_low", "ci_high", "competitor", "p", "tested")
    ]
    return joined[["subject", "target", *kept]]
