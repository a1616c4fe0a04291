"""Sites of voxels over subjects: what is drawn is what is counted."""

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from neuromm.report import write_group_report, write_sites
from neuromm.report.group_site_voxels import voxel_drawing
from neuromm.report.group_sites import gather_sites
from neuromm.report.site_sections import _region_rows
from neuromm.report.units import read_subjects
from tests.report.test_site_outputs import site_map

MNI = "MNI152NLin2009cAsym"
N_SITES = {"01": 30, "02": 20, "03": 0}


def write_subject(output, builders, subject, *, spacing_mm=12):
    """The first voxels of each subject are sites; the last was not tested."""
    builders.write_volume_unit(output, subject, spacing_mm=spacing_mm)
    space = builders.Volume(builders.mni_mask(spacing_mm), MNI)
    sites = site_map(space.coords(), N_SITES[subject])
    entities = {"subject": subject, "task": "film", "space": MNI}
    write_sites(output, entities, "func", sites, space=space)
    return space


@pytest.fixture
def three(output, builders):
    for subject in N_SITES:
        space = write_subject(output, builders, subject)
    return output, space


def drawn(output):
    (group,) = gather_sites(read_subjects(output))
    return group, voxel_drawing(group)


def test_a_voxel_shows_the_share_of_subjects_with_a_site(three):
    output, space = three
    group, drawing = drawn(output)
    table = drawing.table
    assert len(table) == space.n_targets - 1  # the last was tested in nobody
    masks = [
        np.asarray(nib.load(path).dataobj)
        for path in sorted(output.glob("sub-*/func/*multimodalsites_mask.nii.gz"))
    ]
    expected = np.mean(masks, axis=0)
    found = expected[tuple(table[["i", "j", "k"]].to_numpy().T)]
    np.testing.assert_allclose(table["share"], found)
    assert table["n_sites"].sum() == group.table["is_site"].sum() == 30 + 20
    assert sorted(table["n_sites"].unique()) == [0, 1, 2]
    assert "30 voxels with a site in at least one of 3 subjects" in drawing.caption


def test_the_report_holds_the_map_and_its_numbers(three):
    output, _ = three
    page = write_group_report(output).read_text()
    assert "Share of subjects with a site" in page
    (path,) = (output / "group" / "func").glob("*_shareglass.tsv")
    assert pd.read_csv(path, sep="\t")["n_sites"].sum() == 30 + 20


def test_subjects_on_different_grids_are_named_and_not_drawn(output, builders):
    write_subject(output, builders, "01")
    write_subject(output, builders, "02", spacing_mm=10)
    _, told = drawn(output)
    assert "sub-02 lie on another grid" in told
    assert told in write_group_report(output).read_text()


def test_spaces_of_single_subjects_are_not_drawn(output, builders):
    for subject in ("01", "02"):
        builders.write_native_unit(output, subject)
        space = builders.Volume(builders.native_mask(), None)
        entities = {"subject": subject, "task": "film", "space": "T1w"}
        sites = site_map(space.coords(), 10)
        write_sites(output, entities, "func", sites, space=space)
    _, told = drawn(output)
    assert "not all in one standard space" in told


def test_two_of_many_targets_are_not_zero_per_cent():
    row = {"region": "area", "n_targets": 581, "n_sites": 2, "share": 2 / 581}
    row |= {"share_low": 0.0009, "share_high": 0.0125, "mean_gain": 0.01}
    (shown,) = _region_rows(pd.DataFrame([row]))
    assert (shown["share"], shown["interval"]) == ("0.3%", "0.1% to 1.2%")
