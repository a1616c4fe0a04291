"""What holds for every loss of the package, found by name."""

import math

import pytest
import torch

import neuromm.losses
from neuromm.losses import loss_and_grad
from tests.losses.loss_cases import (
    CASES,
    function_names,
    gradients,
    module_names,
    planted_rows,
)

TEMPERATURES = (0.01, 0.07, 1.0)

every_loss = pytest.mark.parametrize("name", sorted(CASES))
with_mask = pytest.mark.parametrize(
    "name", [name for name in sorted(CASES) if CASES[name].takes("mask")]
)
with_labels = pytest.mark.parametrize(
    "name", [name for name in sorted(CASES) if CASES[name].takes("labels")]
)


def _module(name, *args, **options):
    return getattr(neuromm.losses, name)(*args, **CASES[name].settings | options)


def _used(name, n_samples, width=8, dtype=torch.float64):
    """Row sets of which the loss has a gradient: two, or all."""
    rows = planted_rows(n_samples, width, dtype)
    found = gradients(CASES[name].loss(rows), rows)
    return [one for one, grad in zip(rows, found, strict=True) if grad.any()]


def test_every_loss_is_a_module_and_a_function_and_has_a_case():
    assert module_names() == set(CASES)
    assert function_names() == {case.function for case in CASES.values()}


@every_loss
def test_module_and_loss_and_grad_are_the_function(name):
    case, rows = CASES[name], planted_rows(12)
    loss = case.loss(rows, temperature=0.1)
    module = _module(name, temperature=0.1)
    torch.testing.assert_close(module(*case.arrange(rows)), loss)
    expected = gradients(loss, rows)
    found = module.loss_and_grad(*case.arrange(rows))
    again = loss_and_grad(module, *case.arrange(rows))
    for one in (found, again):
        flat = [g for x in one.grads for g in (x if isinstance(x, tuple) else (x,))]
        torch.testing.assert_close(one.loss, loss.detach())
        torch.testing.assert_close(flat, list(expected[: len(flat)]))
        assert not any(x.requires_grad for x in (one.loss, *flat))
    assert all(one.grad is None for one in rows)


@every_loss
@pytest.mark.parametrize("tau", TEMPERATURES)
def test_temperature_divides_cosines_as_in_the_closed_form(name, tau):
    case = CASES[name]
    n_samples = case.settings.get("n_groups", 8)
    rows = [torch.eye(n_samples, 9, dtype=torch.float64)] * 3
    inputs = (case.arrange_equal or case.arrange)(rows)
    expected = case.closed(tau, n_samples)
    found = _module(name, temperature=tau)(*inputs).item()
    assert found == pytest.approx(expected, rel=1e-7, abs=1e-12)


@every_loss
def test_a_learned_temperature_is_a_logarithm_within_bounds(name):
    case, rows = CASES[name], [one.detach() for one in planted_rows(12)]
    module = _module(name, temperature=0.2, learnable=True)
    log_temperature = module.temperature.log_temperature
    module(*case.arrange(rows)).backward()
    tau = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    (of_tau,) = torch.autograd.grad(case.loss(rows, temperature=tau), tau)
    assert log_temperature.grad.item() == pytest.approx(0.2 * of_tau.item(), rel=1e-5)
    low, high = module.temperature.bounds
    for start, bound in ((-20.0, low), (20.0, high)):
        with torch.no_grad():
            log_temperature.fill_(start)
        assert module.temperature().item() == pytest.approx(bound)
    assert not list(_module(name, temperature=0.2).parameters())


@every_loss
def test_gradients_are_differences_of_the_loss(name):
    case, rows = CASES[name], planted_rows(6, 5)
    tau = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    options = [{}]
    if case.takes("mask"):
        options.append({"mask": torch.arange(6) != 2})
    if case.takes("labels"):
        options.append({"labels": torch.tensor([0, 1, 0, 2, 1, 0])})
    for option in options:
        assert torch.autograd.gradcheck(
            lambda t, *rows, option=option: case.loss(
                list(rows), temperature=t, **option
            ),
            (tau, *rows),
        )


@every_loss
def test_second_derivatives_are_refused(name):
    rows = planted_rows(6)
    with pytest.raises(RuntimeError, match="first derivatives only"):
        torch.autograd.grad(CASES[name].loss(rows), rows[0], create_graph=True)


def _opposite(rows):
    """One row opposite to all of the other sets: its logits are all near -1 / tau."""
    with torch.no_grad():
        centre = rows[0][:1].clone()
        for one in rows[1:]:
            one.mul_(0.5).add_(centre)
        rows[0][3] = -centre[0]
    return rows


@every_loss
@pytest.mark.parametrize("tau", TEMPERATURES)
@pytest.mark.parametrize("rows_of", ["planted", "opposite", "opposite of the others"])
def test_float32_keeps_the_loss_to_1e_5_and_gradients_to_5e_5(name, tau, rows_of):
    rows = planted_rows(257, 64, torch.float32, shared=0.3)
    if rows_of != "planted":
        rows = _opposite(rows)
    if rows_of == "opposite of the others":
        rows = [rows[1], rows[0], rows[2]]
    wide = [one.detach().double().requires_grad_(True) for one in rows]
    single = torch.tensor(tau, requires_grad=True)
    double = torch.tensor(tau, dtype=torch.float64, requires_grad=True)
    loss = CASES[name].loss(rows, temperature=single)
    exact = CASES[name].loss(wide, temperature=double)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=1e-5)
    found = gradients(loss, [*rows, single])
    for one, other in zip(found, gradients(exact, [*wide, double]), strict=True):
        assert one.isfinite().all()
        assert (one.double() - other).norm() <= 5e-5 * other.norm()


@every_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_has_the_statistics_of_float32(name, dtype):
    rows = planted_rows(40, 16, dtype)
    wide = [one.detach().float().requires_grad_(True) for one in rows]
    loss, exact = CASES[name].loss(rows), CASES[name].loss(wide)
    torch.testing.assert_close(loss, exact)
    for one, other in zip(gradients(loss, rows), gradients(exact, wide), strict=True):
        assert one.dtype == dtype
        torch.testing.assert_close(one, other.to(dtype))


@every_loss
def test_autocast_does_not_round_logits(name):
    rows = planted_rows(40, 16, torch.float32)
    loss = CASES[name].loss(rows)
    expected = gradients(loss, rows)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = CASES[name].loss(rows)
    found = gradients(cast, rows)
    torch.testing.assert_close(cast, loss)
    torch.testing.assert_close(found, expected)


@every_loss
def test_layout_of_rows_does_not_matter(name):
    rows = [one.detach() for one in planted_rows(20)]
    loss = CASES[name].loss(rows)
    for change in (
        lambda one: one.T.contiguous().T,
        lambda one: one.repeat_interleave(2, dim=1)[:, ::2],
        lambda one: one.flip(0).contiguous().flip(0),
    ):
        torch.testing.assert_close(CASES[name].loss([change(x) for x in rows]), loss)


@every_loss
def test_padding_around_rows_is_not_read(name):
    rows = [one.detach() for one in planted_rows(20)]
    padded = [torch.full((24, 11), torch.nan, dtype=torch.float64) for _ in rows]
    for whole, one in zip(padded, rows, strict=True):
        whole[2:22, 1:9] = one
        whole.requires_grad_(True)
    loss = CASES[name].loss([whole[2:22, 1:9] for whole in padded])
    torch.testing.assert_close(loss, CASES[name].loss(rows))
    for grad in gradients(loss, padded):
        assert grad.isfinite().all()


@every_loss
def test_lengths_of_rows_do_not_matter(name):
    rows = [one.detach() for one in planted_rows(20)]
    lengths = torch.logspace(-100, 100, 20, dtype=torch.float64)[:, None]
    torch.testing.assert_close(
        CASES[name].loss([lengths * one for one in rows]), CASES[name].loss(rows)
    )


@every_loss
def test_one_sample_has_a_finite_loss_and_gradients(name):
    rows = planted_rows(1)
    options = {"n_groups": 1} if "n_groups" in CASES[name].settings else {}
    loss = CASES[name].loss(rows, **options)
    assert loss.isfinite()
    assert all(grad.isfinite().all() for grad in gradients(loss, rows))


@with_mask
def test_samples_that_are_masked_are_as_if_not_there(name):
    rows = planted_rows(12)
    mask = torch.arange(12) % 5 != 1
    spoilt = [
        one.detach().masked_fill(~mask[:, None], torch.nan).requires_grad_(True)
        for one in rows
    ]
    loss = CASES[name].loss(spoilt, mask=mask)
    kept = [one.detach()[mask].requires_grad_(True) for one in rows]
    exact = CASES[name].loss(kept)
    torch.testing.assert_close(loss, exact)
    for one, other in zip(gradients(loss, spoilt), gradients(exact, kept), strict=True):
        torch.testing.assert_close(one[mask], other)
        assert not one[~mask].any()


@with_mask
def test_no_sample_at_all_gives_0_and_no_gradient(name):
    rows = [(one.detach() * torch.nan).requires_grad_(True) for one in planted_rows(5)]
    none = torch.zeros(5, dtype=torch.bool)
    if name == "InstanceGroup":
        with pytest.raises(ValueError, match="groups need at least as many samples"):
            CASES[name].loss(rows, mask=none)
        return
    tau = torch.tensor(0.1, requires_grad=True)
    loss = CASES[name].loss(rows, mask=none, temperature=tau)
    assert loss.item() == 0
    assert not any(grad.any() for grad in gradients(loss, [*rows, tau]))


@with_labels
def test_which_repeat_of_a_stimulus_is_beside_a_row_does_not_matter(name):
    # A repeat that were a negative would not trade places with the match.
    rows = [one.detach() for one in planted_rows(12)]
    labels = torch.tensor([0, 1, 2, 0, 1, 3, 0, 4, 5, 5, 6, 7])
    order = torch.arange(12)
    order[[0, 3, 6, 8, 9]] = torch.tensor([3, 6, 0, 9, 8])
    moved = [rows[0], *(one[order] for one in rows[1:])]
    loss = CASES[name].loss(rows, labels=labels)
    torch.testing.assert_close(CASES[name].loss(moved, labels=labels), loss)
    assert (CASES[name].loss(moved) - CASES[name].loss(rows)).abs() > 1e-3


@with_labels
def test_labels_of_samples_that_all_differ_change_nothing(name):
    rows = planted_rows(9)
    labels = torch.randperm(9, generator=torch.Generator().manual_seed(1)) - 4
    loss = CASES[name].loss(rows, labels=labels)
    torch.testing.assert_close(loss, CASES[name].loss(rows))
    with pytest.raises(ValueError, match="9 whole numbers, one per sample"):
        CASES[name].loss(rows, labels=labels[:8])
    with pytest.raises(ValueError, match="9 whole numbers, one per sample"):
        CASES[name].loss(rows, labels=labels.double())


def _spoilt(rows, place, value):
    changed = [one.detach().clone() for one in rows]
    changed[place][2] = value
    return changed


@every_loss
def test_bad_rows_are_named_wherever_they_are(name):
    case, rows = CASES[name], _used(name, 8)
    spare = planted_rows(8)[len(rows) :]

    def refused(changed, message, kind=ValueError):
        with pytest.raises(kind, match=message):
            case.loss([*changed, *spare])

    for place in range(len(rows)):
        for value in (math.nan, math.inf, -math.inf):
            refused(_spoilt(rows, place, value), "nan or infinite .* first in row 2")
        refused(_spoilt(rows, place, 0.0), "rows of zeros, the first at 2")
        whole = [one.detach() for one in rows]
        for change, message, kind in (
            (lambda one: one[:5], "one row per sample", ValueError),
            (lambda one: one[:, :7], "same width", ValueError),
            (lambda one: one[None], r"shape \(n_samples, n_features\)", ValueError),
            (lambda one: one.long(), "must be a floating-point tensor", TypeError),
            (lambda one: one.tolist(), "must be a floating-point tensor", TypeError),
        ):
            changed = [*whole]
            changed[place] = change(whole[place])
            refused(changed, message, kind)


@every_loss
def test_an_empty_batch_and_a_bad_temperature_are_refused(name):
    rows = planted_rows(8)
    with pytest.raises(ValueError, match="at least one of each"):
        CASES[name].loss([one[:0] for one in rows])
    for tau in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="temperature must be one positive finite"):
            CASES[name].loss(rows, temperature=tau)
        with pytest.raises(ValueError, match="temperature must be one positive finite"):
            _module(name, temperature=tau)
    with pytest.raises(ValueError, match="within its bounds"):
        _module(name, temperature=2.0, learnable=True)


@with_mask
def test_a_mask_of_other_samples_or_numbers_is_refused(name):
    rows = planted_rows(8)
    for mask in (torch.ones(8), torch.ones(7, dtype=torch.bool), torch.ones(8, 9) > 0):
        with pytest.raises(ValueError, match="mask must be boolean of shape"):
            CASES[name].loss(rows, mask=mask)


@every_loss
def test_gathering_without_processes_is_refused(name):
    with pytest.raises(RuntimeError, match="process group"):
        CASES[name].loss(planted_rows(8), gather=True)
