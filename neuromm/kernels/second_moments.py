"""Second moments of responses and of the predictions of several feature spaces.

The product measure and stacking weigh predictions of S feature spaces against each
other. All they need of n held-out samples are the (S + 1)(S + 2) / 2 products of
responses and predictions for each target, so that no prediction is kept:

    products[i, j] = sum_t (z_ti - mean z_i) (z_tj - mean z_j)

with z_0 = y and z_i the prediction of space i. Products are formed and summed in
float64, in blocks of rows and targets, whatever the precision of the data.

References
----------
Chan, Golub & LeVeque (1983) Algorithms for computing the sample variance.
Am. Stat. 37:242-247 (the merge of moments).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromm.kernels.arrays import Array, host_array, is_numpy, namespace

__all__ = ["SecondMoments"]

Floats = NDArray[np.float64]

# Numbers in a block: 4 MB of float64 stay in the cache of a core; on a GPU larger
# blocks save launches.
_BLOCK_ON_HOST, _BLOCK_ON_DEVICE = 2**19, 2**24
_ROWS = 256


@dataclass(frozen=True)
class SecondMoments:
    """Moments of responses and of S predictions of each, mergeable over folds.

    Attributes
    ----------
    n_samples : int
    mean : array of shape (1 + n_spaces, n_targets)
        Of the responses (row 0) and of the prediction of each space.
    products : array of shape ((n_spaces + 1) (n_spaces + 2) / 2, n_targets)
        Sums of products of deviations from ``mean``: upper triangle, row by row, so
        first of responses with responses, then with each prediction.
    lowest, highest : arrays of shape (n_targets,)
        Extremes of the responses, by which a constant target is told exactly.

    Notes
    -----
    nan in responses or in a prediction makes the moments of that target nan, and of no
    other.
    """

    n_samples: int
    mean: Floats
    products: Floats
    lowest: Floats
    highest: Floats

    @classmethod
    def of(cls, y: Array, predictions: Array) -> "SecondMoments":
        """Moments of one fold.

        Parameters
        ----------
        y : array of shape (n_samples, n_targets)
            Held-out responses.
        predictions : array of shape (n_spaces, n_samples, n_targets)
            Of the same library and on the same device as ``y``.

        Returns
        -------
        moments : SecondMoments
            In NumPy, wherever the data lie.

        Raises
        ------
        ValueError
            If the shapes do not belong together or there is no sample or no space.
        """
        _check_shapes(tuple(y.shape), tuple(predictions.shape))
        n_spaces, n_samples, n_targets = predictions.shape
        mean = np.empty((n_spaces + 1, n_targets))
        products = np.empty(((n_spaces + 1) * (n_spaces + 2) // 2, n_targets))
        extremes = np.empty((2, n_targets))
        block = _BLOCK_ON_HOST if is_numpy(y) else _BLOCK_ON_DEVICE
        width = max(1, block // ((n_spaces + 1) * min(_ROWS, n_samples)))
        for start in range(0, n_targets, width):
            here = slice(start, start + width)
            part = _moments_of_columns(y[:, here], predictions[:, :, here])
            mean[:, here], products[:, here], extremes[:, here] = part
        return cls(n_samples, mean, products, extremes[0], extremes[1])

    @property
    def n_spaces(self) -> int:
        """Number of feature spaces."""
        return len(self.mean) - 1

    @property
    def n_targets(self) -> int:
        """Number of targets."""
        return int(self.mean.shape[1])

    def merge(self, other: "SecondMoments") -> "SecondMoments":
        """Moments of both sets of samples together.

        Raises
        ------
        ValueError
            If they are of different numbers of spaces or targets.
        """
        if self.mean.shape != other.mean.shape:
            raise ValueError(
                "moments to be merged must be of the same spaces and targets, got "
                f"{self.n_spaces} spaces and {self.n_targets} targets, and "
                f"{other.n_spaces} and {other.n_targets}"
            )
        n_samples = self.n_samples + other.n_samples
        step = other.mean - self.mean
        weight = self.n_samples * (other.n_samples / n_samples)
        i, j = np.triu_indices(len(step))
        return SecondMoments(
            n_samples=n_samples,
            mean=self.mean + step * (other.n_samples / n_samples),
            products=self.products + other.products + weight * step[i] * step[j],
            lowest=np.minimum(self.lowest, other.lowest),
            highest=np.maximum(self.highest, other.highest),
        )

    def of_targets(self, targets: slice | NDArray[Any]) -> "SecondMoments":
        """Moments of some of the targets.

        Parameters
        ----------
        targets : slice, or array of indices or booleans
        """
        return SecondMoments(
            n_samples=self.n_samples,
            mean=self.mean[:, targets],
            products=self.products[:, targets],
            lowest=self.lowest[targets],
            highest=self.highest[targets],
        )

    def total_sum_squares(self) -> Floats:
        """Sum of squared deviations of the responses from their own mean.

        Returns
        -------
        sum_squares : array of shape (n_targets,)
            nan for a constant target, which no R2 is defined for.
        """
        return np.where(self.lowest == self.highest, np.nan, self.products[0])

    def products_about_zero(self) -> Floats:
        """Sums of products of what was given, without centring.

        Returns
        -------
        products : array of shape (1 + n_spaces, 1 + n_spaces, n_targets)
            ``sum_t z_ti z_tj``; index 0 is the responses.
        """
        level = self.n_samples * self.mean[:, None] * self.mean[None]
        return self._square(self.products) + level

    def residual_products(self) -> Floats:
        """Mean products of the errors of the predictions, each taken as complete.

        Returns
        -------
        products : array of shape (n_spaces, n_spaces, n_targets)
            ``mean_t (y_t - yhat_ti) (y_t - yhat_tj)``. On the diagonal the mean
            squared error of each space, never negative.

        Notes
        -----
        Offsets are subtracted before they are squared: responses far from zero cost no
        digits.
        """
        centred = self._square(self.products) / self.n_samples
        with_y, bias = centred[0, 1:], self.mean[0] - self.mean[1:]
        errors: Floats = centred[1:, 1:] + centred[0, 0] - with_y[:, None] - with_y
        errors += bias[:, None] * bias
        space = np.arange(self.n_spaces)
        # A perfect prediction can leave -1e-17 here.
        errors[space, space] = np.maximum(errors[space, space], 0)
        return errors

    def joint_r2(self) -> Floats:
        """R2 of the sum of all predictions, about zero.

        Returns
        -------
        r2 : array of shape (n_targets,)
            ``1 - sum (y - sum_i yhat_i)^2 / sum y^2`` of the responses as they were
            given: with the training mean subtracted, the R2 over a model that
            predicts that mean. nan for a constant target.
        """
        products = self.products_about_zero()
        sign = np.r_[1.0, -np.ones(self.n_spaces)]
        squared_error = np.einsum("i,j,ijt->t", sign, sign, products)
        with np.errstate(invalid="ignore", divide="ignore"):
            r2 = 1 - squared_error / products[0, 0]
        return np.where(self.lowest == self.highest, np.nan, r2)

    def space_r2(self) -> Floats:
        """R2 of the prediction of each space alone, taken as complete.

        Returns
        -------
        r2 : array of shape (n_spaces, n_targets)
            ``1 - sum (y - yhat_i)^2 / sum (y - mean y)^2``, as of `column_r2`; nan for
            a constant target.
        """
        space = np.arange(self.n_spaces)
        squared_error = self.n_samples * self.residual_products()[space, space]
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(1 - squared_error / self.total_sum_squares())

    def _square(self, packed: Floats) -> Floats:
        """Symmetric matrices of their packed upper triangles."""
        size = len(self.mean)
        i, j = np.triu_indices(size)
        square = np.empty((size, size, packed.shape[1]))
        square[i, j] = square[j, i] = packed
        return square


def _moments_of_columns(
    y: Array, predictions: Array
) -> tuple[Floats, Floats, tuple[Floats, Floats]]:
    """Means, packed products and extremes of y of so many targets as fit a block."""
    xp = namespace(y, predictions)
    n_samples = y.shape[0]
    total: Any = 0.0
    for block in _row_blocks(xp, y, predictions):
        total = total + xp.sum(block, axis=1)
    mean = total / n_samples
    sums: list[Any] = [0.0] * (mean.shape[0] * (mean.shape[0] + 1) // 2)
    pairs = list(zip(*np.triu_indices(mean.shape[0]), strict=True))
    for block in _row_blocks(xp, y, predictions):
        with np.errstate(invalid="ignore"):  # infinities become nan, as they should
            block = block - mean[:, None, :]
        for k, (i, j) in enumerate(pairs):
            sums[k] = sums[k] + _column_products(xp, block[int(i)], block[int(j)])
    lowest, highest = xp.min(y, axis=0), xp.max(y, axis=0)
    return (
        np.asarray(host_array(mean), dtype=np.float64),
        np.asarray(host_array(xp.stack(sums)), dtype=np.float64),
        (host_array(lowest), host_array(highest)),
    )


def _row_blocks(xp: Any, y: Array, predictions: Array) -> Iterator[Array]:
    """Responses and predictions in float64, (1 + n_spaces, n_rows, n_targets)."""
    for start in range(0, y.shape[0], _ROWS):
        rows = slice(start, start + _ROWS)
        parts = (y[None, rows, :], predictions[:, rows, :])
        yield xp.concat([xp.astype(part, xp.float64) for part in parts], axis=0)


def _column_products(xp: Any, x: Array, y: Array) -> Array:
    if is_numpy(x):  # without a temporary
        return np.einsum("st,st->t", x, y)
    return xp.sum(x * y, axis=0)


def _check_shapes(y: tuple[int, ...], predictions: tuple[int, ...]) -> None:
    if len(y) != 2 or len(predictions) != 3 or predictions[1:] != y:
        raise ValueError(
            "responses must have shape (n_samples, n_targets) and predictions "
            f"(n_spaces, n_samples, n_targets) of the same samples and targets, got "
            f"{y} and {predictions}"
        )
    if 0 in (predictions[0], y[0]):
        raise ValueError(
            "moments need at least one sample and the prediction of one feature "
            f"space, got predictions of shape {predictions}"
        )
