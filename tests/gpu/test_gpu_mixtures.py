"""Kernels of mixtures on a GPU: the cases that the CPU runs in tests/kernels."""

import numpy as np
import pytest

from neuromm.kernels import gpu_mixtures
from neuromm.kernels.arrays import host_array, on_device
from neuromm.kernels.gpu_loader import has_gpu
from neuromm.kernels.mixed_kernel import mixed_kernel
from neuromm.kernels.penalty_curves import mixed_squares
from tests.kernels import mixture_cases as cases

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not has_gpu(), reason="GPU: not present"),
]

DTYPES = ["float32", "float64"]


@pytest.fixture(params=["cupy", "torch"])
def to_gpu(request):
    library = pytest.importorskip(request.param)
    if request.param == "torch" and not library.cuda.is_available():
        pytest.skip("GPU: not present for torch")
    return lambda x: on_device(x, request.param, "cuda:0")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", cases.SIZES)
def test_squares_of_mixtures_err_no_more_than_twice_plain_arithmetic(
    to_gpu, sizes, dtype
):
    errors, mix = cases.mixtures(*sizes, dtype, 0)
    found = gpu_mixtures.mixed_squares(to_gpu(errors), mix)
    cases.check_mixed_squares(host_array(found), errors, mix)


@pytest.mark.parametrize("dtype", DTYPES)
def test_mixtures_that_cancel_keep_the_digits_of_plain_arithmetic(to_gpu, dtype):
    errors, mix = cases.cancelling_mixtures(dtype)
    found = mixed_squares(to_gpu(errors), to_gpu(mix))
    cases.check_mixed_squares(host_array(found), errors, mix)


@pytest.mark.parametrize("sizes", [*cases.KERNEL_SIZES, (5, 1021)])
def test_mixed_kernels_are_those_of_the_host_to_the_last_bit(to_gpu, sizes):
    kernels, gammas = cases.kernels_and_weights(*sizes)
    for gamma in gammas:
        found = mixed_kernel(to_gpu(kernels), gamma)
        np.testing.assert_array_equal(host_array(found), mixed_kernel(kernels, gamma))


@pytest.mark.filterwarnings("ignore:.*of the targets chose the")
def test_a_banded_search_on_a_gpu_chooses_as_on_the_host(to_gpu):
    encoding = pytest.importorskip("neuromm.encoding.banded_ridge")
    rng = np.random.default_rng(1)
    x = rng.standard_normal((60, 90))
    y = x @ rng.standard_normal((90, 33)) + 5 * rng.standard_normal((60, 33))
    spaces = {"one": x[:, :40], "two": x[:, 40:55], "three": x[:, 55:]}
    settings = {"alphas": np.geomspace(1e-1, 1e4, 7), "n_iter": 6, "random_state": 0}
    plain = encoding.BandedRidgeCV(**settings).fit(spaces, y)
    moved = {name: to_gpu(one) for name, one in spaces.items()}
    fast = encoding.BandedRidgeCV(**settings).fit(moved, to_gpu(y))
    np.testing.assert_allclose(
        host_array(fast.best_gammas_), plain.best_gammas_, rtol=1e-12
    )
    np.testing.assert_allclose(host_array(fast.coef_), plain.coef_, atol=1e-8)
