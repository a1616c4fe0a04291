"""Faces and houses in four dry electrodes (Muse, N170 experiment of eeg-notebooks).

Two subjects saw faces and houses for 300 ms each; the runs are two minutes long. The
electrodes behind the ears, TP9 and TP10, pick up the response of visual cortex; those
on the forehead, AF7 and AF8, do not.
"""

import numpy as np
import pandas as pd
import pytest

pytestmark = pytest.mark.real

CHANNELS = ["TP9", "AF7", "AF8", "TP10"]
HOUSE, FACE = 1, 2


@pytest.fixture(scope="module")
def scores(data_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("muse")
    root = folder / "dataset"
    for subject in ("1", "2"):
        runs = sorted((data_folder / "eeg" / "muse_n170").glob(f"subject{subject}/*/*"))
        for number, path in enumerate(runs, start=1):
            _write_run(root, path, subject, str(number))
    features = folder / "category.tsv"
    features.write_text("trial_type\tface\nface\t1\nhouse\t-1\n")

    from neuromm_pipelines.cli import main

    code = main(
        [
            "encode", str(root), str(folder / "out"), "participant",
            "--features", f"category={features}", "--task", "n170",
            "--tmin", "-0.2", "--tmax", "0.8", "--window-ms", "50", "--step-ms", "25",
            "--l-freq", "1", "--h-freq", "30", "--no-notch", "--reject", "eeg=75e-6",
            "--n-permutations", "5000",
        ]
    )  # fmt: skip
    assert code == 0
    tables = [
        pd.read_csv(path, sep="\t", na_values="n/a").assign(subject=path.name[4:6])
        for path in sorted((folder / "out").rglob("*_desc-encoding_scores.tsv"))
    ]
    table = pd.concat(tables)
    table["sensor"] = table["target"].str.partition("@")[0]
    return table


def _write_run(root, path, subject, run):
    import mne
    from mne_bids import BIDSPath, write_raw_bids

    table = pd.read_csv(path)
    info = mne.create_info(CHANNELS, sfreq=256.0, ch_types="eeg")
    info["line_freq"] = 60.0
    microvolts = table[CHANNELS].to_numpy().T
    raw = mne.io.RawArray(1e-6 * microvolts, info, verbose="error")
    markers = table["Marker0"].to_numpy()
    samples = np.flatnonzero(markers)
    events = np.column_stack([samples, np.zeros_like(samples), markers[samples]])
    write_raw_bids(
        raw,
        BIDSPath(
            root=root, subject=f"0{subject}", task="n170", run=run, datatype="eeg"
        ),
        events=events.astype(int),
        event_id={"house": HOUSE, "face": FACE},
        format="BrainVision",
        allow_preload=True,
        overwrite=True,
        verbose="error",
    )


def _found(scores, sensors):
    rows = scores[scores.sensor.isin(sensors)]
    return rows[rows.q < 0.05]


def test_every_run_and_both_subjects_were_used(scores):
    assert set(scores.subject) == {"01", "02"}
    assert set(scores.sensor) == set(CHANNELS)


@pytest.mark.parametrize("subject", ["01", "02"])
def test_sensors_near_visual_cortex_rise_above_their_null_after_the_face_is_seen(
    scores, subject
):
    found = _found(scores[scores.subject == subject], ["TP9", "TP10"])
    assert len(found) >= 2
    # The first cortical answers that tell faces from houses come after 150 ms.
    assert found.time.min() > 0.15


@pytest.mark.parametrize("subject", ["01", "02"])
def test_forehead_and_time_before_the_stimulus_stay_at_chance(scores, subject):
    mine = scores[scores.subject == subject]
    assert _found(mine, ["AF7", "AF8"]).empty
    assert mine[mine.time < 0].q.min() > 0.05


def test_the_largest_scores_lie_near_420_ms_behind_both_ears(scores):
    mean = scores.groupby(["sensor", "time"]).r.mean()
    for sensor in ("TP9", "TP10"):
        assert abs(mean[sensor].idxmax() - 0.42) < 0.05
        assert 0.1 < mean[sensor].max() < 0.35
