"""Intervals of a mean by resampling whole patients, or whatever must stay together.

References
----------
Efron & Tibshirani (1993) An introduction to the bootstrap. Chapman & Hall (percentile
intervals).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuromm.core import UsageError

__all__ = ["bootstrap_interval"]


def bootstrap_interval(
    values: ArrayLike,
    *,
    groups: Sequence[Any] | NDArray[Any] | None = None,
    confidence: float = 0.95,
    n_resamples: int = 2000,
    rng: int | np.random.Generator = 0,
) -> tuple[float, float]:
    """Interval of the mean of the groups' means.

    Parameters
    ----------
    values : array of shape (n_samples,)
        nan counts as missing.
    groups : sequence of n_samples labels, optional
        Patient of each sample: samples of one patient are not independent, and are
        drawn together. Each sample on its own if not given.
    confidence : float
        Between 0 and 1.
    n_resamples : int
    rng : int or Generator

    Returns
    -------
    low, high : float
        Percentiles; nan with fewer than two groups. With few groups they are too
        narrow: of ten patients, a 95 % interval holds the truth in about 90 %.

    Raises
    ------
    UsageError
        If groups and values differ in number, or a setting is out of range.

    Examples
    --------
    >>> low, high = bootstrap_interval([0.8, 0.9, 0.85, 0.7], groups=list("aabc"))
    >>> bool(0.7 <= low < high <= 0.85)
    True
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1:
        raise UsageError(f"values must be 1-D, got shape {numbers.shape}")
    labels = np.arange(len(numbers)) if groups is None else np.asarray(groups)
    if labels.shape != numbers.shape:
        raise UsageError(
            f"groups must name one group a value, got {len(labels)} for {len(numbers)}"
        )
    if not 0 < confidence < 1 or n_resamples < 1:
        raise UsageError(
            "confidence must lie between 0 and 1 and n_resamples be 1 at least, got "
            f"{confidence} and {n_resamples}"
        )
    known = np.isfinite(numbers)
    _, codes = np.unique(labels[known], return_inverse=True)
    counts = np.bincount(codes)
    if len(counts) < 2:
        return float("nan"), float("nan")
    means = np.bincount(codes, numbers[known]) / counts
    drawn = np.random.default_rng(rng).integers(
        len(means), size=(n_resamples, len(means))
    )
    tail = (1 - confidence) / 2
    low, high = np.quantile(means[drawn].mean(axis=1), [tail, 1 - tail])
    return float(low), float(high)
