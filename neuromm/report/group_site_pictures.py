"""Pictures of the sites of several subjects, in the report and as files."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from neuromm.encoding.site_decision import adjusted
from neuromm.report.figures import Picture
from neuromm.report.figures.site_drawing import Drawing
from neuromm.report.figures.site_maps import contact_sites, vertex_sites
from neuromm.report.figures.site_models import rank_heat_map, twin_scatter
from neuromm.report.figures.site_regions import gain_distribution, region_bars
from neuromm.report.figures.site_times import site_time_courses
from neuromm.report.figures.surfaces import N_VERTICES
from neuromm.report.group_site_voxels import voxel_drawing
from neuromm.report.group_sites import GroupSites
from neuromm.report.pictures import Gallery

__all__ = ["control_scores", "group_site_pictures", "mean_vertices"]

_TWIN = "random twin"  # as tables of features say it
_MAJORITY = 0.5


def group_site_pictures(output_dir: str | Path, group: GroupSites) -> list[Gallery]:
    """Draw the sites of a group, and write every figure as PNG, SVG and TSV.

    Parameters
    ----------
    output_dir : path-like
        Files go to ``group/<datatype>/…_desc-multimodalsites_<what>``.
    group : GroupSites

    Returns
    -------
    galleries : list of Gallery
    """
    places = Gallery("Where the sites of the subjects lie")
    if group.datatype == "ieeg" and not group.placed:
        places.notes.append(
            "The contacts of at least one subject are not placed in MNI space, so none "
            "are drawn on a template brain."
        )
    maps = list(_maps(group))
    if group.targets == "voxels":
        drawing = voxel_drawing(group)
        if isinstance(drawing, str):
            places.notes.append(drawing)
        else:
            maps.append(("shareglass", drawing))
    counts = Gallery("Regions and gains")
    if group.regions is None:
        counts.notes.append(f"The {group.targets} carry no regions of an atlas.")
    drawn = [
        (places, maps),
        (counts, _counts(group)),
        (Gallery("Over time"), _courses(group)),
        (Gallery("Models"), _models(group)),
    ]
    for gallery, drawings in drawn:
        for what, drawing in drawings:
            stem = Path(output_dir, "group", group.stem(what))
            stem.parent.mkdir(parents=True, exist_ok=True)
            png, *_ = drawing.write(stem)
            picture = Picture(png.read_bytes(), drawing.alt, drawing.caption)
            gallery.pictures.append(picture)
    return [one for one, _ in drawn if one.pictures or one.notes]


def control_scores(group: GroupSites) -> pd.DataFrame:
    """Scores of the multimodal network and of each control.

    Returns
    -------
    table : DataFrame
        A row a control and target: ``model`` (the control), ``subject``, ``target``,
        ``trained``, ``random`` (score of the control) and ``is_better``: whether the
        comparison with it is significant, by the false discovery rate over targets.
        Empty without controls.
    """
    table, level = group.table, float(group.settings.get("q", 0.05))
    parts = []
    for name in group.settings.get("controls") or []:
        if f"score_{name}" not in table:
            continue
        part = pd.DataFrame(
            {
                "model": f"{group.multimodal} and {name}",
                "subject": table["subject"],
                "target": table["target"],
                "trained": table[f"score_{group.multimodal}"],
                "random": table[f"score_{name}"],
            }
        )
        if f"p_{name}" in table:
            q = adjusted(table[f"p_{name}"].to_numpy(dtype=float), "bh")
            part["is_better"] = np.nan_to_num(q, nan=1.0) <= level
        parts.append(part)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def mean_vertices(table: pd.DataFrame) -> pd.DataFrame:
    """Scores of each vertex, averaged over subjects.

    Returns
    -------
    means : DataFrame
        A row a vertex: ``target``, ``hemi``, mean scores and gain, ``n_subjects`` and
        ``is_site``: a site in half of the subjects or more.
    """
    scores = [str(name) for name in table if str(name).startswith("score_")]
    known = table.dropna(subset=["gain"])
    vertices = known.groupby(["hemi", "target"], sort=False)
    means = vertices[[*scores, "gain"]].mean()
    means["n_subjects"] = vertices["subject"].nunique()
    means["is_site"] = vertices["is_site"].mean() >= _MAJORITY
    return means.reset_index()


def _maps(group: GroupSites) -> Iterator[tuple[str, Drawing]]:
    if group.datatype == "ieeg" and group.placed:
        if group.table.dropna(subset=["x", "y", "z", "gain"]).empty:
            return
        for on in ("surface", "glass"):
            for colour in ("winner", "gain"):
                drawing = contact_sites(
                    group.table,
                    colour=colour,  # type: ignore[arg-type]
                    on=on,  # type: ignore[arg-type]
                    multimodal=group.multimodal,
                    attrs=group.attrs,
                )
                yield f"{colour}{on}", drawing
    elif group.is_surface and _is_fsaverage5(group):
        means = mean_vertices(group.table)
        for colour in ("winner", "gain"):
            drawing = vertex_sites(
                means,
                colour=colour,  # type: ignore[arg-type]
                multimodal=group.multimodal,
                attrs=group.attrs,
            )
            told = (
                f"Scores are means over {len(group.units)} subjects; drawn as a site: "
                "one in half of the subjects or more. "
            )
            caption = told + drawing.caption
            yield f"{colour}surface", replace(drawing, caption=caption)


def _is_fsaverage5(group: GroupSites) -> bool:
    sizes = group.table.groupby("subject").size()
    return bool((sizes == 2 * N_VERTICES).all()) and "hemi" in group.table


def _counts(group: GroupSites) -> Iterator[tuple[str, Drawing]]:
    common: dict[str, Any] = {"targets": group.targets, "attrs": group.attrs}
    if group.regions is not None:
        yield "regionbars", region_bars(group.regions, **common)
    yield (
        "gains",
        gain_distribution(group.table, multimodal=group.multimodal, **common),
    )


def _courses(group: GroupSites) -> Iterator[tuple[str, Drawing]]:
    for by, what in ((None, "scoreovertime"), ("region", "scoreovertimebyregion")):
        courses = group.mean_courses(by)
        if courses is None:
            continue
        told = ""
        if by is not None and (courses["n_subjects"] > 1).any():
            alone = courses.loc[courses["n_subjects"] == 1, by].nunique()
            courses = courses[courses["n_subjects"] > 1]
            told = f" Regions of one subject are left out ({alone})." if alone else ""
        drawing = site_time_courses(
            courses, by=by, targets=group.targets, attrs=group.attrs
        )
        yield what, replace(drawing, caption=drawing.caption + told)


def _models(group: GroupSites) -> Iterator[tuple[str, Drawing]]:
    controls = control_scores(group)
    if not controls.empty and controls[["trained", "random"]].notna().all(axis=1).any():
        spaces = [group.attrs.get(name) or {} for name in group.settings["controls"]]
        twins = all(one.get("kind") == _TWIN for one in spaces)
        against = _TWIN if twins else "control"
        yield (
            "controls",
            twin_scatter(
                controls, targets=group.targets, against=against, attrs=group.attrs
            ),
        )
    if group.ranks is not None and group.ranks["rank"].notna().any():
        yield (
            "ranks",
            rank_heat_map(group.ranks, targets=group.targets, attrs=group.attrs),
        )
