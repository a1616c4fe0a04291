"""Ridge regression with a cross-validated penalty for each target.

References
----------
Dupre la Tour et al. (2022) Feature-space selection with banded ridge regression.
NeuroImage 264:119728 (voxelwise penalties, and the conventions of himalaya).
"""

from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from neuromm.core import UsageError
from neuromm.encoding.estimator_checks import (
    checked_alphas,
    checked_data,
    checked_matrix,
    warn_of_edges,
    warn_of_masked,
)
from neuromm.encoding.memory import parse_memory
from neuromm.encoding.ridge_fit import fit_ridge
from neuromm.encoding.scores import r2_score
from neuromm.encoding.splitters import as_splits
from neuromm.kernels import Solver
from neuromm.kernels.arrays import host_array, is_device_array

__all__ = ["RidgeCV"]


class RidgeCV(MultiOutputMixin, RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Ridge regression of many targets, each with its own penalty.

    Exact, for any number of targets in bounded memory. Of the ways to solve it the one
    that takes fewest operations for these sizes is used, and named in `solver_form_`.
    Arrays may be of NumPy, torch or CuPy; those of ``X`` set where the work is done.

    Parameters
    ----------
    alphas : array of shape (n_alphas,)
        Penalties to choose from, in any order, 0 or above. Their scale is that of the
        eigenvalues of X'X, which grow with the number of samples.
    cv : int, splitter, or list of (train, test)
        An int gives contiguous, unshuffled folds (scikit-learn's KFold). `RunKFold`
        and `BlockedKFold` keep runs together and gaps in time.
    scoring : {"r2", "correlation", "mse"}
        What the penalty is chosen by: the unweighted mean of the folds' scores.
        "correlation" ignores scale and tells large penalties apart less sharply.
    fit_intercept : bool
        Fit an intercept, which is not penalised.
    alpha_per_target : bool
        False takes one penalty for all targets, the best by the mean of their scores.
    memory_limit : int, str or None
        Bytes, or a size such as "2GB", that `fit` may allocate above its inputs; it
        sets how many targets are handled at once. None takes fast batches.
    solver : str
        ``"auto"``, or the name of a way to solve it, as in `solver_form_`.
    fracs : array of shape (n_fracs,), optional
        Choose among fractions, in (0, 1], of the length of least-squares weights
        instead of ``alphas``: a grid that suits features of any scale (Rokem & Kay
        2020). Each fraction is scored from its own predictions, which takes longer
        than a grid of alphas.
    checkpoint : path-like, optional
        Folder that keeps finished batches of targets. A fit that was killed goes on
        from there, and attributes are read-only memmaps of its files.

    Attributes
    ----------
    coef_ : array of shape (n_features, n_targets), or (n_features,) for 1-D y
        As in himalaya; **scikit-learn has the transpose**. 0 for a masked target.
    intercept_ : array of shape (n_targets,), or float for 1-D y
        The value itself for a constant target, nan for one with missing values, so
        `predict` returns that.
    best_alphas_ : array of shape (n_targets,)
        Ties go to the larger one; nan for a masked target.
    cv_scores_ : array of shape (n_targets,)
        Score of that penalty, averaged over folds ("mse": negative). Higher is better;
        nan for a masked target. A fold in which a target is constant has no r2 or
        correlation and does not count.
    valid_targets_ : boolean array of shape (n_targets,)
        False for a target that was masked: constant, or with missing or infinite
        values. Others are not affected by it.
    solver_form_ : str
        "primal" (features by features are decomposed) or "dual" (samples by samples),
        and how penalties are scored: "divided-difference" (one product for all),
        "direct" (one prediction each), "hold-out" (from one decomposition of all
        samples) or "cholesky" (one factor each); such as "primal-divided-difference".
    best_fracs_ : array of shape (n_targets,)
        Only with ``fracs``; ``best_alphas_`` are then those of the final fit.
    n_features_in_ : int

    Warns
    -----
    UserWarning
        With the share of targets whose penalty lies at an edge of ``alphas``, if it is
        above 5 %; and with the number of masked targets.

    See Also
    --------
    neuromm.kernels.ridge_cost : The count of operations that chooses the form.

    Examples
    --------
    >>> x = np.random.default_rng(0).standard_normal((100, 3))
    >>> y = x @ np.array([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    >>> RidgeCV(alphas=[1e-3, 1.0]).fit(x, y).coef_.round(2)
    array([[1., 0.],
           [0., 2.],
           [0., 0.]])
    """

    def __init__(
        self,
        alphas: ArrayLike = (0.1, 1.0, 10.0),
        cv: Any = 5,
        scoring: Literal["r2", "correlation", "mse"] = "r2",
        fit_intercept: bool = True,
        alpha_per_target: bool = True,
        memory_limit: int | str | None = None,
        solver: str = "auto",
        fracs: ArrayLike | None = None,
        checkpoint: str | Path | None = None,
    ) -> None:
        self.alphas = alphas
        self.cv = cv
        self.scoring = scoring
        self.fit_intercept = fit_intercept
        self.alpha_per_target = alpha_per_target
        self.memory_limit = memory_limit
        self.solver = solver
        self.fracs = fracs
        self.checkpoint = checkpoint

    def fit(self, X: Any, y: Any, groups: ArrayLike | None = None) -> Self:
        """Choose the penalty of each target and fit all samples.

        Parameters
        ----------
        X : array of shape (n_samples, n_features)
            Of NumPy, torch or CuPy.
        y : array of shape (n_samples, n_targets) or (n_samples,)
            May hold nan if 2-D: such targets are masked. Larger than memory, it may be
            a memmap, an ``h5py.Dataset``, a ``zarr.Array`` or
            `neuromm.encoding.NiftiTargets`: columns are read once, in batches.
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
        x, responses = checked_data(self, X, y)
        alphas = checked_alphas(self.alphas)
        if self.scoring not in ("r2", "correlation", "mse"):
            raise UsageError(
                f"scoring must be 'r2', 'correlation' or 'mse', got {self.scoring!r}"
            )
        one_dimensional = len(responses.shape) == 1
        if one_dimensional:
            responses = responses.reshape(-1, 1)
        rows = np.empty((x.shape[0], 1))  # splitters of scikit-learn count them
        fitted = fit_ridge(
            x,
            responses,
            as_splits(self.cv, rows, rows[:, 0], groups),
            alphas,
            scoring=self.scoring,
            fit_intercept=self.fit_intercept,
            alpha_per_target=self.alpha_per_target,
            memory_limit=parse_memory(self.memory_limit),
            solver=None if self.solver == "auto" else _named_solver(self.solver),
            fractions=None if self.fracs is None else _checked_fractions(self.fracs),
            checkpoint=None if self.checkpoint is None else Path(self.checkpoint),
        )
        self.coef_ = fitted.coef[:, 0] if one_dimensional else fitted.coef
        self.intercept_ = (
            float(fitted.intercept[0]) if one_dimensional else fitted.intercept
        )
        self.best_alphas_ = fitted.best_alphas
        self.cv_scores_ = fitted.cv_scores
        self.valid_targets_ = fitted.valid_targets
        self.solver_form_ = fitted.solver_form
        if fitted.best_fracs is not None:
            self.best_fracs_ = fitted.best_fracs
        else:
            warn_of_edges(host_array(fitted.best_alphas), alphas)
        warn_of_masked(host_array(fitted.valid_targets))
        return self

    def predict(self, X: Any) -> Any:
        """Predict responses.

        Returns
        -------
        prediction : array of shape (n_samples, n_targets), or (n_samples,) for 1-D y
            nan for a target that had missing values, the constant for one that had.
            Of the library of ``coef_``.
        """
        check_is_fitted(self)
        if is_device_array(self.coef_):
            x = checked_matrix("X", X)
            return x @ self.coef_ + self.intercept_
        x = validate_data(
            self, host_array(X) if is_device_array(X) else X, reset=False,
            dtype=[np.float64, np.float32],
        )  # fmt: skip
        # The sum keeps the precision of the coefficients for 1-D y too.
        intercept = np.asarray(self.intercept_, dtype=self.coef_.dtype)
        return x @ self.coef_ + intercept

    def score(self, X: ArrayLike, y: ArrayLike) -> float:
        """Mean R2 over targets, as scikit-learn's regressors give it.

        Parameters
        ----------
        X : array of shape (n_samples, n_features)
        y : array of shape (n_samples, n_targets) or (n_samples,)

        Returns
        -------
        r2 : float
            Masked targets, and those that are constant in ``y``, do not count; nan if
            no target is left. `neuromm.encoding.r2_score` gives it a target.
        """
        y, prediction = host_array(y), host_array(self.predict(X))
        r2 = np.atleast_1d(r2_score(np.asarray(y, dtype=float), prediction))
        r2 = r2[host_array(self.valid_targets_) & ~np.isnan(r2)]
        return float(r2.mean()) if r2.size else float("nan")


def _checked_fractions(fractions: ArrayLike) -> NDArray[np.float64]:
    checked = np.atleast_1d(np.asarray(fractions, dtype=np.float64))
    inside = (checked > 0) & (checked <= 1)
    if checked.ndim != 1 or not checked.size or not inside.all():
        raise UsageError(f"fracs must be numbers in (0, 1], got {fractions!r}")
    return checked


def _named_solver(name: str) -> Solver:
    try:
        return Solver.named(name)
    except ValueError as error:
        raise UsageError(str(error)) from error
