"""Intracranial EEG (SEEG, ECoG, DBS) as `mne.io.Raw` in volts, with its electrodes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from neuromm.core import Sample
from neuromm.core.files import write_json, write_text
from neuromm.io.electrodes import CoordinateSystem, read_coordsystem, read_electrodes
from neuromm.io.mne_files import load_recording
from neuromm.io.reader import Reader
from neuromm.io.recording_checks import data_file

__all__ = [
    "READER",
    "CoordinateSystem",
    "load",
    "read_coordsystem",
    "read_electrodes",
    "write_example",
]

# The formats of `mne.io.read_raw` that can hold intracranial recordings.
_EXTENSIONS = (
    *(".vhdr", ".ahdr", ".edf", ".bdf", ".set", ".fif", ".fif.gz", ".mefd"),
    *(".eeg", ".lay", ".ns3", ".nedf", ".cnt", ".dat", ".cdt", ".mff"),
)


def load(
    path: str | Path,
    *,
    entities: Mapping[str, str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    companions: Mapping[str, Path] | None = None,
) -> Sample:
    """Open an intracranial recording; its samples stay on disk until they are wanted.

    Parameters
    ----------
    path : path-like
        Main file: the ``.vhdr`` of BrainVision, the folder of MEF3 (``.mefd``).
    entities, metadata, companions : mapping, optional
        As in `neuromm.core.Sample`; looked for where not given. Outside of BIDS a
        companion ``channels`` says which channels are SEEG, ECOG or DBS, for few
        formats do.

    Returns
    -------
    sample : Sample
        ``data`` is an `mne.io.Raw` (V). Positions for maps come from
        `read_electrodes`: MNE's own are in its head frame, to which a template or a
        patient's scan has no known transform here.

    Raises
    ------
    InputMissingError
        If the file, or one that it needs, is not there.
    DataError
        If the file is damaged, a unit is unknown, a sidecar contradicts it, positions
        fit no head, or no channel is intracranial.
    """
    return load_recording(
        path,
        modality="ieeg",
        needed=("seeg", "ecog", "dbs"),
        extensions=_EXTENSIONS,
        entities=entities,
        metadata=metadata,
        companions=companions,
    )


def write_example(folder: str | Path, *, rng: int | np.random.Generator = 0) -> Path:
    """Write a small BIDS data set: one shaft of six SEEG contacts, 2 s at 500 Hz.

    The contacts run through the left temporal lobe, 3.5 mm apart, in
    MNI152NLin2009cAsym. The third carries a 10 Hz rhythm of 50 uV, the last is bad.

    Parameters
    ----------
    folder : path-like
        Root of the data set; made if it is not there.
    rng : int or Generator
        Noise of 5 uV.

    Returns
    -------
    path : Path
        The ``.vhdr``, with channels, electrodes, coordsystem, events and JSON sidecars
        beside it.
    """
    import pybv

    root = Path(folder)
    place = root / "sub-01" / "ieeg"
    place.mkdir(parents=True, exist_ok=True)
    sfreq, names = 500.0, [f"LT{i + 1}" for i in range(6)]
    seconds = np.arange(int(2 * sfreq)) / sfreq
    signals = 5e-6 * np.random.default_rng(rng).standard_normal((6, len(seconds)))
    signals[2] += 50e-6 * np.sin(2 * np.pi * 10 * seconds)
    base = "sub-01_task-rest_ieeg"
    pybv.write_brainvision(
        data=signals,
        sfreq=sfreq,
        ch_names=names,
        fname_base=base,
        folder_out=place,
        events=np.array([[250, 1], [500, 2], [750, 1]]),
        unit="µV",
        overwrite=True,
    )
    _write_sidecars(root, place, names, sfreq)
    return place / f"{base}.vhdr"


def _write_sidecars(root: Path, place: Path, names: list[str], sfreq: float) -> None:
    write_json(
        root / "dataset_description.json",
        {"Name": "Example of iEEG", "BIDSVersion": "1.10.0", "DatasetType": "raw"},
    )
    write_text(root / "participants.tsv", "participant_id\nsub-01\n")
    write_json(
        place / "sub-01_task-rest_ieeg.json",
        {
            "TaskName": "rest",
            "SamplingFrequency": sfreq,
            "PowerLineFrequency": 50,
            "SoftwareFilters": "n/a",
            "iEEGReference": "n/a",
        },
    )
    kinds = [f"{name}\tSEEG\tuV\tn/a\tn/a\tLT\tgood" for name in names]
    kinds[-1] = kinds[-1].replace("good", "bad")
    heading = "name\ttype\tunits\tlow_cutoff\thigh_cutoff\tgroup\tstatus"
    write_text(place / "sub-01_task-rest_channels.tsv", _lines(heading, kinds))
    contacts = [
        f"{name}\t{-38 - 3.5 * i:g}\t-20\t-8\tn/a\tLT" for i, name in enumerate(names)
    ]
    space = "space-MNI152NLin2009cAsym"
    write_text(
        place / f"sub-01_{space}_electrodes.tsv",
        _lines("name\tx\ty\tz\tsize\tgroup", contacts),
    )
    write_json(
        place / f"sub-01_{space}_coordsystem.json",
        {
            "iEEGCoordinateSystem": "MNI152NLin2009cAsym",
            "iEEGCoordinateUnits": "mm",
            "iEEGCoordinateProcessingDescription": "none: positions are made up",
        },
    )
    events = ["0.5\t0\tface", "1\t0\thouse", "1.5\t0\tface"]
    write_text(
        place / "sub-01_task-rest_events.tsv",
        _lines("onset\tduration\ttrial_type", events),
    )


def _lines(heading: str, rows: list[str]) -> str:
    return "\n".join([heading, *rows]) + "\n"


READER = Reader(
    name="ieeg",
    extensions=_EXTENSIONS,
    datatype="ieeg",
    description="Intracranial EEG: SEEG, ECoG, DBS (BrainVision, EDF, MEF3 and more)",
    load=load,
    write_example=write_example,
    data_file=data_file,
)
