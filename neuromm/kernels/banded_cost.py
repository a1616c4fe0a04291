"""What a search over feature spaces costs and allocates, counted before it does.

Counts are leading terms, in the units of `neuromm.kernels.ridge_cost`.
"""

from neuromm.kernels.banded_modes import n_pieces
from neuromm.kernels.ridge_cost import RidgeCost, RidgeShape, Solver
from neuromm.kernels.ridge_memory import RidgeMemory

__all__ = ["banded_memory", "banded_operations", "banded_solvers"]

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


def banded_memory(
    shape: RidgeShape, solver: Solver, n_spaces: int, *, copies_features: bool = False
) -> RidgeMemory:
    """Bytes that a search allocates above features and responses.

    Parameters
    ----------
    shape : RidgeShape
    solver : Solver
    n_spaces : int
    copies_features : bool
        Spaces are copied to stand side by side.
    """
    n, p, size = shape.n_samples, shape.n_features, shape.itemsize
    m, r, n_folds = shape.n_test, shape.rank, shape.n_folds
    results = (size * p + 8 * (4 + n_spaces) + 1) * shape.n_targets
    pieces = n_pieces(shape.n_parts, n_folds)
    if solver.form == "primal":
        order, full, held = float(p), float(p), min(m, p)
        kept = 8.0 * pieces * p * p
        kept += 8.0 * n * p if m < p else 0.0
        loading = pieces * p
    else:
        order, full, held = shape.n_train, float(n), m
        kept = 8.0 * (n_spaces + 1) * n * n
        loading = 0
    kept += size * n * p if copies_features else 0
    # A matrix, a copy, its vectors and LAPACK's 2 r^2; and what a fold keeps of them.
    fits = size * n_folds * (held * r + (r * r if m >= p else 0))
    decomposing = 8.0 * 7 * max(order, full) ** 2 + size * r * r + fits
    sides = n_folds * order + (n if m < order else n_folds * held) + full
    # Chosen targets pass in blocks of 256.
    blocks = 256 * (size * (3 * full + 4 * r) + 8 * p)
    per_target = max(
        size * (sides + 3 * n + loading),
        size * (sides + n_folds * r + 5 * r) + 8 * shape.n_alphas * (n_folds + 5),
        size * (sides + full + p) + 8 * p,
    )
    per_target += 8 * 4 * (n_folds + shape.n_parts)
    return RidgeMemory(
        building=int(kept + decomposing),
        kept=int(kept + decomposing + blocks),
        results=int(results),
        per_target=int(per_target),
    )
