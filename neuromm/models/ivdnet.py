"""IVD-Net: intervertebral discs from co-registered MRI, one path a modality.

References
----------
Dolz, Desrosiers & Ben Ayed (2018) IVD-Net: Intervertebral disc localization and
segmentation in MRI with a multi-modal UNet. MICCAI CSI, arXiv 1811.08305.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, Self, get_args

import torch
from torch import Tensor, nn

from neuromm.core import DataError, UsageError
from neuromm.models.card import ModelCard
from neuromm.models.checkpoint import load_model, save_model
from neuromm.models.inception_blocks import (
    ConvUnit,
    InceptionBlock,
    UpUnit,
    convolution,
    max_pooling,
)
from neuromm.models.intensity import IntensityScaling, TrainedRange

__all__ = ["CARD", "IVDNet", "IVDNetConfig", "IVDNetOutput"]

DenseSkip = Literal["pool", "crop"]
Fusion = Literal["hyperdense", "early", "late"]
_N_LEVELS = 4

CARD = ModelCard(
    name="IVDNet",
    title="Multi-path U-Net with hyper-dense connections for co-registered MRI",
    reference="Dolz, Desrosiers & Ben Ayed (2018), MICCAI CSI, arXiv 1811.08305",
    task="Localise and segment intervertebral discs, or other classes, in 2-D or 3-D",
    inputs="(batch, n_modalities, [depth,] height, width), scaled by config.scaling; "
    "each side a multiple of 16",
    outputs="Logits (batch, n_classes, [depth,] height, width)",
    departures=(
        "dense_skip='pool': the released code crops the centre instead, so that a "
        "skip lies over another place than the maps beside it",
        "Scaling is a setting and its range is stored: the released code trains on raw "
        "intensities and predicts on others",
    ),
    limits=(
        "Research use only: not a medical device, not for diagnosis or treatment",
        "Published for eight subjects of one 1.5 T scanner; other anatomy, field "
        "strengths and sequences are untested",
    ),
    weights="None are distributed: train on your own data",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class IVDNetConfig:
    """Settings of `IVDNet`; defaults after Dolz et al. (2018).

    Parameters
    ----------
    n_modalities : int
        Fat, in-phase, opposed-phase and water in the paper.
    n_classes : int
        Background first.
    width : int
        Channels of the first level, doubled at each level.
    spatial_dims : {2, 3}
        3 is no part of the paper: separable kernels get a third factor.
    dense_skip : {"pool", "crop"}
        How the dense input of a level comes to half its size. ``crop``, as released,
        takes the middle of the field and misaligns it; see `CARD`.
    fusion : {"hyperdense", "early", "late"}
        A path a modality, connected with each other at every level; one path for
        all; a path a modality, that meet in the bridge.
    asymmetric : bool
        Separable kernels (k x 1, 1 x k) in encoder and bridge; square ones otherwise.
    dropout : float
        Part of the maps of the bridge, and of each decoder level but the last, that is
        dropped in training, whole maps at a time. The paper drops none. It is what
        ``n_dropout`` of `predict_with_uncertainty` needs.
    scaling : IntensityScaling
    """

    n_modalities: int = 4
    n_classes: int = 2
    width: int = 32
    spatial_dims: Literal[2, 3] = 2
    dense_skip: DenseSkip = "pool"
    fusion: Fusion = "hyperdense"
    asymmetric: bool = True
    dropout: float = 0.0
    scaling: IntensityScaling = field(default_factory=IntensityScaling)

    def __post_init__(self) -> None:
        for name, least in (("n_modalities", 1), ("n_classes", 2), ("width", 1)):
            value = getattr(self, name)
            if value < least:
                raise UsageError(f"{name} must be at least {least}, got {value}")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"dropout must be in [0, 1), got {self.dropout}")
        options: tuple[tuple[str, Sequence[object]], ...] = (
            ("spatial_dims", (2, 3)),
            ("dense_skip", get_args(DenseSkip)),
            ("fusion", get_args(Fusion)),
        )
        for name, allowed in options:
            value = getattr(self, name)
            if value not in allowed:
                raise UsageError(
                    f"{name} must be one of {', '.join(map(str, allowed))}, got "
                    f"{value!r}"
                )

    @property
    def n_paths(self) -> int:
        """Paths of the encoder: one, or one a modality."""
        return 1 if self.fusion == "early" else self.n_modalities

    @property
    def in_channels(self) -> tuple[int, ...]:
        """Input channels of one path at levels 1 to 4, then of the bridge."""
        first = self.n_modalities if self.fusion == "early" else 1
        seen = 1 if self.fusion == "late" else self.n_paths
        maps = [0]  # channels of the levels before, of one path
        for level in range(_N_LEVELS):
            maps.append(maps[-1] + self.width * 2**level)
        inner = [seen * maps[level] for level in range(1, _N_LEVELS)]
        return (first, *inner, self.n_paths * maps[_N_LEVELS])


class IVDNetOutput(NamedTuple):
    """What `IVDNet` returns.

    Attributes
    ----------
    logits : tensor of shape (batch, n_classes, [depth,] height, width)
        Unnormalised log-probabilities of the classes, background first.
    """

    logits: Tensor

    @property
    def probabilities(self) -> Tensor:
        """Softmax over the classes, of the shape of the logits."""
        return self.logits.softmax(dim=1)

    @property
    def labels(self) -> Tensor:
        """Most probable class, int64 of shape (batch, [depth,] height, width)."""
        return self.logits.argmax(dim=1)


class IVDNet(nn.Module):  # type: ignore[misc]
    """One encoder path a modality, hyper-dense connections, and one decoder.

    Parameters
    ----------
    config : IVDNetConfig

    Notes
    -----
    A path reads, at each level, the pooled maps of all paths at all levels before, the
    nearest level first and within a level its own maps first, then those of the paths
    after it, cyclically. The bridge reads in the order of path 0. A decoder level takes
    the mean of the upsampled maps and the maps of each path at that level.

    With one modality all three fusions are the same network, whose only dense
    connections are those of its path with itself.

    A missing modality enters as zeros. The network copes with that as far as it met
    it in training: see `neuromm.training.ModalityDropout`.
    """

    def __init__(self, config: IVDNetConfig) -> None:
        super().__init__()
        self.config = config
        dims, widths = config.spatial_dims, _widths(config)
        self.trained_range = TrainedRange(config.n_modalities)

        def block(n_in: int, n_out: int, separable: bool) -> InceptionBlock:
            return InceptionBlock(n_in, n_out, spatial_dims=dims, separable=separable)

        self.encoder = nn.ModuleList(
            nn.ModuleList(
                block(n_in, n_out, config.asymmetric) for _ in range(config.n_paths)
            )
            for n_in, n_out in zip(config.in_channels[:-1], widths[:-1], strict=True)
        )
        self.bridge = block(config.in_channels[-1], widths[-1], config.asymmetric)
        self.up = nn.ModuleList(
            UpUnit(2 * n_out, n_out, spatial_dims=dims) for n_out in widths[-2::-1]
        )
        self.decoder = nn.ModuleList(
            block(n_out, n_out, False) for n_out in widths[-2::-1]
        )
        drop = nn.Dropout2d if dims == 2 else nn.Dropout3d
        self.drop = drop(config.dropout)
        self.head = convolution(widths[0], config.n_classes, 3, spatial_dims=dims)
        self.apply(_initialise)

    def forward(self, images: Tensor, available: Tensor | None = None) -> IVDNetOutput:
        """Classify every pixel or voxel.

        Parameters
        ----------
        images : tensor of shape (batch, n_modalities, [depth,] height, width)
            Scaled as in training; sides are multiples of 16.
        available : tensor of bool of shape (batch, n_modalities), optional
            Modalities that a sample has, all by default. Others are read as zeros,
            whatever they hold.

        Raises
        ------
        UsageError
            If the shape is another.
        DataError
            If a sample has no modality, or, in evaluation, intensities lie outside the
            range of training.
        """
        self._check_shape(images)
        if available is not None:
            available = self._checked_available(images, available)
        images = self.trained_range(images, available)
        if available is not None:
            kept = available.reshape(*available.shape, *[1] * self.config.spatial_dims)
            images = torch.where(kept, images, torch.zeros_like(images))
        levels, bridge_input = self._encode(images)
        maps = self.bridge(bridge_input)
        for up, decode, skips in zip(
            self.up, self.decoder, reversed(levels), strict=True
        ):
            maps = decode(sum(skips, up(self.drop(maps))) / (1 + len(skips)))
        return IVDNetOutput(self.head(maps))

    @classmethod
    def from_pretrained(cls, path: str | Path) -> Self:
        """Model of a folder that `save_pretrained` wrote, in evaluation mode, on CPU.

        Raises
        ------
        InputMissingError, UsageError, DataError
            If the folder holds no such model, or a damaged one.
        """
        return load_model(cls, IVDNetConfig, path)

    def save_pretrained(self, path: str | Path) -> Path:
        """Write settings, weights and the trained range; return the folder."""
        return save_model(self, self.config, path)

    def _encode(self, images: Tensor) -> tuple[list[list[Tensor]], Tensor]:
        """Maps of every level and path, and what the bridge reads."""
        paths = range(self.config.n_paths)
        inputs = [images] if len(paths) == 1 else list(images.split(1, dim=1))
        pool = max_pooling(self.config.spatial_dims)
        halve = pool if self.config.dense_skip == "pool" else _centre
        levels: list[list[Tensor]] = []
        dense: list[list[Tensor]] = []  # by level before, nearest first, then by path
        for blocks in self.encoder:
            if levels:
                inputs = [_concatenated(dense, self._sources(path)) for path in paths]
            maps = [block(x) for block, x in zip(blocks, inputs, strict=True)]
            levels.append(maps)
            # Halved before they are concatenated: M paths share each of them.
            dense = [
                [pool(one) for one in maps],
                *([halve(one) for one in level] for level in dense),
            ]
        return levels, _concatenated(dense, list(paths))

    def _sources(self, path: int) -> list[int]:
        """Paths that this one reads, itself first."""
        if self.config.fusion == "late":
            return [path]
        n_paths = self.config.n_paths
        return [(path + step) % n_paths for step in range(n_paths)]

    def _check_shape(self, images: Tensor) -> None:
        dims, multiple = self.config.spatial_dims, 2**_N_LEVELS
        sides = "height, width" if dims == 2 else "depth, height, width"
        if images.ndim != 2 + dims or images.shape[1] != self.config.n_modalities:
            raise UsageError(
                f"images must have shape (batch, {self.config.n_modalities}, {sides}): "
                f"one channel a modality, got {tuple(images.shape)}"
            )
        if any(side % multiple or not side for side in images.shape[2:]):
            raise UsageError(
                f"{sides} must be multiples of {multiple}, got "
                f"{tuple(images.shape[2:])}: pad the images, or use `predict_volume`"
            )

    def _checked_available(self, images: Tensor, available: Tensor) -> Tensor:
        if available.dtype != torch.bool or available.shape != images.shape[:2]:
            raise UsageError(
                f"available must be boolean of shape {tuple(images.shape[:2])}, got "
                f"{available.dtype} of shape {tuple(available.shape)}"
            )
        available = available.to(images.device)
        if not available.any(dim=1).all():
            raise DataError("a sample has no modality at all: leave it out")
        return available


def _widths(config: IVDNetConfig) -> list[int]:
    return [config.width * 2**level for level in range(_N_LEVELS + 1)]


def _concatenated(dense: list[list[Tensor]], paths: list[int]) -> Tensor:
    return torch.cat([level[path] for level in dense for path in paths], dim=1)


def _centre(maps: Tensor) -> Tensor:
    """Middle half of each side."""
    for axis in range(2, maps.ndim):
        side = maps.shape[axis] // 2
        maps = maps.narrow(axis, (maps.shape[axis] - side) // 2, side)
    return maps


def _initialise(module: nn.Module) -> None:
    if isinstance(module, (ConvUnit, UpUnit)):
        nn.init.xavier_normal_(module.conv.weight)
        nn.init.normal_(module.norm.weight, 1.0, 0.02)
        nn.init.zeros_(module.norm.bias)
    elif isinstance(module, IVDNet):
        nn.init.xavier_normal_(module.head.weight)
