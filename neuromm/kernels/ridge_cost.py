"""What a cross-validated ridge costs, counted before anything is computed.

Counts are leading terms of floating-point operations: 2abc for the product of (a, b)
by (b, c), abb for a symmetric product, 9 r^3 for the eigen-decomposition of an (r, r)
matrix.
"""

from dataclasses import dataclass

from neuromm.kernels.ridge import Form

__all__ = [
    "RidgeCost",
    "RidgeMemory",
    "cheaper_form",
    "operation_count",
    "working_memory",
]


@dataclass(frozen=True)
class RidgeCost:
    """Floating-point operations by the kind that sets their speed.

    Attributes
    ----------
    decomposition : float
        Eigen-decompositions, float64.
    gram : float
        Products of features with features, float64.
    targets : float
        Products with the targets, in the precision of the data.
    """

    decomposition: float
    gram: float
    targets: float

    @property
    def total(self) -> float:
        """All operations."""
        return self.decomposition + self.gram + self.targets


@dataclass(frozen=True)
class RidgeMemory:
    """Bytes a fit allocates above its inputs.

    Attributes
    ----------
    fixed : int
        Whatever the batch size: bases of all folds, the largest decomposition, weights.
    per_target : int
        For each target of a batch.
    """

    fixed: int
    per_target: int


def operation_count(
    n_samples: int,
    n_features: int,
    n_targets: int,
    *,
    n_alphas: int,
    n_folds: int,
    form: Form,
) -> RidgeCost:
    """Operations of a fit: every fold's decomposition and scores, and the final fit.

    Parameters
    ----------
    n_samples, n_features, n_targets, n_alphas, n_folds : int
        Folds are taken as equal parts.
    form : {"primal", "dual"}

    Notes
    -----
    With m = n / K held-out rows, n_t = n - m and r = min(n_t, p), a fold costs

    - primal: n_t p^2 (Gram) + 9 p^3 + 2 n p r (both bases)
    - dual:   n_t^2 p (kernel) + 9 n_t^3 + 2 m n_t (p + r) (held-out basis)
    - both:   2 n_t r v (projection) + A m v (2 r + 3) (predictions and their scores)

    and the final fit one decomposition of all n rows, 2 n r v and 2 p r v.
    """
    n_test = n_samples / n_folds
    decomposition = gram = targets = 0.0
    for n_train, n_held, times in (
        (n_samples - n_test, n_test, n_folds),
        (n_samples, 0.0, 1),
    ):
        rank = min(n_train, n_features)
        if form == "primal":
            decomposition += times * 9.0 * n_features**3
            gram += times * n_train * n_features**2
            gram += times * 2.0 * (n_train + n_held) * n_features * rank
        else:
            decomposition += times * 9.0 * n_train**3
            gram += times * n_train**2 * n_features
            gram += times * 2.0 * n_held * n_train * (n_features + rank)
        targets += times * 2.0 * n_train * rank * n_targets
        targets += times * n_alphas * n_held * n_targets * (2.0 * rank + 3.0)
    rank = min(n_samples, n_features)
    targets += 2.0 * n_features * rank * n_targets
    if form == "dual":
        gram += 2.0 * n_features * n_samples * min(rank, n_targets)
    return RidgeCost(decomposition, gram, targets)


def cheaper_form(
    n_samples: int, n_features: int, n_targets: int, *, n_alphas: int, n_folds: int
) -> Form:
    """Whichever of "primal" and "dual" `operation_count` finds cheaper."""
    costs: dict[Form, float] = {
        form: operation_count(
            n_samples,
            n_features,
            n_targets,
            n_alphas=n_alphas,
            n_folds=n_folds,
            form=form,
        ).total
        for form in ("primal", "dual")
    }
    return "primal" if costs["primal"] <= costs["dual"] else "dual"


def working_memory(
    n_samples: int,
    n_features: int,
    n_targets: int,
    *,
    n_alphas: int,
    n_folds: int,
    form: Form,
    itemsize: int,
) -> RidgeMemory:
    """Bytes that a fit allocates above features and responses.

    Parameters
    ----------
    n_samples, n_features, n_targets, n_alphas, n_folds : int
    form : {"primal", "dual"}
    itemsize : int
        Bytes a number of the data: 4 for float32, 8 for float64.

    Notes
    -----
    Fixed: the bases of all folds and of the final fit (n r each, and p r), the weights
    (p v), and the transients of one decomposition in float64: the centred features,
    the Gram or kernel with its eigenvectors and LAPACK's workspace of 2 r^2, and the
    projected rows. A target of a batch holds its responses twice, its projections
    twice, two arrays of held-out rows, its weights and its scores.
    """
    n_test = -(-n_samples // n_folds)
    rank = min(n_samples, n_features)
    order = n_features if form == "primal" else n_samples
    bases = itemsize * rank * (n_folds * n_samples + n_samples + n_features)
    transients = 8 * (n_samples * n_features + 5 * order**2 + n_samples * rank)
    weights = itemsize * n_features * n_targets + 8 * 4 * n_targets
    per_target = itemsize * (2 * n_samples + 2 * rank + 2 * n_test + n_features)
    return RidgeMemory(
        fixed=bases + transients + weights, per_target=per_target + 8 * 3 * n_alphas
    )
