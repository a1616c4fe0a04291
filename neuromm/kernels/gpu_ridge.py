"""CUDA kernels of the ridge path: `cuda/encoding`, launched from Python.

Arrays are torch tensors on a CUDA device or CuPy arrays; results are of the same
library, on its current stream, allocated by it. The plain versions that these take the
place of are in `neuromm.kernels.ridge_path` and `neuromm.kernels.ridge_selection`.
"""

import numpy as np
from numpy.typing import NDArray

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
    "path_sums",
    "path_sums_launch",
    "select",
    "select_launch",
    "shrink_gather",
    "shrink_gather_launch",
]

_SUFFIX = {"float32": "f32", "float64": "f64"}

# Of path_sums.cu: penalties, modes and targets of a block, threads that share a target.
ALPHAS, MODES, TARGETS, SPLITS = 16, 32, 64, 4
_TABLE = 3 * ALPHAS + 1

# Of shrink_gather.cu and alpha_select.cu.
THREADS = 256
MODES_A_THREAD = 64
_MAX_GRID_Y = 65535


def path_sums_launch(n_alphas: int, n_targets: int, dtype: str) -> Launch:
    """Launch of path_sums.cu.

    Parameters
    ----------
    n_alphas, n_targets : int
        1 or more.
    dtype : {"float32", "float64"}
    """
    n_tiles = -(-n_alphas // ALPHAS)
    table, sums = MODES * _TABLE, 2 * SPLITS * SPLITS * TARGETS
    return Launch(
        "encoding/path_sums.cu",
        f"path_sums_{_SUFFIX[dtype]}",
        (n_tiles * -(-n_targets // TARGETS), 1, 1),
        (TARGETS, SPLITS, 1),
        8 * max(table, sums),
    )


def path_sums(
    z: Array, w: Array, w2: Array, b: Array, d_fit: Array, d_cross: Array, d_near: Array
) -> tuple[Array, Array]:
    """Sums behind the held-out scores of every penalty, in one pass over the modes.

    Parameters
    ----------
    z, w, w2, b : arrays of shape (rank, n_targets)
        float32 or float64, all the same.
    d_fit, d_cross, d_near : arrays of shape (n_alphas, rank)
        Of NumPy or of the library of ``z``; taken in the precision of ``z``.

    Returns
    -------
    l : array of shape (n_alphas, n_targets), float64
        sum_j d_fit[a,j] b[j,t] z[j,t].
    q : array of shape (n_alphas, n_targets), float64
        sum_j d_cross[a,j] z[j,t] w[j,t] + d_near[a,j] z[j,t] w2[j,t].

    Raises
    ------
    TypeError
        If the arrays do not lie on one GPU, or not in one precision.
    ValueError
        If their shapes do not fit.
    """
    matrices = (z, w, w2, b)
    require_gpu(*matrices)
    dtype = _precision(*matrices)
    rank, n_targets = z.shape
    for matrix in matrices:
        _expect(matrix, (rank, n_targets), "z, w, w2 and b")
    n_alphas = d_fit.shape[0]
    for table in (d_fit, d_cross, d_near):
        _expect(table, (n_alphas, rank), "d_fit, d_cross and d_near")
    fit = empty((n_alphas, n_targets), "float64", z)
    power = empty((n_alphas, n_targets), "float64", z)
    if n_alphas and n_targets:
        arguments: list[object] = []
        for matrix in (row_major(one) for one in matrices):
            arguments += [matrix, leading_dimension(matrix)]
        arguments += [beside(table, z, dtype) for table in (d_fit, d_cross, d_near)]
        arguments += [fit, power, *_sizes(rank, n_targets, n_alphas)]
        launch(path_sums_launch(n_alphas, n_targets, dtype), arguments, z)
    return fit, power


def shrink_gather_launch(rank: int, n_targets: int, dtype: str) -> Launch:
    """Launch of shrink_gather.cu; sizes are 1 or more."""
    return Launch(
        "encoding/shrink_gather.cu",
        f"shrink_gather_{_SUFFIX[dtype]}",
        (-(-n_targets // THREADS), min(-(-rank // MODES_A_THREAD), _MAX_GRID_Y), 1),
        (THREADS, 1, 1),
    )


def shrink_gather(z: Array, table: Array, choice: Array) -> None:
    """Shrink each target by its own penalty, in place.

    Parameters
    ----------
    z : array of shape (rank, n_targets)
        float32 or float64, columns next to each other in memory; z[j,t] becomes
        z[j,t] * table[choice[t], j].
    table : array of shape (n_alphas, rank)
        Of NumPy or of the library of ``z``; taken in the precision of ``z``.
    choice : integer array of shape (n_targets,)
        Positions in ``table``. One that is outside makes its target nan.

    Raises
    ------
    TypeError
        If ``z`` does not lie on a GPU.
    ValueError
        If shapes do not fit, or ``z`` is transposed.
    """
    require_gpu(z)
    dtype = _precision(z)
    rank, n_targets = z.shape
    _expect(table, (table.shape[0], rank), "table")
    _expect(choice, (n_targets,), "choice")
    stride = leading_dimension(z)
    if not (rank and n_targets):
        return
    arguments = [z, stride, beside(table, z, dtype), beside(choice, z, "int32")]
    arguments += _sizes(rank, n_targets, table.shape[0])
    launch(shrink_gather_launch(rank, n_targets, dtype), arguments, z)


def select_launch(n_targets: int) -> Launch:
    """Launch of alpha_select.cu; ``n_targets`` is 1 or more."""
    grid = (-(-n_targets // THREADS), 1, 1)
    return Launch("encoding/alpha_select.cu", "alpha_select", grid, (THREADS, 1, 1))


def select(
    total: Array, slope: Array, tie_scale: Array | float, order: Array
) -> tuple[Array, Array]:
    """Position of the best penalty of each target, and its score.

    The choices are those of `neuromm.kernels.select_alphas`, to the last bit.

    Parameters
    ----------
    total : array of shape (n_alphas, n_targets)
        Scores, higher is better. nan never wins.
    slope : array of shape (n_alphas,)
        Added to the scores of a penalty in units of ``tie_scale``, by which ties go to
        the larger penalty.
    tie_scale : float or array of shape (n_targets,)
    order : integer array of shape (n_alphas,)
        Positions of the penalties, the largest first: the first of equals wins, and a
        target with nan alone gets ``order[0]``.

    Returns
    -------
    choice : array of shape (n_targets,), int32
    score : array of shape (n_targets,), float64
        ``total`` at ``choice``.

    Raises
    ------
    TypeError
        If ``total`` does not lie on a GPU.
    ValueError
        If shapes do not fit.
    """
    require_gpu(total)
    n_alphas, n_targets = total.shape
    if n_alphas < 1:
        raise ValueError("total must hold a penalty or more, got none")
    _expect(slope, (n_alphas,), "slope")
    _expect(order, (n_alphas,), "order")
    xp = namespace(total)
    scores = row_major(xp.astype(total, xp.float64, copy=False))
    if not hasattr(tie_scale, "shape") or tie_scale.shape == ():
        tie_scale = np.full(n_targets, float(tie_scale))
    _expect(tie_scale, (n_targets,), "tie_scale")
    choice = empty((n_targets,), "int32", total)
    score = empty((n_targets,), "float64", total)
    if n_targets:
        arguments = [scores, leading_dimension(scores)]
        arguments += [beside(one, total, "float64") for one in (slope, tie_scale)]
        arguments += [beside(order, total, "int32"), choice, score]
        arguments += _sizes(n_targets, n_alphas)
        launch(select_launch(n_targets), arguments, total)
    return choice, score


def _precision(*arrays: Array) -> str:
    names = {dtype_name(array) for array in arrays}
    if len(names) > 1 or not names <= _SUFFIX.keys():
        raise TypeError(
            "arrays must all be float32 or all be float64, got "
            f"{', '.join(sorted(names))}"
        )
    return names.pop()


def _expect(array: Array, shape: tuple[int, ...], what: str) -> None:
    if tuple(array.shape) != shape:
        raise ValueError(f"{what} must have shape {shape}, got {tuple(array.shape)}")


def _sizes(*sizes: int) -> list[NDArray[np.uint64] | np.uint64]:
    return [np.uint64(size) for size in sizes]
