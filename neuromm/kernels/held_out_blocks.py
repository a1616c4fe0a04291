"""Folds of equal size, held out at once: their rows, and what is formed of them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuromm.kernels.arrays import Array, as_like, is_numpy, namespace
from neuromm.kernels.row_parts import Counts

__all__ = ["HELD_ROWS", "HeldOutBlock", "rows_of_folds", "squares_of"]

# Held-out rows whose errors are formed at once.
HELD_ROWS = 256

# Held-out rows from which a product of a matrix with itself is worth a call of its own.
_LARGE = 32


@dataclass(frozen=True)
class HeldOutBlock:
    """Folds of equal size.

    Attributes
    ----------
    counts : tuple of integer arrays of shape (n_parts,)
        Held-out parts of each fold.
    rows : integer array of shape (n_folds, n_test)
    inverse : array of shape (n_pivots, n_folds, n_test, n_test)
        (I - H_kk)^-1.
    """

    counts: tuple[Counts, ...]
    rows: NDArray[np.intp]
    inverse: Array

    def pieces(self) -> Iterator[slice]:
        """Folds whose errors are formed at once."""
        n_folds, n_test = self.rows.shape
        step = max(HELD_ROWS // max(n_test, 1), 1)
        for start in range(0, n_folds, step):
            yield slice(start, min(start + step, n_folds))

    def of(self, x: Array, folds: slice) -> Array:
        """Rows of some folds, one after the other."""
        flat = self.rows[folds].ravel()
        first, last = int(flat[0]), int(flat[-1]) + 1
        if np.array_equal(flat, np.arange(first, last)):
            return x[first:last]
        return namespace(x).take(x, as_like(flat, x), axis=0)


def rows_of_folds(basis: Array, rows: NDArray[np.intp]) -> Array:
    """Rows of the basis, of shape (n_folds, n_test, rank)."""
    xp = namespace(basis)
    part = xp.take(basis, as_like(rows.ravel(), basis), axis=0)
    return xp.reshape(part, (*rows.shape, basis.shape[1]))


def squares_of(x: Array) -> Array:
    """Product of each (n_test, rank) matrix with its own transpose."""
    xp = namespace(x)
    if not is_numpy(x) or x.shape[1] < _LARGE:
        return x @ xp.matrix_transpose(x)
    # Of a matrix with itself NumPy forms one half only; not of a stack of them.
    return np.stack([one @ one.T for one in x])
