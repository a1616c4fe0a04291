"""One batch of targets after the other: choice, scores, weights; and memory that ends.

A batch is fitted whole, and in halves if memory runs out. A float32 batch whose path of
scores disagrees with its own predictions is repeated, for the targets concerned, in
float64.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromm.core import ResourceLimitError
from neuromm.encoding.ridge_engines import Engine, RidgeSettings, eigen_engine
from neuromm.kernels import EigenRidge, Solver, select_alphas
from neuromm.kernels.arrays import Array, as_like, host_array, itemsize, namespace
from neuromm.kernels.ridge_batch import EigenBatch

__all__ = ["BatchFit", "Fitted", "columns_of", "in_halves", "joined"]

logger = logging.getLogger(__name__)

# Results of a batch by name: targets on the last axis.
Fitted = dict[str, Array]

# A path of scores that is further than this from the score of the chosen penalty's own
# predictions (in units of R2) is computed again in float64.
_DISAGREEMENT = 1e-4


class BatchFit:
    """Fit of batches of targets.

    Parameters
    ----------
    settings : RidgeSettings
    engine : Engine
    solver : Solver
        Of the engine.
    """

    def __init__(self, settings: RidgeSettings, engine: Engine, solver: Solver) -> None:
        self._settings = settings
        self._engine = engine
        self._solver = solver
        self._double: EigenRidge | None = None
        self._common: int | None = None
        # Of a grid of fractions, the smaller one shrinks more.
        fractions = settings.fractions
        self._order = settings.alphas if fractions is None else 1 / fractions

    def __call__(self, part: Array, out: Array | None = None) -> Fitted:
        """Fit a batch of targets.

        Parameters
        ----------
        part : array of shape (n_samples, width)
        out : array of shape (n_features, width), optional
            Where its weights may be made.
        """

        def fit(at: slice) -> Fitted:
            some = part[:, at]
            return self._finished(some, *self._chosen(some), _columns(out, at))

        return in_halves(fit, part.shape[1])

    def chosen(self, part: Array) -> Fitted:
        """Choose the penalties of a batch, and leave its weights for `weights`."""
        return in_halves(lambda at: self._chosen(part[:, at])[1], part.shape[1])

    def forget_folds(self) -> None:
        """Give back the memory of the folds: every penalty is chosen."""
        for engine in (self._engine, self._double):
            if isinstance(engine, EigenRidge):
                engine.forget_folds()

    def weights(self, part: Array, chosen: Fitted, out: Array | None = None) -> Fitted:
        """Fit a batch whose penalties are chosen."""

        def fit(at: slice) -> Fitted:
            some, was_chosen = part[:, at], columns_of(chosen, at)
            batch = self._engine.load(some)
            return self._finished(some, batch, was_chosen, _columns(out, at))

        return in_halves(fit, part.shape[1])

    def choose_one(self, parts: Iterable[Array]) -> None:
        """Choose the penalty of the best mean over valid targets, for all."""
        total, scale, n_valid = np.zeros(len(self._order)), 0.0, 0
        for part in parts:
            batch = self._engine.load(part)
            path = host_array(self._engine.path(batch))
            used = host_array(batch.targets.valid) & ~np.isnan(path).any(axis=0)
            total += path[:, used].sum(axis=1)
            scale += float(host_array(_variance(batch))[used].sum())
            n_valid += int(used.sum())
        mean = total / max(n_valid, 1)
        unit = scale / max(n_valid, 1) if self._settings.scoring == "mse" else 1.0
        self._common = int(select_alphas(mean[:, None], self._order, tie_scale=unit)[0])

    def _choice(self, batch: Any, path: Array) -> Array:
        if self._common is not None:
            return as_like(np.full(path.shape[1], self._common), path)
        scale = _variance(batch) if self._settings.scoring == "mse" else 1.0
        return select_alphas(path, self._order, tie_scale=scale)

    def _doubted(
        self, batch: Any, path: Array, choice: Array, scores: Array
    ) -> NDArray[np.intp]:
        """Targets whose float32 path disagrees with their own predictions."""
        is_exact = itemsize(self._settings.x) == 8
        if is_exact or self._solver.method != "divided-difference":
            return np.zeros(0, dtype=np.intp)
        xp = namespace(path)
        step = xp.take_along_axis(path, choice[None, :], axis=0)[0] - scores
        if self._settings.scoring == "mse":
            unit = _variance(batch)
            step = step / xp.where(unit > 0, unit, xp.ones_like(unit))
        return np.flatnonzero(host_array(xp.abs(step) > _DISAGREEMENT))

    def _chosen(self, part: Array) -> tuple[Any, Fitted]:
        """Batch, and what is chosen for it."""
        engine = self._engine
        xp = namespace(part)
        batch = engine.load(part)
        path = engine.path(batch)
        choice = self._choice(batch, path)
        scores = engine.at(batch, choice)
        doubted = self._doubted(batch, path, choice, scores)
        if len(doubted):
            again, where = self._again(part, doubted), as_like(doubted, part)
            choice[where] = self._choice(again, self._exact().path(again))
            scores[where] = self._exact().at(again, choice[where])
        valid = batch.targets.valid
        penalties = engine.penalties(batch, choice)
        is_doubted = np.zeros(part.shape[1], dtype=bool)
        is_doubted[doubted] = True
        chosen = {
            "best_alphas": xp.where(valid, penalties, xp.nan),
            "cv_scores": xp.where(valid, scores, xp.nan),
            "valid_targets": valid,
            "choice": choice,
            "doubted": as_like(is_doubted, part),
        }
        if self._settings.fractions is not None:
            grid = as_like(self._settings.fractions, path)
            chosen["best_fracs"] = xp.where(valid, xp.take(grid, choice), xp.nan)
        return batch, chosen

    def _finished(
        self, part: Array, batch: Any, chosen: Fitted, out: Array | None
    ) -> Fitted:
        """Add weights and intercepts to what was chosen."""
        xp = namespace(part)
        weights, intercepts = self._engine.weights(batch, chosen["choice"], out)
        doubted = np.flatnonzero(host_array(chosen["doubted"]))
        if len(doubted):
            again, where = self._again(part, doubted), as_like(doubted, part)
            exact, shift = self._exact().weights(again, chosen["choice"][where])
            weights[:, where] = xp.astype(exact, weights.dtype)
            intercepts[where] = shift
        valid = chosen["valid_targets"]
        if not bool(xp.all(valid)):
            weights = xp.where(valid, weights, xp.zeros_like(weights[:1, :1]))
        intercepts = xp.where(valid, intercepts, batch.targets.constants())
        fitted = {
            name: values
            for name, values in chosen.items()
            if name not in ("choice", "doubted")
        }
        fitted["coef"] = xp.astype(weights, part.dtype, copy=False)
        fitted["intercept"] = xp.astype(intercepts, part.dtype, copy=False)
        return fitted

    def _again(self, part: Array, doubted: NDArray[np.intp]) -> EigenBatch:
        """Doubted targets of a batch in float64."""
        xp = namespace(part)
        some = xp.take(part, as_like(doubted, part), axis=1)
        return self._exact().load(xp.astype(some, xp.float64))

    def _exact(self) -> EigenRidge:
        """Engine in float64, built when it is first needed."""
        if self._double is None:
            logger.info("repeating ill-conditioned targets in float64")
            x = namespace(self._settings.x).astype(
                self._settings.x, namespace(self._settings.x).float64
            )
            self._double = eigen_engine(self._settings, x, self._solver)
        return self._double


def in_halves(fit: Callable[[slice], Fitted], width: int, start: int = 0) -> Fitted:
    """Fit a batch; in halves, if memory runs out.

    Parameters
    ----------
    fit : callable
        Given a slice of the batch.
    width : int
        Targets from ``start`` on.

    Raises
    ------
    neuromm.core.ResourceLimitError
        If it does so for a single target.
    """
    try:
        return fit(slice(start, start + width))
    except Exception as error:
        if not _is_out_of_memory(error):
            raise
        if width == 1:
            raise ResourceLimitError(
                "memory ran out in a fit of a single target. Use fewer features or "
                "folds, or a machine with more memory."
            ) from error
    half = width // 2
    logger.warning("memory ran out: going on with batches of %d targets", half)
    left = in_halves(fit, half, start)
    return joined([left, in_halves(fit, width - half, start + half)])


def joined(parts: Sequence[Fitted]) -> Fitted:
    """Results of several batches, side by side."""
    first = parts[0]
    return {
        name: namespace(values).concat([part[name] for part in parts], axis=-1)
        for name, values in first.items()
    }


def columns_of(fitted: Fitted, columns: slice) -> Fitted:
    """Results of some targets of a batch."""
    return {name: values[..., columns] for name, values in fitted.items()}


def _columns(out: Array | None, columns: slice) -> Array | None:
    return None if out is None else out[:, columns]


def _variance(batch: Any) -> Array:
    """Variance of each target over all samples, float64."""
    everything = batch.targets.parts.everything
    mean = batch.targets.mean(everything)
    n_samples = batch.targets.parts.n_rows(everything)
    return batch.targets.squares_about(everything, mean) / n_samples


def _is_out_of_memory(error: Exception) -> bool:
    # torch and CuPy have errors of their own, of this name.
    return isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__
