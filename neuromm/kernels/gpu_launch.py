"""Launches of CUDA kernels over arrays of torch and CuPy.

Arrays of torch may lie on any CUDA device, those of CuPy on its current one. Outputs
and workspaces are allocated by the library of the inputs, so one pool owns them all.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuromm._optional import require
from neuromm._resources import shared_folder
from neuromm.kernels.arrays import Array, as_like, is_on_gpu, namespace
from neuromm.kernels.gpu_loader import kernel

__all__ = [
    "Launch",
    "beside",
    "dtype_name",
    "empty",
    "launch",
    "leading_dimension",
    "require_gpu",
    "row_major",
    "shared_limit",
]

# What a kernel may have without asking for more.
_DEFAULT_SHARED_BYTES = 48 * 1024


@dataclass(frozen=True)
class Launch:
    """What stands between <<< and >>>, and of which kernel.

    Attributes
    ----------
    source : str
        Below ``cuda/``.
    kernel : str
    grid, block : tuple of 3 int
    shared_bytes : int
        Of dynamic shared memory.
    """

    source: str
    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared_bytes: int = 0


def launch(geometry: Launch, arguments: Sequence[Any], like: Array) -> None:
    """Launch a kernel on the current stream of the library of ``like``.

    Parameters
    ----------
    geometry : Launch
    arguments : sequence
        In the order of the kernel: arrays, None for a null pointer, and scalars of
        NumPy with the size that the kernel expects.
    like : array
        Names library and device; all arrays must lie there.
    """
    with _stream_of(like):
        function = kernel(geometry.kernel, shared_folder("cuda") / geometry.source)
        if geometry.shared_bytes > _DEFAULT_SHARED_BYTES:
            function.max_dynamic_shared_size_bytes = geometry.shared_bytes
        function(
            geometry.grid,
            geometry.block,
            tuple(_argument(one) for one in arguments),
            shared_mem=geometry.shared_bytes,
        )


def require_gpu(*arrays: Array) -> None:
    """Raise TypeError unless all arrays lie on a GPU, in one library.

    They must also lie on the same device.
    """
    devices = set()
    for array in arrays:
        if not is_on_gpu(array):
            raise TypeError(
                "a CUDA kernel takes torch tensors on a CUDA device or CuPy arrays, "
                f"got {type(array).__module__}.{type(array).__name__} on "
                f"{getattr(array, 'device', 'the host')}"
            )
        devices.add((type(array).__module__.partition(".")[0], str(array.device)))
    if len(devices) > 1:
        found = ", ".join(sorted(f"{library} on {where}" for library, where in devices))
        raise TypeError(f"arrays must be of one library and on one device, got {found}")


def shared_limit(like: Array) -> int:
    """Bytes of shared memory that a block may ask for on the device of ``like``."""
    cupy = require("cupy", extra="gpu13")
    attributes = cupy.cuda.Device(_device_number(like)).attributes
    return int(attributes["MaxSharedMemoryPerBlockOptin"])


def empty(shape: tuple[int, ...], dtype: str, like: Array) -> Array:
    """Array of the library and on the device of ``like``, contents undefined."""
    xp = namespace(like)
    return xp.empty(shape, dtype=getattr(xp, dtype), device=like.device)


def beside(values: Array, like: Array, dtype: str) -> Array:
    """Small array in the memory, library and precision that a kernel wants.

    Parameters
    ----------
    values : array
        Of NumPy, then copied to the device of ``like``, or there already.
    like : array
    dtype : str
        Name of a dtype.

    Returns
    -------
    array
        Contiguous.
    """
    xp = namespace(like)
    if isinstance(values, np.ndarray) and not isinstance(like, np.ndarray):
        return as_like(values, like, dtype=getattr(xp, dtype))
    return _contiguous(xp.astype(values, getattr(xp, dtype), copy=False))


def dtype_name(x: Array) -> str:
    """``"float32"`` of both ``torch.float32`` and ``numpy.dtype("float32")``."""
    return str(x.dtype).rpartition(".")[2]


def row_major(x: Array) -> Array:
    """Return a matrix with neighbouring columns next to each other: x, or a copy."""
    return x if _column_stride(x) == 1 else _contiguous(x)


def leading_dimension(x: Array) -> np.uint64:
    """Elements from a row of a row-major matrix to the next one.

    Raises
    ------
    ValueError
        If neighbouring columns do not lie next to each other.
    """
    if _column_stride(x) != 1:
        raise ValueError(
            "a kernel that changes a matrix in place needs its columns next to each "
            "other in memory (row-major), got one that is transposed or strided"
        )
    if x.shape[0] < 2:  # the stride of one row means nothing
        return np.uint64(x.shape[1])
    return np.uint64(_strides(x)[0])


def _column_stride(x: Array) -> int:
    return 1 if x.shape[0] < 1 or x.shape[1] < 2 else _strides(x)[1]


def _strides(x: Array) -> tuple[int, ...]:
    """Elements from neighbour to neighbour, axis by axis."""
    if callable(getattr(x, "stride", None)):  # torch
        return tuple(x.stride())
    return tuple(step // x.itemsize for step in x.strides)


def _contiguous(x: Array) -> Array:
    if hasattr(x, "contiguous"):  # torch
        return x.contiguous()
    return namespace(x).ascontiguousarray(x)


def _argument(one: Any) -> np.generic:
    """Scalar that CuPy hands to a kernel as it is."""
    if one is None:
        return np.uint64(0)
    if isinstance(one, np.generic):
        return one
    if hasattr(one, "data_ptr"):
        return np.uint64(one.data_ptr())
    return np.uint64(one.data.ptr)


def _device_number(like: Array) -> int:
    """Number of the CUDA device of an array."""
    if hasattr(like, "data_ptr"):
        return int(like.get_device())
    return int(like.device.id)


@contextlib.contextmanager
def _stream_of(like: Array) -> Iterator[None]:
    """Make device and current stream of the library of ``like`` those of CuPy."""
    cupy = require("cupy", extra="gpu13")
    number = _device_number(like)
    with cupy.cuda.Device(number):
        if not hasattr(like, "data_ptr"):
            yield
            return
        import torch

        pointer = torch.cuda.current_stream(number).cuda_stream
        with cupy.cuda.ExternalStream(pointer):
            yield
