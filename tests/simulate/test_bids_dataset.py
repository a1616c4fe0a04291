"""The simulated data set is valid BIDS, and a plain reader finds what was planted."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import RidgeCV
from sklearn.metrics import roc_auc_score

from neuromm.core import OutputError, UsageError
from neuromm.simulate import make_bids_dataset
from neuromm.simulate.bids_voltage import WINDOW_NOISE_V
from neuromm.simulate.bold import hrf_response
from neuromm.simulate.planted_brain import REGIONS, planted_kind

ALPHAS = np.logspace(0, 5, 11)


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    root = tmp_path_factory.mktemp("film") / "bids"
    return make_bids_dataset(
        root, n_subjects=1, modalities=("fmri", "ieeg", "eeg"), rng=7
    )


def validation(folder: Path) -> dict:
    program = Path(sys.executable).with_name("bids-validator-deno")
    done = subprocess.run(
        [program, "--format", "json", folder], capture_output=True, text=True
    )
    return json.loads(done.stdout)


def errors(folder: Path) -> list[str]:
    return [
        f"{issue['code']} {issue.get('location')}"
        for issue in validation(folder)["issues"]["issues"]
        if issue["severity"] == "error"
    ]


def feature_values(truth, events: pd.DataFrame) -> np.ndarray:
    """Vision and language of each event, straight from the tables."""
    tables = [
        pd.read_csv(path, sep="\t").set_index("stim_file")
        for path in truth.features.values()
    ]
    return np.hstack([table.loc[events["stim_file"]].to_numpy() for table in tables])


def held_out_correlation(x: list[np.ndarray], y: list[np.ndarray]) -> np.ndarray:
    """Correlation of the last run with the prediction of a fit on the others."""
    model = RidgeCV(ALPHAS, alpha_per_target=True).fit(
        np.vstack(x[:-1]), np.vstack(y[:-1])
    )
    predicted = model.predict(x[-1])
    predicted = predicted - predicted.mean(axis=0)
    actual = y[-1] - y[-1].mean(axis=0)
    return (predicted * actual).sum(axis=0) / np.sqrt(
        (predicted**2).sum(axis=0) * (actual**2).sum(axis=0)
    )


@pytest.fixture(scope="module")
def voltages(truth):
    """Events and notch-filtered voltage (channel, time) of each run, by datatype."""
    import mne

    found = {}
    for datatype in ("ieeg", "eeg"):
        runs = []
        for path in sorted((truth.root / "sub-01" / datatype).glob("*.vhdr")):
            name = str(path).replace(f"_{datatype}.vhdr", "_events.tsv")
            raw = mne.io.read_raw_brainvision(path, preload=True, verbose="ERROR")
            raw.notch_filter([50, 100], verbose="ERROR")
            runs.append((pd.read_csv(name, sep="\t"), raw.get_data()))
        found[datatype] = runs
    return found


def windows(runs, latency: float) -> list[np.ndarray]:
    """Mean voltage in 50 ms around a latency, (event, channel) a run."""
    means = []
    for events, voltage in runs:
        start = np.rint((events["onset"] + latency - 0.025) * 256).astype(int)
        means.append(np.array([voltage[:, s : s + 13].mean(axis=1) for s in start]))
    return means


def channel_correlation(truth, runs, latency: float) -> np.ndarray:
    x = [feature_values(truth, events) for events, _ in runs]
    return held_out_correlation(x, windows(runs, latency))


@pytest.mark.parametrize("part", [".", "derivatives/fmriprep", "derivatives/features"])
def test_the_bids_validator_finds_no_error(truth, part):
    assert errors(truth.root / part) == []


def test_the_validator_knows_every_recording_as_what_it_is(truth):
    summary = validation(truth.root)["summary"]
    assert set(summary["modalities"]) == {"MRI", "iEEG", "EEG"}
    assert summary["tasks"] == ["film"]


@pytest.mark.parametrize("modality", ["fmri", "ieeg"])
def test_a_seed_gives_the_same_bytes(tmp_path, modality):
    digests = []
    for name in ("first", "second"):
        root = tmp_path / name
        make_bids_dataset(root, n_subjects=1, modalities=(modality,), n_runs=1, rng=3)
        digests.append(
            {
                str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).digest()
                for path in sorted(root.rglob("*"))
                if path.is_file()
            }
        )
    assert digests[0] == digests[1]


def test_a_subject_is_the_same_in_a_larger_study(tmp_path, truth):
    larger = make_bids_dataset(
        tmp_path / "larger", n_subjects=2, modalities=("ieeg",), rng=7
    )
    name = "sub-01/ieeg/sub-01_task-film_run-1_ieeg.eeg"
    assert (larger.root / name).read_bytes() == (truth.root / name).read_bytes()


def test_planted_voxels_are_told_from_noise_by_a_plain_ridge(truth):
    import nibabel

    x, y = [], []
    folder = truth.derivatives["fmriprep"] / "sub-01" / "func"
    mask = nibabel.load(next(folder.glob("*run-1*_mask.nii.gz"))).get_fdata() > 0
    times = (np.arange(134) + 0.5) * 2.0
    slow = np.cos(np.pi * np.outer(np.arange(134) + 0.5, np.arange(5)) / 134)
    for run in (1, 2, 3):
        name = f"sub-01_task-film_run-{run}"
        events = pd.read_csv(
            truth.root / "sub-01" / "func" / f"{name}_events.tsv", sep="\t"
        )
        response = hrf_response(events["onset"].to_numpy(), 2.0, times)
        confounds = pd.read_csv(
            folder / f"{name}_desc-confounds_timeseries.tsv", sep="\t"
        ).filter(regex=r"^(trans|rot)_[xyz]$")
        nuisance = np.hstack([slow, (confounds - confounds.mean()) / confounds.std()])
        volumes = nibabel.load(next(folder.glob(f"*run-{run}*_bold.nii.gz")))
        series = np.hstack(
            [response @ feature_values(truth, events), volumes.get_fdata()[mask].T]
        )
        series -= nuisance @ np.linalg.lstsq(nuisance, series, rcond=None)[0]
        x.append(series[:, :32])
        y.append(series[:, 32:])
    voxels = truth.table[truth.table["datatype"] == "func"]
    r = held_out_correlation(x, y)
    planted = (voxels["kind"] != "none").to_numpy()
    assert roc_auc_score(planted, r) > 0.9
    # Features are estimated from 268 volumes, so scores lie below r_max, not far.
    assert 0.6 < (r[planted] / voxels["r_max"][planted]).median() < 1.0


@pytest.mark.parametrize("datatype", ["ieeg", "eeg"])
def test_planted_channels_are_told_from_noise_at_their_latency(
    truth, voltages, datatype
):
    channels = truth.table[truth.table["datatype"] == datatype]
    kinds = channels["kind"].to_numpy()
    r = np.empty(len(kinds))
    peaks = {"vision": 0.2, "language": 0.4, "both": 0.475, "none": 0.4}
    for kind, peak in peaks.items():
        here = kinds == kind
        r[here] = channel_correlation(truth, voltages[datatype], peak)[here]
    assert roc_auc_score(kinds != "none", r) > 0.9


def test_planted_channels_are_silent_before_the_event(truth, voltages):
    channels = truth.table.query("datatype == 'ieeg'")
    r = channel_correlation(truth, voltages["ieeg"], -0.1)
    # 200 events: the mean of about 15 null correlations has an error of 0.02.
    assert abs(r[channels["kind"] != "none"].mean()) < 0.06


def test_noise_of_a_window_has_the_deviation_that_the_truth_assumes(truth, voltages):
    quiet = truth.table.query("datatype == 'ieeg'")["kind"].to_numpy() == "none"
    deviation = np.vstack(windows(voltages["ieeg"], 0.2))[:, quiet].std()
    assert deviation == pytest.approx(WINDOW_NOISE_V, rel=0.05)


def test_no_clip_is_shown_in_two_runs_and_all_have_features(truth):
    shown = [
        set(pd.read_csv(path, sep="\t")["stim_file"])
        for path in sorted((truth.root / "sub-01" / "ieeg").glob("*_events.tsv"))
    ]
    assert not set.intersection(*shown)
    known = set(pd.read_csv(truth.features["vision"], sep="\t")["stim_file"])
    assert set.union(*shown) == known


def test_truth_names_every_voxel_of_the_mask_by_its_indices(truth):
    import nibabel

    folder = truth.derivatives["fmriprep"] / "sub-01" / "func"
    mask = nibabel.load(next(folder.glob("*_mask.nii.gz")))
    voxels = truth.table[truth.table["datatype"] == "func"]
    indices = np.array([name.split("-") for name in voxels["target"]], dtype=int)
    np.testing.assert_array_equal(indices, np.argwhere(mask.get_fdata() > 0))
    centres = indices @ mask.affine[:3, :3].T + mask.affine[:3, 3]
    np.testing.assert_allclose(voxels[["x", "y", "z"]], centres)


def test_truth_on_disk_is_the_truth_in_memory(truth):
    # Four decimals on disk; pandas reads "none" as text, since only n/a is missing.
    pd.testing.assert_frame_equal(
        pd.read_csv(
            truth.table_path,
            sep="\t",
            dtype={"subject": str, "kind": object},
            keep_default_na=False,
            na_values={"x": "n/a", "y": "n/a", "z": "n/a"},
        ),
        truth.table,
        check_dtype=False,
        atol=1e-4,
    )


def test_each_region_answers_to_its_kind_at_its_centre():
    kinds, region, depth = planted_kind(
        np.array([r.centre for r in REGIONS], dtype=float), np.zeros((len(REGIONS), 3))
    )
    assert list(kinds) == [r.kind for r in REGIONS]
    np.testing.assert_array_equal(region, np.arange(len(REGIONS)))
    np.testing.assert_allclose(depth, 1)


def test_a_folder_with_files_is_refused_and_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="new or empty folder"):
        make_bids_dataset(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_unknown_modality_is_named(tmp_path):
    with pytest.raises(UsageError, match="fmri, ieeg, eeg, got pet"):
        make_bids_dataset(tmp_path / "x", modalities=("fmri", "pet"))
