"""Real MRI: NIfTI of several sequences, DICOM of MR and CT, pictures of slices."""

import nibabel
import numpy as np
import pydicom
import pytest

from neuromm.core import DataError, UsageError
from neuromm.io import load, mri
from neuromm.io.mri_layouts import SPIDER_SLICE_LABELS, open_spider_slices

pytestmark = pytest.mark.real

SEQUENCES = ("T1", "T1POST", "T2", "FLAIR")


def folder_of(data_folder, *parts):
    folder = data_folder.joinpath(*parts)
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    return folder


def test_four_sequences_of_one_patient_share_a_grid_with_the_lesions(data_folder):
    folder = folder_of(data_folder, "mri", "open_ms", "patient07")
    sample = mri.combine(
        {name: mri.load(folder / f"{name}.nii.gz") for name in SEQUENCES},
        companions={"labels": folder / "GOLD_STANDARD.nii.gz"},
    )
    assert "Resampled" not in sample.metadata
    volume = mri.stacked(sample)
    assert volume.shape == (4, 182, 218, 182)
    lesions = np.asarray(mri.load_labels(sample).dataobj) == 1
    # Lesions are bright in FLAIR: brighter than the median of the brain around them.
    flair, t1 = volume[3], volume[0]
    brain = (t1 > 0) & ~lesions
    assert np.median(flair[lesions]) > np.percentile(flair[brain], 80)


def test_series_of_volumes_are_refused_and_read_as_functional(data_folder):
    folder = folder_of(data_folder, "mri", "nibabel")
    for name in ("functional.nii", "example4d.nii.gz"):
        with pytest.raises(DataError, match=rf"{name}: .*got 4-D.*modality='fmri'"):
            mri.load(folder / name)
        assert load(folder / name).modality == "fmri"
    assert load(folder / "anatomical.nii").modality == "mri"


def test_two_contrasts_of_one_head_meet_only_by_resampling(data_folder):
    folder = folder_of(data_folder, "mri", "niivue")
    samples = {
        "T1w": mri.load(folder / "chris_t1.nii.gz"),
        "PDw": mri.load(folder / "chris_PD.nii.gz"),
    }
    with pytest.raises(DataError, match="T1w and PDw are not on one grid"):
        mri.combine(samples)
    sample = mri.combine(samples, resample_to="PDw")
    t1, pd = mri.stacked(sample)
    assert t1.shape == (191, 256, 54)
    # In their own places both show the head: where one is bright, so is the other.
    assert np.corrcoef(t1.ravel() > 30, pd.ravel() > 30)[0, 1] > 0.5


def test_a_slice_of_mr_has_the_pixels_and_the_place_of_its_header(data_folder):
    path = folder_of(data_folder, "dicom") / "MR-SIEMENS-DICOM-WithOverlays.dcm"
    sample, header = load(path), pydicom.dcmread(path)
    image = sample.data
    np.testing.assert_array_equal(
        np.asarray(image.dataobj)[:, :, 0], header.pixel_array.T
    )
    x, y, z = header.ImagePositionPatient
    np.testing.assert_allclose(image.affine[:3, 3], [-x, -y, z])
    np.testing.assert_allclose(image.header.get_zooms(), [0.72314, 0.72314, 4], 1e-5)
    assert sample.metadata["EchoTime"] == pytest.approx(2.81e-3)
    assert str(header.PatientID) not in str(sample.metadata)


def test_a_slice_of_ct_is_in_hounsfield_units(data_folder):
    path = folder_of(data_folder, "dicom") / "693_UNCI.dcm"
    sample, header = load(path), pydicom.dcmread(path)
    values = np.asarray(sample.data.dataobj)[:, :, 0]
    expected = pydicom.pixels.apply_rescale(header.pixel_array, header)
    np.testing.assert_array_equal(values, expected.T)
    assert sample.metadata["RescaleType"] == "HU"
    # The grey and white matter of a head lie between 20 and 60 HU.
    assert 20 < np.median(values[(values > 0) & (values < 100)]) < 60


def test_two_series_in_a_folder_are_listed(data_folder):
    folder = folder_of(data_folder, "dicom")
    with pytest.raises(UsageError, match=r"18: marked lesion"):
        mri.load(folder)
    assert mri.load(folder, series=2).metadata["Modality"] == "CT"


@pytest.mark.parametrize(
    ("image", "labels", "names"),
    [
        ("t1/t1w", "t1/t1w_seg-manual", {0, 1}),
        ("t2/t2", "t2/t2_seg-manual", {0, 1}),
        ("t2/t2", "t2/t2_seg-manual_labeled", {0, 2, 3, 4, 5}),
        ("t2/t2", "t2/labels", {0, 3, 5}),
        ("t2s/t2s", "t2s/t2s_gmseg_manual", {0, 1}),
        ("t2s/t2s", "t2s/t2s_seg-deepseg", {0, 1}),
    ],
)
def test_cord_scans_and_their_labels_share_a_grid(data_folder, image, labels, names):
    folder = folder_of(data_folder, "spine", "sct_testing")
    sample = mri.load(folder / f"{image}.nii.gz")
    drawn = mri.load_labels(sample, folder / f"{labels}.nii.gz")
    assert set(np.unique(drawn.dataobj)) == names
    assert np.isfinite(mri.stacked(sample)).all()


def test_vertebral_levels_descend_along_the_body(data_folder):
    """C2 lies above C5 in RAS, though the scan's first axis runs to the back."""
    folder = folder_of(data_folder, "spine", "sct_testing")
    sample = mri.load(folder / "t2" / "t2.nii.gz")
    assert nibabel.aff2axcodes(sample.data.affine) == ("P", "S", "R")
    drawn = mri.load_labels(sample, folder / "t2" / "t2_seg-manual_labeled.nii.gz")
    values = np.asarray(drawn.dataobj)
    heights = [
        (drawn.affine @ [*np.argwhere(values == level).mean(axis=0), 1])[2]
        for level in (2, 3, 4, 5)
    ]
    assert heights == sorted(heights, reverse=True)


def test_spider_slices_name_their_patient_and_hold_three_tissues(data_folder):
    folder = folder_of(data_folder, "spine", "lumbar_spider_t2space")
    study = open_spider_slices(folder)
    assert len(study) == 62
    assert study.table["subject"].nunique() == 31
    for sample in study:
        (image,) = sample.data.values()
        labels = np.asarray(mri.load_labels(sample).dataobj)
        assert labels.shape == image.shape
        assert set(np.unique(labels)) <= set(SPIDER_SLICE_LABELS.values())
        assert (labels == SPIDER_SLICE_LABELS["disc"]).any()
