import json
from pathlib import Path

import pytest

from neuromm.core import UsageError
from neuromm.report.dataset import bids_uri, prepare_output


def contents(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def described(root: Path) -> dict:
    return json.loads((root / "dataset_description.json").read_text())


def test_a_second_job_leaves_every_file_as_it_was(output: Path, source: Path):
    before = contents(output)
    times = {p: p.stat().st_mtime_ns for p in output.rglob("*") if p.is_file()}
    prepare_output(output, source, {"fmriprep": output.parent / "fmriprep"})
    assert contents(output) == before
    assert {p: p.stat().st_mtime_ns for p in times} == times


def test_jobs_with_other_derivatives_end_alike_in_any_order(
    tmp_path: Path, source: Path
):
    links = [{"fmriprep": tmp_path / "fmriprep"}, {"xcpd": tmp_path / "xcpd"}]
    for folder, order in (("a", links), ("b", links[::-1])):
        for named in order:
            prepare_output(tmp_path / folder, source, named)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert set(described(tmp_path / "a")["DatasetLinks"]) == {
        "raw",
        "fmriprep",
        "xcpd",
    }


def test_generated_by_is_appended_to_what_another_software_wrote(
    tmp_path: Path, source: Path
):
    other = {"Name": "fMRIPrep", "Version": "25.1"}
    root = tmp_path / "out"
    root.mkdir()
    (root / "dataset_description.json").write_text(
        json.dumps(
            {"Name": "Mine", "DatasetType": "derivative", "GeneratedBy": [other]}
        )
    )
    prepare_output(root, source)
    content = described(root)
    assert content["Name"] == "Mine"
    assert content["GeneratedBy"][0] == other
    assert [entry["Name"] for entry in content["GeneratedBy"]] == [
        "fMRIPrep",
        "neuromm",
    ]


def test_lines_that_a_user_added_to_bidsignore_stay(output: Path, source: Path):
    path = output / ".bidsignore"
    path.write_text("my_notes.txt\n" + path.read_text())
    before = path.read_bytes()
    prepare_output(output, source)
    assert path.read_bytes() == before


def test_locations_are_relative_and_name_no_home_folder(output: Path, source: Path):
    content = described(output)
    assert content["DatasetLinks"]["raw"] == "../bids"
    assert content["SourceDatasets"] == [{"URL": "../bids"}]
    assert content["License"] == "CC0"


def test_the_input_is_refused_as_output(source: Path):
    with pytest.raises(UsageError, match="the output folder is the input dataset"):
        prepare_output(source, source)


def test_a_raw_dataset_is_refused_as_output(tmp_path: Path, source: Path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "dataset_description.json").write_text('{"Name": "Raw data"}')
    with pytest.raises(UsageError, match="holds a dataset of type 'raw'"):
        prepare_output(other, source)
    assert contents(other).keys() == {"dataset_description.json"}


def test_a_file_is_named_after_the_innermost_dataset(tmp_path: Path):
    datasets = {"raw": tmp_path, "fmriprep": tmp_path / "derivatives" / "fmriprep"}
    path = tmp_path / "derivatives" / "fmriprep" / "sub-01" / "a.nii.gz"
    assert bids_uri(path, datasets) == "bids:fmriprep:sub-01/a.nii.gz"
    assert bids_uri(tmp_path / "sub-01" / "b.tsv", datasets) == "bids:raw:sub-01/b.tsv"


def test_of_a_file_in_no_dataset_only_the_name_is_told(tmp_path: Path):
    path = tmp_path / "home" / "jane" / "mask.nii.gz"
    assert bids_uri(path, {"raw": tmp_path / "bids"}) == "mask.nii.gz"
