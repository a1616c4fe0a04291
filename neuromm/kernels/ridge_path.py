r"""Held-out scores of one fold for every penalty at once: the divided differences.

In the eigenbasis of its training rows (`neuromm.kernels.ridge_modes`) a fold predicts
its m held-out rows as A diag(d(a)) z with d_j(a) = 1 / (lam_j + a). All scores follow
from two numbers for each penalty and target,

    l(a) = y'yhat(a) = sum_j d_j b_j z_j                       b = A'y
    q(a) = |yhat(a)|^2 = sum_jk d_j d_k z_j z_k M_jk           M = A'A

and the double sum from one product that serves every penalty, since
d_j d_k = (d_j - d_k) / (lam_k - lam_j):

    q(a) = 2 sum_j d_j z_j w_j + sum_j d_j^2 z_j u_j           w = N z,  u = E z

with N_jk = M_jk / (lam_k - lam_j) for pairs of different eigenvalues. Pairs that are
nearly equal, |lam_j - lam_k| <= tau max(lam_j, lam_k), are left to E, which also holds
the diagonal of M: for them d_j d_k = (d_j^2 + d_k^2) / 2 to tau^2 / 2. So a fold costs
2 r^2 operations a target instead of 2 m r for every penalty.

N is antisymmetric, so a constant may be subtracted from d_j in the first sum. Here it
is the d of the largest eigenvalue: the sum then keeps its digits for a -> infinity,
where all d_j are nearly equal.

Eigenvalues and penalties are in units of the largest eigenvalue of the fold, and rows
of the tables in units of 1 / (1 + a), so that float32 does not run out of exponent.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack

from neuromm.kernels.arrays import (
    Array,
    as_like,
    empty,
    is_numpy,
    itemsize,
    namespace,
    runs_kernels,
)

__all__ = ["DividedDifferences", "PathTables", "divided_differences", "path_sums"]

# Relative distance below which two eigenvalues are nearly equal: it balances rounding
# of the difference, eps / tau, against the error tau^2 / 2 of the pair.
_TAU = {4: 4e-3, 8: 1e-5}

# Rows of N that are formed at once.
_ROWS = 128

# A sparse E pays while it reaches over less than this share of the rank.
_SPARSE_SHARE = 16

# Elsewhere than beside NumPy, E is applied diagonal by diagonal up to this many.
_MAX_DIAGONALS = 3


@dataclass(frozen=True)
class PathTables:
    """Functions of eigenvalue and penalty, in units of scale^-1 = 1 / (1 + a).

    Attributes
    ----------
    scale : array of shape (n_alphas,), float64, on the host
    fit : array of shape (n_alphas, rank)
        scale * d.
    cross : array of shape (n_alphas, rank)
        2 scale^2 (d - d of the largest eigenvalue).
    near : array of shape (n_alphas, rank)
        (scale * d)^2.
    """

    scale: NDArray[np.float64]
    fit: Array
    cross: Array
    near: Array

    @classmethod
    def of(
        cls,
        eigenvalues: NDArray[np.float64],
        alphas: NDArray[np.float64],
        like: Array,
    ) -> "PathTables":
        """Tables in the library and precision of ``like``.

        Parameters
        ----------
        eigenvalues : array of shape (rank,), largest (1) first
        alphas : array of shape (n_alphas,), in the same unit
        """
        scale = 1.0 + alphas
        fit = scale[:, None] / (eigenvalues + alphas[:, None])
        cross = 2.0 * scale[:, None] * (1.0 - eigenvalues)
        cross /= eigenvalues + alphas[:, None]
        tables = (as_like(one, like, dtype=like.dtype) for one in (fit, cross, fit**2))
        return cls(scale, *tables)


@dataclass(frozen=True)
class DividedDifferences:
    """N and E of the module.

    Attributes
    ----------
    far : array of shape (rank, rank)
        N.
    diagonals : tuple of arrays
        E as its diagonals 0, 1, …; of shape (rank - offset,). Empty if there is
        ``near``.
    near : array of shape (rank, rank) or None
        E itself: sparse (SciPy's, beside NumPy) or dense.
    """

    far: Array
    diagonals: tuple[Array, ...]
    near: Any

    def far_product(self, z: Array) -> Array:
        """Return w = N z."""
        return self.far @ z

    def near_product(self, z: Array) -> Array:
        """Return u = E z."""
        if self.near is not None:
            return self.near @ z
        product = self.diagonals[0][:, None] * z
        for offset, diagonal in enumerate(self.diagonals[1:], start=1):
            product[:-offset] += diagonal[:, None] * z[offset:]
            product[offset:] += diagonal[:, None] * z[:-offset]
        return product


def divided_differences(
    eigenvalues: NDArray[np.float64], square: Array, like: Array
) -> DividedDifferences:
    """N and E from M, in the library and precision of ``like``.

    Parameters
    ----------
    eigenvalues : array of shape (rank,)
        Largest first.
    square : array of shape (rank, rank), float64
        M; overwritten.
    """
    xp = namespace(square)
    tau = _TAU[itemsize(like)]
    values = as_like(eigenvalues, square)
    rank = len(eigenvalues)
    reach = _reach(eigenvalues, tau)
    far = empty((rank, rank), like)
    near, sparse = None, []
    is_sparse = is_numpy(like) and reach * _SPARSE_SHARE < rank
    if not is_sparse and reach > _MAX_DIAGONALS:
        near = empty((rank, rank), like)
    for start in range(0, rank, _ROWS):
        rows = slice(start, start + _ROWS)
        gap = values[None, :] - values[rows, None]
        close = xp.abs(gap) <= tau * xp.maximum(values[None, :], values[rows, None])
        zeros = xp.zeros_like(gap)
        quotient = square[rows] / xp.where(close, 1 + zeros, gap)
        far[rows] = xp.astype(xp.where(close, zeros, quotient), like.dtype)
        if is_sparse:
            part = np.where(close, square[rows], zeros).astype(like.dtype)
            sparse.append(csr_array(part))
        elif near is not None:
            near[rows] = xp.astype(xp.where(close, square[rows], zeros), like.dtype)
    if sparse:
        near = vstack(sparse, format="csr")
    if near is not None:
        return DividedDifferences(far, (), near)
    return DividedDifferences(
        far,
        tuple(_diagonal(values, square, k, tau, like) for k in range(reach + 1)),
        None,
    )


def _diagonal(
    values: Array, square: Array, offset: int, tau: float, like: Array
) -> Array:
    """Diagonal of E: 0 where two eigenvalues so far apart in rank are not close."""
    xp = namespace(square)
    larger, smaller = values[: values.shape[0] - offset], values[offset:]
    diagonal = xp.linalg.diagonal(square, offset=offset)
    close = larger - smaller <= tau * larger
    return xp.astype(xp.where(close, diagonal, xp.zeros_like(diagonal)), like.dtype)


def path_sums(
    tables: PathTables, differences: DividedDifferences, z: Array, b: Array
) -> tuple[Array, Array]:
    """Return l and q of the module for every penalty.

    Parameters
    ----------
    tables : PathTables
    differences : DividedDifferences
    z, b : arrays of shape (rank, n_targets)

    Returns
    -------
    fit, power : arrays of shape (n_alphas, n_targets), float64
        l = y'yhat and q = yhat'yhat over the held-out rows.
    """
    xp = namespace(z)
    scale = as_like(tables.scale, z)[:, None]
    if runs_kernels(z):
        from neuromm.kernels import gpu_ridge

        w, u = differences.far_product(z), differences.near_product(z)
        fit, power = gpu_ridge.path_sums(
            z, w, u, b, tables.fit, tables.cross, tables.near
        )
        return fit / scale, power / scale**2
    # One product at a time: together they would take as much memory as all folds' z.
    fit = xp.astype(tables.fit @ (b * z), xp.float64)
    product = differences.far_product(z)
    product *= z
    power = xp.astype(tables.cross @ product, xp.float64)
    del product
    product = differences.near_product(z)
    product *= z
    power += xp.astype(tables.near @ product, xp.float64)
    return fit / scale, power / scale**2


def _reach(eigenvalues: NDArray[np.float64], tau: float) -> int:
    """Largest distance in rank of two eigenvalues that are nearly equal."""
    # Largest first: k is near j > k if lam_k - lam_j <= tau lam_k.
    rising = -eigenvalues
    last = np.searchsorted(rising, -eigenvalues * (1 - tau), side="right") - 1
    return int((last - np.arange(len(eigenvalues))).max(initial=0))
