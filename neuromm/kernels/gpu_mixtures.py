"""CUDA kernels of mixtures: `cuda/encoding/alpha_combine.cu` and `kernel_mix.cu`.

Arrays are torch tensors on a CUDA device or CuPy arrays; results are of the same
library, on its current stream. The plain versions are in
`neuromm.kernels.penalty_curves` and `neuromm.kernels.mixed_kernel`.
"""

from typing import Any

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

__all__ = ["alpha_combine_launch", "kernel_mix_launch", "mixed_kernel", "mixed_squares"]

_SUFFIX = {"float32": "f32", "float64": "f64"}

# Of alpha_combine.cu: penalties of a block, columns of the mixtures in shared memory,
# rows that a thread mixes at a time, block.
ALPHAS, BASIS, ROWS, TARGETS, THREAD_ROWS = 16, 32, 2, 64, 4

# Of kernel_mix.cu: values of a thread, block. Beyond this grid blocks go on.
VALUES, THREADS = 4, 256
_MAX_GRID = 2**16


def alpha_combine_launch(
    n_alphas: int, n_folds: int, n_rows: int, n_targets: int, dtype: str
) -> tuple[Launch, int]:
    """Launch of alpha_combine.cu.

    Parameters
    ----------
    n_alphas, n_folds, n_targets : int
        1 or more.
    n_rows : int
    dtype : {"float32", "float64"}

    Returns
    -------
    launch : Launch
    n_splits : int
        Parts of a fold, each with a row of threads.
    """
    n_splits = THREAD_ROWS if n_rows > ROWS else 1
    n_tiles, n_strips = -(-n_alphas // ALPHAS), -(-n_targets // TARGETS)
    n_groups = -(-n_folds * n_splits // THREAD_ROWS)
    geometry = Launch(
        "encoding/alpha_combine.cu",
        f"alpha_combine_{_SUFFIX[dtype]}",
        (n_tiles * n_strips * n_groups, 1, 1),
        (TARGETS, THREAD_ROWS, 1),
    )
    return geometry, n_splits


def mixed_squares(errors: Array, mix: Array) -> Array:
    """Sums of squares of mixtures, as `penalty_curves.mixed_squares`.

    Parameters
    ----------
    errors : array of shape (n_basis, n_folds, n_rows, n_targets)
        float32 or float64.
    mix : array of shape (n_alphas, n_basis)
        Of NumPy or of the library of ``errors``; taken in the precision of ``errors``.

    Returns
    -------
    squares : array of shape (n_alphas, n_folds, n_targets), float64

    Raises
    ------
    TypeError
        If ``errors`` do not lie on a GPU or are not floats.
    ValueError
        If shapes do not fit.
    """
    require_gpu(errors)
    dtype = dtype_name(errors)
    if dtype not in _SUFFIX:
        raise TypeError(f"errors must be float32 or float64, got {dtype}")
    if errors.ndim != 4 or mix.ndim != 2 or mix.shape[1] != errors.shape[0]:
        raise ValueError(
            "errors must have shape (n_basis, n_folds, n_rows, n_targets) and mix "
            f"(n_alphas, n_basis), got {tuple(errors.shape)} and {tuple(mix.shape)}"
        )
    n_basis, n_folds, n_rows, n_targets = errors.shape
    n_alphas = mix.shape[0]
    squares = empty((n_alphas, n_folds, n_targets), "float64", errors)
    if n_alphas and n_folds and n_targets:
        shape = (n_basis * n_folds * n_rows, n_targets)
        flat = row_major(namespace(errors).reshape(errors, shape))
        geometry, n_splits = alpha_combine_launch(
            n_alphas, n_folds, n_rows, n_targets, dtype
        )
        arguments: list[Any] = [flat, leading_dimension(flat)]
        arguments += [beside(mix, errors, dtype), squares]
        sizes = (n_basis, n_folds, n_rows, n_targets, n_alphas, n_splits)
        arguments += [np.uint64(size) for size in sizes]
        launch(geometry, arguments, errors)
    return squares


def kernel_mix_launch(n_values: int) -> Launch:
    """Launch of kernel_mix.cu; ``n_values`` is 1 or more."""
    grid = (min(-(-n_values // (VALUES * THREADS)), _MAX_GRID), 1, 1)
    return Launch("encoding/kernel_mix.cu", "kernel_mix", grid, (THREADS, 1, 1))


def mixed_kernel(kernels: Array, gamma: NDArray[np.float64]) -> Array:
    """Weighted sum of the kernels of spaces, as `mixed_kernel.mixed_kernel`.

    Parameters
    ----------
    kernels : array of shape (n_spaces, n_samples, n_samples), float64
    gamma : array of shape (n_spaces,), on the host
        Kernels with a weight of 0 are not read. One at least is above 0.

    Returns
    -------
    kernel : array of shape (n_samples, n_samples), float64

    Raises
    ------
    TypeError
        If ``kernels`` do not lie on a GPU or are not float64.
    ValueError
        If shapes do not fit or no weight is above 0.
    """
    require_gpu(kernels)
    if dtype_name(kernels) != "float64":
        raise TypeError(f"kernels must be float64, got {dtype_name(kernels)}")
    if kernels.ndim != 3 or gamma.shape != (kernels.shape[0],):
        raise ValueError(
            "kernels must have shape (n_spaces, n_samples, n_samples) and gamma "
            f"(n_spaces,), got {tuple(kernels.shape)} and {gamma.shape}"
        )
    used = np.flatnonzero(gamma > 0)
    if not len(used):
        raise ValueError(f"one space at least must have a weight above 0, got {gamma}")
    n_values = kernels.shape[1] * kernels.shape[2]
    mixed = empty(tuple(kernels.shape[1:]), "float64", kernels)
    if n_values:
        arguments: list[Any] = [beside(kernels, kernels, "float64")]
        arguments += [beside(used, kernels, "int32")]
        arguments += [beside(gamma[used], kernels, "float64"), mixed]
        arguments += [np.uint64(len(used)), np.uint64(n_values)]
        launch(kernel_mix_launch(n_values), arguments, kernels)
    return mixed
