"""Sites of voxels over subjects: the share of subjects with a site at each."""

from typing import Any

import numpy as np
import pandas as pd

from neuromm.report.figures.site_drawing import Drawing
from neuromm.report.figures.site_shares import share_glass
from neuromm.report.group import same_grid
from neuromm.report.group_sites import GroupSites
from neuromm.report.naming import bids_name
from neuromm.report.pictures import coarsened
from neuromm.report.units import Unit

__all__ = ["voxel_drawing", "voxel_shares"]

_OFF_CENTRE = 0.05  # of a voxel; tables round positions


def voxel_shares(table: pd.DataFrame, n_subjects: int) -> pd.DataFrame:
    """Count subjects at each voxel, from the table in which sites are counted.

    Parameters
    ----------
    table : DataFrame
        `GroupSites.table` with ``i``, ``j`` and ``k``, the voxel on the grid of all
        subjects: ``subject``, ``x``, ``y``, ``z`` (mm), ``gain`` (nan: not tested) and
        ``is_site``.
    n_subjects : int
        Subjects of the group.

    Returns
    -------
    shares : DataFrame
        A row a voxel that was tested in a subject: ``i``, ``j``, ``k``, ``x``, ``y``,
        ``z``, ``n_tested`` and ``n_sites`` (subjects), ``share``
        (n_sites / n_subjects).
    """
    tested = table[table["gain"].notna()]
    voxels = tested.groupby(["i", "j", "k"], sort=True)
    shares = voxels.agg(
        x=("x", "first"),
        y=("y", "first"),
        z=("z", "first"),
        n_tested=("subject", "nunique"),
        n_sites=("is_site", "sum"),
    )
    shares["share"] = shares["n_sites"] / n_subjects
    return shares.reset_index()


def voxel_drawing(group: GroupSites) -> Drawing | str:
    """The map of `voxel_shares`, or in words why there is none."""
    import nibabel as nib
    from nibabel.affines import apply_affine

    frames = sorted({str(unit.frame) for unit in group.units.values()})
    if not group.placed or len(frames) > 1:
        return (
            "The subjects are not all in one standard space, so a voxel of one is no "
            "voxel of another: they are counted, not drawn. Each subject's report has "
            "its own map."
        )
    masks = {subject: _mask(unit) for subject, unit in group.units.items()}
    missing = [subject for subject, mask in masks.items() if mask is None]
    if missing:
        return f"Not drawn: no map of sites of {_named(missing)} in the folder."
    first: Any = next(iter(masks.values()))
    others = [s for s, mask in masks.items() if not same_grid(mask, first)]
    if others:
        return (
            f"The voxels of {_named(others)} lie on another grid than those of the "
            "first subject: they are counted, not drawn."
        )
    n_subjects = len(group.units)
    tested = group.table.dropna(subset=["x", "y", "z", "gain"])
    inverse = np.linalg.inv(first.affine)
    places = apply_affine(inverse, tested[list("xyz")].to_numpy())
    voxels = np.rint(places).astype(int)
    if not np.allclose(places, voxels, atol=_OFF_CENTRE):
        return "The targets are not single voxels of the maps: they are not drawn."
    numbered = tested.assign(**dict(zip("ijk", voxels.T, strict=True)))
    shares = voxel_shares(numbered, n_subjects)
    volume = np.zeros(first.shape, dtype=np.float32)
    volume[tuple(shares[list("ijk")].to_numpy().T)] = shares["share"]
    return share_glass(
        coarsened(nib.Nifti1Image(volume, first.affine)),
        shares,
        n_subjects=n_subjects,
        multimodal=group.multimodal,
        attrs=group.attrs,
    )


def _mask(unit: Unit) -> Any | None:
    import nibabel as nib

    described = {**unit.entities, "description": "multimodalsites"}
    path = unit.path.parent / bids_name(described, "mask", ".nii.gz")
    return nib.load(path) if path.exists() else None


def _named(subjects: list[str]) -> str:
    return ", ".join(f"sub-{subject}" for subject in subjects)
