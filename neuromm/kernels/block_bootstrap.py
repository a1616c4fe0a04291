"""Correlations under resampling of blocks of events, the same for every model.

A resample counts each event some number of times. Correlations follow from sums over
events weighted by these counts, so that one product with the matrix of counts serves
all resamples.

References
----------
Politis & Romano (1992) A circular block-resampling procedure for stationary data. In
Exploring the Limits of Bootstrap, 263-270.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["block_counts", "correlation_length", "resampled_correlations"]

Array = NDArray[np.floating]


def block_counts(
    groups: Sequence[NDArray[np.intp]],
    n_samples: int,
    block: int,
    n_resamples: int,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """How often each resample holds each event.

    Parameters
    ----------
    groups : sequence of integer arrays
        Events of each run, in order of time: blocks stay within a run, whose end is
        joined to its start.
    n_samples : int
        Events in all; those of no group count 0.
    block : int
        Events a block has; a run that is shorter is one block.
    n_resamples : int
    rng : numpy.random.Generator

    Returns
    -------
    counts : array of shape (n_resamples, n_samples)
        A group of n events has ceil(n / block) blocks: a few events more than n, which
        a correlation does not notice.
    """
    counts = np.zeros((n_resamples, n_samples))
    for rows in groups:
        n_events = len(rows)
        length = min(block, n_events)
        n_blocks = -(-n_events // length)
        starts = rng.integers(n_events, size=(n_resamples, n_blocks))
        # A block adds one from its start on and takes it away after its end: the sum
        # over events up to here is the count.
        steps = np.zeros((n_resamples, 2 * n_events + 1))
        which = np.arange(n_resamples)[:, None]
        np.add.at(steps, (which, starts), 1.0)
        np.add.at(steps, (which, starts + length), -1.0)
        covered = steps.cumsum(axis=1)[:, : 2 * n_events]
        counts[:, rows] = covered[:, :n_events] + covered[:, n_events:]
    return counts


def resampled_correlations(
    y: Array, predictions: Array, counts: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Pearson correlation of each model with the responses, in each resample.

    Parameters
    ----------
    y : array of shape (n_samples, n_targets)
    predictions : array of shape (n_models, n_samples, n_targets)
    counts : array of shape (n_resamples, n_samples)

    Returns
    -------
    r : array of shape (n_models, n_resamples, n_targets), float64
        0 where a prediction does not vary, or a resample has no events; nan where the
        response does not vary.
    """
    total = counts.sum(axis=1, keepdims=True)
    # A resample may hold none of these events: its sums are 0, and so are its scores.
    total = np.where(total > 0, total, np.inf)
    y = y - y.mean(axis=0)
    mean_y = counts @ y / total
    power_y = counts @ y**2 / total - mean_y**2
    r = np.empty((len(predictions), len(counts), y.shape[1]))
    for number, prediction in enumerate(predictions):
        centred = prediction - prediction.mean(axis=0)
        mean = counts @ centred / total
        power = counts @ centred**2 / total - mean**2
        cross = counts @ (centred * y) / total - mean * mean_y
        norm = np.sqrt(np.clip(power, 0, None) * np.clip(power_y, 0, None))
        with np.errstate(invalid="ignore", divide="ignore"):
            r[number] = np.where(power > 0, cross / norm, 0.0)
    r[:, (power_y <= 0) & np.isfinite(total)] = np.nan
    return np.clip(r, -1, 1)


def correlation_length(y: Array, groups: Sequence[NDArray[np.intp]]) -> int:
    """Events after which responses no longer resemble themselves.

    Parameters
    ----------
    y : array of shape (n_samples, n_targets)
    groups : sequence of integer arrays
        Events of each run, in order of time.

    Returns
    -------
    length : int
        First lag at which the autocorrelation, averaged over targets and runs, is
        below that of white noise at 95 % (1.96 / sqrt(n)), 1 at least. A quarter of
        the longest run at most.
    """
    longest = max(len(rows) for rows in groups)
    n_lags = max(longest // 4, 1)
    total, n_pairs = np.zeros(n_lags + 1), np.zeros(n_lags + 1)
    for rows in groups:
        part = np.asarray(y[rows], dtype=np.float64)
        part = part - part.mean(axis=0)
        norm = np.sqrt((part**2).mean(axis=0))
        part = part / np.where(norm > 0, norm, 1.0)
        used = norm > 0
        size = int(2 ** np.ceil(np.log2(2 * len(rows))))
        spectrum = np.abs(np.fft.rfft(part[:, used], size, axis=0)) ** 2
        lags = np.fft.irfft(spectrum.sum(axis=1), size)[: n_lags + 1]
        pairs = np.clip(len(rows) - np.arange(n_lags + 1), 0, None) * used.sum()
        lags = lags[: len(pairs)]
        total[: len(lags)] += lags
        n_pairs += pairs
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = np.where(n_pairs > 0, total / n_pairs, 0.0)
    n_events = sum(len(rows) for rows in groups)
    quiet = np.flatnonzero(np.abs(correlation[1:]) < 1.96 / np.sqrt(n_events))
    return int(quiet[0]) + 1 if len(quiet) else n_lags
