"""Inception blocks of dilated convolutions, with square or separable kernels.

References
----------
Dolz, Desrosiers & Ben Ayed (2018), arXiv 1811.08305.
"""

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

__all__ = [
    "ConvUnit",
    "InceptionBlock",
    "UpUnit",
    "convolution",
    "folded",
    "max_pooling",
]

M = TypeVar("M", bound=nn.Module)
# Kernel size and dilation of the five branches.
_BRANCHES = ((1, 1), (3, 1), (5, 1), (3, 2), (3, 4))
_CONV = {2: nn.Conv2d, 3: nn.Conv3d}
_UP = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_POOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}


def convolution(
    n_in: int,
    n_out: int,
    kernel: int,
    dilation: int = 1,
    *,
    spatial_dims: int,
    axis: int | None = None,
) -> nn.Module:
    """Convolution that keeps the size, over all axes or along one of them."""
    along = range(spatial_dims) if axis is None else (axis,)
    size = [kernel if a in along else 1 for a in range(spatial_dims)]
    step = [dilation if a in along else 1 for a in range(spatial_dims)]
    padding = [s * (k - 1) // 2 for k, s in zip(size, step, strict=True)]
    return _CONV[spatial_dims](
        n_in, n_out, tuple(size), dilation=tuple(step), padding=tuple(padding)
    )


def max_pooling(spatial_dims: int) -> nn.Module:
    """Maximum of two neighbours along each axis, which halves each side."""
    return _POOL[spatial_dims](2)


class ConvUnit(nn.Module):  # type: ignore[misc]
    """Convolution, batch normalisation, ReLU; the arguments are of `convolution`."""

    def __init__(
        self,
        n_in: int,
        n_out: int,
        kernel: int,
        dilation: int = 1,
        *,
        spatial_dims: int,
        axis: int | None = None,
    ) -> None:
        super().__init__()
        self.conv = convolution(
            n_in, n_out, kernel, dilation, spatial_dims=spatial_dims, axis=axis
        )
        self.norm = _NORM[spatial_dims](n_out)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (batch, n_in, ...) to (batch, n_out, ...)."""
        return torch.relu_(self.norm(self.conv(maps)))


class UpUnit(nn.Module):  # type: ignore[misc]
    """Transposed convolution that doubles each side, batch normalisation, ReLU."""

    def __init__(self, n_in: int, n_out: int, *, spatial_dims: int) -> None:
        super().__init__()
        self.conv = _UP[spatial_dims](
            n_in, n_out, 3, stride=2, padding=1, output_padding=1
        )
        self.norm = _NORM[spatial_dims](n_out)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (batch, n_in, ...) to (batch, n_out, ...)."""
        return torch.relu_(self.norm(self.conv(maps)))


class InceptionBlock(nn.Module):  # type: ignore[misc]
    """Five parallel branches between two convolutions, with a residual.

    Parameters
    ----------
    n_in, n_out : int
        Channels.
    spatial_dims : {2, 3}
    separable : bool
        Each branch one convolution along each axis in turn; one square kernel
        otherwise.
    """

    def __init__(
        self, n_in: int, n_out: int, *, spatial_dims: int, separable: bool
    ) -> None:
        super().__init__()
        axes = list(range(spatial_dims)) if separable else [None]

        def unit(
            channels: int, kernel: int, dilation: int = 1, axis: int | None = None
        ) -> ConvUnit:
            return ConvUnit(
                channels, n_out, kernel, dilation, spatial_dims=spatial_dims, axis=axis
            )

        self.first = unit(n_in, 3)
        self.branches = nn.ModuleList(
            nn.Sequential(*(unit(n_out, kernel, dilation, axis) for axis in axes))
            for kernel, dilation in _BRANCHES
        )
        self.merge = unit(len(_BRANCHES) * n_out, 1)
        self.last = unit(n_out, 3)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (batch, n_in, ...) to (batch, n_out, ...) of the same size."""
        maps = self.first(maps)
        branches = [branch(maps) for branch in self.branches]
        return self.last(maps + self.merge(torch.cat(branches, dim=1)))


def folded(model: M) -> M:
    """Copy of a trained model whose normalisation is part of its convolutions.

    For prediction: the same outputs up to rounding, with fewer passes over the maps.

    Raises
    ------
    ValueError
        If the model is in training, where the normalisation is of the batch.
    """
    if model.training:
        raise ValueError("only a model in evaluation can be folded: call .eval() first")
    model = copy.deepcopy(model)
    for unit in model.modules():
        if isinstance(unit, (ConvUnit, UpUnit)):
            transposed = isinstance(unit, UpUnit)
            unit.conv = fuse_conv_bn_eval(unit.conv, unit.norm, transpose=transposed)
            unit.norm = nn.Identity()
    return model
