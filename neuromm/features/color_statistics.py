"""Colour and texture of stained tissue, without weights.

What pathologists see first and what needs no training: how much of each stain, how
dense and how rough. A stand-in: a result from it is none about a network.

References
----------
Ruifrok & Johnston (2001) Quantification of histochemical staining by color
deconvolution. Anal. Quant. Cytol. Histol. 23:291-299.
Ojala et al. (2002) Multiresolution gray-scale and rotation invariant texture
classification with local binary patterns. IEEE Trans. Pattern Anal. Mach. Intell.
24:971-987.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from neuromm.core import DataError
from neuromm.features.backbones import Attrs, Modality, TokenStates
from neuromm.features.image_pixels import read_pixels
from neuromm.prepare.stain import HED_VECTORS, optical_density

__all__ = ["ColorStatistics"]

_VERSION = "1"  # raised when the numbers change: cached features are then made anew

_SMALLEST, _LARGEST = 32, 224  # pixels along the shorter side
_PERCENTILES = (10, 50, 90)
# Of stain a pixel, log10: below is flat, and each third of a decade has a column.
_GRADIENT_EDGES = np.linspace(-3.0, 0.0, 11)
_RINGS = (1, 2)  # pixels
_LEVELS, _ENTROPY_WINDOW = 16, 9
_ENTROPY_EDGES = np.arange(0.5, 4.0, 0.5)  # bits, of 4 at most
_WINDOWS = (3, 7, 15, 31)  # pixels
# Neighbours on a ring, in order around it.
_AROUND = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))


class ColorStatistics:
    """96 numbers of colour and texture, the same however the picture is turned.

    A picture of 224 pixels or more along its shorter side is made smaller by the mean
    of whole blocks: 2 x 2, 4 x 4 and so on. The columns, with stain by the vectors of
    Ruifrok and Johnston:

    ======== =====================================================================
    columns  what
    ======== =====================================================================
    0-14     red, green, blue (0 to 1): mean, standard deviation, percentiles 10,
             50, 90 of each
    15-29    haematoxylin, eosin, rest (optical density): the same five
    30-53    haematoxylin, eosin: shares of pixels by the log of the gradient's
             length, 12 steps from flat to 1 a pixel and above
    54-73    brightness: shares of the ten uniform binary patterns of 8 neighbours
             at 1 pixel (0 to 8 brighter ones in one run, then all others), and at 2
    74-83    entropy of brightness (16 levels) in 9 x 9 pixels: mean and standard
             deviation in bits, shares in eight steps of half a bit
    84-95    haematoxylin, eosin, brightness: mean of the standard deviation in
             windows of 3, 7, 15, 31 pixels
    ======== =====================================================================

    Turns by 90 degrees and mirrors change nothing beyond rounding, if the sides divide
    by the blocks. Tokens are the same numbers of the four quarters, row by row.
    """

    name = "colorstats"
    modality: Modality = "image"
    dim = 96

    @property
    def attrs(self) -> Attrs:
        """What a table says of the backbone."""
        identity = f"{self.name} {_VERSION}"
        return {
            "model": self.name,
            "kind": "stand-in",
            "layer": "colour and texture",
            "pooling": "none",
            "preprocessing": f"block means to less than {_LARGEST} pixels",
            "weights_sha256": hashlib.sha256(identity.encode()).hexdigest(),
        }

    def embed(self, stimuli: Sequence[object]) -> NDArray[np.float32]:
        """Map n images to an array of shape (n, 96).

        Raises
        ------
        DataError
            If an image has fewer than 32 pixels along a side, or there is none.
        """
        if not len(stimuli):
            raise DataError("no stimuli: expected one or more")
        return np.stack([_statistics(_small(read_pixels(one))) for one in stimuli])

    def tokens(self, stimuli: Sequence[object]) -> list[TokenStates]:
        """Give the numbers of the four quarters of each image, row by row."""
        states = []
        for one in stimuli:
            small = _small(read_pixels(one))
            rows, columns = (side // 2 for side in small.shape[:2])
            quarters = [
                small[down, across]
                for down in (slice(rows), slice(-rows, None))
                for across in (slice(columns), slice(-columns, None))
            ]
            states.append(TokenStates(np.stack([_statistics(q) for q in quarters])))
        return states


def _small(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Means of whole blocks, so that the shorter side is below 224 pixels."""
    block = 1
    while min(pixels.shape[:2]) // block >= _LARGEST:
        block *= 2
    if block == 1:
        return pixels
    height, width = (side // block for side in pixels.shape[:2])
    cut = pixels[: height * block, : width * block]
    # Whole numbers: the sum does not depend on how the picture is turned.
    total = cut.reshape(height, block, width, block, 3).sum(axis=(1, 3), dtype=np.int64)
    means: NDArray[np.uint8] = ((total + block**2 // 2) // block**2).astype(np.uint8)
    return means


def _statistics(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    if min(pixels.shape[:2]) < _SMALLEST:
        raise DataError(
            f"colorstats takes pictures of {_SMALLEST} pixels along a side at least, "
            f"and twice that for tokens, got {pixels.shape[0]} x {pixels.shape[1]}"
        )
    stains = optical_density(pixels) @ np.linalg.inv(_UNIT_HED)
    haematoxylin, eosin = stains[..., 0], stains[..., 1]
    brightness = pixels.sum(axis=2, dtype=np.int64)
    level = brightness * _LEVELS // (3 * 255 + 1)
    return np.concatenate(
        [
            _moments(pixels / 255.0),
            _moments(stains),
            _gradients(haematoxylin),
            _gradients(eosin),
            *(_patterns(brightness, ring) for ring in _RINGS),
            _entropies(level),
            _roughness(haematoxylin),
            _roughness(eosin),
            _roughness(brightness / (3 * 255.0)),
        ]
    ).astype(np.float32)


def _moments(channels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Five numbers a channel."""
    flat = channels.reshape(-1, 3)
    parts = [flat.mean(axis=0), flat.std(axis=0), *np.percentile(flat, _PERCENTILES, 0)]
    return np.stack(parts, axis=1).ravel()


def _gradients(channel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shares of pixels by the length of the gradient, central differences."""
    down = (channel[2:, 1:-1] - channel[:-2, 1:-1]) / 2
    across = (channel[1:-1, 2:] - channel[1:-1, :-2]) / 2
    length = np.sqrt(down**2 + across**2)
    column = np.searchsorted(10.0**_GRADIENT_EDGES, length.ravel(), side="right")
    return _shares(column, len(_GRADIENT_EDGES) + 1)


def _patterns(brightness: NDArray[np.int64], ring: int) -> NDArray[np.float64]:
    """Shares of local binary patterns: neighbours as bright as the pixel, or more."""
    height, width = brightness.shape
    middle = brightness[ring : height - ring, ring : width - ring]
    brighter = np.stack(
        [
            brightness[
                ring + ring * down : height - ring + ring * down,
                ring + ring * across : width - ring + ring * across,
            ]
            >= middle
            for down, across in _AROUND
        ]
    )
    n_changes = (brighter != np.roll(brighter, 1, axis=0)).sum(axis=0)
    column = np.where(n_changes <= 2, brighter.sum(axis=0), len(_AROUND) + 1)
    return _shares(column, len(_AROUND) + 2)


def _entropies(level: NDArray[np.int64]) -> NDArray[np.float64]:
    n_pixels = _ENTROPY_WINDOW**2
    share = np.arange(1, n_pixels + 1) / n_pixels
    bits = np.concatenate([[0.0], -share * np.log2(share)])
    entropy = sum(
        bits[_window_sums((level == one).astype(np.int64), _ENTROPY_WINDOW)]
        for one in range(_LEVELS)
    )
    column = np.searchsorted(_ENTROPY_EDGES, np.ravel(entropy), side="right")
    shares = _shares(column, len(_ENTROPY_EDGES) + 1)
    return np.concatenate([[np.mean(entropy), np.std(entropy)], shares])


def _roughness(channel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean standard deviation within windows of growing size."""
    centred = channel - channel.mean()
    found = []
    for window in _WINDOWS:
        mean, square = (
            _window_sums(values, window) / window**2 for values in (centred, centred**2)
        )
        found.append(np.sqrt(np.clip(square - mean**2, 0, None)).mean())
    return np.array(found)


def _window_sums(values: NDArray, window: int) -> NDArray:  # type: ignore[type-arg]
    """Sums over squares that lie within the picture as a whole."""
    total = np.zeros((values.shape[0] + 1, values.shape[1] + 1), dtype=values.dtype)
    total[1:, 1:] = values.cumsum(axis=0).cumsum(axis=1)
    down = total[window:] - total[:-window]
    sums: NDArray = down[:, window:] - down[:, :-window]  # type: ignore[type-arg]
    return sums


def _shares(column: NDArray[np.integer], n_columns: int) -> NDArray[np.float64]:
    return np.bincount(column.ravel(), minlength=n_columns) / column.size


_UNIT_HED = HED_VECTORS / np.linalg.norm(HED_VECTORS, axis=1, keepdims=True)
