"""Where the real recordings lie, and one of them as a BIDS data set."""

import json
import os
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest

T_R = 2.5
CATEGORIES = [
    "bottle", "cat", "chair", "face", "house", "scissors", "scrambledpix", "shoe",
]  # fmt: skip


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Folder of real recordings: NEUROMM_TEST_DATA, or ../shared/data."""
    checkout = Path(__file__).resolve().parents[2]
    default = checkout.parent / "shared" / "data"
    folder = Path(os.environ.get("NEUROMM_TEST_DATA", default))
    if not folder.is_dir():
        pytest.skip(
            f"no real recordings in {folder}; set NEUROMM_TEST_DATA to their folder"
        )
    return folder


@pytest.fixture(scope="module")
def haxby(data_folder, tmp_path_factory):
    """BIDS data set, mask of all voxels that vary, and one column a category."""
    folder = tmp_path_factory.mktemp("haxby")
    source = data_folder / "fmri" / "haxby2001" / "sub001" / "BOLD"
    func = folder / "dataset" / "sub-01" / "func"
    func.mkdir(parents=True)
    (folder / "dataset" / "dataset_description.json").write_text(
        json.dumps({"Name": "Haxby 2001, one slice", "BIDSVersion": "1.11.1"})
    )
    varies = True
    for run in range(1, 9):
        stem = f"sub-01_task-objects_run-{run}"
        image = nibabel.load(source / f"task001_run{run:03d}" / "bold_1slice.nii.gz")
        varies = varies & (image.get_fdata().std(axis=-1) > 0)
        image.header.set_zooms((*image.header.get_zooms()[:3], T_R))
        image.header.set_xyzt_units("mm", "sec")
        image.to_filename(func / f"{stem}_bold.nii.gz")
        (func / f"{stem}_bold.json").write_text(
            json.dumps({"RepetitionTime": T_R, "TaskName": "objects"})
        )
        shutil.copyfile(
            source / f"task001_run{run:03d}" / "bold_events.tsv",
            func / f"{stem}_events.tsv",
        )
    mask = folder / "mask.nii.gz"
    nibabel.Nifti1Image(varies.astype(np.uint8), image.affine).to_filename(mask)
    features = folder / "category.tsv"
    one_hot = pd.DataFrame(np.eye(8, dtype=int), columns=CATEGORIES)
    one_hot.insert(0, "trial_type", CATEGORIES)
    one_hot.to_csv(features, sep="\t", index=False)
    return folder
