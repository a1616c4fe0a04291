"""Kernels of volumes and of in-batch k-means on a GPU: the cases of tests/kernels."""

import pytest

from neuromm.kernels.gpu_loader import has_gpu

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not has_gpu(), reason="GPU: not present"),
]

torch = pytest.importorskip("torch")

# These need torch, which the environment that compiles kernels does not have.
from neuromm.kernels import gpu_groups, gpu_volume  # noqa: E402
from neuromm.kernels.batch_kmeans import batch_kmeans  # noqa: E402
from neuromm.kernels.volume_softmax import volume_normalisers  # noqa: E402
from tests.kernels import assign_cases, volume_cases  # noqa: E402

DTYPES = [torch.float32, torch.float64]


@pytest.fixture(autouse=True)
def _gpu_of_torch():
    if not torch.cuda.is_available():
        pytest.skip("GPU: not present for torch")


def _on_gpu(*tensors):
    return [x.cuda() for x in tensors]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", volume_cases.SCALES)
@pytest.mark.parametrize("sizes", [*volume_cases.SIZES, (521, 3)])
def test_volumes_err_no_more_than_twice_the_plain_version(sizes, scale, dtype):
    for make in (volume_cases.rows, volume_cases.hard_rows):
        if make is volume_cases.hard_rows and sizes[0] < 31:
            continue
        given = *make(*sizes, dtype), scale
        found = volume_cases.results(volume_normalisers, *_on_gpu(*given[:2]), scale)
        volume_cases.check(found, volume_cases.plain_results(*given), *given)


def test_volumes_do_not_depend_on_tiles_and_are_the_same_bits_twice(monkeypatch):
    given = *_on_gpu(*volume_cases.rows(521, 2, torch.float32)), 100.0
    first = volume_cases.results(volume_normalisers, *given)
    again = volume_cases.results(volume_normalisers, *given)
    monkeypatch.setattr(gpu_volume, "TILE", volume_cases.TILE)
    tiled = volume_cases.results(volume_normalisers, *given)
    for one, same, near in zip(first, again, tiled, strict=True):
        assert torch.equal(one, same)
        torch.testing.assert_close(one, near, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", [*assign_cases.SIZES, (4099, 512, 18)])
def test_rows_find_their_centre_and_centres_their_mean(sizes, dtype):
    n_samples, n_features, n_groups = sizes
    rows = assign_cases.rows(n_samples, n_features, dtype)
    centres = assign_cases.rows(n_groups, n_features, dtype) + 0.1
    found = gpu_groups.nearest_centres(*_on_gpu(rows, centres))
    assign_cases.check_nearest(found, rows, centres)
    labels = assign_cases.labels(n_samples, n_groups)
    means = gpu_groups.member_means(*_on_gpu(rows, labels), n_groups)
    assign_cases.check_means(means, rows, labels, n_groups)


@pytest.mark.parametrize("dtype", DTYPES)
def test_kmeans_finds_the_groups_of_distance_by_distance(dtype):
    rows = assign_cases.rows(129, 9, dtype)
    found = batch_kmeans(rows.cuda(), rows[:5].cuda(), 4)
    assign_cases.check_kmeans(found, rows, 5, 4)
