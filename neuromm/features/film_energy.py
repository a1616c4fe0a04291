"""Luminance and motion of a film: what a scene cut changes before any meaning does.

References
----------
Adelson & Bergen (1985) Spatiotemporal energy models for the perception of motion. JOSA
A 2: 284-299.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from neuromm.core import DataError, UsageError
from neuromm.features.checked_table import checked_table
from neuromm.features.film_frames import luminance_grids
from neuromm.features.table import FeatureTable

__all__ = ["film_luminance", "motion_energy"]

_GRID = 32
_SPATIAL = (2.0, 4.0, 8.0)  # cycles a side; 32 cells resolve up to 16
_DIRECTIONS = 8
_TEMPORAL = (2.0, 4.0)  # Hz


def film_luminance(
    frames: Sequence[object],
    fps: float,
    onsets: ArrayLike | None = None,
    *,
    window_s: float = 0.2,
    run: str | None = None,
    name: str = "luminance",
) -> FeatureTable:
    """Mean luminance of a film and its contrast.

    Parameters
    ----------
    frames : sequence
        Paths, Pillow images or arrays; frame i is shown from i / fps on.
    fps : float
        Frames per second.
    onsets : array of shape (n_events,), optional
        In s from the beginning of the film; that of each frame if not given.
    window_s : float
        Frames that begin within this time after an event are averaged; at least the
        one on the screen. Not used without ``onsets``.
    run : str, optional
        Labels the rows.
    name : str
        Of the space.

    Returns
    -------
    table : FeatureTable
        Columns ``luminance``, relative luminance from 0 (black) to 1 (white) in linear
        light, and ``contrast``, its standard deviation over 32 x 32 cells.

    Raises
    ------
    DataError
        If an event lies outside the film.
    """
    series = np.array([[g.mean(), g.std()] for g in luminance_grids(frames)])
    columns = ["luminance", "contrast"]
    return _table(series, columns, fps, onsets, window_s, run, name)


def motion_energy(
    frames: Sequence[object],
    fps: float,
    onsets: ArrayLike | None = None,
    *,
    window_s: float = 0.2,
    run: str | None = None,
    name: str = "motion energy",
) -> FeatureTable:
    """Change and motion in a film.

    Parameters
    ----------
    frames, fps, onsets, window_s, run, name
        See `film_luminance`.

    Returns
    -------
    table : FeatureTable
        ``frame_difference``: mean absolute change of luminance from the frame before.
        ``energy_sf4_dir045_tf2`` and the like: energy of motion of 4 cycles a side
        towards 45 degrees (counter-clockwise from rightwards, as seen) at 2 Hz, and
        ``energy_static_sf4``: that of structure at rest, in log10(1 + 10^4 energy).

    Raises
    ------
    DataError
        If an event lies outside the film, or the film is slower than 8 frames a second.

    Notes
    -----
    Luminance on 32 x 32 cells, less its mean, under a Hann window, is projected on a
    complex wave c(t) for each spatial frequency and orientation. Motion makes c turn:
    its energy at +f and -f Hz, in a Hann window over the last 2 / f seconds, tells one
    direction from the other, and both from rest. This is the energy model of Adelson &
    Bergen over the whole field; Nishimoto et al. (2011) have 6555 filters at many
    places.
    """
    if fps < 4 * min(_TEMPORAL):
        raise DataError(
            f"motion needs {4 * min(_TEMPORAL):g} frames a second or more, got {fps:g}"
        )
    temporal = [f for f in _TEMPORAL if fps >= 4 * f]
    differences, waves = _projected(frames)
    columns = ["frame_difference"]
    features = [differences]
    half = _DIRECTIONS // 2
    for position, spatial in enumerate(_SPATIAL):
        group = waves[:, position * half : (position + 1) * half]
        rest = np.mean(np.abs(group) ** 2, axis=1)
        columns.append(f"energy_static_sf{spatial:g}")
        features.append(_compressed(rest))
        for frequency in temporal:
            for turn in range(_DIRECTIONS):
                # Waves cover half a circle; the other half is motion the other way.
                sign = 1 if turn < half else -1
                energy = _energy(group[:, turn % half], sign * frequency, fps)
                angle = 360 * turn // _DIRECTIONS
                columns.append(f"energy_sf{spatial:g}_dir{angle:03d}_tf{frequency:g}")
                features.append(_compressed(energy))
    series = np.stack(features, axis=1)
    return _table(series, columns, fps, onsets, window_s, run, name)


def _projected(
    frames: Sequence[object],
) -> tuple[NDArray[np.float64], NDArray[np.complex128]]:
    """Frame differences, and the complex amplitude of each spatial wave."""
    filters = _spatial_waves()
    differences, amplitudes = [], []
    previous = None
    for grid in luminance_grids(frames):
        differences.append(0.0 if previous is None else np.abs(grid - previous).mean())
        amplitudes.append(filters @ (grid - grid.mean()).ravel())
        previous = grid
    if not amplitudes:
        raise DataError("the film has no frame")
    return np.array(differences), np.array(amplitudes)


def _spatial_waves() -> NDArray[np.complex128]:
    """Rows exp(-i k x) under a window that sums to 1; x to the right, y upwards."""
    centre = (np.arange(_GRID) + 0.5) / _GRID - 0.5
    x, y = np.meshgrid(centre, -centre, indexing="xy")
    window = np.cos(np.pi * x) ** 2 * np.cos(np.pi * y) ** 2
    window /= window.sum()
    rows = []
    for spatial in _SPATIAL:
        for turn in range(_DIRECTIONS // 2):
            angle = 2 * np.pi * turn / _DIRECTIONS
            phase = 2 * np.pi * spatial * (np.cos(angle) * x + np.sin(angle) * y)
            rows.append((window * np.exp(-1j * phase)).ravel())
    return np.array(rows)


def _energy(
    amplitude: NDArray[np.complex128], frequency: float, fps: float
) -> NDArray[np.float64]:
    """Energy of a turning amplitude; motion towards +k turns it by exp(-i 2 pi f t)."""
    from scipy.signal import lfilter

    n_taps = round(2 * fps / abs(frequency))
    tap = np.arange(n_taps)
    # Two periods of a Hann window: its spectrum is 0 at rest and for the way back.
    window = np.sin(np.pi * (tap + 0.5) / n_taps) ** 2
    kernel = window / window.sum() * np.exp(-2j * np.pi * frequency * tap / fps)
    # The first frame counts as having been there before: its onset is no motion.
    turning = lfilter(kernel, [1.0], amplitude - amplitude[0])
    return np.asarray(np.abs(turning) ** 2)


def _compressed(energy: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.log10(1 + 1e4 * energy))


def _table(
    series: NDArray[np.float64],
    columns: Sequence[str],
    fps: float,
    onsets: ArrayLike | None,
    window_s: float,
    run: str | None,
    name: str,
) -> FeatureTable:
    if not fps > 0:
        raise UsageError(f"fps must be positive, got {fps}")
    shown = np.arange(len(series)) / fps
    times = shown if onsets is None else np.asarray(onsets, dtype=float)
    values = series if onsets is None else _averaged(series, fps, times, window_s)
    keys = pd.DataFrame({"onset": times})
    if run is not None:
        keys["run"] = run
    return checked_table(
        name=name,
        keys={str(column): keys[column].to_numpy() for column in keys},
        values=values,
        columns=columns,
        source=Path(name),
        attrs={"model": name, "kind": "nuisance", "fps": fps, "window_s": window_s},
    )


def _averaged(
    series: NDArray[np.float64],
    fps: float,
    times: NDArray[np.float64],
    window_s: float,
) -> NDArray[np.float64]:
    if window_s < 0:
        raise UsageError(f"window_s must be 0 or more, got {window_s}")
    length = len(series) / fps
    outside = times[(times < 0) | (times >= length)]
    if len(outside):
        raise DataError(
            f"{len(outside)} events lie outside the film of {length:g} s, the first at "
            f"{outside[0]:g} s: do both begin with the run?"
        )
    # A frame that begins at the event is the one on the screen, despite rounding.
    first = np.floor(times * fps + 1e-6).astype(int)
    last = np.floor((times + window_s) * fps - 1e-6).astype(int)
    last = np.clip(last, first, len(series) - 1)
    return np.stack(
        [series[a : b + 1].mean(axis=0) for a, b in zip(first, last, strict=True)]
    )
