"""Scores are in mm of the patient, and of the discs that they say."""

import numpy as np
import pytest

from neuromm.core import DataError, UsageError
from neuromm.models import disc_regions, score_discs
from neuromm.simulate import make_dixon_spines

SPACING_MM = (4.0, 1.5, 2.0)
N_DISCS = 4


def affine(tilt_deg: float = 20.0) -> np.ndarray:
    c, s = np.cos(np.deg2rad(tilt_deg)), np.sin(np.deg2rad(tilt_deg))
    matrix = np.eye(4)
    matrix[:3, :3] = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) * SPACING_MM
    return matrix


def column(n_discs: int = N_DISCS, shift: tuple[int, int, int] = (0, 0, 0)):
    """A column of boxes, one above the other, 20 mm apart."""
    mask = np.zeros((8, 24, 60), dtype=bool)
    for k in range(n_discs):
        mask[2:6, 8:16, 4 + 10 * k : 7 + 10 * k] = True
    return np.roll(mask, shift, axis=(0, 1, 2))


def regions(mask, matrix=None):
    return disc_regions(mask, affine() if matrix is None else matrix, smallest_mm3=0)


def test_a_mask_against_itself_is_perfect():
    mask = column()
    scores = score_discs(regions(mask), regions(mask), probabilities=mask * 1.0)
    summary = scores.summary
    for name in ("dice", "detection_rate", "identification_rate"):
        assert summary[name] == 1
    for name, value in summary.items():
        if name.endswith("_mm") or name == "expected_calibration_error":
            assert value == pytest.approx(0, abs=1e-9), name
    assert (summary["n_true"], summary["n_found"]) == (N_DISCS, N_DISCS)
    assert list(scores.table["found_label"]) == [1, 2, 3, 4]


@pytest.mark.parametrize(("axis", "voxels"), [(0, 1), (1, -2), (2, 1)])
def test_a_shift_is_measured_in_mm_along_its_axis(axis, voxels):
    shift = [0, 0, 0]
    shift[axis] = voxels
    scores = score_discs(regions(column(shift=tuple(shift))), regions(column()))
    moved_mm = abs(voxels) * SPACING_MM[axis]
    np.testing.assert_allclose(scores.table["distance_mm"], moved_mm, rtol=1e-9)
    summary = scores.summary
    assert summary["mean_localisation_distance_mm"] == pytest.approx(moved_mm)
    # The side that moved away is the farthest of the surface.
    assert summary["hausdorff_mm"] == pytest.approx(moved_mm)
    size = (4, 8, 3)[axis]
    overlap = (size - abs(voxels)) / size
    assert summary["dice"] == pytest.approx(overlap)
    np.testing.assert_allclose(scores.table["dice"], overlap)


def test_a_missed_lowest_disc_spoils_the_numbers_of_all_and_no_distance():
    mask = column()
    found = mask.copy()
    found[..., :10] = False
    scores = score_discs(regions(found), regions(mask))
    assert list(scores.table["found_label"]) == [0, 1, 2, 3]
    assert np.isnan(scores.table["distance_mm"][0])
    assert np.isnan(scores.table["dice"][0])
    assert np.isnan(scores.table["found_volume_mm3"][0])
    np.testing.assert_allclose(scores.table["dice"][1:], 1)
    assert scores.summary["detection_rate"] == (N_DISCS - 1) / N_DISCS
    assert scores.summary["identification_rate"] == 0
    assert scores.summary["mean_localisation_distance_mm"] == pytest.approx(0, abs=1e-9)


def test_a_surplus_disc_costs_overlap_alone():
    scores = score_discs(regions(column(N_DISCS + 1)), regions(column()))
    assert scores.summary["n_found"] == N_DISCS + 1
    assert scores.summary["detection_rate"] == 1
    assert scores.summary["identification_rate"] == 1
    assert scores.summary["dice"] == pytest.approx(2 * N_DISCS / (2 * N_DISCS + 1))


def test_nothing_found_is_nan_where_there_is_nothing_to_measure():
    empty = regions(np.zeros_like(column()))
    summary = score_discs(empty, regions(column())).summary
    assert summary["dice"] == 0
    assert summary["detection_rate"] == 0
    for name in ("hausdorff_mm", "mean_localisation_distance_mm"):
        assert np.isnan(summary[name])
    both = score_discs(empty, empty, probabilities=np.zeros(empty.labels.shape))
    assert np.isnan(both.summary["dice"])
    assert both.reliability is None


def test_calibration_does_not_gain_from_voxels_far_away():
    mask = column()
    rng = np.random.default_rng(0)
    stated = np.where(mask, 0.7, 0.2) + 0.05 * rng.random(mask.shape)
    larger = ((0, 12), (0, 0), (0, 60))
    wide, wide_stated = np.pad(mask, larger), np.pad(stated, larger)
    # The first volume must hold all that is near: 10 mm are 3 slices and 5 rows.
    margin = ((3, 3), (0, 0), (0, 5))
    near, near_stated = np.pad(mask, margin), np.pad(stated, margin)
    errors = [
        score_discs(regions(m), regions(m), probabilities=p).summary[
            "expected_calibration_error"
        ]
        for m, p in (
            (near, near_stated),
            (np.pad(near, larger), np.pad(near_stated, larger)),
        )
    ]
    assert errors[0] == pytest.approx(errors[1], rel=1e-12)
    assert errors[0] > 0.05
    assert score_discs(
        regions(wide), regions(wide), probabilities=wide_stated
    ).reliability["n_samples"].sum() < 0.5 * wide.size  # fmt: skip


def test_a_probability_that_comes_true_as_stated_is_calibrated():
    rng = np.random.default_rng(1)
    truth = np.zeros((20, 40, 60), dtype=bool)
    truth[5:15, 10:30, 15:45] = True
    stated = np.where(truth, 0.75, 0.25)
    drawn = rng.random(truth.shape) < stated
    found, true = regions(truth), regions(drawn)
    scores = score_discs(found, true, probabilities=stated)
    filled = scores.reliability[scores.reliability["n_samples"] > 0]
    np.testing.assert_allclose(filled["confidence"], [0.25, 0.75])
    # Standard errors of both frequencies are below 0.006.
    np.testing.assert_allclose(filled["frequency"], [0.25, 0.75], atol=0.02)
    assert scores.summary["expected_calibration_error"] < 0.02


def test_grids_are_compared_by_their_place_not_by_their_shape():
    moved = affine()
    moved[2, 3] += 10.8
    with pytest.raises(DataError, match=r"10\.8 mm apart at a corner"):
        score_discs(regions(column()), regions(column(), moved))
    with pytest.raises(DataError, match="grid of the images"):
        score_discs(regions(column()[1:]), regions(column()))
    with pytest.raises(UsageError, match="disc alone"):
        score_discs(
            regions(column()), regions(column()), probabilities=np.zeros((2, 8, 24, 60))
        )


def test_simulated_discs_against_their_truth():
    (spine,) = make_dixon_spines(1, shape=(16, 80, 80), tilt_deg=15, rng=3)
    truth = regions(spine.discs > 0, spine.affine)
    grown = np.roll(spine.discs > 0, 1, axis=1) | (spine.discs > 0)
    summary = score_discs(regions(grown, spine.affine), truth).summary
    # Grown by one voxel of 2 mm to one side, a centre moves by half of it.
    assert summary["mean_localisation_distance_mm"] == pytest.approx(1, abs=0.05)
    assert summary["hausdorff_mm"] == pytest.approx(2)
    assert summary["detection_rate"] == 1
