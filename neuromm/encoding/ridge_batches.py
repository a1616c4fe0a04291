"""One batch of targets after the other: choice, scores, weights; and memory that ends.

A batch is fitted whole, and in halves if memory runs out. A float32 batch whose path of
scores disagrees with its own predictions is repeated, for the targets concerned, in
float64.
"""

import logging
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromm.core import ResourceLimitError
from neuromm.encoding.ridge_engines import Engine, RidgeSettings, eigen_engine
from neuromm.kernels import EigenRidge, Solver, select_alphas
from neuromm.kernels.arrays import Array, as_like, host_array, itemsize, namespace

__all__ = ["BatchFit", "Fitted", "in_halves"]

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

    def __call__(self, part: Array) -> Fitted:
        """Fit a batch of targets of shape (n_samples, width)."""
        engine = self._engine
        xp = namespace(part)
        batch = engine.load(part)
        path = engine.path(batch)
        choice = self._choice(batch, path)
        scores = engine.at(batch, choice)
        weights, intercepts = engine.weights(batch, choice)
        doubted = self._doubted(batch, path, choice, scores)
        if doubted is not None:
            self._repeat(part, doubted, choice, scores, weights, intercepts)
        penalties = engine.penalties(batch, choice)
        valid = batch.targets.valid
        if not bool(xp.all(valid)):
            weights = xp.where(valid, weights, xp.zeros_like(weights[:1, :1]))
        fitted = {
            "coef": weights,
            "intercept": xp.where(valid, intercepts, batch.targets.constants()),
            "best_alphas": xp.where(valid, penalties, xp.nan),
            "cv_scores": xp.where(valid, scores, xp.nan),
            "valid_targets": valid,
        }
        for name in ("coef", "intercept"):
            fitted[name] = xp.astype(fitted[name], part.dtype, copy=False)
        if self._settings.fractions is not None:
            grid = as_like(self._settings.fractions, path)
            fitted["best_fracs"] = xp.where(valid, xp.take(grid, choice), xp.nan)
        return fitted

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
    ) -> NDArray[np.intp] | None:
        """Targets whose float32 path disagrees with their own predictions."""
        is_exact = itemsize(self._settings.x) == 8
        if is_exact or self._solver.method != "divided-difference":
            return None
        xp = namespace(path)
        step = xp.take_along_axis(path, choice[None, :], axis=0)[0] - scores
        if self._settings.scoring == "mse":
            unit = _variance(batch)
            step = step / xp.where(unit > 0, unit, xp.ones_like(unit))
        doubted = np.flatnonzero(host_array(xp.abs(step) > _DISAGREEMENT))
        return doubted if len(doubted) else None

    def _repeat(
        self,
        part: Array,
        doubted: NDArray[np.intp],
        choice: Array,
        scores: Array,
        weights: Array,
        intercepts: Array,
    ) -> None:
        """Fit doubted targets in float64 and put them in place of the others."""
        xp = namespace(part)
        if self._double is None:
            logger.info("repeating ill-conditioned targets in float64")
            x = xp.astype(self._settings.x, xp.float64)
            self._double = eigen_engine(self._settings, x, self._solver)
        where = as_like(doubted, part)
        batch = self._double.load(xp.astype(xp.take(part, where, axis=1), xp.float64))
        again = self._choice(batch, self._double.path(batch))
        choice[where] = again
        scores[where] = self._double.at(batch, again)
        exact, shift = self._double.weights(batch, again)
        weights[:, where] = xp.astype(exact, weights.dtype)
        intercepts[where] = shift


def in_halves(fit: Callable[[Array], Fitted], part: Array) -> Fitted:
    """Fit a batch; in halves, if memory runs out.

    Raises
    ------
    neuromm.core.ResourceLimitError
        If it does so for a single target.
    """
    width = part.shape[1]
    try:
        return fit(part)
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
    left, right = in_halves(fit, part[:, :half]), in_halves(fit, part[:, half:])
    xp = namespace(part)
    return {name: xp.concat([left[name], right[name]], axis=-1) for name in left}


def _variance(batch: Any) -> Array:
    """Variance of each target over all samples, float64."""
    everything = batch.targets.parts.everything
    mean = batch.targets.mean(everything)
    n_samples = batch.targets.parts.n_rows(everything)
    return batch.targets.squares_about(everything, mean) / n_samples


def _is_out_of_memory(error: Exception) -> bool:
    # torch and CuPy have errors of their own, of this name.
    return isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__
