"""``--backbone``: films of ``stimuli/`` on the clock of each run."""

import json
import shutil
from types import SimpleNamespace

import nibabel
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from neuromm.features import load_backbone, read_features, write_features
from neuromm.simulate import make_bids_dataset

T_R, N_VOLUMES, RUNS, START_S, LENGTH_S = 2.0, 70, (1, 2, 3), 7.0, 120.0
N_FRAMES, FRAME_MS, EEG_FRAME_S = 60, 2000, 5
DRIVEN, NOTHING = "0-0-0", "1-0-0"
FLAGS = ("--n-permutations", "0", "--skip-bids-validation", "--no-joint")
VISION = ("--backbone", "vision=image-statistics")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Runs with a film each: one voxel follows the screen, others nothing."""
    root = tmp_path_factory.mktemp("films") / "bids"
    func = root / "sub-01" / "func"
    func.mkdir(parents=True)
    (root / "stimuli").mkdir()
    about = {"Name": "films", "BIDSVersion": "1.11.1"}
    (root / "dataset_description.json").write_text(json.dumps(about))
    rng = np.random.default_rng(0)
    for run in RUNS:
        _write_film(root / "stimuli" / f"film{run}.gif", rng)
    values = {run: _on_screen(root / "stimuli" / f"film{run}.gif") for run in RUNS}
    centre = np.mean([one.mean(axis=0) for one in values.values()], axis=0)
    every = np.concatenate([one - centre for one in values.values()])
    main = np.linalg.svd(every, full_matrices=False)[2][0]
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    for run in RUNS:
        drive = (values[run] - centre) @ main
        drive /= drive.std()
        series = 1000 + rng.standard_normal((2, 2, 2, N_VOLUMES))
        series[0, 0, 0] += 5 * _response(drive)
        picture = nibabel.Nifti1Image(series.astype(np.float32), affine)
        picture.header.set_zooms((3.0, 3.0, 3.0, T_R))
        picture.header.set_xyzt_units("mm", "sec")
        stem = func / f"sub-01_task-film_run-{run}"
        picture.to_filename(f"{stem}_bold.nii.gz")
        about = {"RepetitionTime": T_R, "TaskName": "film"}
        (func / f"{stem.name}_bold.json").write_text(json.dumps(about))
        events = pd.DataFrame(
            {"onset": [START_S], "duration": [LENGTH_S], "trial_type": ["film"],
             "stim_file": [f"film{run}.gif"]}
        )  # fmt: skip
        events.to_csv(f"{stem}_events.tsv", sep="\t", index=False)
    mask = root.parent / "mask.nii.gz"
    nibabel.Nifti1Image(np.ones((2, 2, 2), np.uint8), affine).to_filename(mask)
    return SimpleNamespace(root=root, mask=mask, values=values)


@pytest.fixture
def data(made, tmp_path):
    shutil.copytree(made.root, tmp_path / "bids")
    return SimpleNamespace(root=tmp_path / "bids", mask=made.mask)


def _write_film(path, rng, frame_ms=FRAME_MS):
    frames = []
    for _ in range(N_FRAMES):
        level = rng.uniform(40, 215) + rng.normal(0, 10, (4, 4))
        pixels = np.kron(np.clip(level, 0, 255), np.ones((8, 8))).astype(np.uint8)
        frames.append(Image.fromarray(pixels))
    frames[0].save(
        path, save_all=True, append_images=frames[1:], duration=frame_ms, loop=0
    )


def _on_screen(path):
    """Features at 10 Hz of the run, brute force: a frame lasts 2 s from 7 s on."""
    with Image.open(path) as image:
        frames = []
        for number in range(N_FRAMES):
            image.seek(number)
            frames.append(np.asarray(image.convert("RGB")))
    return load_backbone("image-statistics").embed(frames)


def _response(drive):
    """Response at the middle of each volume to frames of 2 s."""
    fine = np.zeros(int(N_VOLUMES * T_R * 10))
    start = int(START_S * 10)
    fine[start : start + N_FRAMES * 20] = np.repeat(drive, 20)
    lag = np.arange(0, 30, 0.1)
    kernel = (lag / 5) ** 5 * np.exp(5 - lag)
    whole = np.convolve(fine, kernel / kernel.sum())[: len(fine)]
    return whole[int(T_R * 5) :: int(T_R * 10)]


def _words(data, output, *more):
    return [
        "encode", data.root, output, "participant", "--mask", data.mask, *FLAGS, *more,
    ]  # fmt: skip


def _scores(output):
    (path,) = output.rglob("*_desc-encoding_scores.tsv")
    return pd.read_csv(path, sep="\t", na_values="n/a").set_index("target")


def _edit_events(data, change):
    for path in data.root.rglob("*_events.tsv"):
        events = change(pd.read_csv(path, sep="\t"))
        events.to_csv(path, sep="\t", index=False)


def test_the_voxel_that_follows_the_film_is_found(neuromm, made, tmp_path):
    ran = neuromm(*_words(made, tmp_path / "out", *VISION))
    assert ran.code == 0, ran.err
    r = _scores(tmp_path / "out")["r"]
    assert r.idxmax() == DRIVEN
    assert r[DRIVEN] > 0.7
    assert abs(r[NOTHING]) < 0.3


def test_a_volume_holds_what_its_run_showed_while_it_was_taken(neuromm, made, tmp_path):
    out = tmp_path / "out"
    ran = neuromm(*_words(made, out, *VISION, "--film-step", "1"))
    assert ran.code == 0, ran.err
    (path,) = (out / ".neuromm" / "features").glob("vision-*.npz")
    table = read_features(path)
    assert table.attrs["stimuli"] == (
        "frames of stimuli/ every 1 s, averaged within each volume"
    )
    for run in RUNS:
        own = table.select(run=str(run), subject="01")
        np.testing.assert_allclose(own.keys["onset"], np.arange(N_VOLUMES) * T_R)
        frames = made.values[run]
        # The film starts at 7 s, in the middle of the volume from 6 to 8 s.
        np.testing.assert_array_equal(own.values[:3], 0)
        np.testing.assert_allclose(own.values[3], frames[0] / 2, rtol=1e-5)
        expected = (frames[4] + frames[5]) / 2
        np.testing.assert_allclose(own.values[8], expected, rtol=1e-5)
        np.testing.assert_allclose(own.values[63], frames[-1] / 2, rtol=1e-5)
        np.testing.assert_array_equal(own.values[64:], 0)
    # The numbers are those of a table that was made in a script.
    read = tmp_path / "read"
    given = write_features(tmp_path / "vision.npz", table)
    assert neuromm(*_words(made, read, "--features", f"vision={given}")).code == 0
    pd.testing.assert_frame_equal(_scores(out), _scores(read))


def test_a_second_run_embeds_nothing_and_is_skipped(
    neuromm, made, tmp_path, files_of, monkeypatch
):
    out = tmp_path / "out"
    assert neuromm(*_words(made, out, *VISION)).code == 0
    before = files_of(out)

    def embed(self, stimuli):
        raise AssertionError("embedded again")

    from neuromm.features.built_in_backbones import ImageStatistics

    monkeypatch.setattr(ImageStatistics, "embed", embed)
    again = neuromm(*_words(made, out, *VISION))
    assert again.out.splitlines()[-1] == "neuromm encode: 0 done, 1 skipped, 0 failed"
    assert files_of(out) == before


def test_a_dry_run_counts_steps_and_volumes_without_embedding(neuromm, made, tmp_path):
    ran = neuromm(*_words(made, tmp_path / "out", *VISION, "--dry-run"))
    assert ran.code == 0, ran.err
    # 120 s every 0.5 s in three runs.
    assert "720 stimuli (frames of stimuli/ every 0.5 s" in ran.out
    assert f"({len(RUNS) * N_VOLUMES} rows)" in ran.out


def test_a_film_is_found_where_its_own_event_is_not_encoded(neuromm, data, tmp_path):
    def with_words(events):
        spoken = pd.DataFrame(
            {"onset": [20.0, 30.0], "duration": 1.0, "trial_type": "word",
             "stim_file": "n/a"}
        )  # fmt: skip
        return pd.concat([events, spoken])

    whole, words = tmp_path / "whole", tmp_path / "words"
    assert neuromm(*_words(data, whole, *VISION)).code == 0
    _edit_events(data, with_words)
    ran = neuromm(*_words(data, words, *VISION, "--trial-type", "word"))
    assert ran.code == 0, ran.err
    pd.testing.assert_frame_equal(_scores(whole), _scores(words))


def _shorter(data):
    _edit_events(data, lambda events: events.assign(duration=131.0))


def _no_film(data):
    (data.root / "stimuli" / "film2.gif").unlink()


def _no_codec(data):
    path = data.root / "stimuli" / "film1.gif"
    path.rename(path.with_suffix(".mp4"))
    _edit_events(
        data,
        lambda events: events.assign(
            stim_file=events["stim_file"].str.replace("film1.gif", "film1.mp4")
        ),
    )


def _outside(data):
    _edit_events(data, lambda events: events.assign(stim_file="../film1.mp4"))


def _damaged(data):
    path = data.root / "stimuli" / "film3.gif"
    path.write_bytes(path.read_bytes()[:3000])


@pytest.mark.parametrize(
    ("spoil", "code", "told"),
    [
        (_shorter, 65, "lasts 120 s (60 frames), and the event at 7 s"),
        (_no_film, 66, "lacks 1 of 3 stimuli: film2.gif"),
        (_no_codec, 66, 'pip install "neuromm[video]"'),
        (_damaged, 65, "film3.gif"),
        (_outside, 65, "../film1.mp4 leads out of"),
    ],
)
def test_films_that_cannot_be_shown_are_told_before_anything_is_written(
    neuromm, data, tmp_path, monkeypatch, spoil, code, told
):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    spoil(data)
    out = tmp_path / "out"
    ran = neuromm(*_words(data, out, *VISION))
    assert ran.code == code, ran.err
    assert told in ran.err
    assert not out.exists()


def test_a_step_of_no_time_is_refused(neuromm, made, tmp_path):
    ran = neuromm(*_words(made, tmp_path / "out", *VISION, "--film-step", "0"))
    assert ran.code == 2
    assert "--film-step must be a time" in ran.err


@pytest.fixture(scope="module")
def electrodes(tmp_path_factory):
    """EEG of two runs during which one film is shown; events lie within it."""
    root = tmp_path_factory.mktemp("eeg") / "bids"
    make_bids_dataset(root, n_subjects=1, modalities=("eeg",), n_runs=2, rng=0)
    film = root / "stimuli" / "film.gif"
    _write_film(film, np.random.default_rng(1), 1000 * EEG_FRAME_S)
    runs = {}
    for path in sorted(root.rglob("*_events.tsv")):
        events = pd.read_csv(path, sep="\t").assign(stim_file="n/a")
        start = events["onset"].min() - 0.5
        runs[path.name.split("_run-")[1][0]] = (start, events["onset"].to_numpy())
        showing = pd.DataFrame(
            {"onset": [start], "duration": ["n/a"], "trial_type": ["film"],
             "stim_file": ["film.gif"]}
        )  # fmt: skip
        pd.concat([showing, events]).to_csv(path, sep="\t", index=False, na_rep="n/a")
    kind = str(events["trial_type"].iloc[0])
    return SimpleNamespace(root=root, runs=runs, kind=kind)


def test_an_event_of_eeg_holds_the_frame_on_the_screen_at_its_onset(
    neuromm, electrodes, tmp_path
):
    out = tmp_path / "out"
    ran = neuromm(
        "encode", electrodes.root, out, "participant", *FLAGS, *VISION,
        "--trial-type", electrodes.kind,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    (path,) = (out / ".neuromm" / "features").glob("vision-*.npz")
    table = read_features(path)
    assert table.attrs["stimuli"] == "frames of stimuli/ at each event"
    frames = _on_screen(electrodes.root / "stimuli" / "film.gif")
    for run, (start, onsets) in electrodes.runs.items():
        own = table.select(run=run, subject="01")
        order = np.argsort(own.keys["onset"])
        np.testing.assert_allclose(own.keys["onset"].to_numpy()[order], onsets)
        number = np.floor((onsets - start) / EEG_FRAME_S + 1e-6).astype(int)
        np.testing.assert_allclose(own.values[order], frames[number], rtol=1e-5)


def test_an_event_of_eeg_outside_of_the_film_is_told(neuromm, electrodes, tmp_path):
    root = tmp_path / "bids"
    shutil.copytree(electrodes.root, root)
    for path in root.rglob("*_events.tsv"):
        events = pd.read_csv(path, sep="\t", dtype=str)
        events.loc[events["trial_type"] == "film", "duration"] = "3"
        events.to_csv(path, sep="\t", index=False)
    out = tmp_path / "out"
    ran = neuromm("encode", root, out, "participant", *FLAGS, *VISION)
    assert ran.code == 65, ran.err
    assert "begin while no film is shown" in ran.err
    assert not out.exists()
