"""Events of a recording, read from events.tsv."""

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromm.core import DataError, InputMissingError, Sample
from neuromm.io.events import check_events_within, events_path, read_events


@pytest.fixture
def write(tmp_path):
    def _write(*lines, encoding="utf-8"):
        path = tmp_path / "sub-01_task-film_events.tsv"
        text = "\n".join("\t".join(line.split("|")) for line in lines)
        path.write_text(text, encoding=encoding)
        return path

    return _write


def test_onset_and_duration_are_seconds_and_other_columns_text(write):
    path = write("onset|duration|trial_type|value", "-0.1|n/a|n/a|2", "5e-1|2|face|01")
    events = read_events(path)
    assert events["onset"].tolist() == [-0.1, 0.5]
    assert events["duration"].tolist() == [0.0, 2.0]
    assert events["trial_type"].tolist() == ["", "face"]
    assert events["value"].tolist() == ["2", "01"]  # a code keeps its zero


def test_byte_order_mark_and_windows_line_ends_are_no_part_of_a_value(tmp_path):
    path = tmp_path / "events.tsv"
    path.write_bytes(b"\xef\xbb\xbfonset\tduration\ttrial_type\r\n1\t2\tface\r\n\r\n")
    events = read_events(path)
    assert list(events) == ["onset", "duration", "trial_type"]
    assert events["trial_type"].tolist() == ["face"]


def test_unsorted_onsets_are_sorted_and_ties_keep_the_order_of_the_file(write):
    path = write("onset|duration|word", "2|0|d", "1|0|a", "1|0|b", "1|0|c")
    with pytest.warns(UserWarning, match="not ascending; sorted"):
        events = read_events(path)
    assert events["word"].tolist() == ["a", "b", "c", "d"]
    assert events.index.tolist() == [0, 1, 2, 3]


def test_duplicate_events_are_kept(write):
    assert len(read_events(write("onset|duration", "1|0", "1|0"))) == 2


def test_events_without_an_onset_are_left_out_with_a_warning(write):
    path = write("onset|duration|word", "1|0|a", "n/a|0|b", "2|0|c")
    with pytest.warns(UserWarning, match="left out 1 events.*line 3"):
        events = read_events(path)
    assert events["word"].tolist() == ["a", "c"]


def test_a_lone_quotation_mark_is_a_word_and_swallows_no_line(write):
    path = write("onset|duration|word", '1|0|"', "2|0|he", '3|0|"')
    assert read_events(path)["word"].tolist() == ['"', "he", '"']


def test_a_quoted_field_is_unquoted_and_may_hold_a_tab(tmp_path):
    path = tmp_path / "events.tsv"
    path.write_text('onset\tduration\tword\n1\t0\t"a ""b"""\n2\t0\t"c\td"\n')
    assert read_events(path)["word"].tolist() == ['a "b"', "c\td"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["onset|trial_type", "1|a"], "no column 'duration'.*write 0 for impulses"),
        (["time|duration", "1|0"], "no column 'onset'.*found: time, duration"),
        (["onset,duration", "1,0"], "separated by tabs"),
        (["onset|duration", "1|0", "x|0"], "line 3: onset is 'x'"),
        (["onset|duration", "1,5|0"], "line 2: onset is '1,5'. Use a decimal point"),
        (["onset|duration", "inf|0"], "line 2: onset is 'inf'"),
        (["onset|duration", "1|long"], "line 2: duration is 'long'"),
        (["onset|duration", "1|0", "", "2|-3"], "line 4: duration is -3 s"),
        (["onset|duration|word", "1|0"], "line 2: 2 fields, expected 3"),
        (["onset|duration|onset", "1|0|1"], "two columns are called 'onset'"),
        (["onset|duration"], "a header and no events"),
        ([""], "is empty"),
    ],
)
def test_a_damaged_file_is_refused_with_its_line_and_a_cure(write, lines, message):
    path = write(*lines)
    with pytest.raises(DataError, match=message) as caught:
        read_events(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert caught.value.exit_code == 65


def test_a_column_that_is_asked_for_must_be_there(write):
    path = write("onset|duration|trial_type", "1|0|a")
    with pytest.raises(DataError, match=r"'stim_file'.*onset, duration, trial_t"):
        read_events(path, columns=["stim_file"])


def test_text_in_another_encoding_is_refused(write):
    path = write("onset|duration|word", "1|0|caf\u00e9", encoding="latin-1")
    with pytest.raises(DataError, match="UTF-8"):
        read_events(path)


def test_a_missing_file_is_missing_input(tmp_path):
    with pytest.raises(InputMissingError, match="no such file"):
        read_events(tmp_path / "events.tsv")


@given(
    onsets=st.lists(st.floats(-10, 1e4), min_size=1, max_size=20),
    word=st.text(
        st.characters(exclude_characters='\t\n\r"\x00', exclude_categories=["Cs"]),
        min_size=1,
    ).filter(lambda text: text == text.strip() and text != "n/a"),
)
def test_what_pandas_writes_is_read_back(tmp_path_factory, onsets, word):
    path = tmp_path_factory.mktemp("events") / "events.tsv"
    table = pd.DataFrame({"onset": onsets, "duration": 1.0, "word": word})
    table.to_csv(path, sep="\t", index=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # unsorted on purpose
        events = read_events(path)
    np.testing.assert_array_equal(events["onset"], np.sort(onsets))
    assert set(events["word"]) == {word}


def test_events_inside_the_recording_pass():
    events = pd.DataFrame({"onset": [-1.0, 0.0, 299.5, 300.0], "duration": 0.0})
    check_events_within(events, 300.0, "events.tsv", "bold.nii.gz")


def test_milliseconds_taken_for_seconds_are_recognised():
    events = pd.DataFrame({"onset": [0.0, 15_000.0, 60_000.0, 250_000.0]})
    message = (
        "3 of 4 events begin after the end of bold.nii.gz, which lasts 300 s: the "
        "first at 15000 s. Onsets must be in seconds, not milliseconds"
    )
    with pytest.raises(DataError, match=message):
        check_events_within(events, 300.0, "events.tsv", "x/bold.nii.gz")


def test_events_of_a_longer_run_are_recognised():
    events = pd.DataFrame({"onset": [0.0, 15.0, 60.0, 310.0]})
    with pytest.raises(DataError, match=r"1 of 4 .*310 s. Do the events belong"):
        check_events_within(events, 300.0, "events.tsv", "bold.nii.gz")


def test_a_recording_without_events_says_which_file_is_expected(tmp_path):
    sample = Sample(
        data=None,
        modality="fmri",
        entities={
            "subject": "01", "session": "b", "task": "film", "run": "02",
            "space": "MNI152NLin2009cAsym", "description": "preproc",
        },
        source=tmp_path / "bold.nii.gz",
    )  # fmt: skip
    expected = "sub-01_ses-b_task-film_run-02_events.tsv"
    with pytest.raises(InputMissingError, match=f"bold.nii.gz: .*Expected {expected}"):
        events_path(sample)
    found = Sample(data=None, modality="fmri", companions={"events": tmp_path})
    assert events_path(found) == tmp_path
