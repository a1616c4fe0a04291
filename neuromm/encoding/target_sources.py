"""Responses that are read a batch of targets at a time, from memory or from disk.

A fit passes over its targets once, in batches of adjacent columns. Here every place in
which responses lie is given the same face: `read` a batch, and say how many columns
are stored together (`chunk`), so that no stored byte is unpacked twice.
"""

import hashlib
import mmap
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol, Self, cast

import numpy as np
from numpy.typing import NDArray

from neuromm.core import DataError, UsageError
from neuromm.encoding.target_scratch import (
    PIECE_BYTES,
    ScratchColumns,
    Write,
    aligned_slices,
    column_bounds,
)

__all__ = [
    "TargetSource",
    "array_digest",
    "file_stamp",
    "target_source",
    "targets_stamp",
]

Array = NDArray[np.floating]

# All samples of the columns that are stored together may take this much memory.
_TOGETHER_BYTES = 256 * 10**6
_STAMPED_COLUMNS = 8

_ACCEPTED = (
    "a NumPy array or memmap, an h5py.Dataset, a zarr.Array, NiftiTargets(runs, "
    "mask_img), or an object with shape, dtype and y[rows, columns]"
)


class TargetSource(Protocol):
    """Responses, one row a sample and one column a target, read by columns.

    Attributes
    ----------
    shape : (int, int)
        ``(n_samples, n_targets)``.
    dtype : dtype
        Of what `read` returns: float32 or float64.
    chunk : int
        Columns that are stored together: a pass in batches that are multiples of it
        (but for the last) reads every stored byte once. 1 where any width reads
        equally well.
    """

    @property
    def shape(self) -> tuple[int, int]:
        """``(n_samples, n_targets)``."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Float32 or float64."""
        ...

    @property
    def chunk(self) -> int:
        """Columns that are stored together."""
        ...

    def read(self, columns: slice) -> Array:
        """Read adjacent columns.

        Parameters
        ----------
        columns : slice
            Without a step.

        Returns
        -------
        batch : array of shape (n_samples, width)
            C-contiguous, and the caller's own: never a view of the source. nan where
            the source has it.
        """
        ...


def target_source(
    y: Any, *, scratch: str | Path | None = None, memory: int = _TOGETHER_BYTES
) -> TargetSource:
    """Give responses of any kind as columns to read.

    Parameters
    ----------
    y : array of shape (n_samples, n_targets), in memory or on disk
        A NumPy array or memmap (in either order), an ``h5py.Dataset``, a
        ``zarr.Array``, `NiftiTargets`, another `TargetSource`, or anything with
        ``shape``, ``dtype`` and ``y[rows, columns]``. Integers of up to 16 bits and
        half precision are read as float32, longer integers as float64.
    scratch : path-like, optional
        Folder for scratch, on a disk with room for all responses; that of temporary
        files (``TMPDIR``) if not given, where nothing stays. In a folder that is named
        the scratch stays, in ``neuromm-targets``, for the next fit of the same file.
    memory : int
        Bytes that all samples of one ``chunk`` of columns may take.

    Returns
    -------
    source : TargetSource

    Raises
    ------
    neuromm.core.UsageError
        If ``y`` is none of these, is not 2-D, is empty or holds no real numbers.

    Notes
    -----
    HDF5 and zarr store rectangles, each compressed on its own. ``chunk`` is their
    width, and batches of a multiple of it unpack each once. Rectangles can be so wide
    that a batch of whole ones takes more than ``memory``: slabs of a few rows and all
    columns are the common case. Narrower batches would unpack everything again for
    each batch. So slabs are declared as they are while they fit (``chunk`` is then
    ``n_targets``); where they do not, the first `read` copies everything to scratch in
    one pass, in blocks of 128 columns.

    Row-major memmaps, and HDF5 datasets that are not chunked, read equally well at any
    width: a batch touches its own bytes of each row, up to whole pages at either end.
    The latter holds for files opened read-only; of a dataset that may be written to,
    HDF5 reads 64 KiB of a row at a time.
    """
    if callable(getattr(y, "read", None)) and hasattr(y, "chunk"):
        return cast("TargetSource", y)
    if isinstance(y, np.ma.MaskedArray):
        raise UsageError(
            "the targets are a masked array, whose mask would be lost: hand over "
            "y.filled(np.nan); a target with missing values is not fitted"
        )
    if isinstance(y, np.ndarray):
        return _ArrayTargets(y)
    stored = _StoredTargets(y)
    mapped = _unchunked_hdf5(y)
    if mapped is not None:
        return _ArrayTargets(mapped)
    if stored.shape[0] * stored.chunk * stored.dtype.itemsize <= memory:
        return stored
    return _SpooledTargets(stored, None if scratch is None else Path(scratch))


def targets_stamp(source: TargetSource) -> dict[str, Any]:
    """What tells responses from others, so that no fit is resumed on other ones.

    Parameters
    ----------
    source : TargetSource

    Returns
    -------
    stamp : dict
        JSON. Shape and dtype; for files also name (without folder, which may move),
        bytes and time of change; for an array in memory the SHA-256 of all its values.
        Of anything else 8 columns spread over all are digested: **there, a change in
        other columns is not noticed.**
    """
    stamp: dict[str, Any] = {
        "shape": [int(n) for n in source.shape],
        "dtype": source.dtype.name,
    }
    origin = getattr(source, "origin_stamp", None)
    return {**stamp, **(origin() if callable(origin) else _columns_stamp(source))}


def array_digest(values: NDArray[Any]) -> str:
    """SHA-256 of an array's dtype, shape and values, whatever its order in memory."""
    digest = hashlib.sha256(f"{values.dtype.str} {values.shape}".encode())
    rows = np.atleast_1d(np.asarray(values))
    step = max(PIECE_BYTES // max(rows.nbytes // max(len(rows), 1), 1), 1)
    for part in aligned_slices(0, len(rows), step):
        digest.update(np.ascontiguousarray(rows[part]).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def file_stamp(path: str | Path) -> dict[str, Any]:
    """Name, bytes and time of change (ns) of a file."""
    status = Path(path).stat()
    return {
        "file": Path(path).name,
        "bytes": status.st_size,
        "mtime_ns": status.st_mtime_ns,
    }


class _ArrayTargets:
    """A NumPy array or memmap."""

    chunk = 1

    def __init__(self, y: NDArray[Any]) -> None:
        self.shape = _checked_shape(y)
        self.dtype = _read_dtype(y.dtype)
        self._y = y

    def read(self, columns: slice) -> Array:
        start, stop = column_bounds(columns, self.shape[1])
        # asarray: the batch of a memmap is an array in memory like any other.
        part = np.asarray(self._y)[:, start:stop]
        return np.array(part, dtype=self.dtype, order="C", copy=True)

    def origin_stamp(self) -> dict[str, Any]:
        y = self._y
        mapping = getattr(y, "_mmap", None)
        # Changes to a copy-on-write map ("c") are in memory alone.
        if mapping is None or getattr(y, "filename", None) is None or y.mode == "c":  # type: ignore[attr-defined]
            return {"sha256": array_digest(y)}
        memmap = cast("Any", y)
        # Where the first value lies in the file, also for a slice of the map.
        map_start = memmap.offset - memmap.offset % mmap.ALLOCATIONGRANULARITY
        address = np.frombuffer(mapping, dtype=np.uint8).ctypes.data
        return {
            **file_stamp(memmap.filename),
            "first_byte": map_start + y.ctypes.data - address,
            "strides": list(y.strides),
        }


class _StoredTargets:
    """Anything with shape, dtype and slices, stored in rectangles if it says so."""

    def __init__(self, y: Any) -> None:
        self.shape = _checked_shape(y)
        self.dtype = _read_dtype(y.dtype)
        self._rectangle = _rectangle(y)
        self.chunk = min(self._rectangle[1], self.shape[1])
        self._y = y

    def read(self, columns: slice) -> Array:
        start, stop = column_bounds(columns, self.shape[1])
        batch = np.empty((self.shape[0], stop - start), dtype=self.dtype)
        for rows, part in self.pieces(start, stop):
            batch[rows, part.start - start : part.stop - start] = self.piece(rows, part)
        return batch

    def pieces(self, start: int, stop: int) -> Iterable[tuple[slice, slice]]:
        """Cut columns into parts of whole rectangles that fit in the buffer."""
        n_values = PIECE_BYTES // self.dtype.itemsize
        high, wide = self._rectangle
        n_rows = max(n_values // max(stop - start, 1) // high, 1) * high
        n_columns = max(n_values // n_rows // wide, 1) * wide
        for rows in aligned_slices(0, self.shape[0], n_rows):
            for part in aligned_slices(start, stop, n_columns):
                yield rows, part

    def piece(self, rows: slice, columns: slice) -> NDArray[Any]:
        expected = (rows.stop - rows.start, columns.stop - columns.start)
        try:
            values = np.asarray(self._y[rows, columns])
        except (OSError, RuntimeError, ValueError) as error:
            raise DataError(
                f"rows {rows.start} to {rows.stop} of targets {columns.start} to "
                f"{columns.stop} cannot be read ({error}): the file is damaged or was "
                "closed; copy it again, or keep it open during the fit",
                _file_name(self._y),
            ) from error
        if values.shape != expected:
            raise UsageError(
                f"y[rows, columns] must give {expected[0]} rows and {expected[1]} "
                f"columns here, got the shape {values.shape}"
            )
        return values

    def origin_stamp(self) -> dict[str, Any]:
        return _stored_stamp(self._y) or _columns_stamp(self)


class _SpooledTargets:
    """Responses in slabs of rows that are too wide, turned once on disk."""

    def __init__(self, stored: _StoredTargets, scratch: Path | None) -> None:
        self.shape = stored.shape
        self.dtype = stored.dtype
        self._stored = stored
        stamped = _stored_stamp(stored._y) is not None
        self._scratch = ScratchColumns(
            self.shape,
            self.dtype,
            self._fill,
            folder=scratch,
            stamp=self._stamp if stamped else None,
        )
        self.chunk = self._scratch.chunk

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, columns: slice) -> Array:
        return self._scratch.read(columns)

    def close(self) -> None:
        self._scratch.close()

    def origin_stamp(self) -> dict[str, Any]:
        stamp = _stored_stamp(self._stored._y)
        return _columns_stamp(self) if stamp is None else stamp

    def _stamp(self) -> dict[str, Any]:
        return targets_stamp(self)

    def _fill(self, write: Write) -> None:
        for rows, columns in self._stored.pieces(0, self.shape[1]):
            write(rows, columns, self._stored.piece(rows, columns))


def _checked_shape(y: Any) -> tuple[int, int]:
    if _package(y) == "h5py" and not y:
        raise UsageError("the targets lie in an HDF5 file that is closed: open it")
    try:
        shape = tuple(int(n) for n in y.shape)
    except (AttributeError, TypeError) as error:
        raise UsageError(
            f"targets must be {_ACCEPTED}; got {type(y).__name__}"
        ) from error
    if not hasattr(y, "dtype") or not hasattr(y, "__getitem__"):
        raise UsageError(
            f"targets must be {_ACCEPTED}; got {type(y).__name__}. Of a table, hand "
            "over .to_numpy()"
        )
    if len(shape) != 2 or min(shape) < 1:
        raise UsageError(
            "targets must be 2-D, at least one sample by one target, got the shape "
            f"{shape}"
        )
    return shape


def _read_dtype(dtype: Any) -> np.dtype[Any]:
    try:
        kind = np.dtype(dtype)
    except TypeError:
        kind = np.dtype(object)
    if kind.kind == "f" and kind.itemsize <= 8:
        return np.dtype(np.float32 if kind.itemsize <= 4 else np.float64)
    if kind.kind in "iub":
        return np.dtype(np.float32 if kind.itemsize <= 2 else np.float64)
    raise UsageError(
        "targets must hold real numbers of at most 64 bits, in a dtype of NumPy; got "
        f"{dtype}"
    )


def _rectangle(y: Any) -> tuple[int, int]:
    """Rows and columns that are stored together: 1 and 1 where nothing is said."""
    for name in ("chunks", "chunksize"):  # h5py and zarr; dask
        sizes = getattr(y, name, None)
        if isinstance(sizes, tuple) and len(sizes) == 2:
            high, wide = sizes
            if isinstance(high, int) and isinstance(wide, int) and min(sizes) > 0:
                return high, wide
    return 1, 1


def _package(y: Any) -> str:
    return type(y).__module__.partition(".")[0]


def _unchunked_hdf5(y: Any) -> NDArray[Any] | None:
    """Map a dataset that lies in one stretch of a file nobody writes to."""
    if _package(y) != "h5py" or y.chunks is not None or y.external is not None:
        return None
    file, offset = y.file, y.id.get_offset()
    plain = file.mode == "r" and file.driver in ("sec2", "stdio")
    if offset is None or not plain or y.dtype.kind not in "fiu":
        return None
    mapped: NDArray[Any] = np.memmap(
        file.filename, dtype=y.dtype, mode="r", offset=offset, shape=y.shape
    )
    return mapped


def _file_name(y: Any) -> str | None:
    try:
        return str(y.file.filename if _package(y) == "h5py" else y.store.root / y.path)
    except (AttributeError, TypeError, ValueError):  # closed, or in no file
        return None


def _stored_stamp(y: Any) -> dict[str, Any] | None:
    """Stamp of the files of an HDF5 or zarr array; None if it lies in no file."""
    if _package(y) == "h5py" and Path(y.file.filename).is_file():
        return {**file_stamp(y.file.filename), "dataset": y.name}
    root = getattr(getattr(y, "store", None), "root", None)
    if _package(y) != "zarr" or not isinstance(root, (str, Path)):
        return None
    folder = Path(root) / y.path
    files = [path.stat() for path in folder.rglob("*") if path.is_file()]
    return {
        "folder": folder.name,
        "files": len(files),
        "bytes": sum(status.st_size for status in files),
        "mtime_ns": max((status.st_mtime_ns for status in files), default=0),
    }


def _columns_stamp(source: TargetSource) -> dict[str, Any]:
    digest = hashlib.sha256()
    columns = np.linspace(0, source.shape[1] - 1, _STAMPED_COLUMNS).astype(int)
    for column in np.unique(columns).tolist():
        digest.update(source.read(slice(column, column + 1)).tobytes())
    return {"some_columns_sha256": digest.hexdigest()}
