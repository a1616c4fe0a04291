"""Rows of a study of MRI: the files of a scan, and how they are read together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from neuromm.core import InputMissingError, Sample, Study, UsageError
from neuromm.io import mri

__all__ = [
    "Missing",
    "VolumeLoader",
    "existing_folder",
    "scan_row",
    "study_of",
    "volumes_in",
]

Missing = Literal["raise", "drop", "allow"]

_COLUMNS = ("subject", "session", "task", "run", "space", "modality", "path")
_VOLUMES = (".nii.gz", ".nii", ".mha")


@dataclass(frozen=True)
class VolumeLoader:
    """Reads the volumes of a row, and checks or makes their grid one."""

    modalities: tuple[str, ...]
    resample_to: str | None
    read: Callable[[Path], Sample]

    def __call__(self, row: pd.Series) -> Sample:
        """Read the headers of one row of a study."""
        names = [name for name in self.modalities if name in row["files"]]
        entities = {
            name: row[name]
            for name in ("subject", "session", "slice")
            if isinstance(row.get(name), str)
        }
        labels = row["labels"]
        return mri.combine(
            {name: self.read(row["files"][name]) for name in names},
            resample_to=self.resample_to,
            entities=entities,
            companions={} if labels is None else {"labels": labels},
        )


def study_of(
    rows: list[dict[str, Any]],
    modalities: Sequence[str],
    missing: Missing,
    resample_to: str | None,
    read: Callable[[Path], Sample] = mri.load,
) -> Study:
    """Study of the rows that have, or may lack, the modalities.

    Parameters
    ----------
    rows : list of dict
        As `scan_row` makes them.
    modalities : sequence of str
    missing : {"raise", "drop", "allow"}
        What becomes of a row that lacks a modality.
    resample_to : str or None
        Modality to whose grid others are brought.
    read : callable of a path
        Reads one volume.

    Raises
    ------
    UsageError
        If ``missing`` is none of the three.
    InputMissingError
        If a row lacks a modality that it must have, or no row is left.
    """
    if missing not in ("raise", "drop", "allow"):
        raise UsageError(f"missing must be raise, drop or allow, got {missing!r}")
    lacking = [row for row in rows if len(row["files"]) < len(modalities)]
    if lacking and missing == "raise":
        named = [
            f"{row['path'].parent.name} of subject {row['subject']}: no "
            f"{', '.join(m for m in modalities if m not in row['files'])}"
            for row in lacking
        ]
        raise InputMissingError(
            f"{len(lacking)} of {len(rows)} scans lack a modality: "
            f"{'; '.join(named[:10])}. Leave them out with missing='drop', or keep "
            "them with missing='allow'"
        )
    kept = [row for row in rows if missing == "allow" or row not in lacking]
    if not kept:
        raise InputMissingError(f"no scan has all of {', '.join(modalities)}")
    return Study(pd.DataFrame(kept), VolumeLoader(tuple(modalities), resample_to, read))


def scan_row(
    subject: str, files: dict[str, Path], labels: Path | None, root: Path
) -> dict[str, Any]:
    """Row of one scan: its person, its volumes by modality, and its mask."""
    row: dict[str, Any] = dict.fromkeys(_COLUMNS)
    return row | {
        "subject": subject,
        "modality": "mri",
        "path": next(iter(files.values()), root),
        "modalities": tuple(files),
        "files": files,
        "labels": labels,
    }


def existing_folder(path: str | Path) -> Path:
    """Folder as a path; InputMissingError if there is none."""
    path = Path(path)
    if not path.is_dir():
        raise InputMissingError(f"{path}: no such folder")
    return path


def volumes_in(folder: Path) -> dict[str, Path]:
    """Volumes of a folder by their names in lower case, without the extension."""
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("*")):
        name = path.name.lower()
        ending = next((e for e in _VOLUMES if name.endswith(e)), None)
        if ending is None:
            continue
        key = name.removesuffix(ending)
        if key in found:
            raise UsageError(
                f"{folder}: holds {found[key].name} and {path.name}; remove one"
            )
        found[key] = path
    return found
