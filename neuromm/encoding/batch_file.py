"""A result on disk, one ``.npy`` file, written and read a batch of targets at a time.

The file is in Fortran order with the targets on the last axis, so a batch is one
stretch of it.
"""

import os
import re
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from neuromm.core import OutputError, UsageError

__all__ = ["BatchFile"]


class BatchFile:
    """One array of a fit.

    Parameters
    ----------
    path : Path
    name : str
        For messages, and fit for a file name.
    shape : sequence of int
        Targets last.
    dtype : dtype
    n_targets : int

    Attributes
    ----------
    n_bytes : int
        Of the whole file.

    Raises
    ------
    UsageError
        If the last axis is not that of the targets, or it holds no numbers.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        shape: Sequence[int],
        dtype: DTypeLike,
        n_targets: int,
    ) -> None:
        self.path = path
        self.shape = tuple(int(n) for n in shape)
        self.dtype = np.dtype(dtype)
        if not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise UsageError(f"the name of an array must fit a file, got {name!r}")
        if not self.shape or self.shape[-1] != n_targets or min(self.shape) < 1:
            raise UsageError(
                f"{name} must have {n_targets} targets on its last axis and no empty "
                f"axis, got the shape {self.shape}"
            )
        if self.dtype.hasobject:
            raise UsageError(f"{name} must hold numbers, got {self.dtype}")
        self._name = name
        self._header = _npy_header(self.shape, self.dtype)
        self._target_bytes = self.dtype.itemsize * int(
            np.prod(self.shape[:-1], dtype=np.int64)
        )
        self.n_bytes = len(self._header) + self._target_bytes * n_targets

    def description(self) -> dict[str, Any]:
        """Shape and dtype as JSON."""
        return {"shape": list(self.shape), "dtype": self.dtype.str}

    def create(self) -> None:
        """Make the file, unless it is there; one with another header is made anew."""
        if self.path.is_file() and self.path.stat().st_size == self.n_bytes:
            with open(self.path, "rb") as file:
                if file.read(len(self._header)) == self._header:
                    return
        try:
            with open(self.path, "wb") as file:
                file.write(self._header)
                file.truncate(self.n_bytes)
                _to_disk(file)
        except OSError as error:
            raise OutputError(
                f"cannot write {self.path}: {error.strerror or error}"
            ) from error

    def check(self, values: NDArray[Any], columns: slice) -> None:
        """Check that these are the values of a batch.

        Raises
        ------
        UsageError
            If shape or dtype is another one.
        """
        expected = (*self.shape[:-1], columns.stop - columns.start)
        if values.shape != expected or values.dtype != self.dtype:
            raise UsageError(
                f"{self._name} of this batch must have the shape {expected} and dtype "
                f"{self.dtype}, got {values.shape} and {values.dtype}"
            )

    def write(self, columns: slice, values: NDArray[Any]) -> memoryview:
        """Write a batch to the disk, and return its bytes as they lie there."""
        # Transposed, Fortran order is one stretch of memory; it is copied if need be.
        part = np.asfortranarray(values).T.reshape(-1).view(np.uint8).data
        with open(self.path, "r+b") as file:
            file.seek(self._position(columns.start))
            file.write(part)
            _to_disk(file)
        return part

    def read(self, columns: slice) -> bytes:
        """Bytes of a batch as they lie in the file."""
        with open(self.path, "rb") as file:
            file.seek(self._position(columns.start))
            return file.read((columns.stop - columns.start) * self._target_bytes)

    def _position(self, target: int) -> int:
        return len(self._header) + target * self._target_bytes


def _npy_header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    header = BytesIO()
    np.lib.format.write_array_header_1_0(
        header,
        {
            "descr": np.lib.format.dtype_to_descr(dtype),
            "fortran_order": True,
            "shape": shape,
        },
    )
    return header.getvalue()


def _to_disk(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
