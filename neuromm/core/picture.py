"""A picture of tissue, as what works on one sees it."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Picture"]


class Picture(Protocol):
    """A slide: `neuromm.io.slides.Slide`, or anything that reads like it."""

    @property
    def width(self) -> int:
        """Of the full-resolution picture, in pixels."""

    @property
    def height(self) -> int:
        """Of the full-resolution picture, in pixels."""

    @property
    def microns_per_pixel(self) -> float:
        """Of the full-resolution picture."""

    @property
    def downsamples(self) -> Sequence[float]:
        """Of the levels that are stored, finest first."""

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
        """Region of shape (height, width, 3), RGB, from its upper left corner."""
