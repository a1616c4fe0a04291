"""Features of one recording at its samples: a row an event, or a row a volume."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from neuromm.core import DataError, UsageError, feature_matrix
from neuromm.features.table import FeatureEvents, FeatureTable

__all__ = ["event_features", "volume_features"]

Model = Literal[
    "spm", "glover", "spm + derivative", "glover + derivative", "fir", "none"
]

# A sampled table: spacings within 1 % of t_r; a few gaps are an error in it, not a sign
# that its rows are events.
_SPACING_TOLERANCE = 0.01
_REGULAR_SHARE = 0.9


def event_features(
    table: FeatureTable,
    events: pd.DataFrame | None,
    *,
    run: str | None = None,
    session: str | None = None,
    subject: str | None = None,
    tolerance: float = 1e-3,
) -> xr.DataArray:
    """Features of each event: the samples of EEG, MEG and iEEG.

    Parameters
    ----------
    table : FeatureTable
    events : DataFrame or None
        Of one recording; see `FeatureTable.rows_for`.
    run, session, subject : str or None
        Labels of the recording; ``run`` and ``subject`` label the samples.
    tolerance : float
        How far an onset may lie from that of its row, in s.

    Returns
    -------
    features : DataArray, dims (sample, feature)

    Raises
    ------
    DataError
        If the table lacks the key of an event.
    """
    found = table.rows_for(
        events, run=run, session=session, subject=subject, tolerance=tolerance
    )
    return feature_matrix(
        found.values,
        onset=found.onset,
        run=run or "1",
        subject=subject or "",
        stimulus=found.stimulus.tolist(),
        names=table.columns,
        space=table.name,
        attrs=table.attrs,
    )


def volume_features(
    table: FeatureTable,
    events: pd.DataFrame | None,
    frame_times: ArrayLike,
    *,
    t_r: float | None = None,
    hrf: Model = "spm",
    delays: Sequence[int] = (1, 2, 3, 4),
    run: str | None = None,
    session: str | None = None,
    subject: str | None = None,
    slice_time_ref: float = 0.5,
    tolerance: float = 1e-3,
) -> xr.DataArray:
    """Features at each volume, by a haemodynamic model: the samples of fMRI.

    A table that is keyed by onset and evenly spaced at the repetition time is taken as
    sampled: its rows are the volumes, whatever the events say.

    Parameters
    ----------
    table : FeatureTable
    events : DataFrame or None
        Of one run; see `FeatureTable.rows_for`. Not used for a sampled table.
    frame_times : array of shape (n_volumes,)
        Times of all volumes of the run in s, before any trimming.
    t_r : float, optional
        Repetition time in s; taken from ``frame_times`` if not given.
    hrf : {"spm", "glover", "spm + derivative", "glover + derivative", "fir", "none"}
        "fir" puts delayed copies of the features side by side; "none" gives the
        features that each volume sees, without a model.
    delays : sequence of int
        In volumes; used with "fir" alone.
    run, session, subject : str or None
        Labels of the recording; ``run`` and ``subject`` label the samples.
    slice_time_ref : float
        The one with which ``frame_times`` were made.
    tolerance : float
        How far an onset may lie from that of its row, in s.

    Returns
    -------
    features : DataArray, dims (sample, feature)
        A sample a volume, ``onset`` its frame time. Derivatives are named
        ``NAME_derivative`` and delayed copies ``NAME@DELAY``.

    Raises
    ------
    DataError
        If the table lacks the key of an event, an event begins after the last volume,
        or a sampled table has not exactly one row a volume.
    UsageError
        For an unknown model.
    """
    from neuromm.prepare.delay import delay

    if hrf not in get_args(Model):
        known = ", ".join(f'"{name}"' for name in get_args(Model))
        raise UsageError(f"hrf must be one of {known}, got {hrf!r}")
    times = np.asarray(frame_times, dtype=float)
    if len(times) < 2:
        raise UsageError(f"expected two volumes or more, got {len(times)}")
    spacing = float(np.min(np.diff(times))) if t_r is None else t_r
    chosen = table.select(run=run, session=session, subject=subject)
    if _is_sampled(chosen, spacing):
        signal = _sampled_volumes(chosen, len(times), spacing, run)
        values = _model_of_samples(signal, spacing, hrf, slice_time_ref)
    else:
        found = table.rows_for(
            events, run=run, session=session, subject=subject, tolerance=tolerance
        )
        path = table.source if events is None else _source(events)
        values = _model_of_events(found, path, times, spacing, hrf, slice_time_ref)
    names = list(table.columns)
    if hrf == "fir":
        values = delay(values, delays)
        names = [f"{name}@{shift}" for shift in delays for name in table.columns]
    elif hrf.endswith("derivative"):
        names += [f"{name}_derivative" for name in table.columns]
    return feature_matrix(
        values,
        onset=times,
        run=run or "1",
        subject=subject or "",
        names=names,
        space=table.name,
        attrs=table.attrs,
    )


def _is_sampled(table: FeatureTable, t_r: float) -> bool:
    if table.key != "onset" or len(table.keys) < 2:
        return False
    steps = np.diff(np.sort(table.keys["onset"].to_numpy(dtype=float)))
    if np.mean(_near(steps, t_r)) < _REGULAR_SHARE:
        return False
    # Rows that last as long as a volume are samples; shorter ones are events that
    # happen to come once a volume.
    return "duration" not in table.keys or bool(
        np.all(_near(table.keys["duration"].to_numpy(dtype=float), t_r))
    )


def _sampled_volumes(
    table: FeatureTable, n_volumes: int, t_r: float, run: str | None
) -> NDArray[np.floating]:
    order = np.argsort(table.keys["onset"].to_numpy(), kind="stable")
    onset = table.keys["onset"].to_numpy(dtype=float)[order]
    n_rows, where = len(onset), f" for run {run}" if run else ""
    gap = np.flatnonzero(~_near(np.diff(onset), t_r))
    if n_rows != n_volumes:
        difference = abs(n_rows - n_volumes)
        amount = "one row" if difference == 1 else f"{difference} rows"
        few = "few" if n_rows < n_volumes else "many"
        place = (
            f"a row is missing after {onset[gap[0]]:g} s"
            if len(gap) and n_rows < n_volumes
            else "were dummy volumes dropped from one and not from the other?"
        )
        raise DataError(
            f"has {n_rows} rows{where}, the scan has {n_volumes} volumes; {amount} too "
            f"{few}: a table with one row every {t_r:g} s needs a row for each volume "
            f"({place})",
            table.source,
        )
    if len(gap):
        raise DataError(
            f"has a row every {t_r:g} s{where}, but not after {onset[gap[0]]:g} s "
            f"(next: {onset[gap[0] + 1]:g} s): sampled features need one row a volume",
            table.source,
        )
    if not -_SPACING_TOLERANCE * t_r <= onset[0] <= (1 + _SPACING_TOLERANCE) * t_r:
        raise DataError(
            f"the first row{where} is at {onset[0]:g} s, expected within the first "
            f"volume (0 to {t_r:g} s): onsets count from the start of the run",
            table.source,
        )
    return table.values[order]


def _model_of_samples(
    signal: NDArray[np.floating], t_r: float, hrf: Model, slice_time_ref: float
) -> NDArray[np.floating]:
    from neuromm.prepare.hemodynamics import convolve_samples

    if hrf == "fir" or hrf == "none":
        return signal
    return convolve_samples(signal, t_r, hrf=hrf, slice_time_ref=slice_time_ref)


def _model_of_events(
    found: FeatureEvents,
    path: str | Path,
    times: NDArray[np.float64],
    t_r: float,
    hrf: Model,
    slice_time_ref: float,
) -> NDArray[np.floating]:
    from neuromm.prepare.hemodynamics import convolve_events, volume_means

    end = times[-1] + (1 - slice_time_ref) * t_r
    beyond = found.onset[found.onset > end + 1e-6]
    if len(beyond):
        raise DataError(
            f"{len(beyond)} events begin after the scan, which ends at {end:g} s (the "
            f"first at {beyond.min():g} s): do the events belong to this run?",
            path,
        )
    if hrf == "fir" or hrf == "none":
        return volume_means(
            found.onset,
            found.duration,
            found.values,
            times,
            slice_time_ref=slice_time_ref,
        )
    return convolve_events(found.onset, found.duration, found.values, times, hrf=hrf)


def _source(events: pd.DataFrame) -> str:
    return str(events.attrs.get("source", "the events"))


def _near(steps: NDArray[np.float64], t_r: float) -> NDArray[np.bool_]:
    near: NDArray[np.bool_] = np.abs(steps - t_r) <= _SPACING_TOLERANCE * t_r
    return near
