import json
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from neuromm.report import write_group_maps, write_group_report
from neuromm.report.group import region_means, write_region_means
from neuromm.report.units import read_subjects

NAME = "task-film_space-MNI152NLin2009cAsym_contrast-vision_stat-r"


@pytest.fixture
def three(output: Path, builders: SimpleNamespace) -> Path:
    for seed, subject in enumerate(("01", "02", "03")):
        builders.write_volume_unit(output, subject, spacing_mm=12, seed=seed)
    return output


def volumes(root: Path) -> np.ndarray:
    paths = sorted(root.glob(f"sub-*/func/*_{NAME}_statmap.nii.gz"))
    return np.stack([nib.load(path).get_fdata() for path in paths])


def test_mean_maps_are_mean_and_standard_error_over_subjects(three: Path):
    write_group_maps(three)
    subjects = volumes(three)
    mean = nib.load(three / "group" / f"{NAME}_desc-mean_statmap.nii.gz").get_fdata()
    sem = nib.load(three / "group" / f"{NAME}_desc-sem_statmap.nii.gz").get_fdata()
    np.testing.assert_allclose(mean, subjects.mean(0), rtol=1e-6, equal_nan=True)
    expected = subjects.std(0, ddof=1) / np.sqrt(3)
    np.testing.assert_allclose(sem, expected, rtol=1e-5, equal_nan=True)
    sidecar = json.loads(
        (three / "group" / f"{NAME}_desc-mean_statmap.json").read_text()
    )
    assert sidecar["NumberOfSubjects"] == 3
    assert sidecar["Sources"][0].startswith("bids::sub-01/func/")


def test_a_subject_on_another_grid_is_left_out_and_named(
    three: Path, builders: SimpleNamespace
):
    builders.write_volume_unit(three, "04", spacing_mm=10)
    maps = write_group_maps(three)
    assert {m.n_subjects for m in maps} == {3}
    assert {m.left_out for m in maps} == {("04",)}
    assert "Left out, on another grid: sub-04" in write_group_report(three).read_text()


def test_spaces_of_single_subjects_are_not_averaged(
    output: Path, builders: SimpleNamespace
):
    for subject in ("01", "02"):
        builders.write_native_unit(output, subject)
    assert write_group_maps(output) == []
    assert not (output / "group").exists()


def test_one_subject_makes_no_mean_map(output: Path, builders: SimpleNamespace):
    builders.write_volume_unit(output, "01", spacing_mm=12)
    assert write_group_maps(output) == []
    assert "Encoding report of 1 subject" in write_group_report(output).read_text()


def test_a_region_is_the_mean_of_the_subjects_means(three: Path):
    means = region_means(read_subjects(three)).set_index(["space", "region"])
    key = ("vision", "L Lateral occipital")
    own, counts = [], []
    for path in sorted(three.glob("sub-*/func/*_scores.tsv")):
        table = pd.read_csv(path, sep="\t", na_values="n/a")
        rows = table[(table["space"] == key[0]) & (table["region"] == key[1])]
        own.append(rows["r"].mean())
        counts.append(rows["r"].notna().sum())
    row = means.loc[key]
    assert row["mean_r"] == pytest.approx(np.mean(own))
    assert row["sem_r"] == pytest.approx(np.std(own, ddof=1) / np.sqrt(3))
    assert row["n_subjects"] == 3
    assert row["n_targets"] == sum(counts)


def test_the_planted_region_leads_the_table(three: Path):
    write_region_means(three, region_means(read_subjects(three)))
    table = pd.read_csv(three / "group_desc-encoding_regions.tsv", sep="\t")
    first = table.groupby("space", sort=False).first()
    assert first.loc["vision", "region"] == "L Lateral occipital"
    assert first.loc["language", "region"] == "L Superior temporal"


def test_contacts_of_subjects_without_mni_positions_are_named_not_drawn(study: Path):
    from neuromm.report.html import _all_contacts

    units = [unit for ones in read_subjects(study).values() for unit in ones]
    (gallery,) = _all_contacts(units)
    assert "sub-02" in gallery.notes[0]
    assert all("24 contacts" in picture.alt for picture in gallery.pictures)
