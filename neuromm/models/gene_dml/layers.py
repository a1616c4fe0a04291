"""Transformer layers of Gene-DML, and the encoders made of them."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from neuromm.core import DataError

__all__ = [
    "CrossLayer",
    "GlobalEncoder",
    "Layer",
    "NeighborEncoder",
    "PositionalGenerator",
    "widened",
]


class Layer(nn.Module):  # type: ignore[misc]
    """Pre-norm transformer layer.

    Queries, keys and values have no bias; one head has no output projection.

    Parameters
    ----------
    dim, n_heads, mlp : int
    dropout : float
    """

    def __init__(self, dim: int, n_heads: int, mlp: int, dropout: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = (
            nn.Sequential(nn.Linear(dim, dim), nn.Dropout(dropout))
            if n_heads > 1
            else nn.Identity()
        )
        self.mlp_norm = nn.LayerNorm(dim)
        self.mlp = widened(dim, mlp, dropout)

    def forward(self, tokens: Tensor, bias: Tensor | None = None) -> Tensor:
        """Tokens of shape (n, n_tokens, dim); bias is added to the logits."""
        n, n_tokens, dim = tokens.shape
        parts = self.qkv(self.norm(tokens)).reshape(
            n, n_tokens, 3, self.n_heads, dim // self.n_heads
        )
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        tokens = tokens + self.out(seen.transpose(1, 2).reshape(n, n_tokens, dim))
        result: Tensor = tokens + self.mlp(self.mlp_norm(tokens))
        return result


class CrossLayer(nn.Module):  # type: ignore[misc]
    """Pre-norm layer in which one token looks at others.

    Parameters
    ----------
    dim, n_heads, mlp : int
    dropout : float
    """

    def __init__(self, dim: int, n_heads: int, mlp: int, dropout: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim, bias=False)
        self.key_value = nn.Linear(dim, 2 * dim, bias=False)
        self.out = nn.Sequential(nn.Linear(dim, dim), nn.Dropout(dropout))
        self.mlp_norm = nn.LayerNorm(dim)
        self.mlp = widened(dim, mlp, dropout)

    def forward(self, token: Tensor, seen: Tensor, shown: Tensor | None) -> Tensor:
        """Token (n, dim), seen (n, n_tokens, dim), shown (n, n_tokens) or None."""
        n, dim = token.shape
        size = dim // self.n_heads
        q = self.query(self.norm(token)).reshape(n, 1, self.n_heads, size)
        parts = self.key_value(self.norm(seen)).reshape(n, -1, 2, self.n_heads, size)
        k, v = parts.permute(2, 0, 3, 1, 4)
        mask = None if shown is None else shown[:, None, None]
        found = functional.scaled_dot_product_attention(
            q.transpose(1, 2), k, v, attn_mask=mask
        )
        token = token + self.out(found.reshape(n, dim))
        result: Tensor = token + self.mlp(self.mlp_norm(token))
        return result


class NeighborEncoder(nn.Module):  # type: ignore[misc]
    """Transformer over the tiles around a spot, with a bias by their distance.

    Each layer has, for each head, a number for every pair of distances in rows and in
    columns. Tiles outside of the slide are not looked at.
    """

    def __init__(
        self, dim: int, n_tiles: int, depth: int, n_heads: int, mlp: int, dropout: float
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            Layer(dim, n_heads, mlp, dropout) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim)
        self.biases = nn.Parameter(torch.zeros(depth, n_heads, n_tiles**2))
        place = torch.arange(n_tiles**2)
        row, column = place // n_tiles, place % n_tiles
        apart = (row[:, None] - row).abs() * n_tiles + (column[:, None] - column).abs()
        self.register_buffer("apart", apart, persistent=False)

    def forward(self, tiles: Tensor, mask: Tensor | None) -> Tensor:
        """Encode (n, n_tiles ** 2, dim); mask, of (n, n_tiles ** 2), is True inside."""
        outside = None
        if mask is not None:
            outside = torch.zeros_like(mask, dtype=tiles.dtype)
            outside = outside.masked_fill(~mask, -torch.inf)[:, None, None]
        for layer, biases in zip(self.layers, self.biases, strict=True):
            bias = biases[:, self.apart][None]
            tiles = layer(tiles, bias if outside is None else bias + outside)
        result: Tensor = self.norm(tiles)
        return result


class PositionalGenerator(nn.Module):  # type: ignore[misc]
    """Adds to each spot what a 3 x 3 depth-wise convolution sees on its array."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, tokens: Tensor, grid: Tensor) -> Tensor:
        """Tokens (n_spots, dim) with (row, column) of each, no two alike."""
        place = grid - grid.amin(dim=0)
        n_rows, n_columns = (int(side) + 1 for side in place.amax(dim=0))
        flat = place[:, 0] * n_columns + place[:, 1]
        if len(flat.unique()) != len(flat):
            raise DataError("two spots of a section have the same row and column")
        empty = tokens.new_zeros(n_rows * n_columns, tokens.shape[1])
        plane = empty.index_put((flat,), tokens).T
        plane = plane.reshape(1, -1, n_rows, n_columns)
        result: Tensor = tokens + self.conv(plane)[0].flatten(1).T[flat]
        return result


class GlobalEncoder(nn.Module):  # type: ignore[misc]
    """Transformer over all spots of a section, with places after its first layer."""

    def __init__(
        self, dim: int, depth: int, n_heads: int, mlp: int, dropout: float
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            Layer(dim, n_heads, mlp, dropout) for _ in range(depth)
        )
        self.places = PositionalGenerator(dim)
        self.norm = nn.LayerNorm(dim)

    def forward(
        self, spots: Tensor, grid: Tensor, section: Tensor | None = None
    ) -> Tensor:
        """Encode (n_spots, dim), each section as a sequence of its own."""
        if section is None:
            return self._encoded(spots, grid)
        whole = torch.zeros_like(spots)
        for one in section.unique():
            own = torch.nonzero(section == one).squeeze(1)
            whole = whole.index_put((own,), self._encoded(spots[own], grid[own]))
        return whole

    def _encoded(self, spots: Tensor, grid: Tensor) -> Tensor:
        tokens = self.places(self.layers[0](spots[None])[0], grid)[None]
        for layer in list(self.layers)[1:]:
            tokens = layer(tokens)
        result: Tensor = self.norm(tokens[0])
        return result


def widened(dim: int, width: int, dropout: float) -> nn.Sequential:
    """Two linear layers with GELU between them, and dropout after each."""
    return nn.Sequential(
        nn.Linear(dim, width),
        nn.GELU(),
        nn.Dropout(dropout),
        nn.Linear(width, dim),
        nn.Dropout(dropout),
    )
