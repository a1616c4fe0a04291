r"""How each event moves a cross-validated score: as a held-out and as a training event.

A held-out score is a function of the events it is scored on and of those the model
learnt from. Resampling the held-out predictions shows the first part only. The second
follows from the derivative of ridge weights with respect to the weight of a training
event,

    dw = (X'X + alpha)^-1 x_i e_i,

with e_i its residual, and of the score with respect to predictions.

References
----------
Efron & Stein (1981) The jackknife estimate of variance. Ann. Stat. 9:586-596.
Bates, Hastie & Tibshirani (2024) Cross-validation: what does it estimate and how well
does it do it? J. Am. Stat. Assoc. 119:1434-1445.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "block_labels",
    "block_sums",
    "block_variance",
    "fold_correlation",
    "training_influence",
]

Array = NDArray[np.floating]


def fold_correlation(y: Array, prediction: Array) -> tuple[Array, Array, Array]:
    """Pearson r of one fold, its gradient, and the influence of each held-out event.

    Parameters
    ----------
    y, prediction : arrays of shape (n_samples, n_targets)

    Returns
    -------
    r : array of shape (n_targets,)
        0 for a constant prediction.
    gradient : array of shape (n_samples, n_targets)
        Of r with respect to the prediction.
    influence : array of shape (n_samples, n_targets)
        Sums to 0 over events.
    """
    a, b = y - y.mean(axis=0), prediction - prediction.mean(axis=0)
    size = np.sqrt((b * b).sum(axis=0))
    constant = prediction.max(axis=0) == prediction.min(axis=0)
    size = np.where(constant, np.inf, size)
    length = np.sqrt((a * a).sum(axis=0))
    a = a / np.where(length > 0, length, np.inf)
    b = b / size
    r = (a * b).sum(axis=0)
    return r, (a - r * b) / size, a * b - r * (a * a + b * b) / 2


def training_influence(
    x_train: Array,
    x_test: Array,
    residual: Array,
    gradient: Array,
    alphas: Array,
) -> Array:
    """Influence of each training event on a score of held-out predictions.

    Parameters
    ----------
    x_train, x_test : arrays of shape (n_train, n_features), (n_test, n_features)
    residual : array of shape (n_train, n_targets)
        Of the fit to the training events.
    gradient : array of shape (n_test, n_targets)
        Of the score with respect to predictions; sums to 0 over events, so that the
        intercept plays no part.
    alphas : array of shape (n_targets,)
    """
    mean = x_train.mean(axis=0)
    x, other = x_train - mean, x_test - mean
    pulled = other.T @ gradient
    if x.shape[1] <= x.shape[0]:
        values, modes = np.linalg.eigh(x.T @ x)
        moved = x @ (modes @ _shrunk(modes.T @ pulled, values, alphas))
    else:
        values, modes = np.linalg.eigh(x @ x.T)
        moved = modes @ _shrunk(modes.T @ (x @ pulled), values, alphas)
    return np.asarray(moved * residual)


def _shrunk(along: Array, values: Array, alphas: Array) -> Array:
    damped = np.maximum(values, 0)[:, None] + alphas
    return np.divide(along, damped, out=np.zeros_like(along), where=damped > 0)


def block_labels(
    groups: Sequence[NDArray[np.intp]], n_samples: int, block: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Block of each event, and run of each block; blocks do not leave runs."""
    labels = np.zeros(n_samples, dtype=np.intp)
    runs: list[int] = []
    for number, rows in enumerate(groups):
        n_blocks = max(1, round(len(rows) / block))
        place = np.arange(len(rows)) * n_blocks // len(rows)
        labels[rows] = len(runs) + place
        runs += [number] * n_blocks
    return labels, np.array(runs, dtype=np.intp)


def block_sums(values: Array, blocks: NDArray[np.intp], n_blocks: int) -> Array:
    """Sum over the events of each block, (n_blocks, n_targets)."""
    member = np.zeros((n_blocks, len(values)), dtype=values.dtype)
    member[blocks, np.arange(len(values))] = 1
    return np.asarray(member @ values)


def block_variance(influence: Array, runs: NDArray[np.intp]) -> Array:
    """Variance of a sum over events, from the sums of its blocks.

    Parameters
    ----------
    influence : array of shape (n_blocks, ...)
    runs : integer array of shape (n_blocks,)
    """
    n_runs = int(runs.max()) + 1
    total = np.zeros(influence.shape[1:])
    for run in range(n_runs):
        part = influence[runs == run]
        total = total + ((part - part.mean(axis=0)) ** 2).sum(axis=0)
    return np.asarray(total * len(runs) / max(len(runs) - n_runs, 1))
