"""Targets that are the vertices of two hemispheres."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuromm.core import DataError, UsageError

__all__ = ["SurfaceSpace"]

HEMISPHERES = ("left", "right")
_LETTER = {"left": "L", "right": "R"}
_STRUCTURE = {"left": "CortexLeft", "right": "CortexRight"}
# The one mesh that nilearn ships; any other would be a download.
_SHIPPED_MESH = "fsaverage5"
_VERTICES_OF_SHIPPED_MESH = 10242

Pair = Mapping[str, NDArray[Any]]


class SurfaceSpace:
    """Vertices of the left hemisphere, then of the right.

    Parameters
    ----------
    n_vertices_left, n_vertices_right : int
        Vertices of each mesh.
    mesh : str or None
        Name of the mesh and of its coordinate frame, as in the ``space-`` entity. The
        positions of ``"fsaverage5"`` (pial surface) come with nilearn; those of other
        meshes are unknown unless ``coordinates`` gives them. Nothing is downloaded.
    coordinates : mapping of "left" and "right" to array (n_vertices, 3), optional
        Positions in mm.
    mask : mapping of "left" and "right" to bool array (n_vertices,), optional
        Vertices to keep, such as all but the medial wall.

    Attributes
    ----------
    n_targets : int
    coordinate_frame : str or None

    Raises
    ------
    UsageError
        If coordinates or masks do not fit the number of vertices.
    """

    def __init__(
        self,
        n_vertices_left: int,
        n_vertices_right: int,
        mesh: str | None = None,
        *,
        coordinates: Pair | None = None,
        mask: Pair | None = None,
    ) -> None:
        self.n_vertices = {"left": n_vertices_left, "right": n_vertices_right}
        self.mesh = mesh
        self._positions = self._given_or_shipped(coordinates)
        self._kept = {
            side: self._checked("mask", mask[side], side).astype(bool)
            if mask is not None
            else np.ones(n, dtype=bool)
            for side, n in self.n_vertices.items()
        }
        self.n_targets = int(sum(kept.sum() for kept in self._kept.values()))
        self.coordinate_frame = None if self._positions is None else mesh

    @classmethod
    def from_gifti(
        cls, data: Mapping[str, Any], mesh: str | None = None
    ) -> "SurfaceSpace":
        """Take the numbers of vertices from a pair of GIFTI images.

        Parameters
        ----------
        data : mapping of "left" and "right" to nibabel.GiftiImage
        mesh : str or None
        """
        counts = [len(data[side].darrays[0].data) for side in HEMISPHERES]
        return cls(counts[0], counts[1], mesh)

    def coords(self) -> pd.DataFrame:
        """One row a vertex.

        Returns
        -------
        coords : DataFrame
            ``target`` (as in ``"L-123"``, counted from 0 over the whole mesh), ``x``,
            ``y``, ``z`` (mm; nan where the mesh is unknown) and ``hemi``.
        """
        tables = []
        for side in HEMISPHERES:
            vertices = np.flatnonzero(self._kept[side])
            positions = (
                np.full((len(vertices), 3), np.nan)
                if self._positions is None
                else self._positions[side][vertices]
            )
            table = pd.DataFrame(positions, columns=["x", "y", "z"])
            letter = _LETTER[side]
            table.insert(0, "target", [f"{letter}-{v}" for v in vertices.tolist()])
            table["hemi"] = letter
            tables.append(table)
        return pd.concat(tables, ignore_index=True)

    def to_native(self, values: NDArray[np.floating]) -> dict[str, Any]:
        """Put one value a vertex into a GIFTI image a hemisphere.

        Parameters
        ----------
        values : array of shape (n_targets,)

        Returns
        -------
        images : dict of "left" and "right" to nibabel.GiftiImage, float32
            nan is kept, and vertices outside the mask are nan.
        """
        array = np.asarray(values)
        if array.shape != (self.n_targets,):
            raise ValueError(
                f"expected {self.n_targets} values, one a target: {array.shape}"
            )
        n_left = int(self._kept["left"].sum())
        parts = {"left": array[:n_left], "right": array[n_left:]}
        return {side: self._gifti(side, parts[side]) for side in HEMISPHERES}

    def extract(self, data: Mapping[str, Any]) -> NDArray[np.float32]:
        """Read the series of every vertex.

        Parameters
        ----------
        data : mapping of "left" and "right" to nibabel.GiftiImage
            One array a volume.

        Returns
        -------
        series : array of shape (n_volumes, n_targets)

        Raises
        ------
        DataError
            If a hemisphere has another number of vertices, or the hemispheres have
            different numbers of volumes.
        """
        series = {side: self._series(data[side], side) for side in HEMISPHERES}
        n_left, n_right = (len(series[side]) for side in HEMISPHERES)
        if n_left != n_right:
            raise DataError(
                f"the left hemisphere has {n_left} volumes, the right {n_right}: were "
                "they projected from the same run?",
                data["right"].get_filename(),
            )
        return np.hstack([series[side][:, self._kept[side]] for side in HEMISPHERES])

    def _series(self, image: Any, side: str) -> NDArray[np.float32]:
        arrays = [np.asarray(a.data, dtype=np.float32) for a in image.darrays]
        expected = self.n_vertices[side]
        for array in arrays:
            if array.shape != (expected,):
                raise DataError(
                    f"expected {expected} vertices on the {side}, got an array of "
                    f"shape {array.shape}: all runs must lie on one mesh, with one "
                    "array a volume",
                    image.get_filename(),
                )
        if not arrays:
            raise DataError("holds no data array", image.get_filename())
        return np.stack(arrays)

    def _gifti(self, side: str, values: NDArray[np.floating]) -> Any:
        from nibabel.gifti import GiftiDataArray, GiftiImage, GiftiMetaData

        whole = np.full(self.n_vertices[side], np.nan, dtype=np.float32)
        whole[self._kept[side]] = values
        array = GiftiDataArray(
            whole, intent="NIFTI_INTENT_NONE", datatype="NIFTI_TYPE_FLOAT32"
        )
        meta = GiftiMetaData({"AnatomicalStructurePrimary": _STRUCTURE[side]})
        return GiftiImage(meta=meta, darrays=[array])

    def _given_or_shipped(self, given: Pair | None) -> dict[str, NDArray[Any]] | None:
        if given is not None:
            return {s: self._checked("coordinates", given[s], s) for s in HEMISPHERES}
        if self.mesh != _SHIPPED_MESH:
            return None
        if set(self.n_vertices.values()) != {_VERTICES_OF_SHIPPED_MESH}:
            raise UsageError(
                f"fsaverage5 has {_VERTICES_OF_SHIPPED_MESH} vertices a hemisphere, "
                f"these data have {self.n_vertices['left']} and "
                f"{self.n_vertices['right']}: is their space another one?"
            )
        from nilearn.datasets import load_fsaverage

        pial = load_fsaverage(_SHIPPED_MESH)["pial"]
        return {side: np.asarray(pial.parts[side].coordinates) for side in HEMISPHERES}

    def _checked(self, name: str, array: NDArray[Any], side: str) -> NDArray[Any]:
        if len(array) != self.n_vertices[side]:
            raise UsageError(
                f"{name} of the {side} hemisphere must have one row per vertex "
                f"({self.n_vertices[side]}), got {len(array)}"
            )
        return np.asarray(array)
