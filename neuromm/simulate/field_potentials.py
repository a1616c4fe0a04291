"""EEG and iEEG with evoked responses that carry planted features.

Voltage of a channel = evoked + noise + reference + line:

evoked     a half wave in the latency window of its kind after each event, with an
           amplitude of a mean plus features times weights
noise      1/f above 1 Hz, flat below
reference  1/f noise that all channels share
line       50 Hz with its own phase and strength in each channel
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["LATENCIES", "PlantedChannels", "pink_noise", "voltage_run"]

Array = NDArray[np.floating]

# Seconds after the event: first visual responses by 100 ms, the N400 of words, and
# between and after them what takes both.
LATENCIES: Mapping[str, tuple[float, float]] = {
    "vision": (0.10, 0.30),
    "language": (0.30, 0.50),
    "both": (0.35, 0.60),
    "interactive": (0.35, 0.60),
}
LINE_FREQ = 50.0  # Hz

_NOISE_UV = 20.0
_SHARED_UV = 6.0
_LINE_UV = 8.0
_MEAN_UV = 8.0  # mean evoked response of a driven channel, at its peak


@dataclass(frozen=True)
class PlantedChannels:
    """What the channels of a recording answer to.

    Attributes
    ----------
    kinds : sequence of str
        A key of `LATENCIES` or ``"none"``, one a channel.
    weights : array of shape (n_features, n_channels)
        V at the peak, per unit of a feature.
    """

    kinds: NDArray[np.object_]
    weights: Array


def pink_noise(
    rng: np.random.Generator, n_channels: int, n_times: int, sfreq: float
) -> Array:
    """Noise of standard deviation 1 with power 1/f above 1 Hz.

    Returns
    -------
    noise : array of shape (n_channels, n_times)
    """
    white = rng.standard_normal((n_channels, n_times))
    frequency = np.fft.rfftfreq(n_times, 1 / sfreq)
    spectrum = np.fft.rfft(white, axis=1) / np.sqrt(np.maximum(frequency, 1.0))
    spectrum[:, 0] = 0
    noise = np.fft.irfft(spectrum, n_times, axis=1)
    return np.asarray(noise / noise.std(axis=1, keepdims=True))


def voltage_run(
    rng: np.random.Generator,
    channels: PlantedChannels,
    features: Array,
    onset: Array,
    n_times: int,
    sfreq: float,
) -> Array:
    """One run.

    Parameters
    ----------
    rng : Generator
    channels : PlantedChannels
    features : array of shape (n_events, n_features)
    onset : array of shape (n_events,)
        s.
    n_times : int
    sfreq : float
        Hz.

    Returns
    -------
    voltage : array of shape (n_channels, n_times)
        V.
    """
    n_channels = len(channels.kinds)
    voltage = pink_noise(rng, n_channels, n_times, sfreq) * _NOISE_UV
    voltage += pink_noise(rng, 1, n_times, sfreq) * _SHARED_UV
    times = np.arange(n_times) / sfreq
    phase = rng.uniform(0, 2 * np.pi, (n_channels, 1))
    strength = _LINE_UV * rng.uniform(0.5, 1.5, (n_channels, 1))
    voltage += strength * np.sin(2 * np.pi * LINE_FREQ * times + phase)
    voltage *= 1e-6
    amplitude = features @ channels.weights
    for kind, window in LATENCIES.items():
        driven = np.flatnonzero(channels.kinds == kind)
        if driven.size:
            evoked = _MEAN_UV * 1e-6 + amplitude[:, driven]
            voltage[driven] += _evoked(evoked, onset, window, n_times, sfreq)
    return voltage


def _evoked(
    amplitude: Array,
    onset: Array,
    window: tuple[float, float],
    n_times: int,
    sfreq: float,
) -> Array:
    """Place a half wave a channel and event, (n_channels, n_times)."""
    start, stop = (np.asarray(onset) + edge for edge in window)
    course = np.zeros((amplitude.shape[1], n_times))
    for event, (first, last) in enumerate(zip(start, stop, strict=True)):
        rows = np.arange(np.ceil(first * sfreq), np.floor(last * sfreq) + 1, dtype=int)
        wave = np.sin(np.pi * (rows / sfreq - first) / (last - first)) ** 2
        course[:, rows] += np.outer(amplitude[event], wave)
    return course
