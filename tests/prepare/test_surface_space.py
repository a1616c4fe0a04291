"""Truths about the way from vertices to columns and back."""

import socket

import nibabel
import numpy as np
import pytest

from neuromm.core import DataError, TargetSpace, UsageError
from neuromm.prepare import SurfaceSpace


def gifti(rows):
    arrays = [nibabel.gifti.GiftiDataArray(np.float32(row)) for row in rows]
    return nibabel.GiftiImage(darrays=arrays)


def test_values_come_back_after_writing_and_reading(tmp_path):
    space = SurfaceSpace(6, 4)
    values = np.random.default_rng(0).standard_normal(10).astype(np.float32)
    values[[2, 7]] = np.nan
    pair = {}
    for side, image in space.to_native(values).items():
        nibabel.save(image, tmp_path / f"{side}.func.gii")
        pair[side] = nibabel.load(tmp_path / f"{side}.func.gii")
    np.testing.assert_array_equal(space.extract(pair)[0], values)
    structures = [pair[s].meta["AnatomicalStructurePrimary"] for s in ("left", "right")]
    assert structures == ["CortexLeft", "CortexRight"]


def test_masked_vertices_are_left_out_and_come_back_as_nan():
    mask = {"left": np.array([1, 0, 1], bool), "right": np.array([0, 1], bool)}
    space = SurfaceSpace(3, 2, mask=mask)
    assert list(space.coords()["target"]) == ["L-0", "L-2", "R-1"]
    images = space.to_native(np.array([1.0, 2.0, 3.0]))
    np.testing.assert_array_equal(images["left"].darrays[0].data, [1, np.nan, 2])
    np.testing.assert_array_equal(images["right"].darrays[0].data, [np.nan, 3])
    series = space.extract({"left": gifti([[5, 6, 7]]), "right": gifti([[8, 9]])})
    np.testing.assert_array_equal(series, [[5, 7, 9]])


def test_the_positions_of_fsaverage5_come_without_a_download(monkeypatch):
    def refuse(*args):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    space = SurfaceSpace(10242, 10242, "fsaverage5")
    coords = space.coords()
    assert space.coordinate_frame == "fsaverage5"
    # Left is negative x in RAS; a few medial vertices cross the middle by some mm.
    assert coords.loc[coords["hemi"] == "L", "x"].max() < 10
    assert coords.loc[coords["hemi"] == "R", "x"].min() > -10
    assert coords[["x", "y", "z"]].abs().to_numpy().max() < 120


def test_positions_of_an_unknown_mesh_are_nan():
    space = SurfaceSpace(3, 2, "fsaverage6")
    assert space.coordinate_frame is None
    assert space.coords()[["x", "y", "z"]].isna().all(axis=None)


def test_given_positions_are_kept():
    positions = {"left": np.eye(3), "right": np.ones((1, 3))}
    space = SurfaceSpace(3, 1, "fsLR", coordinates=positions)
    np.testing.assert_array_equal(
        space.coords()[["x", "y", "z"]], np.vstack([np.eye(3), np.ones((1, 3))])
    )
    assert space.coordinate_frame == "fsLR"


def test_numbers_of_vertices_are_taken_from_the_images():
    space = SurfaceSpace.from_gifti(
        {"left": gifti([[1, 2, 3]]), "right": gifti([[4, 5]])}
    )
    assert isinstance(space, TargetSpace)
    assert (space.n_targets, space.n_vertices) == (5, {"left": 3, "right": 2})


def test_a_name_that_does_not_fit_the_vertices_is_refused():
    with pytest.raises(UsageError, match="fsaverage5 has 10242 vertices"):
        SurfaceSpace(40962, 40962, "fsaverage5")


def test_hemispheres_of_different_runs_are_refused():
    with pytest.raises(DataError, match="left hemisphere has 2 volumes, the right 1"):
        SurfaceSpace(1, 1).extract({"left": gifti([[1], [2]]), "right": gifti([[1]])})


def test_a_run_on_another_mesh_is_refused():
    with pytest.raises(DataError, match=r"expected 2 vertices on the left.*\(3,\)"):
        SurfaceSpace(2, 1).extract({"left": gifti([[1, 2, 3]]), "right": gifti([[1]])})
