"""Where a slide shows tissue: coloured, neither background nor ink nor blank.

References
----------
Otsu (1979) A threshold selection method from gray-level histograms. IEEE Trans. Syst.
Man Cybern. 9:62-66 (of saturation: stain has colour, glass has none).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuromm.core import UsageError
from neuromm.core.picture import Picture

__all__ = ["TissueMask", "tissue_mask"]

# Of 255: nothing that is stained is darker than the one or brighter than the other.
_BLACK, _WHITE = 25, 242
# Saturation that even pale tissue has, and that glass may reach.
_PALEST, _DEEPEST_GLASS = 0.04, 0.25
# Parts smaller than this are dust, and holes smaller than this belong to the tissue.
_SMALLEST_UM2 = 20_000.0


@dataclass(frozen=True)
class TissueMask:
    """Where there is tissue, on a coarse grid.

    Attributes
    ----------
    mask : boolean array of shape (height, width)
    downsample : float
        Pixels of the full-resolution picture along one of the mask.
    microns_per_pixel : float
        Of the mask.
    """

    mask: NDArray[np.bool_]
    downsample: float
    microns_per_pixel: float

    def holds(self, places: ArrayLike) -> NDArray[np.bool_]:
        """Whether places lie on tissue.

        Parameters
        ----------
        places : array of shape (n_places, 2)
            x and y in pixels of the full-resolution picture.

        Returns
        -------
        on_tissue : boolean array of shape (n_places,)
            False outside of the picture.
        """
        columns, rows = np.floor(np.asarray(places) / self.downsample).astype(int).T
        height, width = self.mask.shape
        inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
        found = np.zeros(len(inside), dtype=bool)
        found[inside] = self.mask[rows[inside], columns[inside]]
        return found


def tissue_mask(slide: Picture, *, microns_per_pixel: float = 16.0) -> TissueMask:
    """Find the tissue of a slide.

    Parameters
    ----------
    slide : Picture
        As `neuromm.io.slides.open_slide` gives it.
    microns_per_pixel : float
        Of the mask; a picture that is coarser gives a mask as coarse as it is.

    Returns
    -------
    tissue : TissueMask
        All False where the slide shows glass alone.

    Raises
    ------
    UsageError
        If the mask would have more than 100 million pixels.
    """
    from scipy import ndimage
    from skimage.filters import threshold_otsu
    from skimage.morphology import remove_small_holes, remove_small_objects

    finest = slide.microns_per_pixel * slide.downsamples[0]
    step = max(microns_per_pixel, finest) / slide.microns_per_pixel
    width, height = (max(round(n / step), 1) for n in (slide.width, slide.height))
    if width * height > 10**8:
        raise UsageError(
            f"a mask of {microns_per_pixel:g} um would have {width} x {height} pixels: "
            "take larger ones"
        )
    small = slide.read(0, 0, width, height, downsample=step).astype(np.float64)
    highest, lowest = small.max(axis=2), small.min(axis=2)
    saturation = (highest - lowest) / np.maximum(highest, 1.0)
    seen = (highest >= _BLACK) & (lowest <= _WHITE)
    smooth = ndimage.median_filter(saturation, size=3)
    threshold = _DEEPEST_GLASS
    # The background counts: without it tissue alone would be split in two.
    values = np.where(seen, smooth, 0.0)
    if np.ptp(values) > 0:
        threshold = float(threshold_otsu(values))
    threshold = min(max(threshold / 2, _PALEST), _DEEPEST_GLASS)
    size_um = step * slide.microns_per_pixel
    n_small = max(int(_SMALLEST_UM2 / size_um**2), 1)
    mask = remove_small_objects(seen & (smooth > threshold), max_size=n_small)
    mask = remove_small_holes(mask, max_size=n_small)
    return TissueMask(mask, step, size_um)
