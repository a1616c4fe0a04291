"""Truths about joining features with events."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromm.core import DataError
from neuromm.features import event_features, feature_table

VALUES = np.arange(6.0).reshape(3, 2)
FILES = ["faces/anna.png", "stimuli/house.png", "./cat.png"]


def events_of(onset, **columns):
    events = pd.DataFrame({"onset": onset, "duration": 0.5, **columns})
    events.attrs["source"] = "sub-01_task-film_events.tsv"
    return events


def by_file(**settings):
    return feature_table(VALUES, name="vision", stim_file=FILES, **settings)


@given(order=st.lists(st.integers(0, 2), min_size=1, max_size=9))
def test_each_event_gets_the_row_of_its_stimulus(order):
    named = ["faces/anna.png", "house.png", "stimuli/cat.png"]
    events = events_of(np.arange(len(order)), stim_file=[named[i] for i in order])
    found = by_file().rows_for(events)
    np.testing.assert_array_equal(found.values, VALUES[order])
    np.testing.assert_array_equal(found.onset, events["onset"])
    assert list(found.stimulus) == list(events["stim_file"])


@given(order=st.permutations([0, 1, 2]))
def test_the_order_of_the_rows_does_not_matter(order):
    shuffled = feature_table(VALUES[order], stim_file=[FILES[i] for i in order])
    events = events_of([0.0, 1.0], stim_file=["cat.png", "house.png"])
    np.testing.assert_array_equal(
        shuffled.rows_for(events).values, by_file().rows_for(events).values
    )


def test_a_file_name_alone_is_not_guessed():
    events = events_of([0.0], stim_file=["anna.png"])
    with pytest.raises(DataError, match=r"no row for 1 values of stim_file.*anna\.png"):
        by_file().rows_for(events)


def test_lacking_keys_are_listed_with_both_files():
    named = [f"new{i:02}.png" for i in range(13)] * 2
    events = events_of(np.arange(26), stim_file=named)
    with pytest.raises(
        DataError,
        match=r"^vision: has no row for 13 values of stim_file in sub-01_task-film_"
        r"events\.tsv: new00\.png.*new09\.png and 3 more\. Its rows are named faces/",
    ):
        by_file().rows_for(events)


def test_events_without_a_key_are_left_out():
    events = events_of(
        [0.0, 1.0, 2.0, 3.0], stim_file=["cat.png", "n/a", "", "house.png"]
    )
    found = by_file().rows_for(events)
    np.testing.assert_array_equal(found.onset, [0, 3])
    with pytest.raises(DataError, match="keyed by stim_file, and that column"):
        by_file().rows_for(events_of([0.0], stim_file=["n/a"]))


def test_events_without_the_column_of_the_key_are_refused():
    events = events_of([0.0], trial_type=["face"])
    with pytest.raises(DataError, match=r"no such column \(found: onset, duration, tr"):
        by_file().rows_for(events)


@given(jitter=st.floats(-9e-4, 9e-4), seed=st.integers(0, 99))
def test_onsets_match_within_the_tolerance(jitter, seed):
    onset = np.random.default_rng(seed).permutation([0.0, 1.5, 7.25])
    table = feature_table(VALUES, onset=onset)
    found = table.rows_for(events_of(onset + jitter))
    np.testing.assert_array_equal(found.values, VALUES)


def test_an_onset_beyond_the_tolerance_is_lacking():
    table = feature_table(VALUES, onset=[0.0, 1.5, 7.25])
    with pytest.raises(
        DataError, match=r"1 values of onset in .*: 1\.502 s\. Its rows"
    ):
        table.rows_for(events_of([0.0, 1.502]))
    assert len(table.rows_for(events_of([1.502]), tolerance=0.01).onset) == 1


def test_without_events_the_rows_are_the_events():
    table = feature_table(VALUES, onset=[7.25, 0.0, 1.5], duration=[1, 2, 3])
    found = table.rows_for(None)
    np.testing.assert_array_equal(found.onset, [0, 1.5, 7.25])
    np.testing.assert_array_equal(found.duration, [2, 3, 1])
    np.testing.assert_array_equal(found.values, VALUES[[1, 2, 0]])
    with pytest.raises(DataError, match="without events its rows have no time"):
        by_file().rows_for(None)


@pytest.mark.parametrize("label", ["2", "02", "run-2"])
def test_rows_are_those_of_the_run(label):
    table = feature_table(VALUES, onset=[0.0, 0.0, 4.0], run=["1", "02", "02"])
    found = table.rows_for(None, run=label)
    np.testing.assert_array_equal(found.values, VALUES[1:])


def test_rows_of_several_runs_need_a_run():
    table = feature_table(VALUES, onset=[0.0, 0.0, 4.0], run=["1", "2", "2"])
    with pytest.raises(DataError, match=r"rows for run 1, 2, and the recording has no"):
        table.rows_for(None)
    with pytest.raises(DataError, match=r"no row for run 3 \(found: 1, 2\)"):
        table.rows_for(None, run="3")


def test_onsets_without_a_run_hold_for_the_first_run_alone():
    table = feature_table(VALUES, onset=[0.0, 2.0, 4.0])
    assert len(table.rows_for(None, run="01").onset) == 3
    with pytest.raises(DataError, match=r"this recording is run 02: add a column run"):
        table.rows_for(None, run="02")


def test_stimuli_without_a_run_hold_for_every_run():
    events = events_of([0.0], stim_file=["cat.png"])
    found = by_file().rows_for(events, run="07", session="b", subject="03")
    np.testing.assert_array_equal(found.values, VALUES[2:])


def test_events_become_labelled_samples():
    table = by_file(columns=["edges", "hue"], attrs={"model": "pixels"})
    events = events_of([3.0, 1.0], stim_file=["cat.png", "house.png"])
    features = event_features(table, events, run="02", subject="01")
    assert features.dims == ("sample", "feature")
    assert features.attrs == {"space": "vision", "model": "pixels"}
    assert list(features["feature"].values) == ["edges", "hue"]
    assert list(features["stimulus"].values) == ["cat.png", "house.png"]
    assert set(features["run"].values) == {"02"}
    np.testing.assert_array_equal(features["onset"], [3, 1])


def test_the_events_are_left_as_they_were():
    events = events_of([0.0, 1.0], stim_file=["cat.png", "n/a"])
    before = events.copy()
    by_file().rows_for(events)
    pd.testing.assert_frame_equal(events, before)
