"""Noise ceilings: how well responses can be predicted at all.

A response is signal, which the stimulus determines, plus noise, which it does not. All
methods here estimate the variances S and N of both in a single trial; the best possible
prediction of the mean of k trials then has R2 = S / (S + N / k), and the square root of
that as its correlation.

References
----------
Sahani & Linden (2003) How linear are auditory cortical responses? NIPS 15 (signal
power).
Schoppe et al. (2016) Measuring the performance of neural models. Front. Comput.
Neurosci. 10:10 (normalised correlation).
Dupre la Tour, Visconti di Oleggio Castello & Gallant (2025) The voxelwise encoding
model framework. Imaging Neuroscience 3 (explainable variance).
Allen et al. (2022) A massive 7T fMRI dataset to bridge cognitive neuroscience and
artificial intelligence. Nat. Neurosci. 25:116-126 (ncsnr).
Spearman (1910), Brown (1910) Br. J. Psychol. 3:271-295, 296-322 (split halves).
Nili et al. (2014) A toolbox for representational similarity analysis. PLoS Comput.
Biol. 10:e1003553 (bounds across subjects).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuromm.core import UsageError
from neuromm.kernels import is_constant
from neuromm.kernels.block_bootstrap import block_counts, resampled_correlations

__all__ = ["CeilingMethod", "bootstrap_ceiling", "noise_ceiling", "normalised_scores"]

Floats = NDArray[np.float64]
CeilingMethod = Literal[
    "signal_power",
    "explainable_variance",
    "ncsnr",
    "split_half",
    "inter_subject",
    "inter_subject_upper",
]
Measure = Literal["correlation", "r2", "ncsnr"]

# A chunk of targets works in about this many bytes.
_CHUNK_BYTES = 128 * 10**6

_METHODS = CeilingMethod.__args__  # type: ignore[attr-defined]
_MEASURES = Measure.__args__  # type: ignore[attr-defined]


def noise_ceiling(
    responses: ArrayLike,
    method: CeilingMethod = "signal_power",
    *,
    measure: Measure = "correlation",
    stimulus: ArrayLike | None = None,
    session: ArrayLike | None = None,
    n_averaged: float | None = None,
    n_splits: int = 50,
    rng: int | np.random.Generator | None = None,
) -> Floats:
    """Highest correlation a model can reach with the mean response.

    Parameters
    ----------
    responses : array of shape (n_repeats, n_samples, n_targets), or 2-D
        One response per repeat, in any linear unit (% signal change, uV). With
        ``stimulus``: (n_trials, n_targets). Across subjects: (n_subjects, n_samples,
        n_targets).
    method : str
        ``"signal_power"``: covariance of repeats, in the unit of the responses.
        ``"explainable_variance"``: the same after each repeat or session is scaled to
        variance 1, so that repeats count alike.
        ``"ncsnr"``: as in the Natural Scenes Dataset. Sessions (or repeats) are scaled
        to variance 1, N is the variance between trials of a stimulus, S = 1 - N.
        ``"split_half"``: correlation of the means of random halves of the trials of
        each stimulus, stepped up by Spearman and Brown.
        ``"inter_subject"``: mean correlation of a subject with the mean of the others;
        ``"inter_subject_upper"``: with the mean of all. The best model of all subjects
        reaches something between both with a single subject.
    measure : {"correlation", "r2", "ncsnr"}
        Highest correlation, its square (the highest R2), or sqrt(S / N), the
        signal-to-noise ratio of a single trial.
    stimulus : array of shape (n_trials,), optional
        Which stimulus each trial showed; stimuli may have been shown any number of
        times. Those shown once inform about S only.
    session : array of shape (n_trials,), optional
        Session or run of each trial, whose mean (and scale) is taken out.
    n_averaged : float, optional
        Trials that are averaged into the response to predict. By default what is
        there: the repeats, or the harmonic mean of the trials per stimulus. 1 gives
        the ceiling of single trials.
    n_splits : int
        Random halves that are averaged over.
    rng : int or numpy.random.Generator, optional
        Draws the halves; needed by ``"split_half"`` alone.

    Returns
    -------
    ceiling : array of shape (n_targets,)
        In [0, 1] (``"ncsnr"``: up to inf). 0 where the repeats agree no better than
        chance (the estimate of S is negative); nan for a target whose mean never
        varies, or that holds nan.

    Raises
    ------
    neuromm.core.UsageError
        If there are fewer than two repeats or two samples, or arguments contradict
        each other. It is a ValueError.

    Notes
    -----
    For complete repeats y_r, ``signal_power`` is S = (Var(sum_r y_r) - sum_r
    Var(y_r)) / (R (R - 1)) and N / R = Var(mean_r y_r) - S. For ragged ones, N is the
    pooled variance within stimuli, and S = Var(means) - N mean(1 / n_i) over stimuli
    shown n_i times.

    ``method="explainable_variance", measure="r2", n_averaged=1`` is EV - (1 - EV) /
    (R - 1) for EV = Var(mean_r y_r) of scaled repeats, the number of the voxelwise
    tutorials, and the mean correlation between repeats. ``100 *
    noise_ceiling(method="ncsnr", measure="r2")`` is the noise ceiling in % of the
    Natural Scenes Dataset.

    Examples
    --------
    >>> noise_ceiling(np.ones((2, 5, 1)) * np.arange(5.0)[:, None])
    array([1.])
    """
    _check(method, measure, n_averaged, stimulus, session)
    trials = _trials(responses, stimulus, session)
    halves = _halves(trials, method, n_splits, rng)
    once = np.ones((1, trials.n_stimuli))
    ceiling = np.empty(trials.values.shape[1])
    for chunk in _chunks(trials, 1):
        snr = _variances(trials, chunk, method, once, halves)
        ceiling[chunk] = _ceiling(snr, trials, measure, n_averaged)[0]
    ceiling[_undefined(trials)] = np.nan
    return ceiling


def bootstrap_ceiling(
    responses: ArrayLike,
    method: CeilingMethod = "signal_power",
    *,
    rng: int | np.random.Generator,
    measure: Measure = "correlation",
    stimulus: ArrayLike | None = None,
    session: ArrayLike | None = None,
    n_averaged: float | None = None,
    n_splits: int = 20,
    n_resamples: int = 1000,
    block: int = 1,
    confidence: float = 0.95,
) -> tuple[Floats, Floats]:
    """Interval of a noise ceiling, by resampling stimuli.

    Parameters
    ----------
    responses, method, measure, stimulus, session, n_averaged, n_splits
        As for `noise_ceiling`.
    rng : int or numpy.random.Generator
        Draws the stimuli (and halves).
    n_resamples : int
    block : int
        Neighbouring samples that are drawn as one, for time series: as many as it
        takes for them to forget each other. Stimuli by label count in sorted order.
    confidence : float

    Returns
    -------
    low, high : arrays of shape (n_targets,)
        Percentiles over resamples; nan where the ceiling is.

    Raises
    ------
    neuromm.core.UsageError
        As `noise_ceiling`, or if ``block`` or ``confidence`` is out of range.

    Notes
    -----
    All trials of a stimulus are drawn together. Means and scales of sessions, and
    halves, are those of the full data.
    """
    _check(method, measure, n_averaged, stimulus, session)
    trials = _trials(responses, stimulus, session)
    if not 0 < confidence < 1 or n_resamples < 2:
        raise UsageError("confidence must lie between 0 and 1, and n_resamples be > 1")
    if not 1 <= block <= trials.n_stimuli // 2:
        raise UsageError(
            f"block must be between 1 and half the stimuli ({trials.n_stimuli // 2}), "
            f"got {block}"
        )
    generator = np.random.default_rng(rng)
    halves = _halves(trials, method, n_splits, generator)
    everything = [np.arange(trials.n_stimuli)]
    counts = block_counts(everything, trials.n_stimuli, block, n_resamples, generator)
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    interval = np.empty((2, trials.values.shape[1]))
    for chunk in _chunks(trials, n_resamples):
        snr = _variances(trials, chunk, method, counts, halves)
        drawn = _ceiling(snr, trials, measure, n_averaged)
        # A resample of one stimulus over and over has nothing to predict.
        interval[:, chunk] = np.quantile(np.nan_to_num(drawn, nan=0.0), tails, axis=0)
    interval[:, _undefined(trials)] = np.nan
    return interval[0], interval[1]


def normalised_scores(
    scores: ArrayLike, ceiling: ArrayLike, *, threshold: float = 0.1
) -> Floats:
    """Scores as a share of what could be reached.

    Parameters
    ----------
    scores : array of shape (..., n_targets)
        Correlations or R2, of the mean response that the ceiling is of.
    ceiling : array of shape (n_targets,)
        Of the same measure.
    threshold : float
        Lowest ceiling that is divided by, in the unit of the ceiling; below, a small
        error of the ceiling would become a large one of the quotient.

    Returns
    -------
    shares : array of shape (..., n_targets)
        1 where a model is as good as can be. Not clipped: an estimate can lie above 1,
        and negative scores stay negative. nan where the ceiling is below the threshold
        or nan.

    Raises
    ------
    neuromm.core.UsageError
        If the threshold is not positive, or the targets differ in number.

    Examples
    --------
    >>> normalised_scores([0.3, 0.05], [0.6, 0.06])
    array([0.5, nan])
    """
    score, top = np.asarray(scores, np.float64), np.asarray(ceiling, np.float64)
    if not threshold > 0:
        raise UsageError(f"threshold must be positive, got {threshold}")
    if score.shape[-1:] != top.shape:
        raise UsageError(
            f"scores and ceiling must be of the same targets, got shapes {score.shape} "
            f"and {top.shape}"
        )
    return np.asarray(score / np.where(top >= threshold, top, np.nan))


@dataclass(frozen=True)
class _Trials:
    """Trials of all stimuli, sorted by stimulus."""

    values: Floats  # (n_trials, n_targets)
    stimulus: NDArray[np.intp]  # 0 ... n_stimuli - 1, sorted
    session: NDArray[np.intp]
    n_shown: NDArray[np.intp]  # trials of each stimulus

    @property
    def n_stimuli(self) -> int:
        return len(self.n_shown)

    @property
    def starts(self) -> NDArray[np.intp]:
        return np.concatenate([[0], np.cumsum(self.n_shown)[:-1]])

    @property
    def n_averaged(self) -> float:
        """Harmonic mean of the trials of a stimulus."""
        return float(1 / np.mean(1 / self.n_shown))


def _check(
    method: str,
    measure: str,
    n_averaged: float | None,
    stimulus: ArrayLike | None,
    session: ArrayLike | None,
) -> None:
    if method not in _METHODS or measure not in _MEASURES:
        raise UsageError(
            f"method must be one of {', '.join(_METHODS)}, and measure one of "
            f"{', '.join(_MEASURES)}, got {method!r} and {measure!r}"
        )
    if n_averaged is not None and not n_averaged > 0:
        raise UsageError(f"n_averaged must be positive, got {n_averaged}")
    if session is not None and stimulus is None:
        raise UsageError(
            "session= is of single trials: give their stimulus= too. In an array of "
            "repeats each repeat is a session."
        )
    across = method.startswith("inter_subject")
    if across and (stimulus is not None or n_averaged or measure == "ncsnr"):
        raise UsageError(
            f"{method} compares subjects, (n_subjects, n_samples, n_targets): it takes "
            "no stimulus= or n_averaged=, and has no measure 'ncsnr'"
        )


def _trials(
    responses: ArrayLike, stimulus: ArrayLike | None, session: ArrayLike | None
) -> _Trials:
    values = np.asarray(responses, dtype=np.float64)
    if stimulus is None:
        if values.ndim != 3 or len(values) < 2 or values.shape[1] < 2:
            raise UsageError(
                "a noise ceiling needs an array (n_repeats, n_samples, n_targets) with "
                f"at least two repeats of two samples, got shape {values.shape}. "
                "Responses to stimuli that were shown once have no ceiling."
            )
        n_repeats, n_samples, n_targets = values.shape
        return _Trials(
            values.transpose(1, 0, 2).reshape(-1, n_targets),
            np.repeat(np.arange(n_samples), n_repeats),
            np.tile(np.arange(n_repeats), n_samples),
            np.full(n_samples, n_repeats),
        )
    labels = np.asarray(stimulus)
    sessions = np.zeros(len(labels)) if session is None else np.asarray(session)
    if values.ndim != 2 or not labels.shape == sessions.shape == values.shape[:1]:
        raise UsageError(
            "with stimulus=, responses must be (n_trials, n_targets), and stimulus and "
            f"session have a label a trial, got {values.shape}, {labels.shape} and "
            f"{sessions.shape}"
        )
    codes, n_shown = np.unique(labels, return_inverse=True, return_counts=True)[1:]
    visits = np.unique(sessions, return_inverse=True)[1]
    if len(n_shown) < 2 or np.sum(n_shown - 1) <= visits.max():
        raise UsageError(
            f"{len(labels)} trials of {len(n_shown)} stimuli in {visits.max() + 1} "
            "sessions hold too few repeats for a noise ceiling"
        )
    order = np.argsort(codes, kind="stable")
    return _Trials(values[order], codes[order], visits[order], n_shown)


def _halves(
    trials: _Trials,
    method: str,
    n_splits: int,
    rng: int | np.random.Generator | None,
) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Trials of the first and the second half of each stimulus shown twice or more."""
    if method != "split_half":
        return []
    if rng is None or n_splits < 1:
        raise UsageError(
            "split halves are drawn at random: give rng=, and n_splits > 0"
        )
    generator = np.random.default_rng(rng)
    half = np.repeat(trials.n_shown // 2, trials.n_shown)
    rank = np.arange(len(half)) - np.repeat(trials.starts, trials.n_shown)
    halves = []
    for _ in range(n_splits):
        order = np.lexsort((generator.random(len(half)), trials.stimulus))
        second = (rank >= half) & (rank < 2 * half)
        halves.append((order[rank < half], order[second]))
    return halves


def _chunks(trials: _Trials, n_resamples: int) -> list[slice]:
    n_trials, n_targets = trials.values.shape
    width = max(1, _CHUNK_BYTES // (48 * (n_trials + n_resamples)))
    return [slice(start, start + width) for start in range(0, n_targets, width)]


def _undefined(trials: _Trials) -> NDArray[np.bool_]:
    """Targets that hold nan, or whose mean over trials is the same of all stimuli."""
    sums = np.add.reduceat(trials.values, trials.starts, axis=0)
    means = sums / trials.n_shown[:, None]
    missing = ~np.isfinite(sums).all(axis=0)
    return missing | is_constant(means) | is_constant(trials.values)


def _variances(
    trials: _Trials,
    chunk: slice,
    method: str,
    counts: Floats,
    halves: list[tuple[NDArray[np.intp], NDArray[np.intp]]],
) -> tuple[Floats, Floats]:
    """S and N up to a common scale, of each resample (n_resamples, n_targets).

    Across subjects they are such that `_ceiling` gives the correlation of one subject.
    """
    raw = trials.values[:, chunk]
    if method.startswith("inter_subject"):
        r2 = np.clip(_across_subjects(raw, trials, method, counts), 0, None) ** 2
        return r2, (1 - r2) * trials.n_averaged
    values = _centred(raw, trials, scaled=method in ("explainable_variance", "ncsnr"))
    if method == "split_half":
        return _split_half(values, trials, counts, halves)
    n_shown = trials.n_shown[:, None].astype(np.float64)
    means = np.add.reduceat(values, trials.starts, axis=0) / n_shown
    within = np.add.reduceat(
        (values - means[trials.stimulus]) ** 2, trials.starts, axis=0
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        if method == "ncsnr":
            repeated = n_shown > 1
            variance = np.where(repeated, within / np.maximum(n_shown - 1, 1), 0.0)
            noise = counts @ variance / (counts @ repeated)
            # Of all trials 1, of a resample what it comes to.
            n_trials = counts @ n_shown
            power = counts @ np.add.reduceat(values**2, trials.starts, axis=0)
            mean = counts @ (n_shown * means) / n_trials
            lost = len(values) / (len(values) - trials.session.max() - 1)
            return np.clip((power / n_trials - mean**2) * lost - noise, 0, None), noise
        freedom = counts @ (n_shown - 1) - trials.session.max()
        noise = counts @ within / np.where(freedom > 0, freedom, np.nan)
        total = counts.sum(axis=1, keepdims=True)
        power = counts @ means**2 - (counts @ means) ** 2 / total
        signal = power / (total - 1) - noise * (counts @ (1 / n_shown)) / total
    return np.clip(signal, 0, None), noise


def _centred(raw: Floats, trials: _Trials, scaled: bool) -> Floats:
    """Trials without the mean of their session, which can be scaled to variance 1."""
    values = np.empty_like(raw)
    for number in range(trials.session.max() + 1):
        rows = trials.session == number
        part = raw[rows] - raw[rows].mean(axis=0)
        if scaled:
            spread = part.std(axis=0, ddof=1) if len(part) > 1 else np.zeros(1)
            part /= np.where(is_constant(raw[rows]), np.nan, spread)
        values[rows] = part
    return values


def _split_half(
    values: Floats,
    trials: _Trials,
    counts: Floats,
    halves: list[tuple[NDArray[np.intp], NDArray[np.intp]]],
) -> tuple[Floats, Floats]:
    half = trials.n_shown // 2
    used = half > 0
    starts = np.concatenate([[0], np.cumsum(half[used])[:-1]])
    size = half[used][:, None]
    r = np.zeros((len(counts), values.shape[1]))
    for rows in halves:
        first, second = (np.add.reduceat(values[one], starts) / size for one in rows)
        r += resampled_correlations(first, second[None], counts[:, used])[0]
    r /= len(halves)
    n_trials = 1 / np.mean(1 / half[used])
    return np.clip(r, 0, None), n_trials * (1 - r)


def _across_subjects(
    raw: Floats, trials: _Trials, method: str, counts: Floats
) -> Floats:
    """Mean correlation of subjects with the mean of the others, or of all."""
    subjects = raw.reshape(trials.n_stimuli, -1, raw.shape[1]).transpose(1, 0, 2)
    total, n_subjects = subjects.sum(axis=0), len(subjects)
    r = np.zeros((len(counts), raw.shape[1]))
    for one in subjects:
        rest = total if method == "inter_subject_upper" else total - one
        r += resampled_correlations(one, rest[None], counts)[0]
    return np.asarray(r / n_subjects)


def _ceiling(
    variances: tuple[Floats, Floats],
    trials: _Trials,
    measure: str,
    n_averaged: float | None,
) -> Floats:
    signal, noise = variances
    k = trials.n_averaged if n_averaged is None else n_averaged
    with np.errstate(invalid="ignore", divide="ignore"):
        if measure == "ncsnr":
            return np.asarray(np.sqrt(signal / noise))
        r2 = np.asarray(signal / (signal + noise / k))
    return r2 if measure == "r2" else np.sqrt(r2)
