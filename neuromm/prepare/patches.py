"""Pictures around spots, cut by micrometres: a patch, and the tiles around it.

A spot of 100 um and one of 55 um need the same micrometres, not the same pixels: what a
network sees is cut from the slide by its size on the tissue, then brought to the pixels
that the network takes.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuromm.core import UsageError
from neuromm.core.picture import Picture

__all__ = ["neighbourhood", "spot_patch", "spot_patches", "tiles_inside"]


def spot_patch(
    slide: Picture, place: ArrayLike, *, size_um: float = 112.0, size_px: int = 224
) -> NDArray[np.uint8]:
    """Picture centred on a spot.

    Parameters
    ----------
    slide : Picture
        As `neuromm.io.slides.open_slide` gives it.
    place : array of shape (2,)
        x and y in pixels of the full-resolution picture.
    size_um : float
        Side on the tissue. 112 um are 224 pixels of 0.5 um, the usual field of patch
        encoders.
    size_px : int
        Side of the result.

    Returns
    -------
    patch : array of shape (size_px, size_px, 3), uint8
        0 outside of the slide.
    """
    x, y = _place(place)
    side = _side(slide, size_um, size_px)
    return slide.read(
        x - side / 2, y - side / 2, size_px, size_px, downsample=side / size_px, fill=0
    )


def spot_patches(
    slide: Picture, places: ArrayLike, *, size_um: float = 112.0, size_px: int = 224
) -> Iterator[NDArray[np.uint8]]:
    """Pictures of all spots, read as they are asked for.

    Parameters
    ----------
    slide : Picture
        As `neuromm.io.slides.open_slide` gives it.
    places : array of shape (n_spots, 2)
    size_um, size_px : see `spot_patch`

    Yields
    ------
    patch : array of shape (size_px, size_px, 3), uint8
    """
    for place in np.asarray(places, dtype=np.float64):
        yield spot_patch(slide, place, size_um=size_um, size_px=size_px)


def neighbourhood(
    slide: Picture,
    place: ArrayLike,
    *,
    size_um: float = 112.0,
    size_px: int = 224,
    n_tiles: int = 5,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Square of tiles around a spot; the middle one is its patch.

    Parameters
    ----------
    slide : Picture
        As `neuromm.io.slides.open_slide` gives it.
    place : array of shape (2,)
    size_um, size_px : see `spot_patch`
        Of a tile.
    n_tiles : int
        Tiles along a side, an odd number.

    Returns
    -------
    tiles : array of shape (n_tiles ** 2, size_px, size_px, 3), uint8
        Row by row.
    inside : boolean array of shape (n_tiles ** 2,)
        See `tiles_inside`.
    """
    x, y = _place(place)
    inside = tiles_inside(slide, [[x, y]], size_um=size_um, n_tiles=n_tiles)[0]
    side = _side(slide, size_um, size_px)
    whole = n_tiles * size_px
    picture = slide.read(
        x - n_tiles * side / 2,
        y - n_tiles * side / 2,
        whole,
        whole,
        downsample=side / size_px,
        fill=0,
    )
    tiles = picture.reshape(n_tiles, size_px, n_tiles, size_px, 3)
    tiles = tiles.transpose(0, 2, 1, 3, 4).reshape(-1, size_px, size_px, 3)
    return tiles, inside


def tiles_inside(
    slide: Picture, places: ArrayLike, *, size_um: float = 112.0, n_tiles: int = 5
) -> NDArray[np.bool_]:
    """Which tiles around spots lie on the slide, by half of their own area at least.

    Parameters
    ----------
    slide : Picture
        As `neuromm.io.slides.open_slide` gives it.
    places : array of shape (n_spots, 2)
    size_um : float
        Side of a tile.
    n_tiles : int
        Along a side, an odd number.

    Returns
    -------
    inside : boolean array of shape (n_spots, n_tiles ** 2)
        Tiles row by row.
    """
    if n_tiles < 1 or n_tiles % 2 == 0:
        raise UsageError(
            f"n_tiles must be odd, so that a tile lies in the middle: {n_tiles}"
        )
    side = _side(slide, size_um, 1)
    shares = []
    corners = (np.arange(n_tiles) - n_tiles / 2) * side
    ends = np.asarray(places, dtype=np.float64).T, (slide.width, slide.height)
    for axis, length in zip(*ends, strict=True):
        start = axis[:, None] + corners
        overlap = np.minimum(start + side, length) - np.maximum(start, 0)
        shares.append(np.clip(overlap, 0, None) / side)
    across, down = shares
    share = down[:, :, None] * across[:, None, :]
    inside: NDArray[np.bool_] = share.reshape(len(share), -1) >= 0.5
    return inside


def _place(place: ArrayLike) -> tuple[float, float]:
    x, y = np.asarray(place, dtype=np.float64)
    return float(x), float(y)


def _side(slide: Picture, size_um: float, size_px: int) -> float:
    """Pixels of the slide along ``size_um``."""
    if not size_um > 0 or size_px < 1:
        raise UsageError(
            f"a patch measures more than 0 um and one pixel at least, got {size_um} um "
            f"and {size_px} pixels"
        )
    return size_um / slide.microns_per_pixel
