"""Cross-validated ridge for many targets in bounded memory.

The bases of all folds are computed once from the features; the targets then pass in
batches, each read once: scores of every penalty on every fold, choice, the score of the
chosen one from its own predictions, final weights.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromm.encoding.fit_results import (
    FitResults,
    MemoryResults,
    StoredResults,
    stored_results,
)
from neuromm.encoding.memory import give_back_memory, target_batches
from neuromm.encoding.ridge_batches import (
    BatchFit,
    Fitted,
    columns_of,
    joined,
)
from neuromm.encoding.ridge_engines import RidgeSettings, ridge_engine
from neuromm.encoding.splitters import Split
from neuromm.encoding.target_reading import TargetReader, scorable_targets
from neuromm.kernels import Solver
from neuromm.kernels.arrays import Array, host_array, itemsize
from neuromm.kernels.ridge_modes import Scoring

__all__ = ["RidgeFit", "edge_shares", "fit_ridge"]


@dataclass(frozen=True)
class RidgeFit:
    """A ridge with chosen penalties.

    Arrays are of the library and on the device of the targets, NumPy's for targets on
    disk, and memmaps of a checkpoint.

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
    best_fracs : array of shape (n_targets,) or None
        Chosen fraction, if fractions were asked for.
    """

    coef: Array
    intercept: Array
    best_alphas: Array
    cv_scores: Array
    valid_targets: Array
    solver_form: str
    best_fracs: Array | None = None

    def predict(self, x: Array) -> Array:
        """Predictions of shape (n_samples, n_targets)."""
        return x @ self.coef + self.intercept


def fit_ridge(
    x: Array,
    y: Any,
    splits: Sequence[Split],
    alphas: NDArray[np.float64],
    *,
    scoring: Scoring = "r2",
    fit_intercept: bool = True,
    alpha_per_target: bool = True,
    memory_limit: int | None = None,
    solver: Solver | None = None,
    fractions: NDArray[np.float64] | None = None,
    checkpoint: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> RidgeFit:
    """Choose penalties by cross-validation and fit all samples with them.

    Parameters
    ----------
    x : array of shape (n_samples, n_features)
        Its library and device do the work.
    y : array of shape (n_samples, n_targets), or what `target_source` takes
        On the host, or on disk, it may belong to an ``x`` on a GPU: batches are then
        sent there and results brought back.
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
    fractions : array of shape (n_fractions,), optional
        Fractions of the length of least-squares weights, chosen among instead of
        ``alphas``.
    checkpoint : Path, optional
        Folder that keeps finished batches. A fit that was killed goes on from there.
    progress : callable, optional
        Called with the number of finished and of all targets.

    Raises
    ------
    neuromm.core.UsageError
        If no fold holds out enough samples for the score, or ``checkpoint`` holds
        another fit.
    neuromm.core.ResourceLimitError
        If ``memory_limit`` is too small for one target.
    """
    targets = scorable_targets(y, x, splits, scoring)
    n_targets = targets.shape[1]
    settings = RidgeSettings(
        x=x,
        splits=splits,
        alphas=alphas,
        scoring=scoring,
        fit_intercept=fit_intercept,
        n_targets=n_targets,
        fractions=fractions,
    )
    engine, solver, memory, limit = ridge_engine(
        settings,
        solver,
        memory_limit,
        reads_twice=not targets.reads_ahead,
        keeps_results=checkpoint is None,
    )
    if targets.reads_ahead:
        ahead = x.shape[0] * itemsize(x)
        memory = replace(memory, per_target=memory.per_target + ahead)
    batches = target_batches(memory, n_targets, limit, chunk=targets.chunk)
    fit = BatchFit(settings, engine, solver)
    if not alpha_per_target:
        fit.choose_one(part for _, part in targets.batches(batches.columns))
    results: FitResults
    if checkpoint is None:
        results, columns = MemoryResults(settings, y), batches.columns
    else:
        stored = _stored(
            checkpoint, settings, y, batches.widest, solver,
            alpha_per_target=alpha_per_target,
        )  # fmt: skip
        results, columns = stored, stored.pending()  # equally wide
    chosen = _fitted_batches(fit, targets, columns, batches.n_late, results, progress)
    if chosen:
        _late_weights(fit, targets, batches.late, chosen, results)
    return RidgeFit(solver_form=solver.name, **results.arrays())


def _fitted_batches(
    fit: BatchFit,
    targets: TargetReader,
    columns: Sequence[slice],
    n_late: int,
    results: FitResults,
    progress: Callable[[int, int], None] | None,
) -> list[Fitted]:
    """Fit each batch; of the first ``n_late`` targets only the choice is made."""
    n_targets = targets.shape[1]
    done = n_targets - sum(one.stop - one.start for one in columns)
    width = 0
    chosen: list[Fitted] = []
    for one, part in targets.batches(columns):
        if part.shape[1] < width:
            give_back_memory()
        width = part.shape[1]
        if one.stop <= n_late:
            chosen.append(fit.chosen(part))
        else:
            results.store(one, fit(part, results.place(one)))
        done += width
        if progress is not None:
            progress(done, n_targets)
    return chosen


def _late_weights(
    fit: BatchFit,
    targets: TargetReader,
    late: Sequence[slice],
    chosen: Sequence[Fitted],
    results: FitResults,
) -> None:
    """Weights of targets whose choice came first, when the folds are out of memory."""
    fit.forget_folds()
    give_back_memory()
    first = joined(chosen)
    for one, part in targets.batches(late):
        now = columns_of(first, one)
        results.store(one, fit.weights(part, now, results.place(one)))


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


def _stored(
    folder: Path,
    settings: RidgeSettings,
    y: Any,
    width: int,
    solver: Solver,
    *,
    alpha_per_target: bool,
) -> StoredResults:
    kind = host_array(settings.x[:1]).dtype
    described: dict[str, Any] = {
        "alpha_per_target": alpha_per_target,
        "solver": solver.name,
    }
    arrays: dict[str, tuple[tuple[int, ...], Any]] = {
        "coef": ((settings.x.shape[1],), kind),
        "intercept": ((), kind),
        "best_alphas": ((), "f8"),
        "cv_scores": ((), "f8"),
        "valid_targets": ((), "?"),
    }
    if settings.fractions is not None:
        described["fractions"] = [float(one) for one in settings.fractions]
        arrays["best_fracs"] = ((), "f8")
    return stored_results(
        folder, settings, y, width, described=described, arrays=arrays
    )
