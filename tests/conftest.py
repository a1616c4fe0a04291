"""What many tests need: a tiny BIDS data set, and the command line in this process."""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

N_VOLUMES = 60
T_R = 2.0
TRIAL_TYPES = ("face", "house")


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class TinyBold:
    """A BIDS data set of one subject and two runs, 4 x 3 x 2 voxels.

    The first voxel answers to faces, the second to houses; the others are noise.
    """

    root: Path
    features: Path
    mask: Path

    def file(self, run: int, suffix: str) -> Path:
        return self.root / "sub-01" / "func" / f"sub-01_task-film_run-{run}_{suffix}"


@pytest.fixture
def neuromm(capsys) -> Callable[..., Ran]:
    """Run the command line and catch what it prints."""
    from neuromm_pipelines.cli import main

    def run(*argv: object) -> Ran:
        capsys.readouterr()
        try:
            code = main([str(argument) for argument in argv])
        except SystemExit as ended:
            code = int(ended.code or 0)
        caught = capsys.readouterr()
        return Ran(code, caught.out, caught.err)

    return run


@pytest.fixture
def bench_folder(monkeypatch) -> Iterator[Path]:
    """Scripts of bench/ import from their folder; nothing of them is left behind."""
    folder = Path(__file__).resolve().parents[1] / "bench"
    names = {path.stem for path in folder.iterdir()}
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    for name in list(sys.modules):
        if name.partition(".")[0] in names:
            del sys.modules[name]


@pytest.fixture
def tiny_bold(tmp_path) -> TinyBold:
    return make_tiny_bold(tmp_path / "dataset", tmp_path / "features.tsv")


def make_tiny_bold(root: Path, features: Path) -> TinyBold:
    import nibabel

    rng = np.random.default_rng(0)
    root.mkdir(parents=True)
    _write_json(
        root / "dataset_description.json", {"Name": "tiny", "BIDSVersion": "1.11.1"}
    )
    (root / "README").write_text("Simulated for a test: two runs of noise with two\n")
    data = TinyBold(root, features, root.parent / "mask.nii.gz")
    data.file(1, "bold.nii.gz").parent.mkdir(parents=True)
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    for run in (1, 2):
        onsets = np.arange(4.0, N_VOLUMES * T_R - 20, 8.0)
        kinds = rng.permutation(np.resize(TRIAL_TYPES, len(onsets)))
        signal = _responses(onsets, kinds)
        series = 1000 + 3 * rng.standard_normal((4, 3, 2, N_VOLUMES))
        series[0, 0, 0] += 20 * signal["face"]
        series[1, 0, 0] += 20 * signal["house"]
        image = nibabel.Nifti1Image(series.astype(np.float32), affine)
        image.header.set_zooms((3.0, 3.0, 3.0, T_R))
        image.header.set_xyzt_units("mm", "sec")
        image.to_filename(data.file(run, "bold.nii.gz"))
        _write_json(
            data.file(run, "bold.json"), {"RepetitionTime": T_R, "TaskName": "film"}
        )
        rows = [f"{o}\t1.0\t{k}" for o, k in zip(onsets, kinds, strict=True)]
        text = "\n".join(["onset\tduration\ttrial_type", *rows])
        data.file(run, "events.tsv").write_text(text + "\n")
    mask = nibabel.Nifti1Image(np.ones((4, 3, 2), np.uint8), affine)
    mask.to_filename(data.mask)
    features.write_text("trial_type\tface\thouse\nface\t1\t0\nhouse\t0\t1\n")
    return data


def _responses(onsets: np.ndarray, kinds: np.ndarray) -> dict[str, np.ndarray]:
    """Gamma-shaped responses, peak after 5 s: near the models' and not one of them."""
    times = (np.arange(N_VOLUMES) + 0.5) * T_R
    lag = np.clip(times[:, None] - onsets, 0, None)
    shape = (lag / 5) ** 5 * np.exp(5 - lag)
    return {kind: shape[:, kinds == kind].sum(axis=1) for kind in TRIAL_TYPES}


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content))
