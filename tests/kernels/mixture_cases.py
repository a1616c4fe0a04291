"""Inputs of the kernels of mixtures, and what they must give.

Shared by the tests that run kernels on the CPU and by those that run them on a GPU.
"""

import numpy as np

from neuromm.kernels.penalty_curves import mixed_squares
from tests.kernels.cuda_cases import padded

# Penalties, basis, folds, rows of a fold, targets: 1, around a warp, around the tiles
# of alpha_combine.cu (16 penalties, 32 columns, 64 targets, 2 rows of 4 threads),
# primes, leave-one-out.
SIZES = [
    (1, 1, 1, 1, 1),
    (15, 3, 2, 4, 63),
    (16, 31, 1, 5, 64),
    (17, 32, 3, 15, 65),
    (33, 33, 5, 17, 31),
    (20, 12, 2, 131, 67),
    (3, 67, 4, 3, 33),
    (2, 5, 9, 1, 32),
]

# Spaces, samples: 1, a warp, around the 1024 values of a block, a prime.
KERNEL_SIZES = [(1, 1), (2, 31), (3, 32), (4, 33), (2, 37)]


def mixtures(
    n_alphas: int,
    n_basis: int,
    n_folds: int,
    n_rows: int,
    n_targets: int,
    dtype: str,
    n_more: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Errors as the left part of a wider array, and mixtures; some rows repeat."""
    rng = np.random.default_rng([n_alphas, n_basis, n_rows])
    errors = rng.standard_normal((n_basis * n_folds * n_rows, n_targets))
    errors[1::7] = errors[: len(errors[1::7])]
    errors = padded(errors.astype(dtype), n_more)
    mix = rng.standard_normal((n_alphas, n_basis)).astype(dtype)
    mix[: n_alphas // 3] = 0
    return errors.reshape(n_basis, n_folds, n_rows, n_targets), mix


def cancelling_mixtures(dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Errors that are nearly the same, and mixtures that take their differences."""
    rng = np.random.default_rng(0)
    common = 1e3 + rng.standard_normal((1, 3, 40, 70))
    errors = common + 1e-2 * rng.standard_normal((8, 3, 40, 70))
    mix = rng.standard_normal((20, 8)).round(2)
    mix[:, 0] -= mix.sum(axis=1)
    return errors.astype(dtype), mix.astype(dtype)


def check_mixed_squares(found: np.ndarray, errors: np.ndarray, mix: np.ndarray) -> None:
    """Hold sums of squares to the definition: no worse than twice plain arithmetic."""
    exact = _extended(errors, mix)
    plain = mixed_squares(errors, mix)
    size = _extended(abs(errors), abs(mix))
    # A sum of one basis vector is the same in both: what is left is rounding of sums.
    floor = (3 + errors.shape[2]) * 2.0**-53 * size.max(initial=1e-300)
    if errors.dtype == np.float32:
        floor = 2.0**-24 * (exact.max(initial=0) * size.max(initial=0)) ** 0.5
    assert found.dtype == np.float64
    assert np.all(np.isfinite(found))
    error = abs(found - exact).max(initial=0)
    assert error <= max(2 * abs(plain - exact).max(initial=0), floor)


def _extended(errors: np.ndarray, mix: np.ndarray) -> np.ndarray:
    mixed = np.einsum(
        "ar,rfit->afit", mix.astype(np.longdouble), errors.astype(np.longdouble)
    )
    return (mixed**2).sum(axis=2)


def kernels_and_weights(
    n_spaces: int, n_samples: int
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Kernels of spaces, and candidates: Dirichlet, equal, each space alone."""
    rng = np.random.default_rng([n_spaces, n_samples])
    rows = rng.standard_normal((n_spaces, n_samples, 5))
    kernels = rows @ rows.transpose(0, 2, 1)
    drawn = rng.dirichlet(np.full(n_spaces, 0.1), size=2)
    gammas = [*drawn, np.full(n_spaces, 1 / n_spaces), *np.eye(n_spaces)]
    return kernels, gammas
