"""The right reader is found for a file, by its name and its folder alone."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from neuromm.core import InputMissingError, UsageError
from neuromm.io import Reader, load, reader, readers

HEAVY = ("torch", "mne", "mne_bids", "nibabel", "nilearn", "sklearn", "scipy")
HEAVY += (
    "matplotlib",
    "ancpbids",
    "monai",
    "scanpy",
    "defusedxml",
    "h5py",
    "pydicom",
    "PIL",
)


@pytest.fixture
def chosen(monkeypatch):
    """Replace each reader's load, so that a file is told and not read."""
    stubs = tuple(
        (name, dataclasses.replace(found, load=lambda path, name=name: name))
        for name, found in readers().items()
    )
    monkeypatch.setattr(reader, "_found_readers", lambda: stubs)
    return load


def made(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


@pytest.mark.parametrize("statement", ["neuromm.io", "neuromm.io.fmri"])
def test_finding_the_readers_loads_no_heavy_package(statement):
    code = (
        f"import sys, {statement}, neuromm.io; found = neuromm.io.readers(); "
        f"loaded = sorted(set({HEAVY!r}) & set(sys.modules)); "
        "sys.exit(str(loaded) if loaded or len(found) < 4 else 0)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_the_modalities_of_the_encoding_job_are_there():
    assert {"fmri", "eeg", "meg", "ieeg"} <= set(readers())
    assert all(isinstance(found, Reader) for found in readers().values())


def test_the_registry_cannot_be_changed_through_its_answer():
    readers().clear()
    assert "fmri" in readers()


@pytest.mark.parametrize(
    ("name", "modality"),
    [
        ("bold.nii.gz", "fmri"),
        ("func/Upper.NII", "fmri"),
        ("sub-01_T2w.nii.gz", "mri"),
        ("anat/volume.nii", "mri"),
        ("IM0001.dcm", "mri"),
        ("1_t1.mha", "mri"),
        ("sub-01_hemi-L_bold.func.gii", "fmri"),
        ("sub-01_task-a_eeg.edf", "eeg"),
        ("sub-01_task-a_ieeg.edf", "ieeg"),
        ("sub-01_task-a_meg.fif", "meg"),
        ("sub-01/ieeg/recording.vhdr", "ieeg"),
        ("sub-01/meg/recording_raw.fif", "meg"),
        ("sub-01/eeg/sub-01_task-a_ieeg.edf", "ieeg"),  # the suffix names the file
        ("subject.ds", "meg"),
    ],
)
def test_the_modality_is_told_from_extension_suffix_and_folder(
    chosen, tmp_path, name, modality
):
    assert chosen(made(tmp_path, name)) == modality


def test_an_extension_of_several_modalities_asks_which(chosen, tmp_path):
    path = made(tmp_path, "recording_raw.fif")
    with pytest.raises(UsageError, match=r"may be eeg or ieeg or meg.*modality='eeg'"):
        chosen(path)
    assert chosen(path, modality="meg") == "meg"


@pytest.mark.parametrize(
    ("shape", "modality"),
    [((3, 4, 5), "mri"), ((3, 4, 5, 1), "mri"), ((3, 4, 5, 6), "fmri")],
)
def test_a_nameless_volume_is_told_by_its_dimensions(chosen, tmp_path, shape, modality):
    import nibabel

    path = tmp_path / "image.nii.gz"
    nibabel.Nifti1Image(np.zeros(shape, np.int16), np.eye(4)).to_filename(path)
    assert chosen(path) == modality


def test_a_volume_that_does_not_tell_asks_which(chosen, tmp_path):
    with pytest.raises(UsageError, match=r"may be fmri or mri.*modality='fmri'"):
        chosen(made(tmp_path, "image.nii"))


def test_dicom_is_found_without_an_extension(chosen, tmp_path):
    path = made(tmp_path, "series/IM0001")
    path.write_bytes(bytes(128) + b"DICM")
    assert chosen(path) == "mri"
    assert chosen(path.parent) == "mri"


def test_an_unknown_extension_lists_the_known(chosen, tmp_path):
    with pytest.raises(UsageError, match=r"notes\.txt: no reader .*\.nii\.gz"):
        chosen(made(tmp_path, "notes.txt"))


def test_an_unknown_modality_lists_the_known(chosen, tmp_path):
    with pytest.raises(UsageError, match=r"no reader 'petscan' .*eeg, fmri"):
        chosen(made(tmp_path, "a.nii"), modality="petscan")


def test_a_missing_file_is_missing_whatever_its_name(tmp_path):
    with pytest.raises(InputMissingError, match=r"nothing\.xyz"):
        load(tmp_path / "nothing.xyz")
