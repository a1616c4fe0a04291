"""SigLIP and the anchored loss against their definitions."""

import math

import pytest
import torch
from torch.nn.functional import logsigmoid, normalize

from neuromm.kernels import tiling
from neuromm.losses import (
    AnchoredContrastive,
    SigLIP,
    anchored_contrastive,
    info_nce,
    siglip,
)


def _rows(n_samples, n_sets=3, width=8, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    shape = (n_sets, n_samples, width)
    rows = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    return [x.clone().requires_grad_(True) for x in rows]


def _published(a, b, tau, bias, ids_a, ids_b):
    logits = normalize(a) @ normalize(b).T / tau + bias
    sign = 2 * (ids_a[:, None] == ids_b).double() - 1
    return -logsigmoid(sign * logits).sum() / len(a)


def _assert_same_with_gradients(ours, plain, inputs):
    torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-10)
    for mine, definition in zip(
        torch.autograd.grad(ours, inputs),
        torch.autograd.grad(plain, inputs),
        strict=True,
    ):
        torch.testing.assert_close(mine, definition, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("tau", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("n_samples", [1, 31, 32, 33, 61, 65])
def test_siglip_is_the_published_sum_over_pairs(n_samples, tau, monkeypatch):
    monkeypatch.setattr(tiling, "_TILE_ROWS", 32)
    monkeypatch.setattr(tiling, "_TILE_COLUMNS", 64)
    a, b, _ = _rows(n_samples)
    bias = torch.tensor(-3.0, dtype=torch.float64, requires_grad=True)
    ids = torch.arange(n_samples)
    plain = _published(a, b, tau, bias, ids, ids)
    _assert_same_with_gradients(siglip(a, b, tau, bias), plain, (a, b, bias))


def test_siglip_with_repeats_and_missing_rows():
    a, b, _ = _rows(12)
    labels = torch.arange(12) % 5
    has_a, has_b = torch.arange(12) != 3, torch.arange(12) < 9
    plain = _published(a[has_a], b[has_b], 0.1, -2.0, labels[has_a], labels[has_b])
    mask = torch.stack([has_a, has_b], dim=1)
    _assert_same_with_gradients(
        siglip(a, b, 0.1, -2.0, labels=labels, mask=mask), plain, (a, b)
    )
    assert siglip(a, b, mask=torch.tensor([[True, False]]).expand(12, 2)) == 0


def test_siglip_gradcheck_and_learned_bias():
    a, b, _ = _rows(5, width=4)
    tau, bias = (
        torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (0.4, -1.0)
    )
    assert torch.autograd.gradcheck(siglip, (a, b, tau, bias))
    module = SigLIP(learnable=True)
    module(a, b).backward()
    assert module.bias.grad < 0  # at -10 even matches are called unlikely
    assert {name for name, _ in module.named_parameters()} == {
        "bias",
        "temperature.log_temperature",
    }


def test_siglip_of_orthonormal_rows_has_a_closed_form():
    rows = torch.eye(6, dtype=torch.float64)
    expected = math.log1p(math.exp(-5 + 1)) + 5 * math.log1p(math.exp(-1))
    found = SigLIP(temperature=0.2, bias=-1.0).loss_and_grad(rows, rows)
    assert found.loss.item() == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("tau", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_siglip_in_float32_is_near_float64(tau, dtype):
    a, b, _ = _rows(257, width=64, dtype=dtype)
    wide = [x.detach().double().requires_grad_(True) for x in (a, b)]
    ids = torch.arange(257)
    ours, plain = siglip(a, b, tau), _published(*wide, tau, -10.0, ids, ids)
    assert ours.item() == pytest.approx(plain.item(), rel=1e-5)
    tolerance = 5e-5 if dtype == torch.float32 else 4e-3
    for mine, definition in zip(
        torch.autograd.grad(ours, (a, b)), torch.autograd.grad(plain, wide), strict=True
    ):
        assert (mine.double() - definition).norm() < tolerance * definition.norm()


def test_anchored_loss_is_the_mean_of_its_pairs():
    t, x, e = _rows(20)
    plain = (info_nce(t, x, 0.02) + info_nce(t, e, 0.02)) / 2
    _assert_same_with_gradients(anchored_contrastive(t, [x, e], 0.02), plain, (t, x, e))
    found = AnchoredContrastive(0.02).loss_and_grad(t, [x, e])
    torch.testing.assert_close(found.loss, plain.detach())
    again = anchored_contrastive(t, [x, e], 0.02)
    expected = torch.autograd.grad(again, (t, x, e))
    torch.testing.assert_close(found.grads, (expected[0], expected[1:]))
    weighted = anchored_contrastive(t, [x, e], 0.02, weights=[3, 1])
    plain = (3 * info_nce(t, x, 0.02) + info_nce(t, e, 0.02)) / 4
    torch.testing.assert_close(weighted, plain)


def test_a_sample_without_a_modality_is_left_out_of_its_term():
    t, x, e = _rows(10)
    mask = torch.ones((10, 2), dtype=torch.bool)
    mask[[2, 7], 0] = False
    has = mask[:, 0]
    spoilt = x.detach().masked_fill(~has[:, None], torch.nan)
    loss = anchored_contrastive(t, [spoilt, e], mask=mask)
    expected = (info_nce(t[has], x[has]) + info_nce(t, e)) / 2
    torch.testing.assert_close(loss, expected)
    mask[:, 0] = False
    loss = anchored_contrastive(t, [spoilt * torch.nan, e], mask=mask)
    torch.testing.assert_close(loss, info_nce(t, e))
    assert anchored_contrastive(t, [x, e], mask=mask & False) == 0


def test_anchored_gradcheck():
    t, x, e = _rows(4, width=4)
    tau = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda t, x, e, tau: anchored_contrastive(t, [x, e], tau), (t, x, e, tau)
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a, b: siglip(a, b[:2]), "one row per sample"),
        (lambda a, b: siglip(a, b * 0), "zero vector"),
        (lambda a, b: siglip(a * torch.nan, b), "nan or infinite"),
        (lambda a, b: siglip(a, b, bias=torch.nan), "bias must be"),
        (lambda a, b: anchored_contrastive(a, b), "others must be"),
        (lambda a, b: anchored_contrastive(a, [b], mask=a > 0), "mask must be"),
        (lambda a, b: anchored_contrastive(a, [b], weights=[0]), "weights must be"),
        (lambda a, b: anchored_contrastive(a, [b * 0]), "zero vector"),
    ],
)
def test_bad_input_gives_one_clear_error(call, message):
    with pytest.raises(ValueError, match=message):
        call(*_rows(4, 2))
