"""BIDS datasets that others made: EEG of mne-bids, depth electrodes of Zurich.

The podcast dataset (777 contacts of patients who heard a story) comes without its
signals, so that an empty recording is put where each of them would lie.
"""

import os
import re
import shutil

import mne_bids
import numpy as np
import pandas as pd
import pytest

from neuromm.core import InputMissingError
from neuromm.io import bids
from neuromm.io.layout import AncpLayout

pytestmark = pytest.mark.real

PODCAST = "ieeg/podcast_ecog_electrodes_and_transcript"
DATASETS = ["eeg/tiny_bids", "ieeg/zurich_hfo_bids", PODCAST]


@pytest.mark.parametrize("name", DATASETS)
def test_no_file_of_a_subject_is_lost(data_folder, name):
    root = data_folder / name
    names = re.compile(r"sub-[^/]*_[A-Za-z0-9]+(\.[a-z]+)+")
    expected = {
        os.path.join(folder, file)
        for subject in root.glob("sub-*")
        for folder, _, files in os.walk(subject)
        for file in files
        if names.fullmatch(file)
    }
    found = {str(file.path) for file in AncpLayout(root).find({"subject": "*"})}
    assert found == expected
    assert len(found) >= 6


@pytest.mark.parametrize("name", DATASETS[:2])
def test_entities_are_those_that_mne_bids_gives(data_folder, name):
    study = bids.open_dataset(data_folder / name)
    (row,) = study.table.to_dict("records")
    peer = mne_bids.get_entities_from_fname(row["path"])
    shared = ("subject", "session", "task", "acquisition", "run", "space")
    assert {key: row[key] for key in shared} == {key: peer[key] for key in shared}


def test_tiny_eeg_comes_with_its_tables_and_sidecar(data_folder):
    sample = bids.open_dataset(data_folder / "eeg/tiny_bids").load(0)
    assert set(sample.companions) == {
        "events", "channels", "electrodes", "coordsystem",
    }  # fmt: skip
    assert sample.metadata["SamplingFrequency"] == sample.data.info["sfreq"] == 5000
    events = bids.read_events(bids.events_path(sample), columns=["trial_type"])
    # The file opens with a byte-order mark, which is no part of the column's name.
    assert events["onset"].tolist() == [0.0, 0.2]
    assert events["trial_type"].tolist() == ["start_experiment", "show_stimulus"]
    length_s = sample.data.n_times / sample.data.info["sfreq"]
    bids.check_events_within(events, length_s, "events.tsv", sample.source)


def test_onsets_of_high_frequency_oscillations_agree_with_their_samples(data_folder):
    sample = bids.open_dataset(data_folder / "ieeg/zurich_hfo_bids").load(0)
    events = bids.read_events(bids.events_path(sample))
    assert len(events) == 68
    np.testing.assert_array_equal(
        np.rint(events["onset"] * sample.data.info["sfreq"]),
        events["sample"].astype(int),
    )
    bids.check_events_within(events, 5.0, "events.tsv", sample.source)


@pytest.fixture
def podcast(data_folder, tmp_path):
    root = tmp_path / "podcast"
    shutil.copytree(
        data_folder / PODCAST, root, copy_function=shutil.copyfile,
        ignore=shutil.ignore_patterns("stimuli"),
    )  # fmt: skip
    for folder in root.rglob("*"):
        if folder.is_dir():
            folder.chmod(0o755)
    for subject in sorted(root.glob("sub-*")):
        link = subject / "ieeg" / f"{subject.name}_task-podcast_ieeg.edf"
        link.symlink_to("../../.git/annex/objects/1a/SHA256E-s1.edf")
    return root


def test_contacts_of_the_podcast_are_taken_in_mni(podcast):
    from neuromm.io.bids_name import parse_name
    from neuromm.io.companions import companions_of

    study = bids.open_dataset(podcast)
    assert study.table["subject"].tolist() == ["01", "02", "03", "04", "05"]
    layout = AncpLayout(podcast)
    n_contacts = 0
    for path in study.table["path"]:
        file = parse_name(path.relative_to(podcast), podcast)
        found = companions_of(file, layout, [])
        assert "space-MNI152NLin2009aSym" in found["electrodes"].name
        assert "coordsystem" not in found
        n_contacts += len(pd.read_csv(found["electrodes"], sep="\t"))
    assert n_contacts == 777


def test_signals_that_were_not_fetched_name_the_command(podcast):
    study = bids.open_dataset(podcast, participant_label="sub-03")
    with pytest.raises(InputMissingError, match=r"datalad get .*sub-03_task-podcast"):
        study.load(0)
