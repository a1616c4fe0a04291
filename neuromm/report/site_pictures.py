"""The pictures of a map of sites: which figure shows which data."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from neuromm.atlas import in_mni_family
from neuromm.report.figures import Picture, mosaic
from neuromm.report.figures.canvas import score_limits
from neuromm.report.figures.site_maps import contact_sites, vertex_sites
from neuromm.report.figures.site_regions import gain_distribution
from neuromm.report.figures.surfaces import N_VERTICES
from neuromm.report.naming import bids_name, contrast_label
from neuromm.report.pictures import Gallery, drawn_volume
from neuromm.report.site_tables import MappedSites
from neuromm.report.units import Unit

__all__ = ["site_pictures"]

_TARGETS = {"eeg": "sensors", "meg": "sensors", "ieeg": "contacts"}


def site_pictures(unit: Unit, sites: MappedSites) -> list[Gallery]:
    """Where the sites of a unit lie, and how large their gains are."""
    table = sites.table
    if not table["gain"].notna().any():
        return []
    multimodal = str(sites.settings["multimodal"])
    attrs = _backbones(unit, sites)
    maps = Gallery("Where the sites lie")
    if unit.volume(unit.spaces[0]) is not None:
        maps.pictures += _volume(unit, multimodal)
    elif unit.datatype == "func":
        maps.pictures += _surface(unit, sites, multimodal, attrs)
    elif unit.datatype == "ieeg":
        placed = table.dropna(subset=["x", "y", "z", "gain"])
        if in_mni_family(unit.frame) and len(placed):
            for colour in ("winner", "gain"):
                drawing = contact_sites(
                    table,
                    colour=colour,  # type: ignore[arg-type]
                    multimodal=multimodal,
                    attrs=attrs,
                )
                maps.pictures.append(drawing.picture)
        else:
            maps.notes.append(
                "The contacts are not placed in MNI space, so they are not drawn on a "
                "template brain."
            )
    gains = Gallery("Gains")
    targets = _TARGETS.get(unit.datatype, "targets")
    drawing = gain_distribution(
        table, targets=targets, multimodal=multimodal, attrs=attrs
    )
    gains.pictures.append(drawing.picture)
    return [one for one in (maps, gains) if one.pictures or one.notes]


def _backbones(unit: Unit, sites: MappedSites) -> Mapping[str, Any]:
    """What the tables of the compared feature spaces say of themselves."""
    told = sites.settings
    names = [told["multimodal"], *told["unimodal"], *(told.get("controls") or [])]
    spaces = unit.design.get("feature_spaces") or {}
    return {name: spaces[name] for name in names if name in spaces}


def _volume(unit: Unit, multimodal: str) -> list[Picture]:
    import nibabel as nib

    contrast = contrast_label(f"{multimodal} minus strongest")
    described = {**unit.entities, "description": "multimodalsites"}
    labels = {**unit.entities, "contrast": contrast, "stat": "deltar"}
    folder = unit.path.parent
    gain_path = folder / bids_name(labels, "statmap", ".nii.gz")
    mask_path = folder / bids_name(described, "mask", ".nii.gz")
    if not (gain_path.exists() and mask_path.exists()):
        return []
    image = nib.load(gain_path)
    gain = np.asarray(image.dataobj, dtype=np.float32)
    found = np.asarray(nib.load(mask_path).dataobj) > 0
    shown = np.where(np.isfinite(gain) & ~found, 0, gain).astype(np.float32)
    limits = score_limits(gain[found])
    drawn = nib.Nifti1Image(shown, image.affine)
    name = f"{multimodal} over its strongest competitor"
    note = f"Drawn at the {int(found.sum()):,} sites alone."
    if in_mni_family(unit.frame):
        return drawn_volume(drawn, limits, name=name, note=note, measure="gain (r)")
    return [mosaic(drawn, limits, name=name, note=note, measure="gain (r)")]


def _surface(
    unit: Unit, sites: MappedSites, multimodal: str, attrs: Mapping[str, Any]
) -> list[Picture]:
    table = sites.table
    if not str(unit.frame or unit.entities.get("space")).startswith("fsaverage"):
        return []
    if len(table) != 2 * N_VERTICES:
        return []
    return [
        vertex_sites(
            table,
            colour=colour,  # type: ignore[arg-type]
            multimodal=multimodal,
            attrs=attrs,
        ).picture
        for colour in ("winner", "gain")
    ]
