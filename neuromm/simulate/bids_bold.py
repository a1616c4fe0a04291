"""A subject's BOLD: raw runs, and preprocessed ones under the names of fMRIPrep."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuromm.core.files import atomic_path, write_json
from neuromm.simulate.bids_files import TASK, write_table
from neuromm.simulate.bold import (
    BoldVoxels,
    bold_run,
    confound_table,
    hrf_response,
    motion,
)
from neuromm.simulate.film import Film, shown_clips
from neuromm.simulate.planted_brain import (
    FRAME,
    brain_mask,
    planted_kind,
    planted_regions,
)
from neuromm.simulate.tuning import planted_weights

__all__ = ["BOLD_SIDECAR", "EVENTS_PER_BOLD_RUN", "write_bold"]

EVENTS_PER_BOLD_RUN = 74
_N_VOLUMES = 134
_TR_S = 2.0
_CLIP_S = 2.0
_SPACING_MM = 8
_R_MAX = (0.45, 0.70)  # at the rim and at the centre of a region

# All slices at once in the middle of the TR: that is when the simulation samples.
BOLD_SIDECAR: dict[str, Any] = {
    "TaskName": TASK,
    "RepetitionTime": _TR_S,
    "TaskDescription": "Simulated: watching the clips of a film.",
    "Instructions": "Watch the film.",
    "Manufacturer": "simulated",
    "EchoTime": 0.03,
    "FlipAngle": 90,
}


def write_bold(
    root: Path,
    subject: str,
    film: Film,
    tuning: NDArray[np.floating],
    shift: NDArray[np.floating],
    n_runs: int,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Write the runs of a subject.

    Parameters
    ----------
    root : Path
    subject : str
    film : Film
    tuning : array of shape (n_regions + 1, n_drivers, n_features)
    shift : array of shape (n_regions, 3)
        Position of the subject's regions against the common ones, in mm.
    n_runs : int
    rng : Generator

    Returns
    -------
    truth : DataFrame
        A row a voxel of the mask, see `BidsTruth`.
    """
    mask_img = brain_mask(_SPACING_MM)
    mask = np.asarray(mask_img.dataobj) > 0
    times = (np.arange(_N_VOLUMES) + 0.5) * _TR_S
    values = film.driving
    runs = []
    for number in range(n_runs):
        events = _events(rng, film, number, n_runs)
        design = hrf_response(events["onset"].to_numpy(), _CLIP_S, times)
        runs.append((events, design @ values[events.pop("clip")]))
    voxels, truth = _voxels(rng, mask, mask_img.affine, tuning, shift, runs)
    truth.insert(0, "subject", subject)
    for number, (events, design) in enumerate(runs):
        moved = motion(rng, _N_VOLUMES)
        volumes = bold_run(rng, voxels, design, moved)
        confounds = confound_table(rng, moved, times)
        name = f"sub-{subject}_task-{TASK}_run-{number + 1}"
        _write_raw(root / f"sub-{subject}" / "func", name, volumes, mask_img, events)
        folder = root / "derivatives" / "fmriprep" / f"sub-{subject}" / "func"
        _write_preprocessed(folder, name, volumes, mask_img, confounds)
    return truth


def _events(
    rng: np.random.Generator, film: Film, run: int, n_runs: int
) -> pd.DataFrame:
    clips = shown_clips(rng, run, EVENTS_PER_BOLD_RUN, n_runs, len(film.clips))
    gaps = rng.uniform(3.0, 4.0, EVENTS_PER_BOLD_RUN)
    return pd.DataFrame(
        {
            "onset": np.round(2.0 + gaps.cumsum() - gaps[0], 3),
            "duration": _CLIP_S,
            "trial_type": "clip",
            "stim_file": [film.clips[i] for i in clips],
            "clip": clips,
        }
    )


def _voxels(
    rng: np.random.Generator,
    mask: NDArray[np.bool_],
    affine: NDArray[np.floating],
    tuning: NDArray[np.floating],
    shift: NDArray[np.floating],
    runs: list[tuple[pd.DataFrame, NDArray[np.floating]]],
) -> tuple[BoldVoxels, pd.DataFrame]:
    indices = np.argwhere(mask)
    centres = indices @ affine[:3, :3].T + affine[:3, 3]
    regions = planted_regions(interactive=tuning.shape[1] > 2)
    kinds, region, depth = planted_kind(centres, shift, regions)
    weights = planted_weights(rng, tuning, kinds, region)
    driven = kinds != "none"
    r_max = np.where(driven, _R_MAX[0] + (_R_MAX[1] - _R_MAX[0]) * depth, 0.0)
    # The noise has unit variance, so r_max asks for a signal of this deviation.
    wanted = r_max / np.sqrt(1 - r_max**2)
    design = np.vstack([part - part.mean(axis=0) for _, part in runs])
    present = (design @ weights[:, driven]).std(axis=0)
    weights[:, driven] *= wanted[driven] / present
    truth = pd.DataFrame(centres, columns=["x", "y", "z"])
    truth.insert(0, "datatype", "func")
    truth.insert(1, "target", ["-".join(map(str, i)) for i in indices.tolist()])
    truth["kind"], truth["r_max"] = kinds, r_max
    return BoldVoxels(mask=mask, weights=weights), truth


def _write_raw(
    folder: Path,
    name: str,
    volumes: NDArray[np.int16],
    mask_img: Any,
    events: pd.DataFrame,
) -> None:
    # The scanner's frame: tilted and moved against that of the template.
    tilt = np.deg2rad(8)
    to_scanner = np.eye(4)
    to_scanner[1:3, 1:3] = [
        [np.cos(tilt), -np.sin(tilt)],
        [np.sin(tilt), np.cos(tilt)],
    ]
    to_scanner[:3, 3] = [2, -14, 9]
    path = folder / f"{name}_bold.nii.gz"
    _write_series(path, volumes, to_scanner @ mask_img.affine, "scanner")
    write_json(
        folder / f"{name}_bold.json",
        {"SliceTiming": [_TR_S / 2] * volumes.shape[2]},
    )
    write_table(folder / f"{name}_events.tsv", events, decimals=3)


def _write_preprocessed(
    folder: Path,
    name: str,
    volumes: NDArray[np.int16],
    mask_img: Any,
    confounds: pd.DataFrame,
) -> None:
    resolution = {"Resolution": f"{_SPACING_MM} mm isotropic"}
    prefix = f"{name}_space-{FRAME}_res-{_SPACING_MM}"
    path = folder / f"{prefix}_desc-preproc_bold.nii.gz"
    _write_series(path, volumes, mask_img.affine, "mni")
    write_json(
        folder / f"{prefix}_desc-preproc_bold.json",
        {
            "Description": "Simulated preprocessed BOLD series.",
            "TaskName": TASK,
            "RepetitionTime": _TR_S,
            "StartTime": _TR_S / 2,
            "SliceTimingCorrected": True,
            "SkullStripped": True,
            **resolution,
        },
    )
    with atomic_path(folder / f"{prefix}_desc-brain_mask.nii.gz") as temporary:
        mask_img.to_filename(temporary)
    write_json(
        folder / f"{prefix}_desc-brain_mask.json",
        {"Description": "Brain mask.", "Type": "Brain", **resolution},
    )
    write_table(folder / f"{name}_desc-confounds_timeseries.tsv", confounds, 8)
    write_json(
        folder / f"{name}_desc-confounds_timeseries.json",
        {"Description": "Simulated confounds under the names of fMRIPrep."},
    )


def _write_series(
    path: Path, volumes: NDArray[np.int16], affine: NDArray[np.floating], code: str
) -> None:
    import nibabel

    image = nibabel.Nifti1Image(volumes, affine)
    image.header.set_zooms((*image.header.get_zooms()[:3], _TR_S))
    image.header.set_xyzt_units("mm", "sec")
    image.set_sform(affine, code)
    image.set_qform(affine, code)
    with atomic_path(path) as temporary:
        image.to_filename(temporary)
