"""Real files of each format: units, channel types, sizes, as their sources state them.

No recording in EDF is at hand, so one is made from a real EEGLAB recording with MNE's
export. The CTF recording is one that was saved as FIF.
"""

import json
import shutil

import mne
import numpy as np
import pytest

from neuromm.core import DataError
from neuromm.io import eeg, ieeg, meg

pytestmark = pytest.mark.real


def count(raw):
    return {t: raw.get_channel_types().count(t) for t in set(raw.get_channel_types())}


def typical_amplitude(raw, kind):
    """Median over channels of the standard deviation in time."""
    return np.median(raw.get_data(picks=kind).std(axis=1))


@pytest.fixture(scope="module")
def visual_attention(data_folder):
    folder = data_folder / "eeg" / "eeglab_visual_attention"
    return eeg.load(folder / "eeglab_data.set").data


@pytest.fixture(scope="module")
def zurich(data_folder):
    folder = data_folder / "ieeg" / "zurich_hfo_bids" / "sub-01" / "ieeg"
    return ieeg.load(folder / "sub-01_task-interictalsleep_run-01_ieeg.vhdr")


def test_eeglab_holds_32_channels_of_scalp_amplitude(visual_attention):
    assert count(visual_attention) == {"eeg": 32}
    assert visual_attention.info["sfreq"] == 128
    assert visual_attention.times[-1] == pytest.approx(238, abs=0.5)
    assert 1e-6 < typical_amplitude(visual_attention, "eeg") < 100e-6
    kinds = list(visual_attention.annotations.description)
    assert (kinds.count("square"), kinds.count("rt")) == (80, 74)


def test_edf_of_a_real_recording_agrees_within_the_quantisation(
    visual_attention, tmp_path
):
    path = tmp_path / "attention.edf"
    mne.export.export_raw(path, visual_attention, verbose="error")
    loaded = eeg.load(path).data
    assert count(loaded) == {"eeg": 32}
    assert loaded.info["sfreq"] == 128
    expected = visual_attention.get_data()
    # All channels share one range, in 2^16 - 1 steps; EDF writes its limits in eight
    # characters, so a step may be off by as much as the range is.
    step = np.ptp(expected) / (2**16 - 1)
    error = loaded.get_data()[:, : expected.shape[1]] - expected
    assert np.abs(error).max() < step


def test_a_real_edf_that_lost_its_end_is_refused(visual_attention, tmp_path):
    path = tmp_path / "attention.edf"
    mne.export.export_raw(path, visual_attention, verbose="error")
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size // 2)
    with pytest.raises(DataError, match=r"promises 239 data records .*cut off"):
        eeg.load(path)


def test_brainvision_in_bids_takes_its_types_from_the_table(data_folder):
    folder = data_folder / "eeg" / "tiny_bids" / "sub-01" / "ses-eeg" / "eeg"
    sample = eeg.load(folder / "sub-01_ses-eeg_task-rest_eeg.vhdr")
    raw = sample.data
    assert count(raw) == {"eeg": 64, "eog": 2, "ecg": 1, "gsr": 1, "temperature": 1}
    assert (raw.info["sfreq"], raw.times[-1]) == (5000, pytest.approx(2, abs=0.001))
    assert raw.info["line_freq"] == 60
    # The amplifier is driven to its rails here: 2^15 steps of 0.1 uV.
    assert np.abs(raw.get_data(picks="eeg")).max() == pytest.approx(2**15 * 1e-7)
    assert sample.entities == {"subject": "01", "session": "eeg", "task": "rest"}
    positions = raw.get_montage().get_positions()["ch_pos"]
    radii = [np.linalg.norm(positions[name]) for name in ("Fp1", "Cz", "Oz")]
    assert 0.07 < min(radii) < max(radii) < 0.16  # metres from between the ears


def test_depth_contacts_are_ecog_in_hundreds_of_microvolts(zurich):
    raw = zurich.data
    assert count(raw) == {"ecog": 50}
    assert raw.info["sfreq"] == 2000
    assert raw.times[-1] == pytest.approx(5, abs=0.001)
    assert raw.info["line_freq"] == 50
    assert 10e-6 < typical_amplitude(raw, "ecog") < 1e-3
    assert zurich.companions["channels"].name.endswith("_channels.tsv")
    assert len(raw.annotations) == 68


def test_fif_of_a_neuromag_holds_306_sensors_in_tesla(data_folder):
    raw = meg.load(data_folder / "meg" / "141027_cropped_90Hz_raw.fif").data
    assert count(raw) == {"grad": 204, "mag": 102}
    assert raw.info["sfreq"] == pytest.approx(90, abs=0.5)
    assert raw.times[-1] == pytest.approx(10, abs=0.05)
    assert 1e-14 < typical_amplitude(raw, "mag") < 1e-11  # T
    assert 5e-13 < typical_amplitude(raw, "grad") < 5e-11  # T/m


def test_meg_and_eeg_of_one_file_are_read_by_either_reader(data_folder):
    path = data_folder / "meg" / "sample_audvis_trunc_raw_sss.fif"
    raw = meg.load(path).data
    assert count(raw) == {"grad": 204, "mag": 102, "eeg": 60, "eog": 1, "stim": 9}
    assert raw.times[-1] == pytest.approx(1, abs=0.01)
    assert 1e-14 < typical_amplitude(raw, "mag") < 1e-11  # T
    assert 1e-6 < typical_amplitude(raw, "eeg") < 100e-6  # V
    assert eeg.load(path).modality == "eeg"


def test_ctf_in_fif_holds_274_axial_gradiometers_with_their_references(data_folder):
    path = data_folder / "meg" / "mne_io_tests" / "test_ctf_comp_raw.fif"
    raw = meg.load(path).data
    # MNE calls the axial gradiometers of CTF magnetometers: both measure tesla.
    assert (count(raw)["mag"], count(raw)["ref_meg"]) == (274, 29)
    sensors = mne.pick_types(raw.info, meg=True, ref_meg=False)
    # The high half of the number is the grade of compensation.
    coils = {int(raw.info["chs"][i]["coil_type"]) & 0xFFFF for i in sensors}
    assert coils == {int(mne.io.constants.FIFF.FIFFV_COIL_CTF_GRAD)}
    assert raw.times[-1] == pytest.approx(0.5, abs=0.005)
    assert 1e-14 < typical_amplitude(raw, "mag") < 1e-11  # T
    assert raw.compensation_grade == 3


def test_a_real_fif_that_lost_its_end_is_refused(data_folder, tmp_path):
    path = tmp_path / "cut_raw.fif"
    whole = (data_folder / "meg" / "141027_cropped_90Hz_raw.fif").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="chain of tags breaks off"):
        meg.load(path)


def test_reading_prints_nothing(data_folder, capfd):
    folder = data_folder / "eeg" / "tiny_bids" / "sub-01" / "ses-eeg" / "eeg"
    eeg.load(folder / "sub-01_ses-eeg_task-rest_eeg.vhdr")
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def podcast(data_folder, tmp_path):
    """Electrode tables of the podcast data set, which come without coordsystem.json."""
    source = data_folder / "ieeg" / "podcast_ecog_electrodes_and_transcript"
    shutil.copytree(source, tmp_path / "podcast")
    return tmp_path / "podcast"


def write_systems(root, space, units):
    content = {"iEEGCoordinateSystem": space, "iEEGCoordinateUnits": units}
    for folder in root.glob("sub-*/ieeg"):
        subject = folder.parent.name
        path = folder / f"{subject}_space-{space}_coordsystem.json"
        path.write_text(json.dumps(content))


def test_podcast_holds_777_contacts_inside_of_the_template(podcast):
    space = "MNI152NLin2009aSym"
    write_systems(podcast, space, "mm")
    tables = [
        ieeg.read_electrodes(path)
        for path in sorted(podcast.rglob(f"*space-{space}_electrodes.tsv"))
    ]
    assert len(tables) == 5
    assert sum(len(table) for table in tables) == 777
    assert {table.attrs["frame"] for table in tables} == {space}
    positions = np.concatenate([table[["x", "y", "z"]] for table in tables])
    # The template of 197 x 233 x 189 mm, origin at (98, 134, 72).
    assert (positions > [-98, -134, -72]).all()
    assert (positions < [99, 99, 117]).all()
    assert set(tables[0]["group"]) <= {"G", "S", "D", "EG", "O"}


def test_podcast_contacts_of_a_patient_frame_have_no_place_in_a_template(podcast):
    write_systems(podcast, "Other", "mm")
    for path in podcast.rglob("*space-Other_electrodes.tsv"):
        assert ieeg.read_electrodes(path).attrs["frame"] is None


def test_podcast_contacts_without_a_unit_are_not_guessed(podcast):
    for path in podcast.rglob("*_electrodes.tsv"):
        with pytest.raises(DataError, match=r"no coordsystem.json goes with it"):
            ieeg.read_electrodes(path)


@pytest.mark.parametrize("units", ["m", "cm"])
def test_podcast_millimetres_pass_for_no_other_unit(podcast, units):
    write_systems(podcast, "MNI152NLin2009aSym", units)
    for path in podcast.rglob("*space-MNI152NLin2009aSym_electrodes.tsv"):
        with pytest.raises(DataError, match="They look like mm"):
            ieeg.read_electrodes(path)


def test_grid_spacing_of_podcast_is_that_of_clinical_grids(podcast):
    """Neighbours on a grid lie about 1 cm apart: true in millimetres alone."""
    write_systems(podcast, "Other", "mm")
    for path in sorted(podcast.rglob("*space-Other_electrodes.tsv")):
        table = ieeg.read_electrodes(path)
        grid = table.loc[table["group"] == "G", ["x", "y", "z"]].to_numpy()
        distances = np.linalg.norm(grid[:, None] - grid[None], axis=-1)
        nearest = np.sort(distances, axis=1)[:, 1:2]
        if len(grid) > 8:
            assert 3 < np.median(nearest) < 12
