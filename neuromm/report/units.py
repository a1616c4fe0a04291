"""Units as they lie on disk: what a report is built from."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from neuromm.core import DataError, InputMissingError
from neuromm.core.files import read_json
from neuromm.report.naming import bids_name, contrast_label, label_of, parse_name
from neuromm.report.site_tables import MappedSites, read_sites

__all__ = ["Unit", "read_subjects", "read_units"]

_SCORES = "_desc-encoding_scores"
_TYPES: Any = {"target": str, "region": "category", "space": "category"}
_NUMBERS = ("x", "y", "z", "time", "r", "r2", "alpha", "p", "q", "ceiling")


@dataclass(frozen=True)
class Unit:
    """One unit of an output folder.

    Attributes
    ----------
    path : Path
        The score table.
    sidecar : mapping
        Its JSON.
    entities : mapping of str to str
        Long names; without ``description``.
    """

    path: Path
    sidecar: Mapping[str, Any]
    entities: Mapping[str, str]

    @cached_property
    def table(self) -> pd.DataFrame:
        """The score table; "n/a" as nan, ``region`` and ``space`` as categories."""
        return _read_table(self.path)

    @property
    def name(self) -> str:
        """Entities as in file names, without the subject."""
        return label_of(self.entities, without=("subject",)) or self.datatype

    @property
    def datatype(self) -> str:
        """Folder of BIDS: func, eeg, meg or ieeg."""
        return self.path.parent.name

    @property
    def frame(self) -> str | None:
        """Coordinate frame of x, y and z; None where positions are unknown."""
        frame = self.sidecar.get("CoordinateFrame")
        return None if frame in (None, "n/a") else str(frame)

    @property
    def design(self) -> Mapping[str, Any]:
        """How it was computed, with what the file names tell."""
        told = {
            name: self.entities[name]
            for name in ("task", "space")
            if name in self.entities
        }
        design: Mapping[str, Any] = self.sidecar.get("Encoding") or {}
        sites = {} if self.sites is None else {"sites": self.sites.design}
        return {**told, "datatype": self.datatype, **design, **sites}

    @property
    def summary(self) -> Mapping[str, Mapping[str, Any]]:
        """Numbers of each feature space."""
        summary: Mapping[str, Mapping[str, Any]] = self.sidecar.get("Summary") or {}
        return summary

    @cached_property
    def sites(self) -> MappedSites | None:
        """Sites of multimodal integration; None where none were mapped."""
        return read_sites(self.path)

    @property
    def spaces(self) -> list[str]:
        """Feature spaces, ``joint`` among them where it was fitted."""
        return list(self.summary)

    @property
    def tested(self) -> bool:
        """Whether a permutation test was run."""
        return any(s.get("n_significant") is not None for s in self.summary.values())

    @property
    def timed(self) -> bool:
        """Whether targets are resolved in time."""
        return "time" in self.table and self.table["time"].nunique() > 1

    def volume(self, space: str, stat: str = "r") -> Path | None:
        """Map of a feature space, or None if it is no volume."""
        return _existing(self._map(space, stat, None, ".nii.gz"))

    def surface(self, space: str, stat: str = "r") -> dict[str, Path] | None:
        """Maps of both hemispheres, by "L" and "R", or None if it is no surface."""
        paths = {side: self._map(space, stat, side, ".func.gii") for side in ("L", "R")}
        return paths if all(path.exists() for path in paths.values()) else None

    def _map(self, space: str, stat: str, side: str | None, extension: str) -> Path:
        labels = {
            **self.entities,
            "hemisphere": side,
            "contrast": contrast_label(space),
            "stat": stat,
        }
        return self.path.with_name(bids_name(labels, "statmap", extension))


def read_units(output_dir: str | Path, subject: str) -> list[Unit]:
    """Finished units of a subject, in the order of their names.

    Raises
    ------
    neuromm.core.InputMissingError
        If there is none.
    neuromm.core.DataError
        If a sidecar is missing or damaged.
    """
    folder = Path(output_dir, f"sub-{subject}")
    units = [_read_unit(path) for path in sorted(folder.rglob(f"*{_SCORES}.tsv"))]
    if not units:
        raise InputMissingError(
            f"{folder}: no score table (*{_SCORES}.tsv) to report on; run the "
            "participant level first"
        )
    return units


def read_subjects(output_dir: str | Path) -> dict[str, list[Unit]]:
    """Finished units of every subject.

    Raises
    ------
    neuromm.core.InputMissingError
        If there is none.
    """
    tables = Path(output_dir).glob(f"sub-*/**/*{_SCORES}.tsv")
    subjects = sorted({parse_name(path)["subject"] for path in tables})
    if not subjects:
        raise InputMissingError(
            f"{output_dir}: no score table (sub-*/**/*{_SCORES}.tsv) to report on; run "
            "the participant level first"
        )
    return {subject: read_units(output_dir, subject) for subject in subjects}


def _read_unit(path: Path) -> Unit:
    sidecar = path.with_suffix(".json")
    if not sidecar.exists():
        raise DataError(
            f"its sidecar {sidecar.name} is missing; encode the unit again", path
        )
    entities = parse_name(path)
    entities.pop("description", None)
    return Unit(path, read_json(sidecar), entities)


def _read_table(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(
            path,
            sep="\t",
            na_values=["n/a"],
            keep_default_na=False,
            dtype=_TYPES,
            low_memory=False,
        )
    except (ValueError, OSError) as error:
        raise DataError(f"is not a score table ({error})", path) from error
    missing = [name for name in ("target", "space", "r") if name not in table]
    if missing:
        raise DataError(f"a score table needs the columns {', '.join(missing)}", path)
    for name in _NUMBERS:
        if name in table:
            table[name] = pd.to_numeric(table[name], errors="coerce")
        elif name != "time" and name != "ceiling":
            table[name] = np.nan
    if "region" not in table:
        table["region"] = np.nan
    order = list(dict.fromkeys(table["space"]))
    table["space"] = table["space"].cat.reorder_categories(order)
    return table


def _existing(path: Path) -> Path | None:
    return path if path.exists() else None
