"""Cross-validated ridge in the eigenbasis of each fold's training rows.

A fold is a decomposition, a projection of targets on its training side (z) and one on
its held-out side (b), and functions of the penalty: see `neuromm.kernels.ridge_path`.
Both projections are linear in the targets, so where there are fewer features than
training rows (primal form) they are taken from the cross-products X'Y of the parts of
rows that folds share (`neuromm.kernels.row_parts`), which pass over the targets once
for all folds and for the final fit.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from neuromm.kernels.arrays import (
    Array,
    as_like,
    is_numpy,
    namespace,
    runs_kernels,
)
from neuromm.kernels.blas_threads import side_by_side as run_side_by_side
from neuromm.kernels.column_statistics import column_dot
from neuromm.kernels.ridge_batch import EigenBatch, FoldSide, FoldTargets
from neuromm.kernels.ridge_features import (
    FeatureRows,
    Modes,
    at_mean,
    to_weights,
    uses_cross_products,
)
from neuromm.kernels.ridge_modes import Form, Scoring
from neuromm.kernels.ridge_path import (
    DividedDifferences,
    PathTables,
    divided_differences,
    path_sums,
)
from neuromm.kernels.row_parts import (
    Counts,
    Split,
    fold_sums,
    row_parts,
    target_rows,
)

__all__ = ["EigenRidge", "fold_mean"]

EigenMethod = Literal["divided-difference", "direct"]


@dataclass(frozen=True)
class _Fold:
    """One fold; eigenvalues and penalties are in units of ``modes.unit``.

    Attributes
    ----------
    square : array of shape (rank, rank) or None
        M = A'A of a held-out side that has no rows.
    """

    unit: float
    eigenvalues: NDArray[np.float64]
    train: FoldSide
    test: FoldSide
    square: Array | None
    tables: PathTables | None
    differences: DividedDifferences | None
    n_test: int


class EigenRidge:
    """Ridge of many targets from one decomposition a fold.

    Parameters
    ----------
    x : array of shape (n_samples, n_features)
    splits : sequence of (train, test)
    alphas : array of shape (n_alphas,)
    form : {"primal", "dual"}
    method : {"divided-difference", "direct"}
        How scores of all penalties are formed: from one product, or from one
        prediction a penalty.
    scoring : {"r2", "correlation", "mse"}
    fit_intercept : bool
    n_targets : int
        Of all batches; decides in which order products are cheaper.
    side_by_side : sequence of int
        How many bases are built at once, that of all rows first, then those of folds,
        one group after the other; by default one.
    """

    def __init__(
        self,
        x: Array,
        splits: Sequence[Split],
        alphas: NDArray[np.float64],
        *,
        form: Form,
        method: EigenMethod,
        scoring: Scoring,
        fit_intercept: bool,
        n_targets: int,
        side_by_side: Sequence[int] = (),
    ) -> None:
        self.alphas = alphas
        self.scoring = scoring
        self.parts = row_parts(splits, x.shape[0])
        self._fit_intercept = fit_intercept
        self._is_dual = form == "dual"
        n_folds, n_parts = self.parts.train.shape
        self._features = FeatureRows(
            x,
            self.parts,
            form,
            fit_intercept,
            by_cross=uses_cross_products(form, n_parts, n_folds),
        )
        self._x_mean = self._features.mean(self.parts.everything)
        jobs: list[Callable[[], Any]] = [partial(self._all_rows, n_targets)]
        for train, test in zip(self.parts.train, self.parts.test, strict=True):
            jobs.append(partial(self._fold, train, test, method))
        built: list[Any] = []
        for group in side_by_side or [1] * len(jobs):
            start = len(built)
            built += run_side_by_side(jobs[start : start + group])
        (self._final, self._to_features), *folds = built
        self._folds: list[_Fold] = folds
        self._features.forget_kernel()

    def load(self, y: Array) -> EigenBatch:
        """Centre a batch of targets of shape (n_samples, n_targets).

        After `forget_folds` it will do for `weights` alone.
        """
        targets = target_rows(y, self.parts)
        crosses = self._features.cross_products(targets)
        nothing: list[Array | None] = [None] * len(self._folds)
        if crosses is None:
            return EigenBatch(targets, nothing, nothing.copy(), None)
        counts = self.parts.train[: len(self._folds)]
        *train, everything = fold_sums(
            crosses, np.vstack([counts, self.parts.everything])
        )
        test = nothing
        if any(fold.test.shift is not None for fold in self._folds):
            test = fold_sums(crosses, self.parts.test)
        return EigenBatch(targets, train, test, everything)

    def forget_folds(self) -> None:
        """Give back the memory of all folds, once every penalty is chosen."""
        self._folds = []

    def path(self, batch: EigenBatch) -> Array:
        """Score of every penalty, averaged over folds.

        Returns
        -------
        scores : array of shape (n_alphas, n_targets), float64
            Folds in which a target is constant have no r2 or correlation and do not
            count; nan if none is left.
        """
        batch.folds, scores = [], []
        for number, fold in enumerate(self._folds):
            targets, b = self._project(number, batch)
            batch.folds.append(targets)
            if fold.tables is not None and fold.differences is not None:
                sums = path_sums(fold.tables, fold.differences, targets.z, b)
                scores.append(self._scores(fold, targets, *sums))
                continue
            xp = namespace(targets.z)
            rows = [
                self._score_at(fold, batch, targets, np.array([alpha]))
                for alpha in self.alphas
            ]
            scores.append(xp.stack(rows))
        return fold_mean(scores, [targets.undefined for targets in batch.folds])

    def at(self, batch: EigenBatch, choice: Array) -> Array:
        """Score of one penalty a target, from its predictions, averaged over folds.

        Parameters
        ----------
        batch : EigenBatch
            After `path`.
        choice : integer array of shape (n_targets,)
            Position of the penalty in ``alphas``.

        Returns
        -------
        scores : array of shape (n_targets,), float64
        """
        alphas = self.penalties(batch, choice)
        return self.score_at(batch, [alphas] * len(self._folds))

    def project(self, batch: EigenBatch) -> None:
        """Project a batch on all folds, for `score_at` without a `path`."""
        numbers = range(len(self._folds))
        batch.folds = [self._project(number, batch)[0] for number in numbers]

    def score_at(self, batch: EigenBatch, alphas: Sequence[Array]) -> Array:
        """Score of any penalties, from their predictions, averaged over folds.

        Parameters
        ----------
        batch : EigenBatch
            After `path` or `project`.
        alphas : sequence of arrays of shape (n_targets,), float64
            One a fold.
        """
        scores = [
            self._score_at(fold, batch, targets, values)
            for fold, targets, values in zip(
                self._folds, batch.folds, alphas, strict=True
            )
        ]
        return fold_mean(scores, [targets.undefined for targets in batch.folds])

    def spectra(self, batch: EigenBatch) -> Iterator[tuple[NDArray[np.float64], Array]]:
        """Eigenvalues, and squared weights of least squares in modes: folds, then all.

        Yields
        ------
        eigenvalues : array of shape (rank,)
        power : array of shape (rank, n_targets), float64
        """
        pairs: list[tuple[Modes | _Fold, Array]] = [
            (fold, targets.z)
            for fold, targets in zip(self._folds, batch.folds, strict=True)
        ]
        pairs.append((self._final, self._final_projection(batch)))
        for modes, z in pairs:
            xp = namespace(z)
            values = as_like(modes.eigenvalues, z)[:, None]
            power = xp.astype(z, xp.float64) ** 2 / values**2
            # In the dual form a mode has the length of its singular value in weights.
            yield modes.eigenvalues * modes.unit, power * values**self._is_dual

    def penalties(self, batch: EigenBatch, choice: Array) -> Array:
        """Penalty of each target, (n_targets,), float64."""
        return namespace(choice).take(as_like(self.alphas, batch.targets.rows), choice)

    def weights(
        self, batch: EigenBatch, choice: Array, out: Array | None = None
    ) -> tuple[Array, Array]:
        """Weights and intercepts of a fit of all rows with one penalty a target.

        Parameters
        ----------
        batch : EigenBatch
        choice : integer array of shape (n_targets,)
            Position of the penalty in ``alphas``.
        out : array of shape (n_features, n_targets), optional
            Where the weights may be made.

        Returns
        -------
        weights : array of shape (n_features, n_targets)
        intercepts : array of shape (n_targets,), float64
        """
        z = self._final_projection(batch)
        if not runs_kernels(z):
            alphas = self.penalties(batch, choice)
            return self._weights(batch, _shrunken(z, self._final, alphas), out)
        from neuromm.kernels import gpu_ridge

        modes = self._final
        divisors = modes.eigenvalues + self.alphas[:, None] / modes.unit
        gpu_ridge.shrink_gather(z, 1 / divisors, choice)
        return self._weights(batch, z, out)

    def weights_at(
        self, batch: EigenBatch, alphas: Array, out: Array | None = None
    ) -> tuple[Array, Array]:
        """Weights and intercepts of a fit of all rows with any penalty a target.

        The penalty enters as a division of (rank, n_targets) projections: there is
        neither a loop over penalties nor an array of penalties by features by targets.

        Parameters
        ----------
        batch : EigenBatch
        alphas : array of shape (n_targets,), float64
        out : array of shape (n_features, n_targets), optional
            Where the weights may be made.

        Returns
        -------
        weights : array of shape (n_features, n_targets)
        intercepts : array of shape (n_targets,), float64
        """
        z = self._final_projection(batch)
        return self._weights(batch, _shrunken(z, self._final, alphas), out)

    def _weights(
        self, batch: EigenBatch, shrunken: Array, out: Array | None = None
    ) -> tuple[Array, Array]:
        weights = to_weights(self._to_features, shrunken, out)
        mean = self._mean(batch, self.parts.everything)
        return weights, mean - at_mean(self._x_mean, weights)

    def _final_projection(self, batch: EigenBatch) -> Array:
        everything = self.parts.everything
        side = FoldSide(self._final.train, None, everything, self._features.by_cross)
        mean = self._mean(batch, everything)
        return side.project(batch.targets, batch.everything, mean)

    def _all_rows(self, n_targets: int) -> tuple[Modes, tuple[Array, ...]]:
        """Modes of all rows, and what takes them to weights."""
        modes = self._features.modes(self.parts.everything)
        factors = self._features.to_features(modes, n_targets)
        return replace(modes, vectors=None), factors  # applied in the data's kind

    def _fold(self, train: Counts, test: Counts, method: EigenMethod) -> _Fold:
        modes = self._features.modes(train)
        held = self._features.held_out(
            modes, train, test, centre=self.scoring == "correlation"
        )
        xp = namespace(modes.train)
        square = None
        if held.shift is not None:
            square = xp.astype(held.square, modes.train.dtype)
        tables = differences = None
        if method == "divided-difference":
            tables = PathTables.of(
                modes.eigenvalues, self.alphas / modes.unit, modes.train
            )
            differences = divided_differences(
                modes.eigenvalues, held.square, modes.train
            )
        return _Fold(
            unit=modes.unit,
            eigenvalues=modes.eigenvalues,
            train=FoldSide(modes.train, None, train, self._features.by_cross),
            test=FoldSide(held.weights, held.shift, test, held.shift is not None),
            square=square,
            tables=tables,
            differences=differences,
            n_test=self.parts.n_rows(test),
        )

    def _mean(self, batch: EigenBatch, counts: Counts) -> Array:
        mean = batch.targets.mean(counts)
        return mean if self._fit_intercept else 0 * mean

    def _project(
        self, number: int, batch: EigenBatch
    ) -> tuple[FoldTargets, Array | None]:
        """A batch in one fold, and b where it is needed."""
        fold, targets = self._folds[number], batch.targets
        mean = self._mean(batch, fold.train.counts)
        test_mean = targets.mean(fold.test.counts)
        centre = test_mean if self.scoring == "correlation" else mean
        b = None
        if fold.tables is not None or fold.square is not None:
            b = fold.test.project(targets, batch.test[number], centre)
        z = fold.train.project(targets, batch.train[number], mean)
        batch.train[number] = batch.test[number] = None
        constant = targets.is_constant(fold.test.counts)
        projected = FoldTargets(
            z=z,
            b=b if fold.square is not None else None,
            centre=centre,
            power=targets.squares_about(fold.test.counts, centre),
            deviation=targets.squares_about(fold.test.counts, test_mean),
            undefined=constant & (self.scoring != "mse"),
        )
        return projected, b

    def _score_at(
        self, fold: _Fold, batch: EigenBatch, targets: FoldTargets, alphas: Array
    ) -> Array:
        """Score from the prediction itself; one penalty, or one a target."""
        # A correlation ignores scale: this one keeps float32 within its exponent.
        shrunken = _shrunken(
            targets.z, fold, alphas, scaled=self.scoring == "correlation"
        )
        if fold.square is not None and targets.b is not None:
            fit = column_dot(targets.b, shrunken)
            power = column_dot(shrunken, fold.square @ shrunken)
            return self._scores(fold, targets, fit, power)
        prediction = fold.test.weights @ shrunken
        y = batch.targets.moved(fold.test.counts, targets.centre)
        if self.scoring == "correlation":
            power = column_dot(prediction, prediction)
            return self._scores(fold, targets, column_dot(prediction, y), power)
        prediction -= y
        return self._loss_scores(fold, targets, column_dot(prediction, prediction))

    def _scores(
        self, fold: _Fold, targets: FoldTargets, fit: Array, power: Array
    ) -> Array:
        """Scores from the sums of products of predictions with targets and themselves.

        A constant prediction has correlation 0.
        """
        xp = namespace(fit)
        if self.scoring != "correlation":
            return self._loss_scores(fold, targets, targets.power - 2 * fit + power)
        positive = power > 0
        norm = xp.sqrt(xp.where(positive, power, xp.ones_like(power)) * targets.power)
        norm = xp.where(norm > 0, norm, xp.ones_like(norm))
        r = xp.where(positive, fit / norm, xp.zeros_like(fit))
        return xp.clip(r, -1, 1)

    def _loss_scores(self, fold: _Fold, targets: FoldTargets, loss: Array) -> Array:
        xp = namespace(loss)
        if self.scoring == "mse":
            return -loss / fold.n_test
        unit = targets.deviation
        # Undefined and masked targets, whose score does not count, have a unit of 0.
        return 1 - loss / xp.where(unit > 0, unit, xp.ones_like(unit))


def fold_mean(scores: Sequence[Array], undefined: Sequence[Array]) -> Array:
    """Mean over the folds in which a target has a score; nan where it has none.

    Parameters
    ----------
    scores : sequence of arrays of shape (n_targets,) or (n_alphas, n_targets)
        One a fold.
    undefined : sequence of boolean arrays of shape (n_targets,)
    """
    xp = namespace(scores[0])
    total, n_scored = xp.zeros_like(scores[0]), 0
    for score, missing in zip(scores, undefined, strict=True):
        total += xp.where(missing, xp.zeros_like(score), score)
        n_scored = n_scored + xp.astype(~missing, xp.float64)
    return xp.where(n_scored > 0, total / xp.clip(n_scored, 1, None), xp.nan)


def _shrunken(
    z: Array, modes: Modes | _Fold, alphas: Array, *, scaled: bool = False
) -> Array:
    """Shrunken modes z / (lam + a), or these times 1 + a.

    ``alphas`` has one value, or one a target.
    """
    xp = namespace(z)
    if isinstance(alphas, np.ndarray):
        alphas = as_like(alphas, z)
    alphas = xp.astype(alphas / modes.unit, z.dtype)[None, :]
    divisor = as_like(modes.eigenvalues, z, dtype=z.dtype)[:, None] + alphas
    if scaled:
        divisor /= 1 + alphas
    if is_numpy(z) and divisor.shape == z.shape:
        return np.divide(z, divisor, out=divisor)
    return z / divisor
