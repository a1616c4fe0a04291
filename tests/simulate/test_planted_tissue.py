"""Planted tissue: genes follow what a spot, its tiles and its section show."""

import numpy as np
import pytest

from neuromm.core import UsageError
from neuromm.simulate import make_tissue_sections


def explained(x, y):
    """Mean over columns of the variance of y that a linear fit of x explains."""
    x = np.column_stack([np.ones(len(x)), x])
    left = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    return 1 - left.var(axis=0).mean() / y.var(axis=0).mean()


def test_tiles_show_what_the_patch_cannot():
    (section,) = make_tissue_sections(1, side=40, rng=0)
    own = section.features.overview
    tiles = section.features.neighbors
    np.testing.assert_array_equal(tiles[:, 12], own)
    np.testing.assert_array_equal(section.features.target[:, 0], own)
    # The tile to the right of a spot is the spot to the right of it.
    np.testing.assert_array_equal(tiles[40, 13], own[41])
    alone = explained(own, section.log_rate)
    around = explained(np.column_stack([own, tiles.mean(axis=1)]), section.log_rate)
    assert around > alone + 0.2


def test_the_state_of_a_section_is_seen_in_many_spots_and_not_in_one():
    sections = make_tissue_sections(40, side=12, rng=1)
    # By what switches do to genes, sections fall into two kinds.
    rates = [s.log_rate - s.log_rate.mean(axis=0) for s in sections]
    shown = np.array([s.features.overview.mean(axis=0) for s in sections])
    slopes = np.array(
        [
            np.linalg.lstsq(s.features.overview, rate, rcond=None)[0].ravel()
            for s, rate in zip(sections, rates, strict=True)
        ]
    )
    centred = slopes - slopes.mean(axis=0)
    state = np.sign(np.linalg.svd(centred, full_matrices=False)[0][:, 0])
    by_means = np.linalg.lstsq(
        np.column_stack([np.ones(40), shown[:, :8]]), state, rcond=None
    )[0]
    found = np.sign(np.column_stack([np.ones(40), shown[:, :8]]) @ by_means)
    assert (found == state).mean() > 0.75


def test_counts_scatter_about_their_rates_as_poisson():
    (section,) = make_tissue_sections(1, side=40, rng=2)
    rate = np.exp(section.log_rate)
    z = (section.counts - rate) / np.sqrt(rate)
    n = z.size
    assert abs(z.mean()) < 4 / np.sqrt(n)
    # The fourth moment of z is 3 + 1 / rate.
    spread = np.sqrt(((2 + 1 / rate).mean()) / n)
    assert abs((z**2).mean() - 1) < 4 * spread


def test_the_same_seed_draws_the_same_and_wrong_numbers_are_refused():
    first, second = (make_tissue_sections(2, side=3, rng=5) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.counts, b.counts)
        np.testing.assert_array_equal(a.features.neighbors, b.features.neighbors)
        assert a.patient == b.patient
    assert first[0].features.is_stand_in
    with pytest.raises(UsageError, match="9 features"):
        make_tissue_sections(2, n_features=8)
