"""Sites of several subjects: gathered from their tables, counted, drawn, written.

Statistics are those of `neuromm.encoding.group_sites`: subjects are what is resampled.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from neuromm.atlas import in_mni_family
from neuromm.core.files import write_json
from neuromm.encoding.group_courses import score_courses
from neuromm.encoding.group_sites import group_effect, model_ranks, region_table
from neuromm.encoding.group_tables import models_of, named_regions
from neuromm.report.naming import bids_name, label_of
from neuromm.report.sidecars import write_tsv
from neuromm.report.site_courses import read_courses
from neuromm.report.units import Unit

__all__ = ["GroupSites", "gather_sites", "write_group_tables"]

_SITES = "multimodalsites"
_TARGETS = {"eeg": "sensors", "meg": "sensors", "ieeg": "contacts"}
_TABLES = {
    "regions": {
        "region": "Label of the atlas",
        "n_targets": "Targets of all subjects in the region that could be tested",
        "n_subjects": "Subjects with such a target",
        "n_sites": "Sites among the targets",
        "n_subjects_with_sites": "Subjects with a site in the region",
        "share": "n_sites / n_targets",
        "share_low": "Lower end of the 95 % interval of share over resampled subjects",
        "share_high": "Upper end of the same interval",
        "mean_gain": "Mean gain of the tested targets, a difference of correlations",
        "time_of_largest_gain": "Time from the event at which the mean gain is "
        "largest, in s; a description, since a peak is always somewhere",
        "time_low": "Lower end of its interval over resampled subjects, in s",
        "time_high": "Upper end of the same interval, in s",
    },
    "effects": {
        "region": "Label of the atlas; all: every target",
        "mean": "Mean gain, a difference of correlations",
        "ci_low": "Lower end of the 95 % interval over resampled units",
        "ci_high": "Upper end of the same interval",
        "p": "One-sided, from flipped signs of the units",
        "q": "False discovery rate of p over the regions",
        "smallest_p": "Lowest p that so many units can give",
        "n_subjects": "Subjects",
        "n_targets": "Targets of all subjects",
        "kind": "random: units are the mean gains of subjects; fixed: units are "
        "targets, pooled, so that nothing follows for other subjects",
    },
}


@dataclass(frozen=True)
class GroupSites:
    """Sites of one task and space over subjects.

    Attributes
    ----------
    name : str
        Entities without subject and session, as in file names; ``""`` without any.
    datatype : str
        Folder of BIDS: func, eeg, meg or ieeg.
    units : mapping of str to Unit
        By subject.
    notes : tuple of str
        What was left out, and why.
    """

    name: str
    datatype: str
    units: Mapping[str, Unit]
    notes: tuple[str, ...] = ()

    @property
    def unit(self) -> Unit:
        """That of the first subject."""
        return next(iter(self.units.values()))

    @property
    def targets(self) -> str:
        """What is counted, in words."""
        if self.datatype == "func":
            return "vertices" if self.is_surface else "voxels"
        return _TARGETS.get(self.datatype, "targets")

    @property
    def is_surface(self) -> bool:
        """Whether targets are vertices of fsaverage."""
        return str(self.unit.frame or self.unit.entities.get("space")).startswith(
            "fsaverage"
        )

    @property
    def placed(self) -> bool:
        """Whether positions of every subject are in MNI space."""
        return all(in_mni_family(unit.frame) for unit in self.units.values())

    @property
    def settings(self) -> Mapping[str, Any]:
        """How sites were found, in the first subject."""
        sites = self.unit.sites
        return {} if sites is None else sites.settings

    @property
    def multimodal(self) -> str:
        """Name of the multimodal space."""
        return str(self.settings["multimodal"])

    @property
    def attrs(self) -> dict[str, Any]:
        """What the compared feature spaces say of themselves."""
        told: dict[str, Any] = {}
        for unit in self.units.values():
            told |= unit.design.get("feature_spaces") or {}
        return told

    @cached_property
    def table(self) -> pd.DataFrame:
        """The tables of all subjects, with the column ``subject``."""
        tables = [
            unit.sites.table.assign(subject=subject)
            for subject, unit in self.units.items()
            if unit.sites is not None
        ]
        return pd.concat(tables, ignore_index=True)

    @cached_property
    def has_regions(self) -> bool:
        """Whether a scored target has the label of a region."""
        known = named_regions(self.table["region"]) & self.table["gain"].notna()
        return bool(known.any())

    @cached_property
    def courses(self) -> pd.DataFrame | None:
        """Scores of all subjects in each bin; None unless every subject has them."""
        tables = []
        for subject, unit in self.units.items():
            one = None if unit.sites is None else read_courses(unit.sites.path)
            if one is None or unit.sites is None:
                return None
            regions = unit.sites.table.set_index("target")["region"]
            one["region"] = one["target"].map(regions)
            tables.append(one.assign(subject=subject))
        return pd.concat(tables, ignore_index=True)

    @cached_property
    def regions(self) -> pd.DataFrame | None:
        """Table of `region_table`; None without regions."""
        if not self.has_regions:
            return None
        return region_table(self.table, courses=self.courses)

    @cached_property
    def effects(self) -> pd.DataFrame:
        """Effects of `group_effect`, random and fixed, of all and of each region."""
        table = self.table[self.table["gain"].notna()]
        parts = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # smallest_p tells it
            for kind in ("random", "fixed"):
                for regions in (None, table["region"]) if self.has_regions else (None,):
                    effects = group_effect(
                        table["gain"],
                        table["subject"],
                        regions=regions,
                        kind=kind,  # type: ignore[arg-type]
                        n_resamples=2000,
                    )
                    parts.append(effects)
        return pd.concat(parts, ignore_index=True)

    @cached_property
    def ranks(self) -> pd.DataFrame | None:
        """Ranks of `model_ranks`; None without regions."""
        if not self.has_regions:
            return None
        scores = self.table[[f"score_{name}" for name in models_of(self.table)]]
        named = scores.rename(columns=lambda name: str(name).removeprefix("score_"))
        return model_ranks(named, self.table["region"], subjects=self.table["subject"])

    def mean_courses(self, by: str | None = None) -> pd.DataFrame | None:
        """Means of `score_courses`; None where targets have no bins."""
        if self.courses is None or (by is not None and not self.has_regions):
            return None
        return score_courses(self.courses, by=by)

    def stem(self, what: str) -> str:
        """Name of a file of the group folder, without an extension."""
        entities = {**self.unit.entities, "subject": None, "session": None}
        name = bids_name({**entities, "description": _SITES}, what, "")
        return f"{self.datatype}/{name}"


@dataclass
class _Gathered:
    units: dict[str, Unit] = field(default_factory=dict)
    sessions: list[str] = field(default_factory=list)
    otherwise: list[str] = field(default_factory=list)


def gather_sites(subjects: Mapping[str, Sequence[Unit]]) -> list[GroupSites]:
    """Sites of every task and space that several subjects, or one, have.

    A target counts once: of several sessions of a subject the first is taken, and the
    notes say so. Subjects whose other models, or whose multimodal space, have other
    names than those of the first subject are left out and named.

    Parameters
    ----------
    subjects : mapping of str to sequence of Unit
        `neuromm.report.units.read_subjects` of an output folder.

    Returns
    -------
    groups : list of GroupSites
        Empty where no sites were mapped, or none could be tested.
    """
    found: dict[tuple[str, str], _Gathered] = {}
    for subject, units in subjects.items():
        for unit in units:
            if unit.sites is None or not unit.sites.table["gain"].notna().any():
                continue
            name = label_of(unit.entities, without=("subject", "session"))
            group = found.setdefault((unit.datatype, name), _Gathered())
            if subject in group.units:
                group.sessions.append(f"sub-{subject} {unit.name}")
            elif group.units and _compared(unit) != _compared(
                next(iter(group.units.values()))
            ):
                group.otherwise.append(f"sub-{subject}")
            else:
                group.units[subject] = unit
    return [
        GroupSites(name, datatype, group.units, _notes(group))
        for (datatype, name), group in sorted(found.items())
    ]


def write_group_tables(output_dir: str | Path, group: GroupSites) -> list[Path]:
    """Write the tables of regions and effects of a group, with sidecars.

    Returns
    -------
    paths : list of Path
    """
    tables = {"regions": group.regions, "effects": group.effects}
    paths = []
    for what, table in tables.items():
        if table is None:
            continue
        path = Path(output_dir, "group", group.stem(what) + ".tsv")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tsv(path, table)
        known = _TABLES[what]
        sidecar = {
            "Description": f"Sites of multimodal integration over subjects: {what}",
            "Subjects": [f"sub-{subject}" for subject in group.units],
            "Notes": list(group.notes),
            **{str(c): {"Description": known[str(c)]} for c in table if c in known},
        }
        paths += [path, write_json(path.with_suffix(".json"), sidecar)]
    return paths


def _compared(unit: Unit) -> tuple[Any, ...]:
    """What has to be the same in every subject."""
    told = {} if unit.sites is None else unit.sites.settings
    spaces = (told.get("unimodal") or [], told.get("controls") or [])
    return (told.get("multimodal"), *(tuple(sorted(one)) for one in spaces))


def _notes(group: _Gathered) -> tuple[str, ...]:
    notes = []
    if group.sessions:
        notes.append(
            "A target counts once, in the first session of its subject; left out: "
            + ", ".join(group.sessions)
        )
    if group.otherwise:
        notes.append(
            "Left out, since other models were compared: " + ", ".join(group.otherwise)
        )
    return tuple(notes)
