"""The kernel of SigLIP, compiled for the CPU and launched as on a GPU."""

import math
import re

import numpy as np
import pytest
import torch

from neuromm._resources import shared_folder
from neuromm.kernels import arrays, gpu_loader, gpu_siglip
from neuromm.kernels.pair_softplus import pair_softplus_sum, plain_softplus_sum
from tests.kernels import siglip_cases as cases
from tests.kernels.cuda_cases import PADDING

DTYPES = ["float32", "float64"]


def number(value, dtype):
    return np.full(1, value, dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("setting", cases.SETTINGS)
@pytest.mark.parametrize("sizes", cases.SIZES)
def test_a_tile_errs_no_more_than_twice_plain_arithmetic(shim, sizes, setting, dtype):
    products = cases.tile(*sizes, dtype)
    found = cases.computed(products.copy(), *setting)
    cases.check(found, products, *setting)


@pytest.mark.parametrize("n_more", PADDING)
def test_only_the_tile_changes_and_only_if_slopes_are_wanted(shim, n_more):
    products = cases.tile(65, 33, "float32", n_more)
    before = products.copy()
    scale, bias, totals = number(10, "f4"), number(-10, "f4"), np.zeros(2)
    gpu_siglip.add_softplus(products, scale, bias, totals, slopes=False)
    np.testing.assert_array_equal(products, before)
    again = np.zeros(2)
    gpu_siglip.add_softplus(products, scale, bias, again)
    np.testing.assert_array_equal(again, totals)
    assert (products > 0).all()
    if n_more:
        assert np.isnan(products.base[:, 33:]).all()


def test_a_logit_of_zero_has_softplus_log_2_and_slope_one_half(shim):
    products = np.zeros((70, 40))
    totals, slopes = cases.computed(products, 7.0, 0.0)
    np.testing.assert_array_equal(slopes, 0.5)
    np.testing.assert_allclose(totals, [2800 * math.log(2), 1400], rtol=1e-14)


def test_tiles_add_up_and_the_order_of_threads_does_not_matter(shim):
    products = cases.tile(129, 70, "float32")
    whole, _ = cases.computed(products.copy(), 10.0, -10.0)
    totals = np.zeros(2)
    for rows in (slice(0, 64), slice(64, 129)):
        part = products[rows].copy()
        gpu_siglip.add_softplus(part, number(10, "f4"), number(-10, "f4"), totals)
    np.testing.assert_allclose(totals, whole, rtol=1e-12)
    shim.schedule, shim.seed = "random", 11
    np.testing.assert_array_equal(cases.computed(products, 10.0, -10.0)[0], whole)


def test_nan_spreads_to_the_sums_and_stays_in_its_place_of_the_slopes(shim):
    products = cases.tile(70, 40, "float32")
    products[66, 33] = np.nan
    totals, slopes = cases.computed(products, 10.0, -10.0)
    assert np.isnan(totals).all()
    assert np.argwhere(np.isnan(slopes)).tolist() == [[66, 33]]


@pytest.fixture
def on_gpu(shim, monkeypatch):
    """Tensors of the CPU pass for such of a GPU; tiles are small."""
    monkeypatch.setattr(arrays, "is_on_gpu", lambda x: not isinstance(x, np.ndarray))
    monkeypatch.setattr(gpu_loader, "has_cupy", lambda: True)
    monkeypatch.setattr(gpu_siglip, "TILE", (32, 64))
    return shim


@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 2e-5), ("float64", 1e-12)])
def test_loss_and_gradients_on_a_gpu_are_those_of_the_definition(on_gpu, dtype, rtol):
    generator = torch.Generator().manual_seed(0)
    left, right = (
        torch.nn.functional.normalize(
            torch.randn((n_rows, 16), generator=generator, dtype=torch.float64)
        )
        for n_rows in (37, 67)
    )
    scale, bias = torch.tensor(100.0), torch.tensor(-10.0)
    given = [x.to(getattr(torch, dtype)) for x in (left, right, scale, bias)]
    given = [x.requires_grad_(True) for x in given]
    wide = [x.detach().double().requires_grad_(True) for x in given]
    ours, plain = pair_softplus_sum(*given), plain_softplus_sum(*wide)
    torch.testing.assert_close(ours.double(), plain, rtol=rtol, atol=0)
    for mine, exact in zip(
        torch.autograd.grad(3 * ours, given),
        torch.autograd.grad(3 * plain, wide),
        strict=True,
    ):
        assert (mine - exact).norm() <= rtol * exact.norm()
    ran = [one.kernel for one in on_gpu.launches]
    assert ran == [f"siglip_f{dtype[-2:]}", "siglip_merge"] * 4


def test_inputs_that_do_not_fit_are_named(shim):
    products, one = np.zeros((4, 5), "f4"), np.zeros(1, "f4")
    with pytest.raises(TypeError, match="got float32, float64 and float32"):
        gpu_siglip.add_softplus(products, one.astype("f8"), one, np.zeros(2))
    with pytest.raises(TypeError, match="float16"):
        gpu_siglip.add_softplus(products.astype("f2"), one, one, np.zeros(2))
    with pytest.raises(ValueError, match="columns next to each other"):
        gpu_siglip.add_softplus(np.zeros((5, 4), "f4").T, one, one, np.zeros(2))
    gpu_siglip.add_softplus(products[:0], one, one, np.zeros(2))
    assert not shim.launches


def test_the_launcher_knows_the_tiles_of_the_source():
    text = (shared_folder("cuda") / "contrastive" / "siglip.cu").read_text()
    for name, value in {
        "kColumns": gpu_siglip.COLUMNS,
        "kRows": gpu_siglip.ROWS,
        "kSplits": gpu_siglip.SPLITS,
        "kSums": gpu_siglip.SUMS,
        "kMergeThreads": gpu_siglip.MERGE_THREADS,
    }.items():
        assert re.findall(rf"\b{name} = (\d+);", text) == [str(value)]
