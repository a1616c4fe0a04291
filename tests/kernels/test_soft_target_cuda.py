"""The kernels of soft targets, compiled for the CPU and launched as on a GPU."""

import re

import numpy as np
import pytest
import torch

from neuromm._resources import shared_folder
from neuromm.kernels import arrays, gpu_loader
from neuromm.kernels import gpu_soft_pairs as gpu
from neuromm.kernels.soft_pairs import plain_soft_losses, soft_losses
from tests.kernels import soft_target_cases as cases
from tests.kernels.cuda_cases import PADDING

DTYPES = ["float32", "float64"]
FACTOR = 0.25


def copied(given):
    return cases.Panel(*(one.copy() for one in given))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("sizes", "scales"),
    [(sizes, cases.PUBLISHED) for sizes in cases.SIZES]
    + [((29, 41), scales) for scales in cases.SCALES],
)
def test_a_panel_errs_no_more_than_twice_plain_arithmetic(shim, sizes, scales, dtype):
    given = cases.panel(*sizes, dtype, scales)
    cases.check(cases.computed(copied(given), FACTOR), given, FACTOR)


def test_a_long_row_errs_no_more_than_twice_plain_arithmetic(shim):
    given = cases.panel(*cases.LONG, "float32", cases.PUBLISHED)
    cases.check(cases.computed(copied(given), FACTOR), given, FACTOR)


def test_panels_merge_to_the_whole(shim):
    given = cases.panel(37, 41, "float64", (100.0, 14.0))
    whole = cases.computed(copied(given), FACTOR)
    parts = cases.computed(given, FACTOR, n_panels=3)
    for name, one, other in zip(cases.Result._fields, whole, parts, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12, err_msg=name)


def test_results_do_not_depend_on_the_order_of_threads(shim):
    given = cases.panel(35, 130, "float32", (14.0, 14.0))
    one = cases.computed(copied(given), FACTOR)
    shim.schedule, shim.seed = "random", 11
    other = cases.computed(given, FACTOR)
    for first, second in zip(one, other, strict=True):
        np.testing.assert_array_equal(first, second)


def test_equal_rows_have_even_targets_and_no_gradient_but_rounding(shim):
    given = [
        np.ones((40, 40)),
        np.full((40, 40), 2.0),
        np.full(1, 9.0),
        np.full(1, 5.0),
    ]
    found = cases.computed(cases.Panel(*given), FACTOR)
    np.testing.assert_allclose(found.log_sums, 9 + np.log(40), rtol=1e-14)
    np.testing.assert_allclose(found.crosses, 9, rtol=1e-14)
    np.testing.assert_allclose(found.weights, 1, rtol=1e-14)
    np.testing.assert_allclose(found.of_products, 0, atol=1e-14)
    np.testing.assert_allclose(found.of_similarity, 0, atol=1e-14)


@pytest.mark.parametrize("n_more", PADDING)
def test_gaps_between_rows_stay_as_they_are(shim, n_more):
    given = cases.panel(33, 65, "float32", (14.0, 14.0), n_more)
    plain = cases.panel(33, 65, "float32", (14.0, 14.0))
    for one, other in zip(
        cases.computed(given, FACTOR), cases.computed(plain, FACTOR), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    if n_more:
        assert np.isnan(given.products.base[:, 65:]).all()
        assert np.isnan(given.similarity.base[:, 65:]).all()


@pytest.mark.parametrize("attached", [True, False])
def test_slopes_beside_the_products_leave_them_whole(shim, attached):
    given = cases.panel(33, 65, "float32", (14.0, 14.0))
    before = copied(given)
    state = gpu.start_columns(65, given.products)
    rows = gpu.add_panel(*given, state)
    rest = [rows, gpu.columns_of(state, "float32"), np.full(1, FACTOR, "f4")]
    beside = gpu.panel_slopes(*given, *rest, attached=attached, in_place=False)
    for one, other in zip(given, before, strict=True):
        np.testing.assert_array_equal(one, other)
    inside = gpu.panel_slopes(*given, *rest, attached=attached)
    for one, other in zip(beside, inside, strict=True):
        np.testing.assert_array_equal(one, other)
    unchanged = np.array_equal(given.similarity, before.similarity)
    assert unchanged is not attached
    assert (inside[2][1] == 0).all() is np.bool_(not attached)


def test_nan_spreads_to_its_row_and_its_column(shim):
    given = cases.panel(20, 40, "float32", (14.0, 14.0))
    given.products[16, 33] = np.nan
    found = cases.computed(given, FACTOR)
    assert np.argwhere(np.isnan(found.log_sums)).ravel().tolist() == [16]
    assert np.argwhere(np.isnan(found.crosses)).ravel().tolist() == [16]
    assert np.argwhere(np.isnan(found.column_log_sums)).ravel().tolist() == [33]
    assert np.isnan(found.of_products[16]).all()
    assert np.isnan(found.of_products[:, 33]).all()
    assert np.isnan(found.of_products).sum() == 20 + 40 - 1


@pytest.fixture
def on_gpu(shim, monkeypatch):
    """Tensors of the CPU pass for such of a GPU."""
    monkeypatch.setattr(arrays, "is_on_gpu", lambda x: not isinstance(x, np.ndarray))
    monkeypatch.setattr(gpu_loader, "has_cupy", lambda: True)
    return shim


def batch(dtype, n_samples=27):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn((3, n_samples, 16), generator=generator, dtype=torch.float64)
    rows = torch.nn.functional.normalize(rows, dim=2)
    scales = [torch.tensor(x, dtype=torch.float64) for x in (30.0, 7.0)]
    return [x.to(getattr(torch, dtype)).requires_grad_(True) for x in (*rows, *scales)]


@pytest.mark.parametrize("attached", [True, False])
@pytest.mark.parametrize("n_rows", [None, 10])
@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 2e-5), ("float64", 1e-11)])
def test_losses_and_gradients_on_a_gpu_are_those_of_the_definition(
    on_gpu, dtype, rtol, n_rows, attached, monkeypatch
):
    if n_rows:
        monkeypatch.setattr(gpu, "_MIN_ROWS", n_rows)
        monkeypatch.setattr(gpu, "PANEL", 1)
    given = batch(dtype)
    wide = [x.detach().double().requires_grad_(True) for x in given]
    results = []
    for function, (gene, *levels, scale, target) in (
        (soft_losses, given),
        (plain_soft_losses, wide),
    ):
        losses = function(gene, levels, scale, target, attached)
        total = (losses * torch.tensor([2.0, -0.5]).to(losses)).sum()
        inputs = [gene, *levels, scale, *([target] if attached else [])]
        # Twice: what was kept for the backward must be whole after the first.
        torch.autograd.grad(total, inputs, retain_graph=True)
        results.append([losses, *torch.autograd.grad(total, inputs)])
    for mine, exact in zip(*results, strict=True):
        assert mine.shape == exact.shape
        assert (mine - exact).norm() <= rtol * exact.norm()
    n_panels = 3 if n_rows else 1
    names = [one.kernel.rpartition("_f")[0] or one.kernel for one in on_gpu.launches]
    assert names.count("soft_target_rows") == 2 * n_panels
    assert names.count("soft_target_slopes") == 2 * 2 * n_panels


def test_a_panel_has_as_many_rows_as_fit_and_enough_for_a_product():
    assert gpu.panel_rows(4096) == 2048
    assert gpu.panel_rows(512) >= 512
    assert gpu.panel_rows(2**20) == 128


def test_inputs_that_do_not_fit_are_named(shim):
    products, similarity, *scales = cases.panel(4, 5, "float32", (1.0, 1.0))
    state = gpu.start_columns(5, products)
    with pytest.raises(TypeError, match="got float32, float64, float32, float32"):
        gpu.add_panel(products, similarity.astype("f8"), *scales, state)
    with pytest.raises(ValueError, match=r"got \(4, 5\) and \(3, 5\)"):
        gpu.add_panel(products, similarity[:3], *scales, state)
    wide = np.zeros((4, 7), "f4")[:, :5]
    with pytest.raises(ValueError, match="equally far apart in memory, got 5 and 7"):
        gpu.add_panel(products, wide, *scales, state)
    rest = [np.zeros((6, 4)), np.zeros((3, 5), "f4"), np.ones(1, "f4")]
    with pytest.raises(ValueError, match="without gaps between rows"):
        gpu.panel_slopes(wide, wide, *scales, *rest, in_place=False)


def test_the_launcher_knows_the_tiles_of_the_source():
    text = (shared_folder("cuda") / "contrastive" / "soft_target.cu").read_text()
    for name, value in {
        "kThreads": gpu.THREADS,
        "kColumns": gpu.COLUMNS,
        "kRows": gpu.ROWS,
        "kSplits": gpu.SPLITS,
        "kStats": gpu.COLUMN_STATS,
    }.items():
        assert re.findall(rf"\b{name} = (\d+);", text) == [str(value)]
