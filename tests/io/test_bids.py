"""Recordings of a BIDS dataset, with everything that belongs to them."""

import json
import pickle
import re
import sys
import warnings
from types import SimpleNamespace

import mne_bids
import pytest

from neuromm.core import DataError, InputMissingError, Sample, UsageError
from neuromm.io import bids

BOLD_RUNS = [
    f"sub-{subject}/func/sub-{subject}_task-{task}_run-{run}_bold.nii.gz"
    for subject in ("01", "02")
    for task, run in (("film", "1"), ("film", "2"), ("film", "10"), ("rest", "1"))
]


def write_tree(root, names, description=None):
    root.mkdir(parents=True, exist_ok=True)
    content = {"Name": "tree", "BIDSVersion": "1.11.0"} | (description or {})
    (root / "dataset_description.json").write_text(json.dumps(content))
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}" if path.suffix == ".json" else "")
    return root


@pytest.fixture
def raw(tmp_path):
    root = write_tree(tmp_path / "ds", [*BOLD_RUNS, "task-film_events.tsv"])
    (root / "task-film_bold.json").write_text(
        json.dumps({"RepetitionTime": 2.0, "SliceTiming": [0.0, 1.0]})
    )
    return root


@pytest.fixture
def fmriprep(raw):
    names = []
    for run in BOLD_RUNS:
        stem = run.removesuffix("_bold.nii.gz")
        for space in ("", "_space-MNI152NLin2009cAsym_res-2"):
            names.append(f"{stem}{space}_desc-preproc_bold.nii.gz")
            names.append(f"{stem}{space}_desc-brain_mask.nii.gz")
            names.append(f"{stem}{space}_boldref.nii.gz")
        names += [f"{stem}_hemi-{h}_space-fsaverage5_bold.func.gii" for h in "LR"]
        names.append(f"{stem}_space-fsLR_den-91k_bold.dtseries.nii")
        names.append(f"{stem}_desc-confounds_timeseries.tsv")
        names.append(f"{stem}_desc-confounds_timeseries.json")
    root = write_tree(
        raw / "derivatives" / "fmriprep",
        names,
        {"DatasetType": "derivative", "GeneratedBy": [{"Name": "fMRIPrep"}]},
    )
    film = "sub-01/func/sub-01_task-film_run-1"
    (
        root / f"{film}_space-MNI152NLin2009cAsym_res-2_desc-preproc_bold.json"
    ).write_text(json.dumps({"RepetitionTime": 1.5, "SkullStripped": False}))
    return root


@pytest.fixture
def loaded(monkeypatch):
    """Readers that give back what they were called with."""
    for modality in ("fmri", "eeg", "meg", "ieeg"):

        def load(path, *, entities, metadata, companions, modality=modality):
            return Sample(
                data=None,
                modality=modality,
                source=path,
                entities=entities,
                metadata=metadata,
                companions=companions,
            )

        fake = SimpleNamespace(load=load)
        monkeypatch.setitem(sys.modules, f"neuromm.io.{modality}", fake)


def names(study):
    return [path.name for path in study.table["path"]]


def companion_names(sample):
    return {role: path.name for role, path in sample.companions.items()}


# --- the table


def test_every_bold_run_is_one_row_in_natural_order(raw):
    table = bids.open_dataset(raw).table
    assert [str(path.relative_to(raw)) for path in table["path"]] == BOLD_RUNS
    assert table["run"].tolist()[:4] == ["1", "2", "10", "1"]
    assert table.index.tolist() == list(range(8))
    assert set(table["modality"]) == {"fmri"}
    assert set(table["dataset"]) == {"raw"}
    assert table["session"].tolist() == [None] * 8


def test_labels_are_taken_with_and_without_prefix(raw):
    bare = bids.open_dataset(raw, participant_label="02", task="film", run=["1", "10"])
    prefixed = bids.open_dataset(
        raw,
        participant_label=["sub-02"],
        task=["task-film"],
        run=("run-01", "run-10"),
    )
    assert names(bare) == names(prefixed)
    assert bare.table["run"].tolist() == ["1", "10"]
    assert set(bare.table["subject"]) == {"02"}


def test_sessions_are_kept_apart(tmp_path):
    root = write_tree(
        tmp_path / "ds",
        [
            f"sub-01/ses-{session}/func/sub-01_ses-{session}_task-film_bold.nii.gz"
            for session in ("a", "b")
        ]
        + ["sub-01/ses-a/sub-01_ses-a_scans.tsv", "sub-01/sub-01_sessions.tsv"],
    )
    assert bids.open_dataset(root).table["session"].tolist() == ["a", "b"]
    only = bids.open_dataset(root, session_label="ses-b")
    assert only.table["session"].tolist() == ["b"]
    with pytest.raises(InputMissingError, match=r"matches ses-c .*found: ses-a, ses-b"):
        bids.open_dataset(root, session_label="c")


def test_preprocessed_bold_stands_for_the_raw_run_a_row_a_space(raw, fmriprep):
    study = bids.open_dataset(raw, derivatives={"fmriprep": fmriprep}, task="film")
    assert set(study.table["dataset"]) == {"fmriprep"}
    one = study.select({"subject": "01", "run": "2"})
    stem = "sub-01_task-film_run-2"
    assert names(one) == [
        f"{stem}_desc-preproc_bold.nii.gz",
        f"{stem}_space-MNI152NLin2009cAsym_res-2_desc-preproc_bold.nii.gz",
        f"{stem}_hemi-L_space-fsaverage5_bold.func.gii",
    ]
    assert one.table["space"].tolist() == [None, "MNI152NLin2009cAsym", "fsaverage5"]
    assert one.table["hemisphere"].tolist() == [None, None, "L"]
    assert len(study) == 2 * 3 * 3


def test_a_space_keeps_its_rows(raw, fmriprep):
    study = bids.open_dataset(
        raw, derivatives={"fmriprep": fmriprep}, space="space-fsaverage5", task="film"
    )
    assert set(study.table["space"]) == {"fsaverage5"}
    assert len(study) == 6


def test_a_run_that_was_not_preprocessed_is_read_raw_with_a_warning(raw, fmriprep):
    for path in (fmriprep / "sub-02/func").glob("sub-02_task-rest_*"):
        path.unlink()
    with pytest.warns(UserWarning, match=r"1 of 22 BOLD runs .*sub-02_task-rest_run-1"):
        study = bids.open_dataset(raw, derivatives={"fmriprep": fmriprep})
    assert (study.table["dataset"] == "raw").sum() == 1


def test_another_description_is_chosen_by_a_filter(raw, tmp_path):
    root = write_tree(
        tmp_path / "xcp",
        [
            "sub-01/func/sub-01_task-film_run-1_space-X_desc-denoised_bold.nii.gz",
            "sub-01/func/sub-01_task-film_run-1_space-X_desc-smooth_bold.nii.gz",
        ],
    )
    given = {"derivatives": {"xcp": root}, "participant_label": "01", "task": "film"}
    with pytest.warns(UserWarning, match="it has desc-denoised, desc-smooth"):
        assert (bids.open_dataset(raw, **given).table["dataset"] == "raw").all()
    study = bids.open_dataset(raw, filters={"bold": {"desc": "denoised"}}, **given)
    assert study.table["description"].tolist() == ["denoised"]


def test_echoes_stay_apart_until_a_derivative_combines_them(tmp_path):
    stem = "sub-01/func/sub-01_task-film"
    raw = write_tree(
        tmp_path / "ds",
        [f"{stem}_echo-{echo}_part-mag_bold.nii.gz" for echo in (1, 2)]
        + [f"{stem}_echo-{echo}_part-phase_bold.nii.gz" for echo in (1, 2)]
        + [f"{stem}_echo-1_part-mag_sbref.nii.gz"],
    )
    assert bids.open_dataset(raw).table["echo"].tolist() == ["1", "2"]
    derived = write_tree(
        tmp_path / "fmriprep",
        [f"{stem}_part-mag_desc-preproc_bold.nii.gz"]
        + [f"{stem}_echo-{echo}_part-mag_desc-preproc_bold.nii.gz" for echo in (1, 2)],
    )
    study = bids.open_dataset(raw, derivatives={"fmriprep": derived})
    assert names(study) == ["sub-01_task-film_part-mag_desc-preproc_bold.nii.gz"]


RECORDINGS = {
    "eeg": [
        "sub-01/eeg/sub-01_task-a_eeg.vhdr",
        "sub-01/eeg/sub-01_task-b_eeg.set",
        "sub-01/eeg/sub-01_task-c_eeg.edf",
        "sub-01/eeg/sub-01_task-d_eeg.bdf",
    ],
    "meg": [
        "sub-01/meg/sub-01_task-a_split-01_meg.fif",
        "sub-01/meg/sub-01_task-b_meg.ds",
        "sub-01/meg/sub-01_task-c_meg.fif",
    ],
    "ieeg": [
        "sub-01/ieeg/sub-01_task-a_ieeg.vhdr",
        "sub-01/ieeg/sub-01_task-b_ieeg.edf",
        "sub-01/ieeg/sub-01_task-c_ieeg.mefd",
        "sub-01/ieeg/sub-01_task-d_ieeg.nwb",
    ],
}
NO_RECORDINGS = [
    "sub-01/eeg/sub-01_task-a_eeg.eeg",
    "sub-01/eeg/sub-01_task-a_eeg.vmrk",
    "sub-01/eeg/sub-01_task-a_eeg.json",
    "sub-01/eeg/sub-01_task-b_eeg.fdt",
    "sub-01/eeg/sub-01_task-a_channels.tsv",
    "sub-01/meg/sub-01_task-a_split-02_meg.fif",
    "sub-01/meg/sub-01_acq-crosstalk_meg.fif",
    "sub-01/meg/sub-01_acq-calibration_meg.dat",
    "sub-01/meg/sub-01_task-b_meg.ds/sub-01_task-b_meg.meg4",
    "sub-01/meg/sub-01_task-b_meg.ds/sub-01_task-b_meg.res4",
    "sub-01/ieeg/sub-01_task-a_ieeg.eeg",
    "sub-01/ieeg/sub-01_task-c_ieeg.mefd/a.timd/a.tmet",
    "sub-emptyroom/ses-20260101/meg/sub-emptyroom_ses-20260101_task-noise_meg.fif",
]


@pytest.fixture
def electrical(tmp_path):
    single = [n for ns in RECORDINGS.values() for n in ns if n[-3:] != ".ds"]
    single = [name for name in single if not name.endswith(".mefd")]
    return write_tree(tmp_path / "ds", single + NO_RECORDINGS)


def test_headers_and_folders_are_recordings_and_their_parts_are_not(electrical):
    table = bids.open_dataset(electrical).table
    for modality, expected in RECORDINGS.items():
        paths = table["path"][table["modality"] == modality]
        assert [str(p.relative_to(electrical)) for p in paths] == expected
    assert len(table) == 11


def test_the_recordings_are_those_that_mne_bids_finds(electrical):
    peer = mne_bids.find_matching_paths(
        electrical,
        subjects="01",
        suffixes=["eeg", "meg", "ieeg"],
        extensions=[".vhdr", ".set", ".edf", ".bdf", ".fif", ".ds", ".mefd", ".nwb"],
        check=False,
    )
    expected = {
        path.fpath
        for path in peer
        if path.split in (None, "01") and path.acquisition != "crosstalk"
    }
    # mne-bids 0.20 lists no .mefd folder, although BIDS has it.
    found = set(bids.open_dataset(electrical).table["path"])
    assert {path for path in found if path.suffix != ".mefd"} == expected


def test_a_datatype_keeps_its_recordings(electrical):
    study = bids.open_dataset(electrical, datatype="eeg")
    assert set(study.table["modality"]) == {"eeg"}
    with pytest.raises(UsageError, match="no datatype pet"):
        bids.open_dataset(electrical, datatype="pet")
    with pytest.raises(InputMissingError, match=r"no recording of func. Found .* meg"):
        bids.open_dataset(electrical, datatype="fmri")


def test_noise_recordings_of_the_empty_room_are_listed_when_named(electrical):
    study = bids.open_dataset(electrical, participant_label="emptyroom")
    assert study.table["task"].tolist() == ["noise"]


def test_one_recording_in_two_formats_is_one_row_with_a_warning(electrical):
    (electrical / "sub-01/eeg/sub-01_task-b_eeg.bdf").touch()
    with pytest.warns(UserWarning, match=r"task-b_eeg.set: left out, .*task-b_eeg.bdf"):
        study = bids.open_dataset(electrical, datatype="eeg")
    assert len(study) == 4


# --- what belongs to a recording


def test_a_preprocessed_run_has_its_confounds_its_mask_and_raw_events(
    raw, fmriprep, loaded
):
    study = bids.open_dataset(
        raw, derivatives={"fmriprep": fmriprep}, participant_label="01", task="film"
    ).select({"run": "1"})
    stem = "sub-01_task-film_run-1"
    native, volume, surface = study
    confounds = f"{stem}_desc-confounds_timeseries.tsv"
    assert companion_names(native) == {
        "events": "task-film_events.tsv",
        "confounds": confounds,
        "mask": f"{stem}_desc-brain_mask.nii.gz",
    }
    assert companion_names(volume)["mask"] == (
        f"{stem}_space-MNI152NLin2009cAsym_res-2_desc-brain_mask.nii.gz"
    )
    assert companion_names(surface) == {
        "events": "task-film_events.tsv",
        "confounds": confounds,
    }
    assert volume.companions["events"].parent == raw


def test_metadata_of_a_derivative_override_those_of_the_raw_run(raw, fmriprep, loaded):
    study = bids.open_dataset(
        raw, derivatives={"fmriprep": fmriprep}, participant_label="01", task="film"
    ).select({"run": "1"})
    native, volume, surface = study
    expected = {
        "RepetitionTime": 1.5,
        "SliceTiming": [0.0, 1.0],
        "SkullStripped": False,
    }
    assert volume.metadata == expected
    assert surface.metadata["RepetitionTime"] == 2.0
    assert native.metadata["RepetitionTime"] == 2.0


def test_confounds_by_their_name_before_fmriprep_20_2_are_found(raw, fmriprep, loaded):
    for path in list(fmriprep.rglob("*_timeseries.tsv")):
        path.rename(str(path).replace("timeseries", "regressors"))
    study = bids.open_dataset(raw, derivatives={"f": fmriprep}, task="film", run="1")
    name = study.load(0).companions["confounds"].name
    assert name == "sub-01_task-film_run-1_desc-confounds_regressors.tsv"


def test_confounds_may_lie_in_another_derivative(raw, fmriprep, tmp_path, loaded):
    smooth = write_tree(
        tmp_path / "smooth",
        ["sub-01/func/sub-01_task-film_run-1_space-X_desc-preproc_bold.nii.gz"],
    )
    study = bids.open_dataset(
        raw,
        derivatives={"smooth": smooth, "fmriprep": fmriprep},
        participant_label="01",
        task="film",
        space="X",
    )
    assert companion_names(study.load(0)) == {
        "events": "task-film_events.tsv",
        "confounds": "sub-01_task-film_run-1_desc-confounds_timeseries.tsv",
    }


def test_events_of_the_run_come_before_those_of_the_task(raw, loaded):
    own = "sub-01/func/sub-01_task-film_run-2_events.tsv"
    (raw / own).touch()
    study = bids.open_dataset(raw, participant_label="01", task="film")
    found = [sample.companions["events"].name for sample in study]
    shared = "task-film_events.tsv"
    assert found == [shared, "sub-01_task-film_run-2_events.tsv", shared]
    rest = bids.open_dataset(raw, task="rest").load(0)
    with pytest.raises(InputMissingError, match=r"sub-01_task-rest_run-1_events.tsv"):
        bids.events_path(rest)


@pytest.fixture
def implanted(tmp_path):
    stem = "sub-01/ieeg/sub-01"
    tables = [
        f"{stem}_task-film_ieeg.vhdr",
        f"{stem}_task-film_channels.tsv",
        f"{stem}_task-film_events.tsv",
    ]
    for space in ("_space-Talairach", "_space-MNI152NLin2009aSym", ""):
        tables += [f"{stem}{space}_electrodes.tsv", f"{stem}{space}_coordsystem.json"]
    return write_tree(tmp_path / "ds", tables)


def test_electrodes_in_mni_come_first_with_the_coordsystem_of_their_space(
    implanted, loaded
):
    assert companion_names(bids.open_dataset(implanted).load(0)) == {
        "events": "sub-01_task-film_events.tsv",
        "channels": "sub-01_task-film_channels.tsv",
        "electrodes": "sub-01_space-MNI152NLin2009aSym_electrodes.tsv",
        "coordsystem": "sub-01_space-MNI152NLin2009aSym_coordsystem.json",
    }


def test_electrodes_are_taken_in_the_space_that_is_asked_for(implanted, loaded):
    found = companion_names(bids.open_dataset(implanted, space="Talairach").load(0))
    assert found["electrodes"] == "sub-01_space-Talairach_electrodes.tsv"
    assert found["coordsystem"] == "sub-01_space-Talairach_coordsystem.json"
    study = bids.open_dataset(implanted, space="MNI305")
    with pytest.raises(InputMissingError, match=r"no electrodes.tsv in space MNI305"):
        study.load(0)


def test_a_coordsystem_of_another_space_is_not_taken(implanted, loaded):
    (
        implanted / "sub-01/ieeg/sub-01_space-MNI152NLin2009aSym_coordsystem.json"
    ).unlink()
    assert "coordsystem" not in bids.open_dataset(implanted).load(0).companions


def test_nothing_is_read_before_a_recording_is_loaded(raw, loaded):
    bold = raw / BOLD_RUNS[0]
    bold.unlink()
    bold.symlink_to("../../.git/annex/objects/xx/SHA256E-s9.nii.gz")
    study = bids.open_dataset(raw, participant_label="01", task="film")
    assert len(study) == 3
    with pytest.raises(InputMissingError, match=f"datalad get {re.escape(str(bold))}"):
        study.load(0)
    assert study.load(1).entities == {"subject": "01", "task": "film", "run": "2"}


def test_a_study_can_be_sent_to_another_process(raw, loaded):
    study = pickle.loads(pickle.dumps(bids.open_dataset(raw)))
    assert study.load(0).source == raw / BOLD_RUNS[0]


# --- what is not there


def test_an_unknown_task_is_answered_with_those_that_are_there(raw):
    message = re.escape(
        "no BOLD run matches task-movie for sub-01 (found: task-film, task-rest)"
    )
    with pytest.raises(InputMissingError, match=f"^{message}$"):
        bids.open_dataset(raw, participant_label="01", task="movie")


def test_each_of_several_labels_must_be_there(raw):
    with pytest.raises(
        InputMissingError, match=r"matches run-3 .*run-1, run-2, run-10"
    ):
        bids.open_dataset(raw, run=["1", "3"])


def test_an_unknown_participant_is_answered_with_those_that_are_there(raw):
    with pytest.raises(
        InputMissingError,
        match=r"no participant sub-03, sub-9 \(found: sub-01, sub-02\)",
    ):
        bids.open_dataset(raw, participant_label=["01", "sub-03", "9"])


def test_an_unknown_space_is_answered_with_those_that_are_there(raw, fmriprep):
    found = r"\(found: space-MNI152NLin2009cAsym, space-fsaverage5\)"
    with pytest.raises(InputMissingError, match=rf"matches space-MNI305 .*{found}"):
        bids.open_dataset(raw, derivatives={"fmriprep": fmriprep}, space="MNI305")
    with pytest.raises(InputMissingError, match="raw BOLD, which is in no space"):
        bids.open_dataset(raw, space="MNI305")


def test_a_folder_without_subjects_says_what_is_expected(tmp_path):
    root = write_tree(tmp_path / "ds", ["sub001/BOLD/bold.nii.gz"])
    with pytest.raises(InputMissingError, match=r"no folder sub-\*.*Expected files"):
        bids.open_dataset(root)


def test_a_dataset_without_recordings_says_what_is_expected(tmp_path):
    root = write_tree(tmp_path / "ds", ["sub-01/anat/sub-01_T1w.nii.gz"])
    with pytest.raises(InputMissingError, match=r"no recording of .*task-film_bold"):
        bids.open_dataset(root)


def test_derivatives_must_be_there_and_be_a_dataset(raw, fmriprep):
    with pytest.raises(InputMissingError, match="derivatives 'fmriprep'"):
        bids.open_dataset(raw, derivatives={"fmriprep": raw / "nowhere"})
    (fmriprep / "dataset_description.json").unlink()
    with pytest.raises(DataError, match=r'"GeneratedBy": \[{"Name": "prep"}\]'):
        bids.open_dataset(raw, derivatives={"prep": fmriprep})
    with pytest.raises(UsageError, match="cannot name derivatives"):
        bids.open_dataset(raw, derivatives={"raw": fmriprep})


def test_a_derivative_dataset_is_no_root(fmriprep):
    with pytest.raises(UsageError, match=r"--derivatives fmriprep="):
        bids.open_dataset(fmriprep)


def test_a_description_that_is_no_json_is_named(raw):
    (raw / "dataset_description.json").write_text("{")
    with pytest.raises(DataError, match=r"dataset_description.json: is not valid JSON"):
        bids.open_dataset(raw)


def test_opening_a_dataset_prints_and_warns_of_nothing(raw, fmriprep, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bids.open_dataset(raw, derivatives={"fmriprep": fmriprep}, task="film")
    assert capfd.readouterr() == ("", "")
