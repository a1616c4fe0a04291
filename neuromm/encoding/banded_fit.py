"""Banded ridge for many targets in bounded memory.

Grams or kernels of the features are formed once; targets then pass in batches, each
read once: search over the weights of spaces and penalties, then the final weights.
A batch repeats the decompositions of every candidate, so batches are wide.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state

from neuromm.core import UsageError
from neuromm.encoding.banded_batches import banded_batches
from neuromm.encoding.fit_results import (
    FitResults,
    MemoryResults,
    StoredResults,
    stored_results,
)
from neuromm.encoding.ridge_batches import Fitted, in_halves
from neuromm.encoding.ridge_engines import RidgeSettings, ridge_shape
from neuromm.encoding.splitters import Split
from neuromm.encoding.target_reading import scorable_targets
from neuromm.encoding.target_sources import array_digest
from neuromm.kernels import Solver, row_parts
from neuromm.kernels.arrays import (
    Array,
    as_like,
    free_memory,
    host_array,
    is_device_array,
    is_numpy,
    namespace,
)
from neuromm.kernels.banded_modes import banded_features
from neuromm.kernels.banded_search import BandedSearch
from neuromm.kernels.ridge_modes import Scoring

__all__ = ["BandedFit", "fit_banded", "gamma_candidates"]

# Of what is free on a GPU, this share is taken where no limit is given.
_GPU_SHARE = 0.6


@dataclass(frozen=True)
class BandedFit:
    """A banded ridge with chosen weights of spaces and penalties.

    Arrays are of the library and on the device of the targets.

    Attributes
    ----------
    coef : array of shape (n_features, n_targets)
        Of the features as they were given; 0 for a masked target.
    intercept : array of shape (n_targets,)
        A constant target's value; nan for a target with missing values.
    x_mean : array of shape (n_features,)
        Over all samples; 0 without intercept.
    y_mean : array of shape (n_targets,)
        Likewise; a constant target's value, nan for one with missing values.
    best_gammas : array of shape (n_spaces, n_targets)
    best_alphas, cv_scores : arrays of shape (n_targets,)
    valid_targets : boolean array of shape (n_targets,)
    progress : array of shape (n_candidates,), NumPy
        Mean over targets of the best score after each candidate.
    solver_form : str
    """

    coef: Array
    intercept: Array
    x_mean: Array
    y_mean: Array
    best_gammas: Array
    best_alphas: Array
    cv_scores: Array
    valid_targets: Array
    progress: NDArray[np.float64]
    solver_form: str


def fit_banded(
    x: Array,
    y: Any,
    spaces: Sequence[slice],
    splits: Sequence[Split],
    alphas: NDArray[np.float64],
    gammas: NDArray[np.float64],
    *,
    scoring: Scoring = "r2",
    fit_intercept: bool = True,
    memory_limit: int | None = None,
    is_copy: bool = False,
    solver: Solver | None = None,
    checkpoint: Path | None = None,
) -> BandedFit:
    """Choose weights of spaces and a penalty for each target, and fit all samples.

    Parameters
    ----------
    x : array of shape (n_samples, n_features)
        Spaces side by side. Its library and device do the work.
    y : array of shape (n_samples, n_targets), or what `target_source` takes
    spaces : sequence of slice
        Columns of each space, in their order and without a gap.
    splits : sequence of (train, test)
    alphas : array of shape (n_alphas,)
    gammas : array of shape (n_candidates, n_spaces)
    scoring : {"r2", "correlation", "mse"}
    fit_intercept : bool
    memory_limit : int or None
        Bytes above ``x`` and ``y``.
    is_copy : bool
        Count ``x`` too: it is a copy of what the user holds.
    solver : Solver, optional
        Instead of the cheapest.
    checkpoint : Path, optional
        Folder that keeps finished batches. A fit that was killed goes on from there.

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
    )
    if memory_limit is None and (free := free_memory(x)) is not None:
        memory_limit = int(_GPU_SHARE * free)
    solver, _, width = banded_batches(
        ridge_shape(settings),
        len(gammas),
        gammas.shape[1],
        asked=solver,
        memory_limit=memory_limit,
        is_copy=is_copy,
        keeps_results=checkpoint is None,
    )
    width = min(max(width // targets.chunk * targets.chunk, targets.chunk), n_targets)
    results: FitResults
    if checkpoint is None:
        results = MemoryResults(settings, y)
        columns = [
            slice(start, min(start + width, n_targets))
            for start in range(0, n_targets, width)
        ]
    else:
        stored = _stored(checkpoint, settings, y, width, spaces, gammas, solver)
        results, columns = stored, stored.pending()
    search = _search(settings, spaces, gammas, solver)
    fit = _BatchFit(search)
    for one, part in targets.batches(columns):
        results.store(one, fit(part), fit.taken_sums())
    mean = namespace(x).astype(search.features.mean, x.dtype)
    on_host = is_numpy(x) or not is_device_array(y)
    progress = np.sum(results.sums(), axis=0)
    return BandedFit(
        x_mean=host_array(mean) if on_host else mean,
        progress=progress[1:] / (progress[0] or np.nan),
        solver_form=solver.name,
        **results.arrays(),
    )


def gamma_candidates(
    n_iter: int | ArrayLike,
    n_spaces: int,
    concentration: float | Sequence[float],
    random_state: Any,
) -> NDArray[np.float64]:
    """Weights of spaces to try, as himalaya draws them.

    Parameters
    ----------
    n_iter : int, or array of shape (n_candidates, n_spaces)
        An array is checked and taken as it is.
    n_spaces : int
    concentration : float or sequence of float
        Of the Dirichlet distributions, which take turns. inf gives equal weights.
    random_state : int, RandomState or None

    Returns
    -------
    gammas : array of shape (n_candidates, n_spaces)
        Drawn: rows sum to 1, and the first has equal weights. A single space has one
        candidate.

    Raises
    ------
    neuromm.core.UsageError
        If weights or concentrations are not usable.
    """
    if np.ndim(host_array(n_iter)) != 0:
        return _checked_gammas(n_iter, n_spaces)
    if isinstance(n_iter, bool) or int(n_iter) != n_iter or n_iter < 1:  # type: ignore
        raise UsageError(
            "n_iter must be a number of candidates above 0, or their weights, an array "
            f"of shape (n_candidates, n_spaces), got {n_iter!r}"
        )
    kinds = np.atleast_1d(np.asarray(concentration, dtype=np.float64))
    if kinds.ndim != 1 or not kinds.size or not (kinds > 0).all():
        raise UsageError(f"concentration must be above 0, got {concentration!r}")
    if n_spaces == 1:
        return np.ones((1, 1))
    rng = check_random_state(random_state)
    n_candidates = int(n_iter)  # type: ignore[arg-type]
    n_each = -(-n_candidates // len(kinds))
    drawn = np.stack(
        [
            np.full((n_each, n_spaces), 1 / n_spaces)
            if np.isinf(kind)
            else rng.dirichlet([kind] * n_spaces, n_each)
            for kind in kinds
        ],
        axis=1,
    )
    gammas = drawn.reshape(-1, n_spaces)[:n_candidates]
    gammas[0] = 1 / n_spaces
    return gammas


def _checked_gammas(n_iter: ArrayLike, n_spaces: int) -> NDArray[np.float64]:
    gammas = np.array(host_array(n_iter), dtype=np.float64)
    if gammas.ndim != 2 or gammas.shape[1] != n_spaces or not len(gammas):
        raise UsageError(
            "weights given as n_iter must have one row a candidate and one column a "
            f"feature space, (n_candidates, {n_spaces}), got shape {gammas.shape}"
        )
    usable = np.isfinite(gammas).all() and (gammas >= 0).all()
    if not usable or not (gammas.sum(axis=1) > 0).all():
        raise UsageError(
            "weights given as n_iter must be 0 or above, and above 0 for one space at "
            "least in every row"
        )
    return gammas


def _search(
    settings: RidgeSettings,
    spaces: Sequence[slice],
    gammas: NDArray[np.float64],
    solver: Solver,
) -> BandedSearch:
    x = settings.x
    features = banded_features(
        solver.form,
        x,
        row_parts(settings.splits, x.shape[0]),
        spaces,
        fit_intercept=settings.fit_intercept,
        centre_held_out=settings.scoring == "correlation",
    )
    return BandedSearch(
        features,
        gammas,
        settings.alphas,
        method="direct" if solver.method == "direct" else "divided-difference",
        scoring=settings.scoring,
    )


def _stored(
    folder: Path,
    settings: RidgeSettings,
    y: Any,
    width: int,
    spaces: Sequence[slice],
    gammas: NDArray[np.float64],
    solver: Solver,
) -> StoredResults:
    kind = host_array(settings.x[:1]).dtype
    return stored_results(
        folder,
        settings,
        y,
        width,
        described={
            "spaces": [[one.start, one.stop] for one in spaces],
            "gammas": {"number": len(gammas), "sha256": array_digest(gammas)},
            "solver": f"banded-{solver.name}",
        },
        arrays={
            "coef": ((settings.x.shape[1],), kind),
            "intercept": ((), kind),
            "y_mean": ((), kind),
            "best_gammas": ((gammas.shape[1],), "f8"),
            "best_alphas": ((), "f8"),
            "cv_scores": ((), "f8"),
            "valid_targets": ((), "?"),
        },
    )


class _BatchFit:
    """Fit of batches of targets, which counts how the search went."""

    def __init__(self, search: BandedSearch) -> None:
        self._search = search
        self._sums = np.zeros(1 + len(search.gammas))

    def __call__(self, part: Array) -> Fitted:
        """Fit a batch of targets of shape (n_samples, width)."""
        return in_halves(lambda at: self._whole(part[:, at]), part.shape[1])

    def _whole(self, part: Array) -> Fitted:
        search, xp = self._search, namespace(part)
        batch = search.load(part)
        choice = search.search(batch)
        coef, intercept = search.weights(batch, choice)
        valid = batch.valid
        host_valid = host_array(valid)
        scored = host_valid & np.isfinite(choice.scores)
        scores = np.where(scored, choice.scores, np.nan)
        alphas = np.where(host_valid, search.alphas[choice.alphas], np.nan)
        gammas = np.where(host_valid, search.gammas[choice.gammas].T, np.nan)
        self._sums += [scored.sum(), *choice.progress]
        levels = {"intercept": intercept, "y_mean": batch.mean}
        return {
            "coef": coef,
            **{
                name: xp.astype(
                    xp.where(valid, level, batch.constants), part.dtype, copy=False
                )
                for name, level in levels.items()
            },
            "best_gammas": as_like(gammas, part),
            "best_alphas": as_like(alphas, part),
            "cv_scores": as_like(scores, part),
            "valid_targets": valid,
        }

    def taken_sums(self) -> list[float]:
        """Of the last batch: scored targets, and best scores after each candidate."""
        sums, self._sums = self._sums.tolist(), np.zeros_like(self._sums)
        return sums
