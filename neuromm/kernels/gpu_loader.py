"""CUDA kernels from source to a function that can be launched.

A source is compiled by NVRTC, through the binding that comes with CuPy, to machine code
of one architecture (a cubin), which needs neither a driver nor a GPU. Cubins are kept
in a folder of the user, so each is compiled once for a version of the source, of NVRTC
and of the options. PTX is never kept: that of a newer NVRTC is refused by an older
driver.

CuPy is imported by the functions here that need it, never on import. ``HAS_CUPY`` and
``HAS_GPU`` are `has_cupy` and `has_gpu` as attributes: CuPy compiles without a GPU.
"""

import contextlib
import functools
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from neuromm._optional import require

__all__ = [
    "cache_folder",
    "compile_cubin",
    "cubin_path",
    "has_cupy",
    "has_gpu",
    "kernel",
    "with_headers",
]

# Where the cache lies, instead of the user's own folder.
CACHE_VARIABLE = "NEUROMM_CACHE_DIR"

_STANDARD = "--std=c++17"
_INCLUDE = re.compile(rb'^[ \t]*#[ \t]*include[ \t]*"([^"\n]+)"', re.MULTILINE)


def __getattr__(name: str) -> bool:
    """Give the flags HAS_CUPY and HAS_GPU, found out when they are first asked for."""
    if name == "HAS_CUPY":
        return has_cupy()
    if name == "HAS_GPU":
        return has_gpu()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@functools.cache
def has_cupy() -> bool:
    """Whether CuPy can be imported; it can on machines without a GPU."""
    try:
        import cupy  # noqa: F401
    except (ImportError, RuntimeError):
        return False
    return True


@functools.cache
def has_gpu() -> bool:
    """Whether CuPy can be imported and finds a GPU with a driver."""
    if not has_cupy():
        return False
    import cupy

    try:
        return bool(cupy.cuda.is_available())
    except RuntimeError:  # a driver that is older than CuPy expects
        return False


def cache_folder() -> Path:
    """Folder of compiled kernels.

    ``cubins`` below the environment variable NEUROMM_CACHE_DIR, else below
    ``$XDG_CACHE_HOME/neuromm``, else below ``~/.cache/neuromm``.
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen) / "cubins"
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "neuromm" / "cubins"


def compile_cubin(source: Path, *, arch: str, options: Sequence[str] = ()) -> bytes:
    """Compile a source for one architecture, past the cache.

    Parameters
    ----------
    source : Path
        A ``.cu`` file; what it includes is found relative to its folder.
    arch : str
        Such as ``"sm_90"``.
    options : sequence of str
        Further options of NVRTC.

    Returns
    -------
    cubin : bytes

    Raises
    ------
    ImportError
        If CuPy or NVRTC is not installed.
    RuntimeError
        If the source does not compile; the message holds NVRTC's log.
    """
    nvrtc, version = _nvrtc()
    text = source.read_text(encoding="utf-8")
    program = nvrtc.createProgram(text, source.name, (), ())
    try:
        nvrtc.compileProgram(
            program, (_STANDARD, f"-I{source.parent}", f"-arch={arch}", *options)
        )
        return bytes(nvrtc.getCUBIN(program))
    except nvrtc.NVRTCError as error:
        log = nvrtc.getProgramLog(program).strip() or str(error)
        raise RuntimeError(
            f"{source.name} does not compile for {arch} with NVRTC {version}:\n{log}"
        ) from error
    finally:
        nvrtc.destroyProgram(program)


def cubin_path(source: Path, *, arch: str, options: Sequence[str] = ()) -> Path:
    """Compiled source in the cache; compiled now, if it is not there or damaged.

    The file is named by what it was compiled from and by the digest of its bytes.

    Parameters
    ----------
    source, arch, options
        As for `compile_cubin`.

    Raises
    ------
    OSError
        If the cache cannot be written.
    """
    folder = cache_folder()
    key = _cache_key(source, arch, options)
    for path in sorted(folder.glob(f"{key}-*.cubin")):
        digest = path.stem.rpartition("-")[2]
        if _digest(path.read_bytes()) == digest:
            return path
    cubin = compile_cubin(source, arch=arch, options=options)
    path = folder / f"{key}-{_digest(cubin)}.cubin"
    _write(path, cubin)
    return path


def kernel(name: str, source: Path) -> Any:
    """Kernel of a source for the current device.

    Parameters
    ----------
    name : str
        As in the source: ``extern "C" __global__ void name(...)``.
    source : Path

    Returns
    -------
    function : cupy.RawKernel
        Called with grid, block and arguments.

    Raises
    ------
    ImportError, RuntimeError, OSError
        As `compile_cubin` and `cubin_path`.
    """
    cupy = require("cupy", extra="gpu13")
    device = cupy.cuda.Device()
    return _loaded(name, source, int(device.id), str(device.compute_capability))


def with_headers(source: Path) -> list[Path]:
    """Find all that a source is made of: itself, and each header that is included.

    Parameters
    ----------
    source : Path
        A ``.cu`` file; headers in quotes lie relative to the file that includes them.

    Returns
    -------
    paths : list of Path
        Absolute, the source first, each once.
    """
    found: list[Path] = []
    waiting = [source.resolve()]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.append(path)
        for name in _INCLUDE.findall(path.read_bytes()):
            waiting.append((path.parent / name.decode()).resolve())
    return found


@functools.cache
def _loaded(name: str, source: Path, device: int, capability: str) -> Any:
    """Kernels belong to the context of a device: one for each."""
    return _module(source, device, capability).get_function(name)


@functools.cache
def _module(source: Path, device: int, capability: str) -> Any:
    cupy = require("cupy", extra="gpu13")
    return cupy.RawModule(path=str(cubin_path(source, arch=f"sm_{capability}")))


def _nvrtc() -> tuple[Any, str]:
    """Return the binding to NVRTC and the version of the library behind it."""
    nvrtc = require("cupy.cuda", extra="gpu13").nvrtc
    try:
        major, minor = nvrtc.getVersion()
    except (ImportError, RuntimeError, OSError) as error:
        raise ImportError(
            "NVRTC, the compiler of CUDA kernels, is not found. It comes with a CUDA "
            "toolkit, with a CUDA build of torch, or alone: pip install "
            '"nvidia-cuda-nvrtc>=13,<14"'
        ) from error
    return nvrtc, f"{major}.{minor}"


def _cache_key(source: Path, arch: str, options: Sequence[str]) -> str:
    """Digest of all that the machine code depends on; paths are no part of it."""
    _, version = _nvrtc()
    digest = hashlib.sha256()
    contents = [path.read_bytes() for path in with_headers(source)]
    parts = [version, arch, _STANDARD, *options]
    for content in [*(part.encode() for part in parts), *contents]:
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return f"{source.stem}-{arch}-{digest.hexdigest()[:32]}"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _write(path: Path, content: bytes) -> None:
    """Write beside and rename: another process sees the whole file or none."""
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            Path(temporary).unlink(missing_ok=True)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot keep a compiled kernel ({error.strerror}). Set the environment "
            f"variable {CACHE_VARIABLE} to a folder that can be written",
            str(path),
        ) from error
