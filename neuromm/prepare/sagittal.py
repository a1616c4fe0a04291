"""Volumes with sagittal slices first, whatever the order and direction of their voxels.

A network of slices is trained on slices seen from one side. Scanners and converters
store voxels in any of 48 orders, so a volume is turned to the axes that are closest to
the patient's right, anterior and superior before its slices are taken, and what was
predicted is turned back. No value is changed: an oblique volume stays oblique.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuromm.core import UsageError

__all__ = ["SagittalOrder"]


@dataclass(frozen=True, slots=True, eq=False)
class SagittalOrder:
    """How the voxels of one grid are turned to right, anterior, superior, and back.

    Parameters
    ----------
    affine : array of shape (4, 4)
        Voxel indices to RAS in mm, as of a NIfTI image.

    Raises
    ------
    UsageError
        If the affine is no invertible 4 x 4 matrix.

    Examples
    --------
    Coronal slices stored from front to back, rows from the left, columns upwards:

    >>> affine = np.array([[0, 1, 0, 0], [-3, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    >>> order = SagittalOrder(affine)
    >>> volume = np.zeros((4, 30, 128, 100))  # modalities first
    >>> order.turned(volume).shape
    (4, 128, 30, 100)
    >>> order.back(order.turned(volume)).shape
    (4, 30, 128, 100)
    """

    affine: NDArray[np.float64]

    def __post_init__(self) -> None:
        matrix = np.array(self.affine, dtype=np.float64)
        if (
            matrix.shape != (4, 4)
            or not np.isfinite(matrix).all()
            or not abs(np.linalg.det(matrix[:3, :3])) > 0
        ):
            raise UsageError(
                "affine must be a finite, invertible 4 x 4 matrix, got "
                f"{matrix.tolist()}"
            )
        matrix.setflags(write=False)
        object.__setattr__(self, "affine", matrix)

    @property
    def axes(self) -> tuple[int, int, int]:
        """Axes of the grid that run along right, anterior and superior."""
        first, second, third = (int(axis) for axis in np.argsort(self._along()[:, 0]))
        return first, second, third

    @property
    def reversed_axes(self) -> tuple[bool, bool, bool]:
        """Whether these run to the left, to the back and down instead."""
        right, front, up = (bool(self._along()[axis, 1] < 0) for axis in self.axes)
        return right, front, up

    @property
    def oblique_deg(self) -> float:
        """Largest angle between an axis of the grid and the patient's closest one."""
        columns = self.affine[:3, list(self.axes)]
        along = np.abs(np.diag(columns)) / np.linalg.norm(columns, axis=0)
        return float(np.degrees(np.arccos(along.min().clip(0, 1))))

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Size of a voxel to the right, to the front and up."""
        right, front, up = np.linalg.norm(self.affine[:3, list(self.axes)], axis=0)
        return float(right), float(front), float(up)

    def turned(self, values: ArrayLike) -> NDArray[Any]:
        """View of an array (…, n_i, n_j, n_k) as (…, slices, to the front, up)."""
        volume = self._volume(values)
        kept = tuple(range(volume.ndim - 3))
        moved = volume.transpose(*kept, *(len(kept) + axis for axis in self.axes))
        turned: NDArray[Any] = np.flip(moved, self._flipped())
        return turned

    def back(self, values: ArrayLike) -> NDArray[Any]:
        """View of an array (…, slices, to the front, up) as (…, n_i, n_j, n_k)."""
        volume = np.flip(self._volume(values), self._flipped())
        kept = tuple(range(volume.ndim - 3))
        places = np.argsort(self.axes)
        stored: NDArray[Any] = volume.transpose(
            *kept, *(len(kept) + int(place) for place in places)
        )
        return stored

    def turned_affine(self, shape: tuple[int, int, int]) -> NDArray[np.float64]:
        """Affine of the turned grid.

        Parameters
        ----------
        shape : tuple of three ints
            Of the volume as it is stored, (n_i, n_j, n_k).
        """
        matrix = self.affine.copy()
        matrix[:, :3] = self.affine[:, list(self.axes)]
        for column, (axis, flip) in enumerate(
            zip(self.axes, self.reversed_axes, strict=True)
        ):
            if flip:
                matrix[:3, 3] += matrix[:3, column] * (shape[axis] - 1)
                matrix[:3, column] *= -1
        return matrix

    def _along(self) -> NDArray[np.float64]:
        """Closest axis of the patient and direction, (3, 2), a row an axis."""
        from nibabel.orientations import io_orientation

        along: NDArray[np.float64] = io_orientation(self.affine)
        return along

    def _flipped(self) -> tuple[int, ...]:
        return tuple(axis - 3 for axis, flip in enumerate(self.reversed_axes) if flip)

    @staticmethod
    def _volume(values: ArrayLike) -> NDArray[Any]:
        volume = np.asarray(values)
        if volume.ndim < 3:
            raise UsageError(
                f"a volume has at least 3 axes, got an array of shape {volume.shape}"
            )
        return volume
