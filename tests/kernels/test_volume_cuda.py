"""The kernels of volumes, compiled for the CPU and launched as on a GPU."""

import contextlib
import math
import re

import numpy as np
import pytest
import torch

from neuromm._resources import shared_folder
from neuromm.kernels import arrays, gpu_loader, gpu_volume, volume_softmax
from neuromm.kernels.volume_softmax import SQUARED_FLOOR, volume_normalisers
from neuromm.losses.volume import gram_volume
from tests.kernels import volume_cases as cases

DTYPES = [torch.float32, torch.float64]


@pytest.fixture
def on_gpu(shim, monkeypatch):
    """Within it, tensors of the CPU pass for such of a GPU; tiles are small."""

    @contextlib.contextmanager
    def pretended():
        with monkeypatch.context() as patch:
            for module in (arrays, volume_softmax):
                patch.setattr(
                    module, "is_on_gpu", lambda x: not isinstance(x, np.ndarray)
                )
            patch.setattr(gpu_loader, "has_cupy", lambda: True)
            patch.setattr(gpu_volume, "TILE", cases.TILE)
            yield shim

    return pretended


def fast_results(on_gpu, anchor, others, scale):
    with on_gpu():
        return cases.results(volume_normalisers, anchor, others, scale)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", cases.SIZES)
def test_sums_and_gradients_err_no_more_than_twice_the_plain_version(
    on_gpu, sizes, dtype
):
    given = *cases.rows(*sizes, dtype), cases.SCALES[0]
    found = fast_results(on_gpu, *given)
    cases.check(found, cases.plain_results(*given), *given)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", cases.SCALES)
@pytest.mark.parametrize("n_others", [1, 2, 3])
def test_repeats_and_flat_groups_are_right_at_any_temperature(
    on_gpu, n_others, scale, dtype
):
    given = *cases.hard_rows(67, n_others, dtype), scale
    found = fast_results(on_gpu, *given)
    cases.check(found, cases.plain_results(*given), *given)


@pytest.mark.parametrize("scale", cases.SCALES)
def test_the_order_of_threads_does_not_matter(shim, on_gpu, scale):
    given = *cases.hard_rows(193, 2, torch.float32), scale
    found = fast_results(on_gpu, *given)
    shim.schedule, shim.seed = "random", 11
    for again, first in zip(fast_results(on_gpu, *given), found, strict=True):
        assert torch.equal(again, first)


@pytest.mark.parametrize("scale", cases.SCALES)
def test_orthogonal_groups_have_volume_1_and_equal_logits(on_gpu, scale):
    # Anchors along one axis, others along two more: all volumes are 1.
    eye = torch.eye(8)
    anchor, others = eye[:1].expand(130, -1), eye[1:3, None].expand(-1, 130, -1)
    with on_gpu():
        outputs = volume_normalisers(anchor, others, torch.tensor(scale))
    expected = math.log(130) - scale
    for found, wanted in zip(outputs, (expected, expected, 130.0, 1.0), strict=True):
        torch.testing.assert_close(found, torch.full((130,), wanted), rtol=4e-7, atol=0)


def test_vectors_in_one_line_have_the_floor_and_no_gradient(on_gpu):
    anchor = torch.eye(8)[:1].repeat(70, 1).requires_grad_()
    others = -torch.eye(8)[:1].repeat(1, 70, 1)
    with on_gpu():
        rows, columns, sums, own = volume_normalisers(
            anchor, others.requires_grad_(), torch.tensor(10.0)
        )
        grads = torch.autograd.grad(
            (rows + 2 * columns + sums + own).sum(), (anchor, others)
        )
    torch.testing.assert_close(own, torch.full((70,), SQUARED_FLOOR**0.5))
    assert not any(grad.any() for grad in grads)


@pytest.mark.parametrize("scale", cases.SCALES)
def test_nan_spreads_along_its_row_and_column(on_gpu, scale):
    anchor, others = cases.rows(70, 2, torch.float32)
    anchor, others = (x / x.norm(dim=-1, keepdim=True) for x in (anchor, others))
    anchor[66] = torch.nan
    with on_gpu():
        rows, columns, sums, own = volume_normalisers(
            anchor, others, torch.tensor(scale)
        )
    assert columns.isnan().all()
    for found in (rows, sums, own):
        assert found.isnan().nonzero().tolist() == [[66]]


@pytest.mark.parametrize("scale", [1 / 0.07, 500.0])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_volume_loss_takes_the_kernels_of_its_precision(on_gpu, dtype, scale):
    anchor, others = cases.rows(130, 2, dtype)
    given = [anchor.requires_grad_(), *(x.clone().requires_grad_() for x in others)]

    def loss():
        value = gram_volume(given[0], given[1:], 1 / scale, anchor_weight=0.0)
        return [value, *torch.autograd.grad(value, given)]

    with on_gpu() as shim:
        found = loss()
        ran = {one.kernel for one in shim.launches}
    kind = f"{'_safe' if scale > 120 else ''}_f{'32' if dtype == DTYPES[0] else '64'}"
    assert ran == {f"volume_stats{kind}", f"volume_slopes{kind}", "volume_merge"}
    eps = torch.finfo(dtype).eps
    for mine, plain in zip(found, loss(), strict=True):
        torch.testing.assert_close(mine, plain, rtol=0, atol=20 * scale * eps)


def test_sums_that_nobody_asks_for_stay_0(on_gpu):
    anchor, others = cases.rows(70, 2, torch.float64)
    anchor, others = (x / x.norm(dim=-1, keepdim=True) for x in (anchor, others))
    scale = torch.tensor(10.0)
    with on_gpu():
        asked = volume_normalisers(anchor, others, scale)
        rows, columns, sums, own = volume_normalisers(
            anchor, others, scale, with_sums=False
        )
    assert not sums.any()
    assert asked[2].all()
    for first, second in zip((rows, columns, own), (*asked[:2], asked[3]), strict=True):
        assert torch.equal(first, second)


def test_half_precision_is_refused(shim):
    anchor = torch.zeros(2, 4, dtype=torch.bfloat16)
    volumes = gpu_volume.Volumes(
        anchor, anchor[None], anchor[:, 0], anchor[:, 0], 1e-6, 1.0
    )
    with pytest.raises(
        TypeError, match=r"got bfloat16, bfloat16.*widen half precision"
    ):
        gpu_volume.log_sums(volumes, with_sums=True)


def test_the_launcher_knows_the_tiles_of_the_source():
    text = (shared_folder("cuda") / "contrastive" / "volume.cu").read_text()
    for name, value in {
        "kLanes": gpu_volume.LANES,
        "kWarps": gpu_volume.WARPS,
        "kColumns": gpu_volume.COLUMNS,
        "kRows": gpu_volume.ROWS,
    }.items():
        assert re.findall(rf"\b{name} = (\d+);", text) == [str(value)]
