"""Line noise, band-pass, and the amplitude of the high-gamma band.

Filters are MNE's zero-phase FIR filters (Hamming window; Blackman for high gamma). Each
stretch between two interruptions is filtered on its own: samples on the two sides of a
gap are no neighbours in time. Near the ends of a stretch, within half a filter length,
the output rests on mirrored samples. Spans marked ``BAD`` are filtered with the rest:
an artefact spreads by half a filter length on either side.

References
----------
Widmann A et al. (2015) Digital filter design for electrophysiological data: a practical
approach. J. Neurosci. Methods 250:34-46.
Ray S, Maunsell JHR (2011) Different origins of gamma rhythm and high-gamma activity in
macaque visual cortex. PLoS Biol. 9:e1000610.
"""

import logging
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromm.core import UsageError
from neuromm.prepare.data_channels import data_channels
from neuromm.prepare.gaps import recording_segments

__all__ = ["band_pass", "high_gamma", "line_harmonics", "notch"]

_logger = logging.getLogger(__name__)

# Harmonics above this share of the sampling rate lie in the roll-off of the amplifier's
# own anti-aliasing filter.
_HIGHEST_HARMONIC = 0.45

# Length of a Hamming-windowed FIR filter times the width of its transition band.
_HAMMING_LENGTH = 3.3

# Full width (Hz) of both transition bands of a notch: as in MNE, and at most.
_NOTCH_TRANSITION_HZ = 1.0
_WIDEST_NOTCH_TRANSITION_HZ = 10.0

# Amplitudes below this share of the channel's median are set to it before the
# logarithm: an amplifier that clips or drops out would give -inf.
_LOWEST_AMPLITUDE = 1e-6


def line_harmonics(line_freq: float, sfreq: float) -> NDArray[np.float64]:
    """The line frequency and its harmonics below 0.45 times the sampling rate, in Hz.

    Examples
    --------
    >>> line_harmonics(60, 512)
    array([ 60., 120., 180.])
    """
    count = math.ceil(_HIGHEST_HARMONIC * sfreq / line_freq) - 1
    return line_freq * np.arange(1.0, max(count, 0) + 1)


def notch(raw: Any, line_freq: float | None = None) -> Any:
    """Remove line noise and its harmonics.

    Parameters
    ----------
    raw : mne.io.BaseRaw
        It is not changed.
    line_freq : float, optional
        50 or 60 Hz as a rule; the one noted in the recording if not given.

    Returns
    -------
    filtered : mne.io.BaseRaw
        In memory; the data channels are filtered, the others as they were. A
        recording sampled too slowly to hold the line frequency comes back as it is.

    Raises
    ------
    UsageError
        If the line frequency is neither given nor noted in the recording, or is not
        positive.

    Notes
    -----
    Stop bands are f / 200 wide with transition bands of 0.5 Hz on either side. In a
    stretch shorter than that filter (6.6 s) the transition bands widen until it fits;
    a stretch under 0.66 s is left unfiltered, with a warning in the log.
    """
    import mne

    frequency = raw.info["line_freq"] if line_freq is None else line_freq
    if frequency is None:
        raise UsageError(
            "the recording does not say its line frequency (PowerLineFrequency in the "
            "JSON sidecar): give --line-freq 50 or --line-freq 60"
        )
    if not frequency > 0:
        raise UsageError(f"the line frequency must be positive, got {frequency} Hz")
    sfreq = float(raw.info["sfreq"])
    harmonics = line_harmonics(float(frequency), sfreq)

    def remove_line(data: NDArray[np.float64]) -> NDArray[np.float64]:
        # MNE rounds the length up to the next odd number of samples.
        transition = 2 * _HAMMING_LENGTH * sfreq / max(data.shape[-1] - 2, 1)
        if transition > _WIDEST_NOTCH_TRANSITION_HZ:
            _logger.warning(
                "a stretch of %.2f s between two interruptions is too short for the "
                "notch filter and is left as it is",
                data.shape[-1] / sfreq,
            )
            return data
        filtered: NDArray[np.float64] = mne.filter.notch_filter(
            data,
            sfreq,
            harmonics,
            trans_bandwidth=max(_NOTCH_TRANSITION_HZ, transition),
            verbose="WARNING",
        )
        return filtered

    if len(harmonics) == 0:
        _logger.info("%g Hz sampling holds no %g Hz line noise", sfreq, frequency)
        return raw.copy().load_data(verbose="ERROR")
    return _on_segments(raw, remove_line)


def band_pass(raw: Any, l_freq: float | None, h_freq: float | None) -> Any:
    """Keep the frequencies between ``l_freq`` and ``h_freq``.

    Parameters
    ----------
    raw : mne.io.BaseRaw
        It is not changed.
    l_freq, h_freq : float or None
        Lower and upper end of the pass band in Hz; None leaves that end open.

    Returns
    -------
    filtered : mne.io.BaseRaw
        In memory; the data channels are filtered, the others as they were.
        ``info["highpass"]`` and ``info["lowpass"]`` stay those of the amplifier.

    Raises
    ------
    UsageError
        If the band is empty or reaches the Nyquist frequency.

    Warns
    -----
    RuntimeWarning
        By MNE, where a stretch is shorter than the filter (3.3 s for a transition band
        of 1 Hz): its output is distorted.
    """
    import mne

    sfreq = float(raw.info["sfreq"])
    _check_band(l_freq, h_freq, sfreq)

    def keep_band(data: NDArray[np.float64]) -> NDArray[np.float64]:
        filtered: NDArray[np.float64] = mne.filter.filter_data(
            data, sfreq, l_freq, h_freq, verbose="WARNING"
        )
        return filtered

    return _on_segments(raw, keep_band)


def high_gamma(raw: Any, band: tuple[float, float] = (70.0, 150.0)) -> Any:
    """Logarithm of the amplitude in the high-gamma band.

    Parameters
    ----------
    raw : mne.io.BaseRaw
        It is not changed. Remove line noise first: harmonics lie in the band.
    band : (float, float)
        Lower and upper end in Hz.

    Returns
    -------
    amplitude : mne.io.BaseRaw
        In memory. The data channels hold the natural logarithm of the amplitude (log V
        for voltages), at the sampling rate of ``raw``; the others are as they were.

    Raises
    ------
    UsageError
        If the band is empty or reaches the Nyquist frequency.

    Notes
    -----
    One band-pass over the whole band, then the modulus of the analytic signal (Hilbert
    transform). Power falls with frequency, so the lower end of the band weighs most.
    Amplitudes under one millionth of the channel's median are raised to that.
    """
    import mne
    from scipy.fft import next_fast_len
    from scipy.signal import hilbert

    sfreq = float(raw.info["sfreq"])
    _check_band(*band, sfreq)

    def log_amplitude(data: NDArray[np.float64]) -> NDArray[np.float64]:
        n_times = data.shape[-1]
        # Slow waves are up to a hundred times the band's amplitude: the 53 dB of a
        # Hamming window would let them through, the 74 dB of a Blackman window not.
        narrow = mne.filter.filter_data(
            data, sfreq, *band, fir_window="blackman", verbose="WARNING"
        )
        for channel in narrow:  # one at a time: the analytic signal is twice as large
            analytic = hilbert(channel, N=next_fast_len(n_times))[:n_times]
            amplitude = np.abs(analytic)
            lowest = max(_LOWEST_AMPLITUDE * np.median(amplitude), np.finfo(float).tiny)
            channel[:] = np.log(np.maximum(amplitude, lowest))
        result: NDArray[np.float64] = narrow
        return result

    return _on_segments(raw, log_amplitude)


def _check_band(l_freq: float | None, h_freq: float | None, sfreq: float) -> None:
    low, high = l_freq or 0.0, math.inf if h_freq is None else h_freq
    if not 0 <= low < high:
        raise UsageError(f"the pass band must ascend, got {l_freq} to {h_freq} Hz")
    if (math.isfinite(high) and high >= sfreq / 2) or low >= sfreq / 2:
        raise UsageError(
            f"a band of {l_freq} to {h_freq} Hz needs a sampling rate above "
            f"{2 * max(low, high if math.isfinite(high) else 0):g} Hz, and the "
            f"recording has {sfreq:g} Hz"
        )


def _on_segments(
    raw: Any, function: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> Any:
    """Copy of ``raw`` with the data channels of each uninterrupted stretch replaced."""
    picks = data_channels(raw.info)
    segments = recording_segments(raw)

    def apply(data: NDArray[np.float64]) -> NDArray[np.float64]:
        result = data.copy()
        for start, stop in segments:
            result[:, start:stop] = function(data[:, start:stop])
        return result

    return (
        raw.copy()
        .load_data(verbose="ERROR")
        .apply_function(apply, picks=picks, channel_wise=False, verbose="WARNING")
    )
