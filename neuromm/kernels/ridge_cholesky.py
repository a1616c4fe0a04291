"""Cross-validated ridge by one Cholesky factor for each fold and penalty.

A factor takes a twenty-seventh of the operations of a decomposition, and serves one
penalty: the cheapest form for few penalties and few targets. All of it is float64, on
the host.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from neuromm.kernels.column_statistics import column_correlation, column_dot
from neuromm.kernels.ridge_modes import Form, Scoring
from neuromm.kernels.row_parts import Split, TargetRows, row_parts, target_rows

__all__ = ["CholeskyBatch", "CholeskyRidge"]

Array = NDArray[np.float64]

# Below this share of the mean eigenvalue, a penalty leaves the matrix too near to a
# singular one for its factor to be trusted.
_SMALLEST_PENALTY = 1e-8


@dataclass
class CholeskyBatch:
    """A batch of targets and their scores, (n_alphas, n_targets)."""

    targets: TargetRows
    y: Array
    scores: Array | None = None


@dataclass(frozen=True)
class _Rows:
    """Rows that are fitted, centred, and their Gram or kernel."""

    x: Array
    mean: Array
    matrix: Array


class CholeskyRidge:
    """Ridge of few targets from one factor a fold and penalty.

    Parameters
    ----------
    x : array of shape (n_samples, n_features)
    splits : sequence of (train, test)
    alphas : array of shape (n_alphas,)
    form : {"primal", "dual"}
    scoring : {"r2", "correlation", "mse"}
    fit_intercept : bool

    Attributes
    ----------
    is_accurate : bool
        False if a penalty is too small for a factor to be trusted.
    """

    def __init__(
        self,
        x: NDArray[np.floating],
        splits: Sequence[Split],
        alphas: Array,
        *,
        form: Form,
        scoring: Scoring,
        fit_intercept: bool,
    ) -> None:
        self.alphas = alphas
        self.scoring = scoring
        self._splits = splits
        self._parts = row_parts(splits, len(x))
        self._form = form
        self._fit_intercept = fit_intercept
        self._x = np.asarray(x, dtype=np.float64)
        self._final = self._rows(np.arange(len(x)))
        mean_eigenvalue = np.trace(self._final.matrix) / len(self._final.matrix)
        self.is_accurate = bool(alphas.min() > _SMALLEST_PENALTY * mean_eigenvalue)

    def load(self, y: NDArray[np.floating]) -> CholeskyBatch:
        """Take a batch of targets of shape (n_samples, n_targets)."""
        targets = target_rows(y, self._parts)
        kept = np.where(targets.valid, y, 0).astype(np.float64)
        return CholeskyBatch(targets, kept)

    def path(self, batch: CholeskyBatch) -> Array:
        """Score of every penalty, averaged over folds, as `EigenRidge.path`."""
        total = np.zeros((len(self.alphas), batch.y.shape[1]))
        n_scored = np.zeros(batch.y.shape[1])
        for (train, test), counts in zip(self._splits, self._parts.test, strict=True):
            fitted = self._rows(train)
            solve, mean = self._solver(fitted, batch.y[train])
            held = self._x[test]
            # A correlation ignores offsets: features that are constant here are then 0.
            about_itself = self.scoring == "correlation"
            held = held - (self._mean(held) if about_itself else fitted.mean)
            missing = np.zeros(batch.y.shape[1], dtype=bool)
            if self.scoring != "mse":
                missing = batch.targets.is_constant(counts)
            for row, alpha in enumerate(self.alphas):
                score = self._score(held @ solve(alpha), batch.y[test] - mean)
                total[row] += np.where(missing, 0.0, score)
            n_scored += ~missing
        with np.errstate(invalid="ignore"):
            batch.scores = total / n_scored
        return batch.scores

    def at(self, batch: CholeskyBatch, choice: NDArray[np.intp]) -> Array:
        """Score of one penalty a target; the path has it from predictions already."""
        if batch.scores is None:
            raise ValueError("scores of a path come before those of one penalty")
        scores: Array = np.take_along_axis(batch.scores, choice[None], axis=0)[0]
        return scores

    def penalties(self, batch: CholeskyBatch, choice: NDArray[np.intp]) -> Array:
        """Penalty of each target, (n_targets,), float64."""
        penalties: Array = self.alphas[choice]
        return penalties

    def weights(
        self,
        batch: CholeskyBatch,
        choice: NDArray[np.intp],
        out: Array | None = None,
    ) -> tuple[Array, Array]:
        """Weights and intercepts of a fit of all rows, as `EigenRidge.weights`.

        They are few, and never made in ``out``.
        """
        solve, mean = self._solver(self._final, batch.y)
        weights = np.empty((self._x.shape[1], batch.y.shape[1]))
        for number in np.unique(choice):
            # All targets each time: products of another width round differently, and
            # the choice of one target would touch the last digit of others.
            chosen = choice == number
            weights[:, chosen] = solve(self.alphas[number])[:, chosen]
        return weights, mean - self._final.mean @ weights

    def _mean(self, rows: Array) -> Array:
        """Mean of rows, of a constant exactly its value; 0 without intercept."""
        if not self._fit_intercept:
            return np.zeros(rows.shape[1])
        mean: Array = rows[0] + (rows - rows[0]).mean(axis=0)
        return mean

    def _rows(self, rows: NDArray[np.intp]) -> _Rows:
        x = self._x[rows]
        mean = self._mean(x)
        x = x - mean
        return _Rows(x, mean, x.T @ x if self._form == "primal" else x @ x.T)

    def _solver(
        self, fitted: _Rows, y: Array
    ) -> tuple[Callable[[float], Array], Array]:
        """Weights as a function of the penalty, and the mean of the targets."""
        mean = self._mean(y)
        y = y - mean
        right = fitted.x.T @ y if self._form == "primal" else y

        def solve(alpha: float) -> Array:
            matrix = fitted.matrix.copy()
            matrix.flat[:: len(matrix) + 1] += alpha
            factor = cho_factor(matrix, lower=True, overwrite_a=True)
            solved: Array = cho_solve(factor, right)
            return solved if self._form == "primal" else fitted.x.T @ solved

        return solve, mean

    def _score(self, prediction: Array, y: Array) -> Array:
        if self.scoring == "correlation":
            r: Array = np.nan_to_num(column_correlation(prediction, y), nan=0.0)
            return r
        error = prediction - y
        loss = column_dot(error, error)
        if self.scoring == "mse":
            mse: Array = -loss / len(y)
            return mse
        deviation = y - y.mean(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            r2: Array = 1 - loss / column_dot(deviation, deviation)
        return r2
