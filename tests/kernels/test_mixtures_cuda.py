"""Kernels of mixtures, compiled for the CPU and launched as on a GPU."""

import re

import numpy as np
import pytest

from neuromm._resources import shared_folder
from neuromm.encoding import BandedRidgeCV, RidgeCV
from neuromm.kernels import arrays, gpu_loader, gpu_mixtures
from neuromm.kernels.mixed_kernel import mixed_kernel
from neuromm.kernels.penalty_curves import mixed_squares
from tests.kernels import mixture_cases as cases
from tests.kernels.cuda_cases import PADDING

DTYPES = ["float32", "float64"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_more", PADDING)
@pytest.mark.parametrize("sizes", cases.SIZES)
def test_squares_of_mixtures_err_no_more_than_twice_plain_arithmetic(
    shim, sizes, n_more, dtype
):
    errors, mix = cases.mixtures(*sizes, dtype, n_more)
    cases.check_mixed_squares(gpu_mixtures.mixed_squares(errors, mix), errors, mix)


@pytest.mark.parametrize("dtype", DTYPES)
def test_mixtures_that_cancel_keep_the_digits_of_plain_arithmetic(shim, dtype):
    errors, mix = cases.cancelling_mixtures(dtype)
    cases.check_mixed_squares(gpu_mixtures.mixed_squares(errors, mix), errors, mix)


def test_squares_do_not_depend_on_the_order_of_threads(shim):
    errors, mix = cases.mixtures(20, 40, 2, 37, 65, "float32", 3)
    one = gpu_mixtures.mixed_squares(errors, mix)
    shim.schedule, shim.seed = "random", 11
    np.testing.assert_array_equal(one, gpu_mixtures.mixed_squares(errors, mix))


def test_a_penalty_that_is_one_of_the_basis_has_its_own_squares(shim):
    errors, _ = cases.mixtures(7, 5, 3, 9, 33, "float64", 0)
    found = gpu_mixtures.mixed_squares(errors, np.eye(5)[[3, 0]])
    np.testing.assert_allclose(found, (errors[[3, 0]] ** 2).sum(axis=2), rtol=1e-14)


def test_nan_stays_with_its_fold_and_target(shim):
    errors, mix = cases.mixtures(7, 5, 3, 9, 33, "float32", 0)
    mix += 1
    clean = gpu_mixtures.mixed_squares(errors, mix)
    errors[2, 1, 8, 4] = np.nan
    found = gpu_mixtures.mixed_squares(errors, mix)
    assert np.isnan(found[:, 1, 4]).all()
    found[:, 1, 4] = clean[:, 1, 4]
    np.testing.assert_array_equal(found, clean)


@pytest.mark.parametrize("sizes", [(3, 0, 2, 4, 5), (3, 4, 2, 0, 5), (3, 4, 2, 5, 0)])
def test_squares_of_nothing_are_zero_or_empty(shim, sizes):
    n_alphas, n_basis, n_folds, n_rows, n_targets = sizes
    errors = np.ones((n_basis, n_folds, n_rows, n_targets))
    found = gpu_mixtures.mixed_squares(errors, np.ones((n_alphas, n_basis)))
    np.testing.assert_array_equal(found, np.zeros((n_alphas, n_folds, n_targets)))


@pytest.mark.parametrize("sizes", cases.KERNEL_SIZES)
def test_mixed_kernels_are_those_of_the_plain_version_to_the_last_bit(shim, sizes):
    kernels, gammas = cases.kernels_and_weights(*sizes)
    for gamma in gammas:
        expected = mixed_kernel(kernels, gamma)
        found = gpu_mixtures.mixed_kernel(kernels, gamma)
        np.testing.assert_array_equal(found, expected)
    assert {one.kernel for one in shim.launches} == {"kernel_mix"}


def test_a_block_goes_on_where_the_grid_ends(shim, monkeypatch):
    monkeypatch.setattr(gpu_mixtures, "_MAX_GRID", 2)
    kernels, gammas = cases.kernels_and_weights(3, 71)
    found = gpu_mixtures.mixed_kernel(kernels, gammas[0])
    assert shim.launches[-1].grid == (2, 1, 1)
    np.testing.assert_array_equal(found, mixed_kernel(kernels, gammas[0]))


def test_a_space_without_weight_is_not_read(shim):
    kernels, _ = cases.kernels_and_weights(3, 33)
    kernels[1] = np.nan
    found = gpu_mixtures.mixed_kernel(kernels, np.array([0.25, 0.0, 0.75]))
    np.testing.assert_array_equal(found, 0.25 * kernels[0] + 0.75 * kernels[2])


def test_inputs_that_do_not_fit_are_named(shim):
    errors, mix = cases.mixtures(3, 4, 2, 5, 6, "float64", 0)
    with pytest.raises(ValueError, match=r"got \(4, 2, 5, 6\) and \(3, 3\)"):
        gpu_mixtures.mixed_squares(errors, mix[:, :3])
    with pytest.raises(TypeError, match="float32 or float64, got int64"):
        gpu_mixtures.mixed_squares(errors.astype(np.int64), mix)
    kernels, gammas = cases.kernels_and_weights(2, 5)
    with pytest.raises(ValueError, match=r"got \(2, 5, 5\) and \(3,\)"):
        gpu_mixtures.mixed_kernel(kernels, np.ones(3))
    with pytest.raises(ValueError, match="must have a weight above 0"):
        gpu_mixtures.mixed_kernel(kernels, 0 * gammas[0])
    with pytest.raises(TypeError, match="must be float64, got float32"):
        gpu_mixtures.mixed_kernel(kernels.astype("f4"), gammas[0])


def test_arrays_on_the_host_are_refused():
    errors, mix = cases.mixtures(3, 4, 2, 5, 6, "float64", 0)
    with pytest.raises(TypeError, match=r"CUDA device or CuPy arrays, got numpy\."):
        gpu_mixtures.mixed_squares(errors, mix)
    kernels, gammas = cases.kernels_and_weights(2, 5)
    with pytest.raises(TypeError, match=r"CUDA device or CuPy arrays, got numpy\."):
        gpu_mixtures.mixed_kernel(kernels, gammas[0])


@pytest.fixture
def on_gpu(shim, monkeypatch):
    """Tensors of the CPU pass for such of a GPU."""
    monkeypatch.setattr(arrays, "is_on_gpu", lambda x: not isinstance(x, np.ndarray))
    monkeypatch.setattr(gpu_loader, "has_cupy", lambda: True)
    return shim


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_plain_versions_give_way_where_arrays_lie_on_a_gpu(on_gpu, dtype):
    torch = pytest.importorskip("torch")
    errors, mix = cases.mixtures(20, 12, 2, 37, 65, dtype, 0)
    found = mixed_squares(torch.from_numpy(errors), torch.from_numpy(mix))
    cases.check_mixed_squares(found.numpy(), errors, mix)
    kernels, gammas = cases.kernels_and_weights(3, 33)
    mixed = mixed_kernel(torch.from_numpy(kernels), gammas[0])
    np.testing.assert_array_equal(mixed.numpy(), mixed_kernel(kernels, gammas[0]))
    launched = [one.kernel for one in on_gpu.launches]
    assert launched == [f"alpha_combine_f{dtype[-2:]}", "kernel_mix"]


def _problem(dtype, n_samples=60, n_features=12):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((n_samples, n_features)).astype(dtype)
    noise = np.geomspace(0.1, 9, 33) * rng.standard_normal((n_samples, 33))
    return x, (x @ rng.standard_normal((n_features, 33)) + noise).astype(dtype)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("n_folds", [5, 60])
@pytest.mark.filterwarnings("ignore:.*of the targets chose the")
def test_scores_of_held_out_blocks_through_the_kernel_are_those_of_numpy(
    on_gpu, dtype, n_folds
):
    torch = pytest.importorskip("torch")
    x, y = _problem(dtype)
    settings = {"alphas": np.geomspace(1e-1, 1e5, 60), "solver": "primal-hold-out"}
    settings |= {"cv": n_folds, "scoring": "mse"}
    plain = RidgeCV(**settings).fit(x, y)
    fast = RidgeCV(**settings).fit(torch.from_numpy(x), torch.from_numpy(y))
    assert f"alpha_combine_f{dtype[1]}".replace("f4", "f32").replace("f8", "f64") in {
        one.kernel for one in on_gpu.launches
    }
    scale = abs(plain.cv_scores_).max()
    atol = 1e-5 * scale if dtype == "f4" else 1e-10 * scale
    np.testing.assert_allclose(fast.cv_scores_.numpy(), plain.cv_scores_, atol=atol)


@pytest.mark.filterwarnings("ignore:.*of the targets chose the")
def test_a_banded_search_through_the_kernel_is_that_of_numpy(on_gpu):
    torch = pytest.importorskip("torch")
    x, y = _problem("f8", n_features=90)
    spaces = {"one": x[:, :40], "two": x[:, 40:55], "three": x[:, 55:]}
    settings = {"alphas": np.geomspace(1e-1, 1e4, 7), "n_iter": 6, "random_state": 0}
    plain = BandedRidgeCV(**settings).fit(spaces, y)
    tensors = {name: torch.from_numpy(one) for name, one in spaces.items()}
    fast = BandedRidgeCV(**settings).fit(tensors, torch.from_numpy(y))
    assert "kernel_mix" in {one.kernel for one in on_gpu.launches}
    np.testing.assert_allclose(
        np.asarray(fast.best_gammas_), plain.best_gammas_, rtol=1e-12
    )
    np.testing.assert_allclose(np.asarray(fast.coef_), plain.coef_, atol=1e-8)


def test_the_launcher_knows_the_tiles_of_the_sources():
    constants = {
        "alpha_combine": {
            "kAlphas": gpu_mixtures.ALPHAS,
            "kBasis": gpu_mixtures.BASIS,
            "kRows": gpu_mixtures.ROWS,
            "kTargets": gpu_mixtures.TARGETS,
            "kThreadRows": gpu_mixtures.THREAD_ROWS,
        },
        "kernel_mix": {
            "kValues": gpu_mixtures.VALUES,
            "kThreads": gpu_mixtures.THREADS,
        },
    }
    for source, values in constants.items():
        text = (shared_folder("cuda") / "encoding" / f"{source}.cu").read_text()
        for name, value in values.items():
            assert re.findall(rf"\b{name} = (\d+);", text) == [str(value)]
