"""Log-sum-exp by tiles against its definition, on both paths and across tile edges."""

import math

import pytest
import torch

from neuromm.kernels import pair_tiles, tiling
from neuromm.kernels.pair_tiles import pair_log_sums, plain_log_sums

SIZES = (1, 7, 31, 32, 33, 61, 64, 65)


@pytest.fixture
def small_tiles(monkeypatch):
    monkeypatch.setattr(tiling, "_TILE_ROWS", 32)
    monkeypatch.setattr(tiling, "_TILE_COLUMNS", 64)


def _units(n_rows, width=16, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn((n_rows, width), generator=generator, dtype=torch.float64)
    return torch.nn.functional.normalize(rows).to(dtype).requires_grad_(True)


def _weighted(function, left, right, scale):
    rows, columns = function(left, right, scale)
    return (rows * torch.arange(len(rows)).cos()).sum() + (columns**2).mean()


def _agrees(left, right, scale, rtol):
    ours = torch.autograd.grad(
        _weighted(pair_log_sums, left, right, scale), (left, right, scale)
    )
    wide = [x.detach().double().requires_grad_(True) for x in (left, right, scale)]
    plain = torch.autograd.grad(_weighted(plain_log_sums, *wide), wide)
    for mine, right_one in zip(ours, plain, strict=True):
        error = (mine.double() - right_one).norm() / right_one.norm()
        assert error < rtol
    for mine, right_one in zip(
        pair_log_sums(left, right, scale), plain_log_sums(*wide), strict=True
    ):
        torch.testing.assert_close(mine.double(), right_one, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("n_rows", SIZES)
@pytest.mark.usefixtures("small_tiles")
def test_tiles_sum_to_the_definition(n_rows, kept, monkeypatch):
    if not kept:
        monkeypatch.setattr(pair_tiles, "_KEPT_BYTES", 0)
    for n_columns in (n_rows, 64 + 1):
        scale = torch.tensor(14.3, dtype=torch.float64, requires_grad=True)
        _agrees(_units(n_rows), _units(n_columns, seed=1), scale, 1e-12)


@pytest.mark.parametrize("scale", [1.0, 14.3, 77.0, 100.0])
@pytest.mark.usefixtures("small_tiles")
def test_float32_is_near_float64_from_temperature_1_to_a_hundredth(scale):
    left = _units(97, dtype=torch.float32)
    right = _units(97, seed=1, dtype=torch.float32)
    _agrees(left, right, torch.tensor(scale, requires_grad=True), 2e-5)


@pytest.mark.parametrize("safe", ["row", "column"])
@pytest.mark.usefixtures("small_tiles")
def test_a_row_or_column_that_underflows_is_right_by_running_maxima(safe, monkeypatch):
    left, right = (
        _units(70, seed=seed, dtype=torch.float32).detach() for seed in (0, 1)
    )
    # One row opposite to all of the other set: every logit near -100.
    right[:] = torch.nn.functional.normalize(right[:1] + 0.05 * right)
    left[3] = -right[0]
    if safe == "column":
        left, right = right, left
    left.requires_grad_(True)
    right.requires_grad_(True)
    taken = []
    running = pair_tiles._running_log_sums
    monkeypatch.setattr(
        pair_tiles,
        "_running_log_sums",
        lambda *args: taken.append(1) or running(*args),
    )
    _agrees(left, right, torch.tensor(100.0, requires_grad=True), 2e-5)
    assert taken


def test_equal_rows_give_the_logarithm_of_their_number():
    rows = torch.ones((50, 4), dtype=torch.float64) / 2
    by_row, by_column = pair_log_sums(rows, rows[:20], torch.tensor(7.0))
    torch.testing.assert_close(by_row, torch.full_like(by_row, 7 + math.log(20)))
    torch.testing.assert_close(by_column, torch.full_like(by_column, 7 + math.log(50)))


def test_half_precision_and_a_second_derivative_are_refused():
    left, scale = _units(4), torch.tensor(1.0, dtype=torch.float64)
    with pytest.raises(TypeError, match="widen half precision"):
        pair_log_sums(left.half(), left.half(), scale)
    rows, _ = pair_log_sums(left, _units(4, seed=1), scale)
    (first,) = torch.autograd.grad(rows.square().sum(), left, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()
