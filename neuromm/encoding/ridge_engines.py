"""Choice of the solver of a ridge: the cheapest that fits in memory and holds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from neuromm.core import UsageError
from neuromm.encoding.memory import give_back_memory, target_batches
from neuromm.encoding.splitters import Split
from neuromm.kernels import (
    EigenRidge,
    HoldOutRidge,
    RidgeMemory,
    RidgeShape,
    Solver,
    cheapest_solvers,
    operation_count,
    row_parts,
    working_memory,
)
from neuromm.kernels.arrays import Array, free_memory, is_numpy, itemsize
from neuromm.kernels.blas_threads import n_blas_threads
from neuromm.kernels.ridge_fractions import FractionalRidge
from neuromm.kernels.ridge_hold_out import holds_out_the_rest
from neuromm.kernels.ridge_modes import Scoring

__all__ = [
    "Engine",
    "RidgeSettings",
    "bases_at_once",
    "eigen_engine",
    "ridge_engine",
    "ridge_shape",
]

# Of what is free on a GPU, this share is taken where no limit is given.
_GPU_SHARE = 0.6

# From this share of the operations on, decompositions may take so much more memory than
# the rest of a fit.
_MUCH, _MORE_MEMORY = 0.15, 1.25


class Engine(Protocol):
    """A solver: see `neuromm.kernels.EigenRidge`."""

    def load(self, y: Array) -> Any:
        """Centre a batch of targets."""

    def path(self, batch: Any) -> Array:
        """Score of every penalty."""

    def at(self, batch: Any, choice: Array) -> Array:
        """Score of one penalty a target."""

    def penalties(self, batch: Any, choice: Array) -> Array:
        """Penalty of each target."""

    def weights(
        self, batch: Any, choice: Array, out: Array | None = None
    ) -> tuple[Array, Array]:
        """Weights and intercepts; the weights in ``out``, if they can be."""


@dataclass(frozen=True, kw_only=True)
class RidgeSettings:
    """What all batches of targets share.

    Attributes
    ----------
    x : array of shape (n_samples, n_features)
    splits : sequence of (train, test)
    alphas : array of shape (n_alphas,)
    scoring : {"r2", "correlation", "mse"}
    fit_intercept : bool
    n_targets : int
    fractions : array of shape (n_fractions,) or None
        Chosen among instead of ``alphas``.
    """

    x: Array
    splits: Sequence[Split]
    alphas: NDArray[np.float64]
    scoring: Scoring
    fit_intercept: bool
    n_targets: int
    fractions: NDArray[np.float64] | None = None


def ridge_shape(settings: RidgeSettings) -> RidgeShape:
    """Return the size of a fit, by which it is planned."""
    n_samples, n_features = settings.x.shape
    splits = settings.splits
    parts = row_parts(splits, n_samples)
    grid = settings.alphas if settings.fractions is None else settings.fractions
    return RidgeShape(
        n_samples=n_samples,
        n_features=n_features,
        n_targets=settings.n_targets,
        n_alphas=len(grid),
        n_folds=len(splits),
        n_train=float(np.mean([len(train) for train, _ in splits])),
        n_test=float(np.mean([len(test) for _, test in splits])),
        n_parts=len(parts.slices),
        # A correlation would lose its digits there: see ridge_hold_out.
        complements=holds_out_the_rest(parts) and settings.scoring != "correlation",
        itemsize=itemsize(settings.x),
    )


def ridge_engine(
    settings: RidgeSettings,
    asked: Solver | None,
    memory_limit: int | None,
    *,
    reads_twice: bool = True,
    keeps_results: bool = True,
) -> tuple[Engine, Solver, RidgeMemory, int | None]:
    """Build the cheapest solver that fits in memory and holds numerically.

    Parameters
    ----------
    settings : RidgeSettings
    asked : Solver or None
        Instead of the cheapest.
    memory_limit : int or None
    reads_twice : bool
        Targets may be read again for weights that are made at the end.
    keeps_results : bool
        Results stay in memory; else they are stored, a batch at a time.

    Returns
    -------
    engine : Engine
    solver : Solver
    memory : RidgeMemory
        Of the solver.
    memory_limit : int or None
        On a GPU a share of what is free, unless it was given.
    """
    x, shape = settings.x, ridge_shape(settings)
    # Fractions are of the weights of each fold, which are then needed to the end.
    late = reads_twice and keeps_results and settings.fractions is None

    def needed(solver: Solver) -> RidgeMemory:
        memory = working_memory(shape, solver)
        if not keeps_results:
            memory = memory.of_stored(shape.n_targets)
        return memory if late else replace(memory, folds=0, late_share=0.0)

    if memory_limit is None and (free := free_memory(x)) is not None:
        memory_limit = int(_GPU_SHARE * free)
    for solver in _candidates(settings, shape, asked, memory_limit, needed):
        memory = needed(solver)
        # An error now rather than later.
        later = target_batches(memory, settings.n_targets, memory_limit).peak
        groups = []
        if is_numpy(x):
            groups = bases_at_once(shape, solver, memory, later, memory_limit)
        engine = _built(settings, solver, groups)
        if engine is not None:
            give_back_memory()
            return engine, solver, memory, memory_limit
    raise UsageError(
        "the solver that was asked for loses its digits with these penalties, which "
        "lie far below the eigenvalues of the features. Leave the choice of the solver "
        "open, or take larger penalties."
    )


def bases_at_once(
    shape: RidgeShape,
    solver: Solver,
    memory: RidgeMemory,
    later: int,
    memory_limit: int | None,
) -> list[int]:
    """How many bases are built at once, one group after the other.

    Parameters
    ----------
    shape : RidgeShape
    solver : Solver
    memory : RidgeMemory
    later : int
        Bytes that the fit takes when targets pass.
    memory_limit : int or None
    """
    if not memory.decomposing:
        return []
    cost, room = operation_count(shape, solver), later
    if cost.decomposition > _MUCH * cost.products:
        room = int(_MORE_MEMORY * later)
    if memory_limit is not None:
        room = min(room, max(memory_limit, memory.building))
    return memory.side_by_side(shape.n_folds, n_blas_threads(), room)


def eigen_engine(
    settings: RidgeSettings, x: Array, solver: Solver, side_by_side: Sequence[int] = ()
) -> EigenRidge:
    """Engine in the eigenbasis of each fold, of features in any precision.

    Parameters
    ----------
    settings : RidgeSettings
    x : array of shape (n_samples, n_features)
    solver : Solver
    side_by_side : sequence of int
        Folds that are decomposed at once.
    """
    return EigenRidge(
        x,
        settings.splits,
        settings.alphas,
        form=solver.form,
        method="direct" if solver.method == "direct" else "divided-difference",
        scoring=settings.scoring,
        fit_intercept=settings.fit_intercept,
        n_targets=settings.n_targets,
        side_by_side=side_by_side,
    )


def _candidates(
    settings: RidgeSettings,
    shape: RidgeShape,
    asked: Solver | None,
    memory_limit: int | None,
    needed: Callable[[Solver], RidgeMemory],
) -> list[Solver]:
    if asked is not None:
        return [asked]
    solvers = cheapest_solvers(shape, has_factors=is_numpy(settings.x))
    if settings.fractions is not None:
        solvers = [solver for solver in solvers if solver.method == "direct"]
    if memory_limit is None:
        return solvers

    def peak(solver: Solver) -> int:
        return needed(solver).peak(1)

    fitting = [solver for solver in solvers if peak(solver) <= memory_limit]
    # The error then names what the smallest of them needs.
    return fitting or sorted(solvers, key=peak)[:1]


def _built(
    settings: RidgeSettings, solver: Solver, side_by_side: Sequence[int]
) -> Engine | None:
    """Engine of a solver; None if it would lose its digits with these data."""
    if settings.fractions is not None:
        if solver.method != "direct":
            raise UsageError(f"fracs are scored directly, not by {solver.name}")
        engine = eigen_engine(settings, settings.x, solver, side_by_side)
        return FractionalRidge(engine, settings.fractions)
    if solver.method == "hold-out":
        return _held_out(settings, solver)
    if solver.method == "cholesky":
        from neuromm.kernels.ridge_cholesky import CholeskyRidge

        if not is_numpy(settings.x):
            raise UsageError("the cholesky solver takes NumPy arrays")
        factored = CholeskyRidge(
            settings.x,
            settings.splits,
            settings.alphas,
            form=solver.form,
            scoring=settings.scoring,
            fit_intercept=settings.fit_intercept,
        )
        return factored if factored.is_accurate else None
    return eigen_engine(settings, settings.x, solver, side_by_side)


def _held_out(settings: RidgeSettings, solver: Solver) -> Engine | None:
    parts = row_parts(settings.splits, settings.x.shape[0])
    if settings.scoring == "correlation" or not holds_out_the_rest(parts):
        raise UsageError(
            "the hold-out solver scores r2 or mse, with folds that train on every "
            "sample they do not hold out"
        )
    held = HoldOutRidge(
        settings.x,
        settings.splits,
        settings.alphas,
        form=solver.form,
        scoring=settings.scoring,
        fit_intercept=settings.fit_intercept,
        n_targets=settings.n_targets,
    )
    return held if held.is_accurate else None
