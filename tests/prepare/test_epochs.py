"""Epochs begin where the events say, or not at all."""

import logging

import mne
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuromm.core import DataError, UsageError
from neuromm.prepare.contact_space import ContactSpace
from neuromm.prepare.epochs import epoch_responses, event_epochs, event_responses
from neuromm.prepare.sensor_space import SensorSpace
from neuromm.prepare.time_bins import bin_times, time_bins

SFREQ = 100.0


def ramp(n_times=1000, *, first_samp=0, n_channels=2, dated=False, sfreq=SFREQ):
    """Channel i at sample t holds 1000 i + t, so that a value tells its place."""
    names = [f"A{i + 1}" for i in range(n_channels)]
    data = 1000.0 * np.arange(n_channels)[:, None] + np.arange(float(n_times))
    info = mne.create_info(names, sfreq, "seeg")
    raw = mne.io.RawArray(data, info, first_samp=first_samp, verbose="ERROR")
    if dated:
        raw.set_meas_date(1_500_000_000)
    return raw


def events_at(*onsets, **columns):
    return pd.DataFrame({"onset": np.array(onsets, dtype=float), **columns})


@pytest.mark.parametrize("first_samp", [0, 371])
@pytest.mark.parametrize("dated", [False, True])
def test_onsets_count_from_the_first_sample_of_the_recording(first_samp, dated):
    raw = ramp(first_samp=first_samp, dated=dated)
    epochs, _ = event_epochs(raw, events_at(1.0, 2.504), tmin=-0.1, tmax=0.2)
    expected = [100 + np.arange(-10, 21), 250 + np.arange(-10, 21)]
    np.testing.assert_array_equal(epochs.get_data()[:, 0], expected)
    np.testing.assert_allclose(epochs.times, np.arange(-10, 21) / SFREQ)
    np.testing.assert_array_equal(epochs.events[:, 0] - first_samp, [100, 250])


@settings(deadline=None, max_examples=25)
@given(onsets=st.lists(st.floats(0.3, 9.0), min_size=1, max_size=8))
def test_epochs_follow_the_events_in_any_order_and_number(onsets):
    epochs, kept = event_epochs(ramp(), events_at(*onsets), tmin=-0.2, tmax=0.3)
    zero = epochs.get_data()[:, 0, 20]
    np.testing.assert_array_equal(zero, np.rint(np.array(onsets) * SFREQ))
    np.testing.assert_array_equal(kept["onset"], onsets)


def test_two_events_at_the_same_sample_are_both_kept():
    events = events_at(1.0, 1.0, 0.9, trial_type=["word", "scene", "word"])
    epochs, kept = event_epochs(ramp(), events, tmin=0, tmax=0.1)
    assert len(epochs) == len(kept) == 3
    np.testing.assert_array_equal(epochs.events[:, 0], [100, 100, 90])
    assert epochs.metadata["trial_type"].tolist() == ["word", "scene", "word"]
    np.testing.assert_array_equal(epochs[1].get_data()[0, 0], 100 + np.arange(11))


def test_epochs_agree_with_mne():
    rng = np.random.default_rng(0)
    raw = ramp(first_samp=50)
    raw._data[:] = rng.standard_normal(raw._data.shape)
    onsets = np.array([0.5, 1.23, 4.0])
    rows = np.column_stack([np.rint(onsets * 100) + 50, [0] * 3, [1] * 3]).astype(int)
    peer = mne.Epochs(
        raw,
        rows,
        tmin=-0.2,
        tmax=0.5,
        baseline=(-0.2, 0),
        preload=True,
        verbose="ERROR",
    )
    epochs, _ = event_epochs(
        raw, events_at(*onsets), tmin=-0.2, tmax=0.5, baseline=(None, 0)
    )
    np.testing.assert_allclose(epochs.get_data(), peer.get_data(), atol=1e-15)
    np.testing.assert_array_equal(epochs.events, peer.events)


def test_the_baseline_has_mean_zero():
    epochs, _ = event_epochs(
        ramp(), events_at(1, 2), tmin=-0.2, tmax=0.3, baseline=(-0.2, 0.0)
    )
    before = epochs.get_data()[..., epochs.times <= 0]
    np.testing.assert_allclose(before.mean(axis=-1), 0, atol=1e-12)


def test_events_whose_epoch_leaves_the_recording_are_dropped_and_counted(caplog):
    events = events_at(-0.5, 0.1, 0.2, 9.69, 9.7, 9.99)
    with caplog.at_level(logging.WARNING):
        _, kept = event_epochs(ramp(), events, tmin=-0.2, tmax=0.3)
    assert kept.index.tolist() == [2, 3]  # 9.69 + 0.3 is the last sample
    assert "4 of 6 events dropped: 4 leave the recording" in caplog.text


@pytest.mark.parametrize("description", ["EDGE boundary", "boundary", "New Segment/"])
@pytest.mark.parametrize("first_samp", [0, 371])
def test_no_epoch_crosses_an_interruption(caplog, description, first_samp):
    raw = ramp(first_samp=first_samp)
    # Duration 3 s: EEGLAB writes the length of what was cut out, not of what follows.
    raw.set_annotations(mne.Annotations([5.0], [3.0], [description]))
    events = events_at(4.69, 4.70, 5.0, 5.19, 5.20)
    with caplog.at_level(logging.WARNING):
        _, kept = event_epochs(raw, events, tmin=-0.2, tmax=0.3)
    assert kept.index.tolist() == [0, 4]  # samples up to 499, and from 500
    assert "3 cross an interruption" in caplog.text


def test_concatenated_recordings_are_not_bridged():
    raw = mne.concatenate_raws([ramp(500), ramp(500)], verbose="ERROR")
    events = events_at(4.69, 4.7, 5.1, 5.2)
    _, kept = event_epochs(raw, events, tmin=-0.2, tmax=0.3, reject_bad=False)
    assert kept.index.tolist() == [0, 3]


def test_unstored_and_bad_spans_drop_the_epochs_that_touch_them(caplog):
    raw = ramp()
    raw.set_annotations(
        mne.Annotations([2.0, 6.0], [1.0, 0.5], ["BAD_ACQ_SKIP", "bad_blink"])
    )
    events = events_at(1.69, 1.7, 2.5, 3.19, 3.2, 5.69, 5.7, 6.69, 6.7)
    with caplog.at_level(logging.WARNING):
        _, kept = event_epochs(raw, events, tmin=-0.2, tmax=0.3)
    assert kept.index.tolist() == [0, 4, 5, 8]
    assert "3 cross an interruption, 2 touch a span marked as bad" in caplog.text
    _, kept = event_epochs(raw, events, tmin=-0.2, tmax=0.3, reject_bad=False)
    assert kept.index.tolist() == [0, 4, 5, 6, 7, 8]


def test_bad_channels_and_other_types_are_left_out():
    raw = ramp(n_channels=3)
    raw.info["bads"] = ["A2"]
    raw.set_channel_types({"A3": "ecg"}, verbose="ERROR")
    epochs, _ = event_epochs(raw, events_at(1), tmin=0, tmax=0.1)
    assert epochs.ch_names == ["A1"]
    raw.info["bads"] = ["A1", "A2"]
    with pytest.raises(UsageError, match=r"no good MEG.*2 marked as bad"):
        event_epochs(raw, events_at(1), tmin=0, tmax=0.1)


def test_no_event_left_is_an_error_that_says_why():
    with pytest.raises(DataError, match=r"none of 2 events.*2 leave the recording"):
        event_epochs(ramp(), events_at(0.0, 9.99), tmin=-0.2, tmax=0.3)
    with pytest.raises(DataError, match="no event"):
        event_epochs(ramp(), events_at(), tmin=-0.2, tmax=0.3)


def test_onsets_in_milliseconds_are_noticed():
    with pytest.raises(DataError, match=r"1 of 2 events begin after the end.*seconds"):
        event_epochs(ramp(), events_at(5.0, 1500.0), tmin=-0.2, tmax=0.3)


def test_a_missing_onset_is_an_error():
    with pytest.raises(DataError, match="1 of 2 events have no onset"):
        event_epochs(ramp(), events_at(5.0, np.nan), tmin=-0.2, tmax=0.3)


def test_empty_epochs_and_stray_baselines_are_refused():
    with pytest.raises(UsageError, match="must end after it begins"):
        event_epochs(ramp(), events_at(5.0), tmin=0.3, tmax=0.3)
    with pytest.raises(UsageError, match="baseline must lie within"):
        event_epochs(ramp(), events_at(5.0), tmin=0, tmax=1, baseline=(-0.2, 0))


def test_recording_and_events_are_not_changed():
    raw, events = ramp(), events_at(1.0, 2.0)
    before = raw.get_data()
    epochs, _ = event_epochs(raw, events, tmin=-0.1, tmax=0.1, baseline=(None, 0))
    epochs._data[:] = 0
    epochs.info["bads"] = ["A1"]
    np.testing.assert_array_equal(raw.get_data(), before)
    assert raw.info["bads"] == []
    assert events.columns.tolist() == ["onset"]


def contacts(names=("A1", "A2")):
    columns = {"name": list(names), "x": 1.0, "y": 2.0, "z": 3.0}
    return ContactSpace(pd.DataFrame(columns), "MNI152NLin2009cAsym")


def test_targets_are_channels_by_times_and_samples_are_events():
    events = events_at(1.0, 3.0, 2.0, stim_file=["a.png", "b.png", "a.png"])
    epochs, kept = event_epochs(ramp(), events, tmin=0, tmax=0.39)
    responses = epoch_responses(
        epochs,
        kept,
        space=contacts(),
        window_ms=200,
        step_ms=100,
        run="2",
        subject="01",
    )
    assert responses.dims == ("sample", "target")
    assert responses.sizes == {"sample": 3, "target": 6}
    assert responses["channel"].values.tolist() == ["A1"] * 3 + ["A2"] * 3
    np.testing.assert_allclose(responses["time"], [0.095, 0.195, 0.295] * 2)
    assert responses["target"].values[1] == "A1@0.195"
    np.testing.assert_array_equal(responses["onset"], [1, 3, 2])
    assert responses["stimulus"].values.tolist() == ["a.png", "b.png", "a.png"]
    assert set(responses["run"].values) == {"2"}
    assert set(responses["subject"].values) == {"01"}
    # A window of 20 samples from sample s has the mean s + 9.5 on this ramp.
    windows = np.add.outer([100.0, 300, 200], [9.5, 19.5, 29.5])
    np.testing.assert_allclose(responses, np.hstack([windows, 1000 + windows]))
    assert responses.attrs["units"] == "V"


def test_responses_in_blocks_are_those_of_all_epochs(monkeypatch):
    monkeypatch.setattr("neuromm.prepare.epochs._BLOCK_VALUES", 200)
    rng = np.random.default_rng(0)
    raw = ramp()
    raw._data[:] = rng.standard_normal(raw._data.shape)
    events = events_at(*rng.uniform(0, 9.9, 30), trial_type=list("abc" * 10))
    window = {"tmin": -0.1, "tmax": 0.4, "baseline": (None, 0)}
    settings_ = {"space": contacts(), "window_ms": 100, "step_ms": 30, "run": "1"}
    for standardize in (False, True):
        epochs, kept = event_epochs(raw, events, **window)
        whole = epoch_responses(epochs, kept, standardize=standardize, **settings_)
        blocks = event_responses(
            raw, events, standardize=standardize, **window, **settings_
        )
        assert len(whole) < 30
        np.testing.assert_allclose(blocks, whole, atol=1e-14)
        for name in whole.coords:
            np.testing.assert_array_equal(blocks[name], whole[name])
        assert blocks.attrs == whole.attrs


def test_standardised_targets_have_mean_0_and_deviation_1_and_flat_ones_are_0():
    raw = ramp(n_channels=2)
    raw._data[0] = np.random.default_rng(0).standard_normal(raw.n_times)
    raw._data[1] = 0.1
    epochs, kept = event_epochs(raw, events_at(*range(1, 9)), tmin=0, tmax=0.1)
    responses = epoch_responses(
        epochs, kept, space=contacts(), window_ms=50, standardize=True
    )
    first, second = responses[:, :2], responses[:, 2:]
    np.testing.assert_allclose(first.mean("sample"), 0, atol=1e-15)
    np.testing.assert_allclose(first.std("sample"), 1)
    np.testing.assert_array_equal(second, 0)
    assert responses.attrs["units"] == "1"


def test_a_space_of_times_must_be_that_of_the_bins():
    epochs, kept = event_epochs(ramp(), events_at(1.0), tmin=0, tmax=0.39)
    centres = bin_times(epochs.times, 200, 100)
    timed = contacts().at_times(centres)
    responses = epoch_responses(epochs, kept, space=timed, window_ms=200, step_ms=100)
    assert responses["target"].values.tolist() == timed.coords()["target"].tolist()
    with pytest.raises(UsageError, match="has 3 times and the bins have 2"):
        epoch_responses(epochs, kept, space=timed, window_ms=200, step_ms=200)


def test_a_space_of_other_channels_is_refused():
    epochs, kept = event_epochs(ramp(), events_at(1.0), tmin=0, tmax=0.39)
    with pytest.raises(UsageError, match=r"not in the space: A2"):
        epoch_responses(epochs, kept, space=contacts(["A1", "B1"]), window_ms=None)


def test_the_stimulus_is_the_column_asked_for():
    events = events_at(1.0, trial_type=["face"], word=["hat"])
    epochs, kept = event_epochs(ramp(), events, tmin=0, tmax=0.1)
    space = SensorSpace(epochs.info)
    responses = epoch_responses(epochs, kept, space=space, window_ms=None)
    assert responses["stimulus"].values.tolist() == ["face"]
    responses = epoch_responses(
        epochs, kept, space=space, window_ms=None, stimulus="word"
    )
    assert responses["stimulus"].values.tolist() == ["hat"]
    with pytest.raises(UsageError, match="no column 'picture'"):
        epoch_responses(epochs, kept, space=space, window_ms=None, stimulus="picture")


def test_units_follow_the_channel_types():
    info = mne.create_info(["M1", "G1", "E1"], SFREQ, ["mag", "grad", "eeg"])
    raw = mne.io.RawArray(np.zeros((3, 500)), info, verbose="ERROR")
    epochs, kept = event_epochs(raw, events_at(1.0), tmin=0, tmax=0.1)
    space = SensorSpace(epochs.info)
    responses = epoch_responses(epochs, kept, space=space, window_ms=None)
    assert responses.attrs["units"] == "T, T/m, V"
    responses = epoch_responses(
        epochs, kept, space=space, window_ms=None, units="log V"
    )
    assert responses.attrs["units"] == "log V"


def test_epochs_and_events_must_pair():
    epochs, _ = event_epochs(ramp(), events_at(1.0, 2.0), tmin=0, tmax=0.1)
    with pytest.raises(ValueError, match="2 epochs and 1 events"):
        epoch_responses(epochs, events_at(1.0), space=contacts(), window_ms=None)


def test_responses_return_to_the_time_course_of_their_epoch():
    raw = ramp()
    epochs, kept = event_epochs(raw, events_at(1.0), tmin=-0.2, tmax=0.3)
    binned, centres = time_bins(epochs.get_data(), epochs.times, 50, 50)
    space = SensorSpace(epochs.info, centres)
    responses = epoch_responses(epochs, kept, space=space, window_ms=50, step_ms=50)
    evoked = space.to_native(responses.values[0])
    np.testing.assert_allclose(evoked.data, binned[0])
    np.testing.assert_allclose(evoked.times, centres)
