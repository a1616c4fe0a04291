"""Builds CUDA sources for the CPU with cuda/host and launches them from Python."""

import ctypes
import hashlib
import importlib
import os
import pkgutil
import re
import shutil
import struct
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from neuromm._resources import shared_folder
from neuromm.kernels.gpu_launch import Launch
from neuromm.kernels.gpu_loader import with_headers

COMPILER = shutil.which("g++")
SCHEDULES = ("forward", "reverse", "random")
KERNEL = re.compile(
    r'extern "C" __global__ void\s+(?:__launch_bounds__\([^)]*\)\s+)?(\w+)\('
)
FLAGS = ["-std=c++20", "-O1", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off"]

# Elements before and after each output, which no kernel may touch.
CANARIES = 37


class KernelError(RuntimeError):
    """What the shim found wrong with a launch."""


class HostLaunch(ctypes.Structure):
    """`Launch` of cuda/host/shim.h."""

    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared_bytes", ctypes.c_uint64),
        ("schedule", ctypes.c_uint),
        ("seed", ctypes.c_uint),
    )


def sources() -> list[Path]:
    """Every CUDA source that comes with neuromm."""
    return sorted(shared_folder("cuda").rglob("*.cu"))


def kernel_names(source: Path) -> list[str]:
    return KERNEL.findall(source.read_text())


def build(source: Path, folder: Path, *, threads: bool = False) -> Path:
    """Shared library of a source; with ``threads`` a program for ThreadSanitizer.

    Kept in ``folder`` under the digest of all that it is made of.
    """
    cuda = shared_folder("cuda")
    host = sorted((cuda / "host").glob("*.h"))
    digest = hashlib.sha256(repr((threads, FLAGS)).encode())
    for part in [*with_headers(source), *host]:
        digest.update(part.read_bytes())
    built = folder / f"{source.stem}-{digest.hexdigest()[:16]}"
    if built.exists():
        return built
    lines = [f'#include "{cuda / "host" / "shim.h"}"', f'#include "{source}"']
    lines += [f"NEUROMM_ENTRY({name})" for name in kernel_names(source)]
    flags = ["-fPIC", "-shared"]
    if threads:
        lines += [f'#include "{cuda / "host" / "case_main.h"}"']
        flags = ["-g", "-DNEUROMM_THREADS", "-fsanitize=thread", "-pthread"]
    stub = folder / f"{built.name}-{os.getpid()}.cpp"
    stub.write_text("\n".join(lines) + "\n")
    output = stub.with_suffix(".built")
    command = [COMPILER, *FLAGS, *flags, f"-I{source.parent}", "-o", output, stub]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    os.replace(output, built)
    stub.unlink()
    return built


@dataclass
class Shim:
    """Takes the place of `neuromm.kernels.gpu_launch` on the CPU.

    Attributes
    ----------
    folder : Path
        Of what is built.
    schedule, seed
        Order of threads and blocks.
    source : Path, optional
        Run instead of the source that the launch names.
    """

    folder: Path
    schedule: str = "forward"
    seed: int = 0
    source: Path | None = None
    shared_bytes: int = 227 * 1024

    def __post_init__(self) -> None:
        self._guards: list[tuple[np.ndarray, slice]] = []
        self.launches: list[Launch] = []

    def launch(self, geometry: Launch, arguments: Sequence[Any], like: Any) -> None:
        del like
        self.launches.append(geometry)
        assert geometry.shared_bytes <= self.shared_bytes
        source = self.source or shared_folder("cuda") / geometry.source
        self._start(source, geometry, [_host_value(one) for one in arguments])
        for buffer, inside in self._guards:
            bytes_ = buffer.view(np.uint8)
            assert np.all(bytes_[: inside.start] == 0xFF), "written before an output"
            assert np.all(bytes_[inside.stop :] == 0xFF), "written behind an output"

    def empty(self, shape: tuple[int, ...], dtype: str, like: Any) -> Any:
        """Return an array of bytes 0xff (nan) between canaries of the same."""
        n_items = int(np.prod(shape))
        buffer = np.full(
            (n_items + 2 * CANARIES) * np.dtype(dtype).itemsize, 0xFF, "u1"
        )
        buffer = buffer.view(dtype)
        step = buffer.itemsize
        inside = slice(CANARIES * step, (CANARIES + n_items) * step)
        self._guards.append((buffer, inside))
        output = buffer[CANARIES : CANARIES + n_items].reshape(shape)
        if isinstance(like, np.ndarray):
            return output
        import torch

        return torch.from_numpy(output)

    def shared_limit(self, like: Any) -> int:
        del like
        return self.shared_bytes

    def _start(self, source: Path, geometry: Launch, values: list[Any]) -> None:
        library = ctypes.CDLL(str(build(source, self.folder)))
        entry = getattr(library, f"host_{geometry.kernel}")
        entry.restype = ctypes.c_char_p
        # A kernel takes its arguments by value: here is the place of each.
        cells = [
            np.array([one.ctypes.data if isinstance(one, np.ndarray) else one])
            for one in values
        ]
        places = (ctypes.c_void_p * len(cells))(*[cell.ctypes.data for cell in cells])
        error = entry(ctypes.byref(self._host_launch(geometry)), places)
        if error is not None:
            raise KernelError(error.decode())

    def _host_launch(self, geometry: Launch) -> HostLaunch:
        return HostLaunch(
            tuple(geometry.grid),
            tuple(geometry.block),
            geometry.shared_bytes,
            SCHEDULES.index(self.schedule),
            self.seed,
        )


class ThreadShim(Shim):
    """Runs each launch in a program of its own, under ThreadSanitizer."""

    def _start(self, source: Path, geometry: Launch, values: list[Any]) -> None:
        program = build(source, self.folder, threads=True)
        case = self.folder / f"case-{os.getpid()}"
        result = case.with_suffix(".result")
        name = geometry.kernel.encode()
        content = struct.pack("<Q", len(name)) + name
        content += bytes(self._host_launch(geometry)) + struct.pack("<Q", len(values))
        for one in values:
            raw = np.ascontiguousarray(one).tobytes()
            content += struct.pack("<QQ", isinstance(one, np.ndarray), len(raw)) + raw
        case.write_bytes(content)
        # Without randomised addresses: this ThreadSanitizer knows no larger ones.
        done = subprocess.run(
            ["setarch", "-R", program, case, result], capture_output=True, text=True
        )
        if done.returncode != 0:
            raise KernelError(done.stderr)
        content = result.read_bytes()
        for one in values:
            if isinstance(one, np.ndarray):
                raw, content = content[: one.nbytes], content[one.nbytes :]
                one[...] = np.frombuffer(raw, one.dtype).reshape(one.shape)
        case.unlink()
        result.unlink()


def patched(shim: Shim, monkeypatch: Any) -> Shim:
    """Let the launchers of `neuromm.kernels` run in the shim, on arrays of the CPU."""
    changes = {
        "launch": shim.launch,
        "empty": shim.empty,
        "require_gpu": lambda *arrays: None,
        "shared_limit": shim.shared_limit,
    }
    for module in launchers():
        for name in changes.keys() & vars(module).keys():
            monkeypatch.setattr(module, name, changes[name])
    return shim


def launchers() -> list[ModuleType]:
    """Modules of `neuromm.kernels` that launch a source of any family."""
    from neuromm import kernels

    found = [
        importlib.import_module(f"{kernels.__name__}.{one.name}")
        for one in pkgutil.iter_modules(kernels.__path__)
        if one.name.startswith("gpu_") and one.name != "gpu_launch"
    ]
    return [module for module in found if hasattr(module, "launch")]


def without_barrier(source: Path, number: int, folder: Path) -> Path:
    """Copy of a source and its headers, without one barrier of the source."""
    cuda = source.resolve().parent.parent
    for part in with_headers(source):
        place = folder / "without" / part.relative_to(cuda)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(part, place)
    text = source.read_text()
    places = [found.span() for found in re.finditer(r"__syncthreads\(\);", text)]
    start, stop = places[number]
    copy = folder / "without" / source.parent.name / source.name
    copy.write_text(text[:start] + text[stop:])
    return copy


def _host_value(one: Any) -> Any:
    if one is None:
        return np.uint64(0)
    if isinstance(one, np.generic | np.ndarray):
        return one
    return one.numpy()  # torch: the same memory


Patch = Callable[..., Shim]
