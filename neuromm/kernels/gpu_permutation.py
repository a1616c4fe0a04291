"""Null of permuted blocks on a GPU: `cuda/encoding/block_perm.cu`.

Sums over the same permutations as in `neuromm.encoding.permutation_test`, whose
arrays of NumPy never come here.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromm.kernels.arrays import Array, as_like, namespace
from neuromm.kernels.gpu_launch import (
    Launch,
    beside,
    dtype_name,
    empty,
    launch,
    require_gpu,
    shared_limit,
)

__all__ = [
    "block_perm_launch",
    "count_exceeding",
    "exceed_count_launch",
    "paired_null",
]

# Of block_perm.cu: threads of a block, samples in shared memory at a time.
THREADS = 256
SAMPLES = 8
_WARP = 32

# Products of pairs of blocks are kept for each target; more blocks are better gathered.
MAX_BLOCKS = 256

# Blocks of a grid that keep their products in global memory: two for each
# multiprocessor of a large GPU, 134 MB with 256 blocks of time.
_MAX_WORKSPACES = 256
_MAX_GRID = 2**31 - 1

_SUFFIX = {"float32": "f32", "float64": "f64"}

# Rows in blocks (n_blocks, length), orders (n_permutations, n_blocks), and whether to
# multiply all pairs of blocks (else the rows of each permutation).
Group = tuple[NDArray[np.intp], NDArray[np.intp], bool]


def block_perm_launch(
    n_targets: int, n_blocks: int, dtype: str, shared_bytes: int
) -> tuple[Launch, int]:
    """Launch of block_perm.cu.

    Parameters
    ----------
    n_targets, n_blocks : int
        1 or more.
    dtype : {"float32", "float64"}
    shared_bytes : int
        That a block may have.

    Returns
    -------
    launch : Launch
    n_workspaces : int
        How many times n_blocks**2 doubles of global memory the kernel needs; 0 if the
        products of pairs of blocks fit into shared memory.
    """
    staging = 8 * (_WARP + 2 * SAMPLES * n_blocks)
    within = staging + 8 * n_blocks**2 <= shared_bytes
    n_workspaces = 0 if within else min(n_targets, _MAX_WORKSPACES)
    geometry = Launch(
        "encoding/block_perm.cu",
        f"block_perm_{_SUFFIX[dtype]}",
        (n_workspaces or min(n_targets, _MAX_GRID), 1, 1),
        (THREADS, 1, 1),
        staging + (8 * n_blocks**2 if within else 0),
    )
    return geometry, n_workspaces


def exceed_count_launch(n_targets: int) -> Launch:
    """Launch of exceed_count in block_perm.cu; ``n_targets`` is 1 or more."""
    grid = (min(n_targets, _MAX_GRID), 1, 1)
    return Launch("encoding/block_perm.cu", "exceed_count", grid, (THREADS, 1, 1))


def paired_null(
    y: Array, yhat: Array, rows: NDArray[np.intp], orders: NDArray[np.intp]
) -> Array:
    """What each permutation of blocks adds to the sum of products of a target.

    Parameters
    ----------
    y, yhat : arrays of shape (n_samples, n_targets)
        Responses, which are permuted, and predictions.
    rows : integer array of shape (n_blocks, length)
        Samples of each block; at most 256 blocks.
    orders : integer array of shape (n_permutations, n_blocks)
        Block of responses that comes to the place of each block of predictions.

    Returns
    -------
    gain : array of shape (n_permutations, n_targets), float64
        Sum of products of permuted responses and predictions over ``rows``, less that
        of unpermuted ones.

    Raises
    ------
    TypeError
        If the arrays do not lie on one GPU.
    ValueError
        If shapes do not fit, or there are more than 256 blocks.
    """
    require_gpu(y, yhat)
    xp = namespace(y)
    gain = xp.zeros((y.shape[1], len(orders)), dtype=xp.float64, device=y.device)
    _add_paired(gain, _by_target(y), _by_target(yhat), rows, orders)
    return gain.T


def count_exceeding(
    y: Array, yhat: Array, groups: Sequence[Group], spread: float
) -> Array:
    """How many permutations reach the observed covariance of each target.

    Parameters
    ----------
    y, yhat : arrays of shape (n_samples, n_targets)
        Standardised: mean 0 and norm 1, so that a tie shows as rounding of 1.
    groups : sequence of (rows, orders, paired)
        Blocks that are permuted among themselves, see `Group`.
    spread : float
        Permuted covariances are moved away from their mean by this factor.

    Returns
    -------
    count : array of shape (n_targets,), int32
    """
    require_gpu(y, yhat)
    xp = namespace(y)
    moved, still = _by_target(y), _by_target(yhat)
    n_targets, n_permutations = moved.shape[0], len(groups[0][1])
    gain = xp.zeros((n_targets, n_permutations), dtype=xp.float64, device=y.device)
    for rows, orders, paired in groups:
        if paired:
            _add_paired(gain, moved, still, rows, orders)
        else:
            _add_gathered(gain, moved, still, rows, orders)
    count = empty((n_targets,), "int32", y)
    if n_targets:
        arguments: list[Any] = [gain, count, np.uint64(n_targets)]
        arguments += [np.uint64(n_permutations), np.float64(spread)]
        arguments += [np.float64(-1e-12)]
        launch(exceed_count_launch(n_targets), arguments, y)
    return count


def _by_target(x: Array) -> Array:
    """Return a target a row: its samples next to each other."""
    return beside(x.T, x, dtype_name(x))


def _add_paired(
    gain: Array,
    moved: Array,
    still: Array,
    rows: NDArray[np.intp],
    orders: NDArray[np.intp],
) -> None:
    """Add to ``gain`` (n_targets, n_permutations); data have a target a row."""
    if moved.shape != still.shape or dtype_name(moved) != dtype_name(still):
        raise ValueError(
            "responses and predictions must have the same shape and precision, got "
            f"{tuple(moved.shape[::-1])} {dtype_name(moved)} and "
            f"{tuple(still.shape[::-1])} {dtype_name(still)}"
        )
    n_blocks, length = rows.shape
    if n_blocks > MAX_BLOCKS or orders.shape[1] != n_blocks:
        raise ValueError(
            f"expected at most {MAX_BLOCKS} blocks and orders of shape "
            f"(n_permutations, {n_blocks}), got orders of shape {orders.shape}"
        )
    n_targets, n_samples = moved.shape
    if not n_targets:
        return
    geometry, n_workspaces = block_perm_launch(
        n_targets, n_blocks, dtype_name(moved), shared_limit(moved)
    )
    workspace = None
    if n_workspaces:
        workspace = empty((n_workspaces, n_blocks**2), "float64", moved)
    # torch computes little with uint16 and stores it well: two bytes are read as one.
    pairs = np.ascontiguousarray(orders.T.astype(np.uint16)).view(np.int16)
    arguments: list[Any] = [moved, still, beside(rows, moved, "int32")]
    arguments += [beside(pairs, moved, "int16"), gain, workspace]
    sizes = (n_targets, n_samples, n_blocks, length, len(orders))
    arguments += [np.uint64(size) for size in sizes]
    launch(geometry, arguments, moved)


def _add_gathered(
    gain: Array,
    moved: Array,
    still: Array,
    rows: NDArray[np.intp],
    orders: NDArray[np.intp],
) -> None:
    """Like `_add_paired`, from the permuted rows, for many short blocks."""
    xp = namespace(moved)
    held = xp.take(still, as_like(rows.ravel(), still), axis=1)
    observed = _sum_of_products(moved, held, rows)
    for number, order in enumerate(orders):
        gain[:, number] += _sum_of_products(moved, held, rows[order]) - observed


def _sum_of_products(moved: Array, held: Array, rows: NDArray[np.intp]) -> Array:
    xp = namespace(moved)
    taken = xp.take(moved, as_like(rows.ravel(), moved), axis=1)
    return xp.sum(taken * held, axis=1, dtype=xp.float64)
