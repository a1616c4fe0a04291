"""Truths about the way from voxels to columns and back."""

import gzip

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from neuromm.core import DataError, TargetSpace
from neuromm.prepare import VoxelSpace

AFFINE = np.array([[-3.0, 0, 0, 90], [0, 3, 0, -126], [0, 0, 4, -72], [0, 0, 0, 1]])

masks = arrays(bool, array_shapes(min_dims=3, max_dims=3, max_side=4)).filter(np.any)


def space_of(mask, affine=AFFINE):
    return VoxelSpace(nibabel.Nifti1Image(mask.astype(np.uint8), affine), "MNI")


@settings(deadline=None)
@given(mask=masks, seed=st.integers(0, 2**31))
def test_values_come_back_from_the_image_at_their_names(mask, seed):
    space = space_of(mask)
    values = np.random.default_rng(seed).standard_normal(space.n_targets)
    values = values.astype(np.float32)
    values[0] = np.nan
    image = space.to_native(values)
    assert image.get_data_dtype() == np.float32
    for name, value in zip(space.coords()["target"], values, strict=True):
        voxel = tuple(int(i) for i in name.split("-"))
        np.testing.assert_array_equal(image.dataobj[voxel], value)
    assert np.isnan(np.asarray(image.dataobj)[~mask]).all()


@settings(deadline=None)
@given(mask=masks)
def test_the_names_are_unique_and_in_the_order_of_the_series(mask):
    space = space_of(mask)
    number = np.arange(mask.size, dtype=float).reshape(mask.shape)
    series = space.extract(nibabel.Nifti1Image(number[..., None], AFFINE))
    names = space.coords()["target"]
    assert names.is_unique
    at_names = [number[tuple(map(int, n.split("-")))] for n in names]
    np.testing.assert_array_equal(series[0], at_names)


def test_coordinates_are_millimetres_of_the_affine():
    mask = np.zeros((5, 5, 5), dtype=bool)
    mask[2, 3, 4] = True
    row = space_of(mask).coords().iloc[0]
    assert list(row) == ["2-3-4", 90 - 6, -126 + 9, -72 + 16]


def test_columns_are_those_of_the_masker_of_nilearn():
    rng = np.random.default_rng(0)
    space = space_of(rng.random((5, 4, 3)) > 0.5)
    image = nibabel.Nifti1Image(
        rng.standard_normal((5, 4, 3, 6)).astype(np.float32), AFFINE
    )
    masker = space.masker()
    np.testing.assert_allclose(space.extract(image), masker.transform(image), rtol=1e-6)
    again = VoxelSpace.from_masker(masker, "MNI")
    assert again.coords().equals(space.coords())


def test_scaled_integers_are_read_in_their_unit(tmp_path):
    image = nibabel.Nifti1Image(
        np.arange(16, dtype=np.int16).reshape(2, 2, 2, 2), AFFINE
    )
    image.header.set_slope_inter(0.5, 10)
    nibabel.save(image, tmp_path / "bold.nii.gz")
    loaded = nibabel.load(tmp_path / "bold.nii.gz")
    series = space_of(np.ones((2, 2, 2), dtype=bool)).extract(loaded)
    np.testing.assert_allclose(series.T.ravel(), loaded.get_fdata().ravel())
    assert series.dtype == np.float32


def test_it_is_a_target_space():
    space = space_of(np.ones((2, 2, 2), dtype=bool))
    assert isinstance(space, TargetSpace)
    assert (space.n_targets, space.coordinate_frame) == (8, "MNI")


def test_another_shape_is_another_grid():
    image = nibabel.Nifti1Image(np.zeros((3, 2, 2, 5)), AFFINE)
    with pytest.raises(DataError, match=r"3 x 2 x 2 voxels.*2 x 2 x 2.*Resample"):
        space_of(np.ones((2, 2, 2), dtype=bool)).extract(image)


def test_another_affine_is_another_grid():
    shifted = AFFINE.copy()
    shifted[0, 3] += 1.5
    image = nibabel.Nifti1Image(np.zeros((2, 2, 2, 5)), shifted)
    with pytest.raises(DataError, match=r"differs from that of .* by up to 1\.5 mm"):
        space_of(np.ones((2, 2, 2), dtype=bool)).extract(image)


def test_a_truncated_file_is_named(tmp_path):
    rng = np.random.default_rng(0)
    image = nibabel.Nifti1Image(rng.standard_normal((8, 8, 8, 20)), AFFINE)
    path = tmp_path / "sub-01_bold.nii.gz"
    nibabel.save(image, path)
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(DataError, match=r"sub-01_bold\.nii\.gz: cannot be read to its"):
        space_of(np.ones((8, 8, 8), dtype=bool)).extract(nibabel.load(path))
    plain = tmp_path / "plain.nii"
    plain.write_bytes(gzip.compress(b"")[:0] + image.to_bytes()[:5000])
    with pytest.raises(DataError, match="cut short or damaged"):
        space_of(np.ones((8, 8, 8), dtype=bool)).extract(nibabel.load(plain))


def test_an_empty_mask_is_refused():
    with pytest.raises(DataError, match="the mask is empty"):
        space_of(np.zeros((2, 2, 2), dtype=bool))
