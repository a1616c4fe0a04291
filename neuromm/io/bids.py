"""BIDS datasets: recordings with their events, sidecars and companions.

References
----------
BIDS 1.11; outputs of fMRIPrep 20 to 25 for preprocessed BOLD.
"""

import importlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from neuromm.core import InputMissingError, Sample, Study, UsageError
from neuromm.core.files import read_json
from neuromm.io.bids_filters import read_filters
from neuromm.io.bids_name import (
    ANY,
    BidsFile,
    has_value,
    natural_key,
    parse_name,
    short_name,
    strip_prefix,
)
from neuromm.io.companions import companions_of, metadata_of
from neuromm.io.content import require_content
from neuromm.io.events import check_events_within, events_path, read_events
from neuromm.io.layout import AncpLayout, Layout, require_dataset, subject_labels
from neuromm.io.recordings import recording_table

__all__ = [
    "AncpLayout",
    "Layout",
    "check_events_within",
    "events_path",
    "open_dataset",
    "read_events",
]

Labels = str | Sequence[str] | None

_DATATYPES = {
    "func": "func", "bold": "func", "fmri": "func", "eeg": "eeg", "meg": "meg",
    "ieeg": "ieeg",
}  # fmt: skip

_NOUNS = {
    "fmri": "BOLD run",
    "eeg": "EEG recording",
    "meg": "MEG recording",
    "ieeg": "iEEG recording",
}


def open_dataset(
    root: str | Path,
    *,
    derivatives: Mapping[str, str | Path] | None = None,
    participant_label: Labels = None,
    session_label: Labels = None,
    task: Labels = None,
    run: Labels = None,
    space: Labels = None,
    datatype: Labels = None,
    filters: Mapping[str, Mapping[str, Any]] | str | Path | None = None,
) -> Study:
    """List the recordings of a BIDS dataset; read one when it is asked for.

    Parameters
    ----------
    root : path-like
        Root of the raw dataset. Events are always taken from it.
    derivatives : mapping of str to path-like, optional
        Derivative datasets by name, ``{"fmriprep": "ds001/derivatives/fmriprep"}``.
        A BOLD run that one of them holds preprocessed is listed from there, a row a
        space, and not from the raw dataset.
    participant_label, session_label, task, run : str or sequence of str, optional
        Labels to keep, with or without their prefix (``"sub-01"`` is ``"01"``); all if
        not given. Runs are compared as numbers: ``"1"`` is ``run-01``.
    space : str or sequence of str, optional
        Spaces to keep of preprocessed BOLD; all if not given, each as its own row. For
        EEG and iEEG, the frame to take the electrodes in.
    datatype : str or sequence of str, optional
        ``func``, ``eeg``, ``meg``, ``ieeg``; all if not given.
    filters : mapping or path-like, optional
        Filters in the shape of fMRIPrep's ``--bids-filter-file``, or that JSON file;
        see `neuromm.io.bids_filters.read_filters`.

    Returns
    -------
    study : Study
        ``table`` has a row a recording, sorted: ``subject``, ``session``, ``task``,
        ``acquisition``, ``run``, ``space``, ``description``, ``hemisphere``, ``echo``,
        ``resolution``, ``density``, ``datatype``, ``modality`` (``"fmri"``, ``"eeg"``,
        ``"meg"``, ``"ieeg"``), ``dataset`` (``"raw"`` or the name of a derivative) and
        ``path``; None where a recording lacks an entity. The two hemispheres of a
        surface are one row, with the path of the left one. A split recording is one
        row, with its first file.

    Raises
    ------
    InputMissingError
        If a folder, a label or every recording is not there; the message says which
        labels are. When a recording is loaded: if its content was not fetched.
    DataError
        If a dataset has no ``dataset_description.json``.
    UsageError
        If a datatype or a filter is none that exists, or ``root`` is a derivative
        dataset.

    Warns
    -----
    UserWarning
        If derivatives are given and a BOLD run is not among them, so that the raw
        run is listed.

    Examples
    --------
    >>> study = open_dataset("ds001", task="film")  # doctest: +SKIP
    >>> study.load(0).companions["events"]  # doctest: +SKIP
    """
    checked = read_filters(filters)
    types = _datatypes(datatype)
    raw_root = _raw_root(root)
    subjects = _subjects(raw_root, _labels("subject", participant_label))
    roots = {
        name: require_dataset(path, derivative=_derivative_name(name))
        for name, path in (derivatives or {}).items()
    }
    raw = AncpLayout(raw_root, subjects=subjects)
    layouts = {
        name: AncpLayout(path, subjects=subjects) for name, path in roots.items()
    }
    table = recording_table(raw, layouts, checked)
    _require_recordings(table, raw_root, types, bool(checked))
    table = table[table["datatype"].isin(types)]
    spaces = _labels("space", space)
    whom = _whom(participant_label, subjects, raw_root)
    table = _keep(table, "session", _labels("session", session_label), whom)
    table = _keep(table, "task", _labels("task", task), whom)
    table = _keep(table, "run", _labels("run", run), whom)
    table = _keep_spaces(table, spaces, whom)
    _warn_of_raw_runs(table, layouts)
    return Study(table.reset_index(drop=True), _Loader(raw, layouts, spaces))


@dataclass(frozen=True)
class _Loader:
    """Reads the recording of a row, with everything that belongs to it."""

    raw: Layout
    derivatives: Mapping[str, Layout]
    spaces: tuple[str, ...]

    def __call__(self, row: pd.Series) -> Sample:
        path = require_content(row["path"])
        name = row["dataset"]
        own = self.raw if name == "raw" else self.derivatives[name]
        others = [layout for other, layout in self.derivatives.items() if other != name]
        derived = [] if name == "raw" else [own, *others]
        file = parse_name(path.relative_to(own.root), own.root)
        if not isinstance(file, BidsFile):
            raise UsageError(f"{path}: is no BIDS name")
        companions = companions_of(file, self.raw, derived, self.spaces)
        reader = importlib.import_module(f"neuromm.io.{row['modality']}")
        sample: Sample = reader.load(
            path,
            entities=dict(file.entities),
            metadata=metadata_of(file, own, self.raw),
            companions=companions,
        )
        return sample


def _labels(name: str, labels: Labels) -> tuple[str, ...]:
    """Labels without prefixes, in the order given, each once."""
    if labels is None:
        return ()
    given = [labels] if isinstance(labels, str) else labels
    return tuple(dict.fromkeys(strip_prefix(name, str(label)) for label in given))


def _datatypes(datatype: Labels) -> list[str]:
    given = _labels("datatype", datatype) or tuple(_DATATYPES)
    unknown = [name for name in given if name not in _DATATYPES]
    if unknown:
        raise UsageError(
            f"no datatype {', '.join(unknown)} is read as a recording (these are: "
            "func, eeg, meg, ieeg)"
        )
    return sorted({_DATATYPES[name] for name in given})


def _raw_root(root: str | Path) -> Path:
    path = require_dataset(root)
    description = read_json(require_content(path / "dataset_description.json"))
    if description.get("DatasetType") == "derivative":
        raise UsageError(
            f"{path}: is a derivative dataset (DatasetType in its "
            "dataset_description.json). Events come from the raw dataset: give that "
            f"one, and this one with --derivatives {path.name}={path}"
        )
    return path


def _derivative_name(name: str) -> str:
    if not name or name == "raw" or "/" in name:
        raise UsageError(
            f"{name!r} cannot name derivatives: expected NAME=PATH such as "
            "fmriprep=ds001/derivatives/fmriprep, and a name other than 'raw'"
        )
    return name


def _subjects(root: Path, wanted: tuple[str, ...]) -> list[str]:
    present = subject_labels(root)
    if not present:
        raise InputMissingError(
            f"{root}: no folder sub-* in the dataset. Expected files such as "
            "sub-01/func/sub-01_task-film_bold.nii.gz"
        )
    lacking = [label for label in wanted if label not in present]
    if lacking:
        raise InputMissingError(
            f"{root}: no participant {_listed('subject', lacking)} (found: "
            f"{_listed('subject', present)})"
        )
    # MEG noise recordings lie in a subject of this name; it is no participant.
    return list(wanted) or [label for label in present if label != "emptyroom"]


def _require_recordings(
    table: pd.DataFrame, root: Path, types: Sequence[str], filtered: bool
) -> None:
    if table["datatype"].isin(types).any():
        return
    present = sorted(table["datatype"].unique())
    cure = (
        "Does the filter keep any? "
        if filtered
        else f"Found recordings of {', '.join(present)}. "
        if present
        else ""
    )
    raise InputMissingError(
        f"{root}: no recording of {', '.join(types)}. {cure}Expected files such as "
        "sub-01/func/sub-01_task-film_bold.nii.gz or "
        "sub-01/eeg/sub-01_task-film_eeg.vhdr"
    )


def _keep(
    table: pd.DataFrame, name: str, wanted: tuple[str, ...], whom: str
) -> pd.DataFrame:
    """Rows that have one of the labels; each label must have a row."""
    if not wanted:
        return table
    for label in wanted:
        if not any(has_value(name, present, label) for present in table[name]):
            found = table[name].dropna().unique()
            listed = _listed(name, found) if len(found) else f"none has {name!r}"
            raise InputMissingError(
                f"no {_noun(table)} matches {_listed(name, [label])} {whom} "
                f"(found: {listed})"
            )
    return table[[has_value(name, present, wanted) for present in table[name]]]


def _keep_spaces(
    table: pd.DataFrame, spaces: tuple[str, ...], whom: str
) -> pd.DataFrame:
    """Spaces choose among BOLD rows; other recordings have no space."""
    is_bold = table["modality"] == "fmri"
    bold = table[is_bold]
    if not spaces or bold.empty:
        return table
    if (bold["dataset"] == "raw").all():
        raise InputMissingError(
            f"no BOLD run matches {_listed('space', spaces)} {whom} (found: raw BOLD, "
            "which is in no space). Give preprocessed data, such as "
            "--derivatives fmriprep=PATH"
        )
    kept = _keep(bold, "space", spaces, whom)
    return table[~is_bold | table.index.isin(kept.index)]


def _warn_of_raw_runs(table: pd.DataFrame, derivatives: Mapping[str, Layout]) -> None:
    bold = table[table["modality"] == "fmri"]
    raw = bold[bold["dataset"] == "raw"]
    if not derivatives or raw.empty:
        return
    descriptions = {
        file.entities["description"]
        for layout in derivatives.values()
        for file in layout.find({"suffix": "bold", "description": ANY})
    } - {"preproc"}
    found = f" (it has {_listed('description', descriptions)})" if descriptions else ""
    warnings.warn(
        f"{len(raw)} of {len(bold)} BOLD runs have no desc-preproc counterpart in "
        f"{', '.join(derivatives)}{found} and are read raw, such as "
        f"{raw['path'].iloc[0].name}",
        stacklevel=3,
    )


def _noun(table: pd.DataFrame) -> str:
    modalities = set(table["modality"])
    return _NOUNS[modalities.pop()] if len(modalities) == 1 else "recording"


def _whom(participant_label: Labels, subjects: Sequence[str], root: Path) -> str:
    if participant_label is None or len(subjects) > 5:
        return f"in {root}"
    return f"for {_listed('subject', subjects)}"


def _listed(name: str, labels: Any) -> str:
    """Labels as they stand in file names: ``sub-01, sub-02``."""
    prefix = short_name(name)
    ordered = sorted(set(labels), key=natural_key)
    return ", ".join(f"{prefix}-{label}" for label in ordered)
