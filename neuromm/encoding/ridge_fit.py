"""Cross-validated ridge for many targets in bounded memory.

The bases of all folds are computed once from the features; the targets then pass in
batches, each read once: scores of every penalty on every fold, choice, the score of the
chosen one from its own predictions, final weights.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from neuromm.core import ResourceLimitError, UsageError
from neuromm.encoding.memory import target_batch
from neuromm.encoding.splitters import Split
from neuromm.kernels import (
    EigenRidge,
    HoldOutRidge,
    RidgeShape,
    Solver,
    cheapest_solvers,
    row_parts,
    select_alphas,
    working_memory,
)
from neuromm.kernels.arrays import (
    Array,
    as_like,
    empty,
    host_array,
    is_numpy,
    itemsize,
    namespace,
)
from neuromm.kernels.ridge_hold_out import holds_out_the_rest
from neuromm.kernels.ridge_modes import Scoring

__all__ = ["RidgeFit", "edge_shares", "fit_ridge", "ridge_shape"]

logger = logging.getLogger(__name__)

# A path of scores in float32 that is further than this from the score of the chosen
# penalty's own predictions (in units of R2) is computed again in float64.
_DISAGREEMENT = 1e-4


class _Engine(Protocol):
    """A solver: see `neuromm.kernels.ridge_folds.EigenRidge`."""

    def load(self, y: Array) -> Any: ...
    def path(self, batch: Any) -> Array: ...
    def at(self, batch: Any, choice: Array) -> Array: ...
    def weights(self, batch: Any, choice: Array) -> tuple[Array, Array]: ...


@dataclass(frozen=True)
class RidgeFit:
    """A ridge with chosen penalties. Arrays are of the library of the targets.

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
    solver_form : str
        Name of the `neuromm.kernels.Solver`.
    """

    coef: Array
    intercept: Array
    best_alphas: Array
    cv_scores: Array
    valid_targets: Array
    solver_form: str

    def predict(self, x: Array) -> Array:
        """Predictions of shape (n_samples, n_targets)."""
        return x @ self.coef + self.intercept


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """What all batches share."""

    x: Array
    splits: Sequence[Split]
    alphas: NDArray[np.float64]
    scoring: Scoring
    fit_intercept: bool
    n_targets: int

    def eigen(self, x: Array, solver: Solver) -> EigenRidge:
        """Engine in the eigenbasis of each fold."""
        return EigenRidge(
            x,
            self.splits,
            self.alphas,
            form=solver.form,
            method="direct" if solver.method == "direct" else "divided-difference",
            scoring=self.scoring,
            fit_intercept=self.fit_intercept,
            n_targets=self.n_targets,
        )


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
    solver: Solver | None = None,
) -> RidgeFit:
    """Choose penalties by cross-validation and fit all samples with them.

    Parameters
    ----------
    x : array of shape (n_samples, n_features)
        Its library and device do the work.
    y : array of shape (n_samples, n_targets)
        In the precision of ``x``. On the host, it may belong to an ``x`` on a GPU:
        batches are then sent there and results brought back.
    splits : sequence of (train, test)
    alphas : array of shape (n_alphas,)
    scoring : {"r2", "correlation", "mse"}
    fit_intercept : bool
    alpha_per_target : bool
        False takes the penalty of the best mean over valid targets for all, and reads
        the targets twice.
    memory_limit : int or None
        Bytes above ``x`` and ``y``.
    solver : Solver, optional
        Instead of the cheapest.

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
    settings = _Settings(
        x=x,
        splits=splits,
        alphas=alphas,
        scoring=scoring,
        fit_intercept=fit_intercept,
        n_targets=y.shape[1],
    )
    engine, solver, width = _engine(settings, solver, memory_limit)
    fit = _BatchFit(settings, engine, solver)
    if not alpha_per_target:
        fit.choose_one(_batches(x, y, width))
    results = _Results.empty(x, y)
    for columns, part in _batches(x, y, width):
        _with_back_off(fit, columns, part, results)
    return RidgeFit(
        results.coef,
        results.intercept,
        results.best_alphas,
        results.cv_scores,
        results.valid_targets,
        solver.name,
    )


def ridge_shape(
    x: Array,
    n_targets: int,
    splits: Sequence[Split],
    n_alphas: int,
    scoring: Scoring = "r2",
) -> RidgeShape:
    """Return the size of a fit, by which it is planned."""
    n_samples, n_features = x.shape
    parts = row_parts(splits, n_samples)
    return RidgeShape(
        n_samples=n_samples,
        n_features=n_features,
        n_targets=n_targets,
        n_alphas=n_alphas,
        n_folds=len(splits),
        n_train=float(np.mean([len(train) for train, _ in splits])),
        n_test=float(np.mean([len(test) for _, test in splits])),
        n_parts=len(parts.slices),
        # A correlation would lose its digits there: see ridge_hold_out.
        complements=holds_out_the_rest(parts) and scoring != "correlation",
        itemsize=itemsize(x),
    )


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


def _engine(
    settings: _Settings, asked: Solver | None, memory_limit: int | None
) -> tuple[_Engine, Solver, int]:
    """Build the cheapest solver that fits in memory and holds numerically."""
    x, n_targets = settings.x, settings.n_targets
    shape = ridge_shape(
        x, n_targets, settings.splits, len(settings.alphas), settings.scoring
    )
    solvers = [asked] if asked else cheapest_solvers(shape, has_factors=is_numpy(x))
    fitting = [
        solver
        for solver in solvers
        if memory_limit is None or working_memory(shape, solver).peak(1) <= memory_limit
    ]
    if not fitting:  # the error names what the smallest one needs
        fitting = sorted(solvers, key=lambda one: working_memory(shape, one).peak(1))
    for solver in fitting:
        width = target_batch(working_memory(shape, solver), n_targets, memory_limit)
        engine = _build(settings, solver)
        if engine is not None:
            return engine, solver, width
    raise UsageError(
        f"the solver {solvers[0].name} loses its digits with these penalties, which "
        "lie far below the eigenvalues of the features. Leave the choice of the solver "
        "open, or take larger penalties."
    )


def _build(settings: _Settings, solver: Solver) -> _Engine | None:
    """Engine of a solver; None if it would lose its digits with these data."""
    x, splits, alphas = settings.x, settings.splits, settings.alphas
    if solver.method == "hold-out":
        if settings.scoring == "correlation":
            raise UsageError("the hold-out solver does not score correlations")
        held = HoldOutRidge(
            x,
            splits,
            alphas,
            form=solver.form,
            scoring=settings.scoring,
            fit_intercept=settings.fit_intercept,
            n_targets=settings.n_targets,
        )
        return held if held.is_accurate else None
    if solver.method == "cholesky":
        from neuromm.kernels.ridge_cholesky import CholeskyRidge

        factored = CholeskyRidge(
            x,
            splits,
            alphas,
            form=solver.form,
            scoring=settings.scoring,
            fit_intercept=settings.fit_intercept,
        )
        return factored if factored.is_accurate else None
    return settings.eigen(x, solver)


@dataclass
class _Results:
    """Arrays of all targets, filled batch by batch."""

    coef: Array
    intercept: Array
    best_alphas: Array
    cv_scores: Array
    valid_targets: Array

    @classmethod
    def empty(cls, x: Array, y: Array) -> "_Results":
        """Arrays in the library of ``y``, weights in the precision of ``x``."""
        kind = y if is_numpy(y) or not is_numpy(x) else host_array(x[:1])
        dtype = host_array(x[:1]).dtype
        coef = empty((x.shape[1], y.shape[1]), kind)
        values = np.empty(y.shape[1])
        return cls(
            coef=coef,
            intercept=as_like(values.astype(dtype), kind),
            best_alphas=as_like(values.copy(), kind),
            cv_scores=as_like(values.copy(), kind),
            valid_targets=as_like(np.zeros(y.shape[1], dtype=bool), kind),
        )

    def store(self, columns: slice, values: "_Results") -> None:
        """Write a batch."""
        for name, value in vars(values).items():
            held = getattr(self, name)
            if is_numpy(held):
                value = host_array(value)
            held[..., columns] = value


class _BatchFit:
    """Fits one batch of targets after the other."""

    def __init__(self, settings: _Settings, engine: _Engine, solver: Solver) -> None:
        self._settings = settings
        self._engine = engine
        self._solver = solver
        self._double: EigenRidge | None = None
        self._common: int | None = None

    def __call__(self, part: Array) -> _Results:
        """Results of a batch of targets of shape (n_samples, width)."""
        engine, alphas = self._engine, self._settings.alphas
        xp = namespace(part)
        batch = engine.load(part)
        path = engine.path(batch)
        choice = self._choice(batch, path)
        scores = engine.at(batch, choice)
        weights, intercepts = engine.weights(batch, choice)
        doubted = self._doubted(batch, path, choice, scores)
        if doubted is not None:
            self._repeat(part, doubted, choice, scores, weights, intercepts)
        valid = batch.targets.valid
        grid = as_like(alphas, path)
        return _Results(
            coef=xp.where(valid, weights, xp.zeros_like(weights[:1, :1])),
            intercept=xp.astype(
                xp.where(valid, intercepts, batch.targets.constants()), part.dtype
            ),
            best_alphas=xp.where(valid, xp.take(grid, choice), xp.nan),
            cv_scores=xp.where(valid, scores, xp.nan),
            valid_targets=valid,
        )

    def choose_one(self, batches: Iterator[tuple[slice, Array]]) -> None:
        """Choose the penalty of the best mean over valid targets, for all."""
        alphas = self._settings.alphas
        total, scale, n_valid = np.zeros(len(alphas)), 0.0, 0
        for _, part in batches:
            batch = self._engine.load(part)
            path = host_array(self._engine.path(batch))
            used = host_array(batch.targets.valid) & ~np.isnan(path).any(axis=0)
            total += path[:, used].sum(axis=1)
            scale += float(host_array(_variance(batch))[used].sum())
            n_valid += int(used.sum())
        mean = total / max(n_valid, 1)
        unit = scale / max(n_valid, 1) if self._settings.scoring == "mse" else 1.0
        self._common = int(select_alphas(mean[:, None], alphas, tie_scale=unit)[0])

    def _choice(self, batch: Any, path: Array) -> Array:
        if self._common is not None:
            choice = np.full(path.shape[1], self._common)
            return as_like(choice, path)
        scale = _variance(batch) if self._settings.scoring == "mse" else 1.0
        return select_alphas(path, self._settings.alphas, tie_scale=scale)

    def _doubted(
        self, batch: Any, path: Array, choice: Array, scores: Array
    ) -> NDArray[np.intp] | None:
        """Targets whose float32 path disagrees with their own predictions."""
        if itemsize(self._settings.x) == 8 or self._solver.method in (
            "direct",
            "hold-out",
            "cholesky",
        ):
            return None
        xp = namespace(path)
        step = xp.take_along_axis(path, choice[None, :], axis=0)[0] - scores
        if self._settings.scoring == "mse":
            step = step / xp.where(batch.targets.valid, _variance(batch), 1.0)
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
            self._double = self._settings.eigen(x, self._solver)
        where = as_like(doubted, part)
        batch = self._double.load(xp.astype(xp.take(part, where, axis=1), xp.float64))
        path = self._double.path(batch)
        again = self._choice(batch, path)
        choice[where] = again
        scores[where] = self._double.at(batch, again)
        exact, shift = self._double.weights(batch, again)
        weights[:, where] = xp.astype(exact, weights.dtype)
        intercepts[where] = shift


def _variance(batch: Any) -> Array:
    """Variance of each target over all samples, float64."""
    everything = batch.targets.parts.everything
    mean = batch.targets.mean(everything)
    n_samples = batch.targets.parts.n_rows(everything)
    return batch.targets.squares_about(everything, mean) / n_samples


def _batches(x: Array, y: Array, width: int) -> Iterator[tuple[slice, Array]]:
    """Batches of targets, on the device of ``x``."""
    for start in range(0, y.shape[1], width):
        columns = slice(start, min(start + width, y.shape[1]))
        part = y[:, columns]
        if is_numpy(part) and not is_numpy(x):
            part = as_like(part, x)
        yield columns, part


def _with_back_off(
    fit: Callable[[Array], _Results], columns: slice, part: Array, results: _Results
) -> None:
    """Fit a batch; in halves, if memory runs out."""
    try:
        fitted = fit(part)
    except Exception as error:
        if not _is_out_of_memory(error):
            raise
        width = columns.stop - columns.start
        if width == 1:
            raise ResourceLimitError(
                "memory ran out in a fit of a single target. Use fewer features or "
                "folds, or a machine with more memory."
            ) from error
    else:
        results.store(columns, fitted)
        return
    half = width // 2
    logger.warning("memory ran out: going on with batches of %d targets", half)
    middle = columns.start + half
    _with_back_off(fit, slice(columns.start, middle), part[:, :half], results)
    _with_back_off(fit, slice(middle, columns.stop), part[:, half:], results)


def _is_out_of_memory(error: Exception) -> bool:
    # torch and CuPy have errors of their own, of this name.
    return isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__
