"""``--device`` and ``--backend``: which library fits, and where."""

import logging
from pathlib import Path
from typing import cast

from neuromm.core.errors import UsageError
from neuromm.kernels.arrays import Backend

__all__ = ["chosen_device"]

logger = logging.getLogger(__name__)

# A driver shows itself here (the second: Windows' Linux subsystem), so that a machine
# without one need not import torch to be told.
_DRIVERS = (Path("/proc/driver/nvidia/version"), Path("/dev/dxg"))


def chosen_device(device: str, backend: str) -> tuple[Backend, str | None]:
    """Settle where fits run; ``auto`` takes a GPU that is there, and logs it.

    Parameters
    ----------
    device : str
        ``auto``, ``cpu`` or ``cuda[:N]``.
    backend : str
        ``auto``, ``numpy``, ``torch`` or ``cupy``. ``auto`` is torch on a GPU and NumPy
        on the CPU.

    Returns
    -------
    backend : {"numpy", "torch", "cupy"}
    device : str or None
        Such as ``"cuda:0"``; None on the CPU.

    Raises
    ------
    neuromm.core.UsageError
        If the device is not there, or the library has no use for it.
    """
    if device not in ("auto", "cpu") and not device.startswith("cuda"):
        raise UsageError(f"--device takes auto, cpu or cuda[:N], got {device!r}")
    # NumPy has one device: asking for it settles `auto`.
    if device == "auto":
        has_gpu = backend != "numpy" and _has_gpu(backend)
        device = "cuda:0" if has_gpu else "cpu"
        logger.info("device: %s (chosen by auto)", device)
    elif device != "cpu" and not _has_gpu(backend):
        raise UsageError(
            f"--device {device}: this machine has no CUDA device that "
            f"{'CuPy' if backend == 'cupy' else 'torch'} can use. Leave --device out "
            "to run on the CPU; neuromm doctor says more."
        )
    if device == "cpu":
        if backend == "cupy":
            raise UsageError(
                "--backend cupy needs a CUDA device, and there is none, or --device "
                "cpu was given. Leave --backend out."
            )
        return ("torch" if backend == "torch" else "numpy"), None
    if backend == "numpy":
        raise UsageError(
            f"--backend numpy runs on the CPU, not on --device {device}. Leave one of "
            "them out."
        )
    return ("torch" if backend == "auto" else cast("Backend", backend)), device


def _has_gpu(backend: str) -> bool:
    if not any(driver.exists() for driver in _DRIVERS):
        return False
    if backend == "cupy":
        from neuromm.kernels.gpu_loader import has_gpu

        return has_gpu()
    import torch

    return bool(torch.cuda.is_available())
