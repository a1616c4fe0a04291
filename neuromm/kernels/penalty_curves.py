"""Penalties whose residuals span those of a whole grid.

What a ridge leaves of a mode with eigenvalue lam is the share a / (lam + a), a smooth
function of the penalty: about two penalties a decade span all others of a grid to the
rounding of float32. Residuals, and errors of held-out rows, are then computed for a few
penalties and mixed for the others.

References
----------
Halko, Martinsson & Tropp (2011) Finding structure with randomness. SIAM Review
53:217-288, section 5.2 (interpolative decomposition by a pivoted QR).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import qr

from neuromm.kernels.arrays import (
    ROWS_PER_SUM,
    Array,
    is_numpy,
    namespace,
    runs_kernels,
)

__all__ = ["Spanning", "every_eigenvalue", "mixed_squares", "spanning_penalties"]

# Mixing pays where it saves at least this share of the penalties.
_LEAST_SAVED = 0.2

# Eigenvalues a decade that stand for all, and how far below the smallest penalty: what
# is left of a mode there is 1 to a thousandth, and linear in its eigenvalue.
_PER_DECADE, _BELOW = 16, 1e-3


@dataclass(frozen=True)
class Spanning:
    """Penalties that span a grid.

    Attributes
    ----------
    pivots : integer array of shape (n_pivots,)
        Their positions, rising.
    mix : array of shape (n_alphas, n_pivots) or None
        What each curve of the grid is of theirs; None if they are the whole grid.
    """

    pivots: NDArray[np.intp]
    mix: NDArray[np.float64] | None


def spanning_penalties(
    alphas: NDArray[np.float64], eigenvalues: NDArray[np.float64], tolerance: float
) -> Spanning:
    """Fewest penalties that span the shares a / (lam + a) of a grid.

    Parameters
    ----------
    alphas : array of shape (n_alphas,)
    eigenvalues : array of shape (rank,)
        In the unit of the penalties.
    tolerance : float
        Relative to the largest curve: about the error of a mixture.
    """
    everyone = Spanning(np.arange(len(alphas)), None)
    if not len(eigenvalues) or len(alphas) < 5 or not (alphas > 0).all():
        return everyone
    shares = alphas[:, None] / (eigenvalues + alphas[:, None])
    scale = np.linalg.norm(shares, axis=1)
    shares /= scale[:, None]
    _, r, order = qr(shares.T, mode="economic", pivoting=True)
    size = np.abs(np.diag(r))
    n_pivots = int((size > tolerance * size[0]).sum())
    if n_pivots > (1 - _LEAST_SAVED) * len(alphas):
        return everyone
    pivots = np.sort(order[:n_pivots])
    mix = np.linalg.lstsq(shares[pivots].T, shares.T, rcond=None)[0].T
    mix = scale[:, None] * mix / scale[pivots]
    mix[pivots] = np.eye(n_pivots)
    return Spanning(pivots, mix)


def every_eigenvalue(
    alphas: NDArray[np.float64], largest: float
) -> NDArray[np.float64]:
    """Eigenvalues that stand for any set of them up to ``largest``, 0 included.

    By them the penalties are found that span the errors of held-out rows: those of a
    fold are constants and shares of its own modes, which are not known.
    """
    positive = alphas[alphas > 0]
    lowest = _BELOW * float(positive.min(initial=1.0))
    n_values = int(_PER_DECADE * np.log10(max(largest / lowest, 10.0))) + 1
    return np.concatenate([[0.0], np.geomspace(lowest, max(largest, lowest), n_values)])


def mixed_squares(errors: Array, mix: Array | None) -> Array:
    """Sums over rows of the squared errors of every penalty of a grid.

    Parameters
    ----------
    errors : array of shape (n_pivots, n_folds, n_rows, n_targets)
        Of the penalties that span the grid.
    mix : array of shape (n_alphas, n_pivots) or None
        As `Spanning.mix`, in the library and precision of ``errors``.

    Returns
    -------
    squares : array of shape (n_alphas, n_folds, n_targets), float64
    """
    if mix is not None and runs_kernels(errors):
        from neuromm.kernels import gpu_mixtures

        return gpu_mixtures.mixed_squares(errors, mix)
    if mix is not None:
        xp = namespace(errors)
        n_pivots, *shape = errors.shape
        mixed = mix @ xp.reshape(errors, (n_pivots, -1))
        errors = xp.reshape(mixed, (mix.shape[0], *shape))
    return sum(
        _sum_squares(errors[:, :, start : start + ROWS_PER_SUM])
        for start in range(0, errors.shape[2], ROWS_PER_SUM)
    )


def _sum_squares(x: Array) -> Array:
    if is_numpy(x):
        return np.einsum("akmt,akmt->akt", x, x).astype(np.float64)
    xp = namespace(x)
    return xp.sum(x * x, axis=2, dtype=xp.float64)
