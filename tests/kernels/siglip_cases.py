"""Inputs of the kernel of SigLIP, and its definition in extended precision.

Shared by the tests that run it on the CPU and by those that run it on a GPU.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from neuromm.kernels import gpu_siglip
from neuromm.kernels.arrays import host_array
from tests.kernels.cuda_cases import padded

# Rows and columns of a tile: 1, around a warp and around the 64 rows and 32 columns of
# a block, primes.
SIZES = [
    (1, 1),
    (1, 33),
    (31, 32),
    (32, 31),
    (33, 1),
    (63, 65),
    (64, 64),
    (65, 2),
    (97, 131),
]

# Scale and bias: as SigLIP starts, a temperature of .01, logits beyond any exponential.
SETTINGS = [(10.0, -10.0), (100.0, -2.5), (1.0, 0.0), (3e4, 50.0)]


def tile(n_rows: int, n_columns: int, dtype: str, n_more: int = 0) -> np.ndarray:
    """Cosines with repeats and both ends, as the left part of a wider matrix."""
    rng = np.random.default_rng([n_rows, n_columns])
    cosines = rng.uniform(-1, 1, (n_rows, n_columns))
    cosines[n_rows // 2 :: 7] = cosines[0]
    cosines[::5, ::3] = 1
    cosines[::4, ::4] = -1
    return padded(cosines.astype(dtype), n_more)


def softplus(
    products: np.ndarray, scale: float, bias: float
) -> tuple[np.ndarray, np.ndarray]:
    """Sums of softplus and sigmoid, and the sigmoid, in the precision of products."""
    kind = products.dtype.type
    logits = kind(scale) * products + kind(bias)
    terms = np.logaddexp(kind(0), logits)
    slopes = np.exp(-np.logaddexp(kind(0), -logits))
    return np.array([terms.sum(), slopes.sum()], dtype=kind), slopes


def computed(
    products: np.ndarray,
    scale: float,
    bias: float,
    move: Callable[[Any], Any] = lambda x: x,
) -> tuple[np.ndarray, np.ndarray]:
    """As `softplus`, by the kernel, in place; ``move`` copies arrays to a GPU."""
    numbers = [np.full(1, value, dtype=products.dtype) for value in (scale, bias)]
    tile, *numbers, totals = (move(x) for x in (products, *numbers, np.zeros(2)))
    gpu_siglip.add_softplus(tile, *numbers, totals)
    return host_array(totals), host_array(tile)


def check(
    found: tuple[np.ndarray, np.ndarray],
    products: np.ndarray,
    scale: float,
    bias: float,
) -> None:
    """Hold sums and slopes to the definition: no worse than twice plain arithmetic."""
    exact = softplus(products.astype(np.longdouble), scale, bias)
    plain = softplus(products, scale, bias)
    # One rounding of a logit, where the plain version has luck: softplus changes by as
    # much, its slope by a quarter of it.
    eps = np.finfo(products.dtype).eps
    rounding = eps * (abs(scale) + abs(bias))
    floors = [rounding * products.size + 4 * eps * exact[0], rounding + 4 * eps]
    for mine, wanted, rounded, floor in zip(found, exact, plain, floors, strict=True):
        assert np.isfinite(mine).all()
        error = abs(mine - wanted)
        assert (error <= np.maximum(2 * abs(rounded - wanted).max(), floor)).all()


def is_right() -> bool:
    products = tile(65, 33, "float64")
    exact = softplus(products, 10.0, -5.0)
    found = computed(products, 10.0, -5.0)
    return all(
        np.allclose(one, other, rtol=1e-10)
        for one, other in zip(found, exact, strict=True)
    )
