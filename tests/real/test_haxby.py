"""Eight categories of objects in one slice of ventral temporal cortex (Haxby 2001).

Runs 1 to 8 of the first subject, converted to BIDS; every run shows each category in
one block of 22.5 s. All is done through the command line, leaving one run out.
"""

import shutil

import numpy as np
import pandas as pd
import pytest

pytestmark = pytest.mark.real


def _encode(folder, dataset, output, *options):
    from neuromm_pipelines.cli import main

    code = main(
        [
            "encode", str(dataset), str(output), "participant",
            "--features", f"category={folder / 'category.tsv'}",
            "--mask", str(folder / "mask.nii.gz"), "--n-permutations", "200",
            *options,
        ]
    )  # fmt: skip
    assert code == 0
    (path,) = output.rglob("*_desc-encoding_scores.tsv")
    return pd.read_csv(path, sep="\t", na_values="n/a")


@pytest.fixture(scope="module")
def encoded(haxby):
    output = haxby / "out"
    scores = _encode(haxby, haxby / "dataset", output, "--save", "predictions")
    (path,) = output.rglob("*_desc-encoding_predictions.npz")
    with np.load(path, allow_pickle=False) as arrays:
        return scores, {name: arrays[name] for name in arrays.files}


def test_the_category_of_a_held_out_block_is_told_from_the_predictions(haxby, encoded):
    _, arrays = encoded
    hits = []
    for run in range(1, 9):
        rows = arrays["run"] == str(run)
        events = pd.read_csv(
            haxby / f"dataset/sub-01/func/sub-01_task-objects_run-{run}_events.tsv",
            sep="\t",
        )
        # The response lags by about 5 s.
        at = arrays["onset"][rows][:, None] - events.onset.to_numpy() - 5
        blocks = (at > 0) & (at < 22.5)
        weights = blocks / blocks.sum(axis=0)
        predicted = weights.T @ arrays["predictions"][rows]
        measured = weights.T @ arrays["responses"][rows]
        match = np.corrcoef(measured, predicted)[:8, 8:]
        hits += list(match.argmax(axis=1) == np.arange(8))
    # Chance is 1 in 8: of 64 blocks, 20 hits or more have p < 0.0001 (binomial). Plain
    # decoding reaches 51.6 %.
    assert np.sum(hits) >= 20


def test_more_voxels_are_predicted_than_with_categories_permuted_within_runs(
    haxby, encoded
):
    scores, _ = encoded
    rng = np.random.default_rng(0)
    n_null = []
    for number in range(3):
        shuffled = haxby / f"shuffled{number}"
        shutil.copytree(haxby / "dataset", shuffled)
        for path in sorted(shuffled.rglob("*_events.tsv")):
            events = pd.read_csv(path, sep="\t")
            events["trial_type"] = rng.permutation(events["trial_type"])
            events.to_csv(path, sep="\t", index=False)
        null = _encode(haxby, shuffled, haxby / f"out_shuffled{number}")
        n_null.append((null["r"] > 0.2).sum())
    # Blocks against rest are predicted either way; categories come on top.
    assert (scores["r"] > 0.2).sum() > max(n_null)
