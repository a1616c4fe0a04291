"""Colour and texture have closed forms on pictures of one colour, stripes and noise."""

import numpy as np
import pytest

from neuromm.core import DataError
from neuromm.features import load_backbone
from neuromm.prepare.stain import HED_VECTORS
from tests.prepare.tissue_pictures import disc_slide

GRADIENTS, PATTERNS, ENTROPY, ROUGHNESS = (
    slice(30, 54), slice(54, 74), slice(74, 84), slice(84, 96),
)  # fmt: skip


def statistics(*pictures):
    return load_backbone("colorstats").embed(pictures)


def plain(colour, side=64):
    return np.full((side, side, 3), colour, dtype=np.uint8)


def test_one_colour_has_its_moments_and_no_texture():
    (found,) = statistics(plain((51, 102, 204)))
    moments = found[:15].reshape(3, 5)
    np.testing.assert_allclose(
        moments, [[v, 0, v, v, v] for v in (0.2, 0.4, 0.8)], atol=1e-6
    )
    np.testing.assert_array_equal(found[GRADIENTS].reshape(2, 12), [[1] + [0] * 11] * 2)
    # No neighbour is darker: eight of eight, at both rings.
    np.testing.assert_array_equal(
        found[PATTERNS].reshape(2, 10), [[0] * 8 + [1, 0]] * 2
    )
    np.testing.assert_array_equal(found[ENTROPY], [0, 0, 1] + [0] * 7)
    np.testing.assert_allclose(found[ROUGHNESS], 0, atol=1e-6)


@pytest.mark.parametrize("stain", [0, 1])
def test_a_pure_stain_is_told_from_the_other(stain):
    vector = HED_VECTORS[stain] / np.linalg.norm(HED_VECTORS[stain])
    (found,) = statistics(plain(np.rint(255 * 10 ** -(0.6 * vector))))
    expected = np.zeros(3)
    expected[stain] = 0.6
    # Rounding to 8 bits: half of a level of 60, and the inverse widens it.
    np.testing.assert_allclose(found[15:30].reshape(3, 5)[:, 0], expected, atol=0.01)


def test_stripes_have_the_entropy_and_the_spread_of_two_levels():
    """9 pixels hold 5 columns of the one and 4 of the other."""
    stripes = plain(0)
    stripes[:, ::2] = 255
    (found,) = statistics(stripes)
    share = np.array([5, 4]) / 9
    np.testing.assert_allclose(
        found[ENTROPY][:2], [-(share * np.log2(share)).sum(), 0], atol=1e-6
    )
    brightness = found[ROUGHNESS].reshape(3, 4)[2]
    np.testing.assert_allclose(
        brightness, [np.sqrt(1 - 1 / n**2) / 2 for n in (3, 7, 15, 31)], rtol=1e-5
    )
    # A bright column has 2 of 8 neighbours as bright, apart from each other; a dark
    # one has none darker. At 2 pixels a column sees its like alone or beside.
    near, far = found[PATTERNS].reshape(2, 10)
    np.testing.assert_allclose(near[[8, 9]], [0.5, 0.5], atol=1e-6)
    assert far[8] == 1


@pytest.mark.parametrize("side", [96, 224, 448])
def test_turns_and_mirrors_change_nothing(side):
    pixels, _ = disc_slide()
    picture = pixels.pixels[200 : 200 + side, 300 : 300 + side]
    turned = [np.rot90(picture, turn) for turn in range(4)] + [picture[:, ::-1]]
    found = statistics(*turned)
    assert found.shape == (5, 96)
    assert found.dtype == np.float32
    # Order of summation alone; roughness is a root, and so the least exact.
    np.testing.assert_allclose(found, found[[0] * 5], atol=1e-6)
    assert np.abs(found[0] - statistics(plain(250, side))[0]).max() > 0.5


def test_shares_add_up_and_tokens_are_of_the_quarters_row_by_row():
    slide, _ = disc_slide()
    picture = slide.pixels[100:300, 150:350]
    backbone = load_backbone("colorstats")
    found = backbone.embed([picture])[0]
    groups = [found[30:42], found[42:54], found[54:64], found[64:74], found[76:84]]
    np.testing.assert_allclose([group.sum() for group in groups], 1, rtol=1e-5)
    (state,) = backbone.tokens([picture])
    quarters = [picture[r : r + 100, c : c + 100] for r in (0, 100) for c in (0, 100)]
    np.testing.assert_array_equal(state.values, backbone.embed(quarters))


def test_it_is_a_stand_in_and_says_what_it_cannot_take():
    backbone = load_backbone("colorstats")
    assert backbone.attrs["kind"] == "stand-in"
    with pytest.raises(
        DataError, match=r"32 pixels along a side at least.*got 20 x 64"
    ):
        backbone.embed([plain(9)[:20]])
    with pytest.raises(DataError, match="no stimuli"):
        backbone.embed([])
