"""Frames of a film, and where its scenes change."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neuromm.core import DataError, InputMissingError, UsageError
from neuromm.features.image_pixels import luminance, read_pixels

__all__ = ["cell_means", "film_frames", "luminance_grids", "scene_cuts"]

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
_GRID = 32


def film_frames(folder: str | Path) -> list[Path]:
    """Image files of a folder in the order of the numbers in their names.

    Parameters
    ----------
    folder : path-like
        Frames such as ``frame_1.png`` … ``frame_120.png``, without gaps.

    Returns
    -------
    frames : list of Path

    Raises
    ------
    InputMissingError
        If the folder is missing or holds no image.
    DataError
        If the last numbers in the names leave one out: each frame after it would be
        taken for an earlier one.
    """
    place = Path(folder)
    if not place.is_dir():
        raise InputMissingError(f"no folder of frames at {place}")
    paths = [p for p in place.iterdir() if p.suffix.lower() in _SUFFIXES]
    if not paths:
        raise InputMissingError(
            f"{place} holds no image ({', '.join(_SUFFIXES)}): cut the film into "
            "frames first"
        )
    numbers = {path: _number(path) for path in paths}
    ordered = sorted(paths, key=lambda path: (numbers[path], path.name))
    steps = np.diff([numbers[path] for path in ordered])
    gap = np.flatnonzero(steps != 1)
    if len(gap):
        before, after = ordered[gap[0]].name, ordered[gap[0] + 1].name
        raise DataError(
            f"{after} follows {before}: expected frames that are numbered one by one",
            place,
        )
    return ordered


def scene_cuts(
    frames: Sequence[object],
    fps: float,
    *,
    threshold: float = 0.12,
    shortest_s: float = 0.6,
) -> NDArray[np.float64]:
    """Onsets of new scenes: where a frame differs from the one before.

    Parameters
    ----------
    frames : sequence
        Paths, Pillow images or arrays.
    fps : float
        Frames per second.
    threshold : float
        Mean absolute change of the red, green and blue values on a grid of 32 x 32
        cells, from 0 to 1, above which a frame begins a scene.
    shortest_s : float
        A scene lasts at least as long, in s.

    Returns
    -------
    onsets : array of shape (n_scenes - 1,)
        In s from the first frame. The beginning of the film is no cut.

    Notes
    -----
    A detector of hard cuts, in the manner of the content detector of PySceneDetect. It
    misses fades, and takes flashes for cuts.
    """
    if not fps > 0:
        raise UsageError(f"fps must be positive, got {fps}")
    cuts: list[float] = []
    previous = None
    for number, frame in enumerate(frames):
        grid = _grid(read_pixels(frame))
        if previous is not None:
            change = float(np.abs(grid - previous).mean())
            time = number / fps
            last = cuts[-1] if cuts else 0.0
            if change > threshold and time - last >= shortest_s - 1e-9:
                cuts.append(time)
        previous = grid
    return np.array(cuts)


def luminance_grids(frames: Sequence[object]) -> Iterator[NDArray[np.float64]]:
    """Relative luminance of each frame on a grid of 32 x 32 cells, one at a time."""
    for frame in frames:
        light = luminance(read_pixels(frame))
        yield cell_means(light, _GRID)


def cell_means(values: NDArray[np.float64], n_cells: int) -> NDArray[np.float64]:
    """Means over n_cells x n_cells cells, equal in area to a pixel.

    Parameters
    ----------
    values : array of shape (height, width, ...)
    n_cells : int

    Returns
    -------
    means : array of shape (n_cells, n_cells, ...)
        A pixel that a border cuts counts for each side by its share.
    """
    rows = _shares(values.shape[0], n_cells)
    columns = _shares(values.shape[1], n_cells)
    means = np.einsum("ih,hw...,jw->ij...", rows, values, columns, optimize=True)
    return np.asarray(means, dtype=np.float64)


def _shares(n_pixels: int, n_cells: int) -> NDArray[np.float64]:
    """Share of each pixel in each cell; rows sum to 1."""
    edges = np.linspace(0, n_pixels, n_cells + 1)
    pixel = np.arange(n_pixels)
    covered = np.minimum(edges[1:, None], pixel + 1) - np.maximum(
        edges[:-1, None], pixel
    )
    shares = np.clip(covered, 0, None)
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def _grid(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    return cell_means(pixels / 255.0, _GRID)


def _number(path: Path) -> int:
    found = re.findall(r"\d+", path.stem)
    if not found:
        raise DataError("has no number in its name: which frame is it?", path)
    return int(found[-1])
