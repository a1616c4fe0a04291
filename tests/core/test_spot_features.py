"""A section's features say which of their parts does not fit."""

from dataclasses import replace

import numpy as np
import pytest

from neuromm.core import DataError, UsageError
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


def test_a_part_is_its_spots_in_the_order_wanted(features):
    part = features.part([3, 0])
    assert part.spots.tolist() == ["2x2", "1x1"]
    for name in ("target", "neighbors", "neighbor_mask", "overview", "grid"):
        whole = getattr(features, name)
        np.testing.assert_array_equal(getattr(part, name), whole[[3, 0]])
    assert (part.section, part.encoder, part.is_stand_in) == ("A1", "planted", True)
    marked = features.part(np.array([True, False, False, True]))
    assert marked.spots.tolist() == ["1x1", "2x2"]
    assert features.part([]).n_spots == 0


@pytest.mark.parametrize(
    "rows", [[0, 4], [-1], [True, False], [0.0, 1.0], [[0, 1]], ["1x1"]]
)
def test_a_part_of_spots_that_are_not_there_is_refused(features, rows):
    with pytest.raises(UsageError, match=r"A1: rows must be numbers from 0 to 3, or"):
        features.part(rows)


def test_a_spot_is_not_taken_twice(features):
    with pytest.raises(DataError, match="two spots have the same name"):
        features.part([1, 1])
