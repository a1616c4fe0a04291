"""MEG: all that MNE reads, as `mne.io.Raw` in tesla and tesla per metre."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from neuromm.core import Sample
from neuromm.io.mne_files import load_recording
from neuromm.io.reader import Reader

__all__ = ["READER", "load", "write_example"]

# The formats of `mne.io.read_raw` that can hold MEG.
_EXTENSIONS = (".fif", ".fif.gz", ".ds", ".sqd", ".con", ".bin")


def load(
    path: str | Path,
    *,
    entities: Mapping[str, str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    companions: Mapping[str, Path] | None = None,
) -> Sample:
    """Open an MEG recording; its samples stay on disk until they are wanted.

    Parameters
    ----------
    path : path-like
        Main file, or the folder of CTF (``.ds``). Of a split FIF recording the first
        part; the others must lie beside it.
    entities, metadata, companions : mapping, optional
        As in `neuromm.core.Sample`; looked for where not given.

    Returns
    -------
    sample : Sample
        ``data`` is an `mne.io.Raw` (magnetometers T, gradiometers T/m, or T for the
        axial ones of CTF and KIT).

    Raises
    ------
    InputMissingError
        If the file, or one that it needs, is not there.
    DataError
        If the file is damaged, a sidecar contradicts it, or it has no MEG channel.
    """
    return load_recording(
        path,
        modality="meg",
        needed=("mag", "grad"),
        extensions=_EXTENSIONS,
        entities=entities,
        metadata=metadata,
        companions=companions,
    )


def write_example(folder: str | Path, *, rng: int | np.random.Generator = 0) -> Path:
    """Write 2 s of FIF: three magnetometers at 250 Hz, 10 Hz rhythm of 1 pT in one.

    Parameters
    ----------
    folder : path-like
        Made if it is not there.
    rng : int or Generator
        Noise of 0.1 pT.

    Returns
    -------
    path : Path
        ``example_meg.fif``.
    """
    import mne

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    sfreq, names = 250.0, ["MEG0111", "MEG0121", "MEG0131"]
    seconds = np.arange(int(2 * sfreq)) / sfreq
    fields = 1e-13 * np.random.default_rng(rng).standard_normal((3, len(seconds)))
    fields[0] += 1e-12 * np.sin(2 * np.pi * 10 * seconds)
    info = mne.create_info(names, sfreq, "mag", verbose="error")
    for index, channel in enumerate(info["chs"]):
        channel["coil_type"] = mne.io.constants.FIFF.FIFFV_COIL_VV_MAG_T1
        # On the helmet, 11 cm from the origin, looking outward.
        angle = np.deg2rad(40 * (index - 1))
        outward = np.array([np.sin(angle), 0.0, np.cos(angle)])
        aside = np.array([np.cos(angle), 0.0, -np.sin(angle)])
        channel["loc"] = np.concatenate(
            [0.11 * outward, aside, np.cross(outward, aside), outward]
        )
    raw = mne.io.RawArray(fields, info, verbose="error")
    path = folder / "example_meg.fif"
    raw.save(path, overwrite=True, verbose="error")
    return path


READER = Reader(
    name="meg",
    extensions=_EXTENSIONS,
    datatype="meg",
    description="MEG (FIF, CTF, KIT, FieldLine and more)",
    load=load,
    write_example=write_example,
)
