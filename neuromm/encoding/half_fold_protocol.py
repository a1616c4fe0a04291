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

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import eigh

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

# Bytes of projected responses at a time.
_BATCH_BYTES = 256 * 10**6

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
class _Fold:
    """A decomposed fold: predictions are ``held @ (projector @ y / (modes + alpha))``.

    ``modes`` (r,); ``projector`` (r, n_unique) acts on the responses of all rows of the
    resample; ``validation`` and ``test`` are held-out rows and their (n, r) matrices.
    """

    modes: Array
    projector: Array
    validation: tuple[Rows, Array]
    test: tuple[Rows, Array]


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
    training samples; one that is constant there weighs nothing. One decomposition a
    fold serves all penalties: of the Gram matrix of features, in which a repeated row
    has a weight, or of samples where these are fewer.

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
    x, responses = np.asarray(X, dtype=np.float64), np.asarray(y, dtype=np.float64)
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
    centred = responses - responses.mean(axis=0)
    largest = np.abs(centred).max(axis=0)
    scaled: Array = centred / np.where(largest > 0, largest, 1.0)
    return scaled


def _valid(responses: Array) -> NDArray[np.bool_]:
    whole = np.isfinite(responses).all(axis=0)
    spread = np.ptp(np.where(whole, responses, 0.0), axis=0)
    return np.asarray(whole & (spread > 0))


def _scored(x: Array, y: Array, grid: Array, n_folds: int, order: Rows) -> Array:
    """Validation and test scores and penalties, (3, n_targets)."""
    folds = list(_decomposed(x, order, n_folds))
    projector = np.concatenate([fold.projector for fold in folds])
    ends = np.cumsum([len(fold.modes) for fold in folds])[:-1]
    used = np.unique(order)
    width = max(1, _BATCH_BYTES // (8 * (len(projector) + len(used))))
    found = np.empty((3, y.shape[1]))
    for start in range(0, y.shape[1], width):
        batch = y[:, start : start + width]
        projected = np.split(projector @ batch[used], ends)
        paths = np.zeros((len(grid), batch.shape[1]))
        for fold, modes in zip(folds, projected, strict=True):
            rows, held = fold.validation
            paths += _path(held, fold.modes, modes, batch[rows], grid)
        # Of equal scores the last, which has the larger penalty.
        best = len(grid) - 1 - paths[::-1].argmax(axis=0)
        test = np.zeros(batch.shape[1])
        for fold, modes in zip(folds, projected, strict=True):
            rows, held = fold.test
            shrunk = modes / (fold.modes[:, None] + grid[best])
            test += _correlation(held @ shrunk, batch[rows])
        columns = slice(start, start + batch.shape[1])
        found[0, columns] = paths[best, np.arange(batch.shape[1])] / n_folds
        found[1, columns] = test / n_folds
        found[2, columns] = grid[best]
    return found


def _decomposed(x: Array, order: Rows, n_folds: int) -> Iterator[_Fold]:
    n_samples, n_features = x.shape
    counts = np.bincount(order, minlength=n_samples).astype(np.float64)
    used = np.flatnonzero(counts)
    total = x.T @ (counts[:, None] * x)
    for train, validation, test in half_folds(len(order), n_folds):
        weights = np.bincount(order[train], minlength=n_samples).astype(np.float64)
        held = x[order[np.concatenate([validation, test])]]
        mean = weights @ x / len(train)
        gram = total - held.T @ held
        square = np.diagonal(gram) / len(train)
        variance = square - mean**2
        varies = variance > _CONSTANT * np.maximum(square, np.finfo(float).tiny)
        inverse = np.where(varies, 1 / np.sqrt(np.where(varies, variance, 1.0)), 0.0)
        rows = np.flatnonzero(weights)
        z = (x[rows] - mean) * inverse
        if n_features <= len(rows):
            centred = gram - len(train) * np.outer(mean, mean)
            modes, vectors = eigh(centred * inverse[:, None] * inverse)
            projector = (z @ vectors).T * weights[rows]
            back = inverse[:, None] * vectors
        else:
            root = np.sqrt(weights[rows])
            z = z * root[:, None]
            modes, vectors = eigh(z @ z.T)
            projector = vectors.T * root
            back = inverse[:, None] * (z.T @ vectors)
        of_all = np.zeros((len(modes), len(used)))
        of_all[:, np.searchsorted(used, rows)] = projector
        yield _Fold(
            np.maximum(modes, 0.0),
            of_all,
            (order[validation], (x[order[validation]] - mean) @ back),
            (order[test], (x[order[test]] - mean) @ back),
        )


def _path(held: Array, modes: Array, projected: Array, y: Array, grid: Array) -> Array:
    """Correlation of each target under each penalty, (n_alphas, n_targets)."""
    centred, t = held - held.mean(axis=0), y - y.mean(axis=0)
    shrinkage = 1 / (modes + grid[:, None])
    products = shrinkage @ ((centred.T @ t) * projected)
    squares = np.empty_like(products)
    for number, factors in enumerate(shrinkage):
        predicted = (centred * factors) @ projected
        squares[number] = np.einsum("it,it->t", predicted, predicted)
    return _ratio(products, squares, t, y)


def _correlation(prediction: Array, y: Array) -> Array:
    """Pearson r of each column; 0 where one of the two does not vary."""
    p, t = prediction - prediction.mean(axis=0), y - y.mean(axis=0)
    squares = np.einsum("it,it->t", p, p)
    return _ratio(np.einsum("it,it->t", p, t), squares, t, y)


def _ratio(products: Array, squares: Array, t: Array, y: Array) -> Array:
    # Responses have mean 0, so that their size is their spread, and a prediction that
    # is a millionth of a millionth of it is rounding.
    t_squares = np.einsum("it,it->t", t, t)
    smallest = 1e-24 * np.einsum("it,it->t", y, y)
    varies = (squares > smallest) & (t_squares > smallest)
    norm = np.sqrt(np.where(varies, squares * t_squares, 1.0))
    return np.asarray(np.where(varies, products / norm, 0.0))
