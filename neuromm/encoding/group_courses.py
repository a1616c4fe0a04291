"""Scores over time around the event, over the targets of several subjects.

Neighbouring bins repeat each other, so bins are never resampled: subjects are, each
with all of its bins.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuromm.core import UsageError
from neuromm.encoding.group_resampling import ratio_draws, ratio_interval
from neuromm.encoding.group_tables import (
    Tables,
    joined_tables,
    models_of,
    named_regions,
)

__all__ = ["peak_times", "score_courses"]

_KEY = ("target", "time")


def score_courses(
    courses: Tables,
    *,
    by: str | None = None,
    n_resamples: int = 2000,
    confidence: float = 0.95,
    rng: int | np.random.Generator | None = 0,
) -> pd.DataFrame:
    """Mean score of each model over time, with an interval over subjects.

    Parameters
    ----------
    courses : DataFrame with ``subject``, or mapping of subject to DataFrame
        A row a target and time bin: ``target`` (the contact, the same in all of its
        bins), ``time`` (s from the event), ``score_<model>``, and ``is_site`` where
        single bins were tested.
    by : str, optional
        Column to draw apart, such as ``"region"``; targets without one are left out.
    n_resamples : int
    confidence : float
    rng : int, numpy.random.Generator or None

    Returns
    -------
    means : DataFrame
        A row a model and time: ``by``, ``model``, ``time``, ``score`` (mean over
        subjects of their means) with ``ci_low`` and ``ci_high``, ``n_subjects``,
        ``n_targets``, ``resampled`` ("subjects"; "targets" for a single subject, "" for
        a single target, whose interval is nan) and ``share_sites`` (share of targets
        that are sites in this bin; nan where bins were not tested).
    """
    joined = joined_tables(courses, (), key=_KEY)
    models = models_of(joined)
    if not models:
        raise UsageError("the courses have no column score_<model>")
    if by is None:
        joined, by_name = joined.assign(_all=""), "_all"
    else:
        joined = joined_tables(joined, (by,), key=_KEY)
        joined, by_name = joined[named_regions(joined[by])], by
    generator = np.random.default_rng(rng)
    parts = []
    for place, rows in joined.groupby(by_name, sort=True, observed=True):
        for model in models:
            scored = rows[rows[f"score_{model}"].notna()]
            if scored.empty:
                continue
            one = _mean_course(
                scored, f"score_{model}", n_resamples, confidence, generator
            )
            one.insert(0, "model", model)
            if by is not None:
                one.insert(0, by, place)
            parts.append(one)
    return pd.concat(parts, ignore_index=True)


def peak_times(
    courses: Tables,
    by: str,
    n_resamples: int,
    confidence: float,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Time of the largest mean gain of each region.

    Parameters
    ----------
    courses : DataFrame with ``subject``, or mapping of subject to DataFrame
        A row a target and time bin: ``target``, ``time`` (s), ``gain`` and ``by``.

    Returns
    -------
    times : DataFrame
        ``by``, ``time_of_largest_gain``, and the interval ``time_low`` to
        ``time_high`` over resampled subjects (nan for one subject), in s.
    """
    joined = joined_tables(courses, (by, "gain"), key=_KEY)
    joined = joined[named_regions(joined[by]) & joined["gain"].notna()]
    rows = []
    for place, one in joined.groupby(by, sort=True, observed=True):
        means = _subject_means(one, "gain")
        bins = means.columns.to_numpy(dtype=float)
        values, known = _filled(means)
        interval = np.full(2, np.nan)
        if len(means) > 1:
            draws = ratio_draws(values, known, n_resamples, rng)
            peaks = bins[np.nan_to_num(draws, nan=-np.inf).argmax(axis=1)]
            ends = [(1 - confidence) / 2, (1 + confidence) / 2]
            interval = np.quantile(peaks, ends)
        peak = bins[int(means.mean().to_numpy().argmax())]
        row = {by: place, "time_of_largest_gain": peak}
        rows.append({**row, "time_low": interval[0], "time_high": interval[1]})
    columns = [by, "time_of_largest_gain", "time_low", "time_high"]
    return pd.DataFrame(rows, columns=columns)


def _mean_course(
    rows: pd.DataFrame,
    column: str,
    n_resamples: int,
    confidence: float,
    rng: np.random.Generator,
) -> pd.DataFrame:
    n_subjects = rows["subject"].nunique()
    means = _subject_means(rows, column)
    n_targets = rows[["subject", "target"]].drop_duplicates().shape[0]
    units, resampled = means, "subjects"
    if n_subjects == 1:
        units = rows.pivot(index="target", columns="time", values=column)
        resampled = "targets" if n_targets > 1 else ""
    values, known = _filled(units)
    low, high = ratio_interval(
        values, known, confidence=confidence, n_resamples=n_resamples, rng=rng
    )
    course = pd.DataFrame(
        {
            "time": means.columns.to_numpy(dtype=float),
            "score": means.mean().to_numpy(),
            "ci_low": low,
            "ci_high": high,
            "n_subjects": n_subjects,
            "n_targets": n_targets,
            "resampled": resampled,
            "share_sites": np.nan,
        }
    )
    if "is_site" in rows:
        shares = rows.groupby("time")["is_site"].mean()
        course["share_sites"] = shares.reindex(course["time"]).to_numpy(dtype=float)
    return course


def _subject_means(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Mean over targets, (n_subjects, n_times); nan for a bin that a subject lacks."""
    means = rows.groupby(["subject", "time"], observed=True)[column].mean()
    return means.unstack("time").sort_index(axis=1)


def _filled(units: pd.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values with 0 for what is missing, and 1 where there is one."""
    values = units.to_numpy(dtype=float)
    known = ~np.isnan(values)
    return np.where(known, values, 0.0), known.astype(float)
