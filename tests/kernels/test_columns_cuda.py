"""The kernel of column statistics, compiled for the CPU and launched as on a GPU."""

import re

import numpy as np
import pytest

from neuromm._resources import shared_folder
from neuromm.kernels import (
    Moments,
    arrays,
    column_correlation,
    column_r2,
    gpu_columns,
    gpu_loader,
)
from tests.kernels import column_cases as cases
from tests.kernels.cuda_cases import PADDING

DTYPES = ["float32", "float64"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("offset", cases.OFFSETS)
@pytest.mark.parametrize("n_more", PADDING)
@pytest.mark.parametrize("sizes", cases.SIZES)
def test_moments_are_those_of_two_passes_in_extended_precision(
    shim, sizes, n_more, offset, dtype
):
    y, prediction = cases.pair(*sizes, dtype, n_more, offset)
    found = gpu_columns.column_moments(y, prediction)
    cases.check_moments(found, y, prediction, offset)


def test_moments_do_not_depend_on_the_order_of_threads(shim):
    y, prediction = cases.pair(1031, 37, "float32", 3)
    found = gpu_columns.column_moments(y, prediction)
    shim.schedule, shim.seed = "random", 11
    np.testing.assert_array_equal(found, gpu_columns.column_moments(y, prediction))


def test_an_outlier_in_the_first_row_costs_no_more_than_the_bound(shim):
    y, prediction = cases.pair(700, 5, "float64", 0, 0.0)
    y[0], prediction[0] = 1e9, -1e9
    found = gpu_columns.column_moments(y, prediction)
    # The sum about the first row is at most n + 1 times that about the mean, and errs
    # by a rounding of each of 64 + 8 + 1 additions and of the products of differences.
    np.testing.assert_allclose(
        found[2:6], cases.moments(y, prediction)[2:6], rtol=701 * 76 * 2**-53
    )


@pytest.mark.parametrize("row", [0, 1, 599])
def test_nan_stays_in_its_column(shim, row):
    y, prediction = cases.pair(600, 33, "float32", 0)
    clean = gpu_columns.column_moments(y, prediction)
    y[:, 4] = 7.0
    y[row, 4] = np.nan
    found = gpu_columns.column_moments(y, prediction)
    assert np.isnan(found[[0, 2, 4, 5, 6, 8], 4]).all()
    others = np.arange(33) != 4
    np.testing.assert_array_equal(found[:, others], clean[:, others])


@pytest.fixture
def on_gpu(shim, monkeypatch):
    """Tensors of the CPU pass for such of a GPU."""
    monkeypatch.setattr(arrays, "is_on_gpu", lambda x: not isinstance(x, np.ndarray))
    monkeypatch.setattr(gpu_loader, "has_cupy", lambda: True)
    return shim


@pytest.mark.parametrize("dtype", DTYPES)
def test_scores_on_a_gpu_are_those_of_the_plain_version(on_gpu, dtype):
    torch = pytest.importorskip("torch")
    y, prediction = cases.pair(101, 33, dtype, 0, 3.0)
    y[:, 3] = prediction[:, 5] = 0.1  # constants
    y[7, 8] = prediction[9, 11] = np.nan
    both = y, prediction
    tensors = [torch.from_numpy(one) for one in both]
    atol = 1e-6 if dtype == "float32" else 1e-13
    for score in (column_correlation, column_r2):
        found = score(*tensors)
        assert found.dtype == tensors[0].dtype
        np.testing.assert_allclose(found.numpy(), score(*both), rtol=1e-5, atol=atol)
    fast, plain = Moments.of(*tensors), Moments.of(*both)
    for quantity in ("correlation", "r2"):
        np.testing.assert_allclose(
            getattr(fast, quantity)(), getattr(plain, quantity)(), rtol=1e-5, atol=atol
        )
    assert {one.kernel for one in on_gpu.launches} == {
        f"col_stats_f{dtype[-2:]}",
        "col_stats_merge",
    }


def test_inputs_that_do_not_fit_are_named(shim):
    y, prediction = cases.pair(4, 5, "float64", 0)
    with pytest.raises(ValueError, match=r"got \(4, 5\) and \(3, 5\)"):
        gpu_columns.column_moments(y, prediction[:3])
    with pytest.raises(TypeError, match="got float64 and float32"):
        gpu_columns.column_moments(y, prediction.astype("f4"))
    with pytest.raises(ValueError, match="at least one sample"):
        gpu_columns.column_moments(y[:0], prediction[:0])


def test_the_launcher_knows_the_tiles_of_the_source():
    text = (shared_folder("cuda") / "encoding" / "col_stats.cu").read_text()
    for name, value in {
        "kTargets": gpu_columns.TARGETS,
        "kSplits": gpu_columns.SPLITS,
        "kStats": gpu_columns.STATS,
    }.items():
        assert re.findall(rf"\b{name} = (\d+);", text) == [str(value)]
