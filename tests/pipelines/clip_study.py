"""A study of clips: one voxel follows images, one captions, others nothing."""

import json
from types import SimpleNamespace

import nibabel
import numpy as np
import pandas as pd
from PIL import Image

from neuromm.features import image_rows, load_backbone, stimulus_features, text_rows

T_R, N_STIMULI, RUNS = 2.0, 96, (1, 2, 3)
N_SHOWN = N_STIMULI // len(RUNS)
N_VOLUMES = int(N_SHOWN * 8 / T_R) + 10
VISION, LANGUAGE, NOTHING = "0-0-0", "1-0-0", "0-1-0"
TOPICS = (
    ("river", "stone", "winter", "cloud", "forest", "hill"),
    ("engine", "violin", "bread", "window", "letter", "chair"),
)
UNIT = "sub-01_task-film"


def make_clip_study(root, backbone=None):
    """Write the runs; give ``root``, ``mask`` and the ``captions`` of the clips.

    ``backbone`` is the one of images that the first voxel follows.
    """
    rng = np.random.default_rng(0)
    (root / "stimuli").mkdir(parents=True)
    (root / "sub-01" / "func").mkdir(parents=True)
    _json(root / "dataset_description.json", Name="film", BIDSVersion="1.11.1")
    captions = {}
    for number in range(N_STIMULI):
        # Mostly of different brightness: what the first component of features is.
        level = rng.uniform(40, 215) + rng.normal(0, 10, (4, 4, 3))
        pixels = np.kron(level, np.ones((8, 8, 1))) + rng.normal(0, 6, (32, 32, 3))
        picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
        picture.save(root / "stimuli" / f"clip{number:02d}.png")
        captions[f"clip{number:02d}.png"] = _caption(rng, captions.values())
    image = stimulus_features(
        backbone or load_backbone("image-statistics"),
        image_rows(root / "stimuli", sorted(captions)),
        name="vision",
    )
    text = stimulus_features(
        load_backbone("hashed-text"), text_rows(captions), name="language"
    )
    drives = {VISION: _first_component(image), LANGUAGE: _first_component(text)}
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    # Each clip is shown once: a run that is held out holds clips never seen before.
    shown = rng.permutation(sorted(captions)).reshape(len(RUNS), N_SHOWN)
    for run, clips in zip(RUNS, shown, strict=True):
        _write_run(root / "sub-01" / "func", run, rng, clips, captions, drives, affine)
    mask = root.parent / "mask.nii.gz"
    nibabel.Nifti1Image(np.ones((3, 2, 2), np.uint8), affine).to_filename(mask)
    return SimpleNamespace(root=root, mask=mask, captions=captions)


def _json(path, **content):
    path.write_text(json.dumps(content))


def _caption(rng, taken):
    topic = TOPICS[len(taken) % 2]
    while (caption := " ".join(rng.choice(topic, 3, replace=False))) in taken:
        pass
    return caption


def _first_component(table):
    values = table.values - table.values.mean(axis=0)
    left, singular, _ = np.linalg.svd(values, full_matrices=False)
    scores = left[:, 0] * singular[0]
    return dict(zip(table.keys["stim_file"], scores / scores.std(), strict=True))


def _write_run(func, run, rng, shown, captions, drives, affine):
    onsets = 4 + 8 * np.arange(N_SHOWN)
    lag = np.clip((np.arange(N_VOLUMES)[:, None] + 0.5) * T_R - onsets, 0, None)
    response = (lag / 5) ** 5 * np.exp(5 - lag)
    series = 1000 + 2 * rng.standard_normal((3, 2, 2, N_VOLUMES))
    for voxel, drive in drives.items():
        place = tuple(int(index) for index in voxel.split("-"))
        series[place] += 10 * response @ [drive[name] for name in shown]
    picture = nibabel.Nifti1Image(series.astype(np.float32), affine)
    picture.header.set_zooms((3.0, 3.0, 3.0, T_R))
    picture.header.set_xyzt_units("mm", "sec")
    picture.to_filename(func / f"{UNIT}_run-{run}_bold.nii.gz")
    _json(func / f"{UNIT}_run-{run}_bold.json", RepetitionTime=T_R, TaskName="film")
    events = pd.DataFrame(
        {
            "onset": onsets,
            "duration": 1.0,
            "trial_type": "clip",
            "stim_file": shown,
            "caption": [captions[name] for name in shown],
        }
    )
    events.to_csv(func / f"{UNIT}_run-{run}_events.tsv", sep="\t", index=False)
