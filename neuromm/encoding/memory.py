"""Memory limits in words, and the batches of targets that keep them."""

import ctypes
import re

from neuromm.core import ResourceLimitError, UsageError
from neuromm.kernels import RidgeMemory

__all__ = ["give_back_memory", "parse_memory", "target_batch"]

_UNITS = {
    "": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40,
}  # fmt: skip

# Share of a limit that is left to the allocator, which keeps freed blocks for a while.
_RESERVE = 0.1

# Without a limit a batch stays near this size: larger ones are no faster.
_COMFORTABLE_BATCH = 24 * 10**6


def parse_memory(limit: int | float | str | None) -> int | None:
    """Bytes of a limit such as ``2_000_000_000``, ``"2GB"`` or ``"1.5 GiB"``.

    Raises
    ------
    neuromm.core.UsageError
        If it is not a positive number with a known unit.
    """
    if limit is None:
        return None
    match = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([KMGT]?i?B?)\s*", str(limit))
    try:
        n_bytes = float(match[1]) * _UNITS[match[2].upper()] if match else 0.0
    except (KeyError, ValueError):
        n_bytes = 0.0
    if n_bytes < 1:
        raise UsageError(
            f"memory_limit must be a positive number of bytes or a size such as '2GB' "
            f"or '500MiB', got {limit!r}"
        )
    return int(n_bytes)


def give_back_memory() -> None:
    """Return freed memory to the system, where the C library keeps it (glibc).

    What decompositions worked in would otherwise stay with the process, and count as
    its memory, while the targets pass.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def target_batch(memory: RidgeMemory, n_targets: int, limit: int | None) -> int:
    """How many targets are fitted at once.

    Parameters
    ----------
    memory : RidgeMemory
    n_targets : int
    limit : int or None
        Bytes above the inputs; None takes a size at which the products are fast.

    Raises
    ------
    neuromm.core.ResourceLimitError
        If not even one target fits.
    """
    n_targets = max(n_targets, 1)
    if limit is None:
        return int(min(max(_COMFORTABLE_BATCH // memory.per_target, 64), n_targets))
    if limit < memory.peak(1):
        raise ResourceLimitError(
            f"memory_limit is {limit / 1e6:.0f} MB, and this fit needs at least "
            f"{memory.peak(1) / 1e6:.0f} MB above its inputs. "
            "Raise the limit, or fit fewer targets or features at a time."
        )
    room = (1 - _RESERVE) * limit - memory.kept - memory.results
    return int(min(max(room // memory.per_target, 1), n_targets))
