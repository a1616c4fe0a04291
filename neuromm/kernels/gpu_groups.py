"""CUDA kernels of in-batch k-means: `cuda/contrastive/assign.cu`.

Arrays are torch tensors on a CUDA device, as those of the losses are; kernels run on
its current stream. The plain version is in `neuromm.kernels.batch_kmeans`.
"""

import numpy as np

from neuromm.kernels.arrays import Array
from neuromm.kernels.gpu_launch import (
    Launch,
    dtype_name,
    empty,
    launch,
    leading_dimension,
    require_gpu,
    row_major,
)

__all__ = [
    "means_launch",
    "member_means",
    "nearest_centres",
    "nearest_launch",
    "rows_a_part",
    "sums_launch",
]

_SUFFIX = {"float32": "f32", "float64": "f64"}

# Products of centres and rows that are held at a time: 33 MB in float32.
TILE_PRODUCTS = 2**23

# Of assign.cu: features of a block, threads that share one, sums of a thread.
FEATURES, SPLITS, GROUPS = 32, 8, 16
ROWS_A_PART = 128
_MAX_PARTS = 256
_THREADS = 128


def nearest_launch(n_rows: int, dtype: str) -> Launch:
    """Launch of nearest_centre; sizes are 1 or more."""
    return Launch(
        "contrastive/assign.cu",
        f"nearest_centre_{_SUFFIX[dtype]}",
        (-(-n_rows // _THREADS), 1, 1),
        (_THREADS, 1, 1),
    )


def sums_launch(n_rows: int, n_features: int, n_groups: int, dtype: str) -> Launch:
    """Launch of member_sums, whose last column counts the members."""
    return Launch(
        "contrastive/assign.cu",
        f"member_sums_{_SUFFIX[dtype]}",
        (
            -(-(n_features + 1) // FEATURES),
            -(-n_rows // rows_a_part(n_rows)),
            -(-n_groups // GROUPS),
        ),
        (FEATURES, SPLITS, 1),
    )


def means_launch(n_features: int, n_groups: int, dtype: str) -> Launch:
    """Launch of member_means."""
    return Launch(
        "contrastive/assign.cu",
        f"member_means_{_SUFFIX[dtype]}",
        (-(-n_features * n_groups // _THREADS), 1, 1),
        (_THREADS, 1, 1),
    )


def rows_a_part(n_rows: int) -> int:
    """Rows that one block sums: by the sizes alone, so results never change."""
    return max(ROWS_A_PART, -(-n_rows // _MAX_PARTS))


def nearest_centres(rows: Array, centres: Array) -> Array:
    """Nearest centre of each row, the first of equals.

    Parameters
    ----------
    rows : tensor of shape (n_samples, n_features)
        Of float32 or float64.
    centres : tensor of shape (n_groups, n_features)
        At least one.

    Returns
    -------
    labels : tensor of shape (n_samples,), int64

    Raises
    ------
    TypeError
        If the tensors do not lie on one GPU, or not in one precision.
    ValueError
        If their widths differ, or there is no centre.
    """
    import torch

    require_gpu(rows, centres)
    dtype = dtype_name(rows)
    if dtype not in _SUFFIX or dtype_name(centres) != dtype:
        raise TypeError(
            "rows and centres must both be float32 or both be float64, got "
            f"{dtype} and {dtype_name(centres)}: widen half precision first"
        )
    n_rows, n_groups = len(rows), len(centres)
    if not n_groups or rows.shape[1] != centres.shape[1]:
        raise ValueError(
            "rows and at least one centre must have the same width, got shapes "
            f"{tuple(rows.shape)} and {tuple(centres.shape)}"
        )
    rows, centres = rows.detach(), centres.detach()
    labels = empty((n_rows,), "int64", rows)
    squares = centres.square().sum(dim=1)
    height = max(1, min(n_rows, TILE_PRODUCTS // n_groups))
    held = empty((n_groups * height,), dtype, rows)
    for start in range(0, n_rows, height):
        part = rows[start : start + height]
        products = held[: n_groups * len(part)].view(n_groups, len(part))
        torch.mm(centres, part.T, out=products)
        arguments = [products, squares, labels[start : start + height]]
        arguments += [np.uint64(len(part)), np.uint64(n_groups)]
        launch(nearest_launch(len(part), dtype), arguments, rows)
    return labels


def member_means(rows: Array, labels: Array, n_groups: int) -> tuple[Array, Array]:
    """Mean row of each group, and how many rows it has.

    Parameters
    ----------
    rows : tensor of shape (n_samples, n_features)
        Of float32 or float64.
    labels : tensor of shape (n_samples,), int64
        In [0, n_groups): a row with another label counts nowhere.
    n_groups : int

    Returns
    -------
    means : tensor of shape (n_groups, n_features)
        0 where a group is empty. The same bits each time.
    sizes : tensor of shape (n_groups,)
        In the precision of ``rows``.

    Raises
    ------
    TypeError
        If the tensors do not lie on one GPU, or have another precision.
    ValueError
        If there is not one label a row.
    """
    require_gpu(rows, labels)
    dtype = dtype_name(rows)
    if dtype not in _SUFFIX or dtype_name(labels) != "int64":
        raise TypeError(
            "rows must be float32 or float64 and labels int64, got "
            f"{dtype} and {dtype_name(labels)}: widen half precision first"
        )
    n_rows, n_features = rows.shape
    if not n_features or tuple(labels.shape) != (n_rows,):
        raise ValueError(
            "rows must have at least one feature, and one label each, got shapes "
            f"{tuple(rows.shape)} and {tuple(labels.shape)}"
        )
    rows, labels = row_major(rows.detach()), labels.contiguous()
    if not n_rows or not n_groups:
        return rows.new_zeros((n_groups, n_features)), rows.new_zeros(n_groups)
    means = empty((n_groups, n_features), dtype, rows)
    sizes = empty((n_groups,), dtype, rows)
    geometry = sums_launch(n_rows, n_features, n_groups, dtype)
    n_parts = geometry.grid[1]
    parts = empty((n_parts, n_groups, n_features + 1), "float64", rows)
    arguments = [rows, leading_dimension(rows), labels, parts, np.uint64(n_rows)]
    widths = [np.uint64(n_features), np.uint64(n_groups)]
    launch(geometry, [*arguments, *widths, np.uint64(rows_a_part(n_rows))], rows)
    arguments = [parts, means, sizes, *widths, np.uint64(n_parts)]
    launch(means_launch(n_features, n_groups, dtype), arguments, rows)
    return means, sizes
