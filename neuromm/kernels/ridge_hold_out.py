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

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from neuromm.kernels.arrays import (
    Array,
    as_like,
    is_on_gpu,
    itemsize,
    namespace,
)
from neuromm.kernels.column_statistics import column_mean
from neuromm.kernels.held_out_blocks import (
    HELD_ROWS,
    HeldOutBlock,
    rows_of_folds,
    squares_of,
)
from neuromm.kernels.penalty_curves import (
    every_eigenvalue,
    mixed_squares,
    spanning_penalties,
)
from neuromm.kernels.ridge_features import FeatureRows, at_mean, to_weights
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

# Penalties whose curves others span to this are mixed from theirs.
_CURVE_TOLERANCE = {4: 5e-6, 8: 1e-15}

# Curves of so many bytes, with the errors made of them, are formed at once: they stay
# in the cache. On a GPU more.
CURVE_BYTES, NARROWEST_SLICE = 32 * 10**6, 16
_CURVE_BYTES_ON_GPU = 512 * 10**6

# An overlap with the constant below this leaves modes orthonormal to its square.
_ORTHONORMAL = 1e-8


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


def curve_numbers(
    n_samples: float,
    rank: float,
    n_test: float,
    n_curves: int,
    n_scored: int,
    n_alphas: int,
) -> float:
    """Numbers that are held for a target while held-out errors are formed.

    Parameters
    ----------
    n_samples, rank : float
        Of the basis.
    n_test : float
        Rows of the largest fold.
    n_curves, n_scored, n_alphas : int
        Penalties that residuals and errors are computed for, and all.
    """
    held = min(max(HELD_ROWS, n_test), n_samples)
    of_rows = n_curves + 3 * n_scored + n_alphas
    return n_curves * (n_samples + rank) + held * of_rows


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
        basis = _made_orthonormal(features.orthonormal(modes), form, fit_intercept)
        xp = namespace(x)
        self._basis = xp.astype(basis, x.dtype)
        free = x.shape[0] - fit_intercept
        self._is_full = len(modes.eigenvalues) == free
        folds = self._folds()
        self.is_accurate = self._condition(basis, folds) <= (
            _TOLERANCE[itemsize(x)] / float(xp.finfo(x.dtype).eps)
        )
        # Errors are formed for some penalties, from residuals of fewer.
        grid, tolerance = alphas / modes.unit, _CURVE_TOLERANCE[itemsize(x)]
        errors = spanning_penalties(grid, every_eigenvalue(grid, 1.0), tolerance)
        self._scored = errors.pivots
        curves = spanning_penalties(grid[errors.pivots], modes.eigenvalues, tolerance)
        self._curves = errors.pivots[curves.pivots]
        self._error_mix = _as_table(errors.mix, self._basis)
        self._curve_mix = _as_table(curves.mix, self._basis)
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
        n_targets = batch.z.shape[1]
        width = self._slice_width(batch.z)
        columns = [slice(i, i + width) for i in range(0, n_targets, width)]
        batch.scores = xp.concat(
            [self._path(batch, units, one) for one in columns], axis=1
        )
        return batch.scores

    def _slice_width(self, like: Array) -> int:
        """How many targets have their curves formed at once."""
        largest = max(block.rows.shape[1] for block in self._blocks)
        n_samples, rank = self._basis.shape
        n_curves = len(self._curves), len(self._scored), len(self.alphas)
        one = curve_numbers(n_samples, rank, largest, *n_curves)
        room = _CURVE_BYTES_ON_GPU if is_on_gpu(like) else CURVE_BYTES
        return max(int(room // (itemsize(like) * one)), NARROWEST_SLICE)

    def _path(
        self, batch: HoldOutBatch, units: "list[tuple[Array, Array]]", columns: slice
    ) -> Array:
        """Score of every penalty for some targets, (n_alphas, width), float64."""
        xp = namespace(batch.z)
        curves = self._residual_curves(batch.z[:, columns])
        outside = None if batch.outside is None else batch.outside[:, columns]
        total = n_scored = 0
        for block, (unit, missing) in zip(self._blocks, units, strict=True):
            for folds in block.pieces():
                squares = self._squared_errors(block, folds, curves, outside)
                score = -squares / unit[folds, columns]
                if self.scoring == "r2":
                    score += 1
                gone = missing[folds, columns]
                score = xp.where(gone, xp.zeros_like(score), score)
                total = total + xp.sum(score, axis=1)
                n_scored = n_scored + xp.sum(xp.astype(~gone, xp.float64), axis=0)
        return xp.where(n_scored > 0, total / xp.clip(n_scored, 1, None), xp.nan)

    def _residual_curves(self, z: Array) -> Array:
        """Residuals of the fit of all rows within the modes.

        Returns
        -------
        curves : array of shape (n_samples, n_curves, n_targets)
        """
        xp = namespace(z)
        shares = xp.stack([self._left(row, z)[:, 0] for row in self._curves], axis=1)
        stacked = shares[:, :, None] * z[:, None, :]
        rank, n_curves, width = stacked.shape
        curves = self._basis @ xp.reshape(stacked, (rank, n_curves * width))
        return xp.reshape(curves, (curves.shape[0], n_curves, width))

    def _squared_errors(
        self, block: HeldOutBlock, folds: slice, curves: Array, outside: Array | None
    ) -> Array:
        """Sum of squared errors of held-out rows, (n_alphas, n_folds, n_targets)."""
        xp = namespace(curves)
        n_folds, n_test = block.rows[folds].shape
        width = curves.shape[2]
        held = xp.permute_dims(block.of(curves, folds), (1, 0, 2))
        if self._curve_mix is not None:
            held = self._curve_mix @ xp.reshape(held, (held.shape[0], -1))
        held = xp.reshape(held, (len(self._scored), n_folds, n_test, width))
        if outside is not None:
            rows = block.of(outside, folds)
            held = held + xp.reshape(rows, (n_folds, n_test, width))
        inverse = block.inverse[:, folds]
        errors = inverse * held if n_test == 1 else inverse @ held
        return mixed_squares(errors, self._error_mix)

    def at(self, batch: HoldOutBatch, choice: Array) -> Array:
        """Score of one penalty a target; the path has it from predictions already."""
        xp = namespace(batch.scores)
        return xp.take_along_axis(batch.scores, choice[None, :], axis=0)[0]

    def penalties(self, batch: HoldOutBatch, choice: Array) -> Array:
        """Penalty of each target, (n_targets,), float64."""
        return namespace(choice).take(as_like(self.alphas, batch.rows), choice)

    def weights(
        self, batch: HoldOutBatch, choice: Array, out: Array | None = None
    ) -> tuple[Array, Array]:
        """Weights and intercepts of a fit of all rows, as `EigenRidge.weights`."""
        xp = namespace(batch.rows)
        modes = self._modes
        values = modes.eigenvalues[:, None]
        table = 1 / (values + self.alphas / modes.unit)
        if self._form == "primal":
            table = table * np.sqrt(values)
        table = as_like(table, batch.z, dtype=batch.z.dtype)
        weights = xp.take(table, choice, axis=1) * batch.z
        weights = to_weights(self._to_features, weights, out)
        return weights, batch.mean - at_mean(self._x_mean, weights)

    def _left(self, row: int, like: Array) -> Array:
        """Share a / (lam + a) of each mode that a fit leaves in the residual."""
        alpha = self.alphas[row] / self._modes.unit
        share = alpha / (self._modes.eigenvalues + alpha)
        return as_like(share[:, None], like, dtype=like.dtype)

    def _units(self, batch: HoldOutBatch) -> list[tuple[Array, Array]]:
        """What squared errors are divided by, and whether a target has no score.

        Returns
        -------
        units : list of (array of shape (n_folds, n_targets), boolean array)
            One a size of folds.
        """
        xp = namespace(batch.rows)
        targets = batch.targets
        units = []
        for block in self._blocks:
            n_test = block.rows.shape[1]
            if self.scoring == "mse":
                shape = (len(block.rows), targets.valid.shape[0])
                none = xp.broadcast_to(xp.zeros_like(targets.valid)[None, :], shape)
                size = n_test * xp.ones_like(targets.means[:1])
                units.append((xp.broadcast_to(size, shape), none))
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
    ) -> list[HeldOutBlock]:
        xp = namespace(basis)
        blocks = []
        for group, rows in folds:
            part = rows_of_folds(basis, rows)
            inverses = [
                xp.astype(
                    xp.linalg.inv(self._left_matrix(part, row)), self._basis.dtype
                )
                for row in self._scored
            ]
            blocks.append(HeldOutBlock(group, rows, xp.stack(inverses)))
        return blocks

    def _left_matrix(self, part: Array, row: int) -> Array:
        """I - H_kk of each fold, of shape (n_folds, n_test, n_test), float64.

        Parameters
        ----------
        part : array of shape (n_folds, n_test, rank)
            Held-out rows of the basis.
        row : int
            Position of the penalty.
        """
        share = self._left(row, part)[:, 0]
        if self._is_full:
            return squares_of(part * namespace(part).sqrt(share))
        left = as_like(np.eye(part.shape[1]), part) - squares_of(
            part * namespace(part).sqrt(1 - share)
        )
        if self._fit_intercept:
            left = left - 1 / self._basis.shape[0]
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
            part = rows_of_folds(basis, rows)
            values = xp.linalg.eigvalsh(self._left_matrix(part, smallest_alpha))
            largest, smallest = values[:, -1], values[:, 0]
            if not bool(xp.all(smallest > 0)):
                return float("inf")
            inverse = xp.max(largest / smallest)
            least = float(xp.min(smallest))
            residual = (share / least) ** 0.5 if self._is_full else 1 / least
            worst = max(worst, float(inverse), residual)
        return worst


def _as_table(mix: NDArray[np.float64] | None, like: Array) -> Array | None:
    return None if mix is None else as_like(mix, like, dtype=like.dtype)


def _made_orthonormal(basis: Array, form: Form, fit_intercept: bool) -> Array:
    """Basis whose columns are orthonormal, and orthogonal to a constant, to rounding.

    In the primal form those of small eigenvalues hold some of the others: their
    rounding over the square root of the eigenvalue. In both they may hold some of the
    null mode of centring.
    """
    xp = namespace(basis)
    if fit_intercept:
        mean = column_mean(basis)
        overlap = float(xp.sum(mean**2) * basis.shape[0]) ** 0.5
        basis = basis - mean
        if form == "dual" and overlap < _ORTHONORMAL:
            return basis
    elif form == "dual":
        return basis
    q, r = xp.linalg.qr(basis)
    diagonal = xp.linalg.diagonal(r)
    q *= xp.where(diagonal < 0, -xp.ones_like(diagonal), xp.ones_like(diagonal))
    return q
