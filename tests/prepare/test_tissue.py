"""Tissue is found on white and on black ground; patches hold their micrometres."""

import numpy as np
import pytest

from neuromm.core import UsageError
from neuromm.prepare.patches import (
    neighbourhood,
    spot_patch,
    spot_patches,
    tiles_inside,
)
from neuromm.prepare.tissue import tissue_mask
from tests.prepare import tissue_pictures as pictures


@pytest.mark.parametrize(
    "glass", [(247, 246, 248), (0, 0, 0), (232, 228, 226), (255, 255, 255)]
)
def test_the_mask_is_the_tissue(glass):
    slide, inside = pictures.disc_slide(glass=glass)
    tissue = tissue_mask(slide)
    assert tissue.microns_per_pixel == pytest.approx(16)
    expected = inside[2::4, 2::4][: tissue.mask.shape[0], : tissue.mask.shape[1]]
    overlap = (tissue.mask & expected).sum() / (tissue.mask | expected).sum()
    assert overlap > 0.95


def test_glass_alone_has_no_tissue_and_dust_is_not_counted():
    slide, _ = pictures.disc_slide(radius=(1e-9, 1e-9))
    slide.pixels[100:105, 200:205] = (120, 40, 140)  # 20 um across
    assert not tissue_mask(slide).mask.any()


def test_places_are_on_tissue_by_x_first():
    slide, _ = pictures.disc_slide(centre=(800, 300), radius=(200, 150))
    tissue = tissue_mask(slide)
    found = tissue.holds([[800, 300], [300, 800], [-5, 10], [5000, 300], [990, 300]])
    np.testing.assert_array_equal(found, [True, False, False, False, True])


def test_a_mask_of_too_many_pixels_is_refused():
    slide, _ = pictures.disc_slide()
    vast = pictures.MadeSlide(slide.pixels, 4.0, (1e-3,))
    with pytest.raises(UsageError, match="take larger ones"):
        tissue_mask(vast, microns_per_pixel=0.01)


def ramp():
    """Values tell places: red is x / 5, green y / 5."""
    y, x = np.mgrid[:1000, :1200]
    pixels = np.stack([x // 5, y // 5, 0 * x], axis=2)
    return pictures.MadeSlide(pixels.astype(np.uint8), 0.25)


def test_a_patch_holds_its_micrometres_around_the_spot():
    slide = ramp()
    patch = spot_patch(slide, [600, 400], size_um=100.0, size_px=200)
    assert patch.shape == (200, 200, 3)
    # 400 pixels of 0.25 um, from 400 to 800 and from 200 to 600.
    assert (patch[0, 0, 0], patch[0, -1, 0]) == (80, 159)
    assert (patch[0, 0, 1], patch[-1, 0, 1]) == (40, 119)
    patches = list(spot_patches(slide, [[600, 400], [0, 0]], size_um=100.0, size_px=50))
    assert (patches[1][:25] == 0).all()
    assert (patches[1][30:, 30:, 0] > 0).any()


def test_tiles_lie_row_by_row_around_the_patch():
    slide = ramp()
    tiles, inside = neighbourhood(slide, [600, 500], size_um=25.0, size_px=50)
    assert tiles.shape == (25, 50, 50, 3)
    assert inside.all()
    np.testing.assert_array_equal(
        tiles[12], spot_patch(slide, [600, 500], size_um=25.0, size_px=50)
    )
    # Tile 13 lies to the right of the spot: 100 pixels further in x.
    middle = np.array(spot_patch(slide, [700, 500], size_um=25.0, size_px=50))
    np.testing.assert_array_equal(tiles[13], middle)
    below = np.array(spot_patch(slide, [600, 600], size_um=25.0, size_px=50))
    np.testing.assert_array_equal(tiles[17], below)


def test_tiles_count_by_half_of_their_own_area():
    slide = ramp()  # 1200 x 1000 pixels; a tile of 25 um has 100
    inside = tiles_inside(slide, [[149, 500], [151, 500], [10, 10]], size_um=25.0)
    grid = inside.reshape(3, 5, 5)
    # Left column from -101 to -1, then from -99 to 1: neither has half inside; its
    # neighbour from -1 to 99 has.
    np.testing.assert_array_equal(grid[0].all(axis=0), [False, True, True, True, True])
    np.testing.assert_array_equal(grid[1].all(axis=0), [False, True, True, True, True])
    # In the corner 0.6 of x and of y are inside: too little of the tile of the spot.
    assert not grid[2][2, 2]
    assert grid[2][2:, 2:].sum() == 8 == grid[2].sum()
    with pytest.raises(UsageError, match="must be odd"):
        tiles_inside(slide, [[0, 0]], n_tiles=4)
