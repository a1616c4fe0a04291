"""The pitch of an array tells the size of a pixel, and a swap of x and y."""

import numpy as np
import pytest

from neuromm.core import UsageError
from neuromm.core.spot_grid import chip_positions, fitted_grid


def hexagonal(n_rows=8, n_columns=9):
    row, place = np.divmod(np.arange(n_rows * n_columns), n_columns)
    return row, 2 * place + row % 2


def test_neighbours_on_a_hexagonal_array_are_100_micrometres_apart():
    positions = chip_positions(*hexagonal(), "visium")
    distance = np.hypot(*(positions[:, None] - positions[None]).transpose(2, 0, 1))
    np.fill_diagonal(distance, np.inf)
    np.testing.assert_allclose(distance.min(axis=1), 100.0)
    # Inner spots have six neighbours.
    assert (np.isclose(distance, 100.0).sum(axis=1)).max() == 6


@pytest.mark.parametrize("kind", ["visium", "st"])
@pytest.mark.parametrize("turn_deg", [0.0, 3.0, 90.0, -170.0])
def test_scale_and_turn_of_the_picture_come_back(kind, turn_deg):
    row, col = hexagonal() if kind == "visium" else np.divmod(np.arange(72), 9)
    angle, size = np.deg2rad(turn_deg), 0.37
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    pixels = chip_positions(row, col, kind) @ turn / size + [400.0, 900.0]
    fit = fitted_grid(row, col, pixels, kind)
    assert fit.microns_per_pixel == pytest.approx(size, rel=1e-12)
    assert np.cos(np.deg2rad(fit.rotation_deg - turn_deg)) == pytest.approx(1)
    assert not fit.is_mirrored
    assert fit.residual_um.max() < 1e-8
    swapped = fitted_grid(row, col, pixels[:, ::-1], kind)
    assert swapped.is_mirrored
    assert swapped.microns_per_pixel == pytest.approx(size, rel=1e-12)


def test_one_displaced_spot_stands_out():
    row, col = hexagonal()
    pixels = chip_positions(row, col, "visium") / 0.5
    pixels[17, 0] += 120.0
    fit = fitted_grid(row, col, pixels, "visium")
    assert fit.residual_um.argmax() == 17
    assert fit.residual_um[17] == pytest.approx(60.0, rel=0.1)


def test_spots_on_one_line_tell_no_scale():
    with pytest.raises(UsageError, match="not on one line"):
        fitted_grid([0, 0, 0], [0, 2, 4], [[0, 0], [100, 0], [200, 0]], "visium")
    with pytest.raises(UsageError, match="visium, st"):
        chip_positions([0], [0], "hex")
