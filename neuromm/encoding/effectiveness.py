"""Inverse effectiveness: the weaker the parts, the more their combination gains.

References
----------
Stein & Meredith (1993) The merging of the senses. MIT Press (the principle, and the
gain over the better unimodal response).
Holmes (2009) The principle of inverse effectiveness in multisensory integration: some
statistical considerations. Brain Topogr. 21:168-176 (why the plain slope is negative
without any effect).
Stanford, Quessy & Stein (2005) Evaluating the operations underlying multisensory
integration in the cat superior colliculus. J. Neurosci. 25:6499-6508 (additivity).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuromm.core import DataError, UsageError

__all__ = ["InverseEffectiveness", "inverse_effectiveness"]

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

# A rank correlation of fewer levels can only be -1, 0 (a tie) or 1.
_LEAST_LEVELS = 3

_FEWEST_SUBJECTS = 5


@dataclass(frozen=True, kw_only=True)
class InverseEffectiveness:
    """Multimodal gain at every level, and whether it falls as responses grow.

    Attributes
    ----------
    levels : array of shape (n_levels,)
        Sorted.
    unimodal : array of shape (n_levels, n_targets)
        The larger mean response of the two modalities, in the unit of the responses.
    gain : array of shape (n_levels, n_targets)
        (r_ab - unimodal) / unimodal; nan where the unimodal response is not safely
        above 0.
    additivity : array of shape (n_levels, n_targets)
        r_ab - (r_a + r_b), in the unit of the responses: positive is superadditive.
    slope : array of shape (n_targets,)
        Spearman correlation of gain and unimodal response across levels, in [-1, 1];
        negative is inverse effectiveness. nan with fewer than three defined levels.
    low, high : arrays of shape (n_targets,)
        Bootstrap interval of the slope.
    p : array of shape (n_targets,)
        One-sided, of a slope as negative as this with the levels of the gain permuted.
    """

    levels: NDArray[np.generic]
    unimodal: Floats
    gain: Floats
    additivity: Floats
    slope: Floats
    low: Floats
    high: Floats
    p: Floats


@dataclass(frozen=True)
class _Cells:
    """Trials of one subject: values of a, b and ab, and their rows at each level."""

    values: tuple[Floats, Floats, Floats]
    rows: tuple[list[Rows], list[Rows], list[Rows]]


def inverse_effectiveness(
    response_a: ArrayLike,
    response_b: ArrayLike,
    response_ab: ArrayLike,
    levels: ArrayLike | tuple[ArrayLike, ArrayLike, ArrayLike],
    *,
    rng: int | np.random.Generator,
    subjects: ArrayLike | tuple[ArrayLike, ArrayLike, ArrayLike] | None = None,
    split_half: bool = True,
    n_splits: int = 20,
    n_resamples: int = 500,
    n_permutations: int = 1000,
    min_response: float = 3.0,
    confidence: float = 0.95,
) -> InverseEffectiveness:
    """Test whether multimodal gain falls as the unimodal response grows.

    Parameters
    ----------
    response_a, response_b, response_ab : arrays of shape (n_trials, n_targets)
        Responses to A alone, to B alone and to both, less the baseline: a gain is
        relative to 0. Each may have its own number of trials.
    levels : array of shape (n_trials,), or tuple of three of them
        Strength of the stimulus in each trial (contrast, signal-to-noise); one array
        if it is that of all three. At least four trials a level and condition.
    rng : int or numpy.random.Generator
        Draws halves, resamples and permutations.
    subjects : array of shape (n_trials,), or tuple of three of them, optional
        Whose trial it is. A slope is that of each subject, averaged, and intervals
        come from resampling subjects, five at least; without, from resampling trials.
    split_half : bool
        Take the unimodal response from one half of the unimodal trials and the gain
        from the other. Without it, noise that lifts the unimodal response lowers the
        gain, and the slope is negative without any effect.
    n_splits : int
        Random halves that the slope is averaged over.
    n_resamples, n_permutations : int
    min_response : float
        Standard errors by which a unimodal response must exceed 0 for its gain to be
        defined.
    confidence : float

    Returns
    -------
    result : InverseEffectiveness
        Values of levels are means over the subjects for whom they are defined.

    Raises
    ------
    neuromm.core.UsageError
        If arguments are out of range, or there are fewer than three levels.
    neuromm.core.DataError
        If shapes differ, or some level has fewer than four trials in a condition.

    Notes
    -----
    With means u_1 = max(a_1, b_1) of the first halves and u_2, of the second, the
    slope is the Spearman correlation of u_1 and (ab - u_2) / u_2 over levels, averaged
    over splits and over the roles of the halves. Resampled trials are drawn within
    halves, for a trial in both would bring the shared noise back.

    Optimal combination of cues, d_ab^2 = d_a^2 + d_b^2, has the same gain sqrt(2) - 1
    at every level of d_a = d_b. Inverse effectiveness appears in responses that
    saturate, such as proportions correct.
    """
    generator = np.random.default_rng(rng)
    _check(n_splits, n_resamples, n_permutations, confidence)
    responses = _responses(response_a, response_b, response_ab)
    strength = _labels(levels, responses, "levels")
    owners = None if subjects is None else _labels(subjects, responses, "subjects")
    present = np.unique(np.concatenate(strength))
    if len(present) < _LEAST_LEVELS:
        raise UsageError(
            f"a slope across levels needs {_LEAST_LEVELS} of them, got "
            f"{', '.join(map(str, present))}"
        )
    cells = _by_subject(responses, strength, owners, present)
    described = [_describe(one, min_response) for one in cells]
    defined = [one[3] for one in described]
    draw = _Draw(split_half, n_splits if split_half else 1, generator)
    products = [
        _rank_products(one, known, draw)
        for one, known in zip(cells, defined, strict=True)
    ]
    slopes = np.stack([_slope(*pair) for pair in zip(products, defined, strict=True)])
    slope = _mean(slopes)
    if owners is None:
        drawn = _resampled_slopes(cells[0], defined[0], draw, n_resamples)
    else:
        chosen = generator.integers(len(cells), size=(n_resamples, len(cells)))
        drawn = np.stack([_mean(slopes[rows]) for rows in chosen])
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = np.quantile(np.where(np.isnan(drawn), 0.0, drawn), tails, axis=0)
    exceeding = np.zeros(slope.shape)
    for _ in range(n_permutations):
        null = _mean(_permuted(products, defined, generator))
        exceeding += null <= slope + 1e-9
    unimodal, gain, additivity = (
        _mean(np.stack([one[part] for one in described])) for part in range(3)
    )
    return InverseEffectiveness(
        levels=present,
        unimodal=unimodal,
        gain=gain,
        additivity=additivity,
        slope=slope,
        low=np.where(np.isnan(slope), np.nan, low),
        high=np.where(np.isnan(slope), np.nan, high),
        p=np.where(np.isnan(slope), np.nan, (1 + exceeding) / (1 + n_permutations)),
    )


@dataclass(frozen=True)
class _Draw:
    """How unimodal trials are split."""

    split_half: bool
    n_splits: int
    rng: np.random.Generator


def _rank_products(
    one: _Cells,
    defined: NDArray[np.bool_],
    draw: _Draw,
    counts: tuple[Floats, Floats, Floats] | None = None,
) -> Floats:
    """Products of standardised ranks of response (level) and gain (level).

    Averaged over splits and over the roles of their halves; their trace is the slope,
    and with the levels of the gain permuted, that of a permutation. ``counts`` says
    how often each trial is there.
    """
    times = counts or tuple(np.ones(len(values)) for values in one.values)
    means_ab = _means(one.values[2], one.rows[2], times[2])
    n_levels = len(means_ab)
    total = np.zeros((n_levels, n_levels, means_ab.shape[1]))
    for _ in range(draw.n_splits):
        halves = _unimodal_halves(one, times, draw)
        for axis, denominator in (halves, halves[::-1]):
            with np.errstate(invalid="ignore", divide="ignore"):
                gain = (means_ab - denominator) / denominator
            # A half that shows no response, or no trial, has no gain.
            known = defined & (denominator > 0) & ~np.isnan(axis + gain)
            total += _ranks(axis, known)[:, None] * _ranks(gain, known)[None]
    return total / (2 * draw.n_splits)


def _unimodal_halves(
    one: _Cells, times: tuple[Floats, ...], draw: _Draw
) -> list[Floats]:
    """Larger of both unimodal means at each level, of either half of the trials."""
    means = []
    for values, rows, counted in zip(one.values[:2], one.rows[:2], times, strict=False):
        first = np.ones(len(values))
        second = first
        if draw.split_half:
            first = np.zeros(len(values))
            for level in rows:
                first[draw.rng.permutation(level)[: len(level) // 2]] = 1.0
            second = 1.0 - first
        means.append([_means(values, rows, counted * half) for half in (first, second)])
    return [np.maximum(of_a, of_b) for of_a, of_b in zip(*means, strict=True)]


def _means(values: Floats, rows: list[Rows], times: Floats) -> Floats:
    """Mean of the trials of each level, weighted by how often they are there."""
    weights = np.zeros((len(rows), len(values)))
    for level, trials in enumerate(rows):
        weights[level, trials] = times[trials]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(weights @ values / weights.sum(axis=1, keepdims=True))


def _ranks(x: Floats, known: NDArray[np.bool_]) -> Floats:
    """Ranks among known levels, of mean 0 and norm 1; 0 where unknown or all tied."""
    value = np.where(known, x, np.inf)
    below = (value[None] < value[:, None]).sum(axis=1)
    tied = ((value[None] == value[:, None]) & known[None]).sum(axis=1)
    rank = np.where(known, below + (tied + 1) / 2, 0.0)
    n_known = known.sum(axis=0)
    centred = np.where(known, rank - (n_known + 1) / 2, 0.0)
    norm = np.sqrt((centred**2).sum(axis=0))
    return np.asarray(centred / np.where(norm > 0, norm, 1.0))


def _slope(products: Floats, defined: NDArray[np.bool_]) -> Floats:
    enough = defined.sum(axis=0) >= _LEAST_LEVELS
    return np.where(enough, np.einsum("llt->t", products), np.nan)


def _resampled_slopes(
    one: _Cells, defined: NDArray[np.bool_], draw: _Draw, n_resamples: int
) -> Floats:
    """Slopes of resampled trials; copies of a trial stay in one half."""
    few = _Draw(draw.split_half, min(draw.n_splits, 5), draw.rng)
    slopes = np.empty((n_resamples, defined.shape[1]))
    for number in range(n_resamples):
        counts = []
        for values, rows in zip(one.values, one.rows, strict=True):
            times = np.zeros(len(values))
            for level in rows:
                share = np.full(len(level), 1 / len(level))
                times[level] = draw.rng.multinomial(len(level), share)
            counts.append(times)
        products = _rank_products(one, defined, few, (counts[0], counts[1], counts[2]))
        slopes[number] = _slope(products, defined)
    return slopes


def _permuted(
    products: list[Floats], defined: list[NDArray[np.bool_]], rng: np.random.Generator
) -> Floats:
    """Slope of each subject with the defined levels of the gain in random order."""
    slopes = []
    for product, known in zip(products, defined, strict=True):
        n_levels, n_targets = known.shape
        order = np.argsort(
            np.where(known, np.arange(n_levels)[:, None], np.inf), axis=0
        )
        drawn = np.where(known, rng.random((n_levels, 1)), np.inf)
        shuffled = np.argsort(drawn, axis=0, kind="stable")
        picked = product[order, shuffled, np.arange(n_targets)]
        enough = known.sum(axis=0) >= _LEAST_LEVELS
        slopes.append(np.where(enough, picked.sum(axis=0), np.nan))
    return np.stack(slopes)


def _describe(
    one: _Cells, min_response: float
) -> tuple[Floats, Floats, Floats, NDArray[np.bool_]]:
    """Larger unimodal mean, gain, additivity, and where a gain is defined."""
    means, errors = [], []
    for values, rows in zip(one.values, one.rows, strict=True):
        means.append(np.stack([values[level].mean(axis=0) for level in rows]))
        spread = np.stack([values[level].std(axis=0, ddof=1) for level in rows])
        errors.append(spread / np.sqrt([[len(level)] for level in rows]))
    unimodal = np.maximum(means[0], means[1])
    error = np.where(means[0] >= means[1], errors[0], errors[1])
    defined = (unimodal > 0) & (unimodal > min_response * error)
    gain = (means[2] - unimodal) / np.where(defined, unimodal, np.nan)
    known = np.isfinite(means[2])
    return unimodal, gain, means[2] - means[0] - means[1], defined & known


def _mean(values: Floats) -> Floats:
    """Mean over the first axis of what is not nan."""
    known = ~np.isnan(values)
    total = np.where(known, values, 0.0).sum(axis=0)
    n_known = known.sum(axis=0)
    return np.where(n_known > 0, total / np.maximum(n_known, 1), np.nan)


def _check(
    n_splits: int, n_resamples: int, n_permutations: int, confidence: float
) -> None:
    if min(n_splits, n_resamples, n_permutations) < 1 or not 0 < confidence < 1:
        raise UsageError(
            "n_splits, n_resamples and n_permutations must be 1 or more, and "
            "confidence between 0 and 1"
        )


def _responses(*responses: ArrayLike) -> tuple[Floats, Floats, Floats]:
    a, b, ab = (np.asarray(response, dtype=np.float64) for response in responses)
    if any(x.ndim != 2 or x.shape[1:] != ab.shape[1:] for x in (a, b, ab)):
        raise DataError(
            "responses to A, to B and to both must be (n_trials, n_targets) of the "
            f"same targets, got {a.shape}, {b.shape} and {ab.shape}"
        )
    return a, b, ab


def _labels(
    given: ArrayLike | tuple[ArrayLike, ArrayLike, ArrayLike],
    responses: tuple[Floats, Floats, Floats],
    name: str,
) -> list[NDArray[np.generic]]:
    """Labels of the trials of a, b and ab."""
    parts = given if isinstance(given, tuple) and len(given) == 3 else (given,) * 3
    labels = [np.asarray(part) for part in parts]
    sizes = [response.shape[:1] for response in responses]
    if [part.shape for part in labels] != sizes:
        raise DataError(
            f"{name} must have a label a trial (a tuple of three arrays where A, B and "
            f"both differ): {', '.join(map(str, sizes))} were expected, got "
            f"{', '.join(str(part.shape) for part in labels)}"
        )
    return labels


def _by_subject(
    responses: tuple[Floats, Floats, Floats],
    levels: list[NDArray[np.generic]],
    subjects: list[NDArray[np.generic]] | None,
    present: NDArray[np.generic],
) -> list[_Cells]:
    if subjects is None:
        subjects = [np.zeros(len(response)) for response in responses]
        names: NDArray[np.generic] = np.zeros(1)
    else:
        names = np.unique(np.concatenate(subjects))
        if len(names) < _FEWEST_SUBJECTS:
            raise UsageError(
                f"{len(names)} subjects are too few to resample ({_FEWEST_SUBJECTS} at "
                "least): analyse each by itself, without subjects="
            )
    cells = []
    for name in names:
        values, rows = [], []
        for which, condition in enumerate(("A", "B", "both")):
            own = subjects[which] == name
            values.append(responses[which][own])
            strength = levels[which][own]
            rows.append([np.flatnonzero(strength == level) for level in present])
            fewest = min(range(len(present)), key=lambda i: len(rows[-1][i]))
            if len(rows[-1][fewest]) < 4:
                raise DataError(
                    f"halves of trials need four at each level, got "
                    f"{len(rows[-1][fewest])} of {condition} at level {present[fewest]}"
                    + (f" of subject {name}" if len(names) > 1 else "")
                )
        cells.append(
            _Cells((values[0], values[1], values[2]), (rows[0], rows[1], rows[2]))
        )
    return cells
