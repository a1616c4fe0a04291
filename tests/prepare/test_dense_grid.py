"""A grid over the tissue of a slide without spots."""

import numpy as np
import pytest

from neuromm.core import DataError, UsageError
from neuromm.core.spot_grid import fitted_grid, microns_per_pixel
from neuromm.prepare.dense_grid import dense_grid
from neuromm.prepare.tissue import TissueMask


class Glass:
    """A slide of 2 um a pixel, 400 pixels wide and 300 high."""

    width, height, microns_per_pixel, downsamples = 400, 300, 2.0, (1.0,)


def mask(rows, columns):
    found = np.zeros((30, 40), dtype=bool)
    found[rows, columns] = True
    return TissueMask(found, 10.0, 20.0)


def test_places_lie_a_pitch_apart_on_tissue_alone():
    tissue = mask(slice(0, 30), slice(0, 20))  # the left half
    made = dense_grid(Glass(), tissue, pitch_um=100.0)
    places = made.obsm["spatial"]
    assert len(places) == 6 * 4  # 50 pixels apart: six rows of four, of eight
    assert places[:, 0].max() < 200
    fit = fitted_grid(made.obs["array_row"], made.obs["array_col"], places, "st")
    assert fit.microns_per_pixel == pytest.approx(200 / 50)  # 200 um by their kind
    assert fit.residual_um.max() < 1e-9
    assert not fit.is_mirrored
    assert microns_per_pixel(made) == 2.0
    assert made.obs_names.is_unique


def test_the_grid_is_in_the_middle_of_the_slide():
    whole = mask(slice(0, 30), slice(0, 40))
    places = dense_grid(Glass(), whole, pitch_um=100.0).obsm["spatial"]
    np.testing.assert_allclose(places.mean(axis=0), [200, 150])


def test_a_slide_without_tissue_and_an_endless_grid_are_refused():
    nothing = mask(slice(0, 0), slice(0, 0))
    with pytest.raises(DataError, match="no place of a grid of 100 um lies on tissue"):
        dense_grid(Glass(), nothing)
    with pytest.raises(UsageError, match="take a wider one"):
        dense_grid(Glass(), nothing, pitch_um=0.5)
    with pytest.raises(UsageError, match="above 0"):
        dense_grid(Glass(), nothing, pitch_um=0)
