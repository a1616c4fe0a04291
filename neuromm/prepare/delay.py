"""Delayed copies of features: a finite impulse response with one weight a delay.

A delay never reaches across the start of a run, where the rows before belong to
another recording.

References
----------
Nishimoto et al. (2011) Reconstructing visual experiences from brain activity evoked by
natural movies. Curr. Biol. 21:1641-1646 (delays in voxelwise models).
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["delay", "valid_rows"]


def delay(
    values: ArrayLike,
    delays: Sequence[int],
    *,
    runs: ArrayLike | None = None,
    fill: Literal["zero", "drop"] = "zero",
) -> NDArray[Any]:
    """Put delayed copies of the features side by side.

    Parameters
    ----------
    values : array of shape (n_samples, n_features)
        Rows of a run in the order of time, evenly spaced.
    delays : sequence of int
        In samples: row t of the copy for delay d holds row t - d. Negative delays look
        ahead.
    runs : array of shape (n_samples,), optional
        Label of each row's run; one run if not given.
    fill : {"zero", "drop"}
        Rows whose delayed row lies outside the run: "zero" fills with zeros and keeps
        all rows; "drop" returns only the rows for which `valid_rows` is true, and the
        responses need the same selection.

    Returns
    -------
    delayed : array of shape (n_samples or fewer, n_delays * n_features)
        All features of the first delay, then of the second, and so on.

    Examples
    --------
    >>> delay([[1.0], [2.0], [3.0], [4.0]], [1, 2], runs=["1", "1", "2", "2"])
    array([[0., 0.],
           [1., 0.],
           [0., 0.],
           [3., 0.]])
    """
    matrix = np.asarray(values)
    if matrix.ndim != 2:
        raise ValueError(
            f"values must have the shape (n_samples, n_features), got {matrix.shape}"
        )
    shifts = _whole_numbers(delays)
    if fill not in ("zero", "drop"):
        raise ValueError(f'fill must be "zero" or "drop", got {fill!r}')
    n_samples, n_features = matrix.shape
    delayed = np.zeros((n_samples, len(shifts), n_features), dtype=matrix.dtype)
    for rows in _rows_of_runs(n_samples, runs):
        for column, shift in enumerate(shifts):
            target, source = _overlap(rows, shift)
            delayed[target, column] = matrix[source]
    flat = delayed.reshape(n_samples, -1)
    return flat[valid_rows(shifts, n_samples, runs=runs)] if fill == "drop" else flat


def valid_rows(
    delays: Sequence[int], n_samples: int, *, runs: ArrayLike | None = None
) -> NDArray[np.bool_]:
    """Rows whose every delayed row lies in the same run.

    Parameters
    ----------
    delays : sequence of int
        In samples.
    n_samples : int
    runs : array of shape (n_samples,), optional
        Label of each row's run; one run if not given.

    Returns
    -------
    valid : bool array of shape (n_samples,)
    """
    valid = np.ones(n_samples, dtype=bool)
    for rows in _rows_of_runs(n_samples, runs):
        for shift in _whole_numbers(delays):
            reached = np.zeros(n_samples, dtype=bool)
            reached[_overlap(rows, shift)[0]] = True
            valid[rows] &= reached[rows]
    return valid


def _whole_numbers(delays: Sequence[int]) -> list[int]:
    shifts = [int(d) for d in delays]
    if not shifts or any(s != d for s, d in zip(shifts, delays, strict=True)):
        raise ValueError(
            f"delays must be whole numbers of samples, got {list(delays)}. A delay of "
            "4 s at a repetition time of 2 s is 2."
        )
    return shifts


def _rows_of_runs(n_samples: int, runs: ArrayLike | None) -> Iterator[NDArray[np.intp]]:
    if runs is None:
        yield np.arange(n_samples)
        return
    labels = np.asarray(runs)
    if labels.shape != (n_samples,):
        raise ValueError(
            f"runs must have one label per sample, got {labels.shape} for {n_samples} "
            "samples"
        )
    for label in dict.fromkeys(labels.tolist()):
        yield np.flatnonzero(labels == label)


def _overlap(
    rows: NDArray[np.intp], shift: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows that a shift fills, and the rows it fills them from."""
    if shift >= 0:
        return rows[shift:], rows[: max(len(rows) - shift, 0)]
    return rows[:shift], rows[-shift:]
