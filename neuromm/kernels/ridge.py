r"""Ridge regression of many targets, for every penalty at once.

With centred X of rank r, eigenvalues lam_j of X'X and eigenvectors Q (primal), or
eigenvectors U of XX' (dual, the same lam_j), the weights for penalty a are

    W(a) = R diag(1 / (lam + a)) L' Y,    L = XQ, R = Q       (primal)
                                          L = U,  R = X'U     (dual)

so a fold needs one decomposition and one projection z = L'Y, and a prediction of held
out rows is T diag(1 / (lam + a)) z with T = (X_test - mean) R.

Decompositions (and the Gram or kernel they start from, which squares the condition
number of X) are float64; products with the targets have the precision of the data.
Each fold is centred with the means of its own training rows, so nothing that held-out
rows contain reaches a model.

References
----------
Hoerl & Kennard (1970) Ridge regression. Technometrics 12:55-67.
Saunders, Gammerman & Vovk (1998) Ridge regression learning algorithm in dual
variables. ICML.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from neuromm.kernels.column_statistics import column_dot, is_constant

__all__ = [
    "FitBasis",
    "FoldBasis",
    "Form",
    "Scoring",
    "centred_eigenmodes",
    "fit_basis",
    "fold_basis",
    "path_scores",
    "select_alphas",
    "shrunken_weights",
]

Array = NDArray[np.floating]
Form = Literal["primal", "dual"]
Scoring = Literal["r2", "correlation", "mse"]

# himalaya adds the same slope per unit of log(alpha), so that scores which differ by
# rounding alone go to the larger alpha.
_TIE_SLOPE = 1e-10


@dataclass(frozen=True)
class FoldBasis:
    """One fold in the eigenbasis of its training rows.

    Attributes
    ----------
    eigenvalues : array of shape (rank,), float64
        Largest first; modes that are rounding noise are left out.
    train : array of shape (n_train, rank)
        L of the module: projects training responses to modes.
    test : array of shape (n_test, rank)
        T of the module: takes shrunken modes to held-out predictions.
    """

    eigenvalues: NDArray[np.float64]
    train: Array
    test: Array


@dataclass(frozen=True)
class FitBasis:
    """All samples in their eigenbasis, to compute weights.

    Attributes
    ----------
    eigenvalues : array of shape (rank,), float64
    train : array of shape (n_samples, rank)
        L of the module.
    to_features : tuple of arrays
        Their product is R, of shape (n_features, rank). Two factors where multiplying
        them out would cost more than applying them in turn.
    x_mean : array of shape (n_features,), float64
        Zeros if no intercept is fitted.
    """

    eigenvalues: NDArray[np.float64]
    train: Array
    to_features: tuple[Array, ...]
    x_mean: NDArray[np.float64]


def centred_eigenmodes(
    x: NDArray[np.float64], form: Form
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eigenvalues and eigenvectors of X'X (primal) or XX' (dual).

    Parameters
    ----------
    x : array of shape (n_samples, n_features), float64
        Centred already, if an intercept is fitted.
    form : {"primal", "dual"}

    Returns
    -------
    eigenvalues : array of shape (rank,)
        Largest first. Those up to max_rank * eps * largest are noise of rounding
        (duplicated or collinear columns) and left out.
    vectors : array of shape (n_features, rank) or (n_samples, rank)
    """
    gram = x.T @ x if form == "primal" else x @ x.T
    eigenvalues, vectors = np.linalg.eigh(gram)
    eigenvalues, vectors = eigenvalues[::-1], vectors[:, ::-1]
    max_rank = min(x.shape)
    noise = max_rank * np.finfo(np.float64).eps * max(eigenvalues[0], 0.0)
    kept = eigenvalues > noise
    kept[max_rank:] = False
    return eigenvalues[kept], np.ascontiguousarray(vectors[:, kept])


def fold_basis(
    x_train: Array, x_test: Array, form: Form, *, fit_intercept: bool = True
) -> FoldBasis:
    """Decompose the training rows of a fold and project its held-out rows.

    Parameters
    ----------
    x_train : array of shape (n_train, n_features)
    x_test : array of shape (n_test, n_features)
    form : {"primal", "dual"}
    fit_intercept : bool
        Centre both with the means of the training rows.

    Returns
    -------
    basis : FoldBasis
        In the precision of ``x_train``.
    """
    train, mean = _float64_centred(x_train, fit_intercept)
    test = np.asarray(x_test, dtype=np.float64) - mean
    eigenvalues, vectors = centred_eigenmodes(train, form)
    if form == "primal":
        left, right = train @ vectors, test @ vectors
    else:
        left, right = vectors, (test @ train.T) @ vectors
    dtype = x_train.dtype
    return FoldBasis(
        eigenvalues, left.astype(dtype, copy=False), right.astype(dtype, copy=False)
    )


def fit_basis(
    x: Array, form: Form, *, n_targets: int, fit_intercept: bool = True
) -> FitBasis:
    """Decompose all samples for the final fit.

    Parameters
    ----------
    x : array of shape (n_samples, n_features)
    form : {"primal", "dual"}
    n_targets : int
        Decides whether R is worth multiplying out in the dual form.
    fit_intercept : bool

    Returns
    -------
    basis : FitBasis
        In the precision of ``x``.
    """
    centred, mean = _float64_centred(x, fit_intercept)
    eigenvalues, vectors = centred_eigenmodes(centred, form)
    dtype = x.dtype
    if form == "primal":
        left = (centred @ vectors).astype(dtype, copy=False)
        return FitBasis(eigenvalues, left, (vectors.astype(dtype, copy=False),), mean)
    left = vectors.astype(dtype, copy=False)
    if n_targets >= len(eigenvalues):
        factors: tuple[Array, ...] = ((centred.T @ vectors).astype(dtype, copy=False),)
    else:
        factors = (centred.T.astype(dtype, copy=False), left)
    return FitBasis(eigenvalues, left, factors, mean)


def path_scores(
    basis: FoldBasis,
    y_train: Array,
    y_test: Array,
    alphas: NDArray[np.float64],
    *,
    scoring: Scoring = "r2",
    fit_intercept: bool = True,
) -> NDArray[np.float64]:
    """Scores of the held-out rows of one fold, for each penalty and target.

    Parameters
    ----------
    basis : FoldBasis
    y_train : array of shape (n_train, n_targets)
    y_test : array of shape (n_test, n_targets)
    alphas : array of shape (n_alphas,)
    scoring : {"r2", "correlation", "mse"}
        Higher is better: "mse" is the negative mean squared error.
    fit_intercept : bool

    Returns
    -------
    scores : array of shape (n_alphas, n_targets), float64
        "r2" and "correlation" are nan where ``y_test`` is constant; the correlation of
        a constant prediction is 0.
    """
    dtype = basis.train.dtype
    undefined = is_constant(y_test)
    mean = y_train.mean(axis=0, dtype=np.float64) if fit_intercept else 0.0
    shift = np.asarray(mean, dtype=dtype)
    projected = basis.train.T @ (y_train - shift)
    y_test = y_test - shift
    if scoring == "correlation":
        return _path_correlations(basis, projected, y_test, alphas, undefined)
    scores = np.empty((len(alphas), y_test.shape[1]))
    for row, alpha in enumerate(alphas):
        shrinkage = (1 / (basis.eigenvalues + alpha)).astype(dtype)
        error = basis.test @ (shrinkage[:, None] * projected)
        error -= y_test
        scores[row] = -column_dot(error, error)
    if scoring == "mse":
        return scores / len(y_test)
    deviation = y_test - y_test.mean(axis=0, dtype=np.float64).astype(dtype)
    with np.errstate(invalid="ignore", divide="ignore"):
        r2: NDArray[np.float64] = 1 + scores / column_dot(deviation, deviation)
    r2[:, undefined] = np.nan
    return r2


def select_alphas(
    scores: NDArray[np.float64],
    alphas: NDArray[np.float64],
    *,
    tie_scale: NDArray[np.float64] | float = 1.0,
) -> NDArray[np.intp]:
    """Position of the best penalty of each target; ties go to the larger one.

    Parameters
    ----------
    scores : array of shape (n_alphas, n_targets)
        Higher is better. nan never wins; a target with nan alone gets the largest
        penalty.
    alphas : array of shape (n_alphas,)
        In any order.
    tie_scale : float or array of shape (n_targets,)
        Unit of the score: scores that differ by less than 1e-10 of it per unit of
        log(alpha) are a tie.

    Returns
    -------
    best : integer array of shape (n_targets,)
    """
    largest_first = np.argsort(-alphas, kind="stable")
    slope = _TIE_SLOPE * np.log(np.maximum(alphas, np.finfo(np.float64).tiny))
    ranked = scores + slope[:, None] * tie_scale
    ranked = np.where(np.isnan(ranked), -np.inf, ranked)[largest_first]
    return np.asarray(largest_first[ranked.argmax(axis=0)])


def shrunken_weights(
    basis: FitBasis,
    y: Array,
    alphas: NDArray[np.float64],
    *,
    fit_intercept: bool = True,
) -> tuple[Array, NDArray[np.float64]]:
    """Weights and intercepts with one penalty a target.

    The penalty enters as a division of (rank, n_targets) projections, so neither a loop
    over penalties nor an array of penalties by features by targets is needed.

    Parameters
    ----------
    basis : FitBasis
    y : array of shape (n_samples, n_targets)
    alphas : array of shape (n_targets,)

    Returns
    -------
    weights : array of shape (n_features, n_targets), in the precision of the basis
    intercepts : array of shape (n_targets,), float64
    """
    dtype = basis.train.dtype
    mean = np.zeros(y.shape[1])
    if fit_intercept:
        mean = np.asarray(y.mean(axis=0, dtype=np.float64))
    weights = basis.train.T @ (y - mean.astype(dtype))
    weights /= (basis.eigenvalues[:, None] + alphas).astype(dtype)
    for factor in reversed(basis.to_features):
        weights = factor @ weights
    return weights, mean - basis.x_mean @ weights


def _path_correlations(
    basis: FoldBasis,
    projected: Array,
    y_test: Array,
    alphas: NDArray[np.float64],
    undefined: NDArray[np.bool_],
) -> NDArray[np.float64]:
    dtype = basis.test.dtype
    largest = basis.eigenvalues.max(initial=0.0)
    # With centred rows every prediction is centred.
    test = basis.test - basis.test.mean(axis=0)
    y_test = y_test - y_test.mean(axis=0, dtype=np.float64).astype(dtype)
    y_norm = np.sqrt(column_dot(y_test, y_test))
    scores = np.empty((len(alphas), y_test.shape[1]))
    for row, alpha in enumerate(alphas):
        # A correlation ignores scale: this one keeps float32 from running out of
        # exponent at alpha = 1e20.
        shrinkage = ((largest + alpha) / (basis.eigenvalues + alpha)).astype(dtype)
        prediction = test @ (shrinkage[:, None] * projected)
        norm = np.sqrt(column_dot(prediction, prediction)) * y_norm
        with np.errstate(invalid="ignore", divide="ignore"):
            r = column_dot(prediction, y_test) / norm
        scores[row] = np.where(norm > 0, r, 0.0)
    scores[:, undefined] = np.nan
    return scores


def _float64_centred(
    x: Array, fit_intercept: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    mean = np.zeros(x.shape[1])
    if fit_intercept:
        mean = np.asarray(x.mean(axis=0, dtype=np.float64))
    return np.asarray(x, dtype=np.float64) - mean, mean
