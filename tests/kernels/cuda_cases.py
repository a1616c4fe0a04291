"""Inputs of CUDA kernels and what they must give: definitions in float64 NumPy.

Shared by the tests that run kernels on the CPU and by those that run them on a GPU.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

# 1, around a warp, around the tiles of path_sums.cu (16 penalties, 32 modes, 64
# targets), primes. Penalties, modes, targets.
PATH_SIZES = [
    (1, 1, 1),
    (7, 31, 63),
    (15, 32, 64),
    (16, 33, 65),
    (17, 97, 31),
    (20, 67, 127),
    (33, 2, 33),
    (256, 5, 32),
]
SHRINK_SIZES = [(1, 1, 1), (3, 63, 255), (5, 64, 256), (7, 65, 257), (20, 131, 31)]
SELECT_SIZES = [(1, 1), (2, 31), (20, 32), (7, 33), (20, 255), (3, 256), (200, 257)]

# Permutations, blocks, samples of a block, targets.
PERMUTATION_SIZES = [
    (1, 2, 1, 1),
    (31, 3, 7, 2),
    (99, 31, 8, 3),
    (255, 32, 9, 1),
    (256, 33, 1, 2),
    (257, 5, 67, 3),
]

# How many columns a matrix has beyond those that are used.
PADDING = [0, 5]


def padded(x: np.ndarray, n_more: int) -> np.ndarray:
    """Return x as the left part of a wider matrix, whose rest is nan."""
    wide = np.full((x.shape[0], x.shape[1] + n_more), np.nan, dtype=x.dtype)
    wide[:, : x.shape[1]] = x
    return wide[:, : x.shape[1]]


def path_inputs(
    n_alphas: int, rank: int, n_targets: int, dtype: str, n_more: int
) -> dict[str, np.ndarray]:
    """z, w, w2, b as the left parts of wider matrices, and the tables."""
    rng = np.random.default_rng([n_alphas, rank, n_targets])
    matrices = {
        name: padded(rng.standard_normal((rank, n_targets)).astype(dtype), more)
        for name, more in {"z": n_more, "w": n_more, "w2": 2 * n_more, "b": 0}.items()
    }
    tables = {
        name: rng.standard_normal((n_alphas, rank)).astype(dtype)
        for name in ("d_fit", "d_cross", "d_near")
    }
    return matrices | tables


def path_sums(
    z: Any, w: Any, w2: Any, b: Any, d_fit: Any, d_cross: Any, d_near: Any
) -> tuple[np.ndarray, np.ndarray]:
    """l and q of path_sums.cu in the precision of the inputs, as NumPy sums."""
    return d_fit @ (b * z), d_cross @ (z * w) + d_near @ (z * w2)


def in_float64(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: value.astype(np.float64) for name, value in inputs.items()}


def shrink_inputs(
    n_alphas: int, rank: int, n_targets: int, dtype: str, n_more: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """z, table and choice."""
    rng = np.random.default_rng([n_alphas, rank, n_targets])
    z = padded(rng.standard_normal((rank, n_targets)).astype(dtype), n_more)
    table = rng.standard_normal((n_alphas, rank)).astype(dtype)
    return z, table, rng.integers(n_alphas, size=n_targets).astype(np.int32)


def select_inputs(n_alphas: int, n_targets: int) -> tuple[np.ndarray, ...]:
    """Scores with ties, near ties, nan and infinities; penalties; tie_scale."""
    rng = np.random.default_rng([n_alphas, n_targets])
    total = rng.standard_normal((n_alphas, n_targets)).round(1)
    total += 1e-12 * rng.integers(3, size=total.shape)
    total[rng.random(total.shape) < 0.1] = np.nan
    total[rng.random(total.shape) < 0.05] = -np.inf
    total[:, ::11] = np.nan
    total[:, ::13] = 0.25
    alphas = rng.permutation(np.geomspace(1e-6, 1e20, n_alphas))
    return total, alphas, rng.uniform(0.1, 10, n_targets)


def permutation_inputs(
    n_permutations: int, n_blocks: int, length: int, n_targets: int, dtype: str
) -> tuple[np.ndarray, ...]:
    """y, yhat, rows (not contiguous) and orders, the identity among them."""
    rng = np.random.default_rng([n_permutations, n_blocks, length])
    n_samples = n_blocks * length + 3
    y, yhat = rng.standard_normal((2, n_samples, n_targets)).astype(dtype)
    rows = rng.permutation(n_samples)[: n_blocks * length].reshape(n_blocks, length)
    orders = rng.permuted(np.tile(np.arange(n_blocks), (n_permutations, 1)), axis=1)
    orders[n_permutations // 2] = np.arange(n_blocks)
    return y, yhat, rows, orders


def permuted_gain(
    y: np.ndarray, yhat: np.ndarray, rows: np.ndarray, orders: np.ndarray
) -> np.ndarray:
    """Sums of products over permuted rows less those over rows as they are."""
    y, yhat = y.astype(np.float64), yhat.astype(np.float64)
    still = yhat[rows.ravel()]
    observed = np.sum(y[rows.ravel()] * still, axis=0)
    return np.stack(
        [np.sum(y[rows[order].ravel()] * still, axis=0) for order in orders]
    ) - observed  # fmt: skip


def check_path_sums(compute: Callable[..., Any], inputs: dict[str, np.ndarray]) -> None:
    """Hold a pair l, q to the definition: no worse than twice plain arithmetic."""
    rank = inputs["z"].shape[0]
    exact = path_sums(**in_float64(inputs))
    plain = path_sums(**inputs)
    size = path_sums(**{k: abs(v) for k, v in in_float64(inputs).items()})
    for fast, wanted, rounded, scale in zip(
        compute(**inputs), exact, plain, size, strict=True
    ):
        # In double, the sum of 3 rank products may be ordered in another way.
        floor = 4 * rank * np.finfo(np.float64).eps * scale.max(initial=1e-300)
        assert fast.dtype == np.float64
        assert np.all(np.isfinite(fast))
        error = abs(fast - wanted).max(initial=0)
        assert error <= max(2 * abs(rounded - wanted).max(initial=0), floor)
