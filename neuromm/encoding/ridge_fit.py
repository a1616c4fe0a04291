"""Cross-validated ridge for many targets in bounded memory.

The bases of all folds are computed once from the features; the targets then pass in
batches, each read once: scores of every penalty on every fold, choice, final weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuromm.core import UsageError
from neuromm.encoding.memory import target_batch
from neuromm.encoding.splitters import Split
from neuromm.kernels import (
    FoldBasis,
    cheaper_form,
    fit_basis,
    fold_basis,
    is_constant,
    path_scores,
    select_alphas,
    shrunken_weights,
    working_memory,
)
from neuromm.kernels.ridge import Form, Scoring

__all__ = ["RidgeFit", "edge_shares", "fit_ridge"]

Array = NDArray[np.floating]


@dataclass(frozen=True)
class RidgeFit:
    """A ridge with chosen penalties.

    Attributes
    ----------
    coef : array of shape (n_features, n_targets)
        0 for a masked target.
    intercept : array of shape (n_targets,)
        A constant target's value; nan for a target with missing values.
    best_alphas : array of shape (n_targets,)
        nan for a masked target.
    cv_scores : array of shape (n_targets,)
        Of the chosen penalty, averaged over folds; nan for a masked target.
    valid_targets : boolean array of shape (n_targets,)
        False for a target that is constant or has missing or infinite values.
    solver_form : {"primal", "dual"}
    """

    coef: Array
    intercept: Array
    best_alphas: NDArray[np.float64]
    cv_scores: NDArray[np.float64]
    valid_targets: NDArray[np.bool_]
    solver_form: Form

    def predict(self, x: Array) -> Array:
        """Predictions of shape (n_samples, n_targets)."""
        return x @ self.coef + self.intercept


def fit_ridge(
    x: Array,
    y: Array,
    splits: Sequence[Split],
    alphas: NDArray[np.float64],
    *,
    scoring: Scoring = "r2",
    fit_intercept: bool = True,
    alpha_per_target: bool = True,
    memory_limit: int | None = None,
) -> RidgeFit:
    """Choose penalties by cross-validation and fit all samples with them.

    Parameters
    ----------
    x : array of shape (n_samples, n_features)
    y : array of shape (n_samples, n_targets)
        In the precision of ``x``.
    splits : sequence of (train, test)
    alphas : array of shape (n_alphas,)
    scoring : {"r2", "correlation", "mse"}
    fit_intercept : bool
    alpha_per_target : bool
        False takes the penalty of the best mean over valid targets for all.
    memory_limit : int or None
        Bytes above ``x`` and ``y``.

    Raises
    ------
    neuromm.core.UsageError
        If no fold holds out enough samples for the score.
    neuromm.core.ResourceLimitError
        If ``memory_limit`` is too small for one target.
    """
    if scoring != "mse" and max(len(test) for _, test in splits) < 2:
        raise UsageError(
            f"scoring={scoring!r} needs folds with at least 2 held-out samples. Leave "
            "out blocks, or take scoring='mse'."
        )
    n_targets = y.shape[1]
    sizes = (*x.shape, n_targets)
    counts = {"n_alphas": len(alphas), "n_folds": len(splits)}
    form = cheaper_form(*sizes, **counts)
    memory = working_memory(*sizes, **counts, form=form, itemsize=x.dtype.itemsize)
    width = target_batch(memory, n_targets, memory_limit)
    batches = [slice(i, i + width) for i in range(0, n_targets, width)]

    valid = _valid_targets(y, batches)
    folds = [
        fold_basis(x[train], x[test], form, fit_intercept=fit_intercept)
        for train, test in splits
    ]
    final = fit_basis(x, form, n_targets=n_targets, fit_intercept=fit_intercept)
    coef = np.zeros((x.shape[1], n_targets), dtype=x.dtype)
    intercept = np.zeros(n_targets, dtype=x.dtype)
    best_alphas = np.full(n_targets, np.nan)
    cv_scores = np.full(n_targets, np.nan)
    common = None
    if not alpha_per_target:
        common = _common_alpha(
            folds, splits, y, valid, batches, alphas, scoring, fit_intercept
        )
    for batch in batches:
        part = _masked_copy(y, batch, valid)
        scores = _fold_mean(folds, splits, part, alphas, scoring, fit_intercept)
        if common is None:
            scale = part.var(axis=0, dtype=float) if scoring == "mse" else 1.0
            chosen = select_alphas(scores, alphas, tie_scale=scale)
        else:
            chosen = np.full(part.shape[1], common)
        best_alphas[batch] = alphas[chosen]
        cv_scores[batch] = np.take_along_axis(scores, chosen[None], axis=0)[0]
        coef[:, batch], intercept[batch] = shrunken_weights(
            final, part, alphas[chosen], fit_intercept=fit_intercept
        )
    _mark_masked(y, valid, coef, intercept)
    best_alphas[~valid] = np.nan
    cv_scores[~valid] = np.nan
    return RidgeFit(coef, intercept, best_alphas, cv_scores, valid, form)


def edge_shares(
    best_alphas: NDArray[np.float64], alphas: NDArray[np.float64]
) -> tuple[float, float]:
    """Share of targets whose penalty is the smallest, and the largest, of the grid.

    Both are 0 for a grid of one, and without a valid target.
    """
    chosen = best_alphas[~np.isnan(best_alphas)]
    if not chosen.size or len(np.unique(alphas)) < 2:
        return 0.0, 0.0
    return (
        float(np.mean(chosen == alphas.min())),
        float(np.mean(chosen == alphas.max())),
    )


def _fold_mean(
    folds: Sequence[FoldBasis],
    splits: Sequence[Split],
    y: Array,
    alphas: NDArray[np.float64],
    scoring: Scoring,
    fit_intercept: bool,
) -> NDArray[np.float64]:
    """Mean over the folds in which a target has a score: not where it is constant."""
    total = np.zeros((len(alphas), y.shape[1]))
    n_scored = np.zeros(y.shape[1])
    for basis, (train, test) in zip(folds, splits, strict=True):
        scores = path_scores(
            basis,
            y[train],
            y[test],
            alphas,
            scoring=scoring,
            fit_intercept=fit_intercept,
        )
        scored = ~np.isnan(scores).any(axis=0)
        total[:, scored] += scores[:, scored]
        n_scored += scored
    with np.errstate(invalid="ignore"):
        mean: NDArray[np.float64] = total / n_scored
    return mean


def _common_alpha(
    folds: Sequence[FoldBasis],
    splits: Sequence[Split],
    y: Array,
    valid: NDArray[np.bool_],
    batches: Sequence[slice],
    alphas: NDArray[np.float64],
    scoring: Scoring,
    fit_intercept: bool,
) -> int:
    total = np.zeros(len(alphas))
    scale, n_valid = 0.0, 0
    for batch in batches:
        part = _masked_copy(y, batch, valid)
        scores = _fold_mean(folds, splits, part, alphas, scoring, fit_intercept)
        used = valid[batch] & ~np.isnan(scores).any(axis=0)
        total += scores[:, used].sum(axis=1)
        scale += part.var(axis=0, dtype=float)[used].sum()
        n_valid += int(used.sum())
    mean = total / max(n_valid, 1)
    unit = scale / max(n_valid, 1) if scoring == "mse" else 1.0
    return int(select_alphas(mean[:, None], alphas, tie_scale=unit)[0])


def _valid_targets(y: Array, batches: Sequence[slice]) -> NDArray[np.bool_]:
    valid = np.zeros(y.shape[1], dtype=bool)
    for batch in batches:
        part = y[:, batch]
        valid[batch] = np.isfinite(part).all(axis=0) & ~is_constant(part)
    return valid


def _masked_copy(y: Array, batch: slice, valid: NDArray[np.bool_]) -> Array:
    """Return a batch with zeros for masked targets, which keeps the others' columns.

    So the other targets have the same bits whether or not one of them is masked.
    """
    part = y[:, batch]
    if not valid[batch].all():
        part = np.where(valid[batch], part, np.zeros((), y.dtype))
    return part


def _mark_masked(
    y: Array, valid: NDArray[np.bool_], coef: Array, intercept: Array
) -> None:
    masked = np.flatnonzero(~valid)
    coef[:, masked] = 0
    constant = is_constant(y[:, masked]) & np.isfinite(y[0, masked])
    intercept[masked] = np.where(constant, y[0, masked], np.nan)
