"""What a search over feature spaces costs and allocates, counted before it does.

Counts are leading terms, in the units of `neuromm.kernels.ridge_cost`.
"""

from dataclasses import dataclass

from neuromm.kernels.banded_modes import n_pieces
from neuromm.kernels.ridge_cost import RidgeCost, RidgeShape, Solver

__all__ = ["BandedMemory", "banded_memory", "banded_operations", "banded_solvers"]

_SOLVERS = tuple(
    Solver(form, method)
    for form in ("primal", "dual")
    for method in ("divided-difference", "direct")
)


def banded_solvers(shape: RidgeShape, n_candidates: int) -> list[Solver]:
    """Ways to search, cheapest first."""
    return sorted(
        _SOLVERS,
        key=lambda solver: banded_operations(shape, solver, n_candidates).weighted(
            shape.itemsize
        ),
    )


def banded_operations(
    shape: RidgeShape, solver: Solver, n_candidates: int
) -> RidgeCost:
    """Operations of a search in one batch of targets, and of the final weights.

    Parameters
    ----------
    shape : RidgeShape
    solver : Solver
        "divided-difference" or "direct".
    n_candidates : int

    Notes
    -----
    With m held-out and n_t training rows of K folds, o = p (primal) or n_t (dual),
    h = min(m, o) and r = min(n_t, p), a candidate takes of every fold

    - decomposition: 9 o^3, and 4 r^3 or 2 m o r + m r^2 for the held-out side
    - projections: 2 o r v and 2 h r v
    - scores: 2 r^2 v + 6 A r v (divided-difference) or 2 A h r v (direct)

    and the final weights at most one decomposition for each candidate. Decompositions
    come again with every further batch.
    """
    n, p, v = shape.n_samples, shape.n_features, shape.n_targets
    m, r = shape.n_test, shape.rank
    order = float(p) if solver.form == "primal" else shape.n_train
    held = min(m, order)
    gram = min(4.0 * r**3, 2.0 * m * order * r + m * r**2)
    targets = 2.0 * order * r + 2.0 * held * r
    elements = 8.0 * r + 30.0 * shape.n_alphas
    if solver.method == "divided-difference":
        targets += 2.0 * r**2 + 6.0 * shape.n_alphas * r
    else:
        targets += shape.n_alphas * 2.0 * held * r
        elements += shape.n_alphas * (4.0 * r + 4.0 * held)
    folds = shape.n_folds * n_candidates
    full = float(p) if solver.form == "primal" else float(n)
    chosen = min(n_candidates, v)
    return RidgeCost(
        decomposition=folds * 9.0 * order**3 + chosen * 9.0 * full**3,
        gram=folds * gram + n * p * full,
        targets=v * (folds * targets + 2.0 * n * p + 4.0 * full * shape.full_rank),
        elements=v * (folds * elements + 6.0 * n),
    )


@dataclass(frozen=True)
class BandedMemory:
    """Bytes that a search allocates above its inputs, in the phases of its work.

    Attributes
    ----------
    phases : mapping from name to (fixed, per target of a batch)
    """

    phases: dict[str, tuple[float, float]]

    def peak(self, width: int) -> int:
        """Bytes with batches of ``width`` targets."""
        return int(max(fixed + width * each for fixed, each in self.phases.values()))

    def widest(self, limit: int) -> int:
        """Targets of a batch that keeps a limit; 0 if there is none."""
        widths = [(limit - fixed) / each for fixed, each in self.phases.values()]
        return max(int(min(widths)), 0)


def banded_memory(
    shape: RidgeShape,
    solver: Solver,
    n_spaces: int,
    *,
    copies_features: bool = False,
    keeps_results: bool = True,
) -> BandedMemory:
    """Bytes that a search allocates above features and responses.

    Parameters
    ----------
    shape : RidgeShape
    solver : Solver
    n_spaces : int
    copies_features : bool
        Spaces are copied to stand side by side.
    keeps_results : bool
        Results stay in memory; else they are stored, a batch at a time.
    """
    n, p, size = shape.n_samples, shape.n_features, shape.itemsize
    m, r, n_folds = shape.n_test, shape.rank, shape.n_folds
    pieces = n_pieces(shape.n_parts, n_folds)
    of_one = size * p + 8 * (4 + n_spaces) + 1.0
    kept = of_one * shape.n_targets if keeps_results else 0.0
    kept += size * n * p if copies_features else 0
    if solver.form == "primal":
        by_rows = m < p
        order, full = float(p), float(p)
        kept += 8.0 * pieces * p * p + (8.0 * n * p if by_rows else 0.0)
        # Cross-products of the pieces, beside those of the sides.
        crosses, back = pieces * p, 0
    else:
        by_rows = True
        order, full = shape.n_train, float(n)
        kept += 8.0 * (n_spaces + 1) * n * n
        crosses, back = 0, n
    held = m if by_rows else p
    # What folds keep of a candidate.
    fits = size * n_folds * (held * r + (0 if by_rows else r * r))
    # A matrix and a copy, LAPACK's work of 3 r^2 or the vectors and two copies.
    decomposing = 8.0 * 6 * max(order, full) ** 2
    dividing = 8.0 * (r * r + 2 * m * r) + size * r * (r + order)
    sides = n_folds * order + (n if by_rows else n_folds * p) + full
    numbers = 8.0 * (2 * n_folds + 4 * shape.n_parts + 8)
    searched = size * (sides + n_folds * r) + numbers
    # Chosen targets pass in blocks of 256.
    block = 256 * size * (2 * full + 3 * r + held)
    return BandedMemory(
        {
            "load": (kept, size * (sides + crosses + n + n / n_folds) + numbers),
            "decompose": (
                kept + fits + decomposing, searched + 8 * shape.n_alphas * n_folds
            ),
            "score": (
                kept + fits + dividing,
                searched + size * 4 * r + 8 * shape.n_alphas * (n_folds + 5),
            ),
            "weights": (
                kept + decomposing + block,
                size * (sides + back + p)
                + 8 * p * (size < 8)
                + numbers
                + (0.0 if keeps_results else of_one),
            ),
        }
    )  # fmt: skip
