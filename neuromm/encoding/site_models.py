"""Held-out predictions of the models that a site of integration is judged by.

Each unimodal space, the multimodal one, controls, and two linear combinations of the
unimodal ones: their concatenation under one penalty, and under one penalty a space
(banded ridge). A space may have several candidates (networks, layers): for each target
the one with the best inner score is taken, within the training samples of each outer
fold. With the predictions comes the influence of training events on their scores.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from neuromm.encoding.banded_fit import fit_banded, gamma_candidates
from neuromm.encoding.candidate_choice import CandidateChoice
from neuromm.encoding.default_folds import inner_splits
from neuromm.encoding.feature_scaling import training_scaler
from neuromm.encoding.ridge_fit import fit_ridge
from neuromm.encoding.splitters import Split
from neuromm.encoding.training_influence import (
    block_sums,
    fold_correlation,
    training_influence,
)

__all__ = ["Chosen", "HeldOutModels", "SiteModels", "held_out_predictions"]

Array = NDArray[np.floating]

# Weights of spaces that the banded control tries: equal ones, each space alone, and
# draws between them.
_N_GAMMAS = 12


@dataclass(frozen=True, kw_only=True)
class SiteModels:
    """What is fitted.

    Attributes
    ----------
    spaces : dict of str to dict of str to array of shape (n_samples, n_features)
        Candidates of each space.
    unimodal : tuple of str
    multimodal : str
    controls : tuple of str
        Further competitors, each by itself.
    """

    spaces: Mapping[str, Mapping[str, Array]]
    unimodal: tuple[str, ...]
    multimodal: str
    controls: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Models in the order of their predictions: the multimodal one first."""
        return (
            self.multimodal,
            *self.unimodal,
            *self.controls,
            "concatenation",
            "banded",
        )


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """Candidates of one space: which were taken, and how events move each of them.

    Attributes
    ----------
    taken : integer array of shape (n_folds, n_targets)
    direct, trained : arrays of shape (n_candidates, n_blocks, n_targets)
        Influence of held-out and of training events on the mean of the folds'
        correlations, were the candidate taken in every fold.
    """

    taken: NDArray[np.intp]
    direct: Array
    trained: Array

    def throughout(
        self, fold: int, columns: NDArray[np.intp]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Influence (n_blocks, n_columns) of what a fold took, taken in every fold."""
        taken = self.taken[fold, columns]
        direct, trained = (
            part[taken, :, columns].T.astype(np.float64)
            for part in (self.direct, self.trained)
        )
        return direct, trained


@dataclass(frozen=True, kw_only=True)
class HeldOutModels:
    """Predictions of every sample by models that were trained without it.

    Attributes
    ----------
    predictions : array of shape (n_models, n_samples, n_targets)
        In the order of ``SiteModels.names``; nan for samples of no fold.
    influence : array of shape (n_models, n_blocks, n_targets)
        Of the training events of each block, on the mean of the folds' correlations.
    chosen : dict of int to Chosen
        By the number of the model, those that have several candidates.
    """

    predictions: Array
    influence: Array
    chosen: Mapping[int, Chosen]


def held_out_predictions(
    models: SiteModels,
    responses: xr.DataArray,
    folds: Sequence[Split],
    *,
    alphas: NDArray[np.float64],
    inner_cv: Any,
    memory_limit: int | None,
    rng: np.random.Generator,
    tick: Callable[[], None],
    blocks: NDArray[np.intp],
) -> HeldOutModels:
    """Predict every sample from models that were trained without it.

    Parameters
    ----------
    blocks : integer array of shape (n_samples,)
        Block of each event, from 0.
    """
    y = responses.to_numpy()
    names = models.names
    predictions = np.full((len(names), *y.shape), np.nan, dtype=y.dtype)
    gammas = _gammas(len(models.unimodal), rng)
    n_blocks = int(blocks.max()) + 1
    influence = np.zeros((len(names), n_blocks, y.shape[1]), dtype=y.dtype)
    n_held = sum(len(test) for _, test in folds)
    chosen = _nothing_chosen(models, len(folds), n_blocks, y)
    for fold, (train, test) in enumerate(folds):
        inner = inner_splits(responses, train, inner_cv)
        share = len(test) / n_held
        for number, name in enumerate(names):
            if name not in models.spaces:
                continue
            choice = CandidateChoice.of(y.shape[1])
            trained = np.zeros((n_blocks, y.shape[1]), dtype=y.dtype)
            for place, x in enumerate(models.spaces[name].values()):
                one = _fitted(x, y, train, test, inner, alphas, memory_limit)
                moved = block_sums(share * one.moved, blocks[train], n_blocks)
                better = choice.better(one.score)
                predictions[number][np.ix_(test, better)] = one.prediction[:, better]
                trained[:, better] = moved[:, better]
                if number in chosen:
                    _, _, direct = fold_correlation(y[test], one.prediction)
                    chosen[number].direct[place] += block_sums(
                        share * direct, blocks[test], n_blocks
                    )
                    chosen[number].trained[place] += moved
            influence[number] += trained
            if number in chosen:
                chosen[number].taken[fold] = choice.taken
            tick()
        x, spaces = _side_by_side(models, train, y.dtype)
        plain = fit_ridge(x[train], y[train], inner, alphas, memory_limit=memory_limit)
        predictions[-2, test] = plain.predict(x[test])
        moved = _moved(x, y, train, test, plain.predict, plain.best_alphas)
        influence[-2] += block_sums(
            moved * (len(test) / n_held), blocks[train], n_blocks
        )
        tick()
        banded = fit_banded(
            x[train], y[train], spaces, inner, alphas, gammas, memory_limit=memory_limit
        )
        predictions[-1, test] = x[test] @ banded.coef + banded.intercept
        moved = _banded_moved(x, y, train, test, spaces, banded)
        influence[-1] += block_sums(
            moved * (len(test) / n_held), blocks[train], n_blocks
        )
        tick()
    return HeldOutModels(predictions=predictions, influence=influence, chosen=chosen)


def _nothing_chosen(
    models: SiteModels, n_folds: int, n_blocks: int, y: Array
) -> dict[int, Chosen]:
    chosen = {}
    for number, name in enumerate(models.names):
        n_candidates = len(models.spaces.get(name, ()))
        if n_candidates > 1:
            shape = (n_candidates, n_blocks, y.shape[1])
            chosen[number] = Chosen(
                taken=np.zeros((n_folds, y.shape[1]), dtype=np.intp),
                direct=np.zeros(shape, dtype=y.dtype),
                trained=np.zeros(shape, dtype=y.dtype),
            )
    return chosen


@dataclass(frozen=True)
class _Fitted:
    """Inner score, held-out predictions and influence of training events of a fold."""

    score: Array
    prediction: Array
    moved: Array


def _fitted(
    x: Array,
    y: Array,
    train: NDArray[np.intp],
    test: NDArray[np.intp],
    inner: Sequence[Split],
    alphas: NDArray[np.float64],
    memory_limit: int | None,
) -> _Fitted:
    scale = training_scaler(x[train], y.dtype)
    scaled = scale(x)
    fit = fit_ridge(scaled[train], y[train], inner, alphas, memory_limit=memory_limit)
    return _Fitted(
        fit.cv_scores,
        fit.predict(scaled[test]),
        _moved(scaled, y, train, test, fit.predict, fit.best_alphas),
    )


def _moved(
    x: Array,
    y: Array,
    train: NDArray[np.intp],
    test: NDArray[np.intp],
    predict: Callable[[Array], Array],
    alphas: Array,
) -> Array:
    """Influence of training events on the correlation of one fold."""
    _, gradient, _ = fold_correlation(y[test], predict(x[test]))
    return training_influence(
        x[train], x[test], y[train] - predict(x[train]), gradient, alphas
    )


def _banded_moved(
    x: Array,
    y: Array,
    train: NDArray[np.intp],
    test: NDArray[np.intp],
    spaces: Sequence[slice],
    banded: Any,
) -> Array:
    """As `_moved`; targets with the same weights of spaces share a decomposition."""
    residual = y[train] - (x[train] @ banded.coef + banded.intercept)
    predicted = x[test] @ banded.coef + banded.intercept
    _, gradient, _ = fold_correlation(y[test], predicted)
    weights, which = np.unique(banded.best_gammas, axis=1, return_inverse=True)
    moved = np.zeros((len(train), y.shape[1]), dtype=y.dtype)
    for number, gamma in enumerate(weights.T):
        of = np.flatnonzero(which.ravel() == number)
        factor = np.zeros(x.shape[1], dtype=x.dtype)
        for one, columns in zip(gamma, spaces, strict=True):
            factor[columns] = np.sqrt(one) if one > 0 else 0.0
        moved[:, of] = training_influence(
            x[train] * factor,
            x[test] * factor,
            residual[:, of],
            gradient[:, of],
            banded.best_alphas[of],
        )
    return moved


def _side_by_side(
    models: SiteModels, train: NDArray[np.intp], dtype: np.dtype[Any]
) -> tuple[Array, list[slice]]:
    """All candidates of the unimodal spaces, scaled, and the columns of each space."""
    parts, spaces, start = [], [], 0
    for name in models.unimodal:
        scaled = [
            training_scaler(x[train], dtype)(x) for x in models.spaces[name].values()
        ]
        parts += scaled
        width = sum(one.shape[1] for one in scaled)
        spaces.append(slice(start, start + width))
        start += width
    return np.concatenate(parts, axis=1), spaces


def _gammas(n_spaces: int, rng: np.random.Generator) -> NDArray[np.float64]:
    drawn = gamma_candidates(_N_GAMMAS, n_spaces, (0.1, 1.0), int(rng.integers(2**31)))
    return np.concatenate([drawn[:1], np.eye(n_spaces), drawn[1:]])
