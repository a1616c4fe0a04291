"""Volumes of one patient: one grid by its place in the world, or an error."""

import zlib

import nibabel
import numpy as np
import pytest
from PIL import Image

from neuromm.core import DataError, InputMissingError, UsageError
from neuromm.io import mri
from neuromm.io.metaimage import read_metaimage
from neuromm.io.mri_grid import resampled
from neuromm.io.mri_pictures import read_picture

SHAPE = (8, 7, 6)


@pytest.fixture
def oblique():
    directions, _ = np.linalg.qr(np.random.default_rng(5).standard_normal((3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = directions * [0.9, 1.3, 3.7]
    affine[:3, 3] = -61.0, 33.0, 12.0
    return affine


def write(path, values, affine, *, unit="mm", dtype=None):
    image = nibabel.Nifti1Image(values, affine)
    image.header.set_xyzt_units(unit)
    if dtype is not None:
        image.set_data_dtype(dtype)
    image.to_filename(path)
    return path


def noise(shape=SHAPE, seed=0):
    return np.random.default_rng(seed).normal(500, 50, shape).astype(np.float32)


def test_a_series_of_volumes_is_refused_with_the_cure(tmp_path):
    path = write(tmp_path / "a.nii.gz", noise((3, 4, 5, 6)), np.eye(4))
    with pytest.raises(DataError, match=r"got 4-D \(shape \(3, 4, 5, 6\)\).*slicer"):
        mri.load(path)


def test_a_single_picture_is_refused(tmp_path):
    path = write(tmp_path / "a.nii", noise((3, 4)), np.eye(4))
    with pytest.raises(DataError, match=r"expected one 3-D volume, got 2-D"):
        mri.load(path)


def test_one_volume_stored_as_a_series_is_that_volume(tmp_path):
    values = noise()
    path = write(tmp_path / "a.nii", values[..., None], np.eye(4))
    np.testing.assert_array_equal(mri.load(path).data.dataobj, values)


def test_lengths_are_in_mm_whatever_the_header_counts_in(tmp_path, oblique):
    in_metres = np.diag([1e-3, 1e-3, 1e-3, 1]) @ oblique
    path = write(tmp_path / "a.nii", noise(), in_metres, unit="meter")
    sample = mri.load(path)
    np.testing.assert_allclose(sample.data.affine, oblique, atol=1e-4)
    assert sample.data.header.get_xyzt_units()[0] == "mm"
    assert not sample.data.in_memory


def test_an_unknown_unit_is_mm_only_where_voxels_can_be(tmp_path, oblique):
    path = write(tmp_path / "a.nii", noise(), oblique, unit="unknown")
    np.testing.assert_allclose(mri.load(path).data.affine, oblique, atol=1e-4)
    in_microns = np.diag([1e3, 1e3, 1e3, 1]) @ oblique
    path = write(tmp_path / "b.nii", noise(), in_microns, unit="unknown")
    with pytest.raises(DataError, match=r"900 x 1300 x 3700 mm \(unit.*unknown"):
        mri.load(path)


def test_a_volume_without_orientation_is_read_with_a_warning(tmp_path):
    path = write(tmp_path / "a.nii", noise(), None)
    with pytest.warns(UserWarning, match="states no orientation"):
        mri.load(path)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "a.hdr").write_bytes(bytes(348))
    with pytest.raises(DataError, match="neither NIfTI"):
        mri.load(tmp_path / "a.hdr")


def test_scaled_integers_do_not_overflow(tmp_path):
    image = nibabel.Nifti1Image(np.full(SHAPE, 30_000, np.int16), np.eye(4))
    image.header.set_slope_inter(1000, 5)
    image.header.set_xyzt_units("mm")
    (tmp_path / "a.nii").write_bytes(image.to_bytes())
    header = bytearray((tmp_path / "a.nii").read_bytes())
    header[112:120] = np.array([1000, 5], "<f4").tobytes()  # scl_slope, scl_inter
    (tmp_path / "a.nii").write_bytes(header)
    volume = mri.stacked(mri.load(tmp_path / "a.nii"))
    assert volume.dtype == np.float32
    assert volume.max() == 30_000_005


def test_values_that_are_no_numbers_are_counted(tmp_path):
    values = noise()
    values[0, 0, :2] = np.nan, np.inf
    sample = mri.load(write(tmp_path / "a.nii", values, np.eye(4)))
    with pytest.raises(DataError, match="2 voxels that are nan, infinite"):
        mri.stacked(sample)
    huge = np.full(SHAPE, 1e200)
    sample = mri.load(write(tmp_path / "b.nii", huge, np.eye(4)))
    with pytest.raises(DataError, match="beyond 32-bit floats"):
        mri.stacked(sample)


def two(tmp_path, oblique, shift_mm=0.0, shape=SHAPE):
    """Two modalities, the second displaced along x."""
    affine = oblique.copy()
    affine[0, 3] += shift_mm
    return {
        "fat": mri.load(write(tmp_path / "fat.nii", noise(), oblique)),
        "wat": mri.load(write(tmp_path / "wat.nii", noise(shape, 1), affine)),
    }


def test_modalities_of_one_grid_are_one_sample_in_the_order_given(tmp_path, oblique):
    sample = mri.combine(two(tmp_path, oblique, shift_mm=0.005))
    assert list(sample.data) == ["fat", "wat"]
    assert "Resampled" not in sample.metadata
    volume = mri.stacked(sample, ["wat", "fat"])
    np.testing.assert_array_equal(volume, [noise(seed=1), noise()])


def test_what_is_combined_is_not_combined_again(tmp_path, oblique):
    sample = mri.combine(two(tmp_path, oblique))
    with pytest.raises(UsageError, match="one volume each"):
        mri.combine({"dixon": sample})
    with pytest.raises(UsageError, match="no volume"):
        mri.combine({})


def test_one_shape_at_another_place_is_another_grid(tmp_path, oblique):
    with pytest.raises(DataError, match=r"one shape.*10\.8 mm.*resample_to='fat'"):
        mri.combine(two(tmp_path, oblique, shift_mm=10.8))


def test_another_shape_is_another_grid(tmp_path, oblique):
    with pytest.raises(DataError, match=r"shapes are \(8, 7, 6\) and \(8, 7, 5\)"):
        mri.combine(two(tmp_path, oblique, shape=(8, 7, 5)))


def test_the_tolerance_is_in_mm(tmp_path, oblique):
    samples = two(tmp_path, oblique, shift_mm=0.2)
    assert list(mri.combine(samples, tolerance_mm=0.25).data) == ["fat", "wat"]
    with pytest.raises(DataError, match=r"tolerance 0\.15 mm"):
        mri.combine(samples, tolerance_mm=0.15)


def test_resampling_keeps_a_linear_field_where_it_was(tmp_path, oblique):
    # Linear interpolation of a field that is linear in mm is exact.
    def field(affine, shape):
        world = np.einsum("ab,b...->a...", affine[:3, :3], np.indices(shape))
        return 100 + world[0] + 2 * world[1] - world[2] + affine[:3, 3] @ [1, 2, -1]

    fine = oblique @ np.diag([0.5, 0.5, 0.5, 1])
    fine[:3, 3] = (oblique @ [1.5, 1.5, 1.5, 1])[:3]
    target_shape = (10, 8, 6)
    samples = {
        "fat": mri.load(write(tmp_path / "fat.nii", field(fine, target_shape), fine)),
        "wat": mri.load(write(tmp_path / "wat.nii", field(oblique, SHAPE), oblique)),
    }
    sample = mri.combine(samples, resample_to="fat")
    fat, wat = mri.stacked(sample)
    # 32-bit intensities of about 100: rounding of 1e-5 at each of two steps.
    np.testing.assert_allclose(wat, fat, atol=1e-3)
    record = sample.metadata["Resampled"]["wat"]
    assert record["To"] == "fat"
    assert record["Interpolation"] == "linear"
    assert record["FromShape"] == list(SHAPE)
    assert record["ShareOutside"] == 0
    np.testing.assert_allclose(record["FromAffine"], oblique, atol=1e-4)
    assert "fat" not in sample.metadata["Resampled"]


def test_the_share_outside_of_the_scan_is_recorded(oblique):
    image = nibabel.Nifti1Image(noise(), oblique)
    affine = oblique @ np.diag([1, 1, 1, 1.0])
    affine[:3, 3] = (oblique @ [4, 0, 0, 1])[:3]  # half of eight columns further
    target = nibabel.Nifti1Image(noise(), affine)
    moved, record = resampled(image, target)
    assert record["ShareOutside"] == 0.5
    assert not np.asarray(moved.dataobj)[5:].any()


def test_grids_that_do_not_meet_cannot_be_resampled(tmp_path, oblique):
    with pytest.raises(DataError, match=r"wat\.nii.*does not overlap"):
        mri.combine(two(tmp_path, oblique, shift_mm=900.0), resample_to="fat")
    with pytest.raises(UsageError, match=r"a modality \(there are: fat, wat"):
        mri.combine(two(tmp_path, oblique, shift_mm=1.0), resample_to="ftt")


def test_a_missing_modality_is_named(tmp_path, oblique):
    sample = mri.combine(two(tmp_path, oblique))
    with pytest.raises(InputMissingError, match=r"has no inn, opp \(found: fat, wat"):
        mri.stacked(sample, ["fat", "inn", "opp", "wat"])


def test_labels_must_lie_on_the_images(tmp_path, oblique):
    sample = mri.combine(two(tmp_path, oblique))
    drawn = np.zeros(SHAPE, np.uint8)
    drawn[2:5, 2:5, 2:4] = 7
    path = write(tmp_path / "labels.nii", drawn.astype(np.float64), oblique)
    labels = mri.load_labels(sample, path)
    assert labels.get_data_dtype() == np.int32
    np.testing.assert_array_equal(labels.dataobj, drawn)
    shifted = oblique.copy()
    shifted[:3, 3] = (oblique @ [1, 0, 0, 1])[:3]
    path = write(tmp_path / "shifted.nii", drawn, shifted)
    with pytest.raises(DataError, match=r"not on one grid.*resample=True"):
        mri.load_labels(sample, path)
    moved = np.asarray(mri.load_labels(sample, path, resample=True).dataobj)
    np.testing.assert_array_equal(moved[1:], drawn[:-1])


@pytest.mark.parametrize("value", [0.5, np.nan, 2.0**33])
def test_what_is_no_label_is_refused(tmp_path, oblique, value):
    sample = mri.combine(two(tmp_path, oblique))
    path = write(tmp_path / "p.nii", np.full(SHAPE, value), oblique)
    with pytest.raises(DataError, match="expected labels"):
        mri.load_labels(sample, path)
    with pytest.raises(InputMissingError, match="has no labels"):
        mri.load_labels(sample)


def metaimage(path, values, affine, *, compressed=True, cut=0):
    lps = np.diag([-1, -1, 1, 1]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    block = np.asfortranarray(values).tobytes(order="F")
    block = zlib.compress(block) if compressed else block
    lines = {
        "ObjectType": "Image",
        "NDims": 3,
        "BinaryData": True,
        "BinaryDataByteOrderMSB": False,
        "CompressedData": compressed,
        "TransformMatrix": " ".join(map(str, (lps[:3, :3] / spacing).T.ravel())),
        "Offset": " ".join(map(str, lps[:3, 3])),
        "ElementSpacing": " ".join(map(str, spacing)),
        "DimSize": " ".join(map(str, values.shape)),
        "ElementType": "MET_SHORT",
        "ElementDataFile": "LOCAL",
    }
    text = "".join(f"{key} = {value}\n" for key, value in lines.items())
    path.write_bytes(text.encode() + block[: len(block) - cut])
    return path


@pytest.mark.parametrize("compressed", [True, False])
def test_a_metaimage_lies_where_it_was_scanned(tmp_path, oblique, compressed):
    values = noise().astype(np.int16)
    path = metaimage(tmp_path / "1_t2.mha", values, oblique, compressed=compressed)
    image = mri.load(path).data
    np.testing.assert_array_equal(image.dataobj, values)
    np.testing.assert_allclose(image.affine, oblique, atol=1e-9)


@pytest.mark.parametrize("compressed", [True, False])
def test_a_cut_metaimage_is_refused(tmp_path, oblique, compressed):
    values = noise().astype(np.int16)
    for cut in (1, 200):
        path = metaimage(
            tmp_path / "a.mha", values, oblique, compressed=compressed, cut=cut
        )
        with pytest.raises(DataError, match=r"a\.mha: is (truncated|damaged)"):
            read_metaimage(path)
    path.write_bytes(path.read_bytes().replace(b"8 7 6", b"8000 7000 6000"))
    assert b"8000" in path.read_bytes()
    with pytest.raises(DataError, match="is truncated"):
        read_metaimage(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match="no MetaImage, or its header is cut"):
        read_metaimage(path)


def test_a_picture_is_grey_and_has_no_place(tmp_path):
    grey = np.random.default_rng(0).integers(0, 255, (6, 4)).astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / "a.png")
    same = np.stack([grey, grey, grey, np.full_like(grey, 255)], axis=-1)
    Image.fromarray(same).save(tmp_path / "b.png")
    deep = grey.astype(np.uint16) * 256
    Image.fromarray(deep).save(tmp_path / "c.png")
    for name, values in (("a", grey), ("b", grey), ("c", deep)):
        image = read_picture(tmp_path / f"{name}.png")
        np.testing.assert_array_equal(np.asarray(image.dataobj)[..., 0], values)
        assert image.affine is None


def test_a_picture_in_colour_or_cut_is_refused(tmp_path):
    colour = np.random.default_rng(0).integers(0, 255, (6, 4, 3)).astype(np.uint8)
    Image.fromarray(colour).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="in colour"):
        read_picture(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[:60])
    with pytest.raises(DataError, match="no picture that can be read"):
        read_picture(tmp_path / "a.png")
