"""HDF5 files with a row for each spot: vectors or pictures, names, places.

Checked before anything is used: sizes, links, shapes, types, values that are finite.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromm.core import DataError, InputMissingError
from neuromm.core.errors import NeurommError
from neuromm.core.files import atomic_path
from neuromm.features.spot_places import spot_rows
from neuromm.io.file_limits import check_hdf5

__all__ = [
    "StoredVectors",
    "check_vectors",
    "opened",
    "read_attrs",
    "read_vectors",
    "row_keys",
    "write_arrays",
]

_NAMES = ("barcodes", "barcode", "names")
_VALUES = ("embeddings", "features")
_ATTRS = ("encoder", "is_stand_in", "written")
_SHAPES = {2: "(n_spots, n_features)", 3: "(n_spots, n, n_features)"}


@dataclass(frozen=True, eq=False)
class StoredVectors:
    """What one file holds.

    Attributes
    ----------
    path : Path
    values : float array of shape (n_rows, n_features) or (n_rows, n, n_features)
    mask : array of shape (n_rows, n) or None
        1 for a tile inside of the slide.
    names, coords : arrays with a row each, or None
        See `neuromm.features.spot_places.spot_rows`.
    attrs : mapping
    """

    path: Path
    values: NDArray[np.floating]
    mask: NDArray[Any] | None
    names: NDArray[np.str_] | None
    coords: NDArray[np.float64] | None
    attrs: Mapping[str, Any]

    def of(self, adata: Any, section: str) -> NDArray[np.floating]:
        """Vectors in the order of the spots."""
        ordered: NDArray[np.floating] = self.values[self._rows(adata, section)]
        return ordered

    def mask_of(self, adata: Any, section: str) -> NDArray[np.bool_]:
        """Mask of the tiles in the order of the spots."""
        shape = self.values.shape[:2]
        if self.mask is None or self.mask.shape != shape:
            found = "none" if self.mask is None else str(self.mask.shape)
            raise DataError(
                f"needs mask_tb, 1 for a tile inside of the slide, of the shape "
                f"{shape}, got {found}",
                self.path,
            )
        if not np.isin(self.mask, (0, 1)).all():
            raise DataError("mask_tb must hold 0 and 1 alone", self.path)
        ordered: NDArray[np.bool_] = self.mask.astype(bool)[self._rows(adata, section)]
        return ordered

    def _rows(self, adata: Any, section: str) -> NDArray[np.intp]:
        return spot_rows(
            adata, self.path, section=section, names=self.names, coords=self.coords
        )


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open a checked HDF5 file; damage that is met in the block is a DataError.

    Raises
    ------
    InputMissingError
        If it is not there.
    """
    import h5py

    if not path.is_file():
        raise InputMissingError(f"no features at {path}")
    check_hdf5(path, "HDF5 (.h5)")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (NeurommError, MemoryError):
        raise
    except Exception as error:  # the HDF5 library meets damage with many errors
        raise DataError(f"cannot be read ({error}): copy it again", path) from error


def read_vectors(path: Path, *, n_dims: tuple[int, ...]) -> StoredVectors:
    """Read the vectors of a file.

    Parameters
    ----------
    path : Path
        With ``embeddings``, or ``features`` as older files have it.
    n_dims : tuple of int
        Axes that are expected, 2, 3 or either.

    Raises
    ------
    InputMissingError
        If the file is not there.
    DataError
        If it is damaged, or holds no finite floats of that shape.
    """
    with opened(path) as file:
        name = next((name for name in _VALUES if name in file), None)
        if name is None:
            there = ", ".join(file) or "nothing"
            raise DataError(f"holds no embeddings, but {there}", path)
        values = _numbers(file, name, path)
        if values.ndim not in n_dims:
            wanted = " or ".join(_SHAPES[n] for n in n_dims)
            raise DataError(f"{name} must be {wanted}, got {values.shape}", path)
        mask = _numbers(file, "mask_tb", path) if "mask_tb" in file else None
        if 2 in n_dims and mask is not None:
            raise DataError(
                "holds the tiles around spots (mask_tb), not the spots: give the "
                "folder emb, with global/ beside neighbor/",
                path,
            )
        check_vectors(values, name, path)
        names, coords = row_keys(file, len(values), path)
        attrs = read_attrs(file, path)
    return StoredVectors(path, values, mask, names, coords, attrs)


def row_keys(
    file: Any, n_rows: int, path: Path
) -> tuple[NDArray[np.str_] | None, NDArray[np.float64] | None]:
    """Names of the rows of an open file, and their places.

    Raises
    ------
    DataError
        If there is not one of each a row.
    """
    import h5py

    names = coords = None
    for key in _NAMES:
        # TRIPLEX writes zeros for barcodes that it has not: numbers are no names.
        if key in file and h5py.check_string_dtype(file[key].dtype) is not None:
            names = np.asarray(file[key].asstr()[()], dtype=str).reshape(-1)
            break
    if "coords" in file:
        coords = _numbers(file, "coords", path).astype(np.float64)
    for what, held, shape in (
        ("names", None if names is None else names.shape, (n_rows,)),
        ("coords", None if coords is None else coords.shape, (n_rows, 2)),
    ):
        if held is not None and held != shape:
            raise DataError(f"{what} must be {shape}, a row a spot, got {held}", path)
    if coords is not None and not np.isfinite(coords).all():
        raise DataError("coords must be finite", path)
    return names, coords


def read_attrs(file: Any, path: Path) -> dict[str, Any]:
    """Read what an open file says of its vectors.

    Raises
    ------
    DataError
        If one is neither a text nor a number, or is many.
    """
    import h5py

    found: dict[str, Any] = {}
    for name in _ATTRS:
        if name not in file.attrs:
            continue
        kind = file.attrs.get_id(name).dtype
        # Other kinds are damage, and reading them can end the process.
        if h5py.check_string_dtype(kind) is None and kind.kind not in "biufS":
            raise DataError(f"its attribute {name} is no text and no number", path)
        held = np.asarray(file.attrs[name])
        if held.size != 1:
            raise DataError(f"its attribute {name} must be one value", path)
        value = held.item()
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        found[name] = value
    return found


def _numbers(file: Any, name: str, path: Path) -> NDArray[Any]:
    import h5py

    held = file[name]
    # Damage can turn numbers into other kinds, whose reading can end the process.
    if not isinstance(held, h5py.Dataset) or held.dtype.kind not in "biuf":
        found = getattr(held, "dtype", "a group")
        raise DataError(f"{name} must be an array of numbers, got {found}", path)
    return np.asarray(held[()])


def check_vectors(values: NDArray[Any], what: str, path: Path | None = None) -> None:
    """Refuse what is no finite floats.

    Raises
    ------
    DataError
    """
    if values.dtype.kind != "f":
        raise DataError(
            f"{what} must hold floats, got {values.dtype}: store them as float32", path
        )
    if not values.size:
        raise DataError(f"{what} is empty, of the shape {values.shape}", path)
    bad = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if bad.any():
        raise DataError(
            f"{what} holds nan or infinity in {bad.sum()} of {len(bad)} rows: did the "
            "encoder run in half precision?",
            path,
        )


def write_arrays(
    path: Path, arrays: Mapping[str, NDArray[Any]], attrs: Mapping[str, Any]
) -> None:
    """Write an HDF5 file, whole or not at all.

    Parameters
    ----------
    path : Path
    arrays : mapping of str to array
        Bytes are text in UTF-8.
    attrs : mapping
        Of the file.
    """
    import h5py

    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        for name, values in arrays.items():
            if values.dtype.kind == "S":
                # Of one length: text of many lengths lies on a heap.
                text = h5py.string_dtype("utf-8", values.dtype.itemsize)
                values = values.astype(text)
            file.create_dataset(name, data=values)
        file.attrs.update(attrs)
