"""SoftCLIP and MixCo against the formulas of their papers."""

import math

import pytest
import scipy.stats
import torch
from torch.nn.functional import cross_entropy, normalize

from neuromm.kernels import tiling
from neuromm.losses.mixed_samples import MixCo, Mixing, draw_mixing, mixco
from neuromm.losses.softened_pairs import SoftCLIP, soft_clip

SIZES = (1, 2, 31, 32, 33, 127)


def _batch(n_samples, width=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (2, n_samples, width)
    rows = torch.randn(shape, generator=generator, dtype=torch.float64)
    return rows[0].requires_grad_(), rows[1].requires_grad_()


def _plain_soft_clip(brain, image, tau):
    b, v = normalize(brain), normalize(image)
    target = (v @ v.T / tau).softmax(1)
    s = b @ v.T / tau
    return (cross_entropy(s, target) + cross_entropy(s.T, target)) / 2


def _plain_mixco(brain, image, mixing, tau, labels=None):
    s = normalize(brain) @ normalize(image).T / tau
    n = len(brain)
    if labels is not None:
        same = (labels[:, None] == labels).to(brain.dtype)
        share = same / same.sum(dim=1, keepdim=True)
    target = torch.zeros(n, n, dtype=brain.dtype)
    for i in range(n):
        target[i, i] += mixing.weight[i]
        target[i, mixing.partner[i]] += 1 - mixing.weight[i]
    if labels is not None:
        target = target @ share
    return (cross_entropy(s, target) + cross_entropy(s.T, target.T)) / 2


def _mixing(n_samples):
    return draw_mixing(n_samples, torch.Generator().manual_seed(3), alpha=0.5)


def _assert_same(fast, plain, leaves):
    torch.testing.assert_close(fast, plain, rtol=1e-10, atol=1e-10)
    got = torch.autograd.grad(fast, leaves)
    expected = torch.autograd.grad(plain, leaves)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("n_samples", SIZES)
@pytest.mark.parametrize("tau", [0.01, 0.07, 1.0])
def test_losses_and_gradients_are_those_of_the_formula(monkeypatch, n_samples, tau):
    monkeypatch.setattr(tiling, "_PANEL_BYTES", 32 * 8 * n_samples)
    brain, image = _batch(n_samples)
    leaves = [brain, image]
    _assert_same(
        soft_clip(brain, image, tau), _plain_soft_clip(brain, image, tau), leaves
    )
    mixing = _mixing(n_samples)
    _assert_same(
        mixco(brain, image, mixing, tau),
        _plain_mixco(brain, image, mixing, tau),
        leaves,
    )


def test_targets_of_a_mixture_are_shared_by_the_repeats_of_its_stimuli():
    brain, image = _batch(17)
    mixing, labels = _mixing(17), torch.arange(17) % 6
    _assert_same(
        mixco(brain, image, mixing, 0.1, labels),
        _plain_mixco(brain, image, mixing, 0.1, labels),
        [brain, image],
    )


def test_gradients_are_differences_of_the_losses():
    brain, image = _batch(5)
    tau = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(soft_clip, (brain, image, tau))
    mixing = _mixing(5)
    assert torch.autograd.gradcheck(
        lambda b, v, t: mixco(b, v, mixing, t), (brain, image, tau)
    )


def test_soft_clip_of_equal_rows_is_the_entropy_of_its_targets():
    image = torch.eye(4, dtype=torch.float64)
    peak = math.exp(1 / 0.5)
    log_sum = math.log(peak + 3)
    expected = log_sum - (1 / 0.5) * peak / (peak + 3)
    assert soft_clip(image, image, 0.5).item() == pytest.approx(expected)
    ones = torch.ones(4, 3, dtype=torch.float64)
    assert soft_clip(ones, ones, 0.5).item() == pytest.approx(math.log(4))


def test_detached_targets_change_the_gradient_of_the_image_alone():
    brain, image = _batch(9)
    free = torch.autograd.grad(soft_clip(brain, image), [brain, image])
    held = torch.autograd.grad(
        soft_clip(brain, image, detach_targets=True), [brain, image]
    )
    torch.testing.assert_close(free[0], held[0])
    assert (free[1] - held[1]).abs().max() > 1e-4


def test_mixco_without_mixing_is_symmetric_info_nce():
    brain, image = _batch(33)
    whole = draw_mixing(33, torch.Generator().manual_seed(0), share=0.0)
    s = normalize(brain) @ normalize(image).T / 0.07
    match = torch.arange(33)
    expected = (cross_entropy(s, match) + cross_entropy(s.T, match)) / 2
    torch.testing.assert_close(mixco(brain, image, whole, 0.07), expected)


def test_mixtures_keep_the_proportion_and_a_seed_repeats_them():
    samples = torch.arange(24.0).reshape(4, 3, 2)
    mixing = Mixing(torch.tensor([1, 0, 2, 3]), torch.tensor([0.25, 1.0, 0.5, 1.0]))
    mixed = mixing.apply(samples)
    torch.testing.assert_close(mixed[0], 0.25 * samples[0] + 0.75 * samples[1])
    torch.testing.assert_close(mixed[1:], samples[1:])
    module = MixCo()
    first, _ = module.mix(samples, torch.Generator().manual_seed(5))
    again, _ = module.mix(samples, torch.Generator().manual_seed(5))
    other, _ = module.mix(samples, torch.Generator().manual_seed(6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("alpha", [0.15, 0.7, 1.0, 6.0])
def test_weights_are_of_the_beta_distribution(alpha):
    generator = torch.Generator().manual_seed(0)
    weight = draw_mixing(20_000, generator, alpha, share=1.0).weight
    assert scipy.stats.kstest(weight.numpy(), "beta", (alpha, alpha)).pvalue > 0.01
    half = draw_mixing(20_000, generator, alpha, share=0.5).weight
    # A weight of Beta(0.15, 0.15) rounds to 1 only rarely.
    assert (half == 1).double().mean().item() == pytest.approx(0.5, abs=0.02)


def test_weights_of_any_alpha_are_numbers():
    # Gammas of a small alpha underflow; their logarithms do not.
    for alpha in (1e-6, 1e6):
        weight = draw_mixing(1000, torch.Generator().manual_seed(0), alpha, 1.0).weight
        assert ((weight >= 0) & (weight <= 1)).all()


def test_half_precision_and_strides_give_the_loss_of_float32():
    brain, image = _batch(40)
    half = [rows.detach().bfloat16().requires_grad_() for rows in (brain, image)]
    mixing = _mixing(40)
    for loss in (soft_clip, lambda b, v: mixco(b, v, mixing, 0.07)):
        value = loss(*half)
        wide = loss(half[0].float().T.contiguous().T, half[1].float())
        torch.testing.assert_close(value, wide)
        assert torch.autograd.grad(value, half)[0].dtype == torch.bfloat16


def test_modules_hold_the_settings_of_the_functions():
    brain, image = _batch(9)
    soft = SoftCLIP(0.2, learnable=True)
    loss = soft(brain, image)
    torch.testing.assert_close(loss, soft_clip(brain, image, 0.2), rtol=1e-6, atol=0)
    loss.backward()
    assert soft.temperature.log_temperature.grad.abs() > 0
    mixing = _mixing(9)
    torch.testing.assert_close(
        MixCo(0.02)(brain, image, mixing), mixco(brain, image, mixing, 0.02)
    )


def test_bad_input_is_named():
    brain, image = (rows.detach() for rows in _batch(4))
    mixing = _mixing(4)
    losses = (soft_clip, lambda b, v: mixco(b, v, mixing))
    for loss in losses:
        with pytest.raises(ValueError, match="one row per sample"):
            loss(brain[:3], image)
        with pytest.raises(ValueError, match="image has 4 rows of zeros"):
            loss(brain, 0 * image)
        with pytest.raises(ValueError, match="brain has nan"):
            loss(brain * math.nan, image)
    with pytest.raises(ValueError, match="permutation of 4 samples"):
        mixco(brain, image, _mixing(5))
    with pytest.raises(ValueError, match="lie in"):
        mixco(brain, image, Mixing(mixing.partner, 2 * torch.ones(4)))
    with pytest.raises(ValueError, match="alpha > 0"):
        draw_mixing(4, torch.Generator(), alpha=0.0)
    with pytest.raises(ValueError, match="mixing is of 4 samples, got 3"):
        mixing.apply(brain[:3])
