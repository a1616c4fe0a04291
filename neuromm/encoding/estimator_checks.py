"""What estimators of this package ask of their input, and tell about a fit."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_array, validate_data

from neuromm.core import UsageError
from neuromm.encoding.ridge_fit import edge_shares
from neuromm.kernels.arrays import Array, is_device_array, is_numpy, namespace

__all__ = [
    "checked_alphas",
    "checked_data",
    "checked_matrix",
    "is_stored",
    "warn_of_edges",
    "warn_of_masked",
]

# Above this share of targets at one edge, the grid of alphas is too narrow.
_EDGE_SHARE = 0.05


def checked_alphas(alphas: ArrayLike) -> NDArray[np.float64]:
    """Penalties of a grid, of shape (n_alphas,).

    Raises
    ------
    neuromm.core.UsageError
        If they are not finite numbers of 0 or above.
    """
    checked = np.atleast_1d(np.asarray(alphas, dtype=np.float64))
    if checked.ndim != 1 or not checked.size or not (checked >= 0).all():
        raise UsageError(f"alphas must be numbers of 0 or above, got {alphas!r}")
    if not np.isfinite(checked).all():
        raise UsageError(f"alphas must be finite, got {alphas!r}")
    return checked


def checked_matrix(name: str, x: Array) -> Array:
    """An array of another library than NumPy: 2-D, of floating point, finite.

    Raises
    ------
    ValueError
        If it is not.
    """
    xp = namespace(x)
    if len(x.shape) != 2 or x.dtype not in (xp.float32, xp.float64):
        raise ValueError(
            f"{name} must be 2-D, float32 or float64, got shape {tuple(x.shape)} and "
            f"{x.dtype}"
        )
    if not bool(xp.all(xp.isfinite(x))):
        raise ValueError(f"{name} contains NaN or infinity")
    return x


def checked_data(
    estimator: BaseEstimator, X: Any, y: Any, stacked: Array | None = None
) -> tuple[Array, Any]:
    """Features and responses with as many rows; those of NumPy in one precision.

    Parameters
    ----------
    estimator : BaseEstimator
        Gets ``n_features_in_``, and the names of features where there are any.
    X : array of shape (n_samples, n_features)
    y : array of shape (n_samples, n_targets) or (n_samples,)
        May hold nan if 2-D. Stored responses (`is_stored`) are not read.
    stacked : array of shape (n_samples, n_features), optional
        Checked features, instead of ``X``.

    Raises
    ------
    ValueError
        If X or a 1-D y hold nan or infinity, or the numbers of rows differ.
    neuromm.core.UsageError
        If there are no targets.
    """
    x = checked_matrix("X", X) if stacked is None and is_device_array(X) else stacked
    if x is not None:
        estimator.n_features_in_ = int(x.shape[1])
    of_features: dict[str, Any] = {
        "dtype": [np.float64, np.float32],
        "ensure_min_samples": 2,
    }
    if is_stored(y):
        if x is None:
            x = validate_data(estimator, X, **of_features)
    else:
        shape = np.asarray(y).shape
        if len(shape) == 2 and not shape[1]:
            raise UsageError(f"y has no targets: its shape is {shape}")
        of_responses: dict[str, Any] = {
            "dtype": of_features["dtype"],
            "ensure_2d": False,
            "ensure_all_finite": len(shape) == 1,
        }
        if x is None:
            x, y = validate_data(
                estimator, X, y, validate_separately=(of_features, of_responses)
            )
        else:
            y = check_array(y, input_name="y", **of_responses)
        if is_numpy(x):
            dtype = np.result_type(x, y)
            x, y = x.astype(dtype, copy=False), y.astype(dtype, copy=False)
    if len(y.shape) not in (1, 2):
        raise ValueError(
            f"y must be 1-D or 2-D, got an array of shape {tuple(y.shape)}"
        )
    if x.shape[0] != y.shape[0]:
        raise ValueError(
            "X and y must have one row per sample: inconsistent numbers of samples, "
            f"got {x.shape[0]} and {y.shape[0]} rows. In fMRI a row is one TR: were "
            "the same dummy volumes dropped from both?"
        )
    return x, y


def is_stored(y: Any) -> bool:
    """Whether targets are read in batches: they lie on disk, or on a device."""
    if isinstance(y, np.memmap) or is_device_array(y):
        return True
    # A list, a table or a sparse matrix is an array for scikit-learn to check.
    return callable(getattr(y, "read", None)) or (
        type(y).__module__.partition(".")[0] in ("h5py", "zarr")
    )


def warn_of_edges(
    best_alphas: NDArray[np.float64], alphas: NDArray[np.float64]
) -> None:
    """Warn if many targets chose the smallest or the largest penalty of the grid."""
    smallest, largest = edge_shares(best_alphas, alphas)
    if smallest > _EDGE_SHARE:
        warnings.warn(
            f"{smallest:.0%} of the targets chose the smallest alpha, "
            f"{alphas.min():g}: a smaller one may predict them better",
            stacklevel=3,
        )
    if largest > _EDGE_SHARE:
        warnings.warn(
            f"{largest:.0%} of the targets chose the largest alpha, {alphas.max():g}: "
            "a larger one may predict them better, unless the features tell nothing "
            "about them",
            stacklevel=3,
        )


def warn_of_masked(valid: NDArray[np.bool_]) -> None:
    """Warn of targets that were not fitted."""
    if not valid.all():
        warnings.warn(
            f"{int((~valid).sum())} of {len(valid)} targets are constant or have "
            "missing values and were not fitted: see valid_targets_",
            stacklevel=3,
        )
