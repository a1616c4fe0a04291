"""Small encoding results with known scores, written as an output folder."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from neuromm.core import EncodingResult, Provenance
from neuromm.report import write_group_report, write_subject_report
from neuromm.report.derivatives import prepare_output, write_unit

ALPHAS = [0.1, 1.0, 10.0, 100.0, 1000.0]
MODELS = ("vision", "language")


@dataclass
class Volume:
    """Voxels of a mask; the test's own TargetSpace."""

    mask_img: Any
    coordinate_frame: str | None

    @property
    def n_targets(self) -> int:
        return int(np.asarray(self.mask_img.dataobj).astype(bool).sum())

    def coords(self) -> pd.DataFrame:
        ijk = np.argwhere(np.asarray(self.mask_img.dataobj).astype(bool))
        xyz = nib.affines.apply_affine(self.mask_img.affine, ijk)
        names = [f"{i}-{j}-{k}" for i, j, k in ijk]
        return pd.DataFrame(xyz, columns=list("xyz")).assign(target=names)

    def to_native(self, values: np.ndarray) -> Any:
        mask = np.asarray(self.mask_img.dataobj).astype(bool)
        volume = np.full(mask.shape, np.nan, dtype=np.float32)
        volume[mask] = values
        return nib.Nifti1Image(volume, self.mask_img.affine)


@dataclass
class Surface:
    """Both hemispheres of fsaverage5."""

    n_vertices: int = 10242
    coordinate_frame: str | None = "fsaverage5"

    @property
    def n_targets(self) -> int:
        return 2 * self.n_vertices

    def coords(self) -> pd.DataFrame:
        from nilearn.surface import load_surf_mesh

        mesh = fsaverage5()
        sides = [
            load_surf_mesh(mesh[f"pial_{s}"]).coordinates for s in ("left", "right")
        ]
        table = pd.DataFrame(np.concatenate(sides), columns=list("xyz"))
        table["hemi"] = np.repeat(["L", "R"], self.n_vertices)
        table["target"] = [
            f"{h}{i % self.n_vertices}" for i, h in enumerate(table["hemi"])
        ]
        return table

    def to_native(self, values: np.ndarray) -> dict[str, Any]:
        halves = values.reshape(2, -1).astype(np.float32)
        return {
            side: nib.gifti.GiftiImage(darrays=[nib.gifti.GiftiDataArray(half)])
            for side, half in zip(("left", "right"), halves, strict=True)
        }


@dataclass
class Points:
    """Sensors or contacts, with or without time."""

    table: pd.DataFrame
    coordinate_frame: str | None

    @property
    def n_targets(self) -> int:
        return len(self.table)

    def coords(self) -> pd.DataFrame:
        return self.table

    def to_native(self, values: np.ndarray) -> Any:
        return self.table.assign(value=values)


def fsaverage5() -> Any:
    from nilearn.datasets import fetch_surf_fsaverage

    return fetch_surf_fsaverage("fsaverage5")  # ships with nilearn


def mni_mask(spacing_mm: float = 6.0) -> Any:
    from nilearn.datasets import load_mni152_brain_mask

    return load_mni152_brain_mask(resolution=round(spacing_mm))


def native_mask() -> Any:
    grid = np.indices((24, 28, 20)).astype(float)
    radius = sum(
        ((axis - size / 2) / (size / 2.4)) ** 2
        for axis, size in zip(grid, (24, 28, 20), strict=True)
    )
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = (-48, -70, -30)
    return nib.Nifti1Image((radius < 1).astype(np.uint8), affine)


def contacts(seed: int = 0, times: np.ndarray | None = None) -> pd.DataFrame:
    """Three shafts of eight contacts, 3.5 mm apart, in the temporal lobes."""
    shafts = {
        "LA": (-28, -4, -20, -1),
        "LH": (-30, -24, -14, -1),
        "RT": (36, -38, 2, 1),
    }
    rows = []
    for name, (x, y, z, side) in shafts.items():
        for i in range(8):
            shift = 2.0 * seed
            rows.append(
                (f"{name}{i + 1}", x + side * 3.5 * i, y + shift, z + shift / 2)
            )
    table = pd.DataFrame(rows, columns=["target", "x", "y", "z"])
    return table if times is None else over_time(table, times)


def sensors(times: np.ndarray | None = None, montage: str = "colin27_1020") -> Any:
    import mne

    positions = mne.channels.make_standard_montage(montage).get_positions()["ch_pos"]
    names = ["Fp1", "Fp2", "F3", "Fz", "F4", "T7", "C3", "Cz", "C4", "T8"]
    names += ["P7", "P3", "Pz", "P4", "P8", "O1", "O2"]
    table = pd.DataFrame({"target": names})
    table[list("xyz")] = 1000 * np.array([positions[name] for name in names])
    return table if times is None else over_time(table, times)


def over_time(table: pd.DataFrame, times: np.ndarray) -> pd.DataFrame:
    repeated = table.loc[table.index.repeat(len(times))].reset_index(drop=True)
    repeated["channel"] = repeated["target"]
    repeated["time"] = np.tile(times, len(table))
    repeated["target"] = [
        f"{name}@{time:.3f}"
        for name, time in zip(repeated["target"], repeated["time"], strict=True)
    ]
    return repeated


def results_of(
    space: Any,
    planted: dict[str, np.ndarray],
    *,
    seed: int = 0,
    tested: bool = True,
    n_folds: int = 4,
) -> dict[str, EncodingResult]:
    """Scores around planted ones; constant targets (nan) are planted as nan."""
    rng = np.random.default_rng(seed)
    joint = np.max([planted[name] for name in planted], axis=0)
    coords = space.coords()
    coordinates = {
        name: ("target", coords[name].to_numpy()) if name != "target" else coords[name]
        for name in coords
    }
    results = {}
    for name, truth in {**planted, "joint": joint}.items():
        r = np.clip(truth + 0.06 * rng.standard_normal(len(truth)), -1, 1)
        alpha = rng.choice(ALPHAS, size=(n_folds, len(truth)))
        scores = {
            "r": ("target", r),
            "r2": ("target", r * np.abs(r)),
            "r_fold": (("fold", "target"), np.tile(r, (n_folds, 1))),
            "r2_fold": (("fold", "target"), np.tile(r * np.abs(r), (n_folds, 1))),
            "alpha": (("fold", "target"), alpha),
        }
        if tested:
            p = np.clip(np.exp(-((np.maximum(r, 0) / 0.08) ** 2)), 1e-3, 1)
            scores["p"] = ("target", np.where(np.isnan(r), np.nan, p))
            scores["q"] = (
                "target",
                np.where(np.isnan(r), np.nan, np.minimum(2 * p, 1)),
            )
        dataset = xr.Dataset(scores, coords=coordinates)
        results[name] = EncodingResult(
            space=name, scores=dataset, targets=space, attrs={"alphas": ALPHAS}
        )
    return results


def bumps(space: Any, centres: dict[str, tuple[float, float, float]]) -> dict[str, Any]:
    """A planted site a feature space: r falls off from the centre over 18 mm."""
    xyz = space.coords()[["x", "y", "z"]].to_numpy(dtype=float)
    return {
        name: 0.6 * np.exp(-((xyz - centre) ** 2).sum(1) / (2 * 18.0**2))
        for name, centre in centres.items()
    }


CENTRES = {"vision": (-30.0, -80.0, 0.0), "language": (-55.0, -30.0, 5.0)}

FMRI_DESIGN = {
    "pipeline": "fMRIPrep",
    "feature_spaces": {
        "vision": {"file": "clip.tsv", "key": "stim_file", "n_features": 512,
                   "model": "CLIP ViT-B/16"},
        "language": {"file": "text.npz", "key": "onset", "n_features": 768},
    },
    "n_samples": 800,
    "runs": ["1", "2", "3", "4"],
    "cv": "leave one run out, 4 folds",
    "alphas": ALPHAS,
    "t_r_s": 1.5,
    "hrf": "spm",
    "delays_volumes": [1, 2, 3, 4],
    "high_pass_hz": 1 / 128,
    "confounds": ["motion24", "acompcor5"],
    "trim_volumes": [5, 5],
    "standardized": "z-score per run",
    "scoring": "r2",
    "n_permutations": 1000,
    "block": 10,
}  # fmt: skip

EPOCH_DESIGN = {
    "feature_spaces": {
        "vision": {"file": "vision.tsv", "key": "trial_type", "n_features": 2},
        "language": {"file": "words.tsv", "key": "trial_type", "n_features": 4},
    },
    "n_samples": 412,
    "runs": ["1", "2", "3"],
    "alphas": ALPHAS,
    "scoring": "correlation",
    "n_permutations": 200,
    "sfreq_hz": 500.0,
    "n_channels": 17,
    "tmin_s": -0.2, "tmax_s": 0.8, "baseline_s": [-0.2, 0.0],
    "window_ms": 40.0, "step_ms": 20.0,
    "reference": "average", "notch_hz": 50.0, "l_freq_hz": 0.1, "h_freq_hz": 40.0,
}  # fmt: skip

PROVENANCE = Provenance(
    versions={"python": "3.11.9", "neuromm": "0.1.0"},
    config={"task": ["film"], "alphas": ALPHAS},
    seed=0,
    inputs={"sub-01/func/sub-01_task-film_run-1_bold.nii.gz": "ab" * 32},
    wall_time=12.5,
)


def write_volume_unit(
    root: Path, subject: str = "01", *, spacing_mm: float = 6.0, seed: int = 0
) -> list[Path]:
    space = Volume(mni_mask(spacing_mm), "MNI152NLin2009cAsym")
    planted = bumps(space, CENTRES)
    for truth in planted.values():
        truth[:3] = np.nan  # constant voxels
    x = space.coords()["x"].to_numpy()
    y = space.coords()["y"].to_numpy()
    regions = np.where(
        y < -60, "Lateral occipital", np.where(y < 0, "Superior temporal", "")
    )
    side = np.where(x < 0, "L ", "R ")
    regions = [f"{s}{r}" if r else "" for s, r in zip(side, regions, strict=True)]
    return write_unit(
        root,
        {"subject": subject, "task": "film", "space": "MNI152NLin2009cAsym"},
        "func",
        results_of(space, planted, seed=seed),
        regions=regions,
        design=FMRI_DESIGN,
        warnings=["alpha lies at the largest value for 21 % of the voxels"],
        provenance=PROVENANCE,
        sources=[f"bids:raw:sub-{subject}/func/sub-{subject}_task-film_bold.nii.gz"],
    )


def write_surface_unit(root: Path, subject: str = "01", *, seed: int = 0) -> list[Path]:
    space = Surface()
    return write_unit(
        root,
        {"subject": subject, "task": "film", "space": "fsaverage5"},
        "func",
        results_of(space, bumps(space, CENTRES), seed=seed, tested=False),
        design={**FMRI_DESIGN, "n_permutations": 0},
        provenance=PROVENANCE,
        sources=["bids:fmriprep:sub-01/func/sub-01_hemi-L_bold.func.gii"],
    )


def write_native_unit(root: Path, subject: str = "01", *, seed: int = 0) -> list[Path]:
    space = Volume(native_mask(), None)
    return write_unit(
        root,
        {"subject": subject, "task": "film", "space": "T1w"},
        "func",
        results_of(space, bumps(space, {"vision": (-20, -60, 0),
                                        "language": (-30, -30, 5)}), seed=seed),
        design=FMRI_DESIGN,
        provenance=PROVENANCE,
        spatial_reference="orig",
    )  # fmt: skip


TIMES = np.round(np.arange(-0.2, 0.8001, 0.04), 3)


def write_eeg_unit(root: Path, subject: str = "01", *, seed: int = 0) -> list[Path]:
    space = Points(sensors(TIMES), "head")
    posterior = space.table["channel"].isin(["P7", "P8", "O1", "O2"]).to_numpy()
    time = space.table["time"].to_numpy()
    planted = {
        "vision": 0.35 * posterior * np.exp(-(((time - 0.17) / 0.06) ** 2)),
        "language": 0.25 * posterior * np.exp(-(((time - 0.4) / 0.1) ** 2)),
    }
    return write_unit(
        root,
        {"subject": subject, "task": "faces"},
        "eeg",
        results_of(space, planted, seed=seed),
        design=EPOCH_DESIGN,
        provenance=PROVENANCE,
        sources=[f"bids:raw:sub-{subject}/eeg/sub-{subject}_task-faces_eeg.vhdr"],
    )


def write_ieeg_unit(
    root: Path,
    subject: str = "01",
    *,
    frame: str | None = "MNI152NLin2009cAsym",
    seed: int = 0,
) -> list[Path]:
    space = Points(contacts(seed, TIMES), frame)
    table = space.table
    near = table["channel"].str.startswith("RT").to_numpy()
    time = table["time"].to_numpy()
    planted = {
        "vision": 0.5 * near * np.exp(-(((time - 0.25) / 0.1) ** 2)),
        "language": 0.4 * ~near * np.exp(-(((time - 0.45) / 0.12) ** 2)),
    }
    labels = {"LA": "L Amygdala", "LH": "L Hippocampus", "RT": "R Superior temporal"}
    return write_unit(
        root,
        {"subject": subject, "task": "faces"}
        | ({"space": frame} if frame and frame.startswith("MNI") else {}),
        "ieeg",
        results_of(space, planted, seed=seed),
        regions=[labels[name[:2]] for name in table["channel"]],
        design={**EPOCH_DESIGN, "reference": "bipolar", "l_freq_hz": None,
                "h_freq_hz": None, "high_gamma_hz": [70.0, 150.0]},
        provenance=PROVENANCE,
    )  # fmt: skip


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A raw dataset, as far as the derivatives look at it."""
    folder = tmp_path / "bids"
    folder.mkdir()
    (folder / "dataset_description.json").write_text(
        '{"Name": "Film", "BIDSVersion": "1.9.0", "License": "CC0"}'
    )
    return folder


@pytest.fixture
def output(tmp_path: Path, source: Path) -> Path:
    """A prepared, empty output folder."""
    folder = tmp_path / "out"
    prepare_output(folder, source, {"fmriprep": tmp_path / "fmriprep"})
    return folder


@pytest.fixture
def builders() -> SimpleNamespace:
    """Writers of units, target spaces and results, for tests that vary them."""
    return SimpleNamespace(
        **{name: value for name, value in globals().items() if name in _BUILDERS}
    )


_BUILDERS = {
    "Volume", "Surface", "Points", "mni_mask", "native_mask", "contacts", "sensors",
    "results_of", "bumps", "write_volume_unit", "write_surface_unit",
    "write_native_unit", "write_eeg_unit", "write_ieeg_unit", "TIMES", "CENTRES",
    "FMRI_DESIGN", "EPOCH_DESIGN",
}  # fmt: skip


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder of two subjects with every kind of unit; not to be changed."""
    root = tmp_path_factory.mktemp("study")
    (root / "bids").mkdir()
    prepare_output(root / "out", root / "bids", {"fmriprep": root / "fmriprep"})
    out = root / "out"
    for seed, subject in enumerate(("01", "02")):
        write_volume_unit(out, subject, spacing_mm=9, seed=seed)
        frame = "MNI152NLin2009cAsym" if subject == "01" else "ACPC"
        write_ieeg_unit(out, subject, frame=frame, seed=seed)
    write_native_unit(out, "01")
    write_eeg_unit(out, "01")
    write_surface_unit(out, "01")
    return out


@pytest.fixture(scope="session")
def reported(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study with reports, and with what a run leaves behind; not to be changed."""
    root = tmp_path_factory.mktemp("reported") / "out"
    shutil.copytree(study, root)
    write_subject_report(root, "01")
    write_group_report(root)
    (root / "logs" / "crash-sub-01.txt").write_text("a traceback")
    (root / ".neuromm" / "units").mkdir(parents=True)
    (root / ".neuromm" / "units" / "sub-01.json").write_text("{}")
    return root
