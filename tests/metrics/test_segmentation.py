"""Overlap and distances are exact on shapes whose answer is known."""

import math

import numpy as np
import pytest
from scipy.ndimage import binary_erosion
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation

from neuromm.core import DataError, UsageError
from neuromm.metrics import (
    detection_rate,
    dice,
    identification_rate,
    label_centres,
    localisation_error,
    surface_distances,
)

SPACING = (2.0, 1.25, 0.5)
SHAPE = (20, 24, 30)


def oblique_affine() -> np.ndarray:
    affine = np.eye(4)
    turn = Rotation.from_euler("xyz", [20, -35, 50], degrees=True).as_matrix()
    affine[:3, :3] = turn @ np.diag(SPACING)
    affine[:3, 3] = (-90, 40, 12.5)
    return affine


def ball(centre, radius: float) -> np.ndarray:
    grid = np.indices(SHAPE)
    squares = [(g - c) ** 2 for g, c in zip(grid, centre, strict=True)]
    return sum(squares) <= radius**2


def box(start, size) -> np.ndarray:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))] = True
    return mask


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("shift", [0, 1, 4])
def test_a_shifted_ball_is_off_by_the_shift_in_mm(axis, shift):
    centre = np.array([8, 9, 10])
    moved = centre + shift * np.eye(3, dtype=int)[axis]
    affine = oblique_affine()
    true, found = (label_centres(ball(c, 5), affine) for c in (centre, moved))
    # A ball of voxels is symmetric about its centre: exact up to rounding of float64.
    (error,) = localisation_error([found[1]], [true[1]])
    assert error == pytest.approx(shift * SPACING[axis], abs=1e-12)
    np.testing.assert_allclose(true[1], affine[:3, :3] @ centre + affine[:3, 3])


@pytest.mark.parametrize("shift", [0, 3, 5, 9])
def test_dice_of_shifted_boxes_is_their_common_length(shift):
    size = (5, 6, 7)
    value = dice(box((2 + shift, 3, 4), size), box((2, 3, 4), size))
    np.testing.assert_allclose(value, [max(0, 5 - shift) / 5], rtol=1e-15)


def test_dice_is_by_label_and_nan_where_there_is_none():
    prediction, truth = np.array([0, 1, 1, 3]), np.array([0, 1, 2, 0])
    np.testing.assert_allclose(dice(prediction, truth), [2 / 3, 0, 0])
    np.testing.assert_allclose(
        dice(prediction, truth, labels=[0, 1, 4]), [2 / 3, 2 / 3, np.nan]
    )


def test_dice_is_the_f1_of_scikit_learn_and_the_dice_of_monai():
    import torch
    from monai.metrics import compute_dice
    from sklearn.metrics import f1_score

    rng = np.random.default_rng(0)
    prediction, truth = rng.integers(0, 4, (2, 500))
    ours = dice(prediction, truth)
    np.testing.assert_allclose(
        ours, f1_score(truth, prediction, average=None)[1:], rtol=1e-12
    )
    onehot = [torch.from_numpy(np.eye(4)[one].T[None]) for one in (prediction, truth)]
    monai = compute_dice(*onehot, include_background=False)[0]
    # MONAI computes in float32.
    np.testing.assert_allclose(ours, monai, rtol=1e-6)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_parallel_planes_are_everywhere_as_far_as_they_are_apart(axis):
    def plane(place: int) -> np.ndarray:
        mask = np.zeros(SHAPE, dtype=bool)
        mask[(slice(None),) * axis + (place,)] = True
        return mask

    distances = surface_distances(plane(4), plane(11), SPACING)
    # MONAI measures in float32.
    assert distances == pytest.approx((7 * SPACING[axis],) * 3, rel=1e-6)
    assert surface_distances(plane(4), plane(4), SPACING) == (0, 0, 0)


def test_surface_distances_are_those_of_all_pairs_of_surface_voxels():
    first, second = ball((8, 9, 10), 5.3), ball((10, 10, 14), 6.1)
    points = [
        np.argwhere(mask & ~binary_erosion(mask)) * SPACING for mask in (first, second)
    ]
    pairs = cdist(*points)
    there, back = pairs.min(axis=1), pairs.min(axis=0)
    ours = surface_distances(first, second, SPACING)
    assert ours.average_mm == pytest.approx(
        np.concatenate([there, back]).mean(), rel=1e-5
    )
    assert ours.hausdorff_mm == pytest.approx(max(there.max(), back.max()), rel=1e-6)
    expected = max(np.percentile(there, 95), np.percentile(back, 95))
    assert ours.hausdorff95_mm == pytest.approx(expected, rel=1e-6)


def test_distances_to_nothing_are_not_defined():
    full, empty = box((1, 1, 1), (2, 2, 2)), np.zeros(SHAPE, dtype=bool)
    assert all(math.isnan(d) for d in surface_distances(full, empty, SPACING))


def test_matching_is_the_best_of_all_and_surplus_predictions_are_left_over():
    truth = np.array([[0.0, 0, 0], [0, 0, 10], [0, 0, 20]])
    shift = np.array([0, 3.0, 0])
    np.testing.assert_allclose(localisation_error(truth[::-1] + shift, truth), [3] * 3)
    surplus = np.vstack([truth + shift, [[0, 0, 100.0]]])
    np.testing.assert_allclose(localisation_error(surplus, truth), [3] * 3)
    # Without the first, the others keep their own; they do not all move up.
    np.testing.assert_allclose(
        localisation_error(truth[1:] + shift, truth), [np.nan, 3, 3]
    )
    assert np.isnan(localisation_error([], truth)).all()
    assert localisation_error(truth, []).shape == (0,)


def test_detection_counts_what_lies_within_the_radius_and_what_was_missed():
    truth = np.array([[0.0, 0, 0], [0, 0, 50], [0, 0, 100], [0, 0, 150]])
    found = truth[:3] + np.array([[1.9, 0, 0], [2.0, 0, 0], [2.1, 0, 0]])
    assert detection_rate(found, truth) == 2 / 4
    assert detection_rate(found, truth, radius_mm=2.2) == 3 / 4
    assert math.isnan(detection_rate(found, []))


def test_identification_needs_the_right_label_at_the_right_place():
    truth = {label: np.array([0.0, 0, 30 * label]) for label in (1, 2, 3, 4)}
    assert identification_rate(truth, truth) == 1
    one_off = {label: truth[label % 4 + 1] for label in truth}
    assert identification_rate(one_off, truth) == 0
    # 16 mm up: within 20 mm, but the next disc is nearer (14 mm).
    between = truth | {2: truth[2] + [0, 0, 16]}
    assert identification_rate(between, truth) == 3 / 4
    aside = truth | {2: truth[2] + [21, 0, 0]}
    assert identification_rate(aside, truth) == 3 / 4
    assert identification_rate({1: truth[1], 9: truth[2]}, truth) == 1 / 4
    assert math.isnan(identification_rate(truth, {}))


def test_mistakes_are_clear_errors():
    with pytest.raises(DataError, match="one grid"):
        dice(np.zeros((2, 3), int), np.zeros((3, 2), int))
    with pytest.raises(UsageError, match="most probable class"):
        dice(np.zeros(3), np.zeros(3, int))
    with pytest.raises(UsageError, match="spacing_mm one number an axis"):
        surface_distances(box((0, 0, 0), SHAPE), box((0, 0, 0), SHAPE), (1, 1))
    with pytest.raises(UsageError, match="must be positive"):
        surface_distances(box((0, 0, 0), SHAPE), box((0, 0, 0), SHAPE), (1, 1, 0))
    with pytest.raises(UsageError, match=r"shape \(n, 3\)"):
        localisation_error([[0, 1]], [[0, 1, 2]])
    with pytest.raises(UsageError, match="volume of integers"):
        label_centres(np.zeros((2, 2)), np.eye(4))
    with pytest.raises(UsageError, match="4 x 4"):
        label_centres(np.zeros((2, 2, 2), int), np.eye(3))
