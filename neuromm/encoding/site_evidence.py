"""Evidence that one model predicts better than others, from resampled events.

The first model is compared with every other one and with chance. All comparisons of a
resample use the same events.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t

from neuromm.encoding.site_models import Chosen
from neuromm.encoding.training_influence import (
    block_sums,
    block_variance,
    fold_correlation,
)
from neuromm.kernels.block_bootstrap import resampled_correlations

__all__ = ["Evidence", "OverTime", "site_evidence"]

Array = NDArray[np.floating]
OverTime = Literal["mean", "max", "cluster"]

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
    course : array of shape (n_models, n_times, n_sites)
        Pearson r in each bin.
    """

    score: NDArray[np.float64]
    p: NDArray[np.float64]
    gain: NDArray[np.float64]
    interval: NDArray[np.float64]
    best: NDArray[np.intp]
    course: NDArray[np.float64]


def site_evidence(
    y: Array,
    predictions: Array,
    counts: NDArray[np.float64],
    columns: NDArray[np.intp],
    over_time: OverTime,
    confidence: float,
    *,
    folds: Sequence[NDArray[np.intp]],
    influence: Array,
    blocks: NDArray[np.intp],
    of_run: NDArray[np.intp],
    chosen: Mapping[int, Chosen] | None = None,
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
    folds : sequence of integer arrays
        Held-out events of each fold.
    influence : array of shape (n_models, n_blocks, n_targets)
        Of training events, as `held_out_predictions` returns it.
    blocks : integer array of shape (n_events,)
        Block of each event.
    of_run : integer array of shape (n_blocks,)
        Run of each block.
    chosen : mapping of int to Chosen, optional
        Of models that took one of several candidates in each fold.
    """
    n_models, n_times = len(predictions), columns.shape[1]
    width = max(1, _CHUNK_BYTES // (16 * n_models * len(counts) * n_times))
    parts = []
    for start in range(0, len(columns), width):
        chunk = columns[start : start + width]
        flat = chunk.ravel()
        predicted = predictions[:, :, flat].astype(np.float64)
        truth = y[:, flat].astype(np.float64)
        r, direct = _scores(truth, predicted, folds, blocks, len(of_run))
        moved = direct + influence[:, :, flat]
        resampled = _resampled(truth, predicted, counts, folds)
        shape = (n_models, -1, *chunk.shape)
        ways = _ways(direct, moved, chosen or {}, folds, flat)
        parts.append(
            _site_evidence(
                r.reshape(n_models, *chunk.shape),
                resampled.reshape(shape),
                [
                    (share, (one.reshape(shape), other.reshape(shape)))
                    for share, (one, other) in ways
                ],
                of_run,
                over_time,
                confidence,
            )
        )
    return Evidence(
        *(
            np.concatenate([getattr(part, name) for part in parts], axis=-1)
            for name in ("score", "p", "gain", "interval", "best", "course")
        )
    )


# Influences (model, block, …) of held-out events and of all events, with weights that
# sum to 1: of the variance, their mean is taken.
_Ways = Sequence[tuple[float, tuple[Array, Array]]]


def _ways(
    direct: Array,
    moved: Array,
    chosen: Mapping[int, Chosen],
    folds: Sequence[NDArray[np.intp]],
    columns: NDArray[np.intp],
) -> _Ways:
    """Influences, as if the candidates of one fold had been taken in all of them.

    A score whose candidate changes between folds varies as much as that of one
    candidate, since other events would have changed the choice as well. The influence
    of an event falls apart between candidates, and would be too small.
    """
    if not chosen:
        return [(1.0, (direct, moved))]
    n_held = sum(map(len, folds))
    ways = []
    for fold, rows in enumerate(folds):
        one, other = direct.copy(), moved.copy()
        for number, candidates in chosen.items():
            held_out, trained = candidates.throughout(fold, columns)
            one[number], other[number] = held_out, held_out + trained
        ways.append((len(rows) / n_held, (one, other)))
    return ways


def _scores(
    y: Array,
    predictions: Array,
    folds: Sequence[NDArray[np.intp]],
    blocks: NDArray[np.intp],
    n_blocks: int,
) -> tuple[Array, Array]:
    """Mean correlation of the folds, and influence of the held-out events by block."""
    r = np.zeros((len(predictions), y.shape[1]))
    direct = np.zeros((len(predictions), n_blocks, y.shape[1]))
    for rows in folds:
        share = len(rows) / len(y)
        for number, prediction in enumerate(predictions):
            one, _, influence = fold_correlation(y[rows], prediction[rows])
            r[number] += share * one
            direct[number] += block_sums(share * influence, blocks[rows], n_blocks)
    return r, direct


def _resampled(
    y: Array,
    predictions: Array,
    counts: Array,
    folds: Sequence[NDArray[np.intp]],
) -> Array:
    """Mean correlation of the folds in each resample, 0 for one without events."""
    total = np.zeros((len(predictions), len(counts), y.shape[1]))
    for rows in folds:
        part = resampled_correlations(
            y[rows], predictions[:, rows], np.ascontiguousarray(counts[:, rows])
        )
        total = total + len(rows) / len(y) * np.nan_to_num(part)
    return np.asarray(total)


def _site_evidence(
    r: Array,
    resampled: Array,
    ways: _Ways,
    of_run: NDArray[np.intp],
    over_time: OverTime,
    confidence: float,
) -> Evidence:
    """Evidence from scores (model, site, time) and resamples (model, draw, …)."""
    score = r.mean(axis=-1)
    z, drawn = _fisher(r), _fisher(resampled)
    slope = 1 / (1 - np.clip(r, -1 + 1e-6, 1 - 1e-6) ** 2)[:, None]
    in_z = [(share, [one * slope for one in both]) for share, both in ways]
    p = [
        _one_sided_p(
            z[0] - z[other],
            drawn[0] - drawn[other],
            over_time,
            [(share, [one[0] - one[other] for one in both]) for share, both in in_z],
            of_run,
        )
        for other in range(1, len(r))
    ]
    alone = [(share, [one[0] for one in both]) for share, both in in_z]
    p.append(_one_sided_p(z[0], drawn[0], over_time, alone, of_run))
    means = resampled.mean(axis=-1)
    differences = score[:1] - score[1:]
    by_block = [
        (share, [np.moveaxis(one.mean(axis=-1), 1, 0) for one in both])
        for share, both in ways
    ]
    # Resamples are nearly normal, whatever the number of blocks.
    upper = (1 + confidence) / 2
    wider = t.ppf(upper, _freedom(of_run)) / norm.ppf(upper)
    draws = _stretched(
        differences,
        means[:1] - means[1:],
        _spread(
            [
                (share, [one[:, :1] - one[:, 1:] for one in both])
                for share, both in by_block
            ],
            of_run,
        )
        * wider,
    )
    best = differences.argmin(axis=0) + 1
    gain = differences.min(axis=0)
    # The best competitor is chosen by the scores that are compared, which errs against
    # the first model. Resamples choose theirs again and err as much; the basic interval
    # takes it away.
    tail = (1 - confidence) / 2
    ends = np.quantile(draws.min(axis=0), [1 - tail, tail], axis=0)
    interval = 2 * gain - ends
    course = np.asarray(np.moveaxis(r, -1, 1), dtype=np.float64)
    return Evidence(score, np.stack(p), gain, interval, best, course)


def _stretched(observed: Array, drawn: Array, spread: Array) -> Array:
    """Resamples (model, draw, site) about what was observed, with this spread."""
    own = np.maximum(drawn.std(axis=1, ddof=1), _SMALLEST_SPREAD)
    centred = drawn - drawn.mean(axis=1, keepdims=True)
    return np.asarray(observed[:, None] + (spread / own)[:, None] * centred)


# As `_Ways`, of one difference or several.
_Parts = Sequence[tuple[float, Sequence[Array]]]


def _spread(ways: _Parts, of_run: NDArray[np.intp]) -> Array:
    """Standard deviation of sums over blocks, halfway between two that err.

    Held-out events alone show all of what is linear in events, half of what depends on
    a held-out and a training event and nothing of pairs of training events; all events
    show twice what depends on pairs (docs/decisions/0008).
    """
    variances = []
    for share, both in ways:
        direct, moved = (block_variance(one, of_run) for one in both)
        variances.append(share * ((direct + moved) / 2))
    return np.asarray(np.maximum(np.sqrt(sum(variances)), _SMALLEST_SPREAD))


def _one_sided_p(
    difference: Array,
    drawn: Array,
    over_time: OverTime,
    ways: _Parts,
    of_run: NDArray[np.intp],
) -> NDArray[np.float64]:
    """P of differences (site, time), given their resamples (draw, site, time)."""
    if over_time == "mean":
        averaged = [
            (share, [one.mean(axis=-1) for one in both]) for share, both in ways
        ]
        scale = _spread(averaged, of_run)
        return np.asarray(t.sf(difference.mean(axis=-1) / scale, _freedom(of_run)))
    scale = _spread(ways, of_run)
    observed = difference / scale
    null = (drawn - drawn.mean(axis=0)) / np.maximum(
        drawn.std(axis=0, ddof=1), _SMALLEST_SPREAD
    )
    statistic = _largest if over_time == "max" else _largest_cluster
    exceeding = (statistic(null) >= statistic(observed)).sum(axis=0)
    return np.asarray((1 + exceeding) / (1 + len(drawn)))


def _freedom(of_run: NDArray[np.intp]) -> int:
    """Degrees of freedom of a variance over blocks within runs."""
    return max(len(of_run) - len(np.unique(of_run)), 1)


def _largest(statistic: Array) -> NDArray[np.float64]:
    return np.asarray(statistic.max(axis=-1))


def _largest_cluster(statistic: Array) -> NDArray[np.float64]:
    """Largest sum over neighbouring bins of which each is above 5 % one-sided."""
    above = np.where(statistic > norm.isf(0.05), statistic, 0.0)
    running = best = np.zeros(statistic.shape[:-1])
    for bin_ in range(statistic.shape[-1]):
        running = np.where(above[..., bin_] > 0, running + above[..., bin_], 0.0)
        best = np.maximum(best, running)
    return best


def _fisher(r: Array) -> NDArray[np.float64]:
    return np.asarray(np.arctanh(np.clip(r, -1 + 1e-12, 1 - 1e-12)))
