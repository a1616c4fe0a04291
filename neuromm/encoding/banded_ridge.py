"""Banded ridge: several feature spaces, each with its own penalty for each target.

References
----------
Nunez-Elizalde, Huth & Gallant (2019) Voxelwise encoding models with non-spherical
multivariate normal priors. NeuroImage 197:482-492.
Dupre la Tour et al. (2022) Feature-space selection with banded ridge regression.
NeuroImage 264:119728 (the random search, and the conventions of himalaya).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from neuromm.core import UsageError
from neuromm.encoding.banded_fit import BandedFit, fit_banded, gamma_candidates
from neuromm.encoding.estimator_checks import (
    checked_alphas,
    checked_data,
    checked_matrix,
    warn_of_edges,
    warn_of_masked,
)
from neuromm.encoding.feature_spaces import SpaceLayout, holds_spaces, stacked_spaces
from neuromm.encoding.memory import parse_memory
from neuromm.encoding.partition import product_measure
from neuromm.encoding.scores import r2_score
from neuromm.encoding.splitters import as_splits
from neuromm.kernels.arrays import (
    Array,
    as_like,
    host_array,
    is_device_array,
    is_numpy,
    namespace,
)
from neuromm.kernels.second_moments import SecondMoments

__all__ = ["BandedRidgeCV"]

# Targets whose split predictions are in memory at once while they are scored.
_SCORED_TARGETS = 2048


class BandedRidgeCV(MultiOutputMixin, RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Ridge regression with a penalty for each feature space and target.

    Space i has the penalty ``alpha / gamma_i``. Candidates of gamma are drawn at
    random, each is tried with every alpha, and every target keeps its best pair by
    cross-validation. A gamma of 0 leaves a space out. Grams or kernels of the features
    are formed once, so a candidate passes over neither features nor responses.

    Arrays may be of NumPy, torch or CuPy; those of ``X`` set where the work is done.

    Parameters
    ----------
    alphas : array of shape (n_alphas,)
        In any order, 0 or above.
    n_iter : int, or array of shape (n_candidates, n_spaces)
        Candidates to draw, or the candidates themselves: 0 or above, and above 0 in one
        space at least. ``np.eye(n_spaces)`` tries each space alone.
    concentration : float or sequence of float
        Of the Dirichlet distributions that candidates are drawn from in turn. Small
        values favour one space over others, 1 is uniform, inf gives equal weights. The
        first candidate always has equal weights.
    cv : int, splitter, or list of (train, test)
        As for `RidgeCV`.
    scoring : {"r2", "correlation", "mse"}
        What candidates and penalties are chosen by: the unweighted mean of the folds'
        scores.
    fit_intercept : bool
        Fit an intercept, which is not penalised.
    memory_limit : int, str or None
        Bytes, or a size such as "2GB", that `fit` may allocate above its inputs; it
        sets how many targets are searched at once. Every batch of targets repeats the
        decompositions of all candidates, so a tight limit costs time.
    random_state : int, RandomState or None
        Of the candidates: the same as himalaya's for the same seed.
    spaces : mapping from name to slice, indices or boolean mask, optional
        Columns of each space where ``X`` is one array; every column in exactly one. By
        default one space. Not used where ``X`` is a mapping.
    checkpoint : path-like, optional
        Folder that keeps finished batches of targets, as for `RidgeCV`. Candidates must
        come out the same when the fit goes on: give an int as ``random_state``.

    Attributes
    ----------
    coef_ : array of shape (n_features, n_targets), or (n_features,) for 1-D y
        Of the features as given, not scaled; spaces of a mapping one below the other.
        Exactly 0 for a space with a gamma of 0, and for a masked target.
    intercept_ : array of shape (n_targets,), or float for 1-D y
        The value itself for a constant target, nan for one with missing values.
    best_alphas_ : array of shape (n_targets,)
        nan for a masked target, here and below.
    best_gammas_ : array of shape (n_spaces, n_targets)
        Equal scores go to the earlier candidate, and there to the larger alpha.
    deltas_ : array of shape (n_spaces, n_targets)
        ``log(gamma / alpha)``, as in himalaya; -inf where gamma is 0.
    alphas_per_space_ : array of shape (n_spaces, n_targets)
        ``alpha / gamma``, the penalty of each space; inf where gamma is 0.
    cv_scores_ : array of shape (n_targets,)
        Of the chosen pair, averaged over folds ("mse": negative). Chosen as the best
        of many, it is above what new data will give.
    cv_scores_path_ : array of shape (n_candidates,)
        Mean over targets of the best score after each candidate: still rising, more
        candidates are worth their time.
    valid_targets_ : boolean array of shape (n_targets,)
        False for a target that is constant or has missing or infinite values.
    space_names_ : tuple of str
    space_slices_ : mapping from name to slice or integer array
        Rows of ``coef_`` of each space.
    x_mean_ : array of shape (n_features,)
    y_mean_ : array of shape (n_targets,)
        Training means, 0 without intercept: ``predict(X)`` is ``y_mean_`` plus the sum
        of ``predict(X, split=True)``.
    solver_form_ : str
        "primal" (features by features are decomposed) or "dual" (samples by samples),
        and how penalties are scored, as in `RidgeCV`.
    n_features_in_ : int

    Warns
    -----
    UserWarning
        With the share of targets whose alpha lies at an edge of ``alphas``, if it is
        above 5 %; and with the number of masked targets.

    See Also
    --------
    RidgeCV : One penalty for all features.
    product_measure : What `score` with ``split=True`` gives.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> vision, language = rng.standard_normal((2, 100, 3))
    >>> y = vision @ np.ones((3, 1))
    >>> model = BandedRidgeCV(alphas=[0.01], n_iter=[[0.5, 0.5], [1, 0]])
    >>> model.fit({"vision": vision, "language": language}, y).best_gammas_
    array([[1.],
           [0.]])
    """

    def __init__(
        self,
        alphas: ArrayLike = (0.1, 1.0, 10.0),
        n_iter: int | ArrayLike = 100,
        concentration: float | Sequence[float] = (0.1, 1.0),
        cv: Any = 5,
        scoring: Literal["r2", "correlation", "mse"] = "r2",
        fit_intercept: bool = True,
        memory_limit: int | str | None = None,
        random_state: Any = None,
        spaces: Mapping[str, Any] | None = None,
        checkpoint: str | Path | None = None,
    ) -> None:
        self.alphas = alphas
        self.n_iter = n_iter
        self.concentration = concentration
        self.cv = cv
        self.scoring = scoring
        self.fit_intercept = fit_intercept
        self.memory_limit = memory_limit
        self.random_state = random_state
        self.spaces = spaces
        self.checkpoint = checkpoint

    def fit(self, X: Any, y: Any, groups: ArrayLike | None = None) -> Self:
        """Choose the penalties of each target and fit all samples.

        Parameters
        ----------
        X : mapping from name to array of shape (n_samples, n_features_of_space), or \
array of shape (n_samples, n_features)
            For an array, ``spaces`` says which columns belong together.
        y : array of shape (n_samples, n_targets) or (n_samples,)
            May hold nan if 2-D: such targets are masked. May lie on disk, as for
            `RidgeCV`.
        groups : array of shape (n_samples,), optional
            Run of each sample, handed to the splitter.

        Raises
        ------
        ValueError
            If X or a 1-D y hold nan or infinity, or the numbers of rows differ.
        neuromm.core.UsageError
            If a parameter is wrong, or ``checkpoint`` holds another fit.
        neuromm.core.ResourceLimitError
            If ``memory_limit`` is too small for one target.
        """
        alphas = checked_alphas(self.alphas)
        if self.scoring not in ("r2", "correlation", "mse"):
            raise UsageError(
                f"scoring must be 'r2', 'correlation' or 'mse', got {self.scoring!r}"
            )
        stacked, layout = stacked_spaces(X) if holds_spaces(X) else (None, None)
        x, responses = checked_data(self, X, y, stacked)
        if layout is None:
            layout = SpaceLayout.of_columns(self.spaces, x.shape[1])
        one_dimensional = len(responses.shape) == 1
        if one_dimensional:
            responses = responses.reshape(-1, 1)
        gammas = gamma_candidates(
            self.n_iter, len(layout.names), self.concentration, self.random_state
        )
        rows = np.empty((x.shape[0], 1))  # splitters of scikit-learn count them
        fitted = fit_banded(
            layout.side_by_side(x),
            responses,
            layout.slices,
            as_splits(self.cv, rows, rows[:, 0], groups),
            alphas,
            gammas,
            scoring=self.scoring,
            fit_intercept=self.fit_intercept,
            memory_limit=parse_memory(self.memory_limit),
            is_copy=holds_spaces(X) or layout.order is not None,
            checkpoint=None if self.checkpoint is None else Path(self.checkpoint),
        )
        self._keep(fitted, layout, one_dimensional=one_dimensional)
        warn_of_edges(host_array(fitted.best_alphas), alphas)
        warn_of_masked(host_array(fitted.valid_targets))
        return self

    def predict(self, X: Any, split: bool = False) -> Any:
        """Predict responses.

        Parameters
        ----------
        X : mapping or array, as in `fit`
        split : bool
            What each space adds, instead of their sum.

        Returns
        -------
        prediction : array of shape (n_samples, n_targets), or (n_samples,) for 1-D y; \
with ``split``, (n_spaces, n_samples, n_targets) or (n_spaces, n_samples)
            nan for a target that had missing values, the constant for one that had.
            With ``split``, ``(X_i - training mean) @ coef_i``: the sum over spaces is
            the prediction less ``y_mean_``. Of the library of ``coef_``.
        """
        check_is_fitted(self)
        x = self._features(X)
        if not split:
            if is_device_array(self.coef_):
                return x @ self.coef_ + self.intercept_
            # The sum keeps the precision of the coefficients for 1-D y too.
            return x @ self.coef_ + np.asarray(self.intercept_, self.coef_.dtype)
        return self._contributions(x, self.coef_)

    def score(self, X: Any, y: Any, split: bool = False) -> Any:
        """Mean R2 over targets; or R2 of each target divided among spaces.

        Parameters
        ----------
        X : mapping or array, as in `fit`
        y : array of shape (n_samples, n_targets) or (n_samples,)
        split : bool

        Returns
        -------
        r2 : float; with ``split``, array of shape (n_spaces, n_targets), NumPy
            A float is the mean of `r2_score` over targets that are not masked and not
            constant in ``y``; nan if none is left. With ``split``, the product measure
            (`product_measure`), nan for such targets. Its sum over spaces is the R2
            about the mean of the **training** responses, ``1 - sum (y - yhat)^2 / sum
            (y - y_mean_)^2``, at least that of `r2_score`, which is about the mean of
            ``y``.
        """
        if not split:
            truth, prediction = host_array(y), host_array(self.predict(X))
            r2 = np.atleast_1d(r2_score(np.asarray(truth, dtype=float), prediction))
            r2 = r2[host_array(self.valid_targets_) & ~np.isnan(r2)]
            return float(r2.mean()) if r2.size else float("nan")
        check_is_fitted(self)
        x = self._features(X)
        coef = self.coef_ if len(self.coef_.shape) == 2 else self.coef_[:, None]
        truth = y if is_device_array(y) else np.asarray(y)
        truth = truth.reshape(truth.shape[0], -1)
        if is_numpy(truth) != is_numpy(coef):
            truth = as_like(truth, coef) if is_numpy(truth) else host_array(truth)
        if tuple(truth.shape) != (x.shape[0], coef.shape[1]):
            raise ValueError(
                f"y must have shape {(x.shape[0], coef.shape[1])}, one row per sample "
                f"of X and one column per target, got {tuple(truth.shape)}"
            )
        shares = np.empty((len(self.space_names_), coef.shape[1]))
        for start in range(0, coef.shape[1], _SCORED_TARGETS):
            here = slice(start, start + _SCORED_TARGETS)
            shares[:, here] = product_measure(
                SecondMoments.of(
                    truth[:, here] - self.y_mean_[here],
                    self._contributions(x, coef[:, here]),
                )
            )
        return shares

    def _features(self, X: Any) -> Array:
        """Features of samples to predict, in the order and library of ``coef_``."""
        on_host = not is_device_array(self.coef_)
        if holds_spaces(X):
            x, layout = stacked_spaces(self._layout.in_order(X))
            if layout.slices != self._layout.slices:
                sizes = [one.stop - one.start for one in self._layout.slices]
                raise ValueError(
                    f"feature spaces {', '.join(self.space_names_)} had {sizes} "
                    f"columns in fit, got "
                    f"{[one.stop - one.start for one in layout.slices]}"
                )
            x = self._layout.as_given(x.T).T if self._layout.order is not None else x
            return host_array(x) if on_host else x
        if not on_host:
            return checked_matrix("X", X)
        if is_device_array(X):
            X = host_array(X)
        return validate_data(self, X, reset=False, dtype=[np.float64, np.float32])

    def _contributions(self, x: Array, coef: Array) -> Array:
        xp = namespace(x)
        x = x - self.x_mean_
        parts = []
        for rows in self.space_slices_.values():
            where = rows if isinstance(rows, slice) else as_like(rows, x)
            parts.append(x[:, where] @ coef[where])
        return xp.stack(parts)

    def _keep(
        self, fitted: BandedFit, layout: SpaceLayout, *, one_dimensional: bool
    ) -> None:
        xp = namespace(fitted.best_alphas)
        coef = layout.as_given(fitted.coef)
        self.coef_ = coef[:, 0] if one_dimensional else coef
        self.intercept_ = (
            float(fitted.intercept[0]) if one_dimensional else fitted.intercept
        )
        self.x_mean_ = layout.as_given(fitted.x_mean)
        self.y_mean_ = fitted.y_mean
        self.best_alphas_ = fitted.best_alphas
        self.best_gammas_ = fitted.best_gammas
        with np.errstate(divide="ignore", invalid="ignore"):
            self.deltas_ = xp.log(fitted.best_gammas / fitted.best_alphas)
            self.alphas_per_space_ = fitted.best_alphas / fitted.best_gammas
        self.cv_scores_ = fitted.cv_scores
        self.cv_scores_path_ = fitted.progress
        self.valid_targets_ = fitted.valid_targets
        self.solver_form_ = fitted.solver_form
        self.space_names_ = layout.names
        self.space_slices_: dict[str, slice | NDArray[np.intp]] = {
            name: columns if layout.order is None else layout.order[columns]
            for name, columns in zip(layout.names, layout.slices, strict=True)
        }
        self._layout = layout
