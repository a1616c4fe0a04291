"""Memory limits in words, and the batches of targets that keep them."""

import ctypes
import math
import re
from dataclasses import dataclass

from neuromm.core import ResourceLimitError, UsageError
from neuromm.kernels import RidgeMemory

__all__ = ["TargetBatches", "give_back_memory", "parse_memory", "target_batches"]

_UNITS = {
    "": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40,
}  # fmt: skip

# Share of a limit that is left to the allocator, which keeps freed blocks for a while.
_RESERVE = 0.1

# Batches are made of many arrays, and between them the allocator keeps holes.
_USED = 0.85

# Without a limit the last batches are of this size.
_LAST_BATCH = 8 * 10**6

# A batch wider than this, and larger than that many bytes, is no faster: it only leaves
# the processor's cache.
_WIDEST, _LARGEST_BATCH = 768, 24 * 10**6

# A batch narrower than this costs more in calls than in products.
_NARROWEST = 64


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


@dataclass(frozen=True)
class TargetBatches:
    """How targets are fitted.

    Attributes
    ----------
    columns : list of slice
        Targets of each batch.
    late : list of slice
        The first of them in batches once more: their weights are made at the end.
    peak : int
        Bytes above the inputs.
    """

    columns: list[slice]
    late: list[slice]
    peak: int

    @property
    def widest(self) -> int:
        """Targets of the largest batch."""
        return max(int(one.stop - one.start) for one in self.columns)

    @property
    def n_late(self) -> int:
        """How many targets get their weights at the end."""
        return int(self.late[-1].stop) if self.late else 0


def target_batches(
    memory: RidgeMemory, n_targets: int, limit: int | None, *, chunk: int = 1
) -> TargetBatches:
    """Batches in which targets are fitted.

    Results fill as batches pass, so the first batches may take the memory that the
    last ones leave to results: they are wider, at the same peak. Widths are halved from
    time to time; what larger batches were made in is to be given back then
    (`give_back_memory`). The bases of folds and all results need never be held
    together: the first targets may have their penalties chosen only, and their weights
    made when the folds are done with.

    Parameters
    ----------
    memory : RidgeMemory
    n_targets : int
    limit : int or None
        Bytes above the inputs; None takes no more than the fit needs in any case, and
        a small batch.
    chunk : int
        Targets that are stored together: batches are whole multiples, if they can.

    Raises
    ------
    neuromm.core.ResourceLimitError
        If not even one target fits.
    """
    least = memory.peak(1)
    if limit is not None and limit < least:
        raise ResourceLimitError(
            f"memory_limit is {limit / 1e6:.3g} MB, and this fit needs at least "
            f"{least / 1e6:.3g} MB above its inputs. "
            "Raise the limit, or fit fewer targets or features at a time."
        )
    last = memory.of_batch(min(_NARROWEST, n_targets))
    if limit is None:
        last = max(_LAST_BATCH, last)
        at_once = int((1 - memory.late_share) * memory.results)
        at_once = max(at_once, min(memory.results, last))  # it is not worth it below
        room = max(memory.building, memory.kept + at_once + last, memory.at_last(last))
    else:
        room = max(int((1 - _RESERVE) * limit), least)
    of_one = memory.results / max(n_targets, 1)
    n_late = 0
    if memory.folds:
        missing = memory.kept + memory.results + last - room
        n_late = min(max(math.ceil(missing / of_one), 0), n_targets)
    columns = _narrowing(memory, n_targets, room - memory.kept, n_late, chunk)
    at_end = room - memory.at_last(0)
    width = min(_widest(memory), memory.width(at_end, 0)) if n_late else 1
    again = [slice(i, min(i + width, n_late)) for i in range(0, n_late, width)]
    peak = memory.building
    for one in columns:
        filled = max(one.stop - n_late, 0) * of_one
        at_work = memory.of_batch(one.stop - one.start)
        peak = max(peak, memory.kept + int(filled) + at_work)
    if again:
        peak = max(peak, memory.at_last(memory.of_batch(again[0].stop)))
    return TargetBatches(columns, again, peak)


def _widest(memory: RidgeMemory) -> int:
    return max(_WIDEST, _LARGEST_BATCH // memory.per_target)


def _narrowing(
    memory: RidgeMemory, n_targets: int, room: int, n_late: int, chunk: int
) -> list[slice]:
    """Batches that keep to ``room`` bytes while results fill behind the late ones."""
    of_one = memory.results / max(n_targets, 1)
    width = min(_widest(memory), memory.width(_USED * room, of_one))
    columns: list[slice] = []
    start = 0
    while start < n_targets:
        is_late = start < n_late
        filled = max(start - n_late, 0) * of_one
        fitting = memory.width(_USED * (room - filled), 0 if is_late else of_one)
        while width > fitting:  # a heap is given back in few steps
            width = max(width // 2, 1)
        end = n_late if is_late else n_targets
        stop = min(start + max(width // chunk, 1) * chunk, end)
        columns.append(slice(start, stop))
        start = stop
    return columns
