"""InfoNCE against its definition, closed forms and what must not change it."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from neuromm.losses import InfoNCE, info_nce


def _rows(n_samples, width=12, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn((n_samples, width), generator=generator, dtype=torch.float64)
    return rows.to(dtype)


def _pair(n_samples, width=12, dtype=torch.float64):
    a = _rows(n_samples, width)
    b = 0.3 * a + _rows(n_samples, width, seed=1)
    return a.to(dtype).requires_grad_(True), b.to(dtype).requires_grad_(True)


def _plain(a, b, tau=0.07, ids_a=None, ids_b=None):
    logits = normalize(a) @ normalize(b).T / tau
    if ids_a is None:
        ids_a = ids_b = torch.arange(len(a))
    same = ids_a[:, None] == ids_b
    losses = []
    for s, p in ((logits, same), (logits.T, same.T)):
        p = p.double()
        row = -(p * s.log_softmax(dim=1)).sum(dim=1) / p.sum(dim=1).clamp_min(1)
        losses.append(row[p.sum(dim=1) > 0].mean())
    return sum(losses) / 2


def _assert_same_with_gradients(ours, plain, inputs, tolerance=1e-10):
    torch.testing.assert_close(ours, plain, rtol=tolerance, atol=tolerance)
    for mine, definition in zip(
        torch.autograd.grad(ours, inputs),
        torch.autograd.grad(plain, inputs),
        strict=True,
    ):
        torch.testing.assert_close(mine, definition, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("n_samples", [1, 2, 31, 32, 33, 127])
@pytest.mark.parametrize("tau", [0.01, 0.07, 1.0])
def test_loss_and_gradients_are_those_of_cross_entropy(n_samples, tau):
    a, b = _pair(n_samples)
    match = torch.arange(n_samples)
    logits = normalize(a) @ normalize(b).T / tau
    plain = (cross_entropy(logits, match) + cross_entropy(logits.T, match)) / 2
    _assert_same_with_gradients(info_nce(a, b, tau), plain, (a, b))
    one = cross_entropy(logits, match)
    torch.testing.assert_close(info_nce(a, b, tau, direction="a_to_b"), one)
    other = cross_entropy(logits.T, match)
    torch.testing.assert_close(info_nce(a, b, tau, direction="b_to_a"), other)


def test_repeats_of_a_stimulus_are_positives():
    a, b = _pair(20)
    labels = torch.arange(20) % 7
    plain = _plain(a, b, ids_a=labels, ids_b=labels)
    _assert_same_with_gradients(info_nce(a, b, labels=labels), plain, (a, b))


def test_repeats_that_all_match_are_not_pushed_away():
    rows = torch.eye(4, dtype=torch.float64).repeat(3, 1).requires_grad_(True)
    labels = torch.arange(4).repeat(3)
    loss = info_nce(rows, rows.detach(), 0.01, labels=labels)
    torch.testing.assert_close(loss, torch.tensor(math.log(3), dtype=torch.float64))
    assert torch.autograd.grad(loss, rows)[0].abs().max() < 1e-12


def test_a_row_without_partner_is_a_negative_and_nothing_else():
    a, b = _pair(9)
    mask = torch.ones((9, 2), dtype=torch.bool)
    mask[2, 0] = mask[5, 1] = mask[6] = False
    spoilt = b.detach().clone()
    spoilt[~mask[:, 1]] = torch.nan
    ids = torch.arange(9)
    plain = _plain(a[mask[:, 0]], b[mask[:, 1]], 0.07, ids[mask[:, 0]], ids[mask[:, 1]])
    torch.testing.assert_close(info_nce(a, spoilt, mask=mask), plain)
    both = mask.all(dim=1)
    torch.testing.assert_close(
        info_nce(a, spoilt, mask=both), info_nce(a[both], b[both])
    )


def test_no_positive_at_all_gives_zero_and_zero_gradients():
    a, b = _pair(4)
    mask = torch.tensor([[True, False], [True, False], [False, True], [False, True]])
    without_b = torch.tensor([[True, False]]).expand(4, 2)
    for absent in (mask, without_b, torch.zeros(4, dtype=torch.bool)):
        loss = info_nce(a, b, mask=absent)
        grad_a, grad_b = torch.autograd.grad(loss, (a, b))
        assert loss == 0
        assert not grad_a.any()
        assert not grad_b.any()


@pytest.mark.parametrize("tau", [0.01, 0.07, 1.0])
def test_orthonormal_rows_give_the_closed_form(tau):
    rows = torch.linalg.qr(_rows(16, 16))[0]
    expected = math.log1p(15 * math.exp(-1 / tau))
    assert info_nce(rows, 3 * rows, tau).item() == pytest.approx(expected, abs=1e-12)


def test_equal_rows_are_at_chance():
    rows = torch.ones((30, 5), dtype=torch.float64)
    assert info_nce(rows, rows).item() == pytest.approx(math.log(30))


def test_order_and_length_of_rows_do_not_matter():
    a, b = (x.detach() for x in _pair(33))
    order = torch.randperm(33, generator=torch.Generator().manual_seed(3))
    loss = info_nce(a, b)
    torch.testing.assert_close(info_nce(a[order], b[order]), loss)
    lengths = torch.logspace(-100, 100, 33, dtype=torch.float64)[:, None]
    torch.testing.assert_close(info_nce(a * lengths, b), loss)


@pytest.mark.parametrize("tau", [0.01, 0.07, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_statistics_are_float32_whatever_the_input(tau, dtype):
    a, b = _pair(257, 64, dtype)
    wide = [x.detach().double().requires_grad_(True) for x in (a, b)]
    loss, plain = info_nce(a, b, tau), _plain(*wide, tau)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(plain.item(), rel=1e-5)
    # Gradients are handed back in the precision of the input.
    tolerance = {torch.float32: 5e-5, torch.bfloat16: 4e-3, torch.float16: 3e-2}[dtype]
    for mine, definition in zip(
        torch.autograd.grad(loss, (a, b)), torch.autograd.grad(plain, wide), strict=True
    ):
        assert mine.dtype == dtype
        assert (mine.double() - definition).norm() < tolerance * definition.norm()


def test_rows_need_not_be_contiguous():
    wide = torch.cat([_rows(12, 20), _rows(12, 20, seed=1)], dim=1)
    a, b = wide[:, :20:2], wide.T[20::2].T
    torch.testing.assert_close(info_nce(a, b), info_nce(a.contiguous(), b.contiguous()))


def test_gradcheck_with_the_temperature():
    a, b = _pair(5, 4)
    tau = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 1, 2, 1, 3])
    assert torch.autograd.gradcheck(lambda a, b, t: info_nce(a, b, t), (a, b, tau))
    assert torch.autograd.gradcheck(
        lambda a, b, t: info_nce(a, b, t, labels, direction="a_to_b"), (a, b, tau)
    )


def test_a_learned_temperature_follows_the_closed_form_and_its_bounds():
    rows = torch.linalg.qr(_rows(16, 16))[0]
    module = InfoNCE(temperature=0.5, learnable=True)
    module(rows, rows).backward()
    away = 15 * math.exp(-1 / 0.5)
    # d log(1 + 15 exp(-1 / tau)) / d log tau = away / (1 + away) / tau
    expected = away / (1 + away) / 0.5
    log_tau = module.temperature.log_temperature
    assert log_tau.grad.item() == pytest.approx(expected, rel=1e-6)
    with torch.no_grad():
        log_tau.fill_(-9.0)
    assert module.temperature().item() == pytest.approx(0.01)
    assert not list(InfoNCE(temperature=0.5).parameters())


def test_loss_and_grad_is_the_same_without_a_graph():
    a, b = _pair(10)
    loss, (grad_a, grad_b) = InfoNCE(0.1).loss_and_grad(a, b)
    _, expected = info_nce(a, b, 0.1), torch.autograd.grad(info_nce(a, b, 0.1), (a, b))
    torch.testing.assert_close((grad_a, grad_b), expected)
    assert not any(x.requires_grad for x in (loss, grad_a, grad_b))
    assert a.grad is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a, b: (a[:3], b), "one row per sample"),
        (lambda a, b: (a * torch.nan, b), "nan or infinite"),
        (lambda a, b: (a, b * (torch.arange(4) > 0)[:, None]), "zero vector"),
        (lambda a, b: (a[:0], b[:0]), "at least one"),
        (lambda a, b: (a, b, 0.0), "temperature must be"),
        (lambda a, b: (a, b, 0.1, torch.ones(3, dtype=torch.int64)), "labels must be"),
        (lambda a, b: (a, b, 0.1, None, torch.ones(4)), "mask must be boolean"),
        (lambda a, b: (a, b, 0.1, None, None, "up"), "direction must be"),
    ],
)
def test_bad_input_gives_one_clear_error(change, message):
    with pytest.raises(ValueError, match=message):
        info_nce(*change(_rows(4), _rows(4, seed=1)))
