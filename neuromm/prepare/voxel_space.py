"""Targets that are the voxels of a mask."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuromm.core import DataError

__all__ = ["VoxelSpace"]

# Two affines of one grid differ by the rounding of float32 headers, in mm.
_AFFINE_TOLERANCE_MM = 1e-3


class VoxelSpace:
    """Voxels of a mask, in the order in which numpy indexes them.

    Parameters
    ----------
    mask_img : nibabel image, 3-D
        Non-zero inside.
    frame : str or None
        Name of the space of the affine, such as ``"MNI152NLin2009cAsym"``; None for
        the scanner's own.

    Attributes
    ----------
    n_targets : int
    coordinate_frame : str or None
    mask_img : nibabel image

    Raises
    ------
    DataError
        If the mask is not 3-D or holds no voxel.
    """

    def __init__(self, mask_img: Any, frame: str | None = None) -> None:
        path = mask_img.get_filename()
        if len(mask_img.shape) != 3:
            raise DataError(f"a mask must be 3-D, this is {mask_img.shape}", path)
        self._mask: NDArray[np.bool_] = _array(mask_img) > 0
        if not self._mask.any():
            raise DataError("the mask is empty: no voxel is above 0", path)
        self.mask_img = mask_img
        self.coordinate_frame = frame
        self.n_targets = int(self._mask.sum())

    @classmethod
    def from_masker(cls, masker: Any, frame: str | None = None) -> "VoxelSpace":
        """Take the mask of a fitted ``nilearn.maskers.NiftiMasker``."""
        return cls(masker.mask_img_, frame)

    def masker(self) -> Any:
        """Give a fitted ``nilearn.maskers.NiftiMasker`` with the same voxels in order.

        It neither filters nor standardises.
        """
        from nilearn.maskers import NiftiMasker

        return NiftiMasker(mask_img=self.mask_img, standardize=None).fit()

    def coords(self) -> pd.DataFrame:
        """One row a voxel.

        Returns
        -------
        coords : DataFrame
            ``target`` (voxel indices, as in ``"12-30-4"``) and ``x``, ``y``, ``z`` of
            the centre in mm by the affine of the mask.
        """
        indices = np.argwhere(self._mask)
        affine = np.asarray(self.mask_img.affine, dtype=float)
        centres = indices @ affine[:3, :3].T + affine[:3, 3]
        names = ["-".join(map(str, voxel)) for voxel in indices.tolist()]
        table = pd.DataFrame(centres, columns=["x", "y", "z"])
        table.insert(0, "target", names)
        return table

    def to_native(self, values: NDArray[np.floating]) -> Any:
        """Put one value a voxel into an image.

        Parameters
        ----------
        values : array of shape (n_targets,)

        Returns
        -------
        image : nibabel.Nifti1Image, float32
            On the grid of the mask; nan is kept, and outside the mask is nan, since a
            score of 0 is a value of its own.
        """
        import nibabel

        volume = np.full(self._mask.shape, np.nan, dtype=np.float32)
        volume[self._mask] = _one_value_a_target(values, self.n_targets)
        image = nibabel.Nifti1Image(volume, self.mask_img.affine)
        image.header.set_xyzt_units("mm")
        return image

    def extract(self, data: Any) -> NDArray[np.float32]:
        """Read the series of every voxel.

        Parameters
        ----------
        data : nibabel image, 4-D
            On the grid of the mask.

        Returns
        -------
        series : array of shape (n_volumes, n_targets)

        Raises
        ------
        DataError
            If the grids differ, or the file ends before its data.
        """
        path = data.get_filename()
        if len(data.shape) != 4:
            raise DataError(f"expected a 4-D series, got shape {data.shape}", path)
        self._check_grid(data, path)
        volumes = _array(data)
        return np.ascontiguousarray(volumes[self._mask].T)

    def _check_grid(self, image: Any, path: str | None) -> None:
        mask_path = self.mask_img.get_filename() or "the mask"
        cure = (
            "Resample the mask to the images (nearest neighbour, such as "
            "nilearn.image.resample_to_img), or take the mask of the same space."
        )
        if tuple(image.shape[:3]) != self._mask.shape:
            raise DataError(
                f"the image has {_times(image.shape[:3])} voxels, {mask_path} has "
                f"{_times(self._mask.shape)}: they lie on different grids. {cure}",
                path,
            )
        gap = float(np.abs(image.affine - self.mask_img.affine).max())
        if gap > _AFFINE_TOLERANCE_MM:
            raise DataError(
                f"the affine differs from that of {mask_path} by up to {gap:.3g} mm: "
                f"they lie on different grids. {cure}",
                path,
            )


def _array(image: Any) -> NDArray[np.float32]:
    import zlib

    # Whole, since single volumes of a .gz would each be unpacked from the start.
    scaled = getattr(image.dataobj, "get_scaled", None)
    try:
        raw = image.dataobj if scaled is None else scaled(dtype=np.float32)
        return np.asarray(raw, dtype=np.float32)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise DataError(
            f"cannot be read to its end ({error}). The file is cut short or damaged: "
            "copy it again.",
            image.get_filename(),
        ) from error


def _one_value_a_target(
    values: NDArray[np.floating], n_targets: int
) -> NDArray[np.floating]:
    array = np.asarray(values)
    if array.shape != (n_targets,):
        raise ValueError(f"expected {n_targets} values, one a target: {array.shape}")
    return array


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
