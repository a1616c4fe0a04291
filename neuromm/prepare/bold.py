"""From a BOLD series to responses: cleaned, trimmed and z-scored within a run.

Slow drifts (cosines below the cut-off) and confounds are removed by one least-squares
projection. Removing them one after the other would put drift back (Lindquist et al.).

References
----------
Lindquist et al. (2019) Modular preprocessing pipelines can reintroduce artifacts into
fMRI data. Human Brain Mapping 40:2358-2376.
"""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from neuromm.core import DataError, UsageError, response_matrix
from neuromm.prepare.hemodynamics import frame_times

__all__ = ["bold_responses", "cosine_drifts", "remove_confounds"]

# A target at a time would be slow, all at once would hold the run in float64.
_TARGETS_AT_ONCE = 8192
# Relative to a series' own size: what rounding leaves of one that is fully explained.
_NOTHING_LEFT = 1e-10


class _SeriesSpace(Protocol):
    n_targets: int

    def coords(self) -> pd.DataFrame: ...

    def extract(self, data: Any) -> NDArray[np.float32]: ...


def bold_responses(
    sample_data: Any,
    space: _SeriesSpace,
    *,
    t_r: float,
    run: str,
    subject: str,
    high_pass: float | None = 1 / 128,
    confounds: pd.DataFrame | ArrayLike | None = None,
    trim: tuple[int, int] = (0, 0),
    standardize: bool = True,
    slice_time_ref: float = 0.5,
    path: str | Path | None = None,
) -> xr.DataArray:
    """Responses of one run.

    Parameters
    ----------
    sample_data : nibabel image, or mapping of "left" and "right" to GIFTI images
    space : VoxelSpace or SurfaceSpace
    t_r : float
        Repetition time in s.
    run, subject : str
        Labels of the samples.
    high_pass : float or None
        Cut-off in Hz; None keeps slow drifts (the mean always goes).
    confounds : DataFrame or array of shape (n_volumes, n_confounds), optional
        Regressed out together with the drifts.
    trim : (int, int)
        Volumes to leave out at the start and the end, after the cleaning.
    standardize : bool
        Scale each target to mean 0 and variance 1 over the kept volumes. Otherwise the
        residuals keep the unit of the scanner.
    slice_time_ref : float
        See `frame_times`.
    path : path-like, optional
        File to name in errors.

    Returns
    -------
    responses : DataArray, dims (sample, target), float32
        A sample a volume; ``onset`` is its frame time. A target with any missing value
        is nan throughout; one that is constant, or explained by the confounds, is 0.

    Raises
    ------
    DataError
        If a kept volume holds no finite value at all; if the confounds have another
        number of rows or missing values, or leave no degree of freedom; if the grids
        of image and mask differ.
    UsageError
        If fewer than two volumes are left after trimming.
    """
    path = _file_name(sample_data) if path is None else path
    series = space.extract(sample_data)
    n_volumes = len(series)
    kept = _kept_volumes(n_volumes, trim)
    nuisance = _confound_matrix(confounds, n_volumes, path)
    missing = ~np.isfinite(series)
    used = _used_volumes(missing, kept, path)
    drifts = cosine_drifts(n_volumes, t_r, high_pass)
    basis = _orthonormal(drifts[used], nuisance[used], path)
    whole: NDArray[np.bool_] = np.all(np.isfinite(series[used]), axis=0)
    cleaned = np.full((n_volumes, space.n_targets), np.nan, dtype=np.float32)
    for lo in range(0, space.n_targets, _TARGETS_AT_ONCE):
        block = np.flatnonzero(whole[lo : lo + _TARGETS_AT_ONCE]) + lo
        residual = _residual(series[np.ix_(used, block)].astype(float), basis)
        rows = residual[np.isin(np.flatnonzero(used), np.flatnonzero(kept))]
        cleaned[np.ix_(kept, block)] = _z_scored(rows) if standardize else rows
    return response_matrix(
        cleaned[kept],
        onset=frame_times(n_volumes, t_r, slice_time_ref)[kept],
        run=run,
        subject=subject,
        targets=space.coords(),
        attrs={"units": "z-score" if standardize else "scanner units"},
    )


def cosine_drifts(
    n_volumes: int, t_r: float, high_pass: float | None
) -> NDArray[np.float64]:
    """A constant and the cosines of the discrete cosine transform below a cut-off.

    Parameters
    ----------
    n_volumes : int
    t_r : float
        Repetition time in s.
    high_pass : float or None
        Cut-off in Hz. Cosine k has the frequency ``k / (2 n_volumes t_r)``.

    Returns
    -------
    drifts : array of shape (n_volumes, 1 + n_cosines)
        The constant first; orthogonal columns.
    """
    order = 0 if high_pass is None else int(np.floor(2 * n_volumes * high_pass * t_r))
    order = min(order, n_volumes - 1)
    middle = np.arange(n_volumes) + 0.5
    phase = np.outer(middle, np.arange(order + 1)) * (np.pi / n_volumes)
    drifts: NDArray[np.float64] = np.cos(phase)
    return drifts


def remove_confounds(series: ArrayLike, confounds: ArrayLike) -> NDArray[np.float64]:
    """Residual of a least-squares fit.

    Parameters
    ----------
    series : array of shape (n_volumes, n_targets)
        Finite.
    confounds : array of shape (n_volumes, n_confounds)
        May be linearly dependent. Holds the constant if the mean is to go too.

    Returns
    -------
    residual : array of shape (n_volumes, n_targets)
        Orthogonal to every confound; exactly 0 where nothing but rounding is left.
    """
    matrix = np.asarray(confounds, dtype=float)
    empty = np.empty((len(matrix), 0))
    return _residual(np.asarray(series, dtype=float), _orthonormal(empty, matrix, None))


def _residual(
    series: NDArray[np.float64], basis: NDArray[np.float64]
) -> NDArray[np.float64]:
    residual: NDArray[np.float64] = series - basis @ (basis.T @ series)
    size = np.linalg.norm(series, axis=0)
    residual[:, np.linalg.norm(residual, axis=0) <= _NOTHING_LEFT * size] = 0
    return residual


def _orthonormal(
    drifts: NDArray[np.float64],
    confounds: NDArray[np.float64],
    path: str | Path | None,
) -> NDArray[np.float64]:
    """Orthonormal basis of drifts and confounds together."""
    basis = _range(drifts)
    # Confounds are freed from the drifts before they are scaled: a motion trace may be
    # 1e-3 mm beside a global signal of 1e4, and both must count.
    freed = confounds - basis @ (basis.T @ confounds)
    before = np.linalg.norm(confounds, axis=0)
    after = np.linalg.norm(freed, axis=0)
    freed = freed[:, after > _NOTHING_LEFT * before]
    basis = np.hstack([basis, _range(freed / np.linalg.norm(freed, axis=0))])
    if basis.shape[1] >= len(drifts):
        raise DataError(
            f"{drifts.shape[1]} drifts and {confounds.shape[1]} confounds explain all "
            f"of the {len(drifts)} volumes. Take fewer confounds, or a lower high-pass "
            "cut-off.",
            path,
        )
    return basis


def _range(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    if columns.shape[1] == 0:
        return columns
    left, sizes, _ = np.linalg.svd(columns, full_matrices=False)
    independent: NDArray[np.float64] = left[:, sizes > _NOTHING_LEFT * sizes[0]]
    return independent


def _z_scored(series: NDArray[np.float64]) -> NDArray[np.float64]:
    centred = series - series.mean(axis=0)
    spread = centred.std(axis=0)
    flat = spread <= 0
    scaled: NDArray[np.float64] = centred / np.where(flat, 1, spread)
    scaled[:, flat] = 0
    return scaled


def _kept_volumes(n_volumes: int, trim: tuple[int, int]) -> NDArray[np.bool_]:
    first, last = trim
    if first < 0 or last < 0:
        raise UsageError(f"trim must be two counts of volumes, got {trim}")
    if n_volumes - first - last < 2:
        raise UsageError(
            f"trim={trim} leaves fewer than two of {n_volumes} volumes; trim less"
        )
    position = np.arange(n_volumes)
    return (position >= first) & (position < n_volumes - last)


def _used_volumes(
    missing: NDArray[np.bool_],
    kept: NDArray[np.bool_],
    path: str | Path | None,
) -> NDArray[np.bool_]:
    """Volumes to clean: all but empty ones that are trimmed away anyhow."""
    somewhere = np.flatnonzero(~missing.all(axis=0))
    if not len(somewhere):
        raise DataError(
            "no target has a finite value in any volume: does the mask lie inside the "
            "field of view?",
            path,
        )
    empty: NDArray[np.bool_] = np.all(missing[:, somewhere], axis=1)
    fatal = np.flatnonzero(empty & kept)
    if len(fatal):
        listed = ", ".join(map(str, fatal[:10])) + (" …" if len(fatal) > 10 else "")
        raise DataError(
            f"{len(fatal)} of {len(empty)} volumes hold no finite value in the mask: "
            f"volume {listed} (counted from 0). Repair the series, or trim the volumes "
            "if they lie at an end of the run (--trim).",
            path,
        )
    return ~empty


def _confound_matrix(
    confounds: pd.DataFrame | ArrayLike | None,
    n_volumes: int,
    path: str | Path | None,
) -> NDArray[np.float64]:
    if confounds is None:
        return np.empty((n_volumes, 0))
    matrix = np.asarray(confounds, dtype=float)
    if matrix.ndim != 2 or len(matrix) != n_volumes:
        raise DataError(
            f"the confounds have {len(matrix)} rows, the scan has {n_volumes} volumes: "
            "do they belong to this run, with the same dummy volumes?",
            path,
        )
    bad = np.flatnonzero(~np.isfinite(matrix).all(axis=0))
    if len(bad):
        names = (
            list(confounds.columns[bad])
            if isinstance(confounds, pd.DataFrame)
            else bad.tolist()
        )
        raise DataError(
            f"the confounds {', '.join(map(str, names))} have missing values: fill "
            "them, or leave these columns out",
            path,
        )
    return matrix


def _file_name(data: Any) -> str | None:
    image = data["left"] if isinstance(data, dict) else data
    name: str | None = image.get_filename()
    return name
