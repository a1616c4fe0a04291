"""The kernels of in-batch k-means, compiled for the CPU and launched as on a GPU."""

import re

import numpy as np
import pytest
import torch

from neuromm._resources import shared_folder
from neuromm.kernels import arrays, gpu_groups, gpu_loader
from neuromm.kernels.batch_kmeans import batch_kmeans, group_means
from neuromm.losses.group_discrimination import instance_group
from tests.kernels import assign_cases as cases

DTYPES = [torch.float32, torch.float64]


@pytest.fixture
def on_gpu(shim, monkeypatch):
    """Tensors of the CPU pass for such of a GPU."""
    monkeypatch.setattr(arrays, "is_on_gpu", lambda x: not isinstance(x, np.ndarray))
    monkeypatch.setattr(gpu_loader, "has_cupy", lambda: True)
    return shim


@pytest.mark.usefixtures("shim")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", cases.SIZES)
def test_the_nearest_centre_is_no_farther_than_that_of_the_plain_version(sizes, dtype):
    n_samples, n_features, n_groups = sizes
    rows = cases.rows(n_samples, n_features, dtype)
    centres = cases.rows(n_groups, n_features, dtype) + 0.1
    cases.check_nearest(gpu_groups.nearest_centres(rows, centres), rows, centres)


def test_rows_are_taken_in_tiles(shim, monkeypatch):
    rows, centres = (cases.rows(n, 7, torch.float64) for n in (129, 5))
    whole = gpu_groups.nearest_centres(rows, centres)
    monkeypatch.setattr(gpu_groups, "TILE_PRODUCTS", 5 * 50 + 4)
    assert torch.equal(gpu_groups.nearest_centres(rows, centres), whole)
    assert len(shim.launches) == 1 + 3


@pytest.mark.usefixtures("shim")
def test_of_equal_centres_the_first_is_taken_and_nan_is_nearest():
    # As arg-min of torch has it.
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0], [torch.nan, 0.0]])
    centres = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert gpu_groups.nearest_centres(rows, centres).tolist() == [1, 0, 0]
    centres[2, 0] = torch.nan
    centres[3, 0] = torch.nan
    found = gpu_groups.nearest_centres(rows[:2], centres)
    assert torch.equal(found, cases.plain_nearest(rows[:2], centres))
    assert found.tolist() == [2, 2]


@pytest.mark.usefixtures("shim")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", cases.SIZES)
def test_means_are_those_of_float64_rounded_once(sizes, dtype):
    n_samples, n_features, n_groups = sizes
    rows, labels = (
        cases.rows(n_samples, n_features, dtype),
        cases.labels(n_samples, n_groups),
    )
    found = gpu_groups.member_means(rows, labels, n_groups)
    cases.check_means(found, rows, labels, n_groups)


@pytest.mark.usefixtures("shim")
def test_rows_may_be_a_part_of_a_wider_matrix_or_transposed():
    whole, labels = cases.rows(129, 64, torch.float32), cases.labels(129, 4)
    part = whole[:, 3:40]
    expected = gpu_groups.member_means(part.contiguous(), labels, 4)
    for rows in (part, part.T.contiguous().T):
        found = gpu_groups.member_means(rows, labels, 4)
        for mine, wanted in zip(found, expected, strict=True):
            assert torch.equal(mine, wanted)


def test_means_do_not_depend_on_the_order_of_threads(shim):
    rows, labels = cases.rows(521, 37, torch.float32), cases.labels(521, 18)
    first, _ = gpu_groups.member_means(rows, labels, 18)
    shim.schedule, shim.seed = "random", 11
    again, _ = gpu_groups.member_means(rows, labels, 18)
    assert torch.equal(again, first)


@pytest.mark.usefixtures("shim")
def test_parts_grow_with_the_rows_so_that_there_are_no_more_than_256():
    for n_rows in (1, 128, 129, 32768, 32769, 10**6):
        grid = gpu_groups.sums_launch(n_rows, 512, 18, "float32").grid
        assert grid[0] == 17
        assert grid[1] <= 256
        assert grid[1] * gpu_groups.rows_a_part(n_rows) >= n_rows
        assert grid[2] == 2


@pytest.mark.usefixtures("shim")
def test_labels_outside_count_nowhere():
    rows = cases.rows(40, 5, torch.float64)
    labels = cases.labels(40, 18)
    outside = labels.clone()
    outside[::4] = torch.tensor([-1, 18, 31, 32, 2**40, -(2**63), 18, -1, 99, 19])
    inside = outside == labels
    means, sizes = gpu_groups.member_means(rows, outside, 18)
    cases.check_means((means, sizes), rows[inside], labels[inside], 18)


@pytest.mark.usefixtures("shim")
def test_no_rows_have_means_of_zero():
    means, sizes = gpu_groups.member_means(
        torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), 2
    )
    assert means.tolist() == [[0.0] * 3] * 2
    assert sizes.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_groups", [1, 5, 17])
def test_kmeans_on_a_gpu_finds_the_groups_of_distance_by_distance(
    on_gpu, n_groups, dtype
):
    rows = cases.rows(129, 9, dtype)
    found = batch_kmeans(rows, rows[:n_groups], 4)
    cases.check_kmeans(found, rows, n_groups, 4)
    kind = "f32" if dtype == torch.float32 else "f64"
    assert [one.kernel for one in on_gpu.launches] == [
        f"nearest_centre_{kind}", f"member_sums_{kind}", f"member_means_{kind}"
    ] * 4  # fmt: skip


@pytest.mark.usefixtures("on_gpu")
def test_an_empty_group_keeps_a_zero_centre():
    rows = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    labels, centres = batch_kmeans(rows, rows)
    assert labels.tolist() == [0, 0, 2]
    assert centres.tolist() == [[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]


@pytest.mark.usefixtures("on_gpu")
def test_gradients_of_means_reach_the_rows_twice():
    rows, labels = cases.rows(9, 4, torch.float64).requires_grad_(), cases.labels(9, 4)
    assert torch.autograd.gradcheck(lambda x: group_means(x, labels, 4), rows)
    assert torch.autograd.gradgradcheck(lambda x: group_means(x, labels, 4), rows)


def test_the_group_loss_on_a_gpu_is_the_plain_one(shim, monkeypatch):
    image, gene = (
        cases.rows(70, width, torch.float64).requires_grad_() for width in (16, 16)
    )
    gene = (gene.detach().flip(0) + 0.5 * image.detach()).requires_grad_()

    def loss():
        value = instance_group(image, gene, 4)
        return [value, *torch.autograd.grad(value, (image, gene))]

    plain = loss()
    monkeypatch.setattr(arrays, "is_on_gpu", lambda x: not isinstance(x, np.ndarray))
    monkeypatch.setattr(gpu_loader, "has_cupy", lambda: True)
    for mine, wanted in zip(loss(), plain, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-10, atol=1e-13)
    assert "member_sums_f64" in {one.kernel for one in shim.launches}


@pytest.mark.usefixtures("shim")
def test_inputs_that_do_not_fit_are_named():
    rows, labels = torch.zeros(4, 3), torch.zeros(4, dtype=torch.long)
    with pytest.raises(TypeError, match="got float32 and float64: widen half"):
        gpu_groups.nearest_centres(rows, rows.double())
    with pytest.raises(TypeError, match="got bfloat16 and bfloat16"):
        gpu_groups.nearest_centres(rows.bfloat16(), rows.bfloat16())
    with pytest.raises(ValueError, match=r"at least one centre .* \(4, 3\) and \(0, 3"):
        gpu_groups.nearest_centres(rows, rows[:0])
    with pytest.raises(ValueError, match=r"same width, got shapes \(4, 3\) and \(4, 2"):
        gpu_groups.nearest_centres(rows, rows[:, :2])
    with pytest.raises(TypeError, match="got float32 and int32"):
        gpu_groups.member_means(rows, labels.int(), 2)
    with pytest.raises(
        ValueError, match=r"one label each, got shapes \(4, 3\) and \(3"
    ):
        gpu_groups.member_means(rows, labels[:3], 2)


def test_the_launcher_knows_the_tiles_of_the_source():
    text = (shared_folder("cuda") / "contrastive" / "assign.cu").read_text()
    for name, value in {
        "kFeatures": gpu_groups.FEATURES,
        "kSplits": gpu_groups.SPLITS,
        "kGroups": gpu_groups.GROUPS,
    }.items():
        assert re.findall(rf"\b{name} = (\d+);", text) == [str(value)]
