"""A section's features say which of their parts does not fit."""

from dataclasses import replace

import numpy as np
import pytest

from neuromm.core import DataError
from neuromm.core.spot_features import SpotFeatures


@pytest.fixture
def features() -> SpotFeatures:
    rng = np.random.default_rng(0)
    return SpotFeatures(
        section="A1",
        spots=np.array(["1x1", "1x2", "2x1", "2x2"]),
        target=rng.standard_normal((4, 3, 8)),
        neighbors=rng.standard_normal((4, 9, 8)),
        neighbor_mask=np.ones((4, 9), dtype=bool),
        overview=rng.standard_normal((4, 8)),
        grid=np.array([[1, 1], [1, 2], [2, 1], [2, 2]]),
        encoder="planted",
        is_stand_in=True,
    )


def test_a_section_counts_its_spots_and_features(features):
    assert (features.n_spots, features.n_features) == (4, 8)


def test_a_row_too_few_is_named(features):
    with pytest.raises(
        DataError, match="A1: overview must have 2 axes and a row for each"
    ):
        replace(features, overview=features.overview[:3])


def test_a_patch_without_an_axis_of_tokens_is_named(features):
    with pytest.raises(DataError, match="target must have 3 axes"):
        replace(features, target=features.target[:, 0])


def test_tiles_have_a_middle(features):
    with pytest.raises(DataError, match="tiles of a square with a middle"):
        replace(features, neighbors=features.neighbors[:, :4])
    with pytest.raises(DataError, match="a column for each of 9 tiles, got 8"):
        replace(features, neighbor_mask=features.neighbor_mask[:, :8])


def test_a_spot_outside_of_its_slide_is_refused(features):
    mask = features.neighbor_mask.copy()
    mask[2, 4] = False
    with pytest.raises(DataError, match="hides a spot's own tile"):
        replace(features, neighbor_mask=mask)


def test_two_spots_in_one_place_are_refused(features):
    with pytest.raises(DataError, match="same place in the array"):
        replace(features, grid=features.grid[[0, 1, 2, 2]])
    with pytest.raises(DataError, match="two spots have the same name"):
        replace(features, spots=features.spots[[0, 1, 2, 2]])
