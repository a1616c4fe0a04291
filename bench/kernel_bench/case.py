"""What a case of the bench is: a kernel, its plain version, inputs and traffic."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from neuromm.kernels.arrays import namespace, on_device


@dataclass(frozen=True)
class Case:
    """One kernel at one size.

    Attributes
    ----------
    sources : tuple of str
        Of all kernels that run, below ``cuda/``; the first names the case.
    what : str
        Sizes in words, with the names of ``sizes`` in braces.
    sizes, small : dict of int
        On a GPU, and where the case itself is tested on the CPU.
    make : callable
        Named inputs from a `Draw` and sizes.
    kernel, plain : callables
        Tuples of arrays from the named inputs; ``plain`` also of float64 ones.
    traffic : callable or None
        Bytes that cannot be spared, from the sizes: inputs once, results once. None
        where products of matrices are a part of what is timed.
    changed : tuple of str
        Inputs that both change in place.
    floor : float
        Error, relative to the largest value, that is no matter whatever the plain
        version errs: by default that of the order of a sum in double.
    seen : callable, optional
        What is compared, from inputs and results.
    libraries : tuple of str
        That the kernel takes arrays of.
    """

    sources: tuple[str, ...]
    what: str
    sizes: dict[str, int]
    small: dict[str, int]
    make: Callable[..., dict[str, Any]]
    kernel: Callable[..., tuple[Any, ...]]
    plain: Callable[..., tuple[Any, ...]]
    traffic: Callable[..., float] | None
    changed: tuple[str, ...] = ()
    floor: float = 1e-13
    libraries: tuple[str, ...] = field(default=("torch", "cupy"))
    seen: Callable[..., tuple[Any, ...]] = lambda inputs, *results: results

    @property
    def name(self) -> str:
        """Name of the first source."""
        return self.sources[0].rpartition("/")[2].removesuffix(".cu")

    @property
    def title(self) -> str:
        return self.what.format(**self.sizes)


class Draw:
    """Random inputs of a library, on its device, the same in every run."""

    def __init__(self, library: str, device: str) -> None:
        self._library, self._device = library, device
        self.host = np.random.default_rng(0)
        if library == "torch":
            import torch

            self._random = torch.Generator(device).manual_seed(0)
        else:
            import cupy

            self._random = cupy.random.default_rng(0)

    def normal(self, *shape: int) -> Any:
        """Standard normal numbers, float32."""
        if self._library == "torch":
            import torch

            return torch.randn(shape, generator=self._random, device=self._device)
        return self._random.standard_normal(shape, dtype=np.float32)

    def unit(self, *shape: int) -> Any:
        """Rows of norm 1 in random directions, float32."""
        rows = self.normal(*shape)
        xp = namespace(rows)
        return rows / xp.sqrt(xp.sum(rows * rows, axis=-1))[..., None]

    def place(self, values: np.ndarray) -> Any:
        """Bring values of NumPy to the device."""
        return on_device(np.ascontiguousarray(values), self._library, self._device)

    def number(self, value: float) -> Any:
        """One number on the device, float32, of shape (1,)."""
        return self.place(np.array([value], dtype=np.float32))


def in_double(inputs: dict[str, Any]) -> dict[str, Any]:
    """Named inputs with every float32 array as float64."""
    return {
        name: value.astype(np.float64)
        if isinstance(value, np.ndarray) and value.dtype == np.float32
        else _double(value)
        for name, value in inputs.items()
    }


def _double(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_double(one) for one in value)
    if not hasattr(value, "dtype") or isinstance(value, np.ndarray):
        return value
    xp = namespace(value)
    return xp.astype(value, xp.float64) if value.dtype == xp.float32 else value
