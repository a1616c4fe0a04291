"""Slices are sagittal and seen from one side, however the voxels are stored."""

import itertools

import nibabel
import numpy as np
import pytest
from nibabel import orientations

from neuromm.core import UsageError
from neuromm.prepare import SagittalOrder

ORDERS = list(itertools.product(itertools.permutations(range(3)), [1, -1], [1, -1]))


def stored(order, first, second):
    """A volume of its own RAS coordinates, (3, n_i, n_j, n_k), and its affine."""
    affine = np.diag([4.0, 1.5, 2.0, 1.0])
    affine[:3, 3] = -7, 30, 12
    shape = (3, 5, 4)
    places = np.einsum("ab,b...->a...", affine[:3, :3], np.indices(shape))
    places += affine[:3, 3, None, None, None]
    orientation = np.array([[order[0], first], [order[1], second], [order[2], -1]])
    turned = [orientations.apply_orientation(one, orientation) for one in places]
    return np.stack(turned), affine @ orientations.inv_ornt_aff(orientation, shape)


@pytest.mark.parametrize(("order", "first", "second"), ORDERS)
def test_slices_run_to_the_right_and_pixels_to_the_front_and_up(order, first, second):
    places, affine = stored(order, first, second)
    sagittal = SagittalOrder(affine)
    turned = sagittal.turned(places)
    for world in range(3):  # its own axis alone, and upwards
        steps = np.diff(turned[world], axis=world)
        np.testing.assert_allclose(steps, (4.0, 1.5, 2.0)[world])
    np.testing.assert_array_equal(sagittal.back(turned), places)
    assert sagittal.spacing_mm == pytest.approx((4.0, 1.5, 2.0))
    assert sagittal.oblique_deg == pytest.approx(0, abs=1e-5)
    moved = sagittal.turned_affine(places.shape[1:])
    np.testing.assert_allclose(
        np.einsum("ab,b...->a...", moved[:3, :3], np.indices(turned.shape[1:]))
        + moved[:3, 3, None, None, None],
        turned,
        atol=1e-9,
    )


def test_an_oblique_grid_takes_the_closest_axes_as_nibabel_does():
    rng = np.random.default_rng(0)
    for _ in range(20):
        affine = np.eye(4)
        affine[:3, :3] = np.linalg.qr(rng.standard_normal((3, 3)))[0] * (4, 1, 0.5)
        image = nibabel.Nifti1Image(rng.random((3, 4, 5)), affine)
        peer = nibabel.as_closest_canonical(image)
        order = SagittalOrder(affine)
        np.testing.assert_array_equal(order.turned(image.dataobj), peer.get_fdata())
        np.testing.assert_allclose(order.turned_affine((3, 4, 5)), peer.affine)


def test_the_angle_of_an_oblique_scan_is_told():
    c, s = np.cos(np.deg2rad(25)), np.sin(np.deg2rad(25))
    affine = np.eye(4)
    affine[:3, :3] = [[1, 0, 0], [0, c, -s], [0, s, c]]
    assert SagittalOrder(affine).oblique_deg == pytest.approx(25)


def test_what_has_no_place_or_no_volume_is_refused():
    with pytest.raises(UsageError, match="invertible"):
        SagittalOrder(np.zeros((4, 4)))
    with pytest.raises(UsageError, match="at least 3 axes"):
        SagittalOrder(np.eye(4)).turned(np.zeros((4, 4)))
