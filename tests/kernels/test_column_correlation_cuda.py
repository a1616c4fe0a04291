"""The CUDA source of `column_correlation`, compiled for the CPU and executed."""

import ctypes
import shutil
import subprocess

import numpy as np
import pytest

from neuromm._resources import shared_folder
from neuromm.kernels import column_correlation

COMPILER = shutil.which("g++") or shutil.which("clang++")
LAUNCHER = {"f4": "launch_f32", "f8": "launch_f64"}
THREADS = 32


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    if COMPILER is None:
        pytest.skip("no C++ compiler (g++ or clang++) to build the kernel for the CPU")
    built = tmp_path_factory.mktemp("cuda") / "column_correlation.so"
    source = shared_folder("cuda") / "host" / "column_correlation.cpp"
    flags = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared"]
    subprocess.run(
        [COMPILER, *flags, "-ffp-contract=off", "-o", str(built), str(source)],
        check=True,
    )
    return ctypes.CDLL(str(built))


def run(library, x, y, *, n_blocks=None, reverse=False):
    n_samples, n_targets = x.shape
    r = np.full(n_targets, 7.0, dtype=x.dtype)
    pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in (x, y, r)]
    getattr(library, LAUNCHER[x.dtype.str[1:]])(
        ctypes.c_uint(n_blocks or -(-n_targets // THREADS)),
        ctypes.c_uint(THREADS),
        ctypes.c_int(reverse),
        *pointers,
        ctypes.c_size_t(n_samples),
        ctypes.c_size_t(n_targets),
    )
    return r


def pair(n_samples, n_targets, dtype):
    rng = np.random.default_rng(n_samples * 1000 + n_targets)
    x = rng.standard_normal((n_samples, n_targets)) + 100  # a mean, as of raw BOLD
    y = 0.3 * x + rng.standard_normal((n_samples, n_targets))
    return x.astype(dtype), y.astype(dtype)


@pytest.mark.parametrize("n_targets", [1, 31, 32, 33, 127])
@pytest.mark.parametrize("n_samples", [2, 31, 32, 33, 509])
def test_cuda_correlation_errs_no_more_than_twice_plain_float32(
    library, n_samples, n_targets
):
    x, y = pair(n_samples, n_targets, "f4")
    exact = column_correlation(x.astype("f8"), y.astype("f8"))
    plain = column_correlation(x, y)
    # One rounding of the result to float32 is left to a kernel that is exact before,
    # should the plain version happen to err by less.
    allowed = max(2 * abs(plain - exact).max(), np.finfo("f4").eps / 2)
    for reverse in (False, True):
        fast = run(library, x, y, reverse=reverse)
        assert abs(fast - exact).max() <= allowed


@pytest.mark.parametrize("n_targets", [1, 31, 32, 33, 127])
def test_cuda_correlation_in_float64_equals_the_definition(library, n_targets):
    x, y = pair(509, n_targets, "f8")
    fast = run(library, x, y)
    # 509 products in another order of summation.
    np.testing.assert_allclose(fast, column_correlation(x, y), rtol=0, atol=1e-13)


def test_cuda_correlation_does_not_depend_on_the_grid(library):
    x, y = pair(33, 127, "f4")
    np.testing.assert_array_equal(run(library, x, y, n_blocks=1), run(library, x, y))


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_cuda_correlation_of_a_constant_is_nan(library, dtype):
    x, y = pair(31, 33, dtype)
    x[:, 3] = 0.1
    y[:, 5] = 1e6 / 3
    expected = np.isin(np.arange(33), [3, 5])
    np.testing.assert_array_equal(np.isnan(run(library, x, y)), expected)
    np.testing.assert_array_equal(np.isnan(column_correlation(x, y)), expected)


def test_cuda_correlation_of_one_sample_is_nan(library):
    x, y = pair(1, 33, "f4")
    assert np.isnan(run(library, x, y)).all()
