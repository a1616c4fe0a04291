"""Random projections of features: they depend on no value, so they leak none.

References
----------
Li, Hastie & Church (2006) Very sparse random projections. KDD: 287-296.
Dasgupta & Gupta (2003) An elementary proof of a theorem of Johnson and Lindenstrauss.
Random Structures & Algorithms 22: 60-65.
"""

import warnings
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from neuromm.core import UsageError

__all__ = ["johnson_lindenstrauss_dim", "resolved_dim", "sparse_projection"]

EPSILON = 0.1  # as scikit-learn, and as Subramaniam et al. (2024)


def johnson_lindenstrauss_dim(n_samples: int, epsilon: float = EPSILON) -> int:
    """Dimension that keeps all distances between samples within a factor 1 ± epsilon.

    Parameters
    ----------
    n_samples : int
    epsilon : float
        Largest relative error of a squared distance, in (0, 1).

    Returns
    -------
    dim : int
        4 ln n / (epsilon^2 / 2 - epsilon^3 / 3), rounded down as scikit-learn does.

    Examples
    --------
    >>> johnson_lindenstrauss_dim(6070)
    7466
    """
    if n_samples < 1 or not 0 < epsilon < 1:
        raise UsageError(
            "expected one sample or more and an epsilon between 0 and 1, got "
            f"{n_samples} and {epsilon:g}"
        )
    denominator = epsilon**2 / 2 - epsilon**3 / 3
    return max(1, int(4 * np.log(n_samples) / denominator))


def resolved_dim(dim: int | Literal["auto"] | None, n_samples: int) -> int | None:
    """Dimension of a projection: ``"auto"`` is that of Johnson and Lindenstrauss.

    It depends on the number of samples alone, never on their values.

    Raises
    ------
    UsageError
        If it is neither ``"auto"``, None, nor a positive number.
    """
    if dim is None:
        return None
    if dim == "auto":
        return johnson_lindenstrauss_dim(n_samples)
    if isinstance(dim, bool) or not isinstance(dim, int | np.integer) or dim < 1:
        raise UsageError(
            f'projection_dim must be a positive number, "auto" or None, got {dim!r}'
        )
    return int(dim)


def sparse_projection(
    values: NDArray[np.floating], dim: int, seed: int = 0
) -> NDArray[np.float32]:
    """Project rows by a sparse random matrix: the one of scikit-learn for this seed.

    Parameters
    ----------
    values : array of shape (n_rows, n_features)
    dim : int
        Columns of the result; more than ``n_features`` is allowed, as in
        Subramaniam et al. (2024).
    seed : int
        The matrix depends on it, on ``n_features`` and on ``dim``.

    Returns
    -------
    projected : array of float32 of shape (n_rows, dim)

    Notes
    -----
    Entries are ±sqrt(sqrt(n_features) / dim) with probability 1 / sqrt(n_features), so
    that squared distances are kept on average.
    """
    matrix = _sparse_matrix(values.shape[1], dim, seed)
    projected = matrix @ np.asarray(values, dtype=np.float32).T
    return np.ascontiguousarray(projected.T, dtype=np.float32)


# Layers of one width share a matrix; the largest takes tens of MB.
@lru_cache(maxsize=32)
def _sparse_matrix(n_features: int, dim: int, seed: int) -> Any:
    from scipy.sparse import csr_matrix
    from sklearn.exceptions import DataDimensionalityWarning
    from sklearn.random_projection import SparseRandomProjection

    maker = SparseRandomProjection(n_components=dim, random_state=seed)
    with warnings.catch_warnings():
        # More columns than features is meant: equal dimensions for all layers.
        warnings.simplefilter("ignore", DataDimensionalityWarning)
        # Fitting looks at the shape alone.
        maker.fit(csr_matrix((1, n_features), dtype=np.float32))
    return maker.components_.astype(np.float32)
