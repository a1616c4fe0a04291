"""The pictures of one unit: which figure shows which data."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuromm.atlas import in_mni_family
from neuromm.report.figures import (
    Picture,
    contact_map,
    contact_strips,
    glass_brain,
    mosaic,
    score_histograms,
    score_time_courses,
    sensor_topography,
    surface_map,
    volume_on_surface,
)
from neuromm.report.figures.canvas import score_limits
from neuromm.report.figures.surfaces import N_VERTICES
from neuromm.report.summary import SIGNIFICANCE, channel_peaks, region_table
from neuromm.report.units import Unit

__all__ = [
    "Gallery",
    "coarsened",
    "drawn_volume",
    "masked_scores",
    "unit_pictures",
    "volume_pictures",
]

_MAX_MAPS = 6  # feature spaces that are drawn on a brain; the table holds all
_MIN_CHANNELS_FOR_REGIONS = 9
_GLASS_SPACING_MM = 2.0  # finer voxels than this cost time and are not seen
# Without a test, scores in the lowest fifth of the scale would hide the rest.
_FLOOR = 0.2

_UNTESTED = "no permutation test was run"

_TARGETS = {
    "eeg": "sensors x times",
    "meg": "sensors x times",
    "ieeg": "contacts x times",
}


@dataclass
class Gallery:
    """Pictures under one heading, and what has to be said about them."""

    heading: str
    pictures: list[Picture] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def unit_pictures(unit: Unit) -> list[Gallery]:
    """Maps or contacts, time courses and histograms of a unit, in reading order."""
    limits = score_limits(unit.table["r"].to_numpy())
    galleries = [_maps(unit, limits)]
    if unit.datatype == "ieeg":
        galleries.append(_contacts(unit))
    if unit.timed:
        galleries.append(_time_courses(unit))
    if unit.datatype in {"eeg", "meg"}:
        galleries.append(_topography(unit, limits))
    scores = Gallery("Distribution of scores")
    scores.pictures.append(score_histograms(unit.table, targets=_targets(unit)))
    return [g for g in [*galleries, scores] if g.pictures or g.notes]


def masked_scores(
    values: NDArray[np.floating],
    q: NDArray[np.floating] | None,
    limits: tuple[float, float],
    untested: str = _UNTESTED,
) -> tuple[NDArray[np.floating], str]:
    """Keep what a reader may take for real, and say what was kept.

    Parameters
    ----------
    values : array
        Scores.
    q : array of the same shape, or None
        False discovery rates; None without a permutation test.
    limits : (float, float)
        Ends of the colour bar.
    untested : str
        Said where ``q`` is None.

    Returns
    -------
    masked : array
        0 where a score is not drawn, nan where there is none.
    note : str
    """
    if q is None:
        floor = _FLOOR * limits[1]
        shown = np.where(np.isfinite(values) & (values < floor), 0, values)
        return shown, f"Only r of {floor:.2f} and above is drawn; {untested}."
    with np.errstate(invalid="ignore"):
        significant = (q < SIGNIFICANCE) & (values > 0)
    if not significant.any():
        floor = _FLOOR * limits[1]
        shown = np.where(np.isfinite(values) & (values < floor), 0, values)
        return shown, f"Nothing reaches q < {SIGNIFICANCE}; drawn is r >= {floor:.2f}."
    shown = np.where(np.isfinite(values) & ~significant, 0, values)
    return shown, f"Drawn where q < {SIGNIFICANCE}."


def volume_pictures(
    image: Any,
    q: Any | None,
    limits: tuple[float, float],
    *,
    name: str,
    untested: str = _UNTESTED,
) -> list[Picture]:
    """A volume in MNI space, on the glass brain and on fsaverage5.

    Parameters
    ----------
    image : nibabel image, 3-D
        Scores.
    q : nibabel image or None
        False discovery rates.
    limits : (float, float)
    name : str
        Feature space.
    untested : str
        Said where ``q`` is None.
    """
    import nibabel as nib

    values = np.asarray(image.dataobj, dtype=np.float32)
    rates = None if q is None else np.asarray(q.dataobj, dtype=np.float32)
    shown, note = masked_scores(values, rates, limits, untested)
    drawn = nib.Nifti1Image(shown.astype(np.float32), image.affine)
    return drawn_volume(drawn, limits, name=name, note=note)


def drawn_volume(
    drawn: Any,
    limits: tuple[float, float],
    *,
    name: str,
    note: str,
    measure: str = "r",
) -> list[Picture]:
    """A volume in MNI space of which 0 is not drawn, on glass brain and fsaverage5."""
    return [
        glass_brain(coarsened(drawn), limits, name=name, note=note, measure=measure),
        surface_map(
            volume_on_surface(drawn), limits, name=name, note=note, measure=measure
        ),
    ]


def _maps(unit: Unit, limits: tuple[float, float]) -> Gallery:
    gallery = Gallery("Maps")
    spaces = _drawn_spaces(unit.spaces)
    for space in spaces:
        if (path := unit.volume(space)) is not None:
            gallery.pictures += _volume(unit, space, path, limits)
        elif (pair := unit.surface(space)) is not None:
            gallery.pictures += _surface(unit, space, pair, limits)
    if not gallery.pictures:
        if unit.surface(spaces[0]) is not None:
            gallery.notes.append(_no_mesh(unit))
        return gallery
    left_out = len(unit.spaces) - len(spaces)
    if left_out:
        gallery.notes.append(
            f"{left_out} further feature spaces are in the files, but not drawn."
        )
    if unit.volume(spaces[0]) is not None and not in_mni_family(unit.frame):
        gallery.notes.append(
            "These images are not in MNI space: slices are drawn on their own grid, "
            "without a template."
        )
    return gallery


def _volume(
    unit: Unit, space: str, path: Path, limits: tuple[float, float]
) -> list[Picture]:
    import nibabel as nib

    image = nib.load(path)
    rates = unit.volume(space, "q")
    q = None if rates is None else nib.load(rates)
    if in_mni_family(unit.frame):
        return volume_pictures(image, q, limits, name=space)
    note = "All scored voxels are drawn, significant or not."
    return [mosaic(image, limits, name=space, note=note)]


def _surface(
    unit: Unit, space: str, pair: dict[str, Path], limits: tuple[float, float]
) -> list[Picture]:
    values = {side: _vertices(path) for side, path in pair.items()}
    if any(len(v) != N_VERTICES for v in values.values()):
        return []
    rates = unit.surface(space, "q")
    both = np.concatenate([values["L"], values["R"]])
    q = (
        None
        if rates is None
        else np.concatenate([_vertices(rates["L"]), _vertices(rates["R"])])
    )
    shown, note = masked_scores(both, q, limits)
    halves = {"L": shown[:N_VERTICES], "R": shown[N_VERTICES:]}
    return [surface_map(halves, limits, name=space, note=note)]


def _vertices(path: Path) -> NDArray[np.floating]:
    import nibabel as nib

    return np.asarray(nib.load(path).darrays[0].data, dtype=float)


def _no_mesh(unit: Unit) -> str:
    place = unit.entities.get("space", "its own space")
    return (
        f"Surface maps in {place} are in the files, but not drawn: only the fsaverage5 "
        "mesh comes with the software, and nothing is downloaded."
    )


def _contacts(unit: Unit) -> Gallery:
    gallery = Gallery("Contacts")
    peaks = channel_peaks(unit.table)
    note = (
        "Colour: highest r over time, which is above 0 by chance." if unit.timed else ""
    )
    placed = peaks.dropna(subset=["x", "y", "z"])
    if in_mni_family(unit.frame) and len(placed):
        limits = score_limits(peaks["r"].to_numpy())
        for space in _drawn_spaces(unit.spaces):
            rows = placed[placed["space"] == space]
            if rows["r"].notna().any():
                gallery.pictures.append(
                    contact_map(rows, limits, name=space, note=note)
                )
        return gallery
    gallery.notes.append(_why_no_brain(unit.frame, len(placed)))
    if peaks["r"].notna().any():
        told = "Shown is the highest r over time. " if unit.timed else ""
        told += "Filled: q < 0.05." if unit.tested else ""
        gallery.pictures.append(contact_strips(peaks, note=told.strip()))
    return gallery


def _why_no_brain(frame: str | None, n_placed: int) -> str:
    if not n_placed:
        return "Positions of the contacts are not known, so no brain is drawn."
    place = frame or "an unnamed coordinate frame"
    return (
        f"Positions are given in {place}, which is not MNI space: on a template brain "
        "the contacts would lie in wrong places, so none is drawn."
    )


def _time_courses(unit: Unit) -> Gallery:
    gallery = Gallery("Time courses")
    table = unit.table
    channels = channel_peaks(table)
    if "channel" not in table:
        table = table.assign(channel=table["target"].str.rpartition("@")[0])
    many = channels["target"].nunique() >= _MIN_CHANNELS_FOR_REGIONS
    if many and not region_table(channels).empty:
        gallery.pictures.append(score_time_courses(table, by="region"))
    if table["r"].notna().any():
        gallery.pictures.append(score_time_courses(table, by="channel"))
    return gallery


def _topography(unit: Unit, limits: tuple[float, float]) -> Gallery:
    gallery = Gallery("Topography")
    picture = sensor_topography(unit.table, limits)
    if picture is not None:
        gallery.pictures.append(picture)
    return gallery


def _targets(unit: Unit) -> str:
    if unit.datatype in _TARGETS:
        name = _TARGETS[unit.datatype]
        return name if unit.timed else name.split(" ", maxsplit=1)[0]
    return "vertices" if unit.surface(unit.spaces[0]) else "voxels"


def _drawn_spaces(spaces: Sequence[str]) -> list[str]:
    """At most six, ``joint`` among them."""
    single = [space for space in spaces if space != "joint"]
    joint = [space for space in spaces if space == "joint"]
    return single[: _MAX_MAPS - len(joint)] + joint


def coarsened(image: Any) -> Any:
    """Image of voxels no finer than 2 mm, each with the highest value inside."""
    import nibabel as nib

    spacing = np.asarray(image.header.get_zooms()[:3], dtype=float)
    steps = np.maximum(1, np.floor(_GLASS_SPACING_MM / spacing + 1e-3)).astype(int)
    if (steps == 1).all():
        return image
    values = np.nan_to_num(np.asarray(image.dataobj, dtype=np.float32))
    padding = [
        (0, -size % step) for size, step in zip(values.shape, steps, strict=True)
    ]
    padded = np.pad(values, padding)
    blocks = padded.reshape(
        *(
            n
            for size, s in zip(padded.shape, steps, strict=True)
            for n in (size // s, s)
        )
    )
    affine = image.affine.copy()
    affine[:3, :3] = affine[:3, :3] * steps
    affine[:3, 3] += image.affine[:3, :3] @ ((steps - 1) / 2)
    return nib.Nifti1Image(blocks.max(axis=(1, 3, 5)), affine)


def group_contacts(units: Sequence[Unit]) -> pd.DataFrame:
    """Contacts in MNI space of several units: ``space``, ``x``, ``y``, ``z``, ``r``."""
    tables = [
        channel_peaks(unit.table)[["space", "x", "y", "z", "r"]].astype({"space": str})
        for unit in units
        if unit.datatype == "ieeg" and in_mni_family(unit.frame)
    ]
    if not tables:
        return pd.DataFrame(columns=["space", "x", "y", "z", "r"])
    return pd.concat(tables, ignore_index=True).dropna()
