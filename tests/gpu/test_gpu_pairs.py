"""Kernels of pairs on a GPU: cases of tests/kernels, and InfoNCE beside the CPU's."""

import numpy as np
import pytest

from neuromm.kernels import gpu_pairs
from neuromm.kernels.arrays import host_array
from neuromm.kernels.gpu_loader import has_gpu
from neuromm.kernels.gpu_pairs import Pairs, Side, Upstream
from tests.kernels import pair_cases as cases

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not has_gpu(), reason="GPU: not present"),
]

LINES = (gpu_pairs.LOG_SUMS, gpu_pairs.POSITIVES, gpu_pairs.COUNTS)
SETTINGS = [("opposite", "none", False), ("repeated", "label", True)]


@pytest.fixture(params=["cupy", "torch"])
def to_gpu(request):
    """Copy an array of NumPy to the GPU."""
    library = pytest.importorskip(request.param)
    if request.param == "cupy":
        return library.asarray
    if not library.cuda.is_available():
        pytest.skip("GPU: not present for torch")
    return lambda x: library.from_numpy(np.array(x, order="C")).cuda()


@pytest.fixture
def torch():
    library = pytest.importorskip("torch")
    if not library.cuda.is_available():
        pytest.skip("GPU: not present for torch")
    return library


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("scale", cases.SCALES)
@pytest.mark.parametrize("size", [*cases.SIZES, (2048, 4096)])
def test_sums_and_slopes_err_no_more_than_twice_plain_float32(
    to_gpu, size, scale, setting
):
    case = cases.case(*size, scale, *setting)
    left, right = (
        Side(*(None if one is None else to_gpu(one) for one in (None, *known)))
        for known in zip(case.labels, case.present, strict=True)
    )
    pairs = Pairs(to_gpu(case.scale), left, right, case.matching)
    products = np.where(case.counted, case.left @ case.right.T, np.float32(np.nan))
    tile, bound = to_gpu(products), to_gpu(case.bound)
    totals = gpu_pairs.PairTotals(*size, pairs, bound)
    totals.add(tile, 0, 0)
    exact, plain = cases.sums(case.to("float64")), cases.sums(case)
    small = gpu_pairs.small_pair_sums(tile, pairs)
    for found in ((totals.rows, totals.columns), small):
        for results, wanted, rounded in zip(found, exact, plain, strict=True):
            for place, line in enumerate(LINES[: 1 if setting[1] == "none" else 3]):
                top = np.nan_to_num(abs(wanted[place]), posinf=0).max()
                one = host_array(results)[line]
                cases.check(one, rounded[place], wanted[place], max(scale, top))
    gradients = cases.upstream(case)
    upstream = [to_gpu(one) for one in gradients][: 2 if setting[1] == "none" else 4]
    slopes = gpu_pairs.pair_slopes(
        tile, pairs, bound, (totals.rows, totals.columns), Upstream(*upstream)
    )
    wanted = cases.slopes(case.to("float64"), gradients)
    rounded = cases.slopes(case, gradients)
    cases.check(host_array(slopes), rounded, wanted, abs(wanted).max(initial=0))


@pytest.mark.parametrize("n_samples", [1, 33, 513, 4097, 6001])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("tau", [0.01, 0.07])
def test_info_nce_on_a_gpu_is_that_of_the_cpu_in_float64(torch, n_samples, dtype, tau):
    from neuromm.losses import info_nce

    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn((2, n_samples, 48), generator=generator)
    kind = getattr(torch, dtype)
    rows = [one.to(kind) for one in (a, 0.3 * a + b)]
    labels = torch.arange(n_samples) % max(1, n_samples - 5)
    mask = torch.rand((n_samples, 2), generator=generator) > 0.1
    for known in ({}, {"labels": labels, "mask": mask}):
        wide = [one.double().requires_grad_(True) for one in rows]
        given = [one.cuda().requires_grad_(True) for one in rows]
        exact = info_nce(*wide, tau, **known)
        loss = info_nce(*given, tau, **{k: v.cuda() for k, v in known.items()})
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(exact.item(), rel=1e-5, abs=1e-7 / tau)
        found = torch.autograd.grad(loss, given)
        wanted = torch.autograd.grad(exact, wide)
        allowed = 5e-5 if dtype == "float32" else torch.finfo(kind).eps
        for one, other in zip(found, wanted, strict=True):
            assert one.dtype == kind
            error = (one.cpu().double() - other).norm()
            assert error <= allowed * other.norm() + 1e-7


def test_nothing_waits_for_the_gpu_between_launches(torch):
    from neuromm.kernels.gpu_pair_tiles import pair_sums

    rows = torch.nn.functional.normalize(torch.randn((5000, 32), device="cuda"))
    rows.requires_grad_(True)
    scale = torch.tensor(100.0, device="cuda")
    by_row, by_column = pair_sums(rows, rows.detach(), scale, "place")  # compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        by_row, by_column = pair_sums(rows, rows.detach(), scale, "place")
        (by_row.log_sums.mean() + by_column.log_sums.mean()).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert rows.grad.isfinite().all()
