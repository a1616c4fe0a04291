"""Continuous EEG, MEG or iEEG and feature tables become samples: one an event."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from neuromm.core import DataError, Sample, Study
from neuromm_pipelines.encode_settings import EpochSettings
from neuromm_pipelines.encode_unit import Prepared
from neuromm_pipelines.events import selected_events

if TYPE_CHECKING:
    from neuromm.features.exchange import FeatureTable
    from neuromm.prepare import ContactSpace, SensorSpace

__all__ = ["epochs_bins", "epochs_size", "prepare_epochs"]

_CHANNEL_TYPES = {
    "eeg": ["eeg"],
    "meg": ["mag", "grad"],
    "ieeg": ["seeg", "ecog", "dbs"],
}

# Events a block of the permutation test: long enough to hold the slow changes of
# attention and impedance together.
_EVENTS_A_BLOCK = 10


def prepare_epochs(
    study: Study,
    tables: "Sequence[FeatureTable]",
    settings: EpochSettings,
    trial_types: Sequence[str] = (),
) -> Prepared:
    """Bring the runs of one subject and task to samples.

    Parameters
    ----------
    study : Study
        One row a run, of one data type.
    tables : sequence of FeatureTable
    settings : EpochSettings
    trial_types : sequence of str
        Keep these events alone; all if empty.

    Raises
    ------
    neuromm.core.NeurommError
        If events or features are missing or do not fit the recordings.
    """
    from neuromm.features.exchange import event_features
    from neuromm.prepare import event_responses

    samples = list(study)
    raws = _with_same_channels([_cleaned(sample, settings) for sample in samples])
    channels, notes = _channel_space(samples[0], raws[0])
    if settings.notch and not (settings.line_freq or raws[0].info.get("line_freq")):
        notes.append(
            "The mains frequency is unknown, so no notch filter was applied: give it "
            "with --line-freq."
        )
    responses: list[xr.DataArray] = []
    features: dict[str, list[xr.DataArray]] = {table.name: [] for table in tables}
    n_left_out = 0
    for sample, raw in zip(samples, raws, strict=True):
        run, subject = sample.entities.get("run", "1"), sample.entities["subject"]
        events = _events(sample, tables, trial_types, raw)
        for table in tables:
            matrix = event_features(
                table,
                events,
                run=run,
                session=sample.entities.get("session"),
                subject=subject,
            )
            features[table.name].append(matrix)
        run_responses = event_responses(
            raw,
            events,
            tmin=settings.tmin,
            tmax=settings.tmax,
            baseline=settings.baseline,
            space=channels,
            window_ms=settings.window_ms,
            step_ms=settings.step_ms,
            reject=settings.reject,
            run=run,
            subject=subject,
            # Runs differ in offset: left in, a held-out run would be predicted by the
            # mean of the others, which lies on the far side of the overall mean.
            standardize=True,
        )
        responses.append(run_responses)
        n_left_out += len(events) - run_responses.sizes["sample"]
    if n_left_out:
        notes.append(
            f"{n_left_out} events were left out: their epoch leaves the recording, "
            "crosses a gap or a span marked bad, or is larger than --reject allows."
        )
    return Prepared(
        features={name: xr.concat(parts, "sample") for name, parts in features.items()},
        responses=xr.concat(responses, "sample"),
        targets=channels.at_times(_bin_centres(raws[0], settings)),
        embargo=settings.tmax - settings.tmin,
        block=_EVENTS_A_BLOCK,
        design=_design(samples, raws, settings, n_left_out),
        warnings=notes,
    )


def epochs_size(
    study: Study,
    tables: "Sequence[FeatureTable]",
    settings: EpochSettings,
    trial_types: Sequence[str] = (),
) -> tuple[int, int]:
    """Numbers of samples and targets, without reading the signals."""
    samples = list(study)
    n_events = sum(
        len(_events(sample, tables, trial_types, sample.data)) for sample in samples
    )
    channels = _data_channels(samples[0].data, samples[0])
    return n_events, len(channels) * len(_bin_centres(samples[0].data, settings))


def epochs_bins(study: Study, settings: EpochSettings) -> int:
    """Time bins of each channel, without reading the signals."""
    return len(_bin_centres(next(iter(study)).data, settings))


def _bin_centres(raw: Any, settings: EpochSettings) -> NDArray[np.float64]:
    """Centres of the time bins in s, from the grid of `event_responses`."""
    from neuromm.prepare import bin_times

    sfreq = raw.info["sfreq"]
    grid = np.arange(np.rint(settings.tmin * sfreq), np.rint(settings.tmax * sfreq) + 1)
    return bin_times(grid / sfreq, settings.window_ms, settings.step_ms)


def _events(
    sample: Sample,
    tables: "Sequence[FeatureTable]",
    trial_types: Sequence[str],
    raw: Any,
) -> pd.DataFrame:
    from neuromm.io.events import check_events_within

    events = selected_events(sample, tables, trial_types)
    if events is None:
        rows = tables[0].rows_for(
            None,
            run=sample.entities.get("run"),
            session=sample.entities.get("session"),
            subject=sample.entities.get("subject"),
        )
        return pd.DataFrame({"onset": rows.onset, "duration": rows.duration})
    duration = raw.n_times / raw.info["sfreq"]
    check_events_within(
        events, duration, sample.companions["events"], sample.source or "the recording"
    )
    return events


def _data_channels(raw: Any, sample: Sample) -> list[str]:
    """Good channels of the data type."""
    wanted = _CHANNEL_TYPES[sample.modality]
    types = raw.get_channel_types()
    good = [
        name
        for name, kind in zip(raw.ch_names, types, strict=True)
        if kind in wanted and name not in raw.info["bads"]
    ]
    if not good:
        raise DataError(
            f"no good channel of type {' or '.join(wanted)} is left "
            f"(types: {', '.join(sorted(set(types)))}; {len(raw.info['bads'])} marked "
            "bad). Correct type and status in channels.tsv.",
            sample.source,
        )
    return good


def _cleaned(sample: Sample, settings: EpochSettings) -> Any:
    """Pick, re-reference and filter one recording."""
    from neuromm.prepare import band_pass, high_gamma, notch, rereference

    raw = sample.data.copy().pick(_data_channels(sample.data, sample))
    raw.load_data(verbose="error")
    raw = rereference(raw, settings.reference)
    line_freq = settings.line_freq or raw.info.get("line_freq")
    if settings.notch and line_freq:
        raw = notch(raw, line_freq)
    if settings.high_gamma is not None:
        return high_gamma(raw, settings.high_gamma)
    if settings.l_freq is not None or settings.h_freq is not None:
        raw = band_pass(raw, settings.l_freq, settings.h_freq)
    return raw


def _with_same_channels(raws: list[Any]) -> list[Any]:
    """Keep the channels that every run has; refuse runs of different sampling."""
    rates = {float(raw.info["sfreq"]) for raw in raws}
    if len(rates) > 1:
        raise DataError(
            f"the runs are sampled at {sorted(rates)} Hz and cannot be encoded "
            "together: choose runs with --run-label, or resample them"
        )
    common = [
        name for name in raws[0].ch_names if all(name in raw.ch_names for raw in raws)
    ]
    if not common:
        raise DataError("no channel is good in every run: choose runs with --run-label")
    return [raw.pick(common) for raw in raws]


def _channel_space(
    sample: Sample, raw: Any
) -> "tuple[SensorSpace | ContactSpace, list[str]]":
    from neuromm.io.electrodes import read_electrodes
    from neuromm.prepare import ContactSpace, SensorSpace

    if sample.modality != "ieeg":
        return SensorSpace(raw.info), []
    if "electrodes" not in sample.companions:
        nowhere = pd.DataFrame({"name": raw.ch_names})
        nowhere[["x", "y", "z"]] = np.nan
        note = (
            "No electrodes.tsv came with the recording: contacts have no positions, "
            "and are neither drawn on a brain nor given regions."
        )
        return ContactSpace(nowhere, None, ch_names=raw.ch_names), [note]
    electrodes = read_electrodes(
        sample.companions["electrodes"], sample.companions.get("coordsystem")
    )
    frame = electrodes.attrs.get("frame")
    space = ContactSpace(electrodes, frame, ch_names=raw.ch_names)
    if frame is None:
        note = (
            "The coordinate frame of the electrodes is not a known template: contacts "
            "are not drawn on a template brain and have no atlas regions."
        )
        return space, [note]
    return space, []


def _design(
    samples: Sequence[Sample], raws: Sequence[Any], settings: EpochSettings, lost: int
) -> dict[str, Any]:
    line_freq = settings.line_freq or raws[0].info.get("line_freq")
    return {
        "runs": [sample.entities.get("run", "1") for sample in samples],
        "sfreq_hz": float(raws[0].info["sfreq"]),
        "n_channels": len(raws[0].ch_names),
        "n_bad_channels": [len(sample.data.info["bads"]) for sample in samples],
        "tmin_s": settings.tmin,
        "tmax_s": settings.tmax,
        "baseline_s": settings.baseline,
        "window_ms": settings.window_ms,
        "step_ms": settings.step_ms,
        "reference": settings.reference,
        "notch_hz": line_freq if settings.notch else None,
        "l_freq_hz": None if settings.high_gamma else settings.l_freq,
        "h_freq_hz": None if settings.high_gamma else settings.h_freq,
        "high_gamma_hz": settings.high_gamma,
        "reject_peak_to_peak": dict(settings.reject) or None,
        "standardized": "z-score per run",
        "n_events_left_out": lost,
    }
