"""What a cross-validated ridge allocates, counted before it does.

Counted in the order of the work: bases of all folds are built one after the other, and
kept; targets then pass in batches. The peak is the larger of the two.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from neuromm.kernels.ridge_cost import RidgeShape, Solver
from neuromm.kernels.ridge_hold_out import (
    CURVE_BYTES,
    NARROWEST_SLICE,
    curve_numbers,
)

__all__ = ["RidgeMemory", "working_memory"]

# Weights that are made late need the cross-products of their targets once more.
_LATE_SHARE = 0.25


@dataclass(frozen=True)
class RidgeMemory:
    """Bytes a fit allocates above its inputs.

    Attributes
    ----------
    building : int
        Peak while bases are built.
    kept : int
        Bases of all folds and of the final fit.
    results : int
        Weights and the values of each target.
    per_target : int
        For each target of a batch.
    per_sliced, per_slice : int
        For each target of a slice of a batch, and of a slice at most.
    folds : int
        Of ``kept``, what may be given up before the last weights are made.
    late_share : float
        Share of the targets whose weights may as well be made then.
    decomposing, decomposing_all : int
        While the basis of a fold is built, and that of all rows.
    waiting : int
        Beside them.
    """

    building: int
    kept: int
    results: int
    per_target: int
    per_sliced: int = 0
    per_slice: int = 0
    folds: int = 0
    late_share: float = 0.0
    decomposing: int = 0
    decomposing_all: int = 0
    waiting: int = 0

    def peak(self, width: int) -> int:
        """Bytes with batches of ``width`` targets, at the least.

        Folds that may be given up are given up before there are weights.
        """
        batch = self.of_batch(width)
        return max(self.building, self.kept + batch, self.at_last(batch))

    def at_last(self, batch: int) -> int:
        """Bytes once folds are given up, with all results and so large a batch."""
        return self.kept - self.folds + self.results + batch

    def side_by_side(self, n_folds: int, n_threads: int, room: int) -> list[int]:
        """How many bases may be built at once, one group after the other.

        That of all rows comes first, then those of the folds.

        Parameters
        ----------
        n_folds, n_threads : int
        room : int
            Bytes.
        """
        groups: list[int] = []
        while (done := sum(groups)) <= n_folds:
            free = room - self._building(done, 1, n_folds)
            more = free // max(self.decomposing, 1)
            groups.append(1 + max(min(n_threads - 1, n_folds - done, more), 0))
        return groups

    def built(self, groups: Sequence[int]) -> int:
        """Bytes while bases are built in groups, as `side_by_side` gives them."""
        peak, done = self.building, 0
        for group in groups:
            if group > 1:
                peak = max(peak, self._building(done, group, sum(groups) - 1))
            done += group
        return peak

    def _building(self, done: int, group: int, n_folds: int) -> int:
        """Bytes while some bases are built beside those that are done."""
        if not done:
            more = (group - 1) * self.decomposing
            return self.waiting + self.decomposing_all + more
        kept = self.kept - self.folds + (done - 1) * self.folds // n_folds
        return self.waiting + kept + group * self.decomposing

    def of_batch(self, width: int) -> int:
        """Bytes of a batch of ``width`` targets, beside its results."""
        return width * self.per_target + min(width * self.per_sliced, self.per_slice)

    def width(self, room: float, of_result: float) -> int:
        """Targets of a batch that fits into ``room`` bytes; 1 if none does.

        Parameters
        ----------
        room : float
        of_result : float
            Bytes of the results of a target.
        """
        one = self.per_target + of_result
        fitting = max((room - self.per_slice) / one, room / (one + self.per_sliced))
        return max(int(fitting), 1)

    def of_stored(self, n_targets: int) -> "RidgeMemory":
        """Bytes where results are stored, a batch at a time, and not kept."""
        each = -(-self.results // max(n_targets, 1))
        return replace(self, results=0, per_target=self.per_target + each)

    @property
    def fixed(self) -> int:
        """Bytes that no batch size avoids, but those of a target."""
        return max(self.building - self.per_target, self.kept + self.results)


def working_memory(shape: RidgeShape, solver: Solver) -> RidgeMemory:
    """Bytes that a fit allocates above features and responses.

    Parameters
    ----------
    shape : RidgeShape
    solver : Solver
    """
    p, v, size = shape.n_features, shape.n_targets, shape.itemsize
    results = size * p * v + (8 + 8 + 8 + 1) * v
    sliced: Sequence[float] = (0.0,) * 4
    building_more: Sequence[float] = (0.0,) * 3
    if solver.method == "hold-out":
        building, kept, per_target, *sliced = _hold_out(shape, solver)
    elif solver.method == "cholesky":
        building, kept, per_target = _cholesky(shape, solver)
    else:
        building, kept, per_target, *folds_of = _eigen(shape, solver)
        sliced, building_more = (0.0, 0.0, *folds_of[:2]), folds_of[2:]
    per_sliced, per_slice, folds, late_share = sliced
    decomposing, decomposing_all, waiting = building_more
    return RidgeMemory(
        building=int(building),
        kept=int(kept),
        results=int(results),
        per_target=int(per_target),
        per_sliced=int(per_sliced),
        per_slice=int(per_slice),
        folds=int(folds),
        late_share=late_share,
        decomposing=int(decomposing),
        decomposing_all=int(decomposing_all),
        waiting=int(waiting),
    )


def _eigen(shape: RidgeShape, solver: Solver) -> tuple[float, ...]:
    n, p, size = shape.n_samples, shape.n_features, shape.itemsize
    n_train, m, r = shape.n_train, shape.n_test, shape.rank
    n_folds, full = shape.n_folds, shape.full_rank
    by_cross = shape.uses_cross_products(solver.form)
    differences = solver.method == "divided-difference"
    train: float = p * r if by_cross else n_train * r
    test = m * r if m <= r or not by_cross else r * r
    folds: float = size * n_folds * (train + test + (r * r if differences else 0))
    kept = folds + size * (p * full if by_cross else n * full + p * full)
    transient = max(
        _decomposition(shape, solver, n_train),
        8 * ((4 * r * r if differences else 0) + 2 * m * r),
    )
    everything = _decomposition(shape, solver, n)
    building = max(kept + transient, everything)
    by_square = by_cross and m > r
    # Sums of cross-products give way to projections, fold by fold.
    held = 0 if by_square else 2 * m
    if by_cross:
        adding = (shape.n_parts + n_folds + 2) * p
        passing = p + n_folds * max(p, r) + 3 * r + held
        passing += shape.n_parts * p + n_folds * r if by_square else 0
        columns = n + max(adding, passing)
    else:
        columns = n + n_folds * r + 3 * r + held + 2 * n_train + p
    per_target: float = size * columns
    per_target += 8 * (shape.n_alphas * (n_folds + 3) + 4 * shape.n_parts)
    # By rows, a late projection costs what an early one does.
    late_share = _LATE_SHARE if by_cross else 1.0
    # Beside what is decomposed lie the kernel of all rows, or the Grams of all folds.
    kernel = 8.0 * n * n if solver.form == "dual" else 0.0
    waiting = kernel or 8.0 * n_folds * p * p
    at_work = transient - kernel, everything - kernel, waiting
    return building, kept, per_target, folds, late_share, *at_work


def _decomposition(shape: RidgeShape, solver: Solver, n_rows: float) -> float:
    """Bytes while one matrix is decomposed: itself, a copy, vectors, LAPACK's 2 r^2."""
    p = shape.n_features
    if solver.form == "primal":
        return float(8 * (2 * min(n_rows, 512) * p + 6 * p * p))
    kernel = 8 * shape.n_samples**2
    return float(kernel + 8 * 6 * n_rows**2)


def _hold_out(shape: RidgeShape, solver: Solver) -> tuple[float, ...]:
    n, p, size = shape.n_samples, shape.n_features, shape.itemsize
    m, r, n_alphas = shape.n_test, shape.full_rank, shape.n_alphas
    n_curves = shape.n_curves
    kept = size * (n * r + p * r + n_curves * n * m)
    # Modes of all rows stay in float64; so do how often folds count each part.
    primal = solver.form == "primal"
    kept += 8 * (p if primal else n) * r + 4 * shape.n_folds * shape.n_parts
    inverting = 8 * ((4 if primal else 3) * n * r + 4 * n * m)
    inverting += size * n_curves * n * m
    building = kept + max(_decomposition(shape, solver, n), inverting)
    # Targets whose rank is not full keep what no mode reaches.
    outside = n if r < n - 1 else 0
    per_target = size * (3 * n + outside + 2 * r + p) + 8 * n_alphas * 3
    # The curves of a slice of them, and errors of some held-out rows of it.
    one = size * curve_numbers(n, r, m, n_curves, n_curves, n_alphas)
    slices = one, max(CURVE_BYTES, NARROWEST_SLICE * one)
    return building, kept, per_target, *slices, 0.0, 0.0


def _cholesky(shape: RidgeShape, solver: Solver) -> tuple[float, float, float]:
    n, p, v = shape.n_samples, shape.n_features, shape.n_targets
    order = p if solver.form == "primal" else n
    kept = 8 * (2 * n * p + order * order)
    building = kept + 8 * (n * p + 2 * order * order)
    per_target = shape.itemsize * 2 * n + 8 * (3 * n + 3 * order + 2 * p)
    per_target += 8 * shape.n_alphas * 3
    return building + per_target * v, kept, per_target
