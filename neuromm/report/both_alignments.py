"""Sites that are found in two alignments of the same recordings: words and scene cuts.

Each alignment is an output folder of its own, since its events are others. What one of
them finds alone may hang on what its events share, so that only both make a site
(Subramaniam et al. 2024).
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from neuromm.core import InputMissingError, UsageError
from neuromm.core.files import write_json
from neuromm.encoding.group_sites import both_alignments
from neuromm.report.group_sites import GroupSites, gather_sites
from neuromm.report.sidecars import write_tsv
from neuromm.report.units import read_subjects

__all__ = ["AlignedGroups", "aligned_section", "read_alignments"]


class AlignedGroups:
    """Groups of the other alignment, by what they share with those of this one.

    Parameters
    ----------
    names : (str, str)
        Of the alignments: of the two folders.
    groups : sequence of GroupSites
        Of the other folder.
    """

    def __init__(self, names: tuple[str, str], groups: Sequence[GroupSites]) -> None:
        self.names = names
        self._groups = {(group.datatype, group.name): group for group in groups}

    def of(self, group: GroupSites) -> GroupSites | None:
        """The same recordings in the other alignment; None if it has none."""
        return self._groups.get((group.datatype, group.name))


def read_alignments(output_dir: str | Path, other: str | Path) -> AlignedGroups:
    """Read the output folder of the other alignment.

    Raises
    ------
    neuromm.core.UsageError
        If both are one folder, or have no names that tell them apart.
    neuromm.core.InputMissingError
        If it holds no sites.
    """
    places = Path(output_dir).resolve(), Path(other).resolve()
    if places[0] == places[1]:
        raise UsageError(
            f"--both-alignments takes the output of another alignment, got {other}, "
            "which is this output itself"
        )
    first, second = (re.sub(r"[^0-9A-Za-z]", "", place.name) for place in places)
    if not first or not second or first == second:
        raise UsageError(
            f"the folders of two alignments need names that tell them apart, such as "
            f"words and scenes, got {places[0].name} and {places[1].name}"
        )
    groups = gather_sites(read_subjects(other))
    if not groups:
        raise InputMissingError(
            f"{other}: holds no sites of participants. Run neuromm encode … "
            "participant --sites there, with the other events (--trial-type)"
        )
    return AlignedGroups((first, second), groups)


def aligned_section(
    output_dir: str | Path, group: GroupSites, aligned: AlignedGroups | None
) -> dict[str, Any] | None:
    """Write the table of both alignments of a group; what the report says of it.

    Returns
    -------
    section : dict or None
        None without another alignment.
    """
    if aligned is None:
        return None
    other = aligned.of(group)
    if other is None:
        return {
            "text": f"{aligned.names[1]} holds no sites of these recordings.",
            "names": aligned.names,
            "rows": [],
            "file": "",
        }
    table = both_alignments(_tables(group), _tables(other), names=aligned.names)
    path = _write(output_dir, group, table, aligned.names)
    tested = table[table["tested"] == "both"]
    first, second = (int(tested[f"is_site_{name}"].sum()) for name in aligned.names)
    alone = len(table) - len(tested)
    text = (
        f"{int(tested['is_site'].sum())} of {len(tested)} {group.targets} that were "
        f"tested in both alignments are sites in both: {first} by "
        f"{aligned.names[0]}, {second} by {aligned.names[1]}."
    )
    if alone:
        text += f" {alone} were tested in one alignment alone, and are no sites here."
    return {
        "text": text,
        "names": aligned.names,
        "rows": _rows(tested, aligned.names),
        "file": path.relative_to(Path(output_dir)).as_posix(),
    }


def _tables(group: GroupSites) -> Mapping[str, pd.DataFrame]:
    return {
        subject: unit.sites.table
        for subject, unit in group.units.items()
        if unit.sites is not None
    }


def _rows(tested: pd.DataFrame, names: tuple[str, str]) -> list[dict[str, Any]]:
    """A row a region with a site in either alignment, most sites in both first."""
    if "region" not in tested:
        return []
    columns = [f"is_site_{name}" for name in names]
    rows = []
    for region, part in tested.groupby("region"):
        if not part[columns].to_numpy().any():
            continue
        first, second = (int(part[column].sum()) for column in columns)
        rows.append(
            {
                "region": str(region),
                "tested": len(part),
                "first": first,
                "second": second,
                "both": int(part["is_site"].sum()),
                "subjects": int(part.loc[part["is_site"], "subject"].nunique()),
            }
        )
    return sorted(rows, key=lambda row: (-row["both"], row["region"]))


def _write(
    output_dir: str | Path, group: GroupSites, table: pd.DataFrame, names: Sequence[str]
) -> Path:
    path = Path(output_dir, "group", group.stem("bothalignments") + ".tsv")
    write_tsv(path, table)
    told = {
        "is_site": "Site in both alignments",
        "gain": "The smaller gain of the two, a difference of correlations",
        "q": "The larger false discovery rate of the two",
        "tested": "In which alignments there is a score: both, or the name of one",
    }
    for name in names:
        told[f"is_site_{name}"] = f"Site in the alignment {name}"
        told[f"gain_{name}"] = f"Gain in the alignment {name}"
        told[f"q_{name}"] = f"False discovery rate in the alignment {name}"
    sidecar = {
        "Description": "Sites of multimodal integration in two alignments of the same "
        "recordings: a row a target",
        "Alignments": list(names),
        **{name: {"Description": text} for name, text in told.items()},
    }
    write_json(path.with_suffix(".json"), sidecar)
    return path
