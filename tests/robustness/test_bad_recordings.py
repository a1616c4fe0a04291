"""Bad EEG, MEG and iEEG recordings, through the command line."""

import json

import mne
import numpy as np
import pandas as pd
import pytest

SFREQ = 100.0
N_EVENTS = 12


def _write_json(path, content):
    path.write_text(json.dumps(content))


def _dataset(root, datatype, extension, kind):
    """One run of 30 s with an event every 2 s, in the given format."""
    folder = root / "sub-01" / datatype
    folder.mkdir(parents=True)
    _write_json(
        root / "dataset_description.json", {"Name": "tiny", "BIDSVersion": "1.11.1"}
    )
    rng = np.random.default_rng(0)
    names = [f"A{i}" for i in range(1, 5)]
    info = mne.create_info(names, SFREQ, kind)
    scale = 1e-12 if kind == "mag" else 1e-5
    raw = mne.io.RawArray(scale * rng.standard_normal((4, 3000)), info, verbose="error")
    stem = folder / f"sub-01_task-film_{datatype}"
    path = stem.with_name(stem.name + extension)
    if extension == ".fif":
        raw.save(path, verbose="error")
    elif extension == ".edf":
        raw.export(path, verbose="error")
    else:
        import pybv

        pybv.write_brainvision(
            data=raw.get_data(),
            sfreq=SFREQ,
            ch_names=names,
            fname_base=stem.name,
            folder_out=folder,
        )
    _write_json(
        stem.with_name(stem.name + ".json"),
        {"TaskName": "film", "SamplingFrequency": SFREQ, "PowerLineFrequency": 50},
    )
    types = {"eeg": "EEG", "mag": "MEGMAG", "seeg": "SEEG"}[kind]
    units = {"eeg": "µV", "mag": "T", "seeg": "µV"}[kind]
    channels = pd.DataFrame({"name": names, "type": types, "units": units})
    channels.to_csv(folder / "sub-01_task-film_channels.tsv", sep="\t", index=False)
    events = pd.DataFrame(
        {
            "onset": 2.0 + 2.0 * np.arange(N_EVENTS),
            "duration": 0.0,
            "trial_type": ["face", "house"] * (N_EVENTS // 2),
        }
    )
    events.to_csv(folder / "sub-01_task-film_events.tsv", sep="\t", index=False)
    features = root.parent / "features.tsv"
    features.write_text("trial_type\tface\nface\t1\nhouse\t0\n")
    return path, features


def _encode(neuromm, root, features):
    return neuromm(
        "encode", root, root.parent / "out", "participant",
        "--features", f"kind={features}", "--tmin", 0, "--tmax", 0.5, "--folds", 2,
        "--n-permutations", 20, "--block", 2, "--skip-bids-validation",
    )  # fmt: skip


def _assert_refused(ran, code, *words):
    assert ran.code == code, ran.err
    lines = [line for line in ran.err.splitlines() if "error:" in line]
    assert len(lines) == 1, ran.err
    assert "Traceback" not in ran.err
    for word in words:
        assert word in lines[0]


@pytest.mark.parametrize(
    ("datatype", "extension", "kind"),
    [("eeg", ".edf", "eeg"), ("meg", ".fif", "mag"), ("ieeg", ".vhdr", "seeg")],
)
class TestEachFormat:
    def test_whole_recording_is_encoded(
        self, neuromm, tmp_path, datatype, extension, kind
    ):
        _, features = _dataset(tmp_path / "data", datatype, extension, kind)
        ran = _encode(neuromm, tmp_path / "data", features)
        assert ran.code == 0, ran.err
        (path,) = (tmp_path / "out").rglob("*_desc-encoding_scores.tsv")
        assert set(pd.read_csv(path, sep="\t")["channel"]) == {"A1", "A2", "A3", "A4"}

    def test_truncated_recording_is_refused(
        self, neuromm, tmp_path, datatype, extension, kind
    ):
        path, features = _dataset(tmp_path / "data", datatype, extension, kind)
        samples = path.with_suffix(".eeg") if extension == ".vhdr" else path
        content = samples.read_bytes()
        samples.write_bytes(content[: len(content) * 6 // 10 + 1])
        ran = _encode(neuromm, tmp_path / "data", features)
        _assert_refused(ran, 65, samples.name)
        assert not list((tmp_path / "out").rglob("*_scores.tsv"))
        assert not list((tmp_path / "out").rglob("*.tmp-*"))


def test_electrodes_in_millimetres_declared_as_metres(neuromm, tmp_path):
    path, features = _dataset(tmp_path / "data", "ieeg", ".vhdr", "seeg")
    electrodes = pd.DataFrame(
        {
            "name": [f"A{i}" for i in range(1, 5)],
            "x": [-30.0, -34.0, -38.0, -42.0],
            "y": -20.0,
            "z": 10.0,
            "size": 1.0,
        }
    )
    electrodes.to_csv(
        path.with_name("sub-01_space-MNI152NLin2009cAsym_electrodes.tsv"),
        sep="\t",
        index=False,
    )
    system = path.with_name("sub-01_space-MNI152NLin2009cAsym_coordsystem.json")
    declared = {"iEEGCoordinateSystem": "MNI152NLin2009cAsym"}
    _write_json(system, {**declared, "iEEGCoordinateUnits": "m"})
    ran = _encode(neuromm, tmp_path / "data", features)
    _assert_refused(ran, 65, "_electrodes.tsv", "mm")
    _write_json(system, {**declared, "iEEGCoordinateUnits": "mm"})
    ran = _encode(neuromm, tmp_path / "data", features)
    assert ran.code == 0, ran.err
    (scores,) = (tmp_path / "out").rglob("*_desc-encoding_scores.tsv")
    assert pd.read_csv(scores, sep="\t")["x"].min() == -42.0
