"""Arrays of NumPy, torch and CuPy under one spelling.

The library and the device of a computation are those of the arrays it is given. What
the array API standard spells is taken from ``array_api_compat``; the few things it
does not spell are here.

References
----------
Python array API standard 2024.12, https://data-apis.org/array-api/
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ROWS_PER_SUM",
    "Array",
    "Backend",
    "as_like",
    "contiguous",
    "empty",
    "free_memory",
    "host_array",
    "is_device_array",
    "is_numpy",
    "is_on_gpu",
    "itemsize",
    "namespace",
    "on_device",
    "runs_kernels",
]

# An array of NumPy, torch or CuPy. The standard has no type for it.
Array = Any

Backend = Literal["numpy", "torch", "cupy"]

# Rows whose products are summed in the precision of the data before they enter a
# float64 sum: a float32 sum of so few products errs by less than 1e-5 of itself.
ROWS_PER_SUM = 128


def namespace(*arrays: Array) -> Any:
    """Return the module with the standard's functions for these arrays.

    Raises
    ------
    TypeError
        If they belong to different libraries, or to none that is known.
    """
    from array_api_compat import array_namespace

    return array_namespace(*arrays)


def contiguous(x: Array) -> Array:
    """Row-major copy of a NumPy array that is not; others are as they are."""
    return np.ascontiguousarray(x) if isinstance(x, np.ndarray) else x


def empty(shape: tuple[int, ...], x: Array) -> Array:
    """Uninitialised array with the library, device and precision of ``x``."""
    if isinstance(x, np.ndarray):
        return np.empty(shape, dtype=x.dtype)
    from array_api_compat import device

    return namespace(x).empty(shape, dtype=x.dtype, device=device(x))


def is_device_array(x: Any) -> bool:
    """Tell whether ``x`` is an array that is not NumPy's: of torch, CuPy or another.

    The name says where such arrays may lie; those of torch may also lie on the host.
    """
    from array_api_compat import is_array_api_obj

    return bool(is_array_api_obj(x)) and not isinstance(x, np.ndarray | np.generic)


def is_numpy(x: Array) -> bool:
    """Tell whether ``x`` is a NumPy array, memory-mapped ones included."""
    return isinstance(x, np.ndarray)


def host_array(x: Array) -> NDArray[Any]:
    """Copy of an array in NumPy; the array itself, if it is one of NumPy."""
    if isinstance(x, np.ndarray):
        return x
    if hasattr(x, "detach"):  # torch
        return np.asarray(x.detach().cpu().numpy())
    if hasattr(x, "get"):  # CuPy
        return np.asarray(x.get())
    return np.asarray(x)


def as_like(values: NDArray[Any], x: Array, *, dtype: Any = None) -> Array:
    """NumPy values as an array of the library and on the device of ``x``.

    Parameters
    ----------
    values : array
    x : array
    dtype : dtype of the library of ``x``, optional
        By default the one that corresponds to that of ``values``.
    """
    if isinstance(x, np.ndarray):
        return np.asarray(values, dtype=dtype)
    from array_api_compat import device

    xp = namespace(x)
    copied = np.ascontiguousarray(values)
    return xp.asarray(copied, dtype=dtype, device=device(x))


def is_on_gpu(x: Array) -> bool:
    """Tell whether an array lies in the memory of a CUDA device."""
    if isinstance(x, np.ndarray):
        return False
    from array_api_compat import is_cupy_array

    return bool(is_cupy_array(x)) or bool(getattr(x, "is_cuda", False))


def runs_kernels(x: Array) -> bool:
    """Tell whether CUDA kernels of ``cuda/`` take an array: on a GPU, beside CuPy."""
    if not is_on_gpu(x):
        return False
    from neuromm.kernels.gpu_loader import has_cupy

    return has_cupy()


def on_device(x: NDArray[Any], backend: Backend, device: str | None = None) -> Array:
    """NumPy values as an array of a library, on a device.

    Parameters
    ----------
    x : array
    backend : {"numpy", "torch", "cupy"}
    device : str, optional
        Such as ``"cuda:1"``. By default the host for torch, and CuPy's current device.
    """
    if backend == "numpy":
        return x
    if backend == "torch":
        import torch

        return torch.from_numpy(np.ascontiguousarray(x)).to(device or "cpu")
    from neuromm._optional import require

    cupy = require("cupy", extra="gpu13")
    number = int((device or "cuda:0").partition(":")[2] or 0)
    with cupy.cuda.Device(number):
        return cupy.asarray(x)


def itemsize(x: Array) -> int:
    """Bytes of a number of a float32 or float64 array."""
    return 8 if x.dtype == namespace(x).float64 else 4


def free_memory(x: Array) -> int | None:
    """Bytes that are free on the device of ``x``; None on the host."""
    device = getattr(x, "device", None)
    if getattr(device, "type", None) == "cuda":
        import torch

        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device)
        return int(free + cached - torch.cuda.memory_allocated(device))
    mem_info = getattr(device, "mem_info", None)  # CuPy
    return None if mem_info is None else int(mem_info[0])
