"""The filter file of BIDS apps."""

import json

import pytest

from neuromm.core import DataError, InputMissingError, UsageError
from neuromm.io import bids
from neuromm.io.bids_filters import read_filters


def dataset_of(root, names):
    root.mkdir()
    description = {"Name": "tree", "BIDSVersion": "1.11.0"}
    (root / "dataset_description.json").write_text(json.dumps(description))
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


@pytest.fixture
def raw(tmp_path):
    return dataset_of(
        tmp_path / "ds",
        [
            f"sub-{subject}/func/sub-{subject}_task-{task}_run-{run}_bold.nii.gz"
            for subject in ("01", "02")
            for task in ("film", "rest")
            for run in ("1", "2", "10")
        ],
    )


def test_a_filter_file_in_the_shape_of_fmriprep_keeps_its_runs(raw, tmp_path):
    path = tmp_path / "filter.json"
    content = {
        "t1w": {"datatype": "anat", "suffix": "T1w"},
        "bold": {
            "datatype": "func", "suffix": "bold", "task": "film", "session": None,
            "run": [1, "10"], "subject": "sub-02", "part": ["mag", None],
        },
    }  # fmt: skip
    path.write_text(json.dumps(content))
    study = bids.open_dataset(raw, filters=path)
    assert [path.name for path in study.table["path"]] == [
        "sub-02_task-film_run-1_bold.nii.gz",
        "sub-02_task-film_run-10_bold.nii.gz",
    ]


def test_absent_and_any_are_sentinels(tmp_path):
    stem = "sub-01/func/sub-01_task-film"
    root = dataset_of(
        tmp_path / "ds", [f"{stem}_bold.nii.gz", f"{stem}_acq-a_bold.nii.gz"]
    )
    for value, expected in ((None, [None]), ("*", ["a"]), ("a", ["a"])):
        study = bids.open_dataset(root, filters={"bold": {"acquisition": value}})
        assert study.table["acquisition"].tolist() == expected
    assert len(bids.open_dataset(root, filters={"bold": {"acq": ["a", None]}})) == 2
    with pytest.raises(InputMissingError, match="Does the filter keep any"):
        bids.open_dataset(root, filters={"bold": {"acq": "b"}})


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"blod": {"task": "film"}}, "'blod' must be a type of data"),
        ({"bold": "film"}, "JSON object of entities"),
        ({"bold": {"tsk": "film"}}, "'tsk' of 'bold' is no entity"),
        ({"bold": {"task": True}}, "'task' of 'bold' is True"),
        ({"bold": {"task": {"a": 1}}}, "expected a label, a list"),
    ],
)
def test_a_filter_that_filters_nothing_is_refused(filters, message):
    with pytest.raises(UsageError, match=message):
        read_filters(filters)


def test_a_filter_file_that_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "filter.json"
    with pytest.raises(InputMissingError, match=r"filter.json: no such filter file"):
        read_filters(path)
    path.write_text("{'bold': {}}")
    with pytest.raises(DataError, match=r"filter.json: is not valid JSON.*object such"):
        read_filters(str(path))
