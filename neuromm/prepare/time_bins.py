"""Moving means of a signal: the sliding windows of time-resolved encoding."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuromm.core import UsageError

__all__ = ["bin_times", "time_bins"]


def time_bins(
    data: ArrayLike,
    times: ArrayLike,
    window_ms: float | None,
    step_ms: float | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean of the signal in windows that slide along the last axis.

    Parameters
    ----------
    data : array of shape (..., n_times)
        In any unit.
    times : array of shape (n_times,)
        Time of each sample in s, evenly spaced.
    window_ms : float or None
        Length of a window; None takes single samples, without averaging.
    step_ms : float, optional
        From the beginning of a window to that of the next; the length of a window (or
        every sample) if not given.

    Returns
    -------
    binned : array of shape (..., n_bins)
        nan where a window holds a nan or an infinite value.
    centres : array of shape (n_bins,)
        Mean time of the samples of each window, in s.

    Raises
    ------
    UsageError
        If a window or a step is shorter than a sample, or a window longer than the
        data.

    Notes
    -----
    Window k begins at the sample nearest to k times the step, so that bins do not
    drift where the step is no whole number of samples. Only whole windows count:
    ``floor((duration - window) / step) + 1`` of them, 153 for 4 s, 200 ms and 25 ms;
    the 161 of Subramaniam et al. (2024) need 4.2 s of data. Sums are differences of
    one cumulative sum, so the cost does not grow with the window.

    Examples
    --------
    >>> time_bins([0.0, 1.0, 2.0, 3.0], [0.0, 0.01, 0.02, 0.03], 20, 10)
    (array([0.5, 1.5, 2.5]), array([0.005, 0.015, 0.025]))
    """
    values = np.asarray(data, dtype=float)
    grid = np.asarray(times, dtype=float)
    if values.shape[-1] != len(grid):
        raise ValueError(
            f"data and times must agree on the last axis, got {values.shape[-1]} "
            f"samples and {len(grid)} times"
        )
    starts, width = _windows(grid, window_ms, step_ms)
    centres = (grid[starts] + grid[starts + width - 1]) / 2
    if width == 1:
        return values[..., starts], centres
    return _window_means(values, starts, width), centres


def bin_times(
    times: ArrayLike, window_ms: float | None, step_ms: float | None = None
) -> NDArray[np.float64]:
    """The centres that `time_bins` gives for these times, in s."""
    grid = np.asarray(times, dtype=float)
    starts, width = _windows(grid, window_ms, step_ms)
    centres: NDArray[np.float64] = (grid[starts] + grid[starts + width - 1]) / 2
    return centres


def _windows(
    times: NDArray[np.float64], window_ms: float | None, step_ms: float | None
) -> tuple[NDArray[np.intp], int]:
    """First sample of each window, and samples in a window."""
    if len(times) < 2:
        raise UsageError(f"time bins need at least two samples, got {len(times)}")
    sfreq = (len(times) - 1) / (times[-1] - times[0])
    period_ms = 1000 / sfreq
    for name, value in (("window", window_ms), ("step", step_ms)):
        # Decimals of a table: 3.9 ms is meant as the 3.90625 ms of 256 Hz.
        if value is not None and not value > 0.99 * period_ms:
            raise UsageError(
                f"a {name} of {value:g} ms is shorter than a sample "
                f"({period_ms:.4g} ms at {sfreq:.6g} Hz): take a longer one, or none"
            )
    width = 1 if window_ms is None else round(window_ms / period_ms)
    if width > len(times):
        raise UsageError(
            f"a window of {window_ms:g} ms does not fit into epochs of "
            f"{len(times) * period_ms:.4g} ms"
        )
    step = (width if step_ms is None else step_ms / period_ms) or 1
    # The slack takes 80.00000001 samples for the 80 that were meant.
    count = int(np.floor((len(times) - width) / step + 1e-6)) + 1
    # Half up, with slack: a tie must not hang on the rounding of the sampling rate.
    starts = np.floor(np.arange(count) * step + 0.5 + 1e-6).astype(np.intp)
    return starts[starts + width <= len(times)], width


def _window_means(
    values: NDArray[np.float64], starts: NDArray[np.intp], width: int
) -> NDArray[np.float64]:
    finite = np.isfinite(values)
    all_finite = bool(finite.all())
    if not all_finite:
        # In a cumulative sum one nan would reach every later window.
        values = np.where(finite, values, 0.0)
    # Centred first: the offset of a DC amplifier is 10^4 times the signal.
    offset = values.mean(axis=-1, keepdims=True)
    means: NDArray[np.float64] = _differences(values - offset, starts, width) / width
    means += offset
    if not all_finite:
        lost = _differences((~finite).astype(np.int64), starts, width) > 0
        means[lost] = np.nan
    return means


def _differences(values: Any, starts: NDArray[np.intp], width: int) -> Any:
    total = np.zeros((*values.shape[:-1], values.shape[-1] + 1), dtype=values.dtype)
    np.cumsum(values, axis=-1, out=total[..., 1:])
    return total[..., starts + width] - total[..., starts]
