"""A subject's EEG or iEEG: BrainVision files and what BIDS wants beside them."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuromm.core.files import write_json
from neuromm.simulate.bids_files import TASK, write_table
from neuromm.simulate.field_potentials import (
    LINE_FREQ,
    PlantedChannels,
    voltage_run,
)
from neuromm.simulate.film import Film, shown_clips
from neuromm.simulate.planted_brain import (
    FRAME,
    depth_contacts,
    planted_kind,
    planted_regions,
)
from neuromm.simulate.tuning import planted_weights

__all__ = ["EVENTS_PER_VOLTAGE_RUN", "SIDECARS", "voltage_sidecar", "write_voltage"]

EVENTS_PER_VOLTAGE_RUN = 200
_SFREQ_HZ = 256.0
_WORD_S = 0.4
_R_MAX = (0.35, 0.60)  # rim and centre of a region, at the peak of the response

# Deviation of the noise in a window of 50 ms after the notch filter, measured by
# tests/simulate; it turns r_max into volts.
WINDOW_NOISE_V = 15.2e-6

# Electrodes of the 10-20 system that answer, after the topographies of the N170 and
# the N400; EEG mixes sources, so a kind is that of the strongest.
_EEG_KINDS = {
    "O1": "vision", "O2": "vision", "T5": "vision", "T6": "vision",
    "F7": "language", "T3": "language", "C3": "language",
    "P3": "both", "Pz": "both", "P4": "both",
}  # fmt: skip
_INTERACTIVE_EEG = {"Cz": "interactive", "C4": "interactive"}
_EEG_NAMES = (
    "Fp1", "Fp2", "F7", "F3", "Fz", "F4", "F8", "T3", "C3", "Cz", "C4", "T4", "T5",
    "P3", "Pz", "P4", "T6", "O1", "O2",
)  # fmt: skip

_COMMON: dict[str, Any] = {
    "TaskName": TASK,
    "TaskDescription": "Simulated: watching the clips of a film.",
    "Instructions": "Watch the film.",
    "Manufacturer": "simulated",
    "SamplingFrequency": _SFREQ_HZ,
    "PowerLineFrequency": LINE_FREQ,
    "RecordingType": "continuous",
    "SoftwareFilters": "n/a",
    "HardwareFilters": "n/a",
}
SIDECARS: dict[str, dict[str, Any]] = {
    "ieeg": {
        **_COMMON,
        "iEEGReference": "simulated, shared by all contacts",
        "iEEGElectrodeGroups": "LO, LT, LP: depth electrodes of the left hemisphere",
        "SEEGChannelCount": 30,
    },
    "eeg": {
        **_COMMON,
        "EEGReference": "simulated, shared by all electrodes",
        "EEGPlacementScheme": "10-20",
        "EEGChannelCount": len(_EEG_NAMES),
    },
}


def voltage_sidecar(datatype: str, *, interactive: bool) -> dict[str, Any]:
    """Metadata of all runs of a data type, with the fourth shaft where there is one."""
    if datatype != "ieeg" or not interactive:
        return SIDECARS[datatype]
    return SIDECARS["ieeg"] | {
        "iEEGElectrodeGroups": "LO, LT, LP, LA: depth electrodes of the left "
        "hemisphere",
        "SEEGChannelCount": 40,
    }


def write_voltage(
    root: Path,
    subject: str,
    datatype: str,
    film: Film,
    tuning: NDArray[np.floating],
    shift: NDArray[np.floating],
    n_runs: int,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Write the runs of a subject.

    Parameters
    ----------
    root, subject, film, tuning, shift, n_runs, rng
        As for `neuromm.simulate.bids_bold.write_bold`.
    datatype : {"ieeg", "eeg"}

    Returns
    -------
    truth : DataFrame
        A row a channel, see `BidsTruth`.
    """
    folder = root / f"sub-{subject}" / datatype
    interactive = tuning.shape[1] > 2
    if datatype == "ieeg":
        truth, region, r_max = _contacts(rng, shift, interactive)
        _write_electrodes(folder, f"sub-{subject}_space-{FRAME}", truth)
    else:
        truth, region, r_max = _sensors(interactive)
    kinds = truth["kind"].to_numpy(dtype=object)
    weights = planted_weights(rng, tuning, kinds, region)
    weights *= WINDOW_NOISE_V * r_max / np.sqrt(1 - r_max**2)
    channels = PlantedChannels(kinds=kinds, weights=weights)
    values = film.driving
    for number in range(n_runs):
        events = _events(rng, film, number, n_runs)
        n_times = int((events["onset"].iloc[-1] + 4) * _SFREQ_HZ)
        voltage = voltage_run(
            rng,
            channels,
            values[events.pop("clip")],
            events["onset"].to_numpy(),
            n_times,
            _SFREQ_HZ,
        )
        name = f"sub-{subject}_task-{TASK}_run-{number + 1}"
        _write_run(folder, name, datatype, list(truth["target"]), voltage, events)
    truth.insert(0, "subject", subject)
    truth.insert(1, "datatype", datatype)
    truth["r_max"] = r_max
    return truth[["subject", "datatype", "target", "x", "y", "z", "kind", "r_max"]]


def _contacts(
    rng: np.random.Generator, shift: NDArray[np.floating], interactive: bool
) -> tuple[pd.DataFrame, NDArray[np.intp], NDArray[np.floating]]:
    contacts = depth_contacts(rng, interactive=interactive)
    contacts = contacts.rename(columns={"name": "target"})
    points = contacts[["x", "y", "z"]].to_numpy()
    regions = planted_regions(interactive=interactive)
    kinds, region, depth = planted_kind(points, shift, regions)
    contacts["kind"] = kinds
    r_max = np.where(region >= 0, _R_MAX[0] + (_R_MAX[1] - _R_MAX[0]) * depth, 0.0)
    return contacts, region, r_max


def _sensors(
    interactive: bool,
) -> tuple[pd.DataFrame, NDArray[np.intp], NDArray[np.floating]]:
    planted = _EEG_KINDS | (_INTERACTIVE_EEG if interactive else {})
    kinds = [planted.get(name, "none") for name in _EEG_NAMES]
    sensors = pd.DataFrame({"target": _EEG_NAMES, "kind": kinds})
    sensors[["x", "y", "z"]] = np.nan
    r_max = np.where(sensors["kind"] != "none", np.mean(_R_MAX), 0.0)
    return sensors, np.full(len(sensors), -1), r_max


def _events(
    rng: np.random.Generator, film: Film, run: int, n_runs: int
) -> pd.DataFrame:
    clips = shown_clips(rng, run, EVENTS_PER_VOLTAGE_RUN, n_runs, len(film.clips))
    gaps = rng.uniform(1.2, 1.5, EVENTS_PER_VOLTAGE_RUN)
    return pd.DataFrame(
        {
            "onset": np.round(2.0 + gaps.cumsum(), 3),
            "duration": _WORD_S,
            "trial_type": "word",
            "stim_file": [film.clips[i] for i in clips],
            "clip": clips,
        }
    )


def _write_run(
    folder: Path,
    name: str,
    datatype: str,
    ch_names: list[str],
    voltage: NDArray[np.floating],
    events: pd.DataFrame,
) -> None:
    import pybv

    onset = np.rint(events["onset"].to_numpy() * _SFREQ_HZ).astype(int)
    pybv.write_brainvision(
        data=voltage,
        sfreq=_SFREQ_HZ,
        ch_names=ch_names,
        fname_base=f"{name}_{datatype}",
        folder_out=folder,
        events=np.column_stack([onset, np.ones_like(onset)]),
        resolution=0.1,
        fmt="binary_int16",
    )
    write_json(
        folder / f"{name}_{datatype}.json",
        {"RecordingDuration": voltage.shape[1] / _SFREQ_HZ},
    )
    write_table(folder / f"{name}_events.tsv", events, decimals=3)
    channels = pd.DataFrame(
        {
            "name": ch_names,
            "type": "SEEG" if datatype == "ieeg" else "EEG",
            "units": "µV",
            "low_cutoff": "n/a",
            "high_cutoff": "n/a",
            "sampling_frequency": _SFREQ_HZ,
            "status": "good",
        }
    )
    write_table(folder / f"{name}_channels.tsv", channels, decimals=1)


def _write_electrodes(folder: Path, prefix: str, contacts: pd.DataFrame) -> None:
    electrodes = contacts[["target", "x", "y", "z", "group"]].rename(
        columns={"target": "name"}
    )
    electrodes.insert(4, "size", "n/a")
    electrodes["type"] = "depth"
    write_table(folder / f"{prefix}_electrodes.tsv", electrodes, decimals=2)
    write_json(
        folder / f"{prefix}_coordsystem.json",
        {
            "iEEGCoordinateSystem": FRAME,
            "iEEGCoordinateUnits": "mm",
            "iEEGCoordinateProcessingDescription": "simulated",
        },
    )
