"""``neuromm doctor``: what is installed, and how to mend what is not."""

import argparse
import importlib
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from neuromm import __version__
from neuromm_pipelines.command_line import RESEARCH_USE

__all__ = ["Finding", "examine", "main"]

Status = Literal["ok", "note", "broken"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    status : {"ok", "note", "broken"}
        "note": something optional is absent; "broken": neuromm does not work with it.
    """

    name: str
    status: Status
    found: str
    cure: str = ""


def main(argv: Sequence[str] | None = None) -> int:
    """Print every finding; return 0, or 70 if something is broken."""
    parser = argparse.ArgumentParser(
        prog="neuromm doctor",
        description=f"What is installed, and how to mend what is not. {RESEARCH_USE}",
    )
    parser.parse_args(argv)
    findings = examine()
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        print(f"{finding.status:<6}  {finding.name:<{width}}  {finding.found}")
        if finding.cure:
            print(f"{'':<6}  {'':<{width}}  -> {finding.cure}")
    broken = [finding.name for finding in findings if finding.status == "broken"]
    if broken:
        print(f"neuromm doctor: broken: {', '.join(broken)}")
        return 70
    print("neuromm doctor: neuromm can work here")
    return 0


def examine() -> list[Finding]:
    """Look at versions, torch and its GPU, CuPy, BLAS, memory, extras and files."""
    checks: list[Callable[[], list[Finding]]] = [
        _python,
        _packages,
        _torch,
        _torchvision,
        _cupy,
        _blas,
        _machine,
        _optional,
        _files,
    ]
    return [finding for check in checks for finding in check()]


def _python() -> list[Finding]:
    version = platform.python_version()
    system = f"{version} on {platform.system()} {platform.machine()}"
    return [Finding("neuromm", "ok", __version__), Finding("python", "ok", system)]


def _packages() -> list[Finding]:
    findings = []
    for name in (
        "numpy", "scipy", "pandas", "xarray", "scikit-learn", "nibabel", "nilearn",
        "mne", "mne-bids", "ancpbids", "matplotlib", "anndata", "scanpy", "monai",
        "wfdb", "pydicom", "safetensors",
    ):  # fmt: skip
        try:
            findings.append(Finding(name, "ok", metadata.version(name)))
        except metadata.PackageNotFoundError:
            cure = "pip install --upgrade neuromm"
            findings.append(Finding(name, "broken", "not installed", cure))
    return findings


def _torch() -> list[Finding]:
    try:
        import torch
    except Exception as error:  # an import can fail in any way that a library can
        return [
            Finding(
                "torch", "broken", _reason(error), "install torch anew: pytorch.org"
            )
        ]
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name(0)
        found = f"{torch.__version__}, CUDA {torch.version.cuda}, {device}"
        return [Finding("torch", "ok", found)]
    if torch.version.cuda is None:
        return [Finding("torch", "ok", f"{torch.__version__}, CPU build")]
    return [
        Finding(
            "torch",
            "note",
            f"{torch.__version__}, built for CUDA {torch.version.cuda}; no GPU is seen",
            "without a GPU the CPU build saves several GB (pytorch.org, Get Started); "
            "with one, update its driver",
        )
    ]


def _torchvision() -> list[Finding]:
    if importlib.util.find_spec("torchvision") is None:
        return [Finding("torchvision", "ok", "not installed, and not needed")]
    try:
        importlib.import_module("torchvision")
    except Exception as error:
        cure = "built for another torch and not needed: pip uninstall torchvision"
        return [Finding("torchvision", "note", _reason(error), cure)]
    return [Finding("torchvision", "ok", metadata.version("torchvision"))]


def _cupy() -> list[Finding]:
    wheels = sorted(
        name
        for name in (dist.metadata["Name"] for dist in metadata.distributions())
        if name and name.lower().startswith("cupy")
    )
    if len(wheels) > 1:
        cure = f"they break each other; keep one: pip uninstall {' '.join(wheels)}"
        return [Finding("cupy", "broken", ", ".join(wheels), cure)]
    if not wheels:
        cure = 'for a GPU: pip install "neuromm[gpu13]" (CUDA 13) or [gpu12]'
        return [Finding("cupy", "note", "not installed", cure)]
    try:
        cupy = importlib.import_module("cupy")
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:
        cure = "the CUDA driver is missing or older than the wheel"
        return [Finding("cupy", "note", f"{wheels[0]}: {_reason(error)}", cure)]
    return [Finding("cupy", "ok", f"{wheels[0]} {cupy.__version__}, {count} devices")]


def _blas() -> list[Finding]:
    import numpy  # noqa: F401, loads the BLAS that is asked about
    from threadpoolctl import threadpool_info

    libraries = [
        f"{pool['internal_api']} {pool.get('version')}, {pool['num_threads']} threads"
        for pool in threadpool_info()
        if pool["user_api"] == "blas"
    ]
    return [Finding("BLAS", "ok", "; ".join(libraries) or "unknown")]


def _machine() -> list[Finding]:
    import psutil

    memory = psutil.virtual_memory()
    found = (
        f"{os.cpu_count()} cores, {memory.available / 2**30:.1f} of "
        f"{memory.total / 2**30:.1f} GB memory free"
    )
    status: Status = "ok" if memory.available > 2 * 2**30 else "note"
    cure = "" if status == "ok" else "close other programs, or set --mem"
    return [Finding("machine", status, found, cure)]


def _optional() -> list[Finding]:
    beside = Path(sys.executable).with_name("bids-validator-deno")
    program = shutil.which("bids-validator-deno") or (
        beside if beside.exists() else None
    )
    if program is None:
        cure = 'to check inputs: pip install "neuromm[validate]"'
        return [Finding("BIDS validator", "note", "not installed", cure)]
    version = metadata.version("bids-validator-deno")
    return [Finding("BIDS validator", "ok", version)]


def _files() -> list[Finding]:
    from neuromm._resources import shared_folder

    findings = []
    for name, pattern in (("atlases", "*/card.json"), ("cuda", "**/*.cu")):
        try:
            count = len(list(shared_folder(name).glob(pattern)))
        except FileNotFoundError as error:
            findings.append(Finding(name, "broken", str(error)))
            continue
        status: Status = "ok" if count else "broken"
        findings.append(Finding(name, status, f"{count} found"))
    return findings


def _reason(error: Exception) -> str:
    first = str(error).strip().splitlines()
    return f"{type(error).__name__}: {first[0] if first else ''}"
