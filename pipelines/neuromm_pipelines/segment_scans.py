"""Scans of ``neuromm segment``: data sets of four layouts as one kind of study."""

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuromm.core import DataError, InputMissingError, Sample, Study, UsageError
from neuromm.io import mri, mri_layouts
from neuromm.prepare import SagittalOrder

__all__ = [
    "Scan",
    "classes_of",
    "open_scans",
    "parsed_classes",
    "persons_of",
    "scaled_volume",
    "turned",
]

_DEFAULT_MODALITIES = {
    "bids": ("T1w", "T2w"),
    "ivdm3seg": mri_layouts.IVDM3SEG_MODALITIES,
    "spider": ("t1", "t2"),
}
_VOLUMES = (".nii.gz", ".nii", ".mha")
# Labels of a class: each number, or both ends of a range.
Values = tuple[tuple[int, int], ...]
_ANY = ((1, 2**31 - 1),)
_SPIDER_DISCS = ((201, 299),)


@dataclass(frozen=True)
class Scan:
    """One scan: where it lies, and how it is read.

    Attributes
    ----------
    name : str
        ``sub-01`` or ``sub-01_ses-a``: name of the unit.
    subject : str
        The person, by whom splits are made.
    entities : mapping of str to str
    study : Study
    row : int
    """

    name: str
    subject: str
    entities: Mapping[str, str]
    study: Study
    row: int

    def load(self) -> Sample:
        """Read the headers of all modalities."""
        return self.study.load(self.row)

    @property
    def files(self) -> list[Path]:
        """What is read for it, labels not among them."""
        own: Mapping[str, Path] = self.study.table["files"].iloc[self.row]
        return list(own.values())

    def file_of(self, modality: str) -> Path:
        """File, or DICOM folder, of a modality that it has."""
        own: Mapping[str, Path] = self.study.table["files"].iloc[self.row]
        return own[modality]

    @property
    def modalities(self) -> tuple[str, ...]:
        """Those that it has."""
        own: tuple[str, ...] = self.study.table["modalities"].iloc[self.row]
        return own

    @property
    def has_labels(self) -> bool:
        """Whether there is a reference mask."""
        return bool(pd.notna(self.study.table["labels"].iloc[self.row]))


def open_scans(
    data: Path,
    *,
    layout: str,
    modalities: Sequence[str] | None,
    participant_label: Sequence[str] | None = None,
    labels: Path | None = None,
    resample_to: str | None = None,
    persons: Path | None = None,
) -> tuple[list[Scan], tuple[str, ...], str]:
    """List the scans of a data set.

    Returns
    -------
    scans : list of Scan
    modalities : tuple of str
        Those asked for, or those that the layout has.
    layout : str

    Raises
    ------
    neuromm.core.NeurommError
        If the layout is none that is known, or a scan, a modality or a subject that
        was named is not there.
    """
    if not data.is_dir():
        raise InputMissingError(f"{data}: no such folder")
    kind = _told(data) if layout == "auto" else layout
    if persons is not None and kind != "ivdm3seg":
        raise UsageError(f"--persons is of the layout ivdm3seg, this is {kind}")
    wanted = tuple(modalities or _DEFAULT_MODALITIES.get(kind, ()))
    if not wanted:
        raise UsageError(
            "--modalities is needed for the layout files: the names of the images of "
            "each subject, such as --modalities T1 T2"
        )
    # A scan that lacks one is refused, or not, when its turn comes.
    sets: dict[str, Any] = {"modalities": wanted, "missing": "allow"}
    sets["resample_to"] = resample_to
    if kind == "bids":
        study = mri_layouts.open_anat(
            data, participant_label=participant_label, labels=labels, **sets
        )
    elif kind == "ivdm3seg":
        people = None if persons is None else persons_of(persons)
        # Of sets that may be of one person; of interest where patients are split.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            study = mri_layouts.open_ivdm3seg(data, subjects=people, **sets)
    elif kind == "spider":
        study = mri_layouts.open_spider(data, **sets)
    else:
        study = mri_layouts.open_folders(data, **sets)
    return _kept(study, participant_label), wanted, kind


def parsed_classes(words: Sequence[str] | None, layout: str) -> dict[str, Values]:
    """Labels of each class by ``--classes``, the background left out.

    Raises
    ------
    neuromm.core.UsageError
        If a word is no NAME=VALUES, labels belong to two classes, or none is ``disc``.
    """
    if not words:
        return {"disc": _SPIDER_DISCS if layout == "spider" else _ANY}
    found: dict[str, Values] = {}
    for word in words:
        name, equals, text = word.partition("=")
        parts = [re.fullmatch(r"(\d+)(?:-(\d+))?", one) for one in text.split(",")]
        if not equals or not name or not all(parts) or name in found:
            raise UsageError(
                f"--classes takes NAME=VALUES, each name once, such as disc=201-225 "
                f"canal=100, got {word!r}"
            )
        found[name] = tuple(
            (int(part[1]), int(part[2] or part[1])) for part in parts if part
        )
    if "disc" not in found:
        raise UsageError(
            f"--classes must name a class disc, got {', '.join(found)}: discs are what "
            "is measured"
        )
    ends = sorted((pair, name) for name, pairs in found.items() for pair in pairs)
    for (first, one), (second, other) in pairwise(ends):
        if second[0] <= first[1]:
            raise UsageError(f"--classes: labels of {one} and {other} overlap")
    if ends[0][0][0] < 1 or any(low > high for (low, high), _ in ends):
        raise UsageError(
            "--classes: labels are 1 or above, and ranges run upwards, as in 201-225"
        )
    return found


def classes_of(
    labels: NDArray[Any], classes: Mapping[str, Values]
) -> NDArray[np.int64]:
    """Class of each voxel from its label, 0 for background and all others."""
    found = np.zeros(labels.shape, dtype=np.int64)
    for number, pairs in enumerate(classes.values(), start=1):
        for low, high in pairs:
            found[(labels >= low) & (labels <= high)] = number
    return found


def turned(sample: Sample, modalities: Sequence[str]) -> tuple[Any, SagittalOrder]:
    """Intensities with sagittal slices first, zeros for what is missing, and the order.

    Returns
    -------
    volume : array of float32 of shape (n_modalities, slices, to the front, up)
    order : SagittalOrder
    """
    present = [name for name in modalities if name in sample.data]
    held = mri.stacked(sample, present)
    order = SagittalOrder(sample.data[present[0]].affine)
    volume = np.zeros((len(modalities), *held.shape[1:]), dtype=np.float32)
    for name, values in zip(present, held, strict=True):
        volume[list(modalities).index(name)] = values
    return order.turned(volume), order


def scaled_volume(
    sample: Sample, modalities: Sequence[str], scaling: Any
) -> tuple[NDArray[np.float32], NDArray[np.bool_], SagittalOrder]:
    """Scaled intensities as `turned`, which modalities there are, and the order.

    What is missing is 0, whatever the scaling makes of 0.
    """
    volume, order = turned(sample, modalities)
    present = np.array([name in sample.data for name in modalities])
    scaled = np.zeros(volume.shape, dtype=np.float32)
    scaled[present] = scaling.apply(np.ascontiguousarray(volume[present]))
    return scaled, present, order


def persons_of(path: Path) -> dict[str, str]:
    """Set to person, from a table with the columns ``set`` and ``subject``."""
    try:
        table = pd.read_csv(path, sep="\t", dtype=str)
    except FileNotFoundError as error:
        raise InputMissingError(f"{path}: no such file") from error
    except (ValueError, pd.errors.ParserError) as error:
        raise DataError(f"is no table ({error})", path) from error
    if not {"set", "subject"} <= set(table):
        raise DataError(
            f"needs the columns set and subject, got {', '.join(map(str, table))}", path
        )
    return dict(zip(table["set"], table["subject"], strict=True))


def _told(data: Path) -> str:
    """Layout of a folder by what lies in it."""
    if (data / "dataset_description.json").is_file():
        return "bids"
    if (data / "images").is_dir():
        return "spider"
    folders = [path for path in sorted(data.iterdir()) if path.is_dir()]
    if any(list(path.glob(f"{path.name}_*.nii*")) for path in folders):
        return "ivdm3seg"
    if folders:
        return "files"
    raise InputMissingError(
        f"{data}: holds no folder of a layout that is known. neuromm segment fit "
        "--help shows the four, and --layout names one"
    )


def _kept(study: Study, participant_label: Sequence[str] | None) -> list[Scan]:
    table = study.table
    wanted = None
    if participant_label is not None:
        wanted = {label.removeprefix("sub-") for label in participant_label}
        lacking = wanted - set(map(_label, table["subject"]))
        if lacking:
            raise InputMissingError(
                f"no scan of sub-{', sub-'.join(sorted(lacking))} (found: "
                f"{', '.join(sorted(set(map(_label, table['subject']))))})"
            )
    # Several scans of a person without a session are told apart by their set.
    several = table.duplicated(["subject", "session"], keep=False)
    scans = []
    for row in range(len(table)):
        subject, session = table["subject"].iloc[row], table["session"].iloc[row]
        if wanted is not None and _label(subject) not in wanted:
            continue
        entities = {"subject": _label(subject)}
        if several.iloc[row] and "set" in table:
            session = table["set"].iloc[row]
        if session is not None and pd.notna(session):
            entities["session"] = _label(session)
        name = f"sub-{entities['subject']}"
        if "session" in entities:
            name += f"_ses-{entities['session']}"
        scans.append(Scan(name, str(subject), entities, study, row))
    return scans


def _label(value: Any) -> str:
    return re.sub(r"[^0-9A-Za-z]", "", str(value))
