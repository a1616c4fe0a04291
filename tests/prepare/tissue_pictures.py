"""A slide that was made: a disc of stained tissue on glass, read like any other."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class MadeSlide:
    """Pixels in memory; ``downsamples`` of one level."""

    pixels: np.ndarray
    microns_per_pixel: float = 4.0
    downsamples: tuple[float, ...] = (1.0,)

    @property
    def width(self):
        return self.pixels.shape[1]

    @property
    def height(self):
        return self.pixels.shape[0]

    def read(self, x, y, width, height, *, downsample=1.0, fill=255):
        """Nearest pixels: enough for smooth pictures."""
        columns = np.floor(x + (np.arange(width) + 0.5) * downsample).astype(int)
        rows = np.floor(y + (np.arange(height) + 0.5) * downsample).astype(int)
        region = np.full((height, width, 3), fill, dtype=np.uint8)
        across = (columns >= 0) & (columns < self.width)
        down = (rows >= 0) & (rows < self.height)
        region[np.ix_(down, across)] = self.pixels[np.ix_(rows[down], columns[across])]
        return region


def disc_slide(*, glass=(247, 246, 248), centre=(500, 400), radius=(300, 220), seed=0):
    """An ellipse of tissue, 4 um a pixel: 2.4 x 1.8 mm; noise of the camera on all."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:900, :1100]
    inside = ((x - centre[0]) / radius[0]) ** 2 + ((y - centre[1]) / radius[1]) ** 2 < 1
    shade = rng.random((900, 1100, 1))
    stained = shade * np.array([140, 80, 160]) + (1 - shade) * np.array([225, 160, 200])
    pixels = np.where(inside[..., None], stained, np.array(glass, dtype=float))
    pixels += rng.normal(0, 3, pixels.shape)
    return MadeSlide(np.clip(pixels, 0, 255).astype(np.uint8)), inside
