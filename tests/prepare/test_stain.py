"""Stains that were planted are found, and one slide is shown in those of another."""

import numpy as np
import pytest

from neuromm.core import DataError, UsageError
from neuromm.prepare.patches import spot_patch
from neuromm.prepare.stain import (
    HED_VECTORS,
    StainNormalised,
    optical_density,
    stain_fit,
    stain_normalised,
)
from tests.prepare.tissue_pictures import MadeSlide

OTHER = np.array([[0.55, 0.78, 0.30], [0.18, 0.90, 0.40]])


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def amounts(seed=0, n=(80, 100)):
    """Both stains everywhere; 4 % of pixels of each alone, and a third of glass."""
    rng = np.random.default_rng(seed)
    both = rng.uniform(0.2, 0.8, (*n, 2))
    kind = rng.random(n)
    both[kind < 0.04, 0] = 0
    both[kind > 0.96, 1] = 0
    both[:, :33] = 0
    return both


def picture(both, vectors, scale=(1.0, 1.0)):
    light = 255 * 10.0 ** -(both * scale @ unit(vectors))
    return np.rint(light).astype(np.uint8)


@pytest.mark.parametrize("vectors", [HED_VECTORS[:2], OTHER])
def test_planted_stains_are_recovered_within_a_degree(vectors):
    fit = stain_fit(picture(amounts(), vectors))
    cosines = (fit.vectors * unit(vectors)).sum(axis=1)
    # 8 bits turn the palest pixels, of 0.2, by about half a degree.
    assert np.rad2deg(np.arccos(np.minimum(cosines, 1))).max() < 1
    np.testing.assert_allclose(fit.strongest, 0.79, atol=0.02)


def test_one_tissue_stained_twice_becomes_one_picture():
    both = amounts()
    strong = picture(both, OTHER, scale=(1.3, 0.8))
    wanted = picture(both, HED_VECTORS[:2])
    found = stain_normalised(strong, stain_fit(strong), stain_fit(wanted))
    before = np.abs(strong[:, 33:].astype(int) - wanted[:, 33:]).mean()
    after = np.abs(found[:, 33:].astype(int) - wanted[:, 33:]).mean()
    assert before > 15
    assert after < 2  # of 255: the error of the fits, within a degree


def test_glass_and_the_black_of_a_mask_keep_their_bytes():
    pixels = picture(amounts(), OTHER)
    fit, target = stain_fit(pixels), stain_fit(picture(amounts(), HED_VECTORS[:2]))
    pixels[:40, :33] = (244, 240, 247)
    pixels[40:, :33] = 0
    found = stain_normalised(pixels, fit, target)
    np.testing.assert_array_equal(found[:, :33], pixels[:, :33])
    assert (found[:, 33:] != pixels[:, 33:]).any(axis=-1).mean() > 0.9


def test_a_normalised_slide_gives_normalised_patches():
    slide = MadeSlide(picture(amounts(), OTHER), microns_per_pixel=2.0)
    fits = stain_fit(slide.pixels), stain_fit(picture(amounts(), HED_VECTORS[:2]))
    patch = spot_patch(StainNormalised(slide, *fits), [50, 40], size_um=40, size_px=20)
    own = spot_patch(slide, [50, 40], size_um=40, size_px=20)
    np.testing.assert_array_equal(patch, stain_normalised(own, *fits))


def test_density_is_zero_for_white_and_one_for_a_tenth_of_the_light():
    found = optical_density(np.array([[255, 0, 26]], dtype=np.uint8))
    np.testing.assert_allclose(
        found, [[0, np.log10(255), np.log10(255 / 26)]], rtol=1e-12
    )


def test_glass_one_stain_and_floats_are_refused():
    with pytest.raises(DataError, match="got 0: is this glass"):
        stain_fit(np.full((50, 50, 3), 250, dtype=np.uint8))
    one = picture(amounts() * [1, 0], OTHER)
    with pytest.raises(DataError, match="one stain alone"):
        stain_fit(one)
    with pytest.raises(UsageError, match="got float64"):
        stain_fit(np.ones((50, 50, 3)))
