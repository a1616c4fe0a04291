r"""Ridge scores of held-out blocks from one decomposition of all rows.

With H(a) = 11'/n + U diag(lam / (lam + a)) U' the matrix that takes targets to their
fit on all rows, the error of a model that never saw the rows of block k is

    e_k = (I - H_kk)^-1 (y_k - yhat_k),

for every block at once from the residuals of one fit. It costs a product with all rows
for each penalty, and no decomposition a fold: it is the cheapest form where folds are
many, leave-one-out above all. It holds if a fold trains on every row that it does not
hold out, with features that are centred (not scaled) within folds. Predictions are
targets less their errors, so a correlation would lose its digits for large penalties:
it is left to `neuromm.kernels.ridge_folds`.

References
----------
Allen (1974) The relationship between variable selection and data augmentation and a
method for prediction. Technometrics 16:125-127 (one row).
Liland, Skogholt & Indahl (2024) A new formula for faster computation of the K-fold
cross-validation and good regularisation parameter values in ridge regression.
IEEE Access 12:17349-17368 (blocks).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import qr

from neuromm.kernels.arrays import (
    ROWS_PER_SUM,
    Array,
    as_like,
    is_numpy,
    itemsize,
    namespace,
)
from neuromm.kernels.column_statistics import column_mean
from neuromm.kernels.ridge_features import FeatureRows
from neuromm.kernels.ridge_modes import Form, Scoring
from neuromm.kernels.row_parts import (
    Counts,
    RowParts,
    Split,
    TargetRows,
    row_parts,
    target_rows,
)

__all__ = ["HoldOutBatch", "HoldOutRidge", "holds_out_the_rest"]

# Rounding that errors of held-out rows may gain over the residuals they come from.
_TOLERANCE = {4: 1e-3, 8: 1e-9}


# Residuals of penalties whose curves others span to this are mixed from theirs.
_CURVE_TOLERANCE = {4: 5e-6, 8: 1e-15}

# Penalties that are mixed in one pass over the curves.
_MIXED_AT_ONCE = 5


@dataclass
class HoldOutBatch:
    """A batch of targets in the modes of all rows.

    Attributes
    ----------
    rows : array of shape (n_samples, n_targets)
        Less their mean over all rows.
    z : array of shape (rank, n_targets)
    outside : array of shape (n_samples, n_targets) or None
        What no mode reaches.
    scores : array of shape (n_alphas, n_targets), float64
    """

    targets: TargetRows
    mean: Array
    rows: Array
    z: Array
    outside: Array | None
    scores: Array | None = None


@dataclass(frozen=True)
class _Block:
    """Folds of equal size.

    Attributes
    ----------
    counts : tuple of integer arrays of shape (n_parts,)
        Held-out parts of each fold.
    rows : integer array of shape (n_folds, n_test)
    inverse : array of shape (n_alphas, n_folds, n_test, n_test)
        (I - H_kk)^-1.
    """

    counts: tuple[Counts, ...]
    rows: NDArray[np.intp]
    inverse: Array

    def of(self, x: Array) -> Array:
        """Rows of each fold, of shape (n_folds, n_test, n_columns)."""
        xp = namespace(x)
        flat = self.rows.ravel()
        first, last = int(flat[0]), int(flat[-1]) + 1
        if np.array_equal(flat, np.arange(first, last)):
            held = x[first:last]
        else:
            held = xp.take(x, as_like(flat, x), axis=0)
        return xp.reshape(held, (*self.rows.shape, x.shape[1]))


def _pivot_penalties(
    alphas: NDArray[np.float64], eigenvalues: NDArray[np.float64], tolerance: float
) -> tuple[list[int], NDArray[np.float64] | None]:
    """Penalties of which the residuals of all others are mixtures, and the mixtures.

    The shares a / (lam + a) are smooth in a: about two curves a decade of penalties
    span all others to the rounding of float32.

    Returns
    -------
    pivots : list of int
        Positions in ``alphas``.
    mix : array of shape (n_alphas, n_pivots) or None
        None where mixing saves less than a fifth of the products.
    """
    everyone = list(range(len(alphas)))
    if not len(eigenvalues) or len(alphas) < 5 or not (alphas > 0).all():
        return everyone, None
    shares = alphas[:, None] / (eigenvalues + alphas[:, None])
    shares /= np.linalg.norm(shares, axis=1, keepdims=True)
    _, r, order = qr(shares.T, mode="economic", pivoting=True)
    size = np.abs(np.diag(r))
    n_pivots = int((size > tolerance * size[0]).sum())
    if n_pivots > 0.8 * len(alphas):
        return everyone, None
    pivots = sorted(int(one) for one in order[:n_pivots])
    raw = alphas[:, None] / (eigenvalues + alphas[:, None])
    scale = np.linalg.norm(raw, axis=1)
    mix = np.linalg.lstsq(shares[pivots].T, shares.T, rcond=None)[0].T
    mix = scale[:, None] * mix / scale[pivots]
    mix[pivots] = np.eye(len(pivots))
    return pivots, mix


def holds_out_the_rest(parts: RowParts) -> bool:
    """Tell whether every fold trains on all rows that it does not hold out, once."""
    return bool((parts.train + parts.test == 1).all())


class HoldOutRidge:
    """Ridge of many targets from one decomposition of all rows.

    Parameters
    ----------
    x : array of shape (n_samples, n_features)
    splits : sequence of (train, test)
        Each the complement of the other (`holds_out_the_rest`).
    alphas : array of shape (n_alphas,)
    form : {"primal", "dual"}
    scoring : {"r2", "mse"}
    fit_intercept : bool
    n_targets : int

    Attributes
    ----------
    is_accurate : bool
        False if a held-out block is so nearly determined by the rest (a penalty far
        below the eigenvalues) that errors would lose their digits in this precision. It
        has no scores then.
    """

    def __init__(
        self,
        x: Array,
        splits: Sequence[Split],
        alphas: NDArray[np.float64],
        *,
        form: Form,
        scoring: Scoring,
        fit_intercept: bool,
        n_targets: int,
    ) -> None:
        self.alphas = alphas
        self.scoring = scoring
        self.parts = row_parts(splits, x.shape[0])
        self._fit_intercept = fit_intercept
        features = FeatureRows(x, self.parts, form, fit_intercept, by_cross=False)
        everything = self.parts.everything
        modes = features.modes(everything)
        self._modes = replace(modes, train=None)  # rows are projected on the basis
        self._x_mean = features.mean(everything)
        self._to_features = features.to_features(modes, n_targets)
        self._form = form
        basis = _made_orthonormal(features.orthonormal(modes), fit_intercept)
        xp = namespace(x)
        self._basis = xp.astype(basis, x.dtype)
        free = x.shape[0] - fit_intercept
        self._is_full = len(modes.eigenvalues) == free
        folds = self._folds()
        self.is_accurate = self._condition(basis, folds) <= (
            _TOLERANCE[itemsize(x)] / float(xp.finfo(x.dtype).eps)
        )
        self._pivots, mix = _pivot_penalties(
            alphas / modes.unit, modes.eigenvalues, _CURVE_TOLERANCE[itemsize(x)]
        )
        self._mix = None if mix is None else as_like(mix, self._basis, dtype=x.dtype)
        # A matrix that is singular has no inverse to be inaccurate.
        self._blocks = self._inverses(basis, folds) if self.is_accurate else []

    def load(self, y: Array) -> HoldOutBatch:
        """Project a batch of targets of shape (n_samples, n_targets)."""
        targets = target_rows(y, self.parts)
        everything = self.parts.everything
        mean = targets.mean(everything)
        mean = mean if self._fit_intercept else 0 * mean
        rows = targets.rows_about(everything, mean)
        z = self._basis.T @ rows
        outside = None if self._is_full else rows - self._basis @ z
        return HoldOutBatch(targets, mean, rows, z, outside)

    def path(self, batch: HoldOutBatch) -> Array:
        """Score of every penalty, averaged over folds, as `EigenRidge.path`."""
        xp = namespace(batch.rows)
        units = self._units(batch)
        scores = []
        for row, residual in enumerate(self._residuals(batch)):
            if batch.outside is not None:
                residual += batch.outside
            scores.append(self._score(row, residual, units))
        batch.scores = xp.stack(scores)
        return batch.scores

    def _residuals(self, batch: HoldOutBatch) -> Iterator[Array]:
        """Residual of the fit of all rows within the modes, for every penalty."""
        z, pivots = batch.z, self._pivots
        if self._mix is None:
            for row in range(len(self.alphas)):
                yield self._basis @ (self._left(row, z) * z)
            return
        xp = namespace(z)
        shares = xp.stack([self._left(row, z)[:, 0] for row in pivots], axis=1)
        stacked = xp.reshape(shares[:, :, None] * z[:, None, :], (z.shape[0], -1))
        curves = xp.reshape(
            self._basis @ stacked, (self._basis.shape[0], len(pivots), z.shape[1])
        )
        for start in range(0, len(self.alphas), _MIXED_AT_ONCE):
            mixed = self._mix[start : start + _MIXED_AT_ONCE] @ curves
            for row in range(mixed.shape[1]):
                yield mixed[:, row, :]

    def at(self, batch: HoldOutBatch, choice: Array) -> Array:
        """Score of one penalty a target; the path has it from predictions already."""
        xp = namespace(batch.scores)
        return xp.take_along_axis(batch.scores, choice[None, :], axis=0)[0]

    def penalties(self, batch: HoldOutBatch, choice: Array) -> Array:
        """Penalty of each target, (n_targets,), float64."""
        return namespace(choice).take(as_like(self.alphas, batch.rows), choice)

    def weights(self, batch: HoldOutBatch, choice: Array) -> tuple[Array, Array]:
        """Weights and intercepts of a fit of all rows, as `EigenRidge.weights`."""
        xp = namespace(batch.rows)
        modes = self._modes
        values = modes.eigenvalues[:, None]
        table = 1 / (values + self.alphas / modes.unit)
        if self._form == "primal":
            table = table * np.sqrt(values)
        table = as_like(table, batch.z, dtype=batch.z.dtype)
        weights = xp.take(table, choice, axis=1) * batch.z
        for factor in reversed(self._to_features):
            weights = factor @ weights
        return weights, batch.mean - self._x_mean @ xp.astype(weights, xp.float64)

    def _left(self, row: int, like: Array) -> Array:
        """Share a / (lam + a) of each mode that a fit leaves in the residual."""
        alpha = self.alphas[row] / self._modes.unit
        share = alpha / (self._modes.eigenvalues + alpha)
        return as_like(share[:, None], like, dtype=like.dtype)

    def _score(
        self, row: int, residual: Array, units: "list[tuple[Array, Array]]"
    ) -> Array:
        """Score of one penalty: its errors, fold by fold."""
        xp = namespace(residual)
        total = n_scored = 0
        for block, (unit, missing) in zip(self._blocks, units, strict=True):
            held = block.of(residual)
            inverse = block.inverse[row]
            error = inverse * held if held.shape[1] == 1 else inverse @ held
            score = -_sum_squares(error) / unit
            if self.scoring == "r2":
                score += 1
            total = total + xp.sum(xp.where(missing, 0 * score, score), axis=0)
            n_scored = n_scored + xp.sum(xp.astype(~missing, xp.float64), axis=0)
        return xp.where(n_scored > 0, total / xp.clip(n_scored, 1, None), xp.nan)

    def _units(self, batch: HoldOutBatch) -> list[tuple[Array, Array]]:
        """What squared errors are divided by, and whether a target has no score.

        Returns
        -------
        units : list of (array of shape (n_folds or 1, n_targets), boolean array)
            One a size of folds.
        """
        xp = namespace(batch.rows)
        targets = batch.targets
        units = []
        for block in self._blocks:
            n_test = block.rows.shape[1]
            if self.scoring == "mse":
                none = xp.zeros_like(targets.valid)[None, :]
                none = xp.broadcast_to(none, (len(block.rows), none.shape[1]))
                units.append((xp.ones_like(batch.targets.means[:1]) * n_test, none))
                continue
            power = xp.stack(
                [
                    targets.squares_about(counts, targets.mean(counts))
                    for counts in block.counts
                ]
            )
            missing = [targets.is_constant(counts) for counts in block.counts]
            power = xp.where(power > 0, power, xp.ones_like(power))
            units.append((power, xp.stack(missing)))
        return units

    def _folds(self) -> list[tuple[tuple[Counts, ...], NDArray[np.intp]]]:
        """Held-out parts of folds of equal size, and rows (n_folds, n_test)."""
        by_size: dict[int, list[Counts]] = {}
        for counts in self.parts.test:
            by_size.setdefault(self.parts.n_rows(counts), []).append(counts)
        return [
            (tuple(group), np.stack([self.parts.index(counts) for counts in group]))
            for group in by_size.values()
        ]

    def _inverses(
        self,
        basis: Array,
        folds: list[tuple[tuple[Counts, ...], NDArray[np.intp]]],
    ) -> list[_Block]:
        xp = namespace(basis)
        blocks = []
        for group, rows in folds:
            inverses = [
                xp.astype(
                    xp.linalg.inv(self._left_matrix(basis, rows, row)),
                    self._basis.dtype,
                )
                for row in range(len(self.alphas))
            ]
            blocks.append(_Block(group, rows, xp.stack(inverses)))
        return blocks

    def _left_matrix(self, basis: Array, rows: NDArray[np.intp], row: int) -> Array:
        """I - H_kk of each fold, of shape (n_folds, n_test, n_test), float64."""
        xp = namespace(basis)
        part = xp.take(basis, as_like(rows.ravel(), basis), axis=0)
        part = xp.reshape(part, (*rows.shape, basis.shape[1]))
        share = self._left(row, basis)[:, 0]
        left = (part * share) @ xp.matrix_transpose(part)
        if not self._is_full:
            left = left - part @ xp.matrix_transpose(part)
            left = left + as_like(np.eye(rows.shape[1]), basis)
            if self._fit_intercept:
                left = left - 1 / basis.shape[0]
        return left

    def _condition(
        self,
        basis: Array,
        folds: list[tuple[tuple[Counts, ...], NDArray[np.intp]]],
    ) -> float:
        """Factor by which rounding may grow on the way to held-out errors.

        At the smallest penalty, with b the smallest eigenvalue of B = I - H_kk and s
        the largest share that a fit leaves of a mode: the condition number of B for its
        inverse; sqrt(s / b) for residuals, whose modes are rounded in proportion to
        their share; 1 / b where residuals contain what no mode reaches.
        """
        xp = namespace(basis)
        smallest_alpha = int(self.alphas.argmin())
        share = float(xp.max(self._left(smallest_alpha, basis))) if self._is_full else 0
        worst = 1.0
        for _, rows in folds:
            values = xp.linalg.eigvalsh(self._left_matrix(basis, rows, smallest_alpha))
            largest, smallest = values[:, -1], values[:, 0]
            if not bool(xp.all(smallest > 0)):
                return float("inf")
            inverse = xp.max(largest / smallest)
            least = float(xp.min(smallest))
            residual = (share / least) ** 0.5 if self._is_full else 1 / least
            worst = max(worst, float(inverse), residual)
        return worst


def _made_orthonormal(basis: Array, fit_intercept: bool) -> Array:
    """Basis whose columns are orthonormal, and orthogonal to a constant, to rounding.

    Those of small eigenvalues hold some of the others, and of the null mode of
    centring: their rounding over the square root of the eigenvalue.
    """
    xp = namespace(basis)
    q, r = xp.linalg.qr(basis - column_mean(basis) if fit_intercept else basis)
    diagonal = xp.linalg.diagonal(r)
    q *= xp.where(diagonal < 0, -xp.ones_like(diagonal), xp.ones_like(diagonal))
    return q


def _sum_squares(x: Array) -> Array:
    """Sum over rows of squares, (n_folds, n_targets), float64."""
    return sum(
        _squares(x[:, start : start + ROWS_PER_SUM])
        for start in range(0, x.shape[1], ROWS_PER_SUM)
    )


def _squares(x: Array) -> Array:
    if is_numpy(x):
        return np.einsum("kmt,kmt->kt", x, x).astype(np.float64)
    xp = namespace(x)
    return xp.sum(x * x, axis=1, dtype=xp.float64)
