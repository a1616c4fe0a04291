"""Stacking: the best weighted average of the predictions of several feature spaces.

For each target the weights w >= 0 with sum 1 that minimise the mean squared error of
the average of held-out predictions, w' P w with P_ij = mean e_i e_j and e_i the error
of space i. That is a convex problem of S unknowns a target, solved exactly and for all
targets at once: on a face of the simplex, where a set A of spaces shares the weight,

    w_A = P_AA^-1 1 / (1' P_AA^-1 1)                               (Karush-Kuhn-Tucker)

so up to six spaces all 2^S - 1 faces are tried, and beyond that the face is reached by
letting one space in or out at a time.

References
----------
Breiman (1996) Stacked regressions. Machine Learning 24:49-64.
Lin, Naselaris, Kay & Wehbe (2024) Stacked regressions and structured variance
partitioning for interpretable brain maps. NeuroImage, September 2024;
doi:10.1101/2023.04.23.537988.
Nocedal & Wright (2006) Numerical Optimization, 2nd ed., chapter 16 (active sets).
"""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuromm.core import DataError
from neuromm.kernels.second_moments import SecondMoments

__all__ = ["Stacking", "stack", "stacking_weights"]

Floats = NDArray[np.float64]

# To try every face is sure to end, and six spaces have 63; twelve have 4095.
_MOST_SPACES_TO_ENUMERATE = 6

# Added to the diagonal, as a share of the smallest error: of all weights that are
# equally good (duplicated spaces) it picks those closest to equal, and it costs at
# most this share of the error.
_RIDGE = 1e-9

# Numbers in the matrices that are solved at once; they stay in the cache of a core.
_CHUNK = 2**18

# A step lets one space in or out; spaces with independent errors all come in.
_MOST_STEPS = 1000

_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Stacking:
    """Weights by which predictions are averaged.

    Attributes
    ----------
    weights : array of shape (n_spaces, n_targets)
        Not negative, sum 1 for each target; nan for a target with nan.
    r2 : array of shape (n_targets,)
        R2 of the weighted average on the samples that the weights were chosen on, so
        never below the best of ``space_r2``; optimistic by about the gain of choosing
        S - 1 numbers. `score` gives the R2 on other samples. nan for a constant target.
    space_r2 : array of shape (n_spaces, n_targets)
        R2 of each space alone on the same samples.
    """

    weights: Floats
    r2: Floats
    space_r2: Floats

    def average(self, predictions: ArrayLike) -> NDArray[np.floating]:
        """Weighted average of new predictions.

        Parameters
        ----------
        predictions : array of shape (n_spaces, n_samples, n_targets)
            Complete predictions, intercepts included.

        Returns
        -------
        prediction : array of shape (n_samples, n_targets)

        Raises
        ------
        DataError
            If they are not of the spaces and targets of the weights.
        """
        stack_of = np.asarray(predictions)
        if stack_of.ndim != 3 or stack_of[:, 0].shape != self.weights.shape:
            n_spaces, n_targets = self.weights.shape
            raise DataError(
                f"predictions must have shape ({n_spaces}, n_samples, {n_targets}), "
                f"the spaces and targets that were stacked, got {stack_of.shape}"
            )
        total = np.zeros(stack_of.shape[1:], dtype=stack_of.dtype)
        for weight, prediction in zip(self.weights, stack_of, strict=True):
            total += weight.astype(total.dtype) * prediction
        return total

    def score(self, moments: SecondMoments) -> Floats:
        """R2 of the weighted average on other samples.

        Parameters
        ----------
        moments : SecondMoments
            Of the same spaces and targets, on samples that neither the models nor the
            weights have seen.

        Returns
        -------
        r2 : array of shape (n_targets,)
            Against the mean of those responses; nan for a constant target.

        Raises
        ------
        DataError
            If they are of other spaces or targets.
        """
        if (moments.n_spaces, moments.n_targets) != self.weights.shape:
            raise DataError(
                f"weights of {self.weights.shape[0]} spaces and "
                f"{self.weights.shape[1]} targets cannot score moments of "
                f"{moments.n_spaces} spaces and {moments.n_targets} targets"
            )
        return _stacked_r2(moments, self.weights)


def stack(moments: SecondMoments) -> Stacking:
    """Weights of feature spaces that predict each target best together.

    Parameters
    ----------
    moments : SecondMoments
        Of responses and of complete predictions (intercepts included), pooled over
        folds. Predictions must be of samples that their models were not fitted to:
        on training samples the space that overfits most would win.

    Returns
    -------
    stacking : Stacking

    Examples
    --------
    >>> y = np.array([[1.0], [-1.0], [1.0], [-1.0]])
    >>> noise = np.array([[1.0], [1.0], [-1.0], [-1.0]])
    >>> stack(SecondMoments.of(y, np.stack([y + noise, y - noise]))).weights.ravel()
    array([0.5, 0.5])
    """
    weights = np.empty((moments.n_spaces, moments.n_targets))
    for targets in _chunks(moments.n_spaces, moments.n_targets):
        products = moments.of_targets(targets).residual_products()
        weights[:, targets] = stacking_weights(products)
    return Stacking(weights, _stacked_r2(moments, weights), moments.space_r2())


def stacking_weights(residual_products: ArrayLike) -> Floats:
    """Weights on the simplex with the smallest mean squared error.

    Parameters
    ----------
    residual_products : array of shape (n_spaces, n_spaces, n_targets)
        Mean products P_ij of the errors of held-out predictions, symmetric and
        positive semi-definite for each target; may be singular.

    Returns
    -------
    weights : array of shape (n_spaces, n_targets)
        Minimise ``w' P w``: not negative, sum 1. Where several do, as for duplicated
        spaces, those closest to equal weights. nan for a target with nan.

    Raises
    ------
    DataError
        If the array is not of square matrices.

    Warns
    -----
    RuntimeWarning
        If more than six spaces are stacked and the search did not end for some
        targets; their weights are valid and at least as good as the best space.
    """
    products = np.asarray(residual_products, dtype=np.float64)
    if products.ndim != 3 or len(products) != products.shape[1] or not len(products):
        raise DataError(
            "residual products must have shape (n_spaces, n_spaces, n_targets), got "
            f"{products.shape}"
        )
    n_spaces, _, n_targets = products.shape
    weights = np.full((n_spaces, n_targets), np.nan)
    finite = np.flatnonzero(np.isfinite(products).all(axis=(0, 1)))
    search = _solver(n_spaces)
    for part in _chunks(n_spaces, len(finite)):
        targets = finite[part]
        weights[:, targets] = search(_made_definite(products[:, :, targets]))
    return weights


def _solver(n_spaces: int) -> Callable[[Floats], Floats]:
    return (
        _best_of_all_faces
        if n_spaces <= _MOST_SPACES_TO_ENUMERATE
        else _face_by_face_descent
    )


def _chunks(n_spaces: int, n_targets: int) -> Iterator[slice]:
    width = max(1, _CHUNK // n_spaces**2)
    return (slice(i, i + width) for i in range(0, n_targets, width))


def _stacked_r2(moments: SecondMoments, weights: Floats) -> Floats:
    squared_error = np.empty(moments.n_targets)
    for targets in _chunks(moments.n_spaces, moments.n_targets):
        products = moments.of_targets(targets).residual_products()
        squared_error[targets] = _quadratic(products, weights[:, targets])
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(
            1 - moments.n_samples * squared_error / moments.total_sum_squares()
        )


def _quadratic(matrices: Floats, vectors: Floats) -> Floats:
    """``w' P w`` for each target."""
    product = np.einsum("ijt,jt->it", matrices, vectors)
    return np.asarray(np.einsum("it,it->t", vectors, product))


def _made_definite(products: Floats) -> Floats:
    """Products with a small multiple of the identity, so that one w is the best."""
    diagonal = np.einsum("iit->it", products)
    smallest, largest = diagonal.min(axis=0), diagonal.max(axis=0)
    # A perfect space leaves nothing to take a share of. 1e-30 of the worst separates
    # it from the others without a trace in their weights.
    ridge = np.maximum(_RIDGE * smallest, 1e-30 * largest)
    ridge = np.where(largest > 0, ridge, 1.0)
    return products + ridge * np.eye(len(products))[:, :, None]


def _best_of_all_faces(products: Floats) -> Floats:
    """Weights by enumeration of the sets of spaces that may share them."""
    n_spaces, _, n_targets = products.shape
    best = np.zeros((n_spaces, n_targets))
    lowest = np.full(n_targets, np.inf)
    for size in range(1, n_spaces + 1):
        for face in map(np.array, combinations(range(n_spaces), size)):
            matrices = products[np.ix_(face, face)]
            weights = _face_minimum(matrices)
            error = _quadratic(matrices, weights)
            # False where the minimum lies outside the face, and for nan.
            better = (weights >= 0).all(axis=0) & (error < lowest)
            lowest[better] = error[better]
            best[:, better] = 0
            best[np.ix_(face, np.flatnonzero(better))] = weights[:, better]
    return best


def _face_by_face_descent(products: Floats) -> Floats:
    """Weights by the primal active-set method, all targets in step.

    Starts at the best single space. The error falls with every face that is reached,
    so no face comes twice and the search ends.
    """
    n_spaces, _, n_targets = products.shape
    weights = np.zeros((n_spaces, n_targets))
    weights[np.einsum("iit->it", products).argmin(axis=0), np.arange(n_targets)] = 1
    support = weights > 0
    entered = np.full(n_targets, -1)
    open_ = np.arange(n_targets)
    for _ in range(_MOST_STEPS):
        matrices, w, inside = (
            products[:, :, open_],
            weights[:, open_],
            support[:, open_],
        )
        goal = _face_minimum(matrices, inside)
        solved = np.isfinite(goal).all(axis=0)
        goal = np.where(solved, goal, w)  # singular to rounding: stay
        leaving, step = _first_to_leave(w, goal)
        w += step * (goal - w)
        t = np.flatnonzero(leaving >= 0)
        w[leaving[t], t] = 0
        inside[leaving[t], t] = False
        # One that leaves as it enters was let in by rounding.
        done = (leaving >= 0) & (leaving == entered[open_]) & (step == 0)
        joining = np.where(leaving < 0, _next_to_join(matrices, w, inside), -2)
        done |= ~solved | (joining == -1)
        t = np.flatnonzero(joining >= 0)
        inside[joining[t], t] = True
        entered[open_[t]] = joining[t]
        weights[:, open_], support[:, open_] = w, inside
        open_ = open_[~done]
        if not len(open_):
            break
    else:
        warnings.warn(
            f"the search for stacking weights did not end for {len(open_)} of "
            f"{n_targets} targets; their weights are no worse than the best space "
            "alone, but may not be the best",
            RuntimeWarning,
            stacklevel=4,
        )
    return weights


def _first_to_leave(
    weights: Floats, goal: Floats
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Space whose weight reaches zero first on the way to the goal, and how far.

    -1 and 1 where the goal lies on the face.
    """
    negative = goal < 0
    with np.errstate(invalid="ignore", divide="ignore"):
        reach = np.where(negative, weights / (weights - goal), np.inf)
    leaving = np.where(negative.any(axis=0), reach.argmin(axis=0), -1)
    return leaving, np.minimum(reach.min(axis=0), 1.0)


def _next_to_join(
    matrices: Floats, weights: Floats, inside: NDArray[np.bool_]
) -> NDArray[np.intp]:
    """Space outside the face that lowers the error most; -1 at the minimum."""
    gradient = np.einsum("ijt,jt->it", matrices, weights)
    rounding = 16 * _EPS * np.einsum("ijt,jt->it", np.abs(matrices), weights)
    level = np.einsum("it,it->t", weights, gradient)
    gain = np.where(inside, -np.inf, level - gradient - rounding)
    return np.where(gain.max(axis=0) > 0, gain.argmax(axis=0), -1)


def _face_minimum(matrices: Floats, inside: NDArray[np.bool_] | None = None) -> Floats:
    """Minimum of ``w' P w`` with sum 1 and any sign; nan if P is not definite.

    Parameters
    ----------
    matrices : array of shape (n, n, n_targets)
    inside : boolean array of shape (n, n_targets), optional
        Spaces that may have weight; all by default.

    Notes
    -----
    Gauss elimination without pivots, which definite matrices do not need, written for
    all targets at once: n is small and targets are many.
    """
    n = len(matrices)
    upper, x = matrices.copy(), np.ones(matrices.shape[1:])
    if inside is not None:
        both = inside[:, None] & inside
        identity = np.eye(n)[:, :, None]
        upper, x = np.where(both, upper, identity), inside.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        for i in range(n):
            pivot = np.where(upper[i, i] > 0, upper[i, i], np.nan)
            for row in range(i + 1, n):
                factor = upper[i, row] / pivot
                upper[row, row:] -= factor * upper[i, row:]
                x[row] -= factor * x[i]
        for i in reversed(range(n)):
            for column in range(i + 1, n):
                x[i] -= upper[i, column] * x[column]
            x[i] /= np.where(upper[i, i] > 0, upper[i, i], np.nan)
        return np.asarray(x / x.sum(axis=0))
