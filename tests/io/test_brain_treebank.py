"""Brain Treebank: layout, clocks, events, and planted responses found again."""

import json
import tracemalloc
import warnings

import numpy as np
import pandas as pd
import pytest

from neuromm.core import DataError, InputMissingError, UsageError
from neuromm.io.brain_treebank import brain_treebank_study, open_brain_treebank
from neuromm.io.treebank_clock import read_clock
from neuromm.prepare import ContactSpace
from neuromm.prepare.treebank import treebank_responses
from neuromm.simulate.brain_treebank import make_brain_treebank

SFREQ = 512.0


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """A release that no test may change."""
    return make_brain_treebank(tmp_path_factory.mktemp("treebank"))


@pytest.fixture
def own(tmp_path):
    """A release of the test's own, short."""
    return make_brain_treebank(tmp_path / "release", n_words=24)


def opened(truth, **settings):
    return open_brain_treebank(truth.root, 1, 0, **settings)


def test_a_trial_is_opened_with_names_bads_units_and_regions(release):
    trial = opened(release)
    raw = trial.sample.data
    assert not raw.preload
    assert raw.info["sfreq"] == SFREQ
    assert raw.info["line_freq"] == 60
    assert raw.ch_names == [*release.contacts["name"], "DC1"]
    assert raw.info["bads"] == ["O1b4", "DC1"]
    assert raw.get_channel_types() == ["seeg"] * 10 + ["misc"]
    assert trial.sample.entities == {"subject": "1", "task": "film-0", "run": "000"}
    electrodes = trial.electrodes
    assert electrodes["name"].tolist() == raw.ch_names
    assert electrodes["region"].tolist() == [*release.contacts["region"], ""]
    assert electrodes.attrs == {"frame": None, "atlas": "DesikanKilliany"}
    assert set(electrodes["hemi"][:5]) == {"L"}
    space = ContactSpace(electrodes, electrodes.attrs["frame"], ch_names=["T1a2"])
    np.testing.assert_allclose(space.coords()[["x", "y", "z"]], [[-43.5, -20, 5]])


def test_microvolts_become_volts(release):
    data = opened(release).sample.data.get_data(picks=["F2c1"])
    # A slow wave of 100 uV, lines of 30 and 10 uV, and noise of 10 uV.
    expected = 1e-6 * np.sqrt(100**2 / 2 + 30**2 / 2 + 10**2 / 2 + 10**2)
    assert data.std() == pytest.approx(expected, rel=0.03)


def test_a_unit_that_no_electrode_records_in_is_refused(own):
    with pytest.raises(DataError, match=r"trial000.h5: voltages deviate by 74\.\d V"):
        opened(own, unit="V")


def test_names_may_carry_the_marks_of_the_release(release):
    path = release.root / "electrode_labels/sub_1/electrode_labels.json"
    assert json.loads(path.read_text())[:3] == ["T1a1", "T1a2*", "T1a3#"]


def test_words_lie_where_they_were_heard_also_after_the_pause(release):
    words = opened(release).words
    assert words["text"].tolist() == release.words["text"].tolist()
    # Triggers and onsets are each rounded to a sample.
    error = words["onset"] - release.words["onset"]
    assert np.abs(error).max() <= 1.01 / SFREQ
    samples = words["onset"] * SFREQ
    np.testing.assert_allclose(samples, np.rint(samples), atol=1e-6)
    np.testing.assert_allclose(words["rms"], release.words["strength"])
    np.testing.assert_allclose(words["duration"], 0.3, atol=1e-6)


def test_a_sentence_is_whole_and_a_context_ends_with_its_word(release):
    words = opened(release, context_sentences=1).words
    assert words["sentence"].tolist() == release.words["sentence"].tolist()
    text = release.words["text"].tolist()
    assert words["context"][0] == text[0]
    assert words["context"][8] == " ".join(text[0:9])
    assert words["context"][20] == " ".join(text[12:21])
    alone = opened(release, context_sentences=0).words
    assert alone["context"][8] == " ".join(text[6:9])


def test_cuts_come_with_the_sentence_that_is_nearest(release):
    trial = opened(release)
    assert trial.scenes["stimulus"].tolist()[:2] == ["scene-0001", "scene-0002"]
    error = trial.scenes["onset"] - release.scenes["onset"]
    assert np.abs(error).max() <= 1.01 / SFREQ
    for k in (0, 5, 20):
        distance = np.abs(release.words["movie_time"] - trial.scenes["movie_time"][k])
        expected = release.words["sentence"][distance.argmin()]
        assert trial.scenes["sentence"][k] == expected


def test_without_a_table_of_cuts_there_are_no_scenes(own):
    (own.root / "scene_annotations/film-0.csv").unlink()
    assert opened(own).scenes is None


def test_cuts_of_pyscenedetect_are_read(own):
    path = own.root / "scene_annotations/film-0.csv"
    path.write_text(
        "Timecode List:,00:00:04.000\n"
        "Scene Number,Start Time (seconds),End Time (seconds)\n"
        "1,4.0,6.5\n2,6.5,9.0\n"
    )
    scenes = opened(own).scenes
    assert scenes["movie_time"].tolist() == [4.0, 6.5]
    assert scenes["duration"].tolist() == [2.5, 2.5]


def test_cuts_without_seconds_are_refused_with_their_columns(own):
    (own.root / "scene_annotations/film-0.csv").write_text("shot,frame\n1,10\n")
    with pytest.raises(DataError, match=r"start of scenes in seconds \(found: shot"):
        opened(own)


def test_any_piece_is_read_alike_and_without_the_rest(release):
    raw = opened(release).sample.data
    whole = raw.get_data()
    some = raw.get_data(picks=[7, 2], start=1000, stop=1500)
    np.testing.assert_array_equal(some, whole[[7, 2], 1000:1500])
    np.testing.assert_array_equal(raw.copy().pick(["O1b3"]).get_data(), whole[[7]])
    tracemalloc.start()
    raw.get_data(picks=["T1a2"], start=0, stop=100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < whole[0].nbytes  # less than one electrode, let alone eleven


def test_the_pause_is_marked_bad(release):
    raw = opened(release).sample.data
    spans = [
        (a["onset"], a["onset"] + a["duration"])
        for a in raw.annotations
        if a["description"] == "BAD_film_paused"
    ]
    start, end = min(a for a, _ in spans), max(b for _, b in spans)
    np.testing.assert_allclose([start, end], release.pause, atol=1.01 / SFREQ)


def test_recordings_are_listed_and_opened(tmp_path):
    for subject, trial in ((10, 0), (2, 1), (2, 0)):
        make_brain_treebank(tmp_path, subject=subject, trial=trial, n_words=12)
    moved = tmp_path / "all_subject_data"
    moved.mkdir()
    (tmp_path / "sub_10_trial000.h5").rename(moved / "sub_10_trial000.h5")
    study = brain_treebank_study(tmp_path)
    assert study.table["subject"].tolist() == ["2", "2", "10"]
    assert study.table["task"].tolist() == ["film-0", "film-1", "film-0"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert study.load(2).source == moved / "sub_10_trial000.h5"
    with pytest.raises(InputMissingError, match="holds no recording"):
        brain_treebank_study(moved.parent / "localization")


@pytest.mark.parametrize(
    ("name", "archive"),
    [
        ("electrode_labels/sub_1/electrode_labels.json", "electrode_labels.zip"),
        ("localization/sub_1/depth-wm.csv", "localization.zip"),
        ("subject_metadata/sub_1_trial000_metadata.json", "subject_metadata.zip"),
        ("subject_timings/sub_1_trial000_timings.csv", "subject_timings.zip"),
        ("transcripts/film-0/features.csv", "transcripts.zip"),
    ],
)
def test_a_missing_file_is_named_with_its_archive(own, name, archive):
    (own.root / name).unlink()
    with pytest.raises(InputMissingError, match=rf"{name}: .* {archive}"):
        opened(own)


def test_a_missing_recording_is_answered_with_those_that_are_there(own):
    with pytest.raises(InputMissingError, match=r"trial007.h5.*found: sub_1_trial000"):
        open_brain_treebank(own.root, "sub_1", "trial007")
    with pytest.raises(
        UsageError, match=r"expected a number or sub_<number>, got 'P1'"
    ):
        open_brain_treebank(own.root, "P1", 0)


def test_without_the_list_of_corrupted_electrodes_it_says_so(own):
    (own.root / "corrupted_elec.json").unlink()
    with pytest.warns(UserWarning, match="no electrode is marked as bad"):
        trial = opened(own)
    assert trial.sample.data.info["bads"] == []


def test_without_positions_regions_are_still_read(own):
    (own.root / "localization/elec_coords_full.csv").unlink()
    with pytest.warns(UserWarning, match="no positions in mm"):
        electrodes = opened(own).electrodes
    assert electrodes["x"].isna().all()
    assert electrodes["region"][0] == "ctx-lh-superiortemporal"


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_cut_recording_is_refused(own, share):
    path = own.root / "sub_1_trial000.h5"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match=r"trial000.h5: is no whole HDF5 file"):
        opened(own)


def test_electrodes_of_another_subject_are_noticed(own):
    path = own.root / "electrode_labels/sub_1/electrode_labels.json"
    path.write_text(json.dumps([f"A{k}" for k in range(1, 40)]))
    with pytest.raises(DataError, match=r"39 electrodes have a name and 27 of them no"):
        opened(own)
    path.write_text(json.dumps(["A1", "A1*"]))
    with pytest.raises(DataError, match="names A1 more than once"):
        opened(own)


def test_electrodes_of_unequal_length_are_refused(own):
    import h5py

    with h5py.File(own.root / "sub_1_trial000.h5", "r+") as file:
        del file["data/electrode_3"]
        file["data/electrode_3"] = np.zeros(10)
    with pytest.raises(DataError, match="all of one length"):
        opened(own)


def rewrite(path, change):
    table = pd.read_csv(path)
    change(table).to_csv(path, index=False)


def test_clocks_that_do_not_belong_together_are_refused(own):
    path = own.root / "subject_timings/sub_1_trial000_timings.csv"
    rewrite(path, lambda t: t.assign(index=(t["index"] * 1.04).round()))
    with pytest.raises(DataError, match=r"532\.\d samples apart per second"):
        opened(own)
    with pytest.raises(DataError, match="expected 600 Hz within 1 %"):
        opened(own, sfreq=600)
    assert opened(own, sfreq=512 * 1.04).sample.data.info["sfreq"] == 512 * 1.04


def test_a_drift_of_half_a_percent_is_of_the_nominal_rate(own):
    path = own.root / "subject_timings/sub_1_trial000_timings.csv"
    rewrite(path, lambda t: t.assign(index=(t["index"] * 0.995).round()))
    assert read_clock(path).sfreq == SFREQ


def test_triggers_that_go_back_are_refused(own):
    path = own.root / "subject_timings/sub_1_trial000_timings.csv"
    rewrite(path, lambda t: t[::-1])
    with pytest.raises(DataError, match="samples must ascend"):
        opened(own)
    path.write_text("time,sample\n0,0\n")
    with pytest.raises(DataError, match="has no column index, movie_time"):
        opened(own)


def test_words_beyond_the_recording_are_left_out_and_counted(own, caplog):
    import h5py

    with h5py.File(own.root / "sub_1_trial000.h5", "r+") as file:
        length = round(own.words["onset"][10] * SFREQ)
        for key in list(file["data"]):
            values = file["data"][key][:length]
            del file["data"][key]
            file["data"][key] = values
    words = opened(own).words
    assert words["text"].tolist() == own.words["text"].tolist()[:10]
    assert "14 of 24 events left out: 0 are not between" in caplog.text


def test_a_film_of_another_trial_has_no_place(own):
    path = own.root / "transcripts/film-0/features.csv"
    rewrite(path, lambda t: t.assign(start=t["start"] + 5000))
    with pytest.raises(DataError, match="none of 24 events has a place"):
        opened(own)


def test_the_rule_of_the_nearest_trigger_is_that_of_the_release(tmp_path):
    rng = np.random.default_rng(0)
    times = np.sort(rng.uniform(0, 60, 150))
    index = np.round(times * 2048 + 5000 + rng.integers(-2, 3, 150))
    table = pd.DataFrame({"movie_time": times, "index": np.sort(index)})
    table.to_csv(tmp_path / "t.csv", index=False)
    wanted = rng.uniform(times[0], times[-1], 400)
    expected = []
    for t in wanted:
        nearest = (table["movie_time"] - t).abs().idxmin()
        row = table.loc[nearest]
        expected.append(round(row["index"] + (t - row["movie_time"]) * 2048))
    clock = read_clock(tmp_path / "t.csv")
    assert clock.sfreq == 2048
    np.testing.assert_array_equal(clock.samples(wanted), expected)


def test_no_trigger_beyond_a_break_or_far_away_places_an_event(tmp_path):
    times = np.concatenate([np.arange(0, 10.5, 0.5), np.arange(10.5, 20)])
    index = times * 1024 + np.where(times > 10.2, 30 * 1024, 0)  # an unmarked break
    table = pd.DataFrame({"movie_time": times, "index": index})
    table.loc[len(table)] = [28.5, index[-1] + 9 * 1024]  # then 9 s without any
    table.to_csv(tmp_path / "t.csv", index=False)
    clock = read_clock(tmp_path / "t.csv")
    placed = clock.samples(np.array([9.9, 10.2, 10.6, 24.0, -1.0, 40.0]))
    np.testing.assert_array_equal(
        placed, [round(9.9 * 1024), np.nan, round(40.6 * 1024), np.nan, np.nan, np.nan]
    )
    np.testing.assert_array_equal(clock.breaks(), [[10 * 1024, 40.5 * 1024]])


def test_rows_of_a_pause_that_step_back_in_the_film_break_it(tmp_path):
    # So in the release: both rows have a time just below that of the last trigger.
    rows = [
        *(("trigger", t, t * 1024) for t in range(10)),
        ("pause", 8.97, 9.4 * 1024),
        ("unpause", 8.97, 39.4 * 1024),
        *(("trigger", t, (t + 30.4) * 1024) for t in range(10, 20)),
    ]
    table = pd.DataFrame(rows, columns=["type", "movie_time", "index"])
    table.to_csv(tmp_path / "t.csv", index=False)
    clock = read_clock(tmp_path / "t.csv")
    # By the rule of the release 9.1 s lies before the pause: 9 s is the nearest.
    placed = clock.samples(np.array([8.9, 9.1, 9.6]))
    expected = [round(8.9 * 1024), round(39.53 * 1024), round(40.0 * 1024)]
    np.testing.assert_allclose(placed, expected, atol=1)
    spans = clock.breaks()
    assert (spans.min(), spans.max()) == (9 * 1024, 39.4 * 1024)


def window_mean(truth, times, window_s=0.2):
    """The bump in the mean over each window, from many points."""
    offsets = (np.arange(200) + 0.5) / 200 * window_s - window_s / 2
    return truth.evoked(times[:, None] + offsets).mean(axis=1)


def slope(responses, strength):
    centred = strength - strength.mean()
    return centred @ (responses - responses.mean(axis=0)) / (centred @ centred)


@pytest.fixture(scope="module")
def table(release):
    trial = opened(release)
    return treebank_responses(trial.sample.data, trial.words, trial.electrodes,
                              subject="1", run="000")  # fmt: skip


def test_the_published_table_has_161_windows_of_every_contact_with_a_neighbour(table):
    # F2c1 stands alone; O1b4 and DC1 are bad.
    expected = [*(f"T1a{k}" for k in range(1, 6)), *(f"O1b{k}" for k in range(1, 4))]
    assert table.sizes["target"] == 8 * 161
    assert list(dict.fromkeys(table["electrode"].to_numpy())) == expected
    times = table["time"].to_numpy()[:161]
    np.testing.assert_allclose(np.diff(times), 0.025, atol=1.01 / SFREQ)
    # The first window begins 2 s before the event, the last 2 s after it.
    np.testing.assert_allclose(times[[0, -1]], [-1.9, 2.1], atol=1.01 / SFREQ)
    assert set(table["region"].to_numpy()[: 5 * 161]) == {"ctx-lh-superiortemporal"}
    assert table.attrs["units"] == "V"
    assert table.attrs["atlas"] == "DesikanKilliany"
    assert table.dtype == np.float32


def test_epochs_that_touch_the_pause_are_left_out(table, release):
    onset = table["onset"].to_numpy()
    clear = release.words["onset"].to_numpy()
    start, end = release.pause
    clear = clear[(clear + 2.2 < start) | (clear - 2 > end)]
    np.testing.assert_allclose(onset, clear, atol=1.01 / SFREQ)
    assert len(clear) < len(release.words)


def test_planted_responses_are_found_with_the_weights_of_the_laplacian(release):
    truth = release
    trial = opened(truth)
    raw = trial.sample.data
    for events, planted, gain in (
        (trial.words, truth.words, "word_gain"),
        (trial.scenes, truth.scenes, "scene_gain"),
    ):
        responses = treebank_responses(raw, events, trial.electrodes)
        rows = np.searchsorted(planted["onset"] + 0.01, responses["onset"].to_numpy())
        strength = planted["strength"].to_numpy()[rows]
        times = responses["time"].to_numpy()[:161]
        near = np.flatnonzero(np.abs(times - truth.peak_s) < 0.15)
        gains = truth.contacts.set_index("name")[gain]
        found = responses.to_numpy().reshape(len(responses), -1, 161).astype(float)
        names = list(dict.fromkeys(responses["electrode"].to_numpy()))
        for k, name in enumerate(names):
            number = int(name[-1])
            beside = [f"{name[:-1]}{n}" for n in (number - 1, number + 1)]
            beside = [n for n in beside if n in names]
            if gains[[n for n in names if n[0] == name[0]]].max() == 0:
                continue  # a shaft that answers to the other events
            own = gains[name] - gains[beside].mean()
            expected = own * window_mean(truth, times[near])
            # Noise of 10 uV in a mean of 102 samples, less one or two neighbours.
            error = 4 * 10e-6 * np.sqrt(2 / 102 / len(strength))
            np.testing.assert_allclose(
                slope(found[:, k, near], strength), expected, atol=error, err_msg=name
            )


def test_contacts_wanted_alone_are_as_in_the_whole_table(table, release):
    trial = opened(release)
    some = treebank_responses(
        trial.sample.data, trial.words, trial.electrodes, ch_names=["O1b2", "T1a5"]
    )
    whole = table.to_numpy().reshape(len(table), 8, 161)[:, [6, 4]]
    np.testing.assert_allclose(
        some.to_numpy().reshape(len(table), 2, 161), whole, rtol=1e-5, atol=1e-10
    )
    assert list(some["electrode"].to_numpy()[::161]) == ["O1b2", "T1a5"]


def test_a_contact_without_a_neighbour_cannot_be_wanted(release):
    trial = opened(release)
    with pytest.raises(UsageError, match="which is not so of: F2c1"):
        treebank_responses(
            trial.sample.data, trial.words, trial.electrodes, ch_names=["F2c1", "T1a1"]
        )
    alone = trial.sample.data.copy().pick(["F2c1", "T1a1"])
    with pytest.raises(DataError, match="no two good contacts are neighbours"):
        treebank_responses(alone, trial.words, trial.electrodes)


def test_left_out_events_are_counted_once(release, caplog):
    trial = opened(release)
    treebank_responses(trial.sample.data, trial.words, trial.electrodes)
    assert caplog.text.count("events dropped") == 1
