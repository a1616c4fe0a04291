"""The kernel of permuted blocks, compiled for the CPU and launched as on a GPU."""

import re

import numpy as np
import pytest

from neuromm._resources import shared_folder
from neuromm.encoding import permutation, permutation_test
from neuromm.kernels import gpu_permutation
from tests.kernels import cuda_cases as cases

# Sums of up to 300 products of order 1, ordered in another way.
TOLERANCE = {"rtol": 0, "atol": 1e-11}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sizes", cases.PERMUTATION_SIZES)
def test_paired_blocks_give_the_sums_of_permuted_rows(shim, sizes, dtype):
    y, yhat, rows, orders = cases.permutation_inputs(*sizes, dtype)
    gain = gpu_permutation.paired_null(y, yhat, rows, orders)
    assert gain.shape == (sizes[0], sizes[3])
    np.testing.assert_allclose(
        gain, cases.permuted_gain(y, yhat, rows, orders), **TOLERANCE
    )


def test_products_that_do_not_fit_go_to_global_memory(shim, monkeypatch):
    y, yhat, rows, orders = cases.permutation_inputs(31, 33, 9, 5, "float64")
    within = gpu_permutation.paired_null(y, yhat, rows, orders)
    shim.shared_bytes = shim.launches[-1].shared_bytes - 1
    monkeypatch.setattr(gpu_permutation, "_MAX_WORKSPACES", 2)
    outside = gpu_permutation.paired_null(y, yhat, rows, orders)
    assert shim.launches[-1].grid == (2, 1, 1)
    np.testing.assert_array_equal(outside, within)


def test_the_limit_of_a_block_decides_where_products_lie():
    # 256 blocks: 512 KiB of products, more than any GPU has; 100 fit into 227 KiB.
    for n_blocks, limit, n_workspaces in [
        (256, 227, 256),
        (100, 227, 0),
        (100, 48, 256),
        (60, 48, 0),
    ]:
        geometry, found = gpu_permutation.block_perm_launch(
            1000, n_blocks, "float64", limit * 1024
        )
        assert found == n_workspaces
        assert geometry.shared_bytes <= limit * 1024
        assert geometry.grid == (n_workspaces or 1000, 1, 1)


@pytest.mark.parametrize("spread", [1.0, 2**0.5])
@pytest.mark.parametrize("paired", [True, False])
def test_counts_are_those_of_widened_sums(shim, paired, spread):
    rng = np.random.default_rng(0)
    y, yhat = rng.standard_normal((2, 90, 4))
    groups, gain = [], 0.0
    for first, n_blocks in ((0, 5), (50, 4)):
        rows = np.arange(first, first + 10 * n_blocks).reshape(n_blocks, 10)
        orders = np.stack([rng.permutation(n_blocks) for _ in range(301)])
        groups.append((rows, orders, paired))
        gain = gain + cases.permuted_gain(y, yhat, rows, orders)
    mean = gain.mean(axis=0)
    expected = (mean + spread * (gain - mean) >= -1e-12).sum(axis=0)
    count = gpu_permutation.count_exceeding(y, yhat, groups, spread)
    np.testing.assert_array_equal(count, expected)
    assert 0 < expected.min() < expected.max() < 301


def test_blocks_that_do_not_fit_are_refused(shim):
    y = np.zeros((600, 1))
    rows = np.arange(600).reshape(300, 2)
    with pytest.raises(ValueError, match="at most 256 blocks"):
        gpu_permutation.paired_null(y, y, rows, np.arange(300)[None])
    with pytest.raises(ValueError, match=r"got \(600, 1\) float64 and \(600, 1\) flo"):
        gpu_permutation.paired_null(
            y, y.astype("f4"), rows[:2], np.array([[0, 1], [1, 0]])
        )


@pytest.fixture
def on_gpu(monkeypatch):
    """Tensors of torch on the CPU stand for tensors on a GPU."""
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(permutation, "is_on_gpu", lambda x: isinstance(x, torch.Tensor))
    return torch.from_numpy


@pytest.mark.parametrize("statistic", ["correlation", "r2"])
@pytest.mark.parametrize("cross_validated", [False, True])
@pytest.mark.parametrize("block", [1, 10])
def test_a_permutation_test_has_the_same_p_on_a_gpu(
    shim, on_gpu, block, cross_validated, statistic
):
    rng = np.random.default_rng(0)
    y, yhat = rng.standard_normal((2, 110, 9))
    yhat[:, :3] += 0.2 * y[:, :3]
    y[:, 4] = 0.1
    y[3, 5] = np.nan
    yhat[:, 6] = 0.1
    yhat[4, 7] = np.nan
    settings = {
        "groups": np.repeat([0, 1], [50, 60]),
        "block": block,
        "n_permutations": 40,
        "statistic": statistic,
        "cross_validated": cross_validated,
        "rng": 3,
    }
    wanted = permutation_test(yhat, y, **settings)
    found = permutation_test(on_gpu(yhat), on_gpu(y), **settings)
    np.testing.assert_array_equal(found.p, wanted.p)
    np.testing.assert_array_equal(found.q, wanted.q)
    np.testing.assert_allclose(found.statistic, wanted.statistic, rtol=1e-12)
    assert isinstance(found.statistic, np.ndarray)


def test_the_gpu_takes_targets_in_chunks(shim, on_gpu, monkeypatch):
    y, yhat = np.random.default_rng(1).standard_normal((2, 60, 5))
    wanted = permutation_test(on_gpu(yhat), on_gpu(y), rng=0, n_permutations=19).p
    monkeypatch.setattr(permutation, "_GPU_CHUNK_BYTES", 1)
    found = permutation_test(on_gpu(yhat), on_gpu(y), rng=0, n_permutations=19).p
    np.testing.assert_array_equal(found, wanted)


def test_data_in_two_places_are_refused(on_gpu):
    y = np.zeros((60, 2))
    with pytest.raises(TypeError, match="predictions lie on a GPU and responses do"):
        permutation_test(on_gpu(y), y, rng=0)
    with pytest.raises(TypeError, match="responses lie on a GPU and predictions do"):
        permutation_test(y, on_gpu(y), rng=0)


def test_launchers_know_the_tiles_of_the_source():
    text = (shared_folder("cuda") / "encoding" / "block_perm.cu").read_text()
    assert re.findall(r"kThreads = (\d+);", text) == [str(gpu_permutation.THREADS)]
    assert re.findall(r"kSamples = (\d+);", text) == [str(gpu_permutation.SAMPLES)]
