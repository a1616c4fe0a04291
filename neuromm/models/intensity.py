"""Intensity scaling that is part of a model, and the range that it was trained on.

A network with batch normalisation sees another input when its images are scaled in
another way than in training, and answers with confidence. So the scaling is a setting
of the model, and the range of its training images is stored with its weights.
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neuromm.core import DataError, UsageError

__all__ = ["IntensityScaling", "TrainedRange"]

Method = Literal["percentiles", "zscore", "fixed"]
# A batch of the darkest true slices holds noise, a few percent of the range; images
# that were divided by 4095 or 65535 hold less than this part of it.
_LEAST_EXTENT = 1 / 256
_MARGIN = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class IntensityScaling:
    """How a volume becomes the input of a network, the same in training and after.

    Parameters
    ----------
    method : {"percentiles", "zscore", "fixed"}
        ``percentiles``: the two percentiles of the volume become 0 and 1, values
        outside are clipped. ``zscore``: mean 0 and standard deviation 1. ``fixed``:
        the two ``limits`` become 0 and 1, without clipping, for images whose unit
        means something. The first two ignore the unit of the scanner.
    percentiles : tuple of two floats
        In percent; for the method of this name.
    limits : tuple of two floats
        Intensities; for the method ``fixed``.
    together : bool
        Scale all modalities of a volume alike, which keeps their ratios; otherwise
        each modality on its own.
    """

    method: Method = "percentiles"
    percentiles: tuple[float, float] = (0.5, 99.5)
    limits: tuple[float, float] = (0.0, 1.0)
    together: bool = False

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise UsageError(
                f"method must be one of {', '.join(get_args(Method))}, got "
                f"{self.method!r}"
            )
        low, high = self.percentiles
        if not 0 <= low < high <= 100:
            raise UsageError(
                f"percentiles must be two of 0 to 100, the lower first, got "
                f"{self.percentiles}"
            )
        if not np.isfinite(self.limits).all() or self.limits[0] >= self.limits[1]:
            raise UsageError(
                f"limits must be two finite intensities, the lower first, got "
                f"{self.limits}"
            )

    def apply(self, volume: NDArray[Any]) -> NDArray[np.float32]:
        """Scaled copy of a volume of shape (n_modalities, ...).

        Raises
        ------
        DataError
            If a value is not finite, or a modality is constant: a missing modality
            is left out by ``available`` of the model, not given as zeros.
        """
        values = np.asarray(volume, dtype=np.float32)
        if values.ndim < 2:
            raise UsageError(
                f"a volume has shape (n_modalities, ...), got {values.shape}"
            )
        if not np.isfinite(values).all():
            raise DataError(
                "the volume has nan or infinite intensities: fill them before"
            )
        if self.method == "fixed":
            low, high = self.limits
            return (values - np.float32(low)) / np.float32(high - low)
        scaled = np.empty_like(values)
        parts = [slice(None)] if self.together else list(range(len(values)))
        for part in parts:
            offset, unit = self._offset_and_unit(values[part])
            if not unit > 0:
                raise DataError(
                    "all modalities are constant"
                    if self.together
                    else f"modality {part} (from 0) is constant, or nearly: it has no "
                    "scale. If it was not acquired, say so by `available`."
                )
            scaled[part] = (values[part] - np.float32(offset)) / np.float32(unit)
        return scaled.clip(0, 1) if self.method == "percentiles" else scaled

    def _offset_and_unit(self, values: NDArray[np.float32]) -> tuple[float, float]:
        if self.method == "zscore":
            return float(values.mean(dtype="f8")), float(values.std(dtype="f8"))
        low, high = np.percentile(values, self.percentiles)
        return float(low), float(high - low)


class TrainedRange(nn.Module):  # type: ignore[misc]
    """Passes images on; learns their range in training and holds others to it.

    The lowest and highest value of each modality are buffers, so they are in every
    checkpoint. Before any training all images pass.

    Parameters
    ----------
    n_modalities : int
    """

    def __init__(self, n_modalities: int) -> None:
        super().__init__()
        self.register_buffer("low", torch.full((n_modalities,), float("inf")))
        self.register_buffer("high", torch.full((n_modalities,), float("-inf")))

    def forward(self, images: Tensor, available: Tensor | None = None) -> Tensor:
        """Return images of shape (batch, n_modalities, ...) as they are.

        Parameters
        ----------
        images : tensor of shape (batch, n_modalities, ...)
        available : tensor of bool of shape (batch, n_modalities), optional
            Modalities of a sample that count; others are not looked at.

        Raises
        ------
        DataError
            In evaluation: if a value is not finite, lies further outside the trained
            range than the range is wide, or if the images vary less than 1/256 of it.
            Constant images, such as padding, pass.
        """
        low, high = _extremes(images.detach(), available)
        if self.training:
            # In place: a compiled or captured step keeps its buffers.
            self.low.copy_(torch.minimum(self.low, low))
            self.high.copy_(torch.maximum(self.high, high))
        else:
            self._check(low, high)
        return images

    def _check(self, low: Tensor, high: Tensor) -> None:
        present = low <= high  # of a modality that no sample has, inf > -inf
        bad = ~(low.isfinite() & high.isfinite()) & (present | low.isnan())
        if bad.any():
            raise DataError(
                f"modality {int(bad.nonzero()[0])} (from 0) has nan or infinite "
                "values: fill them before"
            )
        width = self.high - self.low
        known = present & width.isfinite() & (width > 0)
        outside = (low < self.low - _MARGIN * width) | (
            high > self.high + _MARGIN * width
        )
        faint = (high > low) & (high - low < _LEAST_EXTENT * width)
        wrong = known & (outside | faint)
        if wrong.any():
            which = int(wrong.nonzero()[0])
            raise DataError(
                f"modality {which} (from 0) lies in {float(low[which]):.4g} to "
                f"{float(high[which]):.4g}, and the model was trained on "
                f"{float(self.low[which]):.4g} to {float(self.high[which]):.4g}. Scale "
                "the images as in training: `model.config.scaling.apply(volume)`."
            )


def _extremes(images: Tensor, available: Tensor | None) -> tuple[Tensor, Tensor]:
    """Lowest and highest value of each modality; nan if any value is."""
    flat = images.flatten(2).float()
    low, high = flat.amin(dim=2), flat.amax(dim=2)
    if available is not None:
        low = low.masked_fill(~available, float("inf"))
        high = high.masked_fill(~available, float("-inf"))
    return low.amin(dim=0), high.amax(dim=0)
