"""Statistics of the columns of two matrices, a value a column.

Products are formed in the precision of the data and summed in float64, in blocks of
rows: a float32 sum over a long recording would lose digits.

References
----------
Chan, Golub & LeVeque (1983) Algorithms for computing the sample variance.
Am. Stat. 37:242-247 (the merge of moments).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuromm.kernels import gpu_columns
from neuromm.kernels.arrays import Array, host_array, namespace, runs_kernels

__all__ = [
    "Moments",
    "column_correlation",
    "column_dot",
    "column_mean",
    "column_r2",
    "is_constant",
]

# A float32 sum of so few products errs by less than 1e-5 of itself.
_ROWS_PER_SUM = 128


def column_dot(x: Array, y: Array) -> Array:
    """Inner product of each column of x with the same column of y.

    Parameters
    ----------
    x, y : arrays of shape (n_samples, ...)

    Returns
    -------
    products : array of shape (...), float64
    """
    if not isinstance(x, np.ndarray):
        xp = namespace(x, y)
        return xp.sum(x * y, axis=0, dtype=xp.float64)
    total = np.zeros(x.shape[1:])
    for start in range(0, len(x), _ROWS_PER_SUM):
        rows = slice(start, start + _ROWS_PER_SUM)
        total += np.einsum("i...,i...->...", x[rows], y[rows])
    return total


def column_mean(x: Array) -> Array:
    """Mean of each column, summed in float64.

    Parameters
    ----------
    x : array of shape (n_samples, ...)

    Returns
    -------
    mean : array of shape (...), float64
    """
    if isinstance(x, np.ndarray):
        return np.asarray(x.mean(axis=0, dtype=np.float64))
    xp = namespace(x)
    return xp.sum(x, axis=0, dtype=xp.float64) / x.shape[0]


def is_constant(x: Array) -> NDArray[np.bool_]:
    """Whether all values of a column are the same.

    Compared exactly: the variance of a constant is not 0 after rounding of its mean.

    Parameters
    ----------
    x : array of shape (n_samples, ...)

    Returns
    -------
    constant : boolean array of shape (...)
        False for a column that holds nan.
    """
    constant: NDArray[np.bool_] = np.asarray(x.max(axis=0) == x.min(axis=0))
    return constant


def column_correlation(x: Array, y: Array) -> Array:
    """Pearson correlation of each column of x with the same column of y.

    Parameters
    ----------
    x, y : arrays of shape (n_samples, n_columns) or (n_samples,)

    Returns
    -------
    correlation : array of shape (n_columns,), in the precision of the data
        In [-1, 1]; nan where a column is constant or holds nan.
    """
    if runs_kernels(x) and x.ndim == 2:
        return gpu_columns.column_correlation(x, y)
    x, y = np.asarray(x), np.asarray(y)
    undefined = is_constant(x) | is_constant(y)
    x, y = _centred(x), _centred(y)
    norm = np.sqrt(column_dot(x, x)) * np.sqrt(column_dot(y, y))
    with np.errstate(invalid="ignore", divide="ignore"):
        r = np.where(undefined, np.nan, column_dot(x, y) / norm)
    return np.clip(r, -1, 1).astype(np.result_type(x, y))


def column_r2(y: Array, prediction: Array) -> Array:
    """Share of the variance of each column that a prediction explains.

    Parameters
    ----------
    y, prediction : arrays of shape (n_samples, n_columns) or (n_samples,)

    Returns
    -------
    r2 : array of shape (n_columns,), in the precision of the data
        1 - sum (y - prediction)^2 / sum (y - mean y)^2: at most 1, negative where the
        prediction is worse than the mean of ``y``; nan where ``y`` is constant.
    """
    if runs_kernels(y) and y.ndim == 2:
        return gpu_columns.column_r2(y, prediction)
    y, prediction = np.asarray(y), np.asarray(prediction)
    error = y - prediction
    deviation = _centred(y)
    with np.errstate(invalid="ignore", divide="ignore"):
        r2 = 1 - column_dot(error, error) / column_dot(deviation, deviation)
    return np.where(is_constant(y), np.nan, r2).astype(error.dtype)


@dataclass(frozen=True)
class Moments:
    """Moments of responses and predictions that can be merged over folds.

    Correlation and R2 of the concatenated folds follow without keeping a prediction.

    Attributes
    ----------
    n_samples : int
    mean : array of shape (2, n_targets)
        Of responses (row 0) and predictions (row 1).
    sum_squares : array of shape (2, n_targets)
        Sums of squared deviations from ``mean``.
    cross : array of shape (n_targets,)
        Sum of products of deviations.
    squared_error : array of shape (n_targets,)
        Sum of (response - prediction)^2.
    lowest, highest : arrays of shape (2, n_targets)
        Extremes, by which a constant column is told exactly.
    """

    n_samples: int
    mean: NDArray[np.float64]
    sum_squares: NDArray[np.float64]
    cross: NDArray[np.float64]
    squared_error: NDArray[np.float64]
    lowest: NDArray[np.float64]
    highest: NDArray[np.float64]

    @classmethod
    def of(cls, y: Array, prediction: Array) -> "Moments":
        """Moments of one fold; both arrays have shape (n_samples, n_targets)."""
        if runs_kernels(y):
            found = host_array(gpu_columns.column_moments(y, prediction))
            return cls(
                n_samples=len(y),
                mean=found[:2],
                sum_squares=found[2:4],
                cross=found[4],
                squared_error=found[5],
                lowest=found[6:8],
                highest=found[8:],
            )
        centred_y, centred_prediction = _centred(y), _centred(prediction)
        error = y - prediction
        return cls(
            n_samples=len(y),
            mean=np.stack([_mean(y), _mean(prediction)]),
            sum_squares=np.stack(
                [
                    column_dot(centred_y, centred_y),
                    column_dot(centred_prediction, centred_prediction),
                ]
            ),
            cross=column_dot(centred_y, centred_prediction),
            squared_error=column_dot(error, error),
            lowest=np.stack([y.min(axis=0), prediction.min(axis=0)]).astype(float),
            highest=np.stack([y.max(axis=0), prediction.max(axis=0)]).astype(float),
        )

    def merge(self, other: "Moments") -> "Moments":
        """Moments of both sets of samples together."""
        n_samples = self.n_samples + other.n_samples
        step = other.mean - self.mean
        weight = self.n_samples * other.n_samples / n_samples
        return Moments(
            n_samples=n_samples,
            mean=self.mean + step * (other.n_samples / n_samples),
            sum_squares=self.sum_squares + other.sum_squares + weight * step**2,
            cross=self.cross + other.cross + weight * step[0] * step[1],
            squared_error=self.squared_error + other.squared_error,
            lowest=np.minimum(self.lowest, other.lowest),
            highest=np.maximum(self.highest, other.highest),
        )

    def correlation(self) -> NDArray[np.float64]:
        """Pearson r: nan for a constant response, 0 for a constant prediction."""
        norm = np.sqrt(self.sum_squares[0]) * np.sqrt(self.sum_squares[1])
        constant = self.lowest == self.highest
        with np.errstate(invalid="ignore", divide="ignore"):
            r = np.where(constant[1], 0.0, self.cross / norm)
        return np.clip(np.where(constant[0], np.nan, r), -1, 1)

    def r2(self) -> NDArray[np.float64]:
        """R2 against the mean of the responses; nan for a constant response."""
        constant = self.lowest[0] == self.highest[0]
        with np.errstate(invalid="ignore", divide="ignore"):
            r2 = 1 - self.squared_error / self.sum_squares[0]
        return np.where(constant, np.nan, r2)


def _mean(x: Array) -> NDArray[np.float64]:
    return np.asarray(x.mean(axis=0, dtype=np.float64))


def _centred(x: Array) -> Array:
    dtype = x.dtype if np.issubdtype(x.dtype, np.floating) else np.dtype(float)
    with np.errstate(invalid="ignore"):  # infinities become nan, as they should
        return x - _mean(x).astype(dtype)
