"""The CUDA source of `column_correlation`, compiled for the CPU and executed."""

import numpy as np
import pytest

from neuromm.kernels import column_correlation
from neuromm.kernels.gpu_launch import Launch

KERNEL = {"f4": "column_correlation_f32", "f8": "column_correlation_f64"}
THREADS = 32


def run(shim, x, y, *, n_blocks=None):
    n_samples, n_targets = x.shape
    r = shim.empty((n_targets,), x.dtype.name, x)
    geometry = Launch(
        "encoding/column_correlation.cu",
        KERNEL[x.dtype.str[1:]],
        (n_blocks or -(-n_targets // THREADS), 1, 1),
        (THREADS, 1, 1),
    )
    shim.launch(geometry, [x, y, r, np.uint64(n_samples), np.uint64(n_targets)], x)
    return r


def pair(n_samples, n_targets, dtype):
    rng = np.random.default_rng(n_samples * 1000 + n_targets)
    x = rng.standard_normal((n_samples, n_targets)) + 100  # a mean, as of raw BOLD
    y = 0.3 * x + rng.standard_normal((n_samples, n_targets))
    return x.astype(dtype), y.astype(dtype)


@pytest.mark.parametrize("n_targets", [1, 31, 32, 33, 127])
@pytest.mark.parametrize("n_samples", [2, 31, 32, 33, 509])
def test_cuda_correlation_errs_no_more_than_twice_plain_float32(
    shim, n_samples, n_targets
):
    x, y = pair(n_samples, n_targets, "f4")
    exact = column_correlation(x.astype("f8"), y.astype("f8"))
    plain = column_correlation(x, y)
    # One rounding of the result to float32 is left to a kernel that is exact before,
    # should the plain version happen to err by less.
    allowed = max(2 * abs(plain - exact).max(), np.finfo("f4").eps / 2)
    assert abs(run(shim, x, y) - exact).max() <= allowed


@pytest.mark.parametrize("n_targets", [1, 31, 32, 33, 127])
def test_cuda_correlation_in_float64_equals_the_definition(shim, n_targets):
    x, y = pair(509, n_targets, "f8")
    fast = run(shim, x, y)
    # 509 products in another order of summation.
    np.testing.assert_allclose(fast, column_correlation(x, y), rtol=0, atol=1e-13)


def test_cuda_correlation_does_not_depend_on_the_grid(shim):
    x, y = pair(33, 127, "f4")
    np.testing.assert_array_equal(run(shim, x, y, n_blocks=1), run(shim, x, y))


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_cuda_correlation_of_a_constant_is_nan(shim, dtype):
    x, y = pair(31, 33, dtype)
    x[:, 3] = 0.1
    y[:, 5] = 1e6 / 3
    expected = np.isin(np.arange(33), [3, 5])
    np.testing.assert_array_equal(np.isnan(run(shim, x, y)), expected)
    np.testing.assert_array_equal(np.isnan(column_correlation(x, y)), expected)


def test_cuda_correlation_of_one_sample_is_nan(shim):
    x, y = pair(1, 33, "f4")
    assert np.isnan(run(shim, x, y)).all()
