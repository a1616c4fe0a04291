"""What a fit will take, before anything is allocated."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from neuromm.encoding.banded_batches import banded_batches
from neuromm.encoding.memory import give_back_memory, parse_memory, target_batches
from neuromm.encoding.ridge_engines import bases_at_once
from neuromm.kernels import (
    RidgeMemory,
    RidgeShape,
    Solver,
    cheapest_solvers,
    operation_count,
    working_memory,
)
from neuromm.kernels.banded_cost import banded_operations
from neuromm.kernels.ridge_cost import RidgeCost

__all__ = ["Plan", "plan"]

# Orders of matrices on which decompositions are timed: the next larger one stands for
# an order.
_EIGEN_SIZES = (100, 400, 1000)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Memory and time of a `RidgeCV` or `BandedRidgeCV` fit.

    Attributes
    ----------
    peak_memory : int
        Bytes above features and responses, coefficients included.
    seconds : float
        Wall time on this machine with its present number of BLAS threads.
    solver_form : str
        As of `RidgeCV`.
    target_batch : int
        Targets handled at once, at most: see `neuromm.encoding.memory`.
    """

    peak_memory: int
    seconds: float
    solver_form: str
    target_batch: int


def plan(
    n_samples: int,
    n_features: int,
    n_targets: int,
    *,
    n_alphas: int = 20,
    cv: int = 5,
    dtype: DTypeLike = np.float64,
    memory_limit: int | str | None = None,
    n_spaces: int | None = None,
    n_candidates: int = 100,
    checkpoint: bool = False,
) -> Plan:
    """Predict memory and time of a cross-validated ridge.

    Parameters
    ----------
    n_samples, n_features, n_targets : int
        Features after delays.
    n_alphas : int
    cv : int
        Number of folds.
    dtype : dtype
        Precision of the data, float32 or float64.
    memory_limit : int, str or None
        As for `RidgeCV`.
    n_spaces : int, optional
        Of a `BandedRidgeCV`, whose spaces are slices of one array; those of a mapping
        are copied, and take ``n_samples * n_features`` numbers more.
    n_candidates : int
        Its ``n_iter``.
    checkpoint : bool
        Results go to a checkpoint, and take no memory.

    Returns
    -------
    plan : Plan

    Raises
    ------
    neuromm.core.ResourceLimitError
        If ``memory_limit`` is too small for one target.

    Notes
    -----
    Operations and numbers moved (`neuromm.kernels.operation_count`) over rates of this
    machine with its present number of BLAS threads, which are measured once a process
    in about a second. The estimate leaves out reading the data, the outer folds of a
    nested cross-validation and permutation tests; it takes folds as equal parts, and
    the machine as idle as it was while it was measured. The default alphas of an
    estimator may make a solver impossible (`neuromm.kernels.ridge_hold_out`): another
    is then taken.
    """
    kind = np.dtype(dtype)
    limit = parse_memory(memory_limit)
    shape = RidgeShape.of_equal_folds(
        n_samples,
        n_features,
        n_targets,
        n_alphas=n_alphas,
        n_folds=cv,
        itemsize=kind.itemsize,
    )
    if n_spaces is not None:
        return _banded_plan(shape, n_candidates, n_spaces, limit, kind, checkpoint)
    solvers = cheapest_solvers(shape, has_factors=True)

    def needed(solver: Solver) -> RidgeMemory:
        memory = working_memory(shape, solver)
        if checkpoint:
            stored = memory.of_stored(n_targets)
            return replace(stored, folds=0, late_share=0.0)
        return memory

    fitting = [
        solver for solver in solvers if limit is None or needed(solver).peak(1) <= limit
    ]
    solver = fitting[0] if fitting else solvers[0]
    memory = needed(solver)
    batches = target_batches(memory, n_targets, limit)
    groups = bases_at_once(shape, solver, memory, batches.peak, limit)
    seconds = _seconds(shape, solver, kind, operation_count(shape, solver))
    give_back_memory()
    return Plan(
        peak_memory=max(batches.peak, memory.built(groups)),
        seconds=seconds,
        solver_form=solver.name,
        target_batch=batches.widest,
    )


def _banded_plan(
    shape: RidgeShape,
    n_candidates: int,
    n_spaces: int,
    limit: int | None,
    dtype: np.dtype[Any],
    checkpoint: bool,
) -> Plan:
    solver, memory, width = banded_batches(
        shape, n_candidates, n_spaces, memory_limit=limit, keeps_results=not checkpoint
    )
    n_batches = -(-shape.n_targets // width)
    batch = replace(shape, n_targets=width)
    cost = banded_operations(batch, solver, n_candidates)
    seconds = n_batches * _seconds(batch, solver, dtype, cost)
    give_back_memory()
    return Plan(
        peak_memory=memory.peak(width),
        seconds=seconds,
        solver_form=solver.name,
        target_batch=width,
    )


def _seconds(
    shape: RidgeShape, solver: Solver, dtype: np.dtype[Any], cost: RidgeCost
) -> float:
    order = shape.n_features if solver.form == "primal" else shape.n_train
    kind = dtype.str[1:]
    return (
        cost.decomposition / _eigen_rate(order)
        + cost.factor / _factor_rate()
        + cost.gram / _product_rate("f8")
        + cost.targets / _product_rate(kind)
        + cost.elements / _element_rate(kind)
    )


@cache
def _product_rate(dtype: str) -> float:
    """Floating-point operations a second in products of matrices, one after another.

    They alternate, as those of folds do: a product that is repeated finds its matrices
    in the cache.
    """
    size, width = 1000, 500
    rng = np.random.default_rng(0)
    pairs = [
        (
            rng.standard_normal((size, size)).astype(dtype),
            rng.standard_normal((size, width)).astype(dtype),
        )
        for _ in range(4)
    ]
    seconds = _undisturbed_time(lambda: [a @ b for a, b in pairs])
    return len(pairs) * 2.0 * size**2 * width / seconds


@cache
def _element_rate(dtype: str) -> float:
    """Numbers a second in a product element by element, with its result allocated."""
    a = np.ones((2000, 1000), dtype=dtype)
    return a.size / _undisturbed_time(lambda: a * a)


def _eigen_rate(order: float) -> float:
    """Operations a second in an eigen-decomposition, counted as 9 r^3."""
    # Larger matrices come closer to the rate of products.
    size = _EIGEN_SIZES[np.searchsorted(_EIGEN_SIZES[:-1], order)]
    return _measured_eigen_rate(size)


@cache
def _measured_eigen_rate(size: int) -> float:
    a = np.random.default_rng(0).standard_normal((size, size))
    gram = a @ a.T
    seconds = _undisturbed_time(lambda: np.linalg.eigh(gram), n_times=2)
    return float(9.0 * size**3 / seconds)


@cache
def _factor_rate() -> float:
    """Operations a second in a Cholesky factor, counted as r^3 / 3."""
    size = 512
    a = np.random.default_rng(0).standard_normal((size, 2 * size))
    gram = a @ a.T
    return size**3 / 3.0 / _undisturbed_time(lambda: np.linalg.cholesky(gram))


def _undisturbed_time(work: Callable[[], object], n_times: int = 5) -> float:
    """Least seconds of a call, after one that starts threads.

    Other work on the machine only adds to them.
    """
    times = []
    for _ in range(n_times + 1):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return max(min(times[1:]), 1e-9)
