"""CUDA kernels of volumes: `cuda/contrastive/volume.cu`, launched from Python.

Arrays are torch tensors on a CUDA device, as those of the losses are; kernels run on
its current stream. The plain version is in `neuromm.kernels.volume_softmax`, where
volumes are in a unit of 1 / scale, so that they are logits up to their sign.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from neuromm.kernels.arrays import Array
from neuromm.kernels.gpu_launch import (
    Launch,
    dtype_name,
    empty,
    launch,
    require_gpu,
)

__all__ = [
    "TILE",
    "SlopeWeights",
    "Volumes",
    "log_sums",
    "merge_launch",
    "moments",
    "tile_launch",
]

TILE = 2048, 4096  # anchors and samples, whose products are held at a time

_SUFFIX = {"float32": "f32", "float64": "f64"}

# Of volume.cu: threads along columns and rows, columns and rows of a block.
LANES, WARPS, COLUMNS, ROWS = 32, 8, 128, 64
_MERGE_THREADS = 128


class Volumes(NamedTuple):
    """What the volumes of all pairs follow from.

    Attributes
    ----------
    anchor : tensor of shape (n_samples, n_features)
    axes : tensor of shape (n_others, n_samples, n_features)
        Of the span of each sample's others, times the root of their determinant.
    determinant : tensor of shape (n_samples,)
    matched : tensor of shape (n_samples,)
        Squared volume of each anchor and the others of its sample.
    floor : float
        Least squared volume.
    shift : float or None
        Of all logits; None looks for the least volume of each row and column.
    """

    anchor: Array
    axes: Array
    determinant: Array
    matched: Array
    floor: float
    shift: float | None


class SlopeWeights(NamedTuple):
    """Half the gradient of a volume V of row i and column j, in its parts.

    (rows_i + columns_j) exp(shift - V) + sums_i, and own_i where i = j. Without a
    shift: rows_i exp(-row_logs_i - V) + columns_j exp(-column_logs_j - V).
    Each a tensor of shape (n_samples,).
    """

    rows: Array
    columns: Array
    sums: Array
    own: Array
    row_logs: Array
    column_logs: Array


def tile_launch(
    step: str, n_rows: int, n_columns: int, dtype: str, *, safe: bool
) -> Launch:
    """Launch of volume_stats or volume_slopes; sizes are 1 or more.

    Parameters
    ----------
    step : {"stats", "slopes"}
    n_rows, n_columns : int
    dtype : {"float32", "float64"}
    safe : bool
        At temperatures that leave the range of exp(shift - volume).
    """
    return Launch(
        "contrastive/volume.cu",
        f"volume_{step}{'_safe' if safe else ''}_{_SUFFIX[dtype]}",
        (-(-n_columns // COLUMNS), -(-n_rows // ROWS), 1),
        (LANES, WARPS, 1),
    )


def merge_launch(n_places: int) -> Launch:
    """Launch of volume_merge over rows or columns."""
    return Launch(
        "contrastive/volume.cu",
        "volume_merge",
        (-(-n_places // _MERGE_THREADS), 1, 1),
        (_MERGE_THREADS, 1, 1),
    )


def log_sums(volumes: Volumes, *, with_sums: bool) -> tuple[Array, Array, Array]:
    """Log-sum-exp of minus the volumes over rows and columns, and sums of rows.

    Parameters
    ----------
    volumes : Volumes
    with_sums : bool
        False leaves the sums of rows at 0.

    Returns
    -------
    rows, columns, row_sums : tensors of shape (n_samples,), float64

    Raises
    ------
    TypeError
        If the tensors do not lie on one GPU, or are not float32 or float64.
    """
    import torch

    dtype = _checked(volumes)
    anchor = volumes.anchor
    totals = anchor.new_zeros((5, len(anchor)), dtype=torch.float64)
    totals[:2] = float("inf")
    row_low, column_low, row_sum, column_sum, row_volume = totals
    sum_of_rows = row_volume if with_sums else None
    for part, other, products in _tiles_of_products(volumes):
        _, n_rows, n_columns = products.shape
        geometry = tile_launch(
            "stats", n_rows, n_columns, dtype, safe=volumes.shift is None
        )
        row_parts = empty((3, geometry.grid[0], n_rows), "float64", anchor)
        column_parts = empty((2, geometry.grid[1], n_columns), "float64", anchor)
        volume_parts = row_parts[2] if with_sums else None
        arguments = _tile_arguments(volumes, part, other, products)
        arguments += [row_parts[0], row_parts[1], volume_parts, *column_parts]
        launch(geometry, arguments, anchor)
        arguments = [row_parts[0], row_parts[1], volume_parts, row_low[part]]
        arguments += [row_sum[part], None if sum_of_rows is None else sum_of_rows[part]]
        arguments += [np.uint64(n_rows), np.uint64(geometry.grid[0])]
        launch(merge_launch(n_rows), arguments, anchor)
        arguments = [*column_parts, None, column_low[other], column_sum[other], None]
        arguments += [np.uint64(n_columns), np.uint64(geometry.grid[1])]
        launch(merge_launch(n_columns), arguments, anchor)
    return row_sum.log() - row_low, column_sum.log() - column_low, row_volume


def moments(
    volumes: Volumes, weights: SlopeWeights, *, with_scale: bool
) -> tuple[Array, Array, Array, Array | None]:
    """Gradient of the anchor, and the sums that those of the others follow from.

    Parameters
    ----------
    volumes : Volumes
    weights : SlopeWeights
    with_scale : bool

    Returns
    -------
    grad_anchor : tensor of shape (n_samples, n_features)
        -2 sum_jm W_ij p_mij axes_mj, with W half the gradient of a volume over the
        volume, 0 at the floor, and p the products of anchors and axes.
    products : tensor of shape (n_others, n_samples, n_features)
        sum_i W_ij p_mij anchor_i.
    heights : tensor of shape (n_samples,), float64
        sum_i W_ij V_ij^2.
    of_scale : tensor of shape (), float64, or None
        Sum over all pairs of V times the gradient of V by the softmax alone, if
        ``with_scale``.

    Raises
    ------
    TypeError
        If the tensors do not lie on one GPU, or are not float32 or float64.
    """
    import torch

    dtype = _checked(volumes)
    weights = SlopeWeights(*[one.contiguous() for one in weights])
    anchor, axes = volumes.anchor, volumes.axes
    grad_anchor, sums = anchor.new_zeros(anchor.shape), anchor.new_zeros(axes.shape)
    heights = anchor.new_zeros(len(anchor), dtype=torch.float64)
    of_scale = heights.new_zeros(()) if with_scale else None
    safe = volumes.shift is None
    row_shift, column_shift = -weights.row_logs, -weights.column_logs
    for part, other, products in _tiles_of_products(volumes):
        n_others, n_rows, n_columns = products.shape
        geometry = tile_launch("slopes", n_rows, n_columns, dtype, safe=safe)
        parts = empty((2, geometry.grid[1], n_columns), "float64", anchor)
        arguments = _tile_arguments(volumes, part, other, products)
        arguments += [weights.rows[part], weights.sums[part], weights.own[part]]
        arguments += [row_shift[part] if safe else None, weights.columns[other]]
        arguments += [column_shift[other] if safe else None]
        arguments += [parts[0], parts[1] if with_scale else None]
        launch(geometry, arguments, anchor)
        heights[other] += parts[0].sum(dim=0)
        if of_scale is not None:
            of_scale += parts[1].sum().mul_(2)
        for product, axis in zip(products, axes, strict=True):
            grad_anchor[part].addmm_(product, axis[other], alpha=-2)
        rows = anchor[part].expand(n_others, -1, -1)
        sums[:, other].baddbmm_(products.mT, rows)
    return grad_anchor, sums, heights, of_scale


def _tiles_of_products(volumes: Volumes) -> Iterator[tuple[slice, slice, Array]]:
    """Products of anchors with each axis, tile by tile, in one and the same memory."""
    import torch

    from neuromm.kernels.tiling import tiles

    anchor, axes = volumes.anchor, volumes.axes
    n_samples, n_others = len(anchor), len(axes)
    height, width = (min(n_samples, size) for size in TILE)
    held = empty((n_others * height * width,), dtype_name(anchor), anchor)
    for part, other in tiles(n_samples, n_samples, (height, width)):
        rows = anchor[part].expand(n_others, -1, -1)
        columns = axes[:, other].mT
        shape = n_others, rows.shape[1], columns.shape[2]
        products = held[: int(np.prod(shape))].view(shape)
        yield part, other, torch.bmm(rows, columns, out=products)


def _tile_arguments(
    volumes: Volumes, part: slice, other: slice, products: Array
) -> list[Array]:
    real = np.dtype(dtype_name(products)).type
    sizes = [*products.shape, part.start, other.start]
    return [
        products,
        volumes.determinant[other],
        volumes.matched[part],
        *[np.uint64(size) for size in sizes],
        real(volumes.floor),
        real(0.0 if volumes.shift is None else volumes.shift),
    ]


def _checked(volumes: Volumes) -> str:
    arrays = volumes[:4]
    require_gpu(*arrays)
    found = [dtype_name(one) for one in arrays]
    if found[0] not in _SUFFIX or len(set(found)) > 1:
        raise TypeError(
            "anchor, axes, determinant and matched must all be float32 or all be "
            f"float64, got {', '.join(found)}: widen half precision first"
        )
    return found[0]
