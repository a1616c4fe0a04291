"""The forms of data and settings that the command takes, each against its plant."""

import json

import nibabel
import numpy as np
import pandas as pd
import pytest


def _encode(neuromm, data, output, *options, features=None):
    ran = neuromm(
        "encode", data.root, output, "participant",
        "--features", f"kind={features or data.features}",
        "--n-permutations", 20, "--skip-bids-validation", *options,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    (path,) = output.rglob("*_desc-encoding_scores.tsv")
    return pd.read_csv(path, sep="\t", na_values="n/a").set_index("target")


@pytest.mark.parametrize(
    "options",
    [
        ("--hrf", "glover"),
        ("--hrf", "fir", "--delays", "1", "2", "3", "4"),
        ("--scoring", "correlation", "--folds", "2"),
        ("--high-pass", "0", "--trim", "2", "3", "--low-mem"),
    ],
)
def test_planted_voxels_are_found_under_every_setting(
    neuromm, tiny_bold, tmp_path, options
):
    scores = _encode(
        neuromm, tiny_bold, tmp_path / "out", "--mask", tiny_bold.mask, *options
    )
    planted = scores.index.isin(["0-0-0", "1-0-0"])
    assert scores["r"][planted].min() > 0.5 > scores["r"][~planted].max()


def test_without_a_mask_a_brain_that_cannot_be_told_apart_is_refused(
    neuromm, tiny_bold, tmp_path
):
    # Every voxel of the tiny data set is equally bright.
    ran = neuromm(
        "encode", tiny_bold.root, tmp_path / "out", "participant",
        "--features", f"kind={tiny_bold.features}", "--skip-bids-validation",
    )  # fmt: skip
    assert ran.code == 65
    assert "Give a mask with --mask" in ran.err


def test_features_keyed_by_onset_serve_as_their_own_events(
    neuromm, tiny_bold, tmp_path
):
    rows = []
    for run in (1, 2):
        events = pd.read_csv(tiny_bold.file(run, "events.tsv"), sep="\t")
        face = (events["trial_type"] == "face").astype(int)
        rows.append(events[["onset", "duration"]].assign(run=run, face=face))
        tiny_bold.file(run, "events.tsv").unlink()
    table = tmp_path / "by_onset.tsv"
    pd.concat(rows).to_csv(table, sep="\t", index=False)
    by_onset = _encode(
        neuromm, tiny_bold, tmp_path / "out", "--mask", tiny_bold.mask, features=table
    )
    assert by_onset["r"].idxmax() == "0-0-0"


def test_surface_series_are_encoded_and_written_as_gifti(neuromm, tiny_bold, tmp_path):
    func = tmp_path / "fmriprep" / "sub-01" / "func"
    func.mkdir(parents=True)
    (tmp_path / "fmriprep" / "dataset_description.json").write_text(
        json.dumps(
            {
                "Name": "surfaces",
                "BIDSVersion": "1.11.1",
                "DatasetType": "derivative",
                "GeneratedBy": [{"Name": "test"}],
            }
        )
    )
    n_vertices = 10242  # fsaverage5
    rng = np.random.default_rng(0)
    for run in (1, 2):
        volume = nibabel.load(tiny_bold.file(run, "bold.nii.gz")).get_fdata()
        for hemi, planted in (("L", volume[0, 0, 0]), ("R", volume[1, 0, 0])):
            series = rng.standard_normal((len(planted), n_vertices)).astype("f4")
            series[:, 7] = planted
            series[:, 100:] = 0  # no signal there: constant, masked, not fatal
            arrays = [
                nibabel.gifti.GiftiDataArray(row, intent="NIFTI_INTENT_TIME_SERIES")
                for row in series
            ]
            stem = f"sub-01_task-film_run-{run}_hemi-{hemi}_space-fsaverage5_bold"
            nibabel.save(
                nibabel.gifti.GiftiImage(darrays=arrays), func / f"{stem}.func.gii"
            )
            (func / f"{stem}.json").write_text(json.dumps({"RepetitionTime": 2.0}))
    scores = _encode(
        neuromm, tiny_bold, tmp_path / "out",
        "--derivatives", f"fmriprep={tmp_path / 'fmriprep'}", "--space", "fsaverage5",
    )  # fmt: skip
    assert set(scores["r"].nlargest(2).index) == {"L-7", "R-7"}
    assert scores["r"].notna().sum() == 200
    (left,) = (tmp_path / "out").rglob("*hemi-L*contrast-kind*stat-r_statmap.func.gii")
    assert np.nanargmax(nibabel.load(left).darrays[0].data) == 7
    assert np.isfinite(scores[["x", "y", "z"]].to_numpy()).all()
