"""What a module of `neuromm.io` offers, and how the right one is found for a file."""

import functools
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuromm.core import Sample, UsageError
from neuromm.io.content import require_content

__all__ = ["Reader", "load", "readers"]


@dataclass(frozen=True, kw_only=True)
class Reader:
    """One modality: which files it reads, and how.

    A module of `neuromm.io` announces itself with a constant ``READER``. Making one
    must be cheap: heavy packages are imported inside ``load``.

    Attributes
    ----------
    name : str
        Modality, as in ``Sample.modality``: ``"fmri"``, ``"eeg"``, …
    extensions : tuple of str
        Ends of file names in lower case, with the dot: ``(".nii", ".nii.gz")``.
    datatype : str
        BIDS folder of its recordings: ``"func"``, ``"eeg"``, …
    description : str
        One line for lists.
    load : callable
        ``load(path, *, entities=None, metadata=None, companions=None) -> Sample``.
    write_example : callable
        ``write_example(folder, *, rng=0) -> Path`` writes a small valid recording with
        all that must lie beside it and returns its main file.
    suffixes : tuple of str
        BIDS suffixes of its recordings; ``(name,)`` if not given.
    data_file : callable, optional
        Takes the main file, returns the one that holds the samples, for formats of
        several files (``.vhdr`` and ``.eeg``).
    fits : callable, optional
        Takes a path, looks into it and returns whether it may be of this modality.
        Asked where names do not tell: ``image.nii`` may be a BOLD run or an anatomical
        volume, and DICOM files often have no extension.
    """

    name: str
    extensions: tuple[str, ...]
    datatype: str
    description: str
    load: Callable[..., Sample]
    write_example: Callable[..., Path]
    suffixes: tuple[str, ...] = ()
    data_file: Callable[[Path], Path] | None = None
    fits: Callable[[Path], bool] | None = None

    def reads(self, path: Path) -> bool:
        """Whether the file's name ends in one of the reader's extensions."""
        return path.name.lower().endswith(self.extensions)


def readers() -> dict[str, Reader]:
    """All readers by name, in alphabetical order.

    A reader is found by the ``READER`` of its module; there is no list to extend.

    Returns
    -------
    readers : dict of str to Reader
    """
    return dict(_found_readers())


def load(path: str | Path, modality: str | None = None) -> Sample:
    """Read one recording.

    Parameters
    ----------
    path : path-like
        The main file of the recording (a folder for CTF, ``.ds``, and for DICOM).
    modality : str, optional
        Name of the reader. Otherwise it is told from the extension, and where several
        readers share that (``.fif``, ``.edf``) from the BIDS suffix or the BIDS folder
        in which the file lies, and last from its content (3-D or 4-D NIfTI, DICOM).

    Returns
    -------
    sample : Sample
        With the entities of its file name and the sidecar beside it. For inheritance
        of sidecars and companions open the dataset: `neuromm.io.bids.open_dataset`.

    Raises
    ------
    InputMissingError
        If there is no such file.
    UsageError
        If no reader, or more than one, reads such a file.
    DataError
        If the file is damaged.
    """
    path = require_content(path)
    return _reader_of(path, modality).load(path)


@functools.cache
def _found_readers() -> tuple[tuple[str, Reader], ...]:
    package = importlib.import_module("neuromm.io")
    found: dict[str, Reader] = {}
    for module in pkgutil.iter_modules(package.__path__):
        candidate: Any = getattr(
            importlib.import_module(f"neuromm.io.{module.name}"), "READER", None
        )
        if isinstance(candidate, Reader):
            found[candidate.name] = candidate
    return tuple(sorted(found.items()))


def _reader_of(path: Path, modality: str | None) -> Reader:
    available = readers()
    if modality is not None:
        if modality not in available:
            raise UsageError(
                f"there is no reader {modality!r} (readers: {', '.join(available)})"
            )
        return available[modality]
    candidates = {name: r for name, r in available.items() if r.reads(path)}
    if not candidates:
        candidates = _fitting(available, path)
    if not candidates:
        known = sorted({e for reader in available.values() for e in reader.extensions})
        raise UsageError(
            f"{path}: no reader knows this extension (known: {', '.join(known)})"
        )
    candidates = _narrowed(candidates, path)
    if len(candidates) > 1:
        candidates = _fitting(candidates, path) or candidates
    if len(candidates) > 1:
        names = " or ".join(candidates)
        raise UsageError(
            f"{path}: may be {names}. Say which, as in load(path, "
            f"modality={next(iter(candidates))!r}), or give the file its BIDS suffix"
        )
    return next(iter(candidates.values()))


def _narrowed(candidates: Mapping[str, Reader], path: Path) -> dict[str, Reader]:
    """Keep those whose BIDS suffix fits, else those whose BIDS folder does."""
    suffix = path.name.partition(".")[0].rpartition("_")[2]
    folder = path.resolve().parent.name
    by_suffix = {n: r for n, r in candidates.items() if suffix in (r.suffixes or (n,))}
    by_folder = {n: r for n, r in candidates.items() if r.datatype == folder}
    return by_suffix or by_folder or dict(candidates)


def _fitting(candidates: Mapping[str, Reader], path: Path) -> dict[str, Reader]:
    return {n: r for n, r in candidates.items() if r.fits is not None and r.fits(path)}
