"""Scores of predictions, a value a target."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuromm.kernels import column_correlation, column_r2, is_constant

__all__ = ["correlation_score", "r2_score"]


def r2_score(y_true: ArrayLike, y_pred: ArrayLike) -> NDArray[np.floating]:
    """Explained variance R2 of each target.

    Parameters
    ----------
    y_true, y_pred : arrays of shape (n_samples, n_targets) or (n_samples,)
        Of several runs or folds: concatenated.

    Returns
    -------
    r2 : array of shape (n_targets,)
        Against the mean of ``y_true``, so the mean of the held-out data itself, as in
        scikit-learn and himalaya: at most 1, and negative where a prediction is worse
        than that mean. nan for a target that is constant or holds nan (himalaya
        gives 0 for a constant).
    """
    truth, prediction = _same_shape(y_true, y_pred)
    r2: NDArray[np.floating] = column_r2(truth, prediction)
    return r2


def correlation_score(y_true: ArrayLike, y_pred: ArrayLike) -> NDArray[np.floating]:
    """Pearson correlation of each target with its prediction.

    Parameters
    ----------
    y_true, y_pred : arrays of shape (n_samples, n_targets) or (n_samples,)

    Returns
    -------
    r : array of shape (n_targets,)
        In [-1, 1]. 0 for a constant prediction, as of a model shrunken to its
        intercept; nan for a target that is constant or holds nan.
    """
    truth, prediction = _same_shape(y_true, y_pred)
    r = column_correlation(truth, prediction)
    told = is_constant(prediction) & ~is_constant(truth) & np.isfinite(truth).all(0)
    return np.where(told, np.zeros((), r.dtype), r)


def _same_shape(
    y_true: ArrayLike, y_pred: ArrayLike
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    truth, prediction = np.asarray(y_true), np.asarray(y_pred)
    if truth.shape != prediction.shape:
        raise ValueError(
            "y_true and y_pred must have the same shape (n_samples, n_targets), got "
            f"{truth.shape} and {prediction.shape}"
        )
    return truth, prediction
