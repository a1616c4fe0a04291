"""Kernels of the ridge path on a GPU: the cases that the CPU runs in tests/kernels."""

import numpy as np
import pytest

from neuromm.kernels import gpu_columns, gpu_permutation, gpu_ridge, select_alphas
from neuromm.kernels.arrays import host_array
from neuromm.kernels.gpu_loader import has_gpu
from tests.kernels import column_cases
from tests.kernels import cuda_cases as cases

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not has_gpu(), reason="GPU: not present"),
]

DTYPES = ["float32", "float64"]


@pytest.fixture(params=["cupy", "torch"])
def to_gpu(request):
    """Copy an array of NumPy to the GPU, the padding of its rows included."""
    library = pytest.importorskip(request.param)
    if request.param == "torch" and not library.cuda.is_available():
        pytest.skip("GPU: not present for torch")

    def copy(x):
        whole = x if x.base is None or x.base.ndim != 2 else x.base
        if request.param == "cupy":
            moved = library.asarray(whole)
        else:
            moved = library.from_numpy(np.ascontiguousarray(whole)).cuda()
        return moved[:, : x.shape[1]] if x.ndim == 2 else moved

    return copy


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_more", cases.PADDING)
@pytest.mark.parametrize("sizes", cases.PATH_SIZES)
def test_path_sums_err_no_more_than_twice_plain_arithmetic(
    to_gpu, sizes, n_more, dtype
):
    cases.check_path_sums(
        lambda **given: [
            host_array(part)
            for part in gpu_ridge.path_sums(
                **{name: to_gpu(value) for name, value in given.items()}
            )
        ],
        cases.path_inputs(*sizes, dtype, n_more),
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_more", cases.PADDING)
@pytest.mark.parametrize("sizes", cases.SHRINK_SIZES)
def test_each_target_is_shrunken_by_its_own_penalty(to_gpu, sizes, n_more, dtype):
    z, table, choice = cases.shrink_inputs(*sizes, dtype, n_more)
    moved = to_gpu(z)
    gpu_ridge.shrink_gather(moved, table, choice)
    np.testing.assert_array_equal(host_array(moved), z * table[choice].T)


@pytest.mark.parametrize("n_more", cases.PADDING)
@pytest.mark.parametrize("sizes", cases.SELECT_SIZES)
def test_choices_are_those_of_the_plain_version_to_the_last_bit(to_gpu, sizes, n_more):
    total, alphas, tie_scale = cases.select_inputs(*sizes)
    order = np.argsort(-alphas, kind="stable")
    choice, score = gpu_ridge.select(
        to_gpu(cases.padded(total, n_more)), 1e-10 * np.log(alphas), tie_scale, order
    )
    expected = select_alphas(total, alphas, tie_scale=tie_scale)
    np.testing.assert_array_equal(host_array(choice), expected)
    np.testing.assert_array_equal(
        host_array(score), total[expected, np.arange(sizes[1])]
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", [*cases.PERMUTATION_SIZES, (50, 200, 4, 3)])
def test_paired_blocks_give_the_sums_of_permuted_rows(to_gpu, sizes, dtype):
    y, yhat, rows, orders = cases.permutation_inputs(*sizes, dtype)
    gain = gpu_permutation.paired_null(to_gpu(y), to_gpu(yhat), rows, orders)
    np.testing.assert_allclose(
        host_array(gain),
        cases.permuted_gain(y, yhat, rows, orders),
        rtol=0,
        atol=1e-11,
    )


@pytest.mark.parametrize("block", [1, 10])
def test_a_permutation_test_has_the_same_p_on_a_gpu(to_gpu, block):
    encoding = pytest.importorskip("neuromm.encoding.permutation")
    y, yhat = np.random.default_rng(0).standard_normal((2, 110, 9))
    yhat[:, :3] += 0.2 * y[:, :3]
    settings = {"block": block, "n_permutations": 99, "rng": 3}
    wanted = encoding.permutation_test(yhat, y, **settings)
    found = encoding.permutation_test(to_gpu(yhat), to_gpu(y), **settings)
    np.testing.assert_array_equal(found.p, wanted.p)
    np.testing.assert_allclose(found.statistic, wanted.statistic, rtol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("offset", column_cases.OFFSETS)
@pytest.mark.parametrize("n_more", cases.PADDING)
@pytest.mark.parametrize("sizes", column_cases.SIZES)
def test_moments_of_columns_are_those_of_two_passes(
    to_gpu, sizes, n_more, offset, dtype
):
    y, prediction = column_cases.pair(*sizes, dtype, n_more, offset)
    found = gpu_columns.column_moments(to_gpu(y), to_gpu(prediction))
    column_cases.check_moments(host_array(found), y, prediction, offset)
