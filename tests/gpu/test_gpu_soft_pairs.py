"""Kernels of SigLIP and of soft targets on a GPU: the cases of tests/kernels."""

import numpy as np
import pytest

from neuromm.kernels.gpu_loader import has_gpu
from tests.kernels import siglip_cases, soft_target_cases

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not has_gpu(), reason="GPU: not present"),
]

DTYPES = ["float32", "float64"]


@pytest.fixture(params=["cupy", "torch"])
def to_gpu(request):
    """Copy an array of NumPy to the GPU."""
    library = pytest.importorskip(request.param)
    if request.param == "cupy":
        return library.asarray
    if not library.cuda.is_available():
        pytest.skip("GPU: not present for torch")
    return lambda x: library.from_numpy(np.ascontiguousarray(x)).cuda()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("setting", siglip_cases.SETTINGS)
@pytest.mark.parametrize("sizes", [*siglip_cases.SIZES, (2048, 4096)])
def test_a_tile_of_siglip_errs_no_more_than_twice_plain_arithmetic(
    to_gpu, sizes, setting, dtype
):
    products = siglip_cases.tile(*sizes, dtype)
    found = siglip_cases.computed(products, *setting, to_gpu)
    siglip_cases.check(found, products, *setting)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "scales", [soft_target_cases.PUBLISHED, *soft_target_cases.SCALES]
)
@pytest.mark.parametrize(
    "sizes", [*soft_target_cases.SIZES, soft_target_cases.LONG, (512, 512)]
)
def test_a_panel_of_soft_targets_errs_no_more_than_twice_plain_arithmetic(
    to_gpu, sizes, scales, dtype
):
    given = soft_target_cases.panel(*sizes, dtype, scales)
    for n_panels in (1, min(3, sizes[0])):
        found = soft_target_cases.computed(given, 0.25, n_panels, to_gpu)
        soft_target_cases.check(found, given, 0.25)


@pytest.mark.parametrize("n_samples", [512, 4001])
def test_losses_and_gradients_are_those_of_the_definition(n_samples):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("GPU: not present for torch")
    from neuromm.kernels import pair_softplus, soft_pairs

    generator = torch.Generator().manual_seed(0)
    rows = torch.randn((3, n_samples, 64), generator=generator, dtype=torch.float64)
    rows = torch.nn.functional.normalize(rows, dim=2)
    scales = [torch.tensor(x, dtype=torch.float64) for x in (20.0, -7.0, 14.0)]
    wide = [x.cuda().requires_grad_(True) for x in (*rows, *scales)]
    narrow = [x.detach().float().requires_grad_(True) for x in wide]

    def total(softplus, losses, given):
        gene, one, other, scale, bias, target = given
        soft = losses(gene, [one, other], scale, target).sum()
        return soft + softplus(gene, one, scale, bias) / n_samples

    plain = total(pair_softplus.plain_softplus_sum, soft_pairs.plain_soft_losses, wide)
    ours = total(pair_softplus.pair_softplus_sum, soft_pairs.soft_losses, narrow)
    assert ours.item() == pytest.approx(plain.item(), rel=1e-5)
    for mine, exact in zip(
        torch.autograd.grad(ours, narrow), torch.autograd.grad(plain, wide), strict=True
    ):
        # The gradient of the targets' temperature is a thousandth of its terms.
        assert (mine - exact).norm() <= 1e-5 * exact.norm().clamp(min=0.1)
