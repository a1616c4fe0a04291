"""Evidence that one model predicts better than others, from resampled events.

The first model is compared with every other one and with chance. All comparisons of a
resample use the same events.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from neuromm.kernels import column_correlation
from neuromm.kernels.block_bootstrap import resampled_correlations

__all__ = ["Evidence", "OverTime", "site_evidence"]

Array = NDArray[np.floating]
OverTime = Literal["mean", "max", "cluster"]

# Scores of folds that train on each other's samples vary by up to sqrt(2) more around
# chance than resampling of their predictions shows (docs/decisions/0007).
_CHANCE_SPREAD = np.sqrt(2.0)

# Differences of Fisher's z below this are rounding of equal predictions.
_SMALLEST_SPREAD = 1e-6

# Bytes of resampled scores at a time.
_CHUNK_BYTES = 128 * 10**6


@dataclass
class Evidence:
    """What is known of sites; arrays end with the axis of sites.

    Attributes
    ----------
    score : array of shape (n_models, n_sites)
        Pearson r, averaged over bins.
    p : array of shape (n_models, n_sites)
        Of the first model against each other one, and against chance (last).
    gain : array of shape (n_sites,)
        Score of the first model less that of the best other one.
    interval : array of shape (2, n_sites)
        Of the gain.
    best : integer array of shape (n_sites,)
        Which other model is best.
    """

    score: NDArray[np.float64]
    p: NDArray[np.float64]
    gain: NDArray[np.float64]
    interval: NDArray[np.float64]
    best: NDArray[np.intp]


def site_evidence(
    y: Array,
    predictions: Array,
    counts: NDArray[np.float64],
    columns: NDArray[np.intp],
    over_time: OverTime,
    confidence: float,
) -> Evidence:
    """Scores, p of every comparison and gains of all sites, chunk by chunk.

    Parameters
    ----------
    y : array of shape (n_events, n_targets)
    predictions : array of shape (n_models, n_events, n_targets)
    counts : array of shape (n_resamples, n_events)
        Of `block_counts`.
    columns : integer array of shape (n_sites, n_times)
        Targets that are the time bins of each site.
    over_time : {"mean", "max", "cluster"}
    confidence : float
    """
    n_models, n_times = len(predictions), columns.shape[1]
    width = max(1, _CHUNK_BYTES // (16 * n_models * len(counts) * n_times))
    parts = []
    for start in range(0, len(columns), width):
        chunk = columns[start : start + width]
        flat = chunk.ravel()
        chosen = predictions[:, :, flat].astype(np.float64)
        truth = y[:, flat].astype(np.float64)
        r = np.stack([_correlation(truth, one) for one in chosen])
        resampled = resampled_correlations(truth, chosen, counts)
        parts.append(
            _site_evidence(
                r.reshape(n_models, *chunk.shape),
                resampled.reshape(n_models, len(counts), *chunk.shape),
                over_time,
                confidence,
            )
        )
    return Evidence(
        *(
            np.concatenate([getattr(part, name) for part in parts], axis=-1)
            for name in ("score", "p", "gain", "interval", "best")
        )
    )


def _site_evidence(
    r: NDArray[np.float64],
    resampled: NDArray[np.float64],
    over_time: OverTime,
    confidence: float,
) -> Evidence:
    """Evidence from scores (model, site, time) and resamples (model, draw, …)."""
    score = r.mean(axis=-1)
    z, drawn = _fisher(r), _fisher(resampled)
    p = [
        _one_sided_p(z[0] - z[other], drawn[0] - drawn[other], over_time, 1.0)
        for other in range(1, len(r))
    ]
    p.append(_one_sided_p(z[0], drawn[0], over_time, _CHANCE_SPREAD))
    best = score[1:].argmax(axis=0) + 1
    gain = score[0] - np.take_along_axis(score, best[None], axis=0)[0]
    means = resampled.mean(axis=-1)
    gains = means[0] - np.take_along_axis(means, best[None, None], axis=0)[0]
    tail = (1 - confidence) / 2
    interval = np.quantile(gains, [tail, 1 - tail], axis=0)
    return Evidence(score, np.stack(p), gain, interval, best)


def _one_sided_p(
    difference: NDArray[np.float64],
    drawn: NDArray[np.float64],
    over_time: OverTime,
    spread: float,
) -> NDArray[np.float64]:
    """P of differences (site, time), given their resamples (draw, site, time)."""
    if over_time == "mean":
        mean, draws = difference.mean(axis=-1), drawn.mean(axis=-1)
        scale = np.maximum(spread * draws.std(axis=0, ddof=1), _SMALLEST_SPREAD)
        return np.asarray(norm.sf(mean / scale))
    scale = np.maximum(spread * drawn.std(axis=0, ddof=1), _SMALLEST_SPREAD)
    observed = difference / scale
    null = spread * (drawn - difference) / scale
    statistic = _largest if over_time == "max" else _largest_cluster
    exceeding = (statistic(null) >= statistic(observed)).sum(axis=0)
    return np.asarray((1 + exceeding) / (1 + len(drawn)))


def _largest(t: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(t.max(axis=-1))


def _largest_cluster(t: NDArray[np.float64]) -> NDArray[np.float64]:
    """Largest sum over neighbouring bins of which each is above 5 % one-sided."""
    above = np.where(t > norm.isf(0.05), t, 0.0)
    running = best = np.zeros(t.shape[:-1])
    for bin_ in range(t.shape[-1]):
        running = np.where(above[..., bin_] > 0, running + above[..., bin_], 0.0)
        best = np.maximum(best, running)
    return best


def _correlation(y: Array, prediction: Array) -> NDArray[np.float64]:
    """Pearson r, 0 for a constant prediction."""
    r = np.asarray(column_correlation(y, prediction), dtype=np.float64)
    constant = prediction.max(axis=0) == prediction.min(axis=0)
    return np.where(constant, 0.0, r)


def _fisher(r: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.arctanh(np.clip(r, -1 + 1e-12, 1 - 1e-12)))
