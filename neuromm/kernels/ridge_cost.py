"""What a cross-validated ridge costs, counted before anything is computed.

Counts are leading terms: 2abc for the product of (a, b) by (b, c), abb for a symmetric
product, 9 r^3 for the eigen-decomposition and r^3 / 3 for the Cholesky factor of an
(r, r) matrix, and the numbers that pass through memory outside of products.
"""

from dataclasses import dataclass, replace
from typing import Literal

from neuromm.kernels.ridge_features import uses_cross_products
from neuromm.kernels.ridge_modes import Form

__all__ = [
    "Method",
    "RidgeCost",
    "RidgeShape",
    "Solver",
    "cheapest_solvers",
    "operation_count",
]

Method = Literal["divided-difference", "direct", "hold-out", "cholesky"]

_FORMS: tuple[Form, Form] = ("primal", "dual")
_METHODS: tuple[Method, ...] = ("divided-difference", "direct", "hold-out", "cholesky")

# Time of an operation, in that of one of a float64 product. Decompositions and factors
# reach a part of the rate of products, and a number from memory takes as long as tens
# of operations. The constants are typical of a CPU and fixed, so that the same data
# take the same form on any machine.
_WEIGHTS = {
    "decomposition": 1.3,
    "factor": 3.2,
    "gram": 1.0,
    "targets": 1.0,
    "elements": 40.0,
}


# Penalties that span all others of a grid (`neuromm.kernels.penalty_curves`), by bytes
# of a number: in float32 of grids over six decades beside features of as many.
_CURVES = {4: 16, 8: 45}


@dataclass(frozen=True)
class Solver:
    """How a ridge is solved.

    Attributes
    ----------
    form : {"primal", "dual"}
        Decompose features by features, or samples by samples.
    method : {"divided-difference", "direct", "hold-out", "cholesky"}
        See `neuromm.kernels.ridge_path`, `neuromm.kernels.ridge_folds` (one prediction
        a penalty), `neuromm.kernels.ridge_hold_out`, `neuromm.kernels.ridge_cholesky`.
    """

    form: Form
    method: Method

    @property
    def name(self) -> str:
        """Such as ``"primal-divided-difference"``."""
        return f"{self.form}-{self.method}"

    @classmethod
    def named(cls, name: str) -> "Solver":
        """Solver of a name.

        Raises
        ------
        ValueError
            If there is none of this name.
        """
        solvers = {
            one.name: one for one in (cls(f, m) for f in _FORMS for m in _METHODS)
        }
        if name not in solvers:
            raise ValueError(
                f"solver must be 'auto' or one of {', '.join(solvers)}, got {name!r}"
            )
        return solvers[name]


@dataclass(frozen=True, kw_only=True)
class RidgeShape:
    """Size of a cross-validated ridge.

    Attributes
    ----------
    n_samples, n_features, n_targets, n_alphas, n_folds : int
    n_train, n_test : float
        Rows that a fold trains on and holds out, on average.
    n_parts : int
        Parts of rows that folds share (`neuromm.kernels.row_parts`).
    complements : bool
        Every fold trains on all rows that it does not hold out.
    itemsize : int
        Bytes a number of the data: 4 or 8.
    """

    n_samples: int
    n_features: int
    n_targets: int
    n_alphas: int
    n_folds: int
    n_train: float
    n_test: float
    n_parts: int
    complements: bool
    itemsize: int

    @classmethod
    def of_equal_folds(
        cls,
        n_samples: int,
        n_features: int,
        n_targets: int,
        *,
        n_alphas: int,
        n_folds: int,
        itemsize: int,
    ) -> "RidgeShape":
        """Shape with folds that are equal parts of the samples."""
        n_test = n_samples / n_folds
        return cls(
            n_samples=n_samples,
            n_features=n_features,
            n_targets=n_targets,
            n_alphas=n_alphas,
            n_folds=n_folds,
            n_train=n_samples - n_test,
            n_test=n_test,
            n_parts=n_folds,
            complements=True,
            itemsize=itemsize,
        )

    @property
    def rank(self) -> float:
        """Modes of a fold."""
        return min(self.n_train, self.n_features)

    @property
    def full_rank(self) -> int:
        """Modes of all rows."""
        return min(self.n_samples, self.n_features)

    @property
    def n_curves(self) -> int:
        """Penalties for which held-out blocks are computed, about."""
        return min(self.n_alphas, _CURVES[self.itemsize])

    def uses_cross_products(self, form: Form) -> bool:
        """Tell whether `EigenRidge` forms cross-products of parts."""
        return uses_cross_products(form, self.n_parts, self.n_folds)


@dataclass(frozen=True)
class RidgeCost:
    """Operations by the kind that sets their speed.

    Attributes
    ----------
    decomposition, factor : float
        Eigen-decompositions and Cholesky factors, float64.
    gram : float
        Products of features with features, float64.
    targets : float
        Products with the targets, in the precision of the data.
    elements : float
        Numbers that pass through memory, in the precision of the data.
    """

    decomposition: float = 0.0
    factor: float = 0.0
    gram: float = 0.0
    targets: float = 0.0
    elements: float = 0.0

    @property
    def products(self) -> float:
        """Operations of products with the targets, and of decompositions."""
        return self.decomposition + self.factor + self.gram + self.targets

    def weighted(self, itemsize: int) -> float:
        """Time in that of one operation of a float64 product."""
        share = itemsize / 8
        times = {"targets": share, "elements": share}
        return sum(
            weight * times.get(kind, 1.0) * float(getattr(self, kind))
            for kind, weight in _WEIGHTS.items()
        )


def operation_count(shape: RidgeShape, solver: Solver) -> RidgeCost:
    """Operations of a fit: every fold's decomposition and scores, and the final fit.

    Notes
    -----
    With m held-out and n_t training rows of K folds, r = min(n_t, p) modes, A penalties
    and v targets, the products with the targets of a fold are

    - projection: 2 p r v beside one 2 n p v for all folds (primal), or 2 n_t r v (dual)
    - held-out side: 2 min(m, r) r v
    - scores: 2 r^2 v + 6 A r v (divided-difference) or 2 A min(m, r) r v (direct)
    - score of the chosen penalty: 2 min(m, r) r v

    and those of the final fit 2 p r v (primal) or 2 n r v (dual), and 2 p r v.
    """
    if solver.method == "hold-out":
        return _hold_out_count(shape, solver.form)
    if solver.method == "cholesky":
        return _cholesky_count(shape, solver.form)
    return _eigen_count(shape, solver)


def cheapest_solvers(shape: RidgeShape, *, has_factors: bool) -> list[Solver]:
    """Solvers that hold for this shape, cheapest first.

    Parameters
    ----------
    shape : RidgeShape
    has_factors : bool
        Whether Cholesky factors may be used: arrays of the host, and penalties that are
        not far below the eigenvalues.
    """
    methods: list[Method] = ["divided-difference", "direct"]
    if shape.complements:
        methods.append("hold-out")
    if has_factors:
        methods.append("cholesky")
    solvers = [Solver(form, method) for form in _FORMS for method in methods]
    return sorted(
        solvers,
        key=lambda solver: operation_count(shape, solver).weighted(shape.itemsize),
    )


def _eigen_count(shape: RidgeShape, solver: Solver) -> RidgeCost:
    n, p, v = shape.n_samples, shape.n_features, shape.n_targets
    m, n_train, r = shape.n_test, shape.n_train, shape.rank
    held = min(m, r)
    cost = _basis_count(shape, solver.form, n_train, m, shape.n_folds)
    cost = _sum(cost, _basis_count(shape, solver.form, n, 0, 1))
    by_cross = shape.uses_cross_products(solver.form)
    by_square = by_cross and m > r  # held-out rows enter by cross-products too
    targets = 2.0 * held * r  # chosen penalty
    elements = 4.0 * r + (2.0 * r if by_square else 4.0 * m)
    if by_cross:
        targets += 2.0 * p * r
        elements += max(shape.n_parts - 1, 1) * p
    else:
        targets += 2.0 * n_train * r
        elements += 2.0 * n_train
    if solver.method == "divided-difference":
        targets += 2.0 * held * r + 2.0 * r**2 + 6.0 * shape.n_alphas * r
        elements += 6.0 * r + (0.0 if by_square else 2.0 * m) + 30.0 * shape.n_alphas
    else:
        targets += shape.n_alphas * 2.0 * held * r
        elements += shape.n_alphas * (4.0 * r + (2.0 * r if by_square else 4.0 * m))
    targets = targets * shape.n_folds + 2.0 * p * shape.full_rank
    targets += 2.0 * n * p + 2.0 * p * p if by_cross else 2.0 * n * shape.full_rank
    elements = elements * shape.n_folds + 6.0 * n + 4.0 * shape.full_rank + 3.0 * p
    cost = _sum(cost, RidgeCost(targets=targets * v, elements=elements * v))
    if solver.form == "dual":
        gram = n * n * p + 2.0 * p * n * min(shape.full_rank, v)
        cost = _sum(cost, RidgeCost(gram=gram))
    return cost


def _basis_count(
    shape: RidgeShape, form: Form, n_train: float, n_test: float, n_folds: int
) -> RidgeCost:
    """Bases of equal folds, without the kernel that dual ones share."""
    p = shape.n_features
    r = min(n_train, p)
    gram = n_test * r**2
    if form == "primal":
        gram += n_train * p**2 + 2.0 * n_test * p * r
        order, elements = float(p), 3.0 * n_train * p
    else:
        gram += 2.0 * n_test * n_train * r
        order, elements = n_train, 3.0 * n_train**2
    if n_test:
        elements += 10.0 * r**2
    once = RidgeCost(decomposition=9.0 * order**3, gram=gram, elements=2 * elements)
    return _times(once, n_folds)


def _hold_out_count(shape: RidgeShape, form: Form) -> RidgeCost:
    n, p, v, m = shape.n_samples, shape.n_features, shape.n_targets, shape.n_test
    r, n_alphas = shape.full_rank, shape.n_alphas
    cost = _basis_count(shape, form, n, 0, 1)
    n_curves = shape.n_curves
    inverses = n_curves * shape.n_folds * (m**2 * r + 3.0 * m**3)
    gram = inverses + (2.0 * n * p * r if form == "primal" else n * n * p)
    if form == "primal":
        gram += 4.0 * n * r**2  # a QR makes the modes orthonormal
    targets = 2.0 * n * r + n_curves * (2.0 * n * r + 2.0 * m * n)
    if n_curves < n_alphas:
        targets += 2.0 * n * n_curves * n_alphas
    if r < n - 1:
        targets += 2.0 * n * r
    targets += 2.0 * p * r
    if form == "dual":
        gram += 2.0 * p * n * min(r, v)
    elements = n_curves * (2.0 * r + 4.0 * n) + 10.0 * n + 4.0 * r + 3.0 * p
    elements += 2.0 * n_alphas * n
    return _sum(cost, RidgeCost(gram=gram, targets=targets * v, elements=elements * v))


def _cholesky_count(shape: RidgeShape, form: Form) -> RidgeCost:
    n, p, v, m = shape.n_samples, shape.n_features, shape.n_targets, shape.n_test
    n_train, n_alphas = shape.n_train, shape.n_alphas
    used = min(n_alphas, v)
    # All of it is float64.
    double = 8 / shape.itemsize
    if form == "primal":
        order, gram = float(p), shape.n_folds * n_train * p**2 + float(n) * p**2
        back = 0.0
    else:
        order, gram = n_train, shape.n_folds * n_train**2 * p + float(n) ** 2 * p
        back = 2.0 * n_train * p
    solves = shape.n_folds * n_alphas + used
    targets = shape.n_folds * n_alphas * (2.0 * order**2 + back + 2.0 * m * p)
    targets += 2.0 * order**2 + back + shape.n_folds * 2.0 * n_train * p
    elements = shape.n_folds * n_alphas * (order + 3.0 * m)
    return RidgeCost(
        factor=solves * order**3 / 3,
        gram=gram,
        targets=targets * v * double,
        elements=elements * v * double + solves * order**2 * double,
    )


def _sum(first: RidgeCost, second: RidgeCost) -> RidgeCost:
    return RidgeCost(
        **{kind: getattr(first, kind) + getattr(second, kind) for kind in _WEIGHTS}
    )


def _times(cost: RidgeCost, times: float) -> RidgeCost:
    return replace(cost, **{kind: times * getattr(cost, kind) for kind in _WEIGHTS})
