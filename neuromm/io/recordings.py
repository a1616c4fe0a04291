"""Which files of a BIDS dataset are recordings, one row each.

Raw data: BOLD runs, EEG, MEG and iEEG. Derivatives: preprocessed BOLD in the naming of
fMRIPrep, in a volume (``space-…_desc-preproc_bold.nii.gz``) or on the surface
(``hemi-L_space-…_bold.func.gii`` with its right half).
"""

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from neuromm.io.bids_name import ANY, BidsFile, Wanted, has_value, natural_key
from neuromm.io.layout import Layout

__all__ = ["COLUMNS", "matches_filter", "recording_table", "same_recording"]

COLUMNS = (
    "subject", "session", "task", "acquisition", "run", "space", "description",
    "hemisphere", "echo", "resolution", "density", "datatype", "modality", "dataset",
    "path",
)  # fmt: skip

# Suffix -> modality, datatype, extensions in order of preference. The .eeg and .vmrk
# of BrainVision and the .fdt of EEGLAB belong to a header and are no recordings.
_KINDS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "bold": ("fmri", "func", (".nii.gz", ".nii")),
    "eeg": ("eeg", "eeg", (".vhdr", ".edf", ".bdf", ".set")),
    "meg": ("meg", "meg", (".fif", ".ds", ".con", ".sqd")),
    "ieeg": ("ieeg", "ieeg", (".vhdr", ".edf", ".bdf", ".set", ".mefd", ".nwb")),
}

# Calibration files of Elekta/MEGIN systems carry the suffix of a recording.
_NO_RECORDING = ("calibration", "crosstalk")

_IDENTITY = (
    "subject", "session", "task", "acquisition", "ceagent", "reconstruction",
    "direction", "run",
)  # fmt: skip


def recording_table(
    raw: Layout,
    derivatives: Mapping[str, Layout],
    filters: Mapping[str, Mapping[str, Wanted]],
) -> pd.DataFrame:
    """Every recording, one row each, in natural order.

    Parameters
    ----------
    raw : Layout
    derivatives : mapping of str to Layout
        Derivative datasets by name.
    filters : mapping
        As `neuromm.io.bids_filters.read_filters` gives it.

    Returns
    -------
    table : DataFrame
        Columns `COLUMNS`; an entity that a recording lacks is None. A BOLD run that a
        derivative holds preprocessed is listed from the derivative alone.

    Warns
    -----
    UserWarning
        If one recording is there in two file formats; the first is taken.
    """
    rows = []
    preprocessed: set[tuple[str | None, ...]] = set()
    for name, layout in derivatives.items():
        for file in _preprocessed_bold(layout, filters.get("bold", {})):
            preprocessed.add(same_recording(file.entities))
            rows.append(_row(file, name))
    for file in _raw_recordings(raw):
        if file.suffix == "bold" and same_recording(file.entities) in preprocessed:
            continue
        if matches_filter(file, filters.get(file.suffix, {})):
            rows.append(_row(file, "raw"))
    rows.sort(key=_order)
    return pd.DataFrame(rows, columns=list(COLUMNS), dtype=object)


def same_recording(entities: Mapping[str, str]) -> tuple[str | None, ...]:
    """Key that a recording shares with everything derived from it.

    Echoes count as one: they were acquired together.
    """
    labels = [entities.get(name) for name in _IDENTITY]
    run = labels[-1]
    return (*labels[:-1], str(int(run)) if run and run.isdecimal() else run)


def matches_filter(file: BidsFile, wanted: Mapping[str, Wanted]) -> bool:
    """Whether a file has the entities that a filter asks for."""
    about = {
        **file.entities,
        "suffix": file.suffix,
        "extension": file.extension,
        "datatype": file.datatype,
    }
    return all(has_value(name, about.get(name), wanted[name]) for name in wanted)


def _raw_recordings(layout: Layout) -> list[BidsFile]:
    found = []
    for suffix, (_, datatype, extensions) in _KINDS.items():
        files = layout.find(
            {"suffix": suffix, "datatype": datatype, "subject": ANY, "extension": ANY}
        )
        kept = [
            file
            for file in files
            if file.extension.lower() in extensions
            and file.entities.get("acquisition") not in _NO_RECORDING
            and has_value("split", file.entities.get("split"), (None, "1"))
            and has_value("part", file.entities.get("part"), (None, "mag"))
        ]
        found += _one_format_each(kept, extensions)
    return found


def _preprocessed_bold(layout: Layout, wanted: Mapping[str, Wanted]) -> list[BidsFile]:
    """Preprocessed BOLD of a derivative dataset, hemispheres as one."""
    volumes = layout.find({"suffix": "bold", "extension": (".nii.gz", ".nii")})
    surfaces = layout.find({"suffix": "bold", "extension": ".func.gii"})
    # A filter that names descriptions (desc-denoised) replaces the usual one.
    if "description" not in wanted:
        volumes = _with(volumes, "description", ("preproc",))
        surfaces = _with(surfaces, "description", (None, "preproc"))
    files = [
        file
        for file in [*_one_format_each(volumes, (".nii.gz", ".nii")), *surfaces]
        if matches_filter(file, wanted)
        and has_value("part", file.entities.get("part"), (None, "mag"))
    ]
    combined = {same_recording(f.entities) for f in files if "echo" not in f.entities}
    if "echo" not in wanted:
        files = [
            file
            for file in files
            if "echo" not in file.entities
            or same_recording(file.entities) not in combined
        ]
    return _one_hemisphere_each(files)


def _with(
    files: Iterable[BidsFile], name: str, wanted: tuple[str | None, ...]
) -> list[BidsFile]:
    return [file for file in files if has_value(name, file.entities.get(name), wanted)]


def _one_hemisphere_each(files: Iterable[BidsFile]) -> list[BidsFile]:
    chosen: dict[tuple[tuple[str, str], ...], BidsFile] = {}
    for file in files:  # in order of paths: hemi-L before hemi-R
        pairs = tuple(
            (name, label)
            for name, label in file.entities.items()
            if name != "hemisphere"
        )
        chosen.setdefault((*pairs, ("extension", file.extension)), file)
    return list(chosen.values())


def _one_format_each(
    files: Iterable[BidsFile], extensions: tuple[str, ...]
) -> list[BidsFile]:
    chosen: dict[str, BidsFile] = {}
    ordered = sorted(files, key=lambda file: extensions.index(file.extension.lower()))
    for file in ordered:
        stem = str(file.path).removesuffix(file.extension)
        if stem in chosen:
            warnings.warn(
                f"{file.path}: left out, the same recording is there as "
                f"{chosen[stem].path.name}",
                stacklevel=2,
            )
        chosen.setdefault(stem, file)
    return list(chosen.values())


def _row(file: BidsFile, dataset: str) -> dict[str, Any]:
    modality, datatype, _ = _KINDS[file.suffix]
    row: dict[str, Any] = {name: file.entities.get(name) for name in COLUMNS}
    return row | {
        "datatype": datatype,
        "modality": modality,
        "dataset": dataset,
        "path": file.path,
    }


def _order(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(
        natural_key("" if row[name] is None else str(row[name])) for name in COLUMNS
    )
