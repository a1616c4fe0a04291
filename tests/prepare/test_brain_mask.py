"""Masks: what every run covers, and what is brighter than its surround."""

import nibabel
import numpy as np
import pytest

from neuromm.core import DataError
from neuromm.prepare.brain_mask import common_mask, estimated_mask

AFFINE = np.diag([4.0, 4.0, 4.0, 1.0])


def _mask(inside, affine=AFFINE):
    return nibabel.Nifti1Image(inside.astype(np.uint8), affine)


def test_common_voxels_are_those_inside_of_every_mask():
    a, b = np.zeros((2, 3, 3, 3), bool)
    a[:2], b[1:] = True, True
    np.testing.assert_array_equal(
        np.asarray(common_mask([_mask(a), _mask(b)]).dataobj), a & b
    )


def test_masks_on_two_grids_and_masks_without_common_voxel_are_refused():
    inside = np.ones((3, 3, 3), bool)
    with pytest.raises(DataError, match=r"another grid.*--space"):
        common_mask([_mask(inside), _mask(inside, 2 * AFFINE)])
    with pytest.raises(DataError, match="no voxel"):
        common_mask([_mask(inside), _mask(~inside)])


def test_a_bright_ball_is_found():
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*3 * [np.arange(24)], indexing="ij"), -1)
    ball = np.linalg.norm(grid - 11.5, axis=-1) < 8
    series = np.where(ball, 1000.0, 20.0)[..., None]
    series = series + 5 * rng.standard_normal((24, 24, 24, 8))
    mask = estimated_mask([nibabel.Nifti1Image(series.astype("f4"), AFFINE)])
    found = np.asarray(mask.dataobj) > 0
    overlap = 2 * (found & ball).sum() / (found.sum() + ball.sum())
    assert overlap > 0.95
