"""A matrix on disk that is written by rows and read by columns.

Responses often lie row after row (a NIfTI run is one volume after the other), and a fit
takes them in columns. They are turned once, on disk, in bounded memory.
"""

import hashlib
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from neuromm.core import DataError, OutputError, UsageError
from neuromm.core.errors import NeurommError
from neuromm.core.files import atomic_path, remove_leftovers

__all__ = ["PIECE_BYTES", "ScratchColumns", "Write", "aligned_slices", "column_bounds"]

Array = NDArray[np.floating]
Write = Callable[[slice, slice, NDArray[Any]], None]

# Stored values pass through a buffer of this size on their way into a batch.
PIECE_BYTES = 32 * 2**20

# A row of a block is 512 bytes in float32: blocks are narrow enough for small batches,
# and a few of their rows are long enough to be written at one go.
_BLOCK_COLUMNS = 128
_FOLDER = "neuromm-targets"


class ScratchColumns:
    """Columns that lie in a scratch file, which the first read fills.

    Parameters
    ----------
    shape : (int, int)
    dtype : dtype
    fill : callable
        Called as ``fill(write)``; it calls ``write(rows, columns, values)`` until every
        value has been written.
    folder : Path, optional
        Where the file lies. If not given, that of temporary files (``TMPDIR``); the
        file then has no name and is gone when it is closed, or when the process ends,
        however it ends.
    stamp : callable, optional
        Gives, as JSON, what the values are made from. With a folder the file is named
        after it and stays, and is taken as it is by whoever has the same stamp.

    Attributes
    ----------
    chunk : int
        Columns of a block.

    Notes
    -----
    Blocks of 128 columns lie one after the other, each row-major. So whole blocks are
    read from one stretch of the file, and a slab of rows is written in as many pieces
    as there are blocks; with one column after the other it would be as many as there
    are targets.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        dtype: np.dtype[Any],
        fill: Callable[[Write], None],
        *,
        folder: Path | None = None,
        stamp: Callable[[], dict[str, Any]] | None = None,
    ) -> None:
        self.shape = shape
        self.dtype = dtype
        self.chunk = min(_BLOCK_COLUMNS, shape[1])
        self._fill = fill
        self._folder = folder
        self._stamp = stamp
        self._file: IO[bytes] | None = None
        self._closed = False
        self._lock = threading.Lock()  # a batch may be read ahead in another thread

    def read(self, columns: slice) -> Array:
        """Read adjacent columns; the first call fills the file.

        Raises
        ------
        neuromm.core.OutputError
            If the file cannot be written.
        """
        start, stop = column_bounds(columns, self.shape[1])
        n_rows, itemsize = self.shape[0], self.dtype.itemsize
        batch = np.empty((n_rows, stop - start), dtype=self.dtype)
        with self._lock:
            file = self._opened()
            for first, width, part in self._blocks(start, stop):
                wanted = slice(first + part.start - start, first + part.stop - start)
                file.seek(first * n_rows * itemsize)
                step = max(PIECE_BYTES // (width * itemsize), 1)
                for rows in aligned_slices(0, n_rows, step):
                    buffer = np.empty((rows.stop - rows.start, width), self.dtype)
                    _read_whole(file, buffer)
                    batch[rows, wanted] = buffer[:, part]
        return batch

    def close(self) -> None:
        """Give up the file; it cannot be read afterwards."""
        self._closed = True
        if self._file is not None:
            self._file.close()
            self._file = None

    def _opened(self) -> IO[bytes]:
        if self._closed:
            raise UsageError("these targets were closed: make them anew to read them")
        if self._file is None:
            with _own_errors(self._no_room):
                self._file = self._filled_file()
        return self._file

    def _filled_file(self) -> IO[bytes]:
        if self._folder is None or self._stamp is None:
            if self._folder is not None:
                self._folder.mkdir(parents=True, exist_ok=True)
            file = cast("IO[bytes]", TemporaryFile(dir=self._folder))  # noqa: SIM115
            self._write_all(file)
            return file
        name = hashlib.sha256(repr(self._stamp()).encode()).hexdigest()[:24]
        path = self._folder / _FOLDER / f"{name}.bin"
        if not (path.is_file() and path.stat().st_size == self._n_bytes()):
            path.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(path.parent)
            with atomic_path(path) as temporary, open(temporary, "w+b") as file:
                self._write_all(file)
        return open(path, "rb")

    def _write_all(self, file: IO[bytes]) -> None:
        free = shutil.disk_usage(self._folder or gettempdir()).free
        if free < self._n_bytes():
            raise self._no_room(f"only {free / 1e9:.3g} GB are free")

        def write(rows: slice, columns: slice, values: NDArray[Any]) -> None:
            with _own_errors(self._no_room):
                self._write(file, rows, columns, values)

        self._fill(write)
        with _own_errors(self._no_room):
            file.flush()

    def _write(
        self, file: IO[bytes], rows: slice, columns: slice, values: NDArray[Any]
    ) -> None:
        itemsize = self.dtype.itemsize
        for first, width, part in self._blocks(columns.start, columns.stop):
            shift = first - columns.start
            piece = values[:, shift + part.start : shift + part.stop]
            piece = np.ascontiguousarray(piece, dtype=self.dtype)
            position = (first * self.shape[0] + rows.start * width) * itemsize
            if piece.shape[1] == width:
                file.seek(position)
                file.write(piece.data)
                continue
            for i, row in enumerate(piece):
                file.seek(position + (i * width + part.start) * itemsize)
                file.write(row.data)

    def _blocks(self, start: int, stop: int) -> Iterator[tuple[int, int, slice]]:
        """First column and width of each block, and what is wanted of it."""
        for part in aligned_slices(start, stop, self.chunk):
            first = part.start // self.chunk * self.chunk
            width = min(self.chunk, self.shape[1] - first)
            yield first, width, slice(part.start - first, part.stop - first)

    def _n_bytes(self) -> int:
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    def _no_room(self, reason: str) -> OutputError:
        return OutputError(
            f"cannot write {self._n_bytes() / 1e9:.3g} GB of scratch to "
            f"{self._folder or gettempdir()}: {reason}. Name a folder on a disk with "
            "more room: scratch=..."
        )


def aligned_slices(start: int, stop: int, step: int) -> list[slice]:
    """Cut ``start`` to ``stop`` at every multiple of ``step``.

    Examples
    --------
    >>> aligned_slices(3, 9, 4)
    [slice(3, 4, None), slice(4, 8, None), slice(8, 9, None)]
    """
    edges = [start, *range((start // step + 1) * step, stop, step), stop]
    return [slice(a, b) for a, b in pairwise(edges) if b > a]


def column_bounds(columns: slice, n_targets: int) -> tuple[int, int]:
    """First column of a slice, and the one after its last.

    Raises
    ------
    neuromm.core.UsageError
        If it has a step.
    """
    start, stop, step = columns.indices(n_targets)
    if step != 1:
        raise UsageError(f"targets are read in adjacent columns, got {columns}")
    return start, max(start, stop)


@contextmanager
def _own_errors(explain: Callable[[str], OutputError]) -> Iterator[None]:
    """Tell a failure to write in the user's terms; other errors pass."""
    try:
        yield
    except OSError as error:
        if isinstance(error, NeurommError):
            raise
        raise explain(error.strerror or str(error)) from error


def _read_whole(file: IO[bytes], buffer: NDArray[Any]) -> None:
    # A buffered file reads on until the buffer is full or the file ends.
    n_read = cast("Any", file).readinto(buffer.reshape(-1).view(np.uint8))
    if n_read != buffer.nbytes:
        raise DataError(
            "the scratch file of the targets was cut while it was in use; start anew",
            file.name if isinstance(file.name, str) else None,
        )
