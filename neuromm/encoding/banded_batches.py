"""How many targets a banded ridge searches at once.

Every batch of targets repeats the decompositions of all candidates, so batches are as
wide as memory lets them be, within reason.
"""

from neuromm.core import ResourceLimitError
from neuromm.kernels import RidgeShape, Solver
from neuromm.kernels.banded_cost import BandedMemory, banded_memory, banded_solvers

__all__ = ["banded_batches"]

# Without a limit, batches have so many targets for each row of a decomposition that it
# is a fifth of the work at most, and never so few that calls are, unless they take more
# bytes than this.
_TARGETS_PER_ROW, _FEWEST_TARGETS = 16, 1024
_BATCH_BYTES = 2 * 10**9


def banded_batches(
    shape: RidgeShape,
    n_candidates: int,
    n_spaces: int,
    *,
    asked: Solver | None = None,
    memory_limit: int | None = None,
    is_copy: bool = False,
    keeps_results: bool = True,
) -> tuple[Solver, BandedMemory, int]:
    """First of the cheapest solvers that fits in memory, and its batches.

    Parameters
    ----------
    shape : RidgeShape
    n_candidates, n_spaces : int
    asked : Solver, optional
        Instead of the cheapest.
    memory_limit : int or None
        Bytes above the inputs.
    is_copy : bool
        Spaces are copied to stand side by side.
    keeps_results : bool
        Results stay in memory; else they are stored, a batch at a time.

    Returns
    -------
    solver : Solver
    memory : BandedMemory
    width : int
        Targets of a batch: of as few as there can be, all equally wide.

    Raises
    ------
    neuromm.core.ResourceLimitError
        If ``memory_limit`` is too small for one target.
    """
    solvers = [asked] if asked else banded_solvers(shape, n_candidates)
    memories = [
        banded_memory(
            shape, one, n_spaces, copies_features=is_copy, keeps_results=keeps_results
        )
        for one in solvers
    ]
    if memory_limit is None:
        memory = memories[0]
        is_primal = solvers[0].form == "primal"
        order = shape.n_features if is_primal else shape.n_samples
        widest = memory.widest(memory.peak(1) + _BATCH_BYTES)
        wanted = max(_TARGETS_PER_ROW * order, _FEWEST_TARGETS)
        width = _equal_width(shape.n_targets, max(min(wanted, widest), 1))
        return solvers[0], memory, width
    for solver, memory in zip(solvers, memories, strict=True):
        if widest := memory.widest(memory_limit):
            return solver, memory, _equal_width(shape.n_targets, widest)
    needed = min(memory.peak(1) for memory in memories)
    raise ResourceLimitError(
        f"memory_limit is {memory_limit / 1e6:.3g} MB, and this fit needs at least "
        f"{needed / 1e6:.3g} MB above its inputs. Raise the limit, or fit fewer "
        "targets or features at a time."
    )


def _equal_width(n_targets: int, widest: int) -> int:
    """Width of as few batches as there can be, of equal width."""
    n_batches = -(-n_targets // min(widest, n_targets))
    return -(-n_targets // n_batches)
