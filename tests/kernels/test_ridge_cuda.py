"""Kernels of the ridge path, compiled for the CPU and launched as on a GPU."""

import re

import numpy as np
import pytest

from neuromm._resources import shared_folder
from neuromm.encoding import RidgeCV
from neuromm.kernels import arrays, gpu_loader, gpu_ridge, ridge_path, select_alphas
from tests.kernels import cuda_cases as cases

DTYPES = ["float32", "float64"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_more", cases.PADDING)
@pytest.mark.parametrize("sizes", cases.PATH_SIZES)
def test_path_sums_err_no_more_than_twice_plain_arithmetic(shim, sizes, n_more, dtype):
    inputs = cases.path_inputs(*sizes, dtype, n_more)
    cases.check_path_sums(gpu_ridge.path_sums, inputs)


def test_path_sums_do_not_depend_on_the_order_of_threads(shim):
    inputs = cases.path_inputs(20, 67, 65, "float32", 3)
    shim.schedule = "forward"
    one = gpu_ridge.path_sums(**inputs)
    shim.schedule, shim.seed = "random", 11
    for first, second in zip(one, gpu_ridge.path_sums(**inputs), strict=True):
        np.testing.assert_array_equal(first, second)


def test_path_sums_take_transposed_matrices_and_float64_tables(shim):
    inputs = cases.path_inputs(5, 33, 40, "float32", 0)
    changed = dict(inputs)
    changed["w"] = np.asfortranarray(inputs["w"])
    changed["d_fit"] = inputs["d_fit"].astype(np.float64)[:, ::-1][:, ::-1]
    for one, other in zip(
        gpu_ridge.path_sums(**inputs), gpu_ridge.path_sums(**changed), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("sizes", [(3, 0, 5), (3, 4, 0), (0, 4, 5)])
def test_path_sums_of_nothing_are_zero_or_empty(shim, sizes):
    l, q = gpu_ridge.path_sums(**cases.path_inputs(*sizes, "float64", 0))  # noqa: E741
    assert l.shape == q.shape == (sizes[0], sizes[2])
    assert not l.any()
    assert not q.any()


def test_inputs_that_do_not_fit_are_named(shim):
    inputs = cases.path_inputs(3, 4, 5, "float64", 0)
    with pytest.raises(ValueError, match=r"z, w, w2 and b must have shape \(4, 5\)"):
        gpu_ridge.path_sums(**inputs | {"b": inputs["b"][:3]})
    with pytest.raises(TypeError, match="got float32, float64"):
        gpu_ridge.path_sums(**inputs | {"b": inputs["b"].astype("f4")})


def test_arrays_on_the_host_are_refused():
    inputs = cases.path_inputs(3, 4, 5, "float64", 0)
    with pytest.raises(TypeError, match=r"CUDA device or CuPy arrays, got numpy\."):
        gpu_ridge.path_sums(**inputs)
    with pytest.raises(TypeError, match=r"CUDA device or CuPy arrays, got numpy\."):
        gpu_ridge.select(inputs["z"], np.zeros(4), 1.0, np.arange(4))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_more", cases.PADDING)
@pytest.mark.parametrize("sizes", cases.SHRINK_SIZES)
def test_each_target_is_shrunken_by_its_own_penalty(shim, sizes, n_more, dtype):
    z, table, choice = cases.shrink_inputs(*sizes, dtype, n_more)
    expected = z * table[choice].T
    gpu_ridge.shrink_gather(z, table, choice)
    np.testing.assert_array_equal(z, expected)
    if n_more:
        assert np.isnan(z.base[:, z.shape[1] :]).all()


def test_a_choice_outside_of_the_table_shows_as_nan(shim):
    z, table, choice = cases.shrink_inputs(3, 4, 5, "float32", 0)
    choice[1], choice[3] = 3, -1
    gpu_ridge.shrink_gather(z, table, choice)
    assert np.isnan(z).all(axis=0).tolist() == [False, True, False, True, False]
    assert not np.isnan(z[:, ::2]).any()


def test_a_transposed_matrix_cannot_be_shrunken_in_place(shim):
    z, table, choice = cases.shrink_inputs(3, 4, 5, "float32", 0)
    with pytest.raises(ValueError, match="row-major"):
        gpu_ridge.shrink_gather(np.asfortranarray(z), table, choice)


@pytest.mark.parametrize("n_more", cases.PADDING)
@pytest.mark.parametrize("sizes", cases.SELECT_SIZES)
def test_choices_are_those_of_the_plain_version_to_the_last_bit(shim, sizes, n_more):
    total, alphas, tie_scale = cases.select_inputs(*sizes)
    order = np.argsort(-alphas, kind="stable")
    slope = 1e-10 * np.log(alphas)
    for scale in (tie_scale, 1.0):
        choice, score = gpu_ridge.select(
            cases.padded(total, n_more), slope, scale, order
        )
        expected = select_alphas(total, alphas, tie_scale=scale)
        np.testing.assert_array_equal(choice, expected)
        np.testing.assert_array_equal(score, total[expected, np.arange(sizes[1])])


def test_launchers_take_tensors_of_torch(shim):
    torch = pytest.importorskip("torch")
    inputs = cases.path_inputs(17, 33, 65, "float32", 5)
    cases.check_path_sums(
        lambda **given: [
            part.numpy()
            for part in gpu_ridge.path_sums(
                **{name: torch.from_numpy(value) for name, value in given.items()}
            )
        ],
        inputs,
    )
    total, alphas, tie_scale = cases.select_inputs(20, 33)
    order, slope = np.argsort(-alphas, kind="stable"), 1e-10 * np.log(alphas)
    choice, _ = gpu_ridge.select(
        torch.from_numpy(total), slope, torch.from_numpy(tie_scale), order
    )
    np.testing.assert_array_equal(
        choice.numpy(), select_alphas(total, alphas, tie_scale=tie_scale)
    )
    z, table, choice = cases.shrink_inputs(5, 64, 257, "float64", 5)
    expected = z * table[choice].T
    gpu_ridge.shrink_gather(torch.from_numpy(z), table, choice)
    np.testing.assert_array_equal(z, expected)


def test_scores_of_a_fold_come_from_the_kernel_where_data_lie_on_a_gpu(
    shim, monkeypatch
):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    eigenvalues, alphas = np.geomspace(1, 1e-4, 40), np.geomspace(1e-6, 1e3, 20)
    held_out = rng.standard_normal((60, 40))
    z, b = (torch.from_numpy(rng.standard_normal((40, 70))) for _ in range(2))
    tables = ridge_path.PathTables.of(eigenvalues, alphas, z)
    differences = ridge_path.divided_differences(
        eigenvalues, torch.from_numpy(held_out.T @ held_out), z
    )
    plain = ridge_path.path_sums(tables, differences, z, b)
    monkeypatch.setattr(arrays, "is_on_gpu", lambda x: True)
    monkeypatch.setattr(gpu_loader, "has_cupy", lambda: True)
    fast = ridge_path.path_sums(tables, differences, z, b)
    assert [one.kernel for one in shim.launches] == ["path_sums_f64"]
    for one, other in zip(fast, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.filterwarnings("ignore:.*of the targets chose the")
def test_a_whole_fit_through_the_kernels_is_that_of_numpy(shim, monkeypatch, dtype):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    x = rng.standard_normal((60, 12)).astype(dtype)
    y = x @ rng.standard_normal((12, 33)) + np.geomspace(
        0.1, 9, 33
    ) * rng.standard_normal((60, 33))
    y = y.astype(dtype)
    settings = {
        "alphas": np.geomspace(1e-2, 1e4, 9),
        "solver": "primal-divided-difference",
    }
    plain = RidgeCV(**settings).fit(x, y)
    monkeypatch.setattr(arrays, "is_on_gpu", lambda x: not isinstance(x, np.ndarray))
    monkeypatch.setattr(gpu_loader, "has_cupy", lambda: True)
    fast = RidgeCV(**settings).fit(torch.from_numpy(x), torch.from_numpy(y))
    launched = {one.kernel.rpartition("_f")[0] or one.kernel for one in shim.launches}
    assert launched == {"path_sums", "alpha_select", "shrink_gather"}
    atol = 1e-4 if dtype == "f4" else 1e-9
    np.testing.assert_array_equal(fast.best_alphas_.numpy(), plain.best_alphas_)
    np.testing.assert_allclose(fast.coef_.numpy(), plain.coef_, atol=atol)
    np.testing.assert_allclose(fast.cv_scores_.numpy(), plain.cv_scores_, atol=atol)


@pytest.mark.parametrize(
    ("source", "constants"),
    [
        (
            "path_sums",
            {
                "kAlphas": gpu_ridge.ALPHAS,
                "kModes": gpu_ridge.MODES,
                "kTargets": gpu_ridge.TARGETS,
                "kSplits": gpu_ridge.SPLITS,
            },
        ),
        ("shrink_gather", {"kModesAThread": gpu_ridge.MODES_A_THREAD}),
    ],
)
def test_launchers_know_the_tiles_of_the_sources(source, constants):
    text = (shared_folder("cuda") / "encoding" / f"{source}.cu").read_text()
    for name, value in constants.items():
        assert re.findall(rf"\b{name} = (\d+);", text) == [str(value)]
