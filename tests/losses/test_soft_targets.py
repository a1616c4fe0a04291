"""Soft-target losses against a literal transcription and autograd."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from neuromm.kernels import soft_pairs
from neuromm.losses import (
    MultiLevelContrastive,
    SoftContrastive,
    info_nce,
    multi_level_contrastive,
    soft_contrastive,
)


def _batch(n_samples, n_levels=3, width=8, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    shape = (n_levels + 1, n_samples, width)
    rows = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    gene, *levels = (x.clone().requires_grad_(True) for x in rows)
    return gene, levels


def _published(gene, image, tau=0.07, target_tau=None, detached=False):
    """Line by line as section 1.2 of the method has it."""
    gene, image = normalize(gene), normalize(image)
    logits = gene @ image.T / tau
    target = (image @ image.T + gene @ gene.T) / 2 / (target_tau or tau)
    target = target.softmax(dim=-1)
    target = target.detach() if detached else target
    by_gene = (-target * logits.log_softmax(dim=-1)).sum(dim=1)
    by_image = (-target.T * logits.T.log_softmax(dim=-1)).sum(dim=1)
    return ((by_gene + by_image) / 2).mean()


def _assert_same_with_gradients(ours, plain, inputs):
    torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-10)
    for mine, definition in zip(
        torch.autograd.grad(ours, inputs),
        torch.autograd.grad(plain, inputs),
        strict=True,
    ):
        torch.testing.assert_close(mine, definition, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("panel_rows", [None, 16])
@pytest.mark.parametrize("detached", [False, True])
@pytest.mark.parametrize("n_samples", [1, 2, 7, 31, 32, 33, 61])
def test_three_levels_are_as_published_to_1e_10(
    n_samples, detached, panel_rows, monkeypatch
):
    if panel_rows:
        monkeypatch.setattr(soft_pairs, "_PANEL_BYTES", 1)
    gene, levels = _batch(n_samples)
    tau = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    ours = multi_level_contrastive(gene, levels, tau, detach_targets=detached)
    plain = sum(_published(gene, x, tau, detached=detached) for x in levels) / 3
    inputs = (gene, *levels)
    _assert_same_with_gradients(ours, plain, inputs)
    if not detached:
        of_tau = torch.autograd.grad(multi_level_contrastive(gene, levels, tau), tau)
        plain = sum(_published(gene, x, tau) for x in levels) / 3
        torch.testing.assert_close(of_tau, torch.autograd.grad(plain, tau))


def test_the_definition_beside_the_panels_is_as_published():
    gene, levels = _batch(9, 2)
    units = [normalize(x) for x in (gene, *levels)]
    scale, target = torch.tensor(3.0), torch.tensor(0.5)
    plain = soft_pairs.plain_soft_losses(units[0], units[1:], scale, target)
    for mine, level in zip(plain, levels, strict=True):
        torch.testing.assert_close(mine, _published(gene, level, 1 / 3, 2.0))


def test_targets_of_their_own_temperature():
    gene, (image,) = _batch(12, 1)
    ours = soft_contrastive(gene, image, 0.1, target_temperature=0.5)
    _assert_same_with_gradients(ours, _published(gene, image, 0.1, 0.5), (gene, image))


def test_gradcheck_of_both_temperatures():
    gene, levels = _batch(5, 2, 4)
    taus = [
        torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (0.3, 0.6)
    ]
    assert torch.autograd.gradcheck(
        lambda g, a, b, t, u: multi_level_contrastive(
            g, [a, b], t, target_temperature=u
        ),
        (gene, *levels, *taus),
    )


def test_one_sample_is_no_loss_and_equal_rows_are_at_chance():
    gene, (image,) = _batch(1, 1)
    assert soft_contrastive(gene, image).abs() < 1e-12
    rows = torch.ones((20, 3), dtype=torch.float64)
    assert soft_contrastive(rows, rows).item() == pytest.approx(math.log(20))


def test_sharp_targets_of_orthonormal_rows_are_those_of_info_nce():
    rows = torch.linalg.qr(_batch(8, 1)[0].detach())[0]
    other = torch.linalg.qr(_batch(8, 1)[1][0].detach())[0]
    hard = soft_contrastive(rows, other, 0.2, target_temperature=0.005)
    torch.testing.assert_close(hard, info_nce(rows, other, 0.2))


def test_order_and_length_of_rows_do_not_matter():
    gene, (image,) = (x for x in _batch(33, 1))
    order = torch.randperm(33, generator=torch.Generator().manual_seed(1))
    loss = soft_contrastive(gene, image)
    torch.testing.assert_close(soft_contrastive(gene[order], image[order]), loss)
    lengths = torch.logspace(-9, 9, 33, dtype=torch.float64)[:, None]
    torch.testing.assert_close(soft_contrastive(gene * lengths, image), loss)


@pytest.mark.parametrize("tau", [0.01, 0.07, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_float32_is_near_float64(tau, dtype):
    gene, levels = _batch(257, 3, 64, dtype)
    wide = [x.detach().double().requires_grad_(True) for x in (gene, *levels)]
    ours = multi_level_contrastive(gene, levels, tau)
    plain = sum(_published(wide[0], x, tau) for x in wide[1:]) / 3
    assert ours.item() == pytest.approx(plain.item(), rel=1e-5)
    tolerance = 5e-5 if dtype == torch.float32 else 4e-3
    for mine, definition in zip(
        torch.autograd.grad(ours, (gene, *levels)),
        torch.autograd.grad(plain, wide),
        strict=True,
    ):
        assert (mine.double() - definition).norm() < tolerance * definition.norm()


def test_missing_levels_are_left_out_of_their_mean():
    gene, levels = _batch(10)
    mask = torch.ones((10, 3), dtype=torch.bool)
    mask[4, 1] = False
    mask[:, 2] = False
    absent = [x.detach().masked_fill(~m[:, None], torch.nan) for x, m in
              zip(levels, mask.T, strict=True)]  # fmt: skip
    has = mask[:, 1]
    expected = _published(gene, levels[0]) + _published(gene[has], levels[1][has])
    loss = multi_level_contrastive(gene, absent, mask=mask)
    torch.testing.assert_close(loss, expected / 2)
    loss = soft_contrastive(gene, absent[1], mask=has)
    torch.testing.assert_close(loss, _published(gene[has], levels[1][has]))
    assert soft_contrastive(gene, absent[2], mask=mask[:, 2]) == 0


def test_modules_are_the_functions_and_cache_gradients():
    gene, levels = _batch(10)
    loss = multi_level_contrastive(gene, levels, 0.1, weights=[2, 1, 0])
    found = MultiLevelContrastive(0.1, weights=[2, 1, 0]).loss_and_grad(gene, levels)
    torch.testing.assert_close(found.loss, loss.detach())
    expected = torch.autograd.grad(loss, (gene, *levels))
    torch.testing.assert_close(found.grads, (expected[0], expected[1:]))
    found = SoftContrastive(0.1, detach_targets=True).loss_and_grad(gene, levels[0])
    plain = _published(gene, levels[0], 0.1, detached=True)
    torch.testing.assert_close(found.grads[0], torch.autograd.grad(plain, gene)[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g, x: (g, [x[:2]]), "one row per sample"),
        (lambda g, x: (g * torch.nan, [x]), "nan or infinite"),
        (lambda g, x: (g, [x * 0]), "zero vector"),
        (lambda g, x: (g, x), "levels must be"),
        (lambda g, x: (g, [x], -1.0), "temperature must be"),
        (lambda g, x: (g, [x], 0.1, torch.ones(4)), "mask must be boolean"),
        (lambda g, x: (g, [x], 0.1, None, [1.0, 2.0]), "weights must be"),
    ],
)
def test_bad_input_gives_one_clear_error(change, message):
    gene, (image,) = _batch(4, 1)
    with pytest.raises(ValueError, match=message):
        multi_level_contrastive(*change(gene, image))
