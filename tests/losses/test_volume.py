"""The volume loss against stacked determinants, and what volumes cannot tell apart."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from neuromm.kernels import volume_softmax
from neuromm.losses.volume import GramVolume, gram_volume, gram_volumes

SIZES = (1, 2, 31, 32, 33, 127)


def _batch(n_samples, n_others, width=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (n_others + 1, n_samples, width)
    rows = torch.randn(shape, generator=generator, dtype=torch.float64)
    return rows[0], list(rows[1:])


def _stacked_determinants(anchor, others):
    """Volumes as the authors compute them, with the floor."""
    n = len(anchor)
    first = normalize(anchor)[:, None].expand(n, n, -1)
    rest = [normalize(rows)[None].expand(n, n, -1) for rows in others]
    vectors = torch.stack([first, *rest], dim=2)
    return (vectors @ vectors.mT).det().clamp_min(1e-6).sqrt()


def _plain(anchor, others, tau=0.07, weight=1.0, smoothing=0.0):
    match = torch.arange(len(anchor))
    logits = -_stacked_determinants(anchor, others) / tau
    loss = sum(
        cross_entropy(s, match, label_smoothing=smoothing) for s in (logits, logits.T)
    )
    for rows in others:
        cosine = normalize(anchor) @ normalize(rows).T / tau
        pair = cross_entropy(cosine, match) + cross_entropy(cosine.T, match)
        loss = loss + weight * pair / len(others)
    return loss / 2


def _gradients(loss, rows):
    return torch.autograd.grad(loss, rows)


@pytest.mark.parametrize("n_samples", SIZES)
@pytest.mark.parametrize("n_others", [1, 2, 3])
def test_volume_loss_is_that_of_stacked_determinants(monkeypatch, n_samples, n_others):
    monkeypatch.setattr(volume_softmax, "_TILE", (32, 48))
    anchor, others = _batch(n_samples, n_others)
    leaves = [rows.requires_grad_() for rows in (anchor, *others)]
    fast = gram_volume(anchor, others, label_smoothing=0.1)
    plain = _plain(anchor, others, smoothing=0.1)
    torch.testing.assert_close(fast, plain, rtol=1e-10, atol=1e-10)
    for got, expected in zip(
        _gradients(fast, leaves), _gradients(plain, leaves), strict=True
    ):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-10)


def test_gradients_of_the_volume_loss_are_its_differences():
    anchor, others = _batch(6, 2)
    temperature = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    leaves = [rows.requires_grad_() for rows in (anchor, *others)]
    assert torch.autograd.gradcheck(
        lambda a, b, c, t: gram_volume(a, [b, c], t, label_smoothing=0.1),
        (*leaves, temperature),
    )


def test_volumes_at_a_temperature_below_the_fixed_shift_are_right():
    anchor, others = _batch(33, 2)
    leaves = [rows.requires_grad_() for rows in (anchor, *others)]
    fast, plain = (loss(anchor, others, 0.002) for loss in (gram_volume, _plain))
    torch.testing.assert_close(fast, plain, rtol=1e-10, atol=1e-10)
    for got, expected in zip(
        _gradients(fast, leaves), _gradients(plain, leaves), strict=True
    ):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def _angle(degrees):
    return [math.cos(math.radians(degrees)), math.sin(math.radians(degrees)), 0.0, 0.0]


@pytest.mark.parametrize(
    ("anchor", "others", "volume"),
    [
        (_angle(0), [_angle(0)], 0.0),
        (_angle(0), [_angle(0), _angle(0)], 0.0),
        (_angle(0), [_angle(90)], 1.0),
        (_angle(0), [_angle(90), [0.0, 0.0, 1.0, 0.0]], 1.0),
        (_angle(0), [_angle(60)], math.sqrt(3) / 2),
        (_angle(0), [_angle(180)], 0.0),  # opposite
        (_angle(45), [_angle(0), _angle(90)], 0.0),  # in one plane
    ],
)
def test_volume_has_its_closed_form_and_its_degeneracies(anchor, others, volume):
    rows = torch.tensor([anchor], dtype=torch.float64) * 3
    rest = [torch.tensor([other], dtype=torch.float64) * 2 for other in others]
    # 0 shows as the floor, 0.001.
    assert gram_volumes(rows, rest).item() == pytest.approx(volume, abs=1.0001e-3)


def test_dependent_vectors_have_the_floor_and_finite_gradients():
    anchor, (first,) = _batch(5, 1)
    leaves = [anchor.requires_grad_(), first.requires_grad_()]
    loss = gram_volume(anchor, [first, -2 * first], anchor_weight=0.0)
    # All volumes are equal: chance, and nothing to climb.
    assert loss.item() == pytest.approx(math.log(5))
    assert all(not grad.any() for grad in _gradients(loss, leaves))


@pytest.mark.parametrize("n_others", [1, 2, 3])
def test_aligned_float32_pairs_keep_the_volume_of_float64(n_others):
    anchor, others = _batch(64, n_others, width=128)
    near = [anchor + 0.02 * rows for rows in others]
    exact = gram_volume(anchor, near)
    single = gram_volume(anchor.float(), [rows.float() for rows in near])
    assert single.dtype == torch.float32
    # Logits reach 1 / 0.07, and a loss near 0 is a difference of such: eps times 14.
    rounding = 14.3 * torch.finfo(torch.float32).eps
    assert single.item() == pytest.approx(exact.item(), rel=1e-5, abs=2 * rounding)


def test_volume_is_invariant_to_scale_rotation_and_order():
    anchor, others = _batch(33, 2)
    loss = gram_volume(anchor, others)
    turn = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64))[0]
    order = torch.randperm(33)
    for same in (
        gram_volume(1e-200 * anchor, [1e200 * rows for rows in others]),
        gram_volume(anchor @ turn, [rows @ turn for rows in others]),
        gram_volume(anchor[order], [rows[order] for rows in others]),
        gram_volume(anchor, others[::-1]),
        gram_volume(anchor.T.contiguous().T, [rows.T.clone().T for rows in others]),
    ):
        torch.testing.assert_close(same, loss, rtol=1e-10, atol=0)


def test_all_pairs_hold_the_matched_volumes_on_their_diagonal():
    anchor, others = _batch(33, 3)
    pairs = gram_volumes(anchor, others, matched=False)
    torch.testing.assert_close(pairs.diagonal(), gram_volumes(anchor, others))
    torch.testing.assert_close(pairs, _stacked_determinants(anchor, others))
    assert gram_volumes(anchor[:4], others, matched=False).shape == (4, 33)


def test_missing_modalities_form_groups_with_a_softmax_of_their_own():
    anchor, (first, second) = _batch(12, 2)
    mask = torch.ones(12, 2, dtype=torch.bool)
    mask[5:9, 1] = False  # four samples have the first alone
    mask[9:] = False  # three have the anchor alone
    held = second.clone()
    held[~mask[:, 1]] = torch.nan  # absent rows are not read
    leaves = [anchor.requires_grad_(), first.requires_grad_(), held.requires_grad_()]
    loss = gram_volume(anchor, [first, held], anchor_weight=0.0, mask=mask)
    both = _plain(anchor[:5], [first[:5], second[:5]], weight=0.0)
    one = _plain(anchor[5:9], [first[5:9]], weight=0.0)
    torch.testing.assert_close(loss, (5 * both + 4 * one) / 9)
    full = gram_volume(anchor, [first, held], mask=mask)
    for grad in _gradients(full, leaves):
        assert grad.isfinite().all()
        assert not grad[9:].any()


def test_repeats_of_a_stimulus_share_the_target_and_are_no_negatives():
    anchor, others = _batch(14, 2)
    labels = torch.arange(14) % 5
    with torch.no_grad():
        others[1][3] = -2 * anchor[8]  # a positive pair whose volume is at the floor
    same = (labels[:, None] == labels).double()
    leaves = [rows.requires_grad_() for rows in (anchor, *others)]
    logits = -_stacked_determinants(anchor, others) / 0.07
    target = same / same.sum(dim=1, keepdim=True)
    plain = cross_entropy(logits, target) + cross_entropy(logits.T, target)
    loss = gram_volume(anchor, others, anchor_weight=0.0, labels=labels)
    torch.testing.assert_close(loss, plain / 2)
    for got, expected in zip(
        _gradients(loss, leaves), _gradients(plain / 2, leaves), strict=True
    ):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-10)


def test_half_precision_is_widened_and_autocast_leaves_the_products_alone():
    anchor, others = _batch(40, 2, width=32)
    half = [rows.bfloat16().requires_grad_() for rows in (anchor, *others)]
    loss = gram_volume(half[0], half[1:])
    wide = gram_volume(half[0].float(), [rows.float() for rows in half[1:]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = gram_volume(half[0].float(), [rows.float() for rows in half[1:]])
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, wide)
    torch.testing.assert_close(cast, wide)
    assert _gradients(loss, half)[0].dtype == torch.bfloat16


def test_module_learns_its_temperature_within_bounds():
    anchor, others = _batch(9, 2)
    module = GramVolume(temperature=0.2, learnable=True, anchor_weight=0.5)
    loss = module(anchor, others)
    plain = gram_volume(anchor, others, 0.2, 0.5)
    torch.testing.assert_close(loss, plain, rtol=1e-6, atol=0)
    loss.backward()
    assert module.temperature.log_temperature.grad.abs() > 0
    assert not [p for p in GramVolume().parameters() if p.requires_grad]


def _with(rows, index, value):
    changed = rows.clone()
    changed[index] = value
    return changed


def test_bad_input_is_named():
    anchor, others = _batch(4, 2)
    cases = [
        (anchor, [others[0][:3], others[1]], "one row per sample"),
        (anchor, [others[0], others[1][:, :5]], "same width"),
        (_with(anchor, 2, 0.0), others, "anchor has 1 rows of zeros, the first at 2"),
        (anchor, [others[0], _with(others[1], 1, torch.nan)], r"others\[1\] has nan"),
        (anchor, [others[0], _with(others[1], 3, 0.0)], r"others\[1\] has 1 rows of z"),
        (anchor, [], "sequence of one tensor per modality"),
        (anchor[:, :2], [rows[:, :2] for rows in others], "span no volume"),
        (anchor[:0], [rows[:0] for rows in others], "at least one of each"),
    ]
    for rows, rest, message in cases:
        with pytest.raises(ValueError, match=message):
            gram_volume(rows, rest)
    for temperature in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="one positive finite number"):
            gram_volume(anchor, others, temperature)
    with pytest.raises(ValueError, match="mask must be boolean"):
        gram_volume(anchor, others, mask=torch.ones(4, 2))
    with pytest.raises(ValueError, match="label_smoothing"):
        gram_volume(anchor, others, label_smoothing=1.0)
    with pytest.raises(TypeError, match="floating-point"):
        gram_volume(anchor.long(), others)
