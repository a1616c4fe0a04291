"""File names, the index of a dataset, and the inheritance principle."""

import json
import os
import re

import ancpbids
import mne_bids
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromm.core import DataError, InputMissingError
from neuromm.io.bids_name import BidsFile, has_value, natural_key, parse_name
from neuromm.io.content import require_content
from neuromm.io.inheritance import applicable, merged_metadata, most_specific
from neuromm.io.layout import AncpLayout, Layout, require_dataset

NAMES = [
    "sub-01/func/sub-01_task-film_run-01_bold.nii.gz",
    "sub-01/func/sub-01_task-film_run-01_bold.json",
    "sub-01/func/sub-01_task-film_run-01_events.tsv",
    "sub-01/func/sub-01_task-film_run-10_bold.nii.gz",
    "sub-01/func/sub-01_task-film_run-2_bold.nii.gz",
    "sub-01/func/sub-01_task-film_echo-1_part-mag_sbref.nii.gz",
    "sub-02/ses-a/meg/sub-02_ses-a_task-film_split-01_meg.fif",
    "sub-02/ses-a/meg/sub-02_ses-a_task-rest_meg.ds/sub-02_ses-a_task-rest_meg.meg4",
    "sub-02/ses-a/sub-02_ses-a_scans.tsv",
    "sub-02/figures/sub-02_task-film_desc-carpet_bold.svg",
    "sub-10/ieeg/sub-10_space-MNI152NLin2009cAsym_electrodes.tsv",
    "task-film_bold.json",
    "participants.tsv",
    "README",
    "code/sub-01_task-film_bold.nii.gz",
    ".git/sub-01_task-film_bold.nii.gz",
    "sourcedata/sub-01/func/sub-01_task-film_bold.nii.gz",
    "derivatives/x/sub-01/func/sub-01_task-film_bold.nii.gz",
]


@pytest.fixture
def dataset(tmp_path):
    write_tree(tmp_path, NAMES)
    return tmp_path


def write_tree(root, names):
    root.mkdir(exist_ok=True)
    description = {"Name": "tree", "BIDSVersion": "1.11.0"}
    (root / "dataset_description.json").write_text(json.dumps(description))
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}" if path.suffix == ".json" else "")


def test_entities_keep_their_zeros_their_order_and_their_dashes():
    file = parse_name("sub-01/func/sub-01_acq-a-b_run-007_hemi-L_den-41k_bold.func.gii")
    assert list(file.entities.items()) == [
        ("subject", "01"),
        ("acquisition", "a-b"),
        ("run", "007"),
        ("hemisphere", "L"),
        ("density", "41k"),
    ]
    assert (file.suffix, file.extension) == ("bold", ".func.gii")
    assert file.datatype == "func"


@pytest.mark.parametrize(
    "name",
    [
        "README",
        "notes_of_today.txt",
        "sub-01_sub-02_bold.nii",
        "sub-_bold.nii",
        "sub-01_task-film.nii",
        "sub-02/func/sub-01_task-film_bold.nii.gz",
        "sub-01/ses-b/func/sub-01_ses-a_task-film_bold.nii.gz",
    ],
)
def test_a_name_that_is_no_bids_name_or_contradicts_its_folder_is_none(name):
    assert parse_name(name) is None


label = st.text("abcXYZ019", min_size=1, max_size=6)


@given(
    st.lists(label, min_size=5, max_size=5),
    st.sampled_from(["bold.nii.gz", "eeg.vhdr", "meg.fif", "channels.tsv"]),
)
def test_entities_agree_with_mne_bids(labels, end):
    subject, session, task, acquisition, run = labels
    run = str(int("0" + "".join(c for c in run if c.isdigit())))
    name = f"sub-{subject}_ses-{session}_task-{task}_acq-{acquisition}_run-{run}_{end}"
    peer = mne_bids.get_bids_path_from_fname(name, check=False, verbose="error")
    ours = parse_name(name)
    for entity in ("subject", "session", "task", "acquisition", "run"):
        assert ours.entities[entity] == peer.entities[entity]
    assert ours.suffix == peer.suffix
    assert ours.extension == peer.extension


def test_numbers_are_compared_as_numbers_and_labels_as_text():
    assert has_value("run", "01", "1")
    assert not has_value("subject", "01", "1")
    assert has_value("run", None, (None, "2"))
    assert has_value("space", "T1w", "*")
    assert not has_value("space", None, "*")


def test_natural_order_puts_two_before_ten():
    assert sorted(["run-10", "run-2", "run-1a"], key=natural_key) == [
        "run-1a",
        "run-2",
        "run-10",
    ]


def test_the_index_holds_every_data_file_that_a_glob_finds(dataset):
    layout = AncpLayout(dataset)
    pattern = re.compile(
        r"(sub-[^/]+/(ses-[^/]+/)?([a-z]+/)?|)[^/]*_[a-z]+\.[a-z0-9.]+"
    )
    globbed = {
        str(path.relative_to(dataset))
        for path in dataset.rglob("*")
        if pattern.fullmatch(str(path.relative_to(dataset)))
        and "figures" not in path.parts
        and not path.name.startswith("dataset")
    }
    found = {str(file.path.relative_to(dataset)) for file in layout.find({})}
    assert "sub-02/ses-a/meg/sub-02_ses-a_task-rest_meg.ds" in found
    assert found - {"participants.tsv"} == globbed
    assert len(globbed) == 11


def test_the_index_finds_what_ancpbids_finds(dataset):
    layout = AncpLayout(dataset)
    plain = ancpbids.load_dataset(
        str(dataset), ancpbids.DatasetOptions(ignore_pickle_file=True)
    )
    for suffix in ("bold", "meg", "events", "scans", "electrodes"):
        peer = {
            os.path.relpath(path, dataset)
            for path in plain.query(return_type="files", suffix=suffix)
        }
        # Folders that hold no data, and the inside of recordings that are folders.
        outside = ("code/", "derivatives/", "sourcedata/", ".git/", "sub-02/figures/")
        peer = {p for p in peer if not p.startswith(outside) and ".ds/" not in p}
        ours = {
            str(file.path.relative_to(dataset))
            for file in layout.find({"suffix": suffix})
            if file.extension != ".ds"
        }
        assert ours == peer


def test_the_layout_keeps_the_protocol_and_a_natural_order(dataset):
    layout = AncpLayout(dataset)
    assert isinstance(layout, Layout)
    assert layout.subjects() == ["01", "02", "10"]
    bold = layout.find({"suffix": "bold", "extension": ".nii.gz"})
    assert [file.entities["run"] for file in bold] == ["01", "2", "10"]
    assert layout.find({"sub": "02", "datatype": "meg", "task": "rest"})[
        0
    ].path.name.endswith("_meg.ds")
    assert len(layout.find({"suffix": "bold", "subject": None})) == 1


def test_only_wanted_subjects_are_read_from_disk(dataset, monkeypatch):
    scanned = []
    scandir = os.scandir

    def watched(path):
        scanned.append(str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", watched)
    assert AncpLayout(dataset, subjects=["10"]).subjects() == ["10"]
    inside = [path for path in scanned if "sub-" in os.path.basename(path)]
    assert inside == [str(dataset / "sub-10")]


def test_a_pickle_that_lies_in_the_dataset_is_not_opened(dataset, tmp_path_factory):
    mark = tmp_path_factory.mktemp("mark") / "opened"
    makes_a_folder = f"cos\nmkdir\n(S'{mark}'\ntR.".encode()
    (dataset / ".ancpbids-dataset.pickle").write_bytes(makes_a_folder)
    assert AncpLayout(dataset).subjects()
    assert not mark.exists()


@pytest.mark.parametrize("content", ['{"BIDSVersion": 1.8}', "not json", "[]"])
def test_a_damaged_description_does_not_stop_the_index(dataset, content):
    (dataset / "dataset_description.json").write_text(content)
    for name in ("samples.json", "participants.json", "genetic_info.json"):
        (dataset / name).write_text("not json")
    assert AncpLayout(dataset).subjects() == ["01", "02", "10"]


def test_files_in_the_folder_of_another_subject_are_left_out_with_a_warning(dataset):
    (dataset / "sub-01/func/sub-02_task-film_bold.nii.gz").touch()
    with pytest.warns(UserWarning, match="left out 1 files.*sub-01/func/sub-02_task"):
        layout = AncpLayout(dataset)
    assert not layout.find({"subject": "02", "suffix": "bold"})


def test_sidecars_override_key_by_key_from_the_root_down(tmp_path):
    name = "sub-01/ses-a/func/sub-01_ses-a_task-film_bold"
    write_tree(tmp_path, [f"{name}.nii.gz"])
    levels = {
        "bold.json": {"a": 1, "b": 1, "c": 1, "d": [1, 2]},
        "task-film_bold.json": {"b": 2, "d": [3]},
        "task-rest_bold.json": {"a": 9},
        "task-film_eeg.json": {"a": 9},
        "sub-01/sub-01_task-film_run-1_bold.json": {"a": 9},
        "sub-01/ses-a/sub-01_ses-a_bold.json": {"c": 3, "e": {"x": 1}},
        f"{name}.json": {"e": {"y": 2}},
    }
    for file, content in levels.items():
        (tmp_path / file).write_text(json.dumps(content))
    layout = AncpLayout(tmp_path)
    expected = {"a": 1, "b": 2, "c": 3, "d": [3], "e": {"y": 2}}
    assert layout.metadata(f"{name}.nii.gz") == expected
    assert layout.metadata(tmp_path / f"{name}.nii.gz") == expected


def test_a_sidecar_that_is_no_json_is_named(tmp_path):
    write_tree(tmp_path, ["sub-01/func/sub-01_task-film_bold.nii.gz"])
    (tmp_path / "task-film_bold.json").write_text("{'a': 1}")
    with pytest.raises(DataError, match=r"task-film_bold.json: is not valid JSON"):
        AncpLayout(tmp_path).metadata("sub-01/func/sub-01_task-film_bold.nii.gz")


FOLDERS = [(), ("sub-1",), ("sub-1", "ses-1"), ("sub-1", "ses-1", "func"), ("sub-2",)]
entities = st.fixed_dictionaries(
    {},
    optional={
        "sub": st.just("1"),
        "ses": st.just("1"),
        "task": st.sampled_from("ab"),
        "acq": st.sampled_from("xy"),
        "run": st.sampled_from(["1", "01", "2"]),
    },
)
sidecars = st.dictionaries(
    st.tuples(st.sampled_from(FOLDERS), entities.map(lambda e: tuple(e.items()))),
    st.dictionaries(st.sampled_from("pqr"), st.integers(0, 5)),
    max_size=8,
)


def json_name(pairs):
    return "_".join([*(f"{key}-{label}" for key, label in pairs), "bold.json"])


@given(own=entities, tree=sidecars)
def test_inheritance_is_what_the_principle_says(tmp_path_factory, own, tree):
    root = tmp_path_factory.mktemp("tree")
    folder = ("sub-1", "ses-1", "func")
    own = {"sub": "1", "ses": "1", **own}
    files = []
    for (where, pairs), content in tree.items():
        path = root.joinpath(*where, json_name(pairs))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
        files.append(parse_name(path.relative_to(root), root, strict=False))
    recording = "_".join([*(f"{k}-{v}" for k, v in own.items()), "bold.nii.gz"])
    parsed = parse_name(recording, strict=False)
    merged = merged_metadata(applicable(files, folder, parsed.entities))

    def number(key, value):
        return int(value) if key == "run" else value

    # The definition, by brute force: each level from the root down, and in a level
    # from the fewest to the most entities.
    expected = {}
    for depth in range(4):
        level = [
            (len(pairs), json_name(pairs), content)
            for (where, pairs), content in tree.items()
            if where == folder[:depth]
            and all(k in own and number(k, own[k]) == number(k, v) for k, v in pairs)
        ]
        for _, _, content in sorted(level, key=lambda item: item[:2]):
            expected.update(content)
    assert merged == expected


def test_two_equally_specific_tables_are_refused(tmp_path):
    names = ("task-film_events.tsv", "run-1_events.tsv")
    files = [parse_name(name, tmp_path) for name in names]
    found = applicable(files, (), {"task": "film", "run": "1"})
    with pytest.raises(DataError, match=r"_events.tsv beside it, and neither is more"):
        most_specific(found)
    assert most_specific([]) is None
    assert isinstance(most_specific(found[:1]), BidsFile)


def test_a_link_without_content_names_the_command_that_fetches_it(tmp_path):
    link = tmp_path / "bold.nii.gz"
    link.symlink_to(".git/annex/objects/ab/SHA256E-s1--f.nii.gz")
    with pytest.raises(InputMissingError, match=f"datalad get {link}"):
        require_content(link)


def test_an_unlocked_annex_file_without_content_is_recognised(tmp_path):
    pointer = tmp_path / "bold.nii.gz"
    pointer.write_text("/annex/objects/SHA256E-s123--abc.nii.gz\n")
    with pytest.raises(InputMissingError, match=f"datalad get {pointer}"):
        require_content(pointer)


def test_a_root_that_is_none_says_why(tmp_path):
    with pytest.raises(InputMissingError, match="no such folder"):
        require_dataset(tmp_path / "ds")
    (tmp_path / "file").touch()
    with pytest.raises(InputMissingError, match="is a file"):
        require_dataset(tmp_path / "file")
    with pytest.raises(DataError, match=r'write there: {"Name": ".*"BIDSVersion"'):
        require_dataset(tmp_path)
    with pytest.raises(DataError, match=r'"GeneratedBy": \[{"Name": "fmriprep"}\]'):
        require_dataset(tmp_path, derivative="fmriprep")
    write_tree(tmp_path / "inner", [])
    with pytest.raises(DataError, match=r"Did you mean .*inner"):
        require_dataset(tmp_path)
