"""The voxels of a brain that every run covers."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from neuromm.core import DataError

__all__ = ["common_mask", "estimated_mask"]


def common_mask(masks: Sequence[Any]) -> Any:
    """Voxels inside of every mask.

    Parameters
    ----------
    masks : sequence of nibabel images
        On one grid; a voxel is inside where the value is above 0.

    Returns
    -------
    mask_img : nibabel.Nifti1Image of uint8

    Raises
    ------
    DataError
        If the grids differ, or no voxel is inside of all.
    """
    from nibabel import Nifti1Image

    first = masks[0]
    inside = np.ones(first.shape, dtype=bool)
    for mask in masks:
        if mask.shape != first.shape or not np.allclose(
            mask.affine, first.affine, atol=1e-3
        ):
            raise DataError(
                f"lies on another grid than the mask of the first run "
                f"({first.get_filename()}): shapes {mask.shape} and {first.shape}. "
                "Runs are encoded together only in one space: choose it with --space.",
                mask.get_filename(),
            )
        inside &= np.nan_to_num(np.asarray(mask.dataobj)) > 0
    if not inside.any():
        raise DataError("no voxel lies inside of the brain masks of every run")
    return Nifti1Image(inside.astype(np.uint8), first.affine)


def estimated_mask(images: Sequence[Any]) -> Any:
    """Brain mask from the runs themselves, by intensity.

    Parameters
    ----------
    images : sequence of nibabel images, 4-D
        On one grid.

    Returns
    -------
    mask_img : nibabel.Nifti1Image
        Voxels of high mean intensity (``nilearn.masking.compute_multi_epi_mask``) in
        at least half of the runs.

    Raises
    ------
    DataError
        If intensities do not tell a brain from its surround.
    """
    from nilearn.masking import compute_multi_epi_mask

    try:
        mask = compute_multi_epi_mask(list(images), opening=False)
    except (ValueError, IndexError) as error:
        raise DataError(
            f"the brain cannot be told from its surround by intensity ({error}). "
            "Give a mask with --mask.",
            images[0].get_filename(),
        ) from error
    if not np.asarray(mask.dataobj).any():
        raise DataError(
            "the brain cannot be told from its surround by intensity: no voxel is "
            "left. Give a mask with --mask.",
            images[0].get_filename(),
        )
    return mask
