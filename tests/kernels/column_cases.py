"""Inputs of the kernel of column statistics, and its definition in extended precision.

Shared by the tests that run it on the CPU and by those that run it on a GPU.
"""

import numpy as np

from tests.kernels.cuda_cases import padded

# Samples and targets: 1, around a warp and a block of 32 targets, around 8 rows a
# round and the 512 rows of a part, primes.
SIZES = [
    (1, 1),
    (2, 31),
    (7, 32),
    (8, 33),
    (9, 63),
    (31, 64),
    (33, 65),
    (511, 1),
    (512, 2),
    (513, 3),
    (1031, 37),
]
OFFSETS = [0.0, 1e6]  # of the mean; the spread is 1


def pair(
    n_samples: int, n_targets: int, dtype: str, n_more: int, offset: float = 100.0
) -> tuple[np.ndarray, np.ndarray]:
    """Responses and correlated predictions as left parts of wider matrices."""
    rng = np.random.default_rng([n_samples, n_targets])
    y = rng.standard_normal((n_samples, n_targets))
    prediction = 0.3 * y + rng.standard_normal(y.shape)
    return tuple(
        padded((one + offset).astype(dtype), more)
        for one, more in ((y, n_more), (prediction, 2 * n_more))
    )


def moments(y: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """What `column_moments` must give, by two passes in extended precision."""
    y, prediction = y.astype(np.longdouble), prediction.astype(np.longdouble)
    a, b = y - y.mean(axis=0), prediction - prediction.mean(axis=0)
    found = [y.mean(axis=0), prediction.mean(axis=0)]
    found += [(a * a).sum(axis=0), (b * b).sum(axis=0), (a * b).sum(axis=0)]
    found += [((y - prediction) ** 2).sum(axis=0)]
    found += [one.min(axis=0) for one in (y, prediction)]
    found += [one.max(axis=0) for one in (y, prediction)]
    return np.stack(found).astype(np.float64)


def check_moments(
    found: np.ndarray, y: np.ndarray, prediction: np.ndarray, offset: float
) -> None:
    """Hold moments against their definition.

    Sums of a thousand products in double, about a sample: 1e-12 of the norms, whatever
    the offset is.
    """
    exact = moments(y, prediction)
    n_samples = len(y)
    scale = np.sqrt(exact[2] * exact[3]) + 1e-300
    for row in (2, 3, 5):
        np.testing.assert_allclose(found[row], exact[row], rtol=1e-12)
    assert (abs(found[4] - exact[4]) <= 1e-12 * scale).all() or n_samples == 1
    # One rounding of a mean, and that of its sum.
    np.testing.assert_allclose(found[:2], exact[:2], rtol=0, atol=1e-15 * (9 + offset))
    np.testing.assert_array_equal(found[6:], exact[6:])
