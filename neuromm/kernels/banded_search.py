"""Search for the weights of feature spaces, and the penalty, of each target.

Every candidate is scored for all penalties at once on every fold
(`neuromm.kernels.ridge_path`). Where the best of them promises more than the best so
far, the score is taken again from predictions, and that one decides and is reported.
Weights are formed once, after the search, one decomposition of all samples for each
candidate that some target has chosen.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from neuromm.kernels.arrays import (
    Array,
    as_like,
    empty,
    host_array,
    is_on_gpu,
    itemsize,
    namespace,
)
from neuromm.kernels.banded_features import (
    BandedFeatures,
    BandedModes,
    HeldOutModes,
    Rows,
    Sides,
)
from neuromm.kernels.column_statistics import column_dot
from neuromm.kernels.ridge_folds import fold_mean
from neuromm.kernels.ridge_modes import Scoring
from neuromm.kernels.ridge_path import PathTables, divided_differences, path_sums
from neuromm.kernels.ridge_selection import select_alphas
from neuromm.kernels.row_parts import target_rows

__all__ = ["BandedBatch", "BandedMethod", "BandedSearch", "Choice"]

BandedMethod = Literal["divided-difference", "direct"]

# Gains up to this, in units of R2 or of the variance, are rounding: the first candidate
# that reaches a score keeps the target.
_ROUNDING = {4: 1e-6, 8: 1e-10}

# A float32 path of scores that is further than this from the score of the chosen
# penalty's own predictions gives way to predictions for every penalty.
_DISAGREEMENT = 1e-4

# Chosen targets are handled in blocks of one width, the last one filled up: products of
# one shape give a target the same bits whichever others are chosen.
_WIDTH, _WIDTH_ON_GPU = 256, 8192


@dataclass(frozen=True)
class BandedBatch:
    """A batch of targets in all folds.

    Attributes
    ----------
    sides : Sides
    power, deviation : list of array of shape (n_targets,), float64
        One a fold: sum of squares of held-out targets about what is subtracted from
        them, and about their own mean.
    undefined : list of boolean array of shape (n_targets,)
        Has no score in this fold.
    valid : boolean array of shape (n_targets,)
        Finite, and not constant over all rows.
    mean, variance : arrays of shape (n_targets,), float64
        Over all samples; mean is 0 without intercept.
    constants : array of shape (n_targets,)
        Value of a constant target; nan for any other.
    """

    sides: Sides
    power: list[Array]
    deviation: list[Array]
    undefined: list[Array]
    valid: Array
    mean: Array
    variance: Array
    constants: Array

    @property
    def n_targets(self) -> int:
        """Number of targets."""
        return int(self.valid.shape[0])


@dataclass
class Choice:
    """Best candidate of each target so far, on the host.

    Attributes
    ----------
    scores : array of shape (n_targets,)
        -inf before any candidate had a score.
    gammas, alphas : integer arrays of shape (n_targets,)
        Position of the candidate, and of the penalty.
    progress : array of shape (n_candidates,)
        Sum over targets with a score of the best one after each candidate.
    """

    scores: NDArray[np.float64]
    gammas: NDArray[np.intp]
    alphas: NDArray[np.intp]
    progress: NDArray[np.float64]


@dataclass(frozen=True)
class _FoldFit:
    """A candidate on one fold.

    Attributes
    ----------
    unit, eigenvalues : as in `BandedModes`
    held_out : array of shape (n_rows, rank)
        `HeldOutModes.weights`, which take ``held_rows`` of held-out targets to modes.
    held_rows : slice or integer array
    square : array of shape (rank, rank) or None
        M, where held-out targets enter by cross-products.
    z : array of shape (rank, n_targets)
        Training side of the batch in modes.
    """

    unit: float
    eigenvalues: NDArray[np.float64]
    held_out: Array
    held_rows: Rows
    square: Array | None
    z: Array


class BandedSearch:
    """Search of one grid of candidates and penalties.

    Parameters
    ----------
    features : BandedFeatures
    gammas : array of shape (n_candidates, n_spaces)
        0 or above, and above 0 in one space at least.
    alphas : array of shape (n_alphas,)
    method : {"divided-difference", "direct"}
        How scores of all penalties are formed: from one product, or from one
        prediction a penalty.
    scoring : {"r2", "correlation", "mse"}
    """

    def __init__(
        self,
        features: BandedFeatures,
        gammas: NDArray[np.float64],
        alphas: NDArray[np.float64],
        *,
        method: BandedMethod,
        scoring: Scoring,
    ) -> None:
        self.features = features
        self.gammas = gammas
        self.alphas = alphas
        self._method = method
        self._scoring = scoring
        parts = features.parts
        self._n_test = [parts.n_rows(counts) for counts in parts.test]

    def load(self, y: Array) -> BandedBatch:
        """Centre a batch of targets of shape (n_samples, n_targets)."""
        features, parts = self.features, self.features.parts
        targets = target_rows(y, parts)
        power, deviation, undefined = [], [], []
        for fold, counts in enumerate(parts.test):
            centre = features.held_out_mean(targets, fold)
            power.append(targets.squares_about(counts, centre))
            own = targets.mean(counts)
            deviation.append(targets.squares_about(counts, own))
            constant = targets.is_constant(counts)
            undefined.append(constant & (self._scoring != "mse"))
        everything = parts.everything
        squares = targets.squares_about(everything, targets.mean(everything))
        return BandedBatch(
            sides=features.sides(targets),
            power=power,
            deviation=deviation,
            undefined=undefined,
            valid=targets.valid,
            mean=features.target_mean(targets, everything),
            variance=squares / parts.n_rows(everything),
            constants=targets.constants(),
        )

    def search(self, batch: BandedBatch) -> Choice:
        """Try every candidate on a batch of targets."""
        n_targets = batch.n_targets
        choice = Choice(
            scores=np.full(n_targets, -np.inf),
            gammas=np.zeros(n_targets, dtype=np.intp),
            # Without any score: the largest, as `select_alphas` has it.
            alphas=np.full(n_targets, self.alphas.argmax()),
            progress=np.zeros(len(self.gammas)),
        )
        valid = host_array(batch.valid)
        for position, gamma in enumerate(self.gammas):
            self._try(position, gamma, batch, choice, valid)
            reached = valid & np.isfinite(choice.scores)
            choice.progress[position] = choice.scores[reached].sum()
        return choice

    def weights(self, batch: BandedBatch, choice: Choice) -> tuple[Array, Array]:
        """Weights and intercepts of a fit of all rows with each target's choice.

        Returns
        -------
        weights : array of shape (n_features, n_targets)
            Of the features as they were given, not scaled.
        intercepts : array of shape (n_targets,), float64
        """
        features, side = self.features, batch.sides.everything
        xp = namespace(side)
        combined = empty((side.shape[0], batch.n_targets), side)
        combined[:] = 0
        valid = host_array(batch.valid)
        for position in np.unique(choice.gammas[valid]):
            modes = features.all_modes(self.gammas[position])
            chosen = np.flatnonzero(valid & (choice.gammas == position))
            for targets, padded in _padded(chosen, side):
                columns = xp.take(side, as_like(padded, side), axis=1)
                z = modes.train.T @ _rows(columns, modes.rows)
                alphas = as_like(self.alphas[choice.alphas[padded]], z)
                part = features.combined(modes, _shrunken(z, modes, alphas))
                combined[:, as_like(targets, side)] = part[:, : len(targets)]
        gammas = as_like(self.gammas[choice.gammas].T, side, dtype=side.dtype)
        weights = features.weights(combined, gammas)
        exact = xp.astype(weights, xp.float64, copy=False)
        return weights, batch.mean - features.mean @ exact

    def _try(
        self,
        position: int,
        gamma: NDArray[np.float64],
        batch: BandedBatch,
        choice: Choice,
        valid: NDArray[np.bool_],
    ) -> None:
        """Score a candidate and take it for the targets that gain by it."""
        fits, path = self._path(gamma, batch)
        unit = batch.variance if self._scoring == "mse" else 1.0
        best = select_alphas(path, self.alphas, tie_scale=unit)
        xp = namespace(path)
        promised = host_array(xp.take_along_axis(path, best[None, :], axis=0)[0])
        alphas = np.array(host_array(best), dtype=np.intp)
        units = host_array(unit * xp.ones_like(path[0]))
        step = _ROUNDING[itemsize(batch.sides.everything)] * units
        with np.errstate(invalid="ignore"):
            hopeful = np.flatnonzero(valid & (promised > choice.scores + step))
        if not len(hopeful):
            return
        scores = self._at(fits, batch, hopeful, self.alphas[alphas[hopeful]])
        error = np.abs(scores - promised[hopeful]) / units[hopeful]
        doubted = error > _DISAGREEMENT
        if self._method == "divided-difference" and doubted.any():
            again = hopeful[doubted]
            exact = self._direct_path(fits, batch, again)
            chosen = select_alphas(exact, self.alphas, tie_scale=units[again])
            alphas[again] = chosen
            scores[doubted] = np.take_along_axis(exact, chosen[None, :], axis=0)[0]
        gain = scores > choice.scores[hopeful] + step[hopeful]
        gained = hopeful[gain]
        choice.scores[gained] = scores[gain]
        choice.gammas[gained] = position
        choice.alphas[gained] = alphas[gained]

    def _path(
        self, gamma: NDArray[np.float64], batch: BandedBatch
    ) -> tuple[list[_FoldFit], Array]:
        """Candidate on all folds, and mean scores of shape (n_alphas, n_targets)."""
        fits, scores = [], []
        for fold in range(len(batch.power)):
            modes, held_out = self.features.modes(gamma, fold)
            fit = _fold_fit(modes, held_out, batch.sides.train[fold])
            fits.append(fit)
            if self._method == "divided-difference":
                y = _rows(batch.sides.held_out[fold], fit.held_rows)
                penalties = self.alphas / modes.unit
                sums = path_sums(
                    PathTables.of(modes.eigenvalues, penalties, fit.z),
                    divided_differences(modes.eigenvalues, held_out.square, fit.z),
                    fit.z,
                    fit.held_out.T @ y,
                )
                of_batch = batch.power[fold], batch.deviation[fold]
                scores.append(self._scores(fold, *of_batch, *sums))
                continue
            rows = [
                self._score_at(fit, batch, fold, None, np.array([alpha]))
                for alpha in self.alphas
            ]
            scores.append(namespace(fit.z).stack(rows))
        return fits, fold_mean(scores, batch.undefined)

    def _at(
        self,
        fits: list[_FoldFit],
        batch: BandedBatch,
        targets: NDArray[np.intp],
        alphas: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Mean scores of some targets from their predictions, one penalty each."""
        place = np.empty(batch.n_targets, dtype=np.intp)
        place[targets] = np.arange(len(targets))
        found = np.empty(len(targets))
        like = batch.variance
        xp = namespace(like)
        for those, padded in _padded(targets, like):
            where = as_like(padded, like)
            penalties = as_like(alphas[place[padded]], like)
            scores = [
                self._score_at(fit, batch, fold, where, penalties)
                for fold, fit in enumerate(fits)
            ]
            undefined = [xp.take(one, where) for one in batch.undefined]
            mean = host_array(fold_mean(scores, undefined))
            found[place[those]] = mean[: len(those)]
        return found

    def _direct_path(
        self, fits: list[_FoldFit], batch: BandedBatch, targets: NDArray[np.intp]
    ) -> NDArray[np.float64]:
        """Mean scores of some targets from their predictions, for every penalty."""
        rows = [
            self._at(fits, batch, targets, np.full(len(targets), alpha))
            for alpha in self.alphas
        ]
        return np.stack(rows)

    def _score_at(
        self,
        fit: _FoldFit,
        batch: BandedBatch,
        fold: int,
        targets: Array | None,
        alphas: Array,
    ) -> Array:
        """Score from the prediction itself; one penalty, or one a target."""
        xp = namespace(fit.z)

        def chosen(values: Array) -> Array:
            return values if targets is None else xp.take(values, targets, axis=-1)

        z = chosen(fit.z)
        y = _rows(chosen(batch.sides.held_out[fold]), fit.held_rows)
        power, deviation = chosen(batch.power[fold]), chosen(batch.deviation[fold])
        # A correlation ignores scale: this one keeps float32 within its exponent.
        shrunken = _shrunken(z, fit, alphas, scaled=self._scoring == "correlation")
        if fit.square is not None:
            fitted = column_dot(fit.held_out.T @ y, shrunken)
            square = column_dot(shrunken, fit.square @ shrunken)
            return self._scores(fold, power, deviation, fitted, square)
        prediction = fit.held_out @ shrunken
        if self._scoring == "correlation":
            square = column_dot(prediction, prediction)
            fitted = column_dot(prediction, y)
            return self._scores(fold, power, deviation, fitted, square)
        prediction -= y
        loss = column_dot(prediction, prediction)
        return self._loss_scores(fold, deviation, loss)

    def _scores(
        self, fold: int, power: Array, deviation: Array, fitted: Array, square: Array
    ) -> Array:
        """Scores from the sums of products of predictions with targets and themselves.

        A constant prediction has correlation 0.
        """
        xp = namespace(fitted)
        if self._scoring != "correlation":
            return self._loss_scores(fold, deviation, power - 2 * fitted + square)
        positive = square > 0
        norm = xp.sqrt(xp.where(positive, square, xp.ones_like(square)) * power)
        norm = xp.where(norm > 0, norm, xp.ones_like(norm))
        r = xp.where(positive, fitted / norm, xp.zeros_like(fitted))
        return xp.clip(r, -1, 1)

    def _loss_scores(self, fold: int, deviation: Array, loss: Array) -> Array:
        xp = namespace(loss)
        if self._scoring == "mse":
            return -loss / self._n_test[fold]
        # Undefined and masked targets, whose score does not count, have a unit of 0.
        return 1 - loss / xp.where(deviation > 0, deviation, xp.ones_like(deviation))


def _fold_fit(modes: BandedModes, held_out: HeldOutModes, train: Array) -> _FoldFit:
    xp = namespace(train)
    square = xp.astype(held_out.square, train.dtype) if held_out.by_cross else None
    return _FoldFit(
        unit=modes.unit,
        eigenvalues=modes.eigenvalues,
        held_out=held_out.weights,
        held_rows=held_out.rows,
        square=square,
        z=modes.train.T @ _rows(train, modes.rows),
    )


def _shrunken(
    z: Array, modes: BandedModes | _FoldFit, alphas: Array, *, scaled: bool = False
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
    return z / divisor


def _rows(x: Array, where: Rows) -> Array:
    """Rows of a side; a view where they are side by side."""
    if isinstance(where, slice):
        return x[where]
    return namespace(x).take(x, as_like(where, x), axis=0)


def _padded(
    targets: NDArray[np.intp], like: Array
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Targets in blocks, and each block filled up to the common width."""
    width = _WIDTH_ON_GPU if is_on_gpu(like) else _WIDTH
    for start in range(0, len(targets), width):
        block = targets[start : start + width]
        fill = np.full(width - len(block), block[0])
        yield block, np.concatenate([block, fill])
