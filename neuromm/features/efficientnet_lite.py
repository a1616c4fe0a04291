"""EfficientNet-Lite0 without its classifier, weights named as its PyTorch release does.

This module imports torch; it is imported where the network is asked for.

References
----------
Tan & Le (2019) EfficientNet: Rethinking model scaling for convolutional neural
networks. ICML. The Lite variant has no squeeze-and-excitation and clips activations
at 6.
"""

import math

import torch
from torch import Tensor, nn

__all__ = ["EfficientNetLite0"]

# (repeats, kernel, stride, expansion, channels) of each stage: table 1 of the paper.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM, _HEAD = 32, 1280  # the Lite variants never scale these
_EPSILON = 1e-3  # of TensorFlow's batch normalisation


class EfficientNetLite0(nn.Module):  # type: ignore[misc]
    """Map (batch, 3, 224, 224) to (batch, 1280, 7, 7)."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = _SameConvolution(3, _STEM, 3, stride=2)
        self._bn0 = _norm(_STEM)
        self._act0 = nn.ReLU6()
        blocks = []
        n_in = _STEM
        for repeats, kernel, stride, expansion, n_out in _STAGES:
            for repeat in range(repeats):
                first = stride if repeat == 0 else 1
                blocks.append(_Block(n_in, n_out, kernel, first, expansion))
                n_in = n_out
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = _SameConvolution(n_in, _HEAD, 1)
        self._bn1 = _norm(_HEAD)
        self._act1 = nn.ReLU6()

    def forward(self, images: Tensor) -> Tensor:
        """Map images to the last map of features."""
        maps: Tensor = self._act0(self._bn0(self._conv_stem(images)))
        for block in self._blocks:
            maps = block(maps)
        last: Tensor = self._act1(self._bn1(self._conv_head(maps)))
        return last


class _Block(nn.Module):  # type: ignore[misc]
    """Inverted bottleneck: widen, convolve each channel, project, add the input."""

    def __init__(
        self, n_in: int, n_out: int, kernel: int, stride: int, expansion: int
    ) -> None:
        super().__init__()
        width = n_in * expansion
        self._expands = expansion > 1
        self._adds = stride == 1 and n_in == n_out
        if self._expands:
            self._expand_conv = _SameConvolution(n_in, width, 1)
            self._bn0 = _norm(width)
            self._act0 = nn.ReLU6()
        self._depthwise_conv = _SameConvolution(
            width, width, kernel, stride=stride, groups=width
        )
        self._bn1 = _norm(width)
        self._act1 = nn.ReLU6()
        self._project_conv = _SameConvolution(width, n_out, 1)
        self._bn2 = _norm(n_out)

    def forward(self, maps: Tensor) -> Tensor:
        inner = maps
        if self._expands:
            inner = self._act0(self._bn0(self._expand_conv(inner)))
        inner = self._act1(self._bn1(self._depthwise_conv(inner)))
        inner = self._bn2(self._project_conv(inner))
        return inner + maps if self._adds else inner


class _SameConvolution(nn.Conv2d):  # type: ignore[misc]
    """Convolution padded as TensorFlow's SAME: an odd pixel goes to the far side."""

    def __init__(
        self, n_in: int, n_out: int, kernel: int, *, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__(n_in, n_out, kernel, stride=stride, groups=groups, bias=False)

    def reset_parameters(self) -> None:
        """Draw weights as the authors' code does: variance 2 / outgoing connections.

        Torch's own choice lets activations die out over 50 layers in evaluation mode.
        """
        n_outgoing = self.kernel_size[0] ** 2 * self.out_channels // self.groups
        nn.init.normal_(self.weight, std=math.sqrt(2 / n_outgoing))

    def forward(self, maps: Tensor) -> Tensor:
        near_far = []
        for size, kernel, stride in zip(
            reversed(maps.shape[-2:]), self.kernel_size, self.stride, strict=True
        ):
            covered = (-(-size // stride) - 1) * stride + kernel
            pad = max(covered - size, 0)
            near_far += [pad // 2, pad - pad // 2]
        return super().forward(torch.nn.functional.pad(maps, near_far))


def _norm(n_channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(n_channels, eps=_EPSILON, momentum=0.01)
