"""Folds, gaps and blocks for a labelled response matrix, where none are asked for."""

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from neuromm.core import UsageError
from neuromm.encoding.splitters import (
    BlockedKFold,
    RunKFold,
    Split,
    as_splits,
    run_rows,
)

__all__ = [
    "default_block",
    "default_purge",
    "inner_splits",
    "outer_folds",
    "run_labels",
]

_N_BLOCKS = 5
# Samples, and seconds, that blocks of a permutation span at least.
_BLOCK_SAMPLES, _BLOCK_SECONDS = 10, 10.0
# Volumes of a gap in fMRI: the span of the haemodynamic response at a t_r of 2 s.
_PURGE_SAMPLES = 10


def run_labels(responses: xr.DataArray) -> NDArray[np.object_]:
    """Run of each sample, told apart over subjects."""
    subject = responses["subject"].to_numpy().astype(str)
    run = responses["run"].to_numpy().astype(str)
    if len(np.unique(subject)) == 1:
        return run.astype(object)
    pairs = [f"{one}/{other}" for one, other in zip(subject, run, strict=True)]
    return np.array(pairs, dtype=object)


def default_purge(responses: xr.DataArray) -> float:
    """Seconds between training and held-out samples of one run.

    The span of the epoch where targets have a ``time`` coordinate; else ten times the
    typical interval of samples, the span of the haemodynamic response.
    """
    if "time" in responses.coords:
        times = responses["time"].to_numpy().astype(float)
        times = times[np.isfinite(times)]
        if times.size:
            return float(np.ptp(times))
    return _PURGE_SAMPLES * _typical_interval(responses)


def default_block(responses: xr.DataArray) -> int:
    """Samples in a block of a permutation.

    At least 10 samples and 10 s, but never more than a quarter of the typical run,
    without which there is little to permute.
    """
    interval = _typical_interval(responses)
    wanted = _BLOCK_SAMPLES
    if interval > 0:
        wanted = max(wanted, int(np.ceil(_BLOCK_SECONDS / interval)))
    lengths = [len(rows) for rows in run_rows(run_labels(responses))]
    return int(max(1, min(wanted, np.median(lengths) // 4)))


def outer_folds(responses: xr.DataArray, cv: Any) -> tuple[list[Split], str]:
    """Folds whose held-out samples are scored, and their description.

    Leaves one run out where there are two or more, else five contiguous blocks with
    `default_purge`.

    Raises
    ------
    neuromm.core.UsageError
        If ``cv`` holds a sample out twice.
    """
    runs = run_labels(responses)
    onset = responses["onset"].to_numpy()
    if cv is None:
        cv = _default_splitter(runs, default_purge(responses))
    splits = as_splits(_timed(cv, onset), runs, None, runs)
    held_out = np.concatenate([test for _, test in splits])
    if len(np.unique(held_out)) < len(held_out):
        raise UsageError(
            "cv holds some samples out more than once; predictions are pooled over "
            "folds, so each sample may be held out once"
        )
    return splits, _description(cv, len(splits))


def inner_splits(
    responses: xr.DataArray, train: NDArray[np.intp], inner_cv: Any
) -> list[Split]:
    """Folds within training samples, as positions in ``train``.

    Parameters
    ----------
    responses : DataArray, dims (sample, target)
    train : integer array
    inner_cv : None, int or splitter
        None leaves one run out where the training samples have two or more, else five
        contiguous blocks with `default_purge`.
    """
    if inner_cv is not None and not (
        isinstance(inner_cv, (int, np.integer)) or hasattr(inner_cv, "split")
    ):
        raise UsageError(
            "inner_cv must be a number of folds or a splitter, as each outer fold has "
            f"its own training samples, got {inner_cv!r}"
        )
    runs = run_labels(responses)[train]
    onset = responses["onset"].to_numpy()[train]
    if inner_cv is None:
        inner_cv = _default_splitter(runs, default_purge(responses))
    return as_splits(_timed(inner_cv, onset), runs, None, runs)


def _default_splitter(runs: NDArray[np.object_], purge: float) -> Any:
    if len(set(runs)) >= 2:
        return RunKFold()
    return BlockedKFold(_N_BLOCKS, purge=purge)


def _timed(cv: Any, onset: NDArray[np.float64]) -> Any:
    if isinstance(cv, BlockedKFold):
        return BlockedKFold(cv.n_splits, purge=cv.purge, onset=onset)
    return cv


def _typical_interval(responses: xr.DataArray) -> float:
    onset = responses["onset"].to_numpy().astype(float)
    steps = [np.diff(np.sort(onset[rows])) for rows in run_rows(run_labels(responses))]
    joined = np.concatenate(steps)
    return float(np.median(joined)) if joined.size else 0.0


def _description(cv: Any, n_folds: int) -> str:
    if isinstance(cv, RunKFold) and cv.n_splits is None:
        return f"leave one run out, {n_folds} folds"
    if isinstance(cv, RunKFold):
        return f"{n_folds} folds of whole runs"
    if isinstance(cv, BlockedKFold):
        return f"{n_folds} contiguous blocks, {cv.purge:g} s purged"
    if isinstance(cv, (int, np.integer)):
        return f"{n_folds} contiguous folds"
    name = type(cv).__name__ if hasattr(cv, "split") else "given rows"
    return f"{name}, {n_folds} folds"
