"""Scalp EEG: all that MNE reads, as `mne.io.Raw` in volts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from neuromm.core import Sample
from neuromm.io.mne_files import load_recording
from neuromm.io.reader import Reader
from neuromm.io.recording_checks import data_file

__all__ = ["READER", "load", "write_example"]

# The formats of `mne.io.read_raw` that can hold EEG.
_EXTENSIONS = (
    *(".vhdr", ".ahdr", ".edf", ".bdf", ".gdf", ".set", ".fif", ".fif.gz"),
    *(".cnt", ".mff", ".eeg", ".nxe", ".data", ".dat", ".dap", ".rs3", ".cdt"),
    *(".cdt.dpa", ".cdt.cef", ".cef", ".nedf", ".ns3", ".lay"),
)


def load(
    path: str | Path,
    *,
    entities: Mapping[str, str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    companions: Mapping[str, Path] | None = None,
) -> Sample:
    """Open an EEG recording; its samples stay on disk until they are wanted.

    Inside of a BIDS data set types, bad channels, line frequency, annotations and
    positions come from the sidecars.

    Parameters
    ----------
    path : path-like
        Main file: the ``.vhdr`` of BrainVision, the ``.set`` of EEGLAB.
    entities, metadata, companions : mapping, optional
        As in `neuromm.core.Sample`; looked for where not given. The companion
        ``channels`` is a channels.tsv, outside of BIDS too.

    Returns
    -------
    sample : Sample
        ``data`` is an `mne.io.Raw` (V).

    Raises
    ------
    InputMissingError
        If the file, or one that it needs, is not there.
    DataError
        If the file is damaged, a unit is unknown, a sidecar contradicts it, or it has
        no EEG channel.
    """
    return load_recording(
        path,
        modality="eeg",
        needed=("eeg",),
        extensions=_EXTENSIONS,
        entities=entities,
        metadata=metadata,
        companions=companions,
    )


def write_example(folder: str | Path, *, rng: int | np.random.Generator = 0) -> Path:
    """Write 2 s of BrainVision: four channels at 250 Hz, 10 Hz rhythm of 10 uV at Oz.

    Parameters
    ----------
    folder : path-like
        Made if it is not there.
    rng : int or Generator
        Noise of 1 uV.

    Returns
    -------
    path : Path
        The ``.vhdr``.
    """
    import pybv

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    sfreq, names = 250.0, ["Fz", "Cz", "Pz", "Oz"]
    seconds = np.arange(int(2 * sfreq)) / sfreq
    signals = 1e-6 * np.random.default_rng(rng).standard_normal((4, len(seconds)))
    signals[3] += 10e-6 * np.sin(2 * np.pi * 10 * seconds)
    pybv.write_brainvision(
        data=signals,
        sfreq=sfreq,
        ch_names=names,
        fname_base="example_eeg",
        folder_out=folder,
        events=np.array([[125, 1], [250, 2], [375, 1]]),
        unit="µV",
        overwrite=True,
    )
    return folder / "example_eeg.vhdr"


READER = Reader(
    name="eeg",
    extensions=_EXTENSIONS,
    datatype="eeg",
    description="Scalp EEG (BrainVision, EDF, BDF, GDF, EEGLAB, FIF and more)",
    load=load,
    write_example=write_example,
    data_file=data_file,
)
