"""BOLD series with a planted signal, and the confounds that leak into them.

Per cent signal change of a voxel = signal + noise + drift + motion leak:

signal  features of the clips, times weights, convolved with the SPM HRF
noise   AR(1) in time, smooth in space, standard deviation 1 %
drift   two cosines slower than 1/128 Hz
leak    a mixture of the six motion parameters of the run
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["BoldVoxels", "bold_run", "confound_table", "hrf_response", "motion"]

Array = NDArray[np.floating]

_AR = 0.35
_SMOOTH_VOXELS = 0.6
_DRIFT_SD = 0.7  # % signal change
_LEAK_SD = 0.5
_HIGH_PASS_HZ = 1 / 128
_HEAD_RADIUS_MM = 50.0  # of framewise displacement (Power et al. 2012)
_HRF_STEP_S = 0.05


@dataclass(frozen=True)
class BoldVoxels:
    """The planted voxels of a subject.

    Attributes
    ----------
    mask : array of bool, shape (x, y, z)
    weights : array of shape (n_features, n_voxels)
        Zero for a voxel of kind ``"none"``; columns are scaled so that the convolved
        signal over all runs has the standard deviation that ``r_max`` asks for.
    """

    mask: NDArray[np.bool_]
    weights: Array


def hrf_response(onset: Array, duration: float, frame_times: Array) -> Array:
    """Response of each event at each volume.

    Parameters
    ----------
    onset : array of shape (n_events,)
        s.
    duration : float
        s.
    frame_times : array of shape (n_volumes,)
        s.

    Returns
    -------
    response : array of shape (n_volumes, n_events)
        SPM's HRF with a sum of 1, convolved with a box of ``duration``.
    """
    from nilearn.glm.first_level import spm_hrf

    hrf = spm_hrf(_HRF_STEP_S, oversampling=1, time_length=32.0)
    box = np.ones(round(duration / _HRF_STEP_S))
    course = np.convolve(hrf, box) / hrf.sum()
    times = np.arange(len(course)) * _HRF_STEP_S
    since = frame_times[:, None] - onset[None, :]
    return np.asarray(np.interp(since, times, course, left=0.0, right=0.0))


def motion(rng: np.random.Generator, n_volumes: int) -> pd.DataFrame:
    """Six motion parameters, a slow random walk with a few jerks.

    Returns
    -------
    motion : DataFrame of shape (n_volumes, 6)
        ``trans_x`` … in mm, ``rot_x`` … in rad.
    """
    steps = rng.standard_normal((n_volumes, 6)) * 0.02
    steps += (
        rng.standard_normal((n_volumes, 6)) * 0.2 * (rng.random((n_volumes, 1)) < 0.03)
    )
    steps[:, 3:] /= _HEAD_RADIUS_MM  # the same path on the surface of the head
    names = [f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"]
    return pd.DataFrame(steps.cumsum(axis=0), columns=names)


def bold_run(
    rng: np.random.Generator, voxels: BoldVoxels, design: Array, moved: pd.DataFrame
) -> NDArray[np.int16]:
    """One run.

    Parameters
    ----------
    rng : Generator
    voxels : BoldVoxels
    design : array of shape (n_volumes, n_features)
        Convolved features.
    moved : DataFrame of shape (n_volumes, 6)

    Returns
    -------
    volumes : array of int16, shape (x, y, z, n_volumes)
        About 10 000 inside the mask, 0 outside.
    """
    n_volumes, n_voxels = len(design), int(voxels.mask.sum())
    change = design @ voxels.weights
    change += _noise(rng, voxels.mask, n_volumes)
    change += _slow(n_volumes) @ rng.standard_normal((2, n_voxels)) * _DRIFT_SD
    standard = (moved - moved.mean()) / moved.std()
    mixing = rng.standard_normal((6, n_voxels)) / np.sqrt(6)
    change += standard.to_numpy() @ mixing * _LEAK_SD
    volumes = np.zeros((*voxels.mask.shape, n_volumes), dtype=np.int16)
    volumes[voxels.mask] = np.rint(_baseline(voxels.mask) * (1 + change.T / 100))
    return volumes


def confound_table(
    rng: np.random.Generator, moved: pd.DataFrame, frame_times: Array
) -> pd.DataFrame:
    """Confounds under the names of fMRIPrep.

    Parameters
    ----------
    rng : Generator
    moved : DataFrame of shape (n_volumes, 6)
    frame_times : array of shape (n_volumes,)

    Returns
    -------
    confounds : DataFrame
        Tissue signals and anatomical components hold the motion that leaks into the
        volumes; differences between volumes are nan in the first.
    """
    from nilearn.glm.first_level import make_first_level_design_matrix

    n_volumes = len(moved)
    standard = ((moved - moved.mean()) / moved.std()).to_numpy()
    columns: dict[str, Array] = {}
    for name in ("global_signal", "csf", "white_matter"):
        tissue = standard @ rng.standard_normal(6) + rng.standard_normal(n_volumes)
        columns[name] = 10_000 + 30 * tissue
    difference = moved.diff()
    absolute = difference.abs().to_numpy()
    absolute[:, 3:] *= _HEAD_RADIUS_MM
    columns["framewise_displacement"] = absolute.sum(axis=1)
    mixed = standard @ rng.standard_normal((6, 5))
    mixed += rng.standard_normal((n_volumes, 5))
    components = np.linalg.qr(mixed - mixed.mean(axis=0))[0]
    for i in range(5):
        columns[f"a_comp_cor_{i:02d}"] = components[:, i]
    cosines = make_first_level_design_matrix(
        frame_times, drift_model="cosine", high_pass=_HIGH_PASS_HZ
    ).filter(like="drift")
    for i in range(cosines.shape[1]):
        columns[f"cosine{i:02d}"] = cosines.iloc[:, i].to_numpy()
    for name in map(str, moved.columns):
        columns[name] = moved[name].to_numpy()
        columns[f"{name}_derivative1"] = difference[name].to_numpy()
        columns[f"{name}_power2"] = moved[name].to_numpy() ** 2
        columns[f"{name}_derivative1_power2"] = difference[name].to_numpy() ** 2
    return pd.DataFrame(columns)


def _noise(
    rng: np.random.Generator, mask: NDArray[np.bool_], n_volumes: int
) -> NDArray[np.float32]:
    """AR(1) noise of standard deviation 1, smooth in space, (n_volumes, n_voxels)."""
    from scipy.ndimage import gaussian_filter
    from scipy.signal import lfilter

    burn_in = 20
    white = rng.standard_normal((n_volumes + burn_in, *mask.shape), dtype=np.float32)
    smooth = gaussian_filter(white, (0, *[_SMOOTH_VOXELS] * 3), mode="wrap")
    series = smooth[:, mask] / smooth.std()
    course = lfilter([np.sqrt(1 - _AR**2)], [1, -_AR], series, axis=0)
    return np.asarray(course[burn_in:], dtype=np.float32)


def _slow(n_volumes: int) -> Array:
    """One and a half cycles and half a cycle a run, each of variance 1."""
    phase = np.linspace(0, np.pi, n_volumes)
    slow = np.cos(np.outer(phase, [1, 3]))
    return np.asarray(slow / slow.std(axis=0) / np.sqrt(2))


def _baseline(mask: NDArray[np.bool_]) -> Array:
    """Mean intensity of each voxel, brighter at the rim as under surface coils."""
    indices = np.argwhere(mask)
    distance = np.linalg.norm(indices - indices.mean(axis=0), axis=1)
    return np.asarray(8_000 + 4_000 * distance / distance.max())[:, None]
