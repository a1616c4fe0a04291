"""Folders of published MRI become studies whose rows name the patient."""

import nibabel
import numpy as np
import pytest
from PIL import Image

from neuromm.core import DataError, InputMissingError, UsageError
from neuromm.core.files import write_json
from neuromm.io import mri
from neuromm.io.mri_layouts import (
    IVDM3SEG_MODALITIES,
    open_anat,
    open_ivdm3seg,
    open_spider,
    open_spider_slices,
)

AFFINE = np.array([[0, 0, 2.0, -4], [1.25, 0, 0, -5], [0, 1.25, 0, -6], [0, 0, 0, 1]])


def write(path, value=1.0, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(np.full((6, 5, 4), value, np.float32), affine)
    image.header.set_xyzt_units("mm")
    image.to_filename(path)
    return path


@pytest.fixture
def ivdm3seg(tmp_path):
    for number in ("01", "02", "10"):
        for k, name in enumerate(IVDM3SEG_MODALITIES):
            write(tmp_path / number / f"{number}_{name}.nii", int(number) * 10 + k)
        write(tmp_path / number / f"{number}_Labels.nii")
    return tmp_path


def test_ivdm3seg_sets_hold_four_modalities_by_name(ivdm3seg):
    study = open_ivdm3seg(ivdm3seg, subjects={"01": "a", "02": "a", "10": "b"})
    assert list(study.table["set"]) == ["01", "02", "10"]
    assert list(study.table["subject"]) == ["a", "a", "b"]
    sample = study.load(1)
    assert sample.modality == "mri"
    assert sample.entities == {"subject": "a"}
    volume = mri.stacked(sample, ["wat", "fat", "inn", "opp"])
    assert list(volume[:, 0, 0, 0]) == [23, 20, 21, 22]
    assert np.asarray(mri.load_labels(sample).dataobj).all()


def test_ivdm3seg_warns_that_two_sets_are_of_one_person(ivdm3seg):
    with pytest.warns(UserWarning, match="two scans of each person"):
        study = open_ivdm3seg(ivdm3seg)
    assert study.table["subject"].nunique() == 3
    with pytest.raises(UsageError, match="whose scan 10 is"):
        open_ivdm3seg(ivdm3seg, subjects={"01": "a", "02": "a"})


def test_labels_displaced_from_their_images_are_caught(ivdm3seg):
    moved = AFFINE.copy()
    moved[2, 3] += 10.8
    write(ivdm3seg / "02" / "02_Labels.nii", affine=moved)
    study = open_ivdm3seg(ivdm3seg, subjects={n: n for n in ("01", "02", "10")})
    with pytest.raises(DataError, match=r"02_Labels\.nii.*10\.8 mm"):
        mri.load_labels(study.load(1))


def test_a_missing_modality_is_refused_dropped_or_allowed(ivdm3seg):
    (ivdm3seg / "02" / "02_opp.nii").unlink()
    own = {n: n for n in ("01", "02", "10")}
    with pytest.raises(InputMissingError, match=r"1 of 3.*02 of subject 02: no opp"):
        open_ivdm3seg(ivdm3seg, subjects=own)
    dropped = open_ivdm3seg(ivdm3seg, subjects=own, missing="drop")
    assert list(dropped.table["subject"]) == ["01", "10"]
    allowed = open_ivdm3seg(ivdm3seg, subjects=own, missing="allow")
    assert list(allowed.load(1).data) == ["fat", "inn", "wat"]


def test_an_empty_folder_says_what_was_expected(tmp_path):
    for opened, match in (
        (open_ivdm3seg, "01_fat.nii"),
        (open_spider_slices, "1_t2_SPACE_slice60.png"),
    ):
        with pytest.raises(InputMissingError, match=match):
            opened(tmp_path)
    with pytest.raises(InputMissingError, match="images: no such folder"):
        open_spider(tmp_path)


def test_spider_patients_hold_t1_and_t2_with_the_mask_asked_for(tmp_path):
    for patient in ("2", "10"):
        for k, name in enumerate(("t1", "t2")):
            write(tmp_path / "images" / f"{patient}_{name}.nii.gz", 10 + k)
            write(tmp_path / "masks" / f"{patient}_{name}.nii.gz", 201 + k)
    write(tmp_path / "images" / "11_t2.nii.gz")
    with pytest.raises(InputMissingError, match="images of subject 11: no t1"):
        open_spider(tmp_path)
    study = open_spider(tmp_path, missing="drop", labels_of="t2")
    assert list(study.table["subject"]) == ["2", "10"]
    sample = study.load(0)
    assert list(mri.stacked(sample)[:, 0, 0, 0]) == [10, 11]
    assert np.unique(mri.load_labels(sample).dataobj) == [202]
    with pytest.raises(UsageError, match="labels_of='t3' is none of t1, t2"):
        open_spider(tmp_path, labels_of="t3")


def picture(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)


def test_slices_of_a_patient_share_their_subject(tmp_path):
    mask = np.array([[0, 29, 76], [150, 0, 29]])
    for name in ("7_t2_SPACE_slice9", "7_t2_SPACE_slice10", "12_t2_SPACE_slice3"):
        picture(tmp_path / "images" / f"{name}.png", mask + 1)
        picture(tmp_path / "masks" / f"{name}.png", mask)
    study = open_spider_slices(tmp_path)
    assert list(study.table["subject"]) == ["7", "7", "12"]
    assert list(study.table["slice"]) == ["9", "10", "3"]
    sample = study.load(2)
    assert sample.entities == {"subject": "12", "slice": "3"}
    assert sample.data["t2_SPACE"].shape == (2, 3, 1)
    labels = mri.load_labels(sample)
    np.testing.assert_array_equal(np.asarray(labels.dataobj)[..., 0], mask)
    picture(tmp_path / "masks" / "12_t2_SPACE_slice3.png", mask.T)
    with pytest.raises(DataError, match=r"shapes are \(2, 3, 1\) and \(3, 2, 1\)"):
        mri.load_labels(sample)
    (tmp_path / "masks" / "7_t2_SPACE_slice10.png").unlink()
    with pytest.raises(InputMissingError, match=r"slice10\.png: has no mask"):
        open_spider_slices(tmp_path)


@pytest.fixture
def bids(tmp_path):
    mri.write_example(tmp_path)
    return tmp_path


def test_anatomical_scans_of_a_session_are_one_row(bids):
    study = open_anat(bids)
    assert list(study.table["subject"]) == ["01"]
    sample = study.load(0)
    assert list(sample.data) == ["T1w", "T2w"]
    assert sample.metadata["Modalities"]["T2w"]["EchoTime"] == 0.1
    assert sample.entities == {"subject": "01"}


def test_several_scans_of_one_kind_ask_which(bids):
    anat = bids / "sub-01" / "anat"
    write(anat / "sub-01_acq-sag_T2w.nii.gz")
    with pytest.raises(UsageError, match=r"several scans T2w.*entities="):
        open_anat(bids)
    plain = open_anat(bids, entities={"acquisition": None})
    assert plain.table["files"][0]["T2w"].name == "sub-01_T2w.nii.gz"
    sagittal = open_anat(bids, modalities=["T2w"], entities={"acquisition": "sag"})
    assert sagittal.table["path"][0].name == "sub-01_acq-sag_T2w.nii.gz"


def test_raw_scans_on_two_grids_are_resampled_only_when_asked(bids):
    write(bids / "sub-01" / "anat" / "sub-01_T2w.nii.gz", 50.0)
    with pytest.raises(DataError, match="T1w and T2w are not on one grid"):
        open_anat(bids).load(0)
    sample = open_anat(bids, resample_to="T1w").load(0)
    assert sample.data["T2w"].shape == sample.data["T1w"].shape
    assert sample.metadata["Resampled"]["T2w"]["To"] == "T1w"


def test_labels_come_from_a_derivative(bids, tmp_path):
    derivative = tmp_path / "derivatives" / "discs"
    sample = open_anat(bids).load(0)
    drawn = nibabel.Nifti1Image(np.ones((10, 16, 12), np.uint8),
                                sample.data["T1w"].affine)  # fmt: skip
    path = derivative / "sub-01" / "anat" / "sub-01_desc-disc_dseg.nii.gz"
    path.parent.mkdir(parents=True)
    drawn.to_filename(path)
    write_json(
        derivative / "dataset_description.json",
        {"Name": "discs", "BIDSVersion": "1.10.0", "DatasetType": "derivative"},
    )
    study = open_anat(bids, labels=derivative)
    assert study.table["labels"][0] == path
    assert np.asarray(mri.load_labels(study.load(0)).dataobj).all()


def test_a_dataset_without_anatomy_says_what_was_expected(bids):
    with pytest.raises(InputMissingError, match=r"no anatomical scan of FLAIR"):
        open_anat(bids, modalities=["FLAIR"])
