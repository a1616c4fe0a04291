"""What the group report says of sites of multimodal integration."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from neuromm.report.both_alignments import AlignedGroups, aligned_section
from neuromm.report.figures.site_drawing import is_stand_in
from neuromm.report.group_site_pictures import group_site_pictures
from neuromm.report.group_sites import GroupSites, gather_sites, write_group_tables
from neuromm.report.units import Unit

__all__ = ["group_site_sections"]

_N_REGIONS = 25
_FEW = 6  # subjects; fewer cannot reach p < 0.05 in a two-sided test


def group_site_sections(
    output_dir: str | Path,
    subjects: Mapping[str, Sequence[Unit]],
    aligned: AlignedGroups | None = None,
) -> list[dict[str, Any]]:
    """Write tables and figures of the sites of subjects; return the report's content.

    Parameters
    ----------
    output_dir : path-like
    subjects : mapping of str to sequence of Unit
        `neuromm.report.units.read_subjects` of the folder.
    aligned : AlignedGroups, optional
        The same recordings in another alignment.

    Returns
    -------
    sections : list of dict
        One a task and space; empty where no sites were mapped.
    """
    sections = []
    for group in gather_sites(subjects):
        write_group_tables(output_dir, group)
        sections.append(
            {
                "id": f"sites-{group.datatype}-{group.name or 'all'}",
                "unit": group.unit,
                "counts": _counts(group),
                "effect": _effect(group),
                "notes": [*group.notes, *_warnings(group)],
                "galleries": group_site_pictures(output_dir, group),
                "targets": group.targets,
                "regions": _region_rows(group),
                "n_regions": 0 if group.regions is None else len(group.regions),
                "timed": group.courses is not None,
                "both": aligned_section(output_dir, group, aligned),
                "file": f"group/{group.stem('regions')}.tsv",
                "folder": f"group/{group.datatype}/",
            }
        )
    return sections


def _counts(group: GroupSites) -> str:
    table = group.table[group.table["gain"].notna()]
    n_sites, n_tested = int(table["is_site"].sum()), len(table)
    with_sites = table.loc[table["is_site"], "subject"].nunique()
    level = float(group.settings.get("q", 0.05))
    return (
        f"{n_sites:,} of {n_tested:,} tested {group.targets} of {len(group.units)} "
        f"{_plural(len(group.units), 'subject')} are sites (q <= {level:g} within each "
        f"subject); {with_sites} {_plural(with_sites, 'subject')} with sites."
    )


def _effect(group: GroupSites) -> str:
    effects = group.effects
    every = effects[effects["region"] == "all"].set_index("kind")
    one = every.loc[["random"]].to_dict("records")[0]
    text = (
        f"Gain of {group.multimodal} over its strongest competitor, mean over all "
        f"{group.targets}: {_number(one['mean'])}"
    )
    if pd.notna(one["ci_low"]):
        text += (
            f" (95 % interval over resampled subjects {_number(one['ci_low'])} to "
            f"{_number(one['ci_high'])}; p = {one['p']:.2g}, flipped signs of subjects)"
        )
    return (
        f"{text}. A mean below 0 does not speak against sites: most {group.targets} "
        "follow a simpler model or none."
    )


def _warnings(group: GroupSites) -> list[str]:
    told = []
    if is_stand_in(group.attrs):
        told.append(
            "Features are stand-ins, not those of a network: no result about the brain."
        )
    n_subjects = len(group.units)
    if n_subjects >= _FEW:
        return told
    return [
        *told,
        f"{n_subjects} {_plural(n_subjects, 'subject')}: intervals over so few are "
        f"rough, and p cannot be lower than {1 / 2**n_subjects:.2g}. The counts "
        "describe these subjects.",
    ]


def _region_rows(group: GroupSites) -> list[dict[str, str]]:
    if group.regions is None:
        return []
    rows = []
    for row in group.regions.head(_N_REGIONS).to_dict("records"):
        interval = ""
        if pd.notna(row["share_low"]):
            interval = f"{row['share_low']:.1%} to {row['share_high']:.1%}"
        peak = row.get("time_of_largest_gain")
        rows.append(
            {
                "region": str(row["region"]),
                "targets": f"{int(row['n_targets']):,}",
                "subjects": f"{int(row['n_subjects'])}",
                "sites": f"{int(row['n_sites']):,}",
                "with_sites": f"{int(row['n_subjects_with_sites'])}",
                "share": f"{row['share']:.1%}",
                "interval": interval,
                "gain": _number(row["mean_gain"]),
                "peak": "" if peak is None or pd.isna(peak) else f"{peak:.3g}",
            }
        )
    return rows


def _plural(number: int, noun: str) -> str:
    return noun if number == 1 else f"{noun}s"


def _number(value: float) -> str:
    return "n/a" if pd.isna(value) else f"{value:.3f}"
