"""Intracranial recordings of BIDS: contacts, their types, positions and gaps."""

import json

import mne
import numpy as np
import pytest

from neuromm.core import DataError
from neuromm.io import ieeg


def sidecar(path, ending):
    (found,) = path.parent.glob(f"*{ending}")
    return found


def test_example_has_fifty_microvolts_in_its_third_contact(tmp_path):
    sample = ieeg.load(ieeg.write_example(tmp_path))
    raw = sample.data
    assert not raw.preload
    assert raw.get_channel_types() == ["seeg"] * 6
    spectrum = np.abs(np.fft.rfft(raw.get_data(), axis=1)) * 2 / raw.n_times
    amplitude = spectrum[:, np.fft.rfftfreq(raw.n_times, 1 / 500.0) == 10].ravel()
    # Noise of 5 uV leaves 5 uV x sqrt(4 / 1000) = 0.3 uV in a bin; four of that.
    expected = np.array([0, 0, 50e-6, 0, 0, 0])
    np.testing.assert_allclose(amplitude, expected, atol=1.3e-6)


def test_a_recording_alone_finds_its_sidecars(tmp_path):
    sample = ieeg.load(ieeg.write_example(tmp_path))
    assert sample.entities == {"subject": "01", "task": "rest"}
    assert set(sample.companions) == {"events", "channels", "electrodes", "coordsystem"}
    assert sample.metadata["PowerLineFrequency"] == 50
    assert sample.data.info["line_freq"] == 50
    assert sample.data.info["bads"] == ["LT6"]
    assert list(sample.data.annotations.description) == ["face", "house", "face"]


def test_positions_of_mne_are_those_of_the_table_in_metres(tmp_path):
    sample = ieeg.load(ieeg.write_example(tmp_path))
    electrodes = ieeg.read_electrodes(sample.companions["electrodes"])
    positions = [channel["loc"][:3] for channel in sample.data.info["chs"]]
    np.testing.assert_allclose(
        1000 * np.array(positions), electrodes[["x", "y", "z"]], atol=1e-6
    )


def test_contacts_of_the_example_are_one_spacing_apart(tmp_path):
    sample = ieeg.load(ieeg.write_example(tmp_path))
    electrodes = ieeg.read_electrodes(sample.companions["electrodes"])
    steps = np.diff(electrodes[["x", "y", "z"]].to_numpy(), axis=0)
    np.testing.assert_allclose(np.linalg.norm(steps, axis=1), 3.5)
    assert electrodes.attrs["frame"] == "MNI152NLin2009cAsym"


def test_millimetres_declared_as_metres_stop_the_recording(tmp_path):
    path = ieeg.write_example(tmp_path)
    system = sidecar(path, "coordsystem.json")
    content = json.loads(system.read_text()) | {"iEEGCoordinateUnits": "m"}
    system.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"electrodes.tsv: .*They look like mm"):
        ieeg.load(path)


def test_without_a_coordsystem_the_signals_load_and_positions_are_left_out(tmp_path):
    path = ieeg.write_example(tmp_path)
    sidecar(path, "coordsystem.json").unlink()
    with pytest.warns(UserWarning, match=r"no coordsystem.json goes with"):
        raw = ieeg.load(path).data
    assert raw.get_channel_types() == ["seeg"] * 6
    assert raw.get_montage() is None


def test_a_unit_that_is_not_available_is_not_guessed(tmp_path):
    path = ieeg.write_example(tmp_path)
    system = sidecar(path, "coordsystem.json")
    content = json.loads(system.read_text()) | {"iEEGCoordinateUnits": "n/a"}
    system.write_text(json.dumps(content))
    with pytest.warns(UserWarning, match="unit of positions is n/a"):
        raw = ieeg.load(path).data
    assert raw.get_montage() is None


@pytest.mark.parametrize(
    "ending",
    ["electrodes.tsv", "events.tsv", "ieeg.json", "participants.tsv"],
)
def test_sidecars_that_bids_lets_go_may_go(tmp_path, ending):
    path = ieeg.write_example(tmp_path)
    for file in tmp_path.rglob(f"*{ending}"):
        file.unlink()
    assert ieeg.load(path).data.get_channel_types() == ["seeg"] * 6


def test_a_table_of_events_that_mne_bids_does_not_take_spares_the_samples(tmp_path):
    path = ieeg.write_example(tmp_path)
    sidecar(path, "events.tsv").write_text("onset\tduration\nsoon\tn/a\n")
    with pytest.warns(UserWarning, match="read without what mne-bids adds"):
        raw = ieeg.load(path).data
    assert raw.get_channel_types() == ["seeg"] * 6
    assert raw.info["bads"] == ["LT6"]
    assert raw.info["line_freq"] == 50


def test_without_declared_types_the_error_says_where_they_go(tmp_path):
    path = ieeg.write_example(tmp_path)
    sidecar(path, "channels.tsv").unlink()
    with pytest.raises(
        DataError, match=r"found 6 eeg. Declare them in channels.tsv \(type SEEG"
    ):
        ieeg.load(path)


def test_outside_of_bids_a_table_given_by_hand_declares_the_types(tmp_path):
    signals = 1e-5 * np.random.default_rng(0).standard_normal((2, 200))
    raw = mne.io.RawArray(
        signals, mne.create_info(["A1", "A2"], 100.0, "eeg"), verbose="error"
    )
    mne.export.export_raw(tmp_path / "rest.edf", raw, verbose="error")
    table = tmp_path / "channels.tsv"
    table.write_text("name\ttype\tunits\nA1\tSEEG\tuV\nA2\tDBS\tn/a\n")
    sample = ieeg.load(tmp_path / "rest.edf", companions={"channels": table})
    assert sample.data.get_channel_types() == ["seeg", "dbs"]


def test_channels_in_another_order_are_matched_by_name(tmp_path):
    path = ieeg.write_example(tmp_path)
    expected = ieeg.load(path).data
    table = sidecar(path, "channels.tsv")
    heading, *rows = table.read_text().splitlines()
    table.write_text("\n".join([heading, *reversed(rows)]) + "\n")
    loaded = ieeg.load(path).data
    assert loaded.ch_names == expected.ch_names
    assert loaded.info["bads"] == ["LT6"]
    np.testing.assert_array_equal(loaded.get_data(), expected.get_data())


def test_a_header_may_name_a_file_elsewhere_in_the_data_set(tmp_path):
    path = ieeg.write_example(tmp_path)
    moved = tmp_path / "sourcedata" / "signals.eeg"
    moved.parent.mkdir()
    path.with_suffix(".eeg").rename(moved)
    name = path.with_suffix(".eeg").name
    path.write_text(path.read_text().replace(name, "../../sourcedata/signals.eeg"))
    assert ieeg.load(path).data.n_times == 1000


def test_a_header_that_leaves_the_data_set_is_refused(tmp_path):
    path = ieeg.write_example(tmp_path / "dataset")
    outside = tmp_path / "signals.eeg"
    path.with_suffix(".eeg").rename(outside)
    name = path.with_suffix(".eeg").name
    path.write_text(path.read_text().replace(name, "../../../signals.eeg"))
    with pytest.raises(DataError, match=r"outside of .*dataset"):
        ieeg.load(path)


def test_nwb_is_answered_with_a_cure(tmp_path):
    path = tmp_path / "rest.nwb"
    path.write_bytes(b"\x89HDF")
    with pytest.raises(DataError, match="does not read NWB; convert"):
        ieeg.load(path)


def test_reading_leaves_the_data_set_as_it_was(tmp_path):
    path = ieeg.write_example(tmp_path)

    def files():
        return {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}

    before = files()
    ieeg.load(path)
    assert files() == before


def test_every_format_is_one_that_mne_reads():
    from mne.io._read_raw import _get_supported

    assert set(ieeg.READER.extensions) <= set(_get_supported())
