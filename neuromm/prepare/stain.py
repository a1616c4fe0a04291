"""Stain normalisation: the colours of one slide, as another slide would show them.

Stains absorb: the optical densities of two add up, so that a picture of haematoxylin
and eosin lies between two directions. They are found from the picture itself.

References
----------
Macenko et al. (2009) A method for normalizing histology slides for quantitative
analysis. IEEE ISBI, 1107-1110.
Ruifrok & Johnston (2001) Quantification of histochemical staining by color
deconvolution. Anal. Quant. Cytol. Histol. 23:291-299 (`HED_VECTORS`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuromm.core import DataError, UsageError
from neuromm.core.picture import Picture

__all__ = [
    "HED_VECTORS",
    "StainFit",
    "StainNormalised",
    "optical_density",
    "stain_fit",
    "stain_normalised",
]

# Optical density in red, green and blue of haematoxylin, eosin and DAB.
HED_VECTORS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])

# Optical density (log10) below which a pixel is glass, and the share of angles, in
# per cent, that is left out at both ends: as published.
_GLASS, _TAIL = 0.15, 1.0
_FEWEST_PIXELS = 100
# Two stains nearer than this are one: concentrations would be noise.
_SMALLEST_ANGLE = np.deg2rad(3.0)


@dataclass(frozen=True, eq=False)
class StainFit:
    """The two stains of a slide.

    Attributes
    ----------
    vectors : array of shape (2, 3)
        Optical density of haematoxylin and of eosin in red, green and blue; length 1.
    strongest : array of shape (2,)
        Concentration of each stain that 1 % of the tissue exceeds.
    """

    vectors: NDArray[np.float64]
    strongest: NDArray[np.float64]


def optical_density(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Light that is absorbed, as -log10 of its share that comes through.

    Parameters
    ----------
    pixels : array of shape (..., 3), uint8

    Returns
    -------
    density : array of shape (..., 3)
        0 for white; black is taken for the darkest grey but one, 2.41.
    """
    density: NDArray[np.float64] = _DENSITY[pixels]
    return density


def stain_fit(pixels: NDArray[np.uint8]) -> StainFit:
    """Find the two stains of a picture.

    Parameters
    ----------
    pixels : array of shape (..., 3), uint8
        Of one slide, such as its thumbnail, or patches of its tissue stacked.

    Returns
    -------
    fit : StainFit

    Raises
    ------
    UsageError
        If the pixels are no RGB of 8 bits.
    DataError
        If fewer than 100 pixels are stained, or all by one stain.

    Notes
    -----
    The plane of the two largest singular vectors of the optical densities is taken
    about the origin, and the stains are the directions at 1 % and 99 % of the angles in
    it. Glass is where the length of the density is below 0.15. Pictures masked to black
    need their black left out first, with the dark edge that JPEG draws around it: the
    eosin of HER2ST's A1 comes out grey otherwise. A field of fat has next to no eosin,
    and what is found in it is the colour of edges: fit the slide.
    """
    density = optical_density(_checked(pixels)).reshape(-1, 3)
    density = density[np.linalg.norm(density, axis=1) >= _GLASS]
    if len(density) < _FEWEST_PIXELS:
        raise DataError(
            f"stains are found from {_FEWEST_PIXELS} stained pixels at least, got "
            f"{len(density)}: is this glass?"
        )
    plane = np.linalg.eigh(density.T @ density)[1][:, :0:-1]
    plane = plane * np.where(plane.sum(axis=0) < 0, -1.0, 1.0)
    flat = density @ plane
    low, high = np.percentile(
        np.arctan2(flat[:, 1], flat[:, 0]), [_TAIL, 100.0 - _TAIL]
    )
    if high - low < _SMALLEST_ANGLE:
        raise DataError(
            "the picture shows one stain alone, two are needed: take a larger part of "
            "the slide"
        )
    ends = [plane @ [np.cos(angle), np.sin(angle)] for angle in (low, high)]
    # Haematoxylin is the one that takes away more red.
    vectors = np.array(sorted(ends, key=lambda end: -end[0] / np.abs(end).sum()))
    strongest = np.percentile(_amounts(density, vectors), 100.0 - _TAIL, axis=0)
    return StainFit(vectors, strongest)


def stain_normalised(
    pixels: NDArray[np.uint8], source: StainFit, target: StainFit
) -> NDArray[np.uint8]:
    """Show a picture in the stains of another slide.

    Parameters
    ----------
    pixels : array of shape (..., 3), uint8
    source : StainFit
        Of the slide that the picture is of, as a whole: a fit a patch would take away
        what differs between patches.
    target : StainFit
        Of the slide whose colours are wanted.

    Returns
    -------
    normalised : array of the shape of ``pixels``, uint8
        Glass, and black as of a mask, keep their bytes.
    """
    density = optical_density(_checked(pixels))
    is_stained = np.linalg.norm(density, axis=-1) >= _GLASS
    is_stained &= pixels.any(axis=-1)
    scale = target.strongest / np.maximum(source.strongest, 1e-6)
    amounts = _amounts(density[is_stained], source.vectors) * scale
    normalised = pixels.copy()
    light = 255.0 * 10.0 ** -(amounts @ target.vectors)
    normalised[is_stained] = np.rint(np.clip(light, 0, 255)).astype(np.uint8)
    return normalised


@dataclass(frozen=True, eq=False)
class StainNormalised:
    """A slide that is shown in the stains of another, a region at a time.

    Attributes
    ----------
    slide : Picture
    source, target : StainFit
        See `stain_normalised`.
    """

    slide: Picture
    source: StainFit
    target: StainFit

    @property
    def width(self) -> int:
        """Of the full-resolution picture, in pixels."""
        return self.slide.width

    @property
    def height(self) -> int:
        """Of the full-resolution picture, in pixels."""
        return self.slide.height

    @property
    def microns_per_pixel(self) -> float:
        """Of the full-resolution picture."""
        return self.slide.microns_per_pixel

    @property
    def downsamples(self) -> Sequence[float]:
        """Of the levels that are stored, finest first."""
        return self.slide.downsamples

    def read(
        self,
        x: float,
        y: float,
        width: int,
        height: int,
        *,
        downsample: float = 1.0,
        fill: int = 255,
    ) -> NDArray[np.uint8]:
        """Read a region; see `neuromm.io.slides.Slide.read`."""
        region = self.slide.read(x, y, width, height, downsample=downsample, fill=fill)
        return stain_normalised(region, self.source, self.target)


def _amounts(
    density: NDArray[np.float64], vectors: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Concentrations by least squares; none is negative."""
    amounts: NDArray[np.float64] = np.clip(density @ np.linalg.pinv(vectors), 0, None)
    return amounts


def _checked(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if pixels.dtype != np.uint8 or pixels.ndim < 2 or pixels.shape[-1] != 3:
        raise UsageError(
            "stains are those of RGB pixels of 8 bits, got "
            f"{pixels.dtype} of the shape {pixels.shape}"
        )
    return pixels


_DENSITY = -np.log10(np.maximum(np.arange(256), 1) / 255)
