"""Gene-DML: three scales of a section and its genes in one space.

References
----------
Song, Fan, Chang & Cai (2026) Gene-DML: dual-pathway multi-level discrimination for gene
expression prediction from histopathology images. WACV, arXiv 2507.14670.
"""

from pathlib import Path
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from neuromm.core import UsageError
from neuromm.models.card import ModelCard
from neuromm.models.checkpoint import load_model, save_model
from neuromm.models.gene_dml.config import GeneDMLConfig
from neuromm.models.gene_dml.layers import (
    GlobalEncoder,
    Layer,
    NeighborEncoder,
    widened,
)

__all__ = ["CARD", "GeneDML", "GeneDMLOutput"]

CARD = ModelCard(
    name="GeneDML",
    title="Multi-scale prediction of gene expression from H&E, aligned with genes",
    reference="Song, Fan, Chang & Cai (2026), WACV, arXiv 2507.14670",
    task="Predict the expression of a panel of genes at each spot of a stained section",
    inputs="Vectors of a frozen patch encoder: of the spot (n_spots, n_tokens, "
    "n_features), of the tiles around it (n_spots, 25, n_features), and of all spots "
    "of the section with their places in the array",
    outputs="Expression (n_spots, n_genes), in the unit of the training targets",
    departures=(
        "readout='scale_mean': the released code takes the mean over all tokens, in "
        "which the patch tokens have 88 % of the weight",
        "group_space='projected': the released code compares a fused token that is "
        "neither projected nor normalised with projected, normalised centres",
        "No heads of single scales: those of the released code are never trained, and "
        "their errors are reported",
        "The epoch is chosen on a patient within the training set; the released code "
        "chooses by the patient that it reports",
        "Augmentation is left to the features: the target's patch is not encoded anew",
        "Tiles outside of the slide are hidden one by one, in the fusion too",
    ),
    limits=(
        "Research use only: not a medical device, not for diagnosis or treatment",
        "Expression that is predicted is smoother than expression: structure between "
        "genes and in space is lost",
        "Published for breast and skin at spots of 100 um; other tissues, stains and "
        "scanners are untested",
    ),
    weights="None are distributed: train on your own data",
)


class GeneDMLOutput(NamedTuple):
    """What `GeneDML` returns.

    Attributes
    ----------
    expression : tensor of shape (n_spots, n_genes)
    fused : tensor of shape (n_spots, dim)
        What the expression is predicted from.
    target, neighbor, overview : tensors of shape (n_spots, dim)
        Each scale by itself; None for one that the model does not have.
    gene : tensor of shape (n_spots, dim) or None
        Embedding of the expression that was given.
    image_group, gene_group : tensors of shape (n_spots, dim) or None
        What is grouped.
    """

    expression: Tensor
    fused: Tensor
    target: Tensor
    neighbor: Tensor | None
    overview: Tensor | None
    gene: Tensor | None
    image_group: Tensor | None
    gene_group: Tensor | None


class GeneDML(nn.Module):  # type: ignore[misc]
    """Expression of genes from a patch, its surroundings and the whole section.

    Parameters
    ----------
    config : GeneDMLConfig

    Notes
    -----
    The gene encoder and the projection of groups serve the losses alone: what is
    predicted does not depend on the expression that is given.
    """

    def __init__(self, config: GeneDMLConfig) -> None:
        super().__init__()
        self.config = config
        wide, dim = config.n_features, config.dim
        if "neighbor" in config.scales:
            self.neighbor_encoder = NeighborEncoder(
                wide,
                config.n_tiles,
                config.neighbor_depth,
                config.neighbor_heads,
                config.neighbor_mlp,
                config.neighbor_dropout,
            )
        if "global" in config.scales:
            self.global_encoder = GlobalEncoder(
                wide,
                config.global_depth,
                config.global_heads,
                config.global_mlp,
                config.global_dropout,
            )
        self.projection = nn.Linear(wide, dim)
        self.fusion = Layer(dim, 1, config.fusion_mlp, config.fusion_dropout)
        self.fusion_mlp = widened(dim, 2 * dim, config.fusion_dropout)
        self.head = nn.Sequential(
            nn.Linear(dim, config.head_width),
            nn.ReLU(),
            nn.Dropout(config.fusion_dropout),
            nn.Linear(config.head_width, dim),
            nn.ReLU(),
            nn.Dropout(config.fusion_dropout),
            nn.Linear(dim, config.n_genes),
        )
        self.gene_encoder = _GeneEncoder(config)
        self.group_projection = nn.Linear(dim, dim)
        if config.scale_heads:
            self.scale_heads = nn.ModuleDict(
                {scale: _scale_head(config) for scale in config.scales}
            )

    def forward(
        self,
        target: Tensor,
        neighbors: Tensor,
        overview: Tensor,
        grid: Tensor,
        expression: Tensor | None = None,
        *,
        neighbor_mask: Tensor | None = None,
        section: Tensor | None = None,
        rows: Tensor | None = None,
    ) -> GeneDMLOutput:
        """Predict the expression of a batch of spots.

        Parameters
        ----------
        target : tensor of shape (n_spots, n_tokens, n_features)
        neighbors : tensor of shape (n_spots, n_tiles ** 2, n_features)
        overview : tensor of shape (n_all, n_features)
            All spots of the sections that the batch is of.
        grid : integer tensor of shape (n_all, 2)
            Row and column of each of these.
        expression : tensor of shape (n_spots, n_genes), optional
            In training; no prediction depends on it.
        neighbor_mask : tensor of bool of shape (n_spots, n_tiles ** 2), optional
            True where the tile lies on the slide; everywhere by default.
        section : integer tensor of shape (n_all,), optional
            Which section each spot is of; one section by default.
        rows : integer tensor of shape (n_spots,), optional
            Where the spots of the batch are among all; all, in order, by default.

        Raises
        ------
        UsageError
            If shapes do not match.
        neuromm.core.DataError
            If two spots of a section have one place.
        """
        self._check(target, neighbors, overview, grid, rows)
        scales = [self.projection(target)]
        shown = [target.new_ones(target.shape[:2], dtype=torch.bool)]
        if "neighbor" in self.config.scales:
            around = self.neighbor_encoder(neighbors, neighbor_mask)
            scales.append(self.projection(around))
            inside = neighbor_mask
            if inside is None:
                inside = target.new_ones(neighbors.shape[:2], dtype=torch.bool)
            shown.append(inside)
        if "global" in self.config.scales:
            whole = self.global_encoder(overview, grid, section)
            own = whole if rows is None else whole[rows]
            scales.append(self.projection(own)[:, None])
            shown.append(target.new_ones((len(target), 1), dtype=torch.bool))
        means, fused = self._fused(scales, shown)
        gene = image_group = gene_group = None
        if expression is not None:
            gene = self.gene_encoder(expression)
            image_group = normalize(self.group_projection(fused), dim=1)
            gene_group = normalize(self.group_projection(gene), dim=1)
        named = dict(zip(self.config.scales, means, strict=True))
        return GeneDMLOutput(
            self.head(fused),
            fused,
            named["target"],
            named.get("neighbor"),
            named.get("global"),
            gene,
            image_group,
            gene_group,
        )

    @classmethod
    def from_pretrained(cls, path: str | Path) -> Self:
        """Model of a folder that `save_pretrained` wrote, in evaluation mode, on CPU.

        Raises
        ------
        InputMissingError, UsageError, DataError
            If the folder holds no such model, or a damaged one.
        """
        return load_model(cls, GeneDMLConfig, path)

    def save_pretrained(self, path: str | Path) -> Path:
        """Write settings and weights; return the folder."""
        return save_model(self, self.config, path)

    def _fused(
        self, scales: list[Tensor], shown: list[Tensor]
    ) -> tuple[list[Tensor], Tensor]:
        """Mean of the tokens of each scale after the fusion, and of all."""
        is_shown = torch.cat(shown, dim=1)
        bias = None
        if not is_shown.all():
            bias = torch.zeros_like(is_shown, dtype=scales[0].dtype)
            bias = bias.masked_fill(~is_shown, -torch.inf)[:, None, None]
        tokens = self.fusion_mlp(self.fusion(torch.cat(scales, dim=1), bias))
        sizes = [part.shape[1] for part in scales]
        means = [
            _mean(part, inside)
            for part, inside in zip(tokens.split(sizes, dim=1), shown, strict=True)
        ]
        if self.config.readout == "token_mean":
            return means, _mean(tokens, is_shown)
        return means, torch.stack(means).mean(dim=0)

    def _check(
        self,
        target: Tensor,
        neighbors: Tensor,
        overview: Tensor,
        grid: Tensor,
        rows: Tensor | None,
    ) -> None:
        wide, n_tiles = self.config.n_features, self.config.n_tiles**2
        n_spots = len(target)
        if target.ndim != 3 or target.shape[2] != wide:
            raise UsageError(
                f"target must have shape (n_spots, n_tokens, {wide}), got "
                f"{tuple(target.shape)}"
            )
        if tuple(neighbors.shape) != (n_spots, n_tiles, wide):
            raise UsageError(
                f"neighbors must have shape ({n_spots}, {n_tiles}, {wide}), got "
                f"{tuple(neighbors.shape)}"
            )
        if (
            overview.ndim != 2
            or overview.shape[1] != wide
            or len(overview) != len(grid)
        ):
            raise UsageError(
                f"overview must have shape (n_all, {wide}) and grid a row for each, "
                f"got {tuple(overview.shape)} and {tuple(grid.shape)}"
            )
        n_named = len(overview) if rows is None else len(rows)
        if n_named != n_spots:
            raise UsageError(
                f"rows must say for each of {n_spots} spots where it is in overview, "
                f"got {n_named}"
            )


class _GeneEncoder(nn.Module):  # type: ignore[misc]
    """Embeds measured expression."""

    def __init__(self, config: GeneDMLConfig) -> None:
        super().__init__()
        dim, dropout = config.dim, config.gene_dropout
        self.first = nn.Linear(config.n_genes, dim)
        self.second = nn.Sequential(nn.GELU(), nn.Linear(dim, dim), nn.Dropout(dropout))
        self.norm = nn.LayerNorm(dim)
        self.mlp = widened(dim, 2 * dim, config.fusion_dropout)

    def forward(self, expression: Tensor) -> Tensor:
        """Embed (n_spots, n_genes)."""
        first = self.first(expression)
        result: Tensor = self.mlp(self.norm(first + self.second(first)))
        return result


def _scale_head(config: GeneDMLConfig) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(config.dim, config.dim),
        nn.ReLU(),
        nn.Dropout(config.fusion_dropout),
        nn.Linear(config.dim, config.n_genes),
    )


def _mean(tokens: Tensor, shown: Tensor) -> Tensor:
    """Mean over the tokens that are shown."""
    weight = shown.to(tokens.dtype)[..., None]
    return (tokens * weight).sum(dim=1) / weight.sum(dim=1)
