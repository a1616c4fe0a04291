"""Scores of ridge regression on halves of held-out folds, as Subramaniam et al. (2024).

Contiguous folds, not shuffled. The first half of each held-out fold chooses the
penalty of each target, the second half scores it. For an interval, samples are drawn
with replacement and all is fitted again, on the same samples for every model.

This is the published procedure, to compare with published numbers. `encode` and
`integration_sites` choose penalties within the training samples and leave a gap around
held-out ones. Here is no gap: epochs of 4 s overlap across the border of a fold. Sorted
resamples hold copies of one event on both sides of a border, too.

The published regression has a penalised column of ones in place of an intercept. Its
features have mean 0 in the training samples, so that the normal equations fall apart:
the column gets sum(y) / (n + alpha), all other weights are those without it. It moves
predictions by a constant and hence no correlation; it is left out here.

References
----------
Subramaniam V et al. (2024) Revealing vision-language integration in the brain with
multimodal networks. ICML 2024, arXiv:2406.14481.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cho_factor, cho_solve

from neuromm.core import UsageError

__all__ = [
    "PROTOCOL_ALPHAS",
    "HalfFoldScores",
    "ResampledScores",
    "half_fold_scores",
    "half_folds",
    "resampled_scores",
    "sorted_resamples",
]

Array = NDArray[np.float64]
Rows = NDArray[np.intp]

PROTOCOL_ALPHAS = np.logspace(-1, 5, 7)

# Rows of a half: a correlation of two points is 1 or -1 whatever they are.
_FEWEST = 3

# Bytes of predictions at a time: they stay close to the processor.
_BATCH_BYTES = 32 * 10**6

# A feature that varies less than this part of its mean square is constant but for
# rounding.
_CONSTANT = 1e-12


@dataclass(frozen=True, kw_only=True)
class HalfFoldScores:
    """Scores of one model.

    Attributes
    ----------
    validation, test : array of shape (n_targets,)
        Pearson r averaged over folds, at the penalty that the validation halves chose.
        A constant prediction has r = 0. nan for a target that is constant or has a
        missing value.
    alphas : array of shape (n_targets,)
        That penalty; the larger one where two do as well.
    """

    validation: Array
    test: Array
    alphas: Array


@dataclass(frozen=True, kw_only=True)
class ResampledScores:
    """Scores over resamples; each array of shape (3, n_targets).

    Attributes
    ----------
    validation, test : array of shape (3, n_targets)
        Mean, and lower and upper end of the percentile interval.
    """

    validation: Array
    test: Array


@dataclass(frozen=True)
class _Half:
    """Half of a held-out fold: each row once, however often it was drawn.

    ``rows`` (n_rows,), ``root`` (n_rows,) of how often each was drawn, and ``basis``
    (n_rows, n_kept), or None for the identity: what predictions can reach. ``maps``
    (n_alphas, n_kept, n_inputs) take the inputs of the fold to predictions in that
    basis, centred over draws and times ``root``.
    """

    rows: Rows
    root: Array
    basis: Array | None
    maps: Array


@dataclass(frozen=True)
class _Fold:
    """Predictions of a fold are linear in few numbers of each target, its inputs.

    In the form of features these are products with the responses of training rows:
    those of all rows less those of ``rows`` (held out), each weighed by ``weighed``
    (n_rows, n_features + 1). In the form of samples ``weighed`` is None, and they are
    the responses of ``rows`` (training).
    """

    rows: Rows
    weighed: Array | None
    validation: _Half
    test: _Half


def half_folds(n_samples: int, n_folds: int = 5) -> list[tuple[Rows, Rows, Rows]]:
    """Places of training, validation and test samples of each fold.

    Parameters
    ----------
    n_samples : int
    n_folds : int

    Raises
    ------
    neuromm.core.UsageError
        If half a fold has fewer than three samples.
    """
    if n_folds < 2 or n_samples // n_folds < 2 * _FEWEST:
        raise UsageError(
            f"half a fold must have {_FEWEST} samples or more, and {n_samples} samples "
            f"in {n_folds} folds have fewer: give more events or fewer folds (at least "
            "2)"
        )
    places = np.arange(n_samples)
    return [
        (
            np.setdiff1d(places, block),
            block[: len(block) // 2],
            block[len(block) // 2 :],
        )
        for block in np.array_split(places, n_folds)
    ]


def sorted_resamples(
    n_samples: int, n_resamples: int, rng: int | np.random.Generator | None
) -> NDArray[np.intp]:
    """Rows of each resample, drawn with replacement and sorted.

    Returns
    -------
    rows : integer array of shape (n_resamples, n_samples)
    """
    generator = np.random.default_rng(rng)
    drawn = generator.integers(n_samples, size=(n_resamples, n_samples))
    return np.asarray(np.sort(drawn, axis=1), dtype=np.intp)


def half_fold_scores(
    X: ArrayLike,
    y: ArrayLike,
    *,
    alphas: ArrayLike | None = None,
    n_folds: int = 5,
    rows: ArrayLike | None = None,
) -> HalfFoldScores:
    """Fit on training folds, choose on first halves, score on second halves.

    Parameters
    ----------
    X : array of shape (n_samples, n_features)
        In the order of time.
    y : array of shape (n_samples, n_targets)
        In single precision, scores err by about 1e-6 and take half the time.
    alphas : array of shape (n_alphas,), optional
        Seven from 0.1 to 1e5 if not given, the published ones.
    n_folds : int
    rows : integer array, optional
        The samples, in this order, in place of all: a resample. Folds are of places in
        it, so that a sample may stand on both sides.

    Returns
    -------
    scores : HalfFoldScores

    Raises
    ------
    neuromm.core.UsageError
        If rows differ, features have missing values, an alpha is not positive, or
        there are too few samples.

    Notes
    -----
    Features are standardised by the mean and the standard deviation (divisor n) of the
    training samples; one that is constant there weighs nothing. A repeated row is one
    row with a weight. All targets and penalties share the linear maps of a fold, from
    products of features with responses (or from responses, where samples are fewer) to
    held-out predictions. Maps are solved for in double precision; large products are
    in that of the responses.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal((200, 4))
    >>> float(half_fold_scores(x, x[:, :1]).test.round(6)[0])
    1.0
    """
    x, responses, grid = _checked(X, y, alphas)
    order = np.arange(len(x)) if rows is None else np.asarray(rows, dtype=np.intp)
    valid = _valid(responses)
    parts = _scored(x, responses[:, valid], grid, n_folds, order)
    whole = np.full((3, responses.shape[1]), np.nan)
    whole[:, valid] = parts
    return HalfFoldScores(validation=whole[0], test=whole[1], alphas=whole[2])


def resampled_scores(
    X: ArrayLike,
    y: ArrayLike,
    resamples: NDArray[np.intp],
    *,
    alphas: ArrayLike | None = None,
    n_folds: int = 5,
    confidence: float = 0.95,
) -> ResampledScores:
    """Mean and interval of scores when samples are resampled and all is fitted again.

    Parameters
    ----------
    X, y, alphas, n_folds
        As for `half_fold_scores`.
    resamples : integer array of shape (n_resamples, n_samples)
        Of `sorted_resamples`; give every model the same.
    confidence : float

    Returns
    -------
    scores : ResampledScores

    Notes
    -----
    A resample holds 63 % of the samples, some of them on both sides of a border of
    folds; its mean is no estimate of the score on new samples.
    """
    x, responses, grid = _checked(X, y, alphas)
    valid = _valid(responses)
    kept = responses[:, valid]
    drawn = np.empty((2, len(resamples), kept.shape[1]), dtype=np.float32)
    for number, rows in enumerate(resamples):
        drawn[:, number] = _scored(x, kept, grid, n_folds, rows)[:2]
    tail = 50 * (1 - confidence)
    whole = np.full((2, 3, responses.shape[1]), np.nan)
    if valid.any():
        whole[:, 0, valid] = drawn.mean(axis=1, dtype=np.float64)
        ends = np.percentile(drawn, [tail, 100 - tail], axis=1)
        whole[:, 1:, valid] = ends.swapaxes(0, 1)
    return ResampledScores(validation=whole[0], test=whole[1])


def _checked(
    X: ArrayLike, y: ArrayLike, alphas: ArrayLike | None
) -> tuple[Array, Array, Array]:
    x, responses = np.asarray(X, dtype=np.float64), np.asarray(y)
    if responses.dtype != np.float32:
        responses = responses.astype(np.float64)
    if x.ndim != 2 or responses.ndim != 2 or len(x) != len(responses):
        raise UsageError(
            "features and responses must be matrices with one row per event, got "
            f"shapes {x.shape} and {responses.shape}"
        )
    if not np.isfinite(x).all():
        raise UsageError("the features hold missing or infinite values")
    grid = np.sort(PROTOCOL_ALPHAS if alphas is None else np.atleast_1d(alphas))
    if not len(grid) or not (grid > 0).all():
        raise UsageError(f"alphas must be positive, got {grid}")
    # Gram matrices are centred later; close to 0, little is lost by it.
    return x - x.mean(axis=0), _unscaled(responses), grid.astype(np.float64)


def _unscaled(responses: Array) -> Array:
    """Responses with mean 0 and a largest value of 1, which no correlation minds."""
    mean = responses.mean(axis=0, dtype=np.float64)
    centred = (responses - mean).astype(responses.dtype, copy=False)
    largest = np.abs(centred).max(axis=0)
    scaled: Array = centred / np.where(largest > 0, largest, 1.0)
    return scaled


def _valid(responses: Array) -> NDArray[np.bool_]:
    whole = np.isfinite(responses).all(axis=0)
    spread = np.ptp(np.where(whole, responses, 0.0), axis=0)
    return np.asarray(whole & (spread > 0))


def _scored(x: Array, y: Array, grid: Array, n_folds: int, order: Rows) -> Array:
    """Validation and test scores and penalties, (3, n_targets)."""
    folds = _solved(x, order, n_folds, grid, y.dtype)
    held = sum(fold.validation.maps[:, :, 0].size for fold in folds) // n_folds
    inputs = sum(fold.validation.maps.shape[2] for fold in folds)
    width = max(1, _BATCH_BYTES // (y.itemsize * (held + inputs)))
    found = np.empty((3, y.shape[1]))
    for start in range(0, y.shape[1], width):
        batch = np.ascontiguousarray(y[:, start : start + width])
        given = _inputs(folds, batch)
        paths = np.zeros((len(grid), batch.shape[1]))
        for fold, one in zip(folds, given, strict=True):
            paths += _path(fold.validation, one, batch)
        # Of equal scores the last, which has the larger penalty.
        best = len(grid) - 1 - paths[::-1].argmax(axis=0)
        test = np.zeros(batch.shape[1])
        for fold, one in zip(folds, given, strict=True):
            test += _chosen(fold.test, one, batch, best)
        columns = slice(start, start + batch.shape[1])
        found[0, columns] = paths[best, np.arange(batch.shape[1])] / n_folds
        found[1, columns] = test / n_folds
        found[2, columns] = grid[best]
    return found


def _solved(
    x: Array, order: Rows, n_folds: int, grid: Array, dtype: np.dtype[Any]
) -> list[_Fold]:
    """Folds of a resample, with their predictions as linear maps; in ``dtype``."""
    places = half_folds(len(order), n_folds)
    trained = [np.unique(order[train], return_counts=True) for train, _, _ in places]
    by_features = x.shape[1] < min(len(rows) for rows, _ in trained)
    total = _gram(x, *np.unique(order, return_counts=True)) if by_features else None
    found = []
    for (_, *halves), training in zip(places, trained, strict=True):
        held = [np.unique(order[half], return_counts=True) for half in halves]
        parts = [_centred(x, *one) for one in held]
        asked = np.concatenate([columns for _, columns in parts])
        if total is None:
            rows, weighed = training[0], None
            maps = _from_samples(x, *training, asked, grid)
        else:
            rows, counts = np.unique(order[np.concatenate(halves)], return_counts=True)
            maps = _from_features(
                total - _gram(x, rows, counts), x, *training, asked, grid
            )
            weighed = np.column_stack([x[rows], np.ones(len(rows))])
            weighed = (weighed * counts[:, None]).astype(dtype)
        ends = np.cumsum([0, *(len(columns) for _, columns in parts)])
        kept = [
            _Half(
                of,
                np.sqrt(counts).astype(dtype),
                None if basis is None else basis.astype(dtype),
                maps[:, start:stop].astype(dtype),
            )
            for (of, counts), (basis, _), start, stop in zip(
                held, parts, ends[:-1], ends[1:], strict=True
            )
        ]
        found.append(_Fold(rows, weighed, *kept))
    return found


def _gram(x: Array, rows: Rows, counts: Rows) -> Array:
    """Products of features over rows that were drawn so often."""
    drawn = np.sqrt(counts)[:, None] * x[rows]
    gram: Array = drawn.T @ drawn
    return gram


def _centred(x: Array, rows: Rows, counts: Rows) -> tuple[Array | None, Array]:
    """Basis of `_Half`, and centred features in that basis, (n_kept, n_features)."""
    mean = counts @ x[rows] / counts.sum()
    held = (x[rows] - mean) * np.sqrt(counts)[:, None]
    if len(rows) <= x.shape[1]:
        return None, held
    basis, held = np.linalg.qr(held)
    return basis, held


def _from_features(
    gram: Array, x: Array, rows: Rows, counts: Rows, asked: Array, grid: Array
) -> Array:
    """Maps from products of responses with features and with 1."""
    mean = counts @ x[rows] / counts.sum()
    centred = gram - counts.sum() * np.outer(mean, mean)
    inverse = _one_over_deviation(np.diagonal(centred) / counts.sum(), mean)
    scaled = centred * inverse[:, None] * inverse
    maps = _solutions(scaled, (asked * inverse).T, grid) * inverse
    # The last input is the sum of responses: it takes off the mean of the features.
    return np.concatenate([maps, -(maps @ mean)[:, :, None]], axis=2)


def _from_samples(
    x: Array, rows: Rows, counts: Rows, asked: Array, grid: Array
) -> Array:
    """Maps from the responses of training rows."""
    mean = counts @ x[rows] / counts.sum()
    root = np.sqrt(counts)
    z = (x[rows] - mean) * root[:, None]
    inverse = _one_over_deviation(np.einsum("ij,ij->j", z, z) / counts.sum(), mean)
    z *= inverse
    return _solutions(z @ z.T, z @ (asked * inverse).T, grid) * root


def _one_over_deviation(variance: Array, mean: Array) -> Array:
    """Scale of each feature; 0 for one that is constant in training."""
    square = variance + mean**2
    varies = variance > _CONSTANT * np.maximum(square, np.finfo(float).tiny)
    return np.where(varies, 1 / np.sqrt(np.where(varies, variance, 1.0)), 0.0)


def _solutions(gram: Array, asked: Array, grid: Array) -> Array:
    """``((gram + alpha)^-1 asked).T`` of every alpha, (n_alphas, n_asked, n_gram)."""
    # A penalty below the rounding of the Gram matrix is that rounding.
    least = len(gram) * np.finfo(float).eps * np.trace(gram)
    found = np.empty((len(grid), asked.shape[1], len(gram)))
    for number, alpha in enumerate(grid):
        penalised = gram.copy()
        penalised[np.diag_indices_from(penalised)] += max(alpha, least)
        factor = cho_factor(penalised, lower=True, overwrite_a=True, check_finite=False)
        found[number] = cho_solve(factor, asked, check_finite=False).T
    return found


def _inputs(folds: list[_Fold], y: Array) -> list[Array]:
    products = [
        y[fold.rows] if fold.weighed is None else fold.weighed.T @ y[fold.rows]
        for fold in folds
    ]
    if folds[0].weighed is None:
        return products
    total = np.sum(products, axis=0)
    return [total - one for one in products]


def _path(half: _Half, inputs: Array, y: Array) -> Array:
    """Correlation of each target under each penalty, (n_alphas, n_targets)."""
    centred, t_squares, smallest = _held_out(half, y)
    n_alphas, n_kept, n_inputs = half.maps.shape
    predicted = half.maps.reshape(-1, n_inputs) @ inputs
    by_alpha = predicted.reshape(n_alphas, n_kept, -1)
    products = np.stack([np.einsum("it,it->t", one, centred) for one in by_alpha])
    squares = np.stack([np.einsum("it,it->t", one, one) for one in by_alpha])
    return _ratio(products, squares, t_squares, smallest)


def _chosen(half: _Half, inputs: Array, y: Array, best: Rows) -> Array:
    """Correlation of each target under its own penalty, (n_targets,)."""
    centred, t_squares, smallest = _held_out(half, y)
    products, squares = np.zeros((2, y.shape[1]))
    for number in np.unique(best):
        of = np.flatnonzero(best == number)
        predicted = half.maps[number] @ inputs[:, of]
        products[of] = np.einsum("it,it->t", predicted, centred[:, of])
        squares[of] = np.einsum("it,it->t", predicted, predicted)
    return _ratio(products, squares, t_squares, smallest)


def _held_out(half: _Half, y: Array) -> tuple[Array, Array, Array]:
    """Responses as `_Half` has predictions, their squares, and what is rounding."""
    counts = half.root**2
    rows = y[half.rows]
    mean = (counts / counts.sum()) @ rows
    centred = ((rows - mean) * half.root[:, None]).astype(y.dtype)
    t_squares = np.einsum("it,it->t", centred, centred)
    # Responses have mean 0, so that their size is their spread, and a prediction that
    # is a millionth of a millionth of it is rounding.
    smallest = 1e-24 * (t_squares + counts.sum() * mean**2)
    if half.basis is not None:
        centred = half.basis.T @ centred
    return centred, t_squares, smallest


def _ratio(products: Array, squares: Array, t_squares: Array, smallest: Array) -> Array:
    """Correlations; 0 where one of the two does not vary."""
    varies = (squares > smallest) & (t_squares > smallest)
    norm = np.sqrt(np.where(varies, squares * t_squares, 1.0))
    return np.asarray(np.where(varies, products / norm, 0.0), dtype=np.float64)
