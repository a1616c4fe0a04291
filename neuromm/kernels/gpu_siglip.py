"""CUDA kernel of SigLIP: `cuda/contrastive/siglip.cu`, launched from Python.

Arrays are torch tensors on a CUDA device or CuPy arrays; results are of the same
library, on its current stream. The plain version is in `neuromm.kernels.pair_softplus`.
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
)

__all__ = ["TILE", "add_softplus", "siglip_launch", "siglip_merge_launch"]

TILE = 2048, 4096  # of products: 33 MB in float32, mostly in the L2 cache

_SUFFIX = {"float32": "f32", "float64": "f64"}

# Of siglip.cu: columns and rows of a block, threads that share a column.
COLUMNS, ROWS, SPLITS, SUMS = 32, 64, 8, 2
MERGE_THREADS = 256


def siglip_launch(n_rows: int, n_columns: int, dtype: str) -> Launch:
    """Launch of siglip; sizes are 1 or more."""
    return Launch(
        "contrastive/siglip.cu",
        f"siglip_{_SUFFIX[dtype]}",
        (-(-n_columns // COLUMNS), -(-n_rows // ROWS), 1),
        (COLUMNS, SPLITS, 1),
    )


def siglip_merge_launch() -> Launch:
    """Launch of siglip_merge."""
    return Launch(
        "contrastive/siglip.cu", "siglip_merge", (SUMS, 1, 1), (MERGE_THREADS, 1, 1)
    )


def add_softplus(
    products: Array, scale: Array, bias: Array, totals: Array, slopes: bool = True
) -> None:
    """Add softplus and sigmoid of a tile of logits to their sums.

    Parameters
    ----------
    products : array of shape (n_rows, n_columns)
        Of float32 or float64, columns next to each other. Logits are
        scale * products + bias. Changed in place into the sigmoid of the logits, which
        is the slope of softplus.
    scale, bias : arrays of shape () or (1,)
        In the precision of ``products``.
    totals : array of shape (2,), float64
        Sums of softplus and of sigmoid; what this tile has is added.
    slopes : bool
        Whether products are changed at all.

    Raises
    ------
    TypeError
        If the arrays do not lie on one GPU, or not in one precision.
    ValueError
        If neighbouring columns do not lie next to each other.
    """
    require_gpu(products, scale, bias, totals)
    dtype = dtype_name(products)
    if dtype not in _SUFFIX or {dtype_name(scale), dtype_name(bias)} != {dtype}:
        raise TypeError(
            "products, scale and bias must all be float32 or all be float64, got "
            f"{dtype}, {dtype_name(scale)} and {dtype_name(bias)}"
        )
    n_rows, n_columns = products.shape
    if not n_rows or not n_columns:
        return
    geometry = siglip_launch(n_rows, n_columns, dtype)
    n_blocks = geometry.grid[0] * geometry.grid[1]
    parts = empty((SUMS, n_blocks), "float64", products)
    arguments = [products, products if slopes else None, leading_dimension(products)]
    arguments += [scale, bias, parts, np.uint64(n_rows), np.uint64(n_columns)]
    launch(geometry, arguments, products)
    launch(siglip_merge_launch(), [parts, totals, np.uint64(n_blocks)], products)
