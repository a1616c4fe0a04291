"""Sums of pairs and InfoNCE through the kernels, with tensors of the CPU."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from neuromm.kernels import arrays, gpu_loader, gpu_pair_tiles, pair_tiles  # noqa: E402
from neuromm.kernels.pair_tiles import plain_pair_sums  # noqa: E402
from neuromm.losses import InfoNCE, anchored_contrastive, info_nce  # noqa: E402
from tests.kernels import cuda_shim  # noqa: E402
from tests.kernels import pair_cases as cases  # noqa: E402

HALF = [torch.bfloat16, torch.float16]


@pytest.fixture
def on_gpu(cuda_builds, monkeypatch):
    """Tensors of the CPU pass for such of a GPU; each order is in test_pairs_cuda."""
    monkeypatch.setattr(arrays, "is_on_gpu", lambda x: not isinstance(x, np.ndarray))
    monkeypatch.setattr(gpu_loader, "has_cupy", lambda: True)
    return cuda_shim.patched(
        cuda_shim.Shim(cuda_builds, schedule="random", seed=7), monkeypatch
    )


@pytest.fixture(params=["kept", "tiles"])
def way(request, monkeypatch):
    """Products of all pairs at once, or by tiles that end within blocks."""
    if request.param == "tiles":
        monkeypatch.setattr(gpu_pair_tiles, "_SMALL_ROWS", 0)
        monkeypatch.setattr(gpu_pair_tiles, "_TILE", (70, 130))
    return request.param


def tensors(case):
    parts = case.left, case.right, case.scale
    return [torch.from_numpy(one).requires_grad_(True) for one in parts]


def weighted(rows, columns):
    """One number of all sums, so that each has a gradient of its own."""
    total = 0.0
    for side, phase in ((rows, 0.0), (columns, 1.0)):
        there = side.log_sums.isfinite()
        weight = (torch.arange(len(there)) + phase).cos() * there / len(there)
        total = total + (weight * side.log_sums.masked_fill(~there, 0)).sum()
        if len(side.positives):
            total = total + 3 * (weight.flip(0) * side.positives).sum()
    return total


@pytest.mark.parametrize("scale", cases.SCALES)
@pytest.mark.parametrize(
    ("matching", "masked"), [("none", False), ("place", True), ("label", True)]
)
def test_sums_and_gradients_are_those_of_whole_matrices_in_float64(
    on_gpu, way, matching, masked, scale
):
    case = cases.case(97, 141, scale, "random", matching, masked)
    labels, present = (
        tuple(None if one is None else torch.from_numpy(one) for one in two)
        for two in (case.labels, case.present)
    )
    given, wide = tensors(case), tensors(case.to("float64"))
    found = gpu_pair_tiles.pair_sums(*given, matching, labels, present)
    same, counted = torch.from_numpy(case.same), torch.from_numpy(case.counted)
    exact = plain_pair_sums(*wide, same, counted)
    for one, other in zip(found, exact, strict=True):
        torch.testing.assert_close(
            one.log_sums.double(), other.log_sums, rtol=1e-6, atol=2e-5
        )
        if matching != "none":
            torch.testing.assert_close(one.counts.long(), other.counts)
            torch.testing.assert_close(
                one.positives.double(), other.positives, rtol=1e-6, atol=1e-6
            )
    grads = torch.autograd.grad(weighted(*found), given)
    wanted = torch.autograd.grad(weighted(*exact), wide)
    for one, other in zip(grads, wanted, strict=True):
        assert (one.double() - other).norm() < 2e-5 * other.norm()


@pytest.mark.parametrize("dtype", HALF)
def test_half_precision_rounds_no_logit(on_gpu, way, dtype):
    rng = np.random.default_rng(0)
    rows = [torch.from_numpy(rng.standard_normal((99, 24))) for _ in range(2)]
    rows[1] += 0.5 * rows[0]
    lengths = torch.logspace(-2, 2, 99, dtype=torch.float64)[:, None]
    a, b = ((lengths * one).to(dtype).requires_grad_(True) for one in rows)
    wide = [one.detach().double().requires_grad_(True) for one in (a, b)]
    tau = torch.tensor(0.05, requires_grad=True)
    tau_wide = torch.tensor(0.05, dtype=torch.float64, requires_grad=True)
    loss, exact = info_nce(a, b, tau), info_nce(*wide, tau_wide)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=1e-5)
    found = torch.autograd.grad(loss, (a, b, tau))
    wanted = torch.autograd.grad(exact, (*wide, tau_wide))
    # A slope is rounded, and so is a gradient: by half a unit of the last place each.
    unit = torch.finfo(dtype).eps
    for one, other in zip(found[:2], wanted[:2], strict=True):
        assert one.dtype == dtype
        assert (one.double() - other).norm() < unit * other.norm()
    assert found[2].item() == pytest.approx(wanted[2].item(), rel=unit)


@pytest.mark.parametrize("dtype", HALF)
def test_half_rows_are_exact_and_as_long_as_they_say(dtype):
    rng = np.random.default_rng(1)
    limits = torch.finfo(dtype)
    rows = torch.from_numpy(rng.standard_normal((6, 40)))
    rows *= torch.tensor([1.0, 1e-2, 1e2, 1.0, 3.0, 7.0])[:, None]
    rows = rows.to(dtype)
    rows[3] = limits.max
    rows[4] = limits.tiny * 8
    half = gpu_pair_tiles.half_rows(rows)
    unit = half.rows.double() * half.inverse_lengths[:, None].double()
    exact = rows.double() / rows.double().norm(dim=1, keepdim=True)
    torch.testing.assert_close(unit, exact, rtol=1e-6, atol=1e-7)
    assert half.rows.abs().amax(dim=1).double().ge(0.5).all()
    assert half.rows.abs().max() < 1


def rows_of(n_samples, dtype=torch.float32):
    generator = torch.Generator().manual_seed(2)
    a, b = torch.randn((2, n_samples, 20), generator=generator, dtype=torch.float64)
    return [one.to(dtype).requires_grad_(True) for one in (a, b + 0.5 * a)]


@pytest.mark.parametrize("direction", ["both", "a_to_b", "b_to_a"])
@pytest.mark.parametrize("tau", [0.01, 0.07])
@pytest.mark.parametrize("with_labels", [False, True])
@pytest.mark.parametrize("with_mask", [None, "samples", "each"])
def test_info_nce_by_kernels_is_that_of_the_plain_version(
    on_gpu, monkeypatch, direction, tau, with_labels, with_mask
):
    a, b = rows_of(75)
    labels = torch.arange(75) % 31 if with_labels else None
    mask = None
    if with_mask is not None:
        each = torch.rand((75, 2), generator=torch.Generator().manual_seed(4)) > 0.3
        mask = each if with_mask == "each" else each[:, 0]
        held = each if with_mask == "each" else each[:, :1].expand(-1, 2)
        with torch.no_grad():
            for rows, there in zip((a, b), held.T, strict=True):
                rows[~there] = torch.nan
    loss = info_nce(a, b, tau, labels, mask, direction)
    found = torch.autograd.grad(loss, (a, b))
    assert [one.kernel for one in on_gpu.launches] == ["small_pairs", "pair_grad_f32"]
    monkeypatch.setattr(arrays, "is_on_gpu", lambda x: False)
    wide = [one.detach().double().requires_grad_(True) for one in (a, b)]
    exact = info_nce(*wide, tau, labels, mask, direction)
    wanted = torch.autograd.grad(exact, wide)
    assert loss.item() == pytest.approx(exact.item(), rel=1e-5, abs=1e-7 / tau)
    for one, other in zip(found, wanted, strict=True):
        assert (one.double() - other).norm() <= 5e-5 * other.norm()


def test_no_sample_at_all_gives_0_and_no_gradient(on_gpu):
    a, b = rows_of(9)
    mask = torch.stack([torch.arange(9) < 4, torch.arange(9) > 5], dim=1)
    for absent in (mask, mask & False, mask[:, 0] & False):
        loss = info_nce(a, b, mask=absent)
        assert loss.item() == 0
        assert not any(grad.any() for grad in torch.autograd.grad(loss, (a, b)))


def test_other_losses_take_the_kernels_of_pairs_too(on_gpu, monkeypatch):
    a, b = rows_of(33)
    mask = torch.arange(33) % 4 > 0
    loss = anchored_contrastive(a, [b, a.detach() + b.detach()], 0.05, mask=mask)
    found = torch.autograd.grad(loss, (a, b))
    assert on_gpu.launches
    monkeypatch.setattr(arrays, "is_on_gpu", lambda x: False)
    plain = anchored_contrastive(a, [b, a.detach() + b.detach()], 0.05, mask=mask)
    torch.testing.assert_close(loss, plain)
    torch.testing.assert_close(found, torch.autograd.grad(plain, (a, b)))


def test_pair_log_sums_and_matches_are_those_of_the_plain_version(
    on_gpu, way, monkeypatch
):
    left, right, scale = tensors(cases.case(71, 71, 14.3))
    both = pair_tiles.pair_log_sums, pair_tiles.matched_log_sums
    found = [compute(left, right, scale) for compute in both]
    monkeypatch.setattr(arrays, "is_on_gpu", lambda x: False)
    plain = [compute(left, right, scale) for compute in both]
    for one, other in zip(found, plain, strict=True):
        torch.testing.assert_close(one, other)
        grad, wanted = (
            torch.autograd.grad(sum(x.square().sum() for x in given), left)[0]
            for given in (one, other)
        )
        assert (grad - wanted).norm() < 2e-5 * wanted.norm()


def test_float64_is_left_to_the_plain_version(on_gpu):
    a, b = rows_of(9, torch.float64)
    assert info_nce(a, b).dtype == torch.float64
    assert not on_gpu.launches


def test_a_second_backward_gives_the_same_again(on_gpu, way):
    a, b = rows_of(140)
    loss = info_nce(a, b, 0.05)
    first = torch.autograd.grad(loss, (a, b), retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(loss, (a, b)), first)
    with pytest.raises(RuntimeError, match="first derivatives only"):
        torch.autograd.grad(info_nce(a, b), a, create_graph=True)


def test_a_learned_temperature_has_the_gradient_of_the_plain_version(
    on_gpu, way, monkeypatch
):
    rows = rows_of(75)
    labels = torch.arange(75) % 40
    grads = []
    for on in (True, False):
        monkeypatch.setattr(arrays, "is_on_gpu", lambda x, on=on: on)
        module = InfoNCE(0.05, learnable=True)
        module(*rows, labels=labels).backward()
        grads.append(module.temperature.log_temperature.grad.item())
    assert grads[0] == pytest.approx(grads[1], rel=5e-5)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 0.0])
def test_bad_rows_are_named_before_any_launch(on_gpu, value):
    a, b = (one.detach() for one in rows_of(9))
    b[4] = value
    with pytest.raises(ValueError, match=r"b has .* the first (in row|at) 4"):
        info_nce(a, b)
    assert not on_gpu.launches
    mask = torch.arange(9) != 4
    info_nce(a, b, mask=mask)
    assert on_gpu.launches


READS = ("__bool__", "__float__", "__int__", "item", "tolist", "nonzero")


def test_the_host_reads_no_number_between_launches(on_gpu, way, monkeypatch):
    case = cases.case(75, 71, 100.0, "opposite", "place", masked=True)
    left, right, scale = tensors(case)
    present = tuple(torch.from_numpy(one) for one in case.present)

    def refuse(self, *_):
        raise AssertionError("a GPU would be waited for")

    for name in READS:
        monkeypatch.setattr(torch.Tensor, name, refuse)
    rows, columns = gpu_pair_tiles.pair_sums(
        left, right, scale, "place", present=present
    )
    there = [torch.where(one.counts > 0, one.log_sums, 0) for one in (rows, columns)]
    (there[0].sum() + there[1].sum() + rows.positives.sum()).backward()


@pytest.mark.parametrize("n_labels", [None, 20])
def test_info_nce_reads_one_flag_before_the_first_launch(on_gpu, monkeypatch, n_labels):
    a, b = rows_of(40)
    labels = None if n_labels is None else torch.arange(40) % n_labels
    mask = torch.rand((40, 2), generator=torch.Generator().manual_seed(1)) > 0.2
    reads = []
    for name in READS:
        read = getattr(torch.Tensor, name)

        def noted(self, *args, name=name, read=read):
            reads.append((name, len(on_gpu.launches)))
            return read(self, *args)

        monkeypatch.setattr(torch.Tensor, name, noted)
    info_nce(a, b, 0.07, labels, mask).backward()
    assert reads == [("__bool__", 0)]
    assert len(on_gpu.launches) == 2
