"""Controls hold what they say: rates, envelopes, light, motion, and time alone."""

import wave

import numpy as np
import pandas as pd
import pytest

from neuromm.core import DataError, InputMissingError, UsageError
from neuromm.features import (
    audio_envelope,
    autocorrelation_only,
    feature_table,
    film_luminance,
    joined_runs,
    motion_energy,
    permuted_rows,
    position_in_run,
    word_rate,
)

EVENTS = pd.DataFrame(
    {"onset": [1.0, 2.0, 4.0, 1.0, 3.0], "run": ["1", "1", "1", "2", "2"]}
)


def test_word_rate_counts_the_words_of_the_run_within_the_window():
    words = pd.DataFrame(
        {
            "onset": [0.6, 0.8, 1.2, 1.5, 3.9, 3.95, 3.0],
            "word": ["a", "b", "c", "d", "e", "n/a", "f"],
            "run": ["01", "01", "01", "01", "01", "01", "02"],
        }
    )
    table = word_rate(words, EVENTS, window_s=1.0)
    # Run 1: 0.5 to 1.5 (both ends count), 1.5 to 2.5, 3.5 to 4.5; run 2: one word at 3.
    np.testing.assert_array_equal(table.values[:, 0], [4, 1, 1, 0, 1])
    assert table.attrs == {"model": "word rate", "kind": "nuisance", "window_s": 1.0}
    assert word_rate(words).values.shape == (6, 1)
    with pytest.raises(UsageError, match="window_s must be positive"):
        word_rate(words, window_s=0)


def test_position_is_a_legendre_series_of_the_time_within_the_run():
    table = position_in_run(EVENTS, degree=2)
    x = np.array([-1, -1 / 3, 1, -1, 1])
    expected = np.stack([x, (3 * x**2 - 1) / 2], axis=1)
    np.testing.assert_allclose(table.values, expected, atol=1e-12)
    alone = position_in_run(EVENTS.iloc[:1], degree=1)
    np.testing.assert_array_equal(alone.values, [[0]])


def test_the_envelope_of_a_modulated_tone_is_its_modulation():
    sfreq, window = 8000.0, 0.05
    time = np.arange(int(4 * sfreq)) / sfreq
    depth = 0.5 + 0.3 * np.sin(2 * np.pi * 2 * time)
    sound = depth * np.sin(2 * np.pi * 440 * time)
    onsets = np.arange(0.1, 3.9, 0.05)
    table = audio_envelope(sound, onsets, sfreq=sfreq, window_s=window)
    expected = 0.5 + 0.3 * np.sin(2 * np.pi * 2 * onsets)
    # A 2 Hz modulation changes by up to 2 pi 2 0.3 0.05 / 2 = 0.09 within half a
    # window, evenly to both sides; what is left is its curvature and half a period.
    np.testing.assert_allclose(table.values[:, 0], expected, atol=0.02)
    assert table.columns == ("envelope",)


@pytest.mark.parametrize("width", [1, 2])
def test_a_wav_file_gives_the_envelope_of_its_array(tmp_path, width):
    sfreq = 1000
    rng = np.random.default_rng(0)
    sound = np.clip(0.3 * rng.standard_normal((2000, 2)), -0.99, 0.99)
    coded = (
        np.rint(sound * 128 + 128).astype(np.uint8)
        if width == 1
        else np.rint(sound * 32768).astype("<i2")
    )
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(width)
        file.setframerate(sfreq)
        file.writeframes(coded.tobytes())
    onsets = [0.0, 0.5, 1.9]
    found = audio_envelope(tmp_path / "a.wav", onsets, run="1")
    expected = audio_envelope(sound, onsets, sfreq=sfreq)
    # rounding to 8 or 16 bits
    np.testing.assert_allclose(found.values, expected.values, atol=2.0 / 256**width)
    assert found.keys["run"].tolist() == ["1"] * 3


def test_sound_that_cannot_be_used_is_refused(tmp_path):
    with pytest.raises(UsageError, match="needs its sampling rate"):
        audio_envelope(np.ones(10), [0.0])
    with pytest.raises(DataError, match=r"outside the sound of 0\.1 s"):
        audio_envelope(np.ones(10), [0.0, 0.1], sfreq=100)
    with pytest.raises(InputMissingError, match="no sound at"):
        audio_envelope(tmp_path / "a.wav", [0.0])
    (tmp_path / "a.wav").write_bytes(b"RIFF\x00\x00")
    with pytest.raises(DataError, match=r"no readable \.wav"):
        audio_envelope(tmp_path / "a.wav", [0.0])


def test_luminance_of_plain_frames_and_of_a_chequerboard_is_exact():
    plain = [np.full((40, 50), level, dtype=np.uint8) for level in (0, 128, 255)]
    board = np.indices((64, 64)).sum(axis=0) % 2 * np.uint8(255)
    halves = np.repeat([[0, 255]], 32, axis=1).repeat(64, axis=0).astype(np.uint8)
    table = film_luminance([*plain, board, halves], fps=10.0)
    middle = ((128 / 255 + 0.055) / 1.055) ** 2.4
    # Cells of 2 x 2 pixels average the fine board away, not the two halves.
    expected = [[0, 0], [middle, 0], [1, 0], [0.5, 0], [0.5, 0.5]]
    np.testing.assert_allclose(table.values, expected, atol=1e-12)
    np.testing.assert_allclose(table.keys["onset"], np.arange(5) / 10)


def test_luminance_at_events_averages_the_frames_that_follow():
    frames = [np.full((8, 8), level, dtype=np.uint8) for level in (0, 255, 0, 0, 255)]
    at = film_luminance(frames, 10.0, [0.0, 0.1, 0.4], window_s=0.2, run="1")
    np.testing.assert_allclose(at.values[:, 0], [0.5, 0.5, 1])
    shown = film_luminance(frames, 10.0, [0.05, 0.19], window_s=0)
    np.testing.assert_allclose(shown.values[:, 0], [0, 1])
    with pytest.raises(DataError, match="outside the film"):
        film_luminance(frames, 10.0, [0.5])


def grating(direction_deg, cycles, hertz, fps=24.0, n_frames=48, size=64):
    """A grating that drifts; 0 degrees is to the right, 90 upwards."""
    centre = np.arange(size) / size
    x, y = np.meshgrid(centre, -centre)
    angle = np.deg2rad(direction_deg)
    along = np.cos(angle) * x + np.sin(angle) * y
    frames = []
    for number in range(n_frames):
        phase = 2 * np.pi * (cycles * along - hertz * number / fps)
        coded = np.rint(127.5 + 100 * np.cos(phase))
        frames.append(coded.astype(np.uint8))
    return frames


@pytest.mark.parametrize("direction", [0, 45, 90, 135, 180, 225, 270, 315])
@pytest.mark.parametrize(("cycles", "hertz"), [(4, 4), (2, 2), (8, 2)])
def test_motion_energy_is_greatest_where_the_grating_goes(direction, cycles, hertz):
    table = motion_energy(grating(direction, cycles, hertz), 24.0)
    last = pd.Series(table.values[-1], index=table.columns)
    moving = last[[c for c in last.index if "_dir" in c]]
    assert moving.idxmax() == f"energy_sf{cycles}_dir{direction:03d}_tf{hertz}"
    against = f"energy_sf{cycles}_dir{(direction + 180) % 360:03d}_tf{hertz}"
    assert moving.max() > 10 * moving[against]


def test_nothing_moves_in_a_still():
    still = [grating(0, 4, 4)[0]] * 48
    table = motion_energy(still, 24.0)
    last = pd.Series(table.values[-1], index=table.columns)
    assert last["frame_difference"] == 0
    assert last["energy_static_sf4"] > 1
    moving = [c for c in last.index if "_dir" in c]
    assert last[moving].max() < 0.05 * last["energy_static_sf4"]


def test_the_frame_difference_is_the_change_of_luminance():
    frames = [np.full((32, 32), level, dtype=np.uint8) for level in (0, 255, 255, 0)]
    table = motion_energy(frames, 24.0)
    np.testing.assert_allclose(table.values[:, 0], [0, 1, 0, 1], atol=1e-12)
    with pytest.raises(DataError, match="needs 8 frames a second"):
        motion_energy(frames, 5.0)
    slow = motion_energy(frames, 10.0)
    assert not [c for c in slow.columns if c.endswith("tf4")]  # beyond 10 / 4 Hz


def test_bumps_of_time_know_their_own_run_alone():
    table = autocorrelation_only(EVENTS, width_s=2.0)
    first, second = table.values[:3], table.values[3:]
    own = first.any(axis=0)
    assert not second[:, own].any()
    assert second[:, ~own].any()
    # Two bumps 2 s apart in the middle of 1 … 4 s: at 1.5 and 3.5 s.
    expected = np.exp(-0.5 * ((np.array([1.0, 2, 4])[:, None] - [1.5, 3.5]) / 2) ** 2)
    np.testing.assert_allclose(first[:, own], expected)


def test_smooth_noise_is_predicted_by_time_alone_where_folds_are_shuffled():
    rng = np.random.default_rng(0)
    events = pd.DataFrame({"onset": np.arange(0, 400, 0.5)})
    x = autocorrelation_only(events, width_s=4.0).values
    kernel = np.exp(-0.5 * (np.arange(-40, 41) / 10) ** 2)
    y = np.convolve(rng.standard_normal(880), kernel, mode="valid")
    y = (y - y.mean()) / y.std()

    def held_out_r(test):
        train = ~test
        gram = x[train].T @ x[train] + 0.1 * np.eye(x.shape[1])
        weights = np.linalg.solve(gram, x[train].T @ y[train])
        return np.corrcoef(x[test] @ weights, y[test])[0, 1]

    shuffled = rng.permutation(len(y)) < 160
    block = np.arange(len(y)) >= 640
    assert held_out_r(shuffled) > 0.9
    assert abs(held_out_r(block)) < 0.4


def test_permuted_rows_keep_keys_and_numbers_and_lose_the_pairing():
    values = np.arange(10.0).reshape(5, 2)
    table = feature_table(
        values, onset=EVENTS["onset"], run=EVENTS["run"].tolist(), attrs={"model": "x"}
    )
    for within_run in (False, True):
        permuted = permuted_rows(table, np.random.default_rng(2), within_run=within_run)
        assert not np.array_equal(permuted.values, values)
        assert sorted(permuted.values.tolist()) == values.tolist()
        pd.testing.assert_frame_equal(permuted.keys, table.keys)
        assert permuted.attrs["control"].startswith("permuted rows")
        assert permuted.attrs["model"] == "x"
        if within_run:
            assert set(permuted.values[:3, 0]) == {0, 2, 4}
    np.testing.assert_array_equal(table.values, values)


def test_runs_are_joined_under_each_other():
    tables = [
        audio_envelope(np.ones(100), [0.0, 0.5], sfreq=100, run=run)
        for run in ("1", "2")
    ]
    joined = joined_runs(tables)
    assert joined.keys["run"].tolist() == ["1", "1", "2", "2"]
    with pytest.raises(DataError, match="repeat the onset"):
        joined_runs([tables[0], tables[0]])
    with pytest.raises(DataError, match="expected tables of one space"):
        joined_runs([tables[0], position_in_run(EVENTS)])
