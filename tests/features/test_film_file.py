"""Films on the clock of a run: which frame, read once and in order, and per volume."""

import json
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from neuromm.core import DataError, InputMissingError, UsageError
from neuromm.features import (
    FeatureCache,
    feature_table,
    load_backbone,
    stimulus_features,
)
from neuromm.features import film_file as film_file_module
from neuromm.features.film_file import FilmFrame, frame_pixels, is_film, open_film
from neuromm.features.film_rows import (
    Scan,
    Showing,
    film_event_rows,
    film_step_rows,
    in_film_order,
    scan_table,
)

LEVELS = np.array([20, 60, 100, 140, 180, 220])


def write_gif(path, levels=LEVELS, frame_ms=100):
    """Grey frames, each of a level of its own."""
    frames = [Image.new("L", (24, 16), int(level)) for level in levels]
    frames[0].save(
        path, save_all=True, append_images=frames[1:], duration=frame_ms, loop=0
    )
    return path


def levels_of(stimuli):
    return [int(frame_pixels(frame)[8, 12, 0]) for frame in stimuli]


@pytest.fixture
def gif(tmp_path):
    return write_gif(tmp_path / "film.gif")


def test_the_frame_on_the_screen_is_the_last_one_that_began(gif):
    film = open_film(gif)
    np.testing.assert_allclose(film.onsets, np.arange(6) / 10)
    assert film.length_s == pytest.approx(0.6)
    times = np.array([0.0, 0.099, 0.1, 0.3, 0.599, 9.0])
    np.testing.assert_array_equal(film.frame_at(times), [0, 0, 1, 3, 5, 5])
    assert levels_of([FilmFrame(gif, n) for n in (0, 1, 5, 2)]) == [20, 60, 220, 100]


def test_frames_of_unequal_length_are_found_by_their_times(tmp_path):
    path = write_gif(tmp_path / "slow.gif", frame_ms=[100, 500, 100, 100, 100, 100])
    film = open_film(path)
    np.testing.assert_array_equal(
        film.frame_at(np.array([0.05, 0.55, 0.65])), [0, 1, 2]
    )


def test_a_folder_of_frames_is_a_film_at_the_rate_that_is_told(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, level in enumerate(LEVELS):
        Image.new("L", (8, 8), int(level)).save(folder / f"f_{number}.png")
    with pytest.raises(InputMissingError, match=r"frames\.json beside it is missing"):
        open_film(folder)
    sidecar = tmp_path / "frames.json"
    sidecar.write_text(json.dumps({"FrameRate": 0}))
    with pytest.raises(DataError, match="must be frames per second, got 0"):
        open_film(folder)
    sidecar.write_text(json.dumps({"FrameRate": 2}))
    film = open_film(folder)
    assert film.length_s == 3.0
    assert int(frame_pixels(FilmFrame(folder, 4))[0, 0, 0]) == LEVELS[4]


def test_a_film_is_decoded_once_and_in_order_however_often_it_is_shown(
    gif, monkeypatch
):
    opened = []
    plain = film_file_module._Cursor._animated

    def watched(self):
        opened.append(self._path)
        return plain(self)

    monkeypatch.setattr(film_file_module._Cursor, "_animated", watched)
    film_file_module._cursor.cache_clear()
    film = open_film(gif)
    showings = [
        Showing(film, onset, 0.0, {"run": run})
        for run, onset in (("1", 4.0), ("2", 7.0))
    ]
    rows = film_step_rows(showings, 0.05)
    assert len(rows.stimuli) == 24
    stimulus_features(load_backbone("image-statistics"), rows, name="vision")
    assert opened == [gif]


def test_steps_lie_on_the_clock_of_the_run_and_end_with_the_event(gif):
    film = open_film(gif)
    rows = film_step_rows([Showing(film, 10.0, 0.25, {"run": "1"})], 0.1)
    np.testing.assert_allclose(rows.keys["onset"], [10.0, 10.1, 10.2])
    np.testing.assert_allclose(rows.keys["duration"], [0.1, 0.1, 0.05])
    assert levels_of(rows.stimuli) == [20, 60, 100]


def test_a_volume_holds_the_mean_of_what_was_shown_during_it():
    # Rows of 0.5 s from 1 s on; volumes of 2 s.
    onset = 1.0 + 0.5 * np.arange(6)
    steps = feature_table(
        np.arange(1.0, 7.0)[:, None],
        onset=onset,
        duration=np.full(6, 0.5),
        run=["1"] * 6,
    )
    table = scan_table(steps, [Scan(4, 2.0, {"run": "1"}), Scan(2, 2.0, {"run": "2"})])
    # 1 and 2 in the second half of the first volume: (1 + 2) / 4.
    np.testing.assert_allclose(table.values[:, 0], [0.75, 4.5, 0.0, 0.0, 0.0, 0.0])
    np.testing.assert_allclose(table.keys["onset"], [0, 2, 4, 6, 0, 2])
    assert table.keys["run"].tolist() == ["1"] * 4 + ["2"] * 2


def test_events_get_the_frame_at_their_onset_and_pictures_stay(gif, tmp_path):
    picture = tmp_path / "still.png"
    Image.new("L", (24, 16), 250).save(picture)
    labels = {"run": "1"}
    showings = [
        Showing(open_film(gif), 5.0, 0.0, labels),
        Showing(picture, 6.0, 1.0, labels),
    ]
    rows = film_event_rows(showings, [5.25, 5.0, 6.5], labels)
    assert rows.keys["onset"].tolist() == [5.0, 5.25, 6.5]
    assert levels_of(rows.stimuli[:2]) == [20, 100]
    assert rows.stimuli[2] == picture
    with pytest.raises(DataError, match=r"1 events of run 1 begin .* first at 5\.8 s"):
        film_event_rows(showings, [5.0, 5.8], labels)


def test_rows_of_several_runs_are_put_in_the_order_of_the_film(gif):
    keys = pd.DataFrame({"onset": [1.0, 2.0, 3.0]})
    rows = in_film_order(
        [FilmFrame(gif, 4), FilmFrame(gif, 0), FilmFrame(gif, 2)], keys
    )
    assert [one.number for one in rows.stimuli] == [0, 2, 4]
    assert rows.keys["onset"].tolist() == [2.0, 3.0, 1.0]


def test_a_film_that_is_shorter_than_its_event_is_told(gif):
    film = open_film(gif)
    Showing(film, 4.0, 0.65, {})  # within the frame that a log may be off by
    with pytest.raises(DataError, match=r"lasts 0\.6 s .* at 4 s of run 2 lasts 3 s"):
        Showing(film, 4.0, 3.0, {"run": "2"})


def test_two_films_at_once_and_steps_of_no_time_are_refused(gif):
    film = open_film(gif)
    both = [Showing(film, onset, 0.0, {"run": "1"}) for onset in (4.0, 4.3)]
    with pytest.raises(DataError, match=r"two stimuli are on the screen at 4\.3 s"):
        film_step_rows(both, 0.1)
    with pytest.raises(UsageError, match="step between frames must be positive"):
        film_step_rows(both[:1], 0.0)
    # Other runs have clocks of their own.
    other = [both[0], Showing(film, 4.3, 0.0, {"run": "2"})]
    assert len(film_step_rows(other, 0.1).stimuli) == 12


def test_the_cache_knows_frames_by_what_their_film_holds(gif, tmp_path):
    seen = []

    class Watched:
        name, dim, modality = "watched", 1, "image"
        attrs: ClassVar = {"model": "watched", "kind": "stand-in", "layer": "none"}

        def embed(self, stimuli):
            seen.extend(stimuli)
            return np.array([[level] for level in levels_of(stimuli)], np.float32)

        def tokens(self, stimuli):
            raise NotImplementedError

    cache = FeatureCache(tmp_path / "cache")

    def embedded(path):
        rows = film_step_rows([Showing(open_film(path), 0.0, 0.0, {})], 0.1)
        return stimulus_features(Watched(), rows, name="x", cache=cache).values[:, 0]

    np.testing.assert_array_equal(embedded(gif), LEVELS)
    moved = gif.rename(gif.with_name("moved.gif"))
    np.testing.assert_array_equal(embedded(moved), LEVELS)
    assert len(seen) == 6
    write_gif(moved, LEVELS[::-1])
    np.testing.assert_array_equal(embedded(moved), LEVELS[::-1])
    assert len(seen) == 12


def test_a_damaged_film_is_named(tmp_path, gif):
    gif.write_bytes(gif.read_bytes()[:-60])
    with pytest.raises(DataError, match=r"film\.gif"):
        film = open_film(gif)
        levels_of([FilmFrame(gif, len(film.onsets) + 3)])


def test_a_still_gif_is_a_picture(tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "still.gif")
    assert not is_film(tmp_path / "still.gif")
    assert not is_film(tmp_path / "nothing.gif")
    assert is_film(tmp_path / "nothing.mp4")


def test_a_missing_codec_names_its_extra(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "film.mp4").write_bytes(b"0")
    with pytest.raises(InputMissingError, match=r"film\.mp4 needs a codec.*\[video\]"):
        open_film(tmp_path / "film.mp4")


def write_mp4(path, levels=LEVELS, rate=10):
    av = pytest.importorskip("av", reason="needs PyAV (extra video)")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
        for level in levels:
            pixels = np.full((16, 32, 3), level, dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_frames_of_a_coded_film_are_those_that_were_written(tmp_path):
    path = write_mp4(tmp_path / "film.mp4")
    film = open_film(path)
    np.testing.assert_allclose(film.onsets, np.arange(6) / 10, atol=1e-3)
    assert film.length_s == pytest.approx(0.6, abs=1e-3)
    found = levels_of([FilmFrame(path, number) for number in (0, 2, 5, 1)])
    # The codec is lossy: levels are 40 apart.
    np.testing.assert_allclose(found, LEVELS[[0, 2, 5, 1]], atol=6)
    with pytest.raises(DataError, match="frame 10 cannot be decoded: only 6"):
        levels_of([FilmFrame(path, 9)])


def test_a_coded_film_that_is_damaged_is_named(tmp_path):
    pytest.importorskip("av", reason="needs PyAV (extra video)")
    (tmp_path / "film.mp4").write_bytes(b"no film at all" * 100)
    with pytest.raises(DataError, match=r"film\.mp4: is no film"):
        open_film(tmp_path / "film.mp4")
