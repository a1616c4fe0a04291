"""From events and sampled features to what a volume is expected to show.

An event of onset ``a``, duration ``d`` and feature vector ``x`` adds
``x (H(t - a) - H(t - a - d))`` to the volume at time ``t``, with ``H`` the running sum
of the haemodynamic response. The response of every volume to every event is therefore
one matrix, and all features are convolved by a single product with it.

References
----------
Friston et al. (1998) Event-related fMRI: characterizing differential responses.
NeuroImage 7:30-40 (the SPM response).
Glover (1999) Deconvolution of impulse response in event-related BOLD fMRI.
NeuroImage 9:416-429.
"""

from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuromm.core import UsageError

__all__ = [
    "HRF",
    "convolve_events",
    "convolve_samples",
    "frame_times",
    "volume_means",
]

HRF = Literal["spm", "glover", "spm + derivative", "glover + derivative"]

Floats = NDArray[np.float64]

# How long before the first volume an event may begin and still count, as in nilearn.
_MIN_ONSET_S = -24.0
_EVENTS_AT_ONCE = 1024


def frame_times(n_volumes: int, t_r: float, slice_time_ref: float = 0.5) -> Floats:
    """Time that each volume stands for.

    Parameters
    ----------
    n_volumes : int
    t_r : float
        Repetition time in s.
    slice_time_ref : float in [0, 1]
        Part of the repetition time to which slices were shifted: 0 the start of a
        volume, 0.5 its middle (the reference of fMRIPrep, and the least wrong choice
        without slice timing correction).

    Returns
    -------
    times : array of shape (n_volumes,)
        Seconds from the start of the run.
    """
    if not t_r > 0:
        raise UsageError(f"t_r must be above 0 s, got {t_r}")
    if not 0 <= slice_time_ref <= 1:
        raise UsageError(f"slice_time_ref must lie in [0, 1], got {slice_time_ref}")
    return (np.arange(n_volumes, dtype=np.float64) + slice_time_ref) * t_r


def convolve_events(
    onset: ArrayLike,
    duration: ArrayLike,
    values: ArrayLike,
    frame_times: ArrayLike,
    *,
    hrf: HRF = "spm",
    oversampling: int = 50,
) -> Floats:
    """Haemodynamic response to events whose features are their amplitudes.

    Parameters
    ----------
    onset, duration : array of shape (n_events,)
        Seconds from the start of the run. An event of duration 0 lasts one step of the
        fine grid, ``t_r / oversampling``.
    values : array of shape (n_events, n_features)
    frame_times : array of shape (n_volumes,)
        Evenly spaced times in s.
    hrf : {"spm", "glover", "spm + derivative", "glover + derivative"}
        With the derivative, the columns of the time derivative follow those of the
        response, each made orthogonal to the response of its feature.
    oversampling : int
        Steps of the fine grid in one repetition time.

    Returns
    -------
    responses : array of shape (n_volumes, n_features), or twice as many features
        Same as ``nilearn.glm.first_level.compute_regressor`` for each feature. Events
        that begin more than 24 s before the first volume count from there on.

    Raises
    ------
    UsageError
        For an unknown model, or fewer than two volumes.
    """
    starts, lengths = np.asarray(onset, dtype=float), np.asarray(duration, dtype=float)
    amplitudes = _matrix(values, len(starts))
    times = _even_times(frame_times)
    t_r = float(np.min(np.diff(times)))
    grid = _fine_grid(times, oversampling)
    first, last = _event_steps(starts, lengths, grid)
    steps, weights = _interpolation(times, grid)
    parts = []
    for kernel in _kernels(hrf, t_r, oversampling):
        total = np.zeros((len(times), amplitudes.shape[1]))
        for lo in range(0, len(starts), _EVENTS_AT_ONCE):
            block = slice(lo, lo + _EVENTS_AT_ONCE)
            total += (
                _step_response(kernel, steps, weights, first[block])
                - _step_response(kernel, steps, weights, last[block])
            ) @ amplitudes[block]
        parts.append(total)
    return _with_orthogonal_derivative(parts)


def convolve_samples(
    values: ArrayLike,
    t_r: float,
    *,
    hrf: HRF = "spm",
    slice_time_ref: float = 0.5,
    oversampling: int = 50,
) -> Floats:
    """Haemodynamic response to features that were sampled once a volume.

    A row describes the stimulus during its volume, so it is held for one repetition
    time from the start of the volume.

    Parameters
    ----------
    values : array of shape (n_volumes, n_features)
    t_r : float
        Repetition time in s.
    hrf, oversampling
        As for `convolve_events`.
    slice_time_ref : float in [0, 1]
        Part of a volume's time at which its response is read; see `frame_times`.

    Returns
    -------
    responses : array of shape (n_volumes, n_features), or twice as many features
        A constant feature of 1 settles at 1, for the response has unit area.
    """
    from scipy.linalg import toeplitz

    signal = _matrix(values)
    lags = (np.arange(len(signal)) + slice_time_ref) * oversampling
    parts = []
    for kernel in _kernels(hrf, t_r, oversampling):
        area = np.concatenate([[0.0], np.cumsum(kernel)])
        at = np.arange(len(area))
        held = np.interp(lags, at, area) - np.interp(lags - oversampling, at, area)
        causal = toeplitz(held, np.zeros(len(signal)))
        parts.append(causal @ signal)
    return _with_orthogonal_derivative(parts)


def volume_means(
    onset: ArrayLike,
    duration: ArrayLike,
    values: ArrayLike,
    frame_times: ArrayLike,
    *,
    slice_time_ref: float = 0.5,
) -> Floats:
    """Features of the events during each volume, without a haemodynamic model.

    The start of a finite impulse response: delays are put on top with `delay`.

    Parameters
    ----------
    onset, duration : array of shape (n_events,)
        Seconds. An event of duration 0 belongs wholly to the volume it falls in; any
        other counts by the part of the volume that it fills.
    values : array of shape (n_events, n_features)
    frame_times : array of shape (n_volumes,)
        Evenly spaced times in s.
    slice_time_ref : float
        The one with which ``frame_times`` were made.

    Returns
    -------
    means : array of shape (n_volumes, n_features)
    """
    starts, lengths = np.asarray(onset, dtype=float), np.asarray(duration, dtype=float)
    amplitudes = _matrix(values, len(starts))
    times = _even_times(frame_times)
    t_r = float(np.min(np.diff(times)))
    begin = (times - slice_time_ref * t_r)[:, None]
    ends = starts + lengths
    overlap = np.minimum(begin + t_r, ends) - np.maximum(begin, starts)
    share = np.clip(overlap, 0, None) / t_r
    # An onset of 2.0 s that a table holds as 1.9999999 belongs to the volume from 2.
    volume = np.floor((starts - begin[0]) / t_r + 1e-6)
    brief = lengths <= 0
    inside = np.arange(len(times))[:, None] == volume[brief]
    share[:, brief] = inside.astype(float)
    product: Floats = share @ amplitudes
    return product


def _matrix(values: ArrayLike, n_rows: int | None = None) -> Floats:
    matrix = np.asarray(values, dtype=float)
    if matrix.ndim != 2 or (n_rows is not None and len(matrix) != n_rows):
        wanted = "n_volumes" if n_rows is None else str(n_rows)
        raise ValueError(
            f"values must have the shape ({wanted}, n_features), got {matrix.shape}"
        )
    return matrix


def _even_times(frame_times: ArrayLike) -> Floats:
    times = np.asarray(frame_times, dtype=float)
    if times.ndim != 1 or len(times) < 2:
        raise UsageError(f"expected two volumes or more, got times {times.shape}")
    return times


def _kernels(hrf: str, t_r: float, oversampling: int) -> list[Floats]:
    """Responses (and derivatives) on the fine grid; the first has unit sum."""
    from nilearn.glm import first_level

    if hrf not in get_args(HRF):
        known = ", ".join(f'"{name}"' for name in get_args(HRF))
        raise UsageError(f"hrf must be one of {known}, got {hrf!r}")
    shape = hrf.split(" ")[0]
    makers: list[Callable[..., Any]] = [getattr(first_level, f"{shape}_hrf")]
    if hrf.endswith("derivative"):
        makers.append(getattr(first_level, f"{shape}_time_derivative"))
    return [np.asarray(make(t_r, oversampling), dtype=float) for make in makers]


def _fine_grid(times: Floats, oversampling: int) -> Floats:
    """Grid on which nilearn places events; its exact ends decide how they round."""
    n_frames = len(times)
    end = times.max() * (1 + 1 / (n_frames - 1))
    begin = times.min() + _MIN_ONSET_S
    rate = (n_frames - 1) / (times.max() - times.min()) * oversampling
    return np.linspace(begin, end, int(np.rint((end - begin) * rate + 1)))


def _event_steps(
    onset: Floats, duration: Floats, grid: Floats
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """First step of each event on the grid, and the step after its last."""
    final = len(grid) - 1
    first = np.minimum(np.searchsorted(grid, onset), final)
    last = np.minimum(np.searchsorted(grid, onset + duration), final)
    return first, np.where((last == first) & (last < final), last + 1, last)


def _interpolation(times: Floats, grid: Floats) -> tuple[NDArray[np.intp], Floats]:
    """Grid step below each volume, and the weight of the step above it."""
    steps = np.clip(np.searchsorted(grid, times, side="right") - 1, 0, len(grid) - 2)
    return steps, (times - grid[steps]) / (grid[steps + 1] - grid[steps])


def _step_response(
    kernel: Floats,
    steps: NDArray[np.intp],
    weights: Floats,
    start: NDArray[np.intp],
) -> Floats:
    """Response at each volume to a stimulus that goes on from each start."""
    area = np.concatenate([[0.0], np.cumsum(kernel)])
    lag = steps[:, None] - start[None, :] + 1
    below = area[np.clip(lag, 0, len(kernel))]
    above = area[np.clip(lag + 1, 0, len(kernel))]
    response: Floats = below + weights[:, None] * (above - below)
    return response


def _with_orthogonal_derivative(parts: list[Floats]) -> Floats:
    if len(parts) == 1:
        return parts[0]
    response, derivative = parts
    power = np.sum(response**2, axis=0)
    shared = np.sum(response * derivative, axis=0)
    slope = np.divide(shared, power, out=np.zeros_like(power), where=power > 0)
    return np.hstack([response, derivative - slope * response])
