"""Whether volumes lie on one grid in the body, and how one is brought to another's.

Two volumes of one shape can show different places: in one published set of Dixon
scans a label image lies up to 10.8 mm from the images it was drawn on. So grids are
compared by where their corners lie in the world (RAS, mm).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from neuromm.core import DataError
from neuromm.io.volumes import grid_shift_mm

__all__ = ["GRID_TOLERANCE_MM", "Interpolation", "check_one_grid", "resampled"]

GRID_TOLERANCE_MM = 0.01
"""Corners that lie closer than this count as one place.

A NIfTI header that states a rotation twice, as a matrix and as a quaternion of 32-bit
floats, agrees with itself to about 0.001 mm; a tenth of the finest voxels is 0.05 mm.
"""

Interpolation = Literal["linear", "continuous", "nearest"]


def check_one_grid(
    images: Mapping[str, Any],
    *,
    tolerance_mm: float = GRID_TOLERANCE_MM,
    source: Path | None = None,
    cure: str = "",
) -> None:
    """Check that volumes have the same voxels.

    Parameters
    ----------
    images : mapping of str to nibabel image
        By name. One without an affine (a picture of a slice) has no place in the
        world; it agrees only with others without one.
    tolerance_mm : float
        Largest distance between the corners of two grids.
    source : Path, optional
        File at fault, for the message.
    cure : str
        What to do about it, for the message.

    Raises
    ------
    DataError
        If shapes differ, or corners lie further apart than the tolerance.
    """
    (first, reference), *others = images.items()
    for name, image in others:
        difference = _difference(reference, image, tolerance_mm)
        if difference:
            raise DataError(
                f"{first} and {name} are not on one grid: {difference}. {cure}",
                source,
            )


def resampled(
    image: Any, target: Any, *, interpolation: Interpolation = "linear"
) -> tuple[Any, dict[str, Any]]:
    """Bring a volume to the grid of another, by their affines alone.

    Nothing is registered: a patient who moved between two series stays displaced.

    Parameters
    ----------
    image, target : nibabel images
        3-D, with affines.
    interpolation : {"linear", "continuous", "nearest"}
        Nearest for labels. Linear stays within the range of the values; continuous
        (cubic) is sharper and overshoots at edges.

    Returns
    -------
    moved : nibabel.Nifti1Image
        On the grid of ``target``; float32, or the integers of a label image. Voxels
        that the image does not cover are 0.
    record : dict
        For the sample's metadata: ``Interpolation``, ``Software``, ``FromShape``,
        ``FromAffine``, ``ShareOutside`` (of the voxels of the target, between 0
        and 1).

    Raises
    ------
    DataError
        If the two do not overlap.

    References
    ----------
    `nilearn.image.resample_to_img`.
    """
    import nibabel
    import nilearn
    from nilearn.image import resample_to_img

    outside = _share_outside(image, target)
    if outside == 1:
        raise DataError(
            "cannot be resampled: it does not overlap the grid it should be brought "
            "to. Are both of one patient, in one frame of reference?"
        )
    values = np.asanyarray(image.dataobj)
    if interpolation != "nearest":
        values = values.astype(np.float32)
    moved = resample_to_img(
        nibabel.Nifti1Image(values, image.affine),
        nibabel.Nifti1Image(np.empty(target.shape, np.uint8), target.affine),
        interpolation=interpolation,
        force_resample=True,
        copy_header=True,
    )
    moved.header.set_xyzt_units("mm")
    record = {
        "Interpolation": interpolation,
        "Software": f"nilearn {nilearn.__version__}",
        "FromShape": [int(n) for n in image.shape],
        "FromAffine": np.asarray(image.affine, dtype=float).tolist(),
        "ShareOutside": round(outside, 6),
    }
    return moved, record


def _difference(reference: Any, image: Any, tolerance_mm: float) -> str:
    """What sets two grids apart, in words; empty if nothing does."""
    shape, other = tuple(reference.shape), tuple(image.shape)
    if shape != other:
        return f"their shapes are {shape} and {other}"
    if reference.affine is None and image.affine is None:
        return ""
    if reference.affine is None or image.affine is None:
        return "one of them has no place in the world"
    distance = grid_shift_mm(reference.affine, image.affine, shape)
    if distance <= tolerance_mm:
        return ""
    return (
        f"they have one shape, and their affines place corners up to {distance:.3g} mm "
        f"apart (tolerance {tolerance_mm:g} mm)"
    )


def _share_outside(image: Any, target: Any) -> float:
    """Share of the target's voxels whose centre lies outside of the image."""
    to_image = np.linalg.inv(image.affine) @ target.affine
    limits = np.asarray(image.shape, dtype=float) - 0.5
    i, j = np.meshgrid(*(np.arange(n) for n in target.shape[:2]), indexing="ij")
    inside = 0
    for k in range(target.shape[2]):
        covered = np.ones(i.shape, dtype=bool)
        for row, limit in zip(to_image[:3], limits, strict=True):
            place = row[0] * i + row[1] * j + (row[2] * k + row[3])
            covered &= (place >= -0.5) & (place <= limit)
        inside += int(covered.sum())
    return 1 - inside / float(np.prod(target.shape))
