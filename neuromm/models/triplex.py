"""TRIPLEX: the nearest published model to Gene-DML, without genes in its training loss.

References
----------
Chung et al. (2024) Accurate spatial gene expression prediction by integrating
multi-resolution features. CVPR.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from neuromm.core import UsageError
from neuromm.models.card import ModelCard
from neuromm.models.checkpoint import load_model, save_model
from neuromm.models.gene_dml.layers import (
    CrossLayer,
    GlobalEncoder,
    NeighborEncoder,
)

__all__ = ["CARD", "TRIPLEX", "TRIPLEXConfig", "TRIPLEXOutput", "triplex_loss"]

CARD = ModelCard(
    name="TRIPLEX",
    title="Multi-scale prediction of gene expression from H&E",
    reference="Chung et al. (2024), CVPR",
    task="Predict the expression of a panel of genes at each spot of a stained section",
    inputs="As those of GeneDML",
    outputs="Expression (n_spots, n_genes), 0 or above, and that of each scale",
    departures=(
        "The patch enters by the vectors of a frozen encoder; the published model "
        "trains a ResNet on it",
        "Vectors are brought to the model's width by one linear layer a scale",
        "Tiles outside of the slide are hidden one by one",
    ),
    limits=(
        "Research use only: not a medical device, not for diagnosis or treatment",
        "Written from a description of the paper and its code, not compared with them",
    ),
    weights="None are distributed: train on your own data",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TRIPLEXConfig:
    """Settings of `TRIPLEX`; defaults after Chung et al. (2024), their HER2ST.

    Parameters
    ----------
    n_features : int
        Length of the vectors of the frozen patch encoder.
    n_genes : int
    dim : int
    n_tiles : int
        Tiles of a side of the neighbourhood.
    neighbor_depth, neighbor_heads, neighbor_mlp, neighbor_dropout
    global_depth, global_heads, global_mlp, global_dropout
    fusion_depth, fusion_heads, fusion_mlp, fusion_dropout
        ``mlp`` is a multiple of ``dim``.
    teaching : float
        Share of the fused prediction in what each scale is trained for.
    """

    n_features: int = 1024
    n_genes: int = 250
    dim: int = 512
    n_tiles: int = 5
    neighbor_depth: int = 3
    neighbor_heads: int = 16
    neighbor_mlp: int = 1
    neighbor_dropout: float = 0.3
    global_depth: int = 3
    global_heads: int = 16
    global_mlp: int = 4
    global_dropout: float = 0.1
    fusion_depth: int = 1
    fusion_heads: int = 4
    fusion_mlp: int = 4
    fusion_dropout: float = 0.2
    teaching: float = 0.3

    def __post_init__(self) -> None:
        for name in ("neighbor_heads", "global_heads", "fusion_heads"):
            if getattr(self, name) < 1 or self.dim % getattr(self, name):
                raise UsageError(
                    f"{name} must divide dim={self.dim}, got {getattr(self, name)}"
                )
        for name in ("neighbor", "global", "fusion"):
            if not 0 <= getattr(self, f"{name}_dropout") < 1:
                raise UsageError(f"{name}_dropout must be in [0, 1)")
            if getattr(self, f"{name}_depth") < 1:
                raise UsageError(f"{name}_depth must be at least 1")
        if not 0 <= self.teaching <= 1:
            raise UsageError(f"teaching must be in [0, 1], got {self.teaching}")


class TRIPLEXOutput(NamedTuple):
    """What `TRIPLEX` returns, each of shape (n_spots, n_genes) but ``fused``.

    Attributes
    ----------
    expression : tensor
        By all scales together, 0 or above.
    fused : tensor of shape (n_spots, dim)
    target, neighbor, overview : tensors
        By each scale alone.
    """

    expression: Tensor
    fused: Tensor
    target: Tensor
    neighbor: Tensor
    overview: Tensor


class TRIPLEX(nn.Module):  # type: ignore[misc]
    """Whole section, surroundings and patch, met where the section asks the others.

    Parameters
    ----------
    config : TRIPLEXConfig
    """

    def __init__(self, config: TRIPLEXConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.dim
        self.projections = nn.ModuleDict(
            {
                scale: nn.Linear(config.n_features, dim)
                for scale in ("target", "neighbor", "global")
            }
        )
        self.neighbor_encoder = NeighborEncoder(
            dim,
            config.n_tiles,
            config.neighbor_depth,
            config.neighbor_heads,
            config.neighbor_mlp * dim,
            config.neighbor_dropout,
        )
        self.global_encoder = GlobalEncoder(
            dim,
            config.global_depth,
            config.global_heads,
            config.global_mlp * dim,
            config.global_dropout,
        )
        self.fusion = nn.ModuleList(
            CrossLayer(
                dim,
                config.fusion_heads,
                config.fusion_mlp * dim,
                config.fusion_dropout,
            )
            for _ in range(config.fusion_depth)
        )
        self.norm = nn.LayerNorm(dim)
        self.heads = nn.ModuleDict(
            {
                scale: nn.Linear(dim, config.n_genes)
                for scale in ("fused", "target", "neighbor", "global")
            }
        )

    def forward(
        self,
        target: Tensor,
        neighbors: Tensor,
        overview: Tensor,
        grid: Tensor,
        *,
        neighbor_mask: Tensor | None = None,
        section: Tensor | None = None,
        rows: Tensor | None = None,
    ) -> TRIPLEXOutput:
        """Predict the expression of a batch of spots; arguments as of `GeneDML`."""
        patch = self.projections["target"](target)
        around = self.neighbor_encoder(
            self.projections["neighbor"](neighbors), neighbor_mask
        )
        whole = self.global_encoder(self.projections["global"](overview), grid, section)
        own = whole if rows is None else whole[rows]
        fused = self.norm(
            self._asked(own, patch, None) + self._asked(own, around, neighbor_mask)
        )
        means = {
            "target": patch.mean(dim=1),
            "neighbor": _shown_mean(around, neighbor_mask),
            "global": own,
        }
        by_scale = [self.heads[scale](mean) for scale, mean in means.items()]
        expression = self.heads["fused"](fused).clamp(min=0)
        return TRIPLEXOutput(expression, fused, *by_scale)

    @classmethod
    def from_pretrained(cls, path: str | Path) -> Self:
        """Model of a folder that `save_pretrained` wrote, in evaluation mode, on CPU.

        Raises
        ------
        InputMissingError, UsageError, DataError
            If the folder holds no such model, or a damaged one.
        """
        return load_model(cls, TRIPLEXConfig, path)

    def save_pretrained(self, path: str | Path) -> Path:
        """Write settings and weights; return the folder."""
        return save_model(self, self.config, path)

    def _asked(self, token: Tensor, seen: Tensor, shown: Tensor | None) -> Tensor:
        """The section's token after it looked at others, by the same layers for all."""
        for layer in self.fusion:
            token = layer(token, seen, shown)
        return token


def triplex_loss(
    output: TRIPLEXOutput, expression: Tensor, config: TRIPLEXConfig
) -> Tensor:
    """Loss of a batch, of shape ().

    Parameters
    ----------
    output : TRIPLEXOutput
    expression : tensor of shape (n_spots, n_genes)
    config : TRIPLEXConfig

    Notes
    -----
    Squared error of the fused prediction, and for each scale (1 - teaching) of its
    squared error and ``teaching`` of its squared distance from the fused prediction.
    """
    total: Tensor = functional.mse_loss(output.expression, expression)
    for scale in (output.target, output.neighbor, output.overview):
        total = total + (1 - config.teaching) * functional.mse_loss(scale, expression)
        total = total + config.teaching * functional.mse_loss(scale, output.expression)
    return total


def _shown_mean(tokens: Tensor, shown: Tensor | None) -> Tensor:
    if shown is None:
        return tokens.mean(dim=1)
    weight = shown.to(tokens.dtype)[..., None]
    result: Tensor = torch.sum(tokens * weight, dim=1) / weight.sum(dim=1)
    return result
