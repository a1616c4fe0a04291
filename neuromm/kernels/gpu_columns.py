"""CUDA kernel of column statistics: `cuda/encoding/col_stats.cu`, launched from Python.

Arrays are torch tensors on a CUDA device or CuPy arrays; results are of the same
library, on its current stream. The plain versions are in
`neuromm.kernels.column_statistics`.
"""

import numpy as np

from neuromm.kernels.arrays import Array, namespace
from neuromm.kernels.gpu_launch import (
    Launch,
    beside,
    dtype_name,
    empty,
    launch,
    leading_dimension,
    require_gpu,
    row_major,
)

__all__ = [
    "column_correlation",
    "column_moments",
    "column_r2",
    "moments_launch",
    "moments_merge_launch",
    "rows_a_part",
]

_SUFFIX = {"float32": "f32", "float64": "f64"}

# Of col_stats.cu: targets of a block, threads that share a target, results of a target.
TARGETS, SPLITS, STATS = 32, 8, 10
ROWS_A_PART = 512
_MAX_PARTS = 1024
_MERGE_THREADS = 128


def moments_launch(n_samples: int, n_targets: int, dtype: str) -> Launch:
    """Launch of col_stats; sizes are 1 or more."""
    return Launch(
        "encoding/col_stats.cu",
        f"col_stats_{_SUFFIX[dtype]}",
        (-(-n_targets // TARGETS), -(-n_samples // rows_a_part(n_samples)), 1),
        (TARGETS, SPLITS, 1),
    )


def moments_merge_launch(n_targets: int) -> Launch:
    """Launch of col_stats_merge."""
    return Launch(
        "encoding/col_stats.cu",
        "col_stats_merge",
        (-(-n_targets // _MERGE_THREADS), 1, 1),
        (_MERGE_THREADS, 1, 1),
    )


def rows_a_part(n_samples: int) -> int:
    """Rows that one block sums: by the sizes alone, so results never change."""
    return max(ROWS_A_PART, -(-n_samples // _MAX_PARTS))


def column_moments(y: Array, prediction: Array) -> Array:
    """Moments of the columns of responses and predictions, in one read of both.

    Parameters
    ----------
    y, prediction : arrays of shape (n_samples, n_targets)
        float32 or float64, both the same; at least one sample.

    Returns
    -------
    moments : array of shape (10, n_targets), float64
        Means of y and of the prediction; sums of squared deviations of both and of
        products of deviations; sum (y - prediction)^2; lowest values of both; highest
        values of both. nan where a column holds nan.

    Raises
    ------
    TypeError
        If the arrays do not lie on one GPU, or not in one precision.
    ValueError
        If their shapes differ or there is no sample.
    """
    require_gpu(y, prediction)
    dtype = dtype_name(y)
    if dtype not in _SUFFIX or dtype_name(prediction) != dtype:
        raise TypeError(
            "y and prediction must both be float32 or both be float64, got "
            f"{dtype} and {dtype_name(prediction)}"
        )
    if y.ndim != 2 or tuple(y.shape) != tuple(prediction.shape) or not y.shape[0]:
        raise ValueError(
            "y and prediction must have one shape (n_samples, n_targets) with at least "
            f"one sample, got {tuple(y.shape)} and {tuple(prediction.shape)}"
        )
    n_samples, n_targets = y.shape
    moments = empty((STATS, n_targets), "float64", y)
    if not n_targets:
        return moments
    geometry = moments_launch(n_samples, n_targets, dtype)
    n_parts = geometry.grid[1]
    parts = empty((n_parts, STATS, n_targets), "float64", y)
    y, prediction = row_major(y), row_major(prediction)
    sizes = [np.uint64(n_samples), np.uint64(n_targets)]
    arguments = [y, leading_dimension(y), prediction, leading_dimension(prediction)]
    arguments += [parts, *sizes, np.uint64(rows_a_part(n_samples))]
    launch(geometry, arguments, y)
    first = [beside(one[0], y, "float64") for one in (y, prediction)]
    arguments = [parts, *first, moments, *sizes, np.uint64(n_parts)]
    launch(moments_merge_launch(n_targets), arguments, y)
    return moments


def column_correlation(x: Array, y: Array) -> Array:
    """Pearson correlation of columns, as `column_statistics.column_correlation`."""
    xp = namespace(x)
    moments = column_moments(x, y)
    constant = (moments[6] == moments[8]) | (moments[7] == moments[9])
    norm = xp.sqrt(moments[2]) * xp.sqrt(moments[3])
    norm = xp.where(constant, xp.full_like(norm, xp.nan), norm)
    return xp.astype(xp.clip(moments[4] / norm, -1, 1), x.dtype)


def column_r2(y: Array, prediction: Array) -> Array:
    """Explained share of variance, as `column_statistics.column_r2`."""
    xp = namespace(y)
    moments = column_moments(y, prediction)
    spread = xp.where(
        moments[6] == moments[8], xp.full_like(moments[2], xp.nan), moments[2]
    )
    return xp.astype(1 - moments[5] / spread, y.dtype)
