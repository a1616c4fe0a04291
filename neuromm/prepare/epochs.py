"""Responses to events: epochs on the sample grid, and their time bins as targets."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from neuromm.core import DataError, TargetSpace, UsageError, response_matrix
from neuromm.prepare.data_channels import data_channels
from neuromm.prepare.gaps import bad_spans, recording_segments
from neuromm.prepare.time_bins import time_bins

__all__ = ["epoch_responses", "event_epochs", "event_responses"]

_logger = logging.getLogger(__name__)

# Columns of events.tsv that name the stimulus, the more telling first.
_STIMULUS_COLUMNS = ("stim_file", "trial_type")

_UNITS = {"mag": "T", "grad": "T/m"}  # every other data channel is in V

# Values of the epochs in memory at once: 64 MB of floats, and as much again three times
# while they are averaged into bins.
_BLOCK_VALUES = 2**23


class _ChannelSpace(TargetSpace, Protocol):
    """`SensorSpace` or `ContactSpace`."""

    channels: tuple[str, ...]
    times: NDArray[np.float64] | None

    def at_times(self, times: NDArray[np.float64]) -> "_ChannelSpace": ...


def event_epochs(
    raw: Any,
    events: pd.DataFrame,
    *,
    tmin: float,
    tmax: float,
    baseline: tuple[float | None, float | None] | None = None,
    reject_bad: bool = True,
) -> tuple[Any, pd.DataFrame]:
    """Cut a recording into one epoch an event.

    Parameters
    ----------
    raw : mne.io.BaseRaw
        It is not changed.
    events : DataFrame
        A row an event; ``onset`` in s from the first sample of ``raw``, whatever
        ``raw.first_samp`` is.
    tmin, tmax : float
        First and last time of an epoch in s from the event, both included, rounded to
        samples.
    baseline : (float or None, float or None), optional
        Span in s whose mean is subtracted from each epoch and channel; None stands for
        that end of the epoch.
    reject_bad : bool
        Drop the events whose epoch touches an annotation that begins with ``BAD``.

    Returns
    -------
    epochs : mne.EpochsArray
        The good data channels in memory, projectors applied; in the order of the
        events, two at the same sample both kept. ``metadata`` holds their rows.
    kept : DataFrame
        The rows of ``events`` that have an epoch, with their index.

    Raises
    ------
    DataError
        If an onset is missing or lies after the end of the recording, or no event is
        left.
    UsageError
        If the epoch or the baseline is empty, or the recording has no good data
        channel.

    Notes
    -----
    Dropped and counted in the log: events whose epoch leaves the recording, crosses
    an interruption (`neuromm.prepare.gaps`), or touches a bad span.
    """
    _check_epoch(tmin, tmax, baseline)
    samples, kept = _kept_events(raw, events, tmin, tmax, reject_bad)
    return _cut(raw, samples, kept, tmin, tmax, baseline), kept


def event_responses(
    raw: Any,
    events: pd.DataFrame,
    *,
    tmin: float,
    tmax: float,
    space: _ChannelSpace,
    window_ms: float | None,
    step_ms: float | None = None,
    baseline: tuple[float | None, float | None] | None = None,
    reject_bad: bool = True,
    reject: Mapping[str, float] | None = None,
    run: str = "1",
    subject: str = "",
    stimulus: str | None = None,
    standardize: bool = False,
    units: str | None = None,
) -> xr.DataArray:
    """Time-binned responses straight from a recording, in bounded memory.

    The same as `event_epochs` followed by `epoch_responses`, a block of events at a
    time: 5000 epochs of 4 s from 170 contacts at 2048 Hz would take 55 GB at once.
    Parameters, result and errors are those of the two, but for ``reject``: mapping of
    channel type to the largest peak-to-peak amplitude (V, T, T/m) that an epoch may
    have, as in `mne.Epochs`; other epochs are dropped, counted and logged.
    """
    _check_epoch(tmin, tmax, baseline)
    samples, kept = _kept_events(raw, events, tmin, tmax, reject_bad)
    length = len(_grid(raw, tmin, tmax)) * len(_good_data_channels(raw))
    block = max(1, _BLOCK_VALUES // length)
    parts = []
    for first in range(0, len(kept), block):
        rows = slice(first, first + block)
        epochs = _cut(raw, samples[rows], kept.iloc[rows], tmin, tmax, baseline)
        quiet = _within_amplitude(epochs, reject or {})
        if not quiet.any():
            continue
        part = epoch_responses(
            epochs[quiet],
            kept.iloc[rows][quiet],
            space=space,
            window_ms=window_ms,
            step_ms=step_ms,
            run=run,
            subject=subject,
            stimulus=stimulus,
            units=units,
        )
        parts.append(part)
    n_quiet = sum(part.sizes["sample"] for part in parts)
    if n_quiet < len(kept):
        counts = f"{len(kept) - n_quiet} of {len(kept)} epochs are larger than {reject}"
        if not parts:
            raise DataError(
                f"{counts} (peak to peak, in V, T or T/m): is the limit in these units?"
            )
        _logger.warning("%s, and were dropped", counts)
    responses = parts[0] if len(parts) == 1 else xr.concat(parts, dim="sample")
    if not standardize:
        return responses
    scores = responses.copy(data=_z_scores(responses.values))
    return scores.assign_attrs(units="1")


def epoch_responses(
    epochs: Any,
    events: pd.DataFrame,
    *,
    space: _ChannelSpace,
    window_ms: float | None,
    step_ms: float | None = None,
    run: str = "1",
    subject: str = "",
    stimulus: str | None = None,
    standardize: bool = False,
    units: str | None = None,
) -> xr.DataArray:
    """One row an event, one column a channel and time bin.

    Parameters
    ----------
    epochs : mne.BaseEpochs
    events : DataFrame
        A row an epoch, in their order, such as the kept events of `event_epochs`.
    space : SensorSpace or ContactSpace
        Of the channels of ``epochs``, in their order; with the times of the bins, or
        without times, which are then taken from the bins.
    window_ms, step_ms : float or None
        Length and step of the time bins, see `time_bins`; ``window_ms`` None takes
        single samples, of which ``step_ms`` then keeps every so many.
    run, subject : str
        Labels of the samples.
    stimulus : str, optional
        Column of ``events`` that names the stimulus; ``stim_file`` or else
        ``trial_type``, where present, if not given.
    standardize : bool
        Bring each target to mean 0 and standard deviation 1 over the events given
        (one run as a rule); a constant target becomes 0.
    units : str, optional
        Unit of the values, such as ``"log V"`` after `high_gamma`; that of the channel
        types if not given. Standardised values have the unit ``"1"``.

    Returns
    -------
    responses : DataArray, dims (sample, target)
        Targets channel by channel, times within. Coordinates on ``sample`` as in
        `neuromm.core.response_matrix`, with ``onset`` in s from the start of the run;
        on ``target`` those of ``space``, with ``channel`` and ``time`` (s from the
        event). ``attrs["units"]`` is the unit.

    Raises
    ------
    UsageError
        If ``space`` is not that of the channels and bins, or there is no such column.
    ValueError
        If events and epochs differ in number.
    """
    if len(events) != len(epochs):
        raise ValueError(
            f"epochs and events must pair, got {len(epochs)} epochs and {len(events)} "
            "events: pass the kept events that event_epochs returned"
        )
    labels = _stimuli(events, stimulus)
    binned, centres = time_bins(
        epochs.get_data(copy=False), epochs.times, window_ms, step_ms
    )
    timed = _timed_space(space, epochs.ch_names, centres)
    values = binned.reshape(len(events), -1)
    if units is None:
        types = epochs.get_channel_types()
        units = ", ".join(sorted({_UNITS.get(kind, "V") for kind in types}))
    return response_matrix(
        _z_scores(values) if standardize else values,
        onset=events["onset"].to_numpy(dtype=float),
        run=run,
        subject=subject,
        stimulus=labels,
        targets=timed.coords(),
        attrs={"units": "1" if standardize else units},
    )


def _within_amplitude(epochs: Any, reject: Mapping[str, float]) -> NDArray[np.bool_]:
    """Epochs whose channels all stay within the peak-to-peak limit of their type."""
    types = np.array(epochs.get_channel_types())
    absent = sorted(set(reject) - set(types))
    if absent:
        raise UsageError(
            f"reject names channels of type {', '.join(absent)}, and there are "
            f"{', '.join(sorted(set(types)))}"
        )
    amplitude = np.ptp(epochs.get_data(copy=False), axis=-1)
    quiet = np.ones(len(epochs), dtype=bool)
    for kind, limit in reject.items():
        quiet &= (amplitude[:, types == kind] <= limit).all(axis=1)
    return quiet


def _check_epoch(
    tmin: float, tmax: float, baseline: tuple[float | None, float | None] | None
) -> None:
    if not tmin < tmax:
        raise UsageError(f"an epoch must end after it begins, got {tmin} to {tmax} s")
    if baseline is None:
        return
    first = tmin if baseline[0] is None else baseline[0]
    last = tmax if baseline[1] is None else baseline[1]
    if not tmin <= first <= last <= tmax:
        raise UsageError(
            f"the baseline must lie within the epoch, got {first} to {last} s in "
            f"{tmin} to {tmax} s"
        )


def _grid(raw: Any, tmin: float, tmax: float) -> NDArray[np.int64]:
    """Samples of an epoch, counted from the event."""
    sfreq = raw.info["sfreq"]
    return np.arange(round(tmin * sfreq), round(tmax * sfreq) + 1)


def _kept_events(
    raw: Any, events: pd.DataFrame, tmin: float, tmax: float, reject_bad: bool
) -> tuple[NDArray[np.int64], pd.DataFrame]:
    """Sample (from the first of ``raw``) and row of each event that has an epoch."""
    sfreq = float(raw.info["sfreq"])
    onsets = events["onset"].to_numpy(dtype=float)
    _check_onsets(onsets, raw.n_times / sfreq)
    samples = np.rint(onsets * sfreq).astype(np.int64)
    grid = _grid(raw, tmin, tmax)
    starts, stops = samples + grid[0], samples + grid[-1] + 1
    outside = (starts < 0) | (stops > raw.n_times)

    segments = recording_segments(raw)
    held = np.searchsorted(segments[:, 0], starts, side="right") - 1
    whole = (held >= 0) & (stops <= segments[held, 1]) if len(segments) else held >= 0
    interrupted = ~outside & ~whole

    marked = np.zeros(len(events), dtype=bool)
    if reject_bad:
        for first, last in bad_spans(raw):
            marked |= (starts < last) & (stops > first)
    marked &= ~outside & ~interrupted

    kept = ~(outside | interrupted | marked)
    counts = (
        f"{outside.sum()} leave the recording, {interrupted.sum()} cross an "
        f"interruption, {marked.sum()} touch a span marked as bad"
    )
    if not kept.any():
        raise DataError(
            f"none of {len(events)} events has an epoch of {tmin} to {tmax} s: {counts}"
        )
    if not kept.all():
        dropped = len(events) - int(kept.sum())
        _logger.warning("%d of %d events dropped: %s", dropped, len(events), counts)
    return samples[kept], events[kept]


def _check_onsets(onsets: NDArray[np.float64], duration: float) -> None:
    if not len(onsets):
        raise DataError("there is no event to cut epochs at")
    if not np.isfinite(onsets).all():
        raise DataError(
            f"{(~np.isfinite(onsets)).sum()} of {len(onsets)} events have no onset "
            "(n/a): remove them, or give their time in seconds"
        )
    beyond = onsets > duration
    if beyond.any():
        raise DataError(
            f"{beyond.sum()} of {len(onsets)} events begin after the end of the "
            f"recording ({duration:.6g} s), the last at {onsets.max():.6g} s. Are the "
            "onsets in seconds from its first sample, and do they belong to this run?"
        )


def _good_data_channels(raw: Any) -> NDArray[np.int64]:
    picks = data_channels(raw.info, bads=False)
    if len(picks) == 0:
        raise UsageError(
            "the recording has no good MEG, EEG or intracranial channel "
            f"({len(raw.info['bads'])} marked as bad): are the types and the status in "
            "channels.tsv right?"
        )
    return picks


def _cut(
    raw: Any,
    samples: NDArray[np.int64],
    kept: pd.DataFrame,
    tmin: float,
    tmax: float,
    baseline: tuple[float | None, float | None] | None,
) -> Any:
    import mne

    picks = _good_data_channels(raw)
    grid = _grid(raw, tmin, tmax)
    data = np.empty((len(samples), len(picks), len(grid)))
    for epoch, sample in zip(data, samples, strict=True):
        epoch[:] = raw.get_data(
            picks, int(sample + grid[0]), int(sample + grid[-1] + 1)
        )
    # MNE refuses epochs at the same sample and warns of any order but that of time; the
    # rows get their true samples afterwards.
    rows = np.array([(position, 0, 1) for position in range(len(samples))])
    epochs = mne.EpochsArray(
        data,
        mne.pick_info(raw.info, picks),
        events=rows,
        tmin=grid[0] / raw.info["sfreq"],
        event_id={"event": 1},
        baseline=baseline,
        metadata=kept.reset_index(drop=True),
        verbose="WARNING",
    )
    epochs.events[:, 0] = samples + raw.first_samp
    return epochs


def _timed_space(
    space: _ChannelSpace, ch_names: Sequence[str], centres: NDArray[np.float64]
) -> _ChannelSpace:
    if tuple(space.channels) != tuple(ch_names):
        missing = [name for name in ch_names if name not in set(space.channels)]
        raise UsageError(
            f"the target space has {len(space.channels)} channels and the epochs have "
            f"{len(ch_names)}, which must be the same in the same order (not in the "
            f"space: {', '.join(missing[:5]) or 'none'})"
        )
    if space.times is None:
        return space.at_times(centres)
    if len(space.times) != len(centres) or not np.allclose(space.times, centres):
        raise UsageError(
            f"the target space has {len(space.times)} times and the bins have "
            f"{len(centres)}: make it with bin_times(epochs.times, window_ms, step_ms)"
        )
    return space


def _stimuli(events: pd.DataFrame, column: str | None) -> list[str] | None:
    if column is None:
        column = next((name for name in _STIMULUS_COLUMNS if name in events), None)
        if column is None:
            return None
    if column not in events:
        raise UsageError(
            f"the events have no column {column!r} (found: {', '.join(events.columns)})"
        )
    return [str(label) for label in events[column]]


def _z_scores(values: NDArray[np.float64]) -> NDArray[np.float64]:
    centred = values - values.mean(axis=0)
    spread = centred.std(axis=0)
    # A constant column has a spread of rounding errors, relative to its size.
    constant = spread <= 1e-12 * np.abs(values).max(axis=0)
    result: NDArray[np.float64] = np.where(
        constant, 0.0, centred / np.where(constant, 1.0, spread)
    )
    return result
