r"""Eigenmodes of features, in which a ridge is a division.

With centred X of rank r, eigenvalues lam_j of X'X and eigenvectors Q (primal), or
eigenvectors U of XX' (dual, the same lam_j), the weights for penalty a are

    W(a) = R diag(1 / (lam + a)) L' Y,    L = XQ, R = Q       (primal)
                                          L = U,  R = X'U     (dual)

so features need one decomposition, and targets one projection z = L'Y, whatever the
number of penalties. The matrix that is decomposed squares the condition number of X:
it is formed and decomposed in float64, whatever the precision of the data.

References
----------
Hoerl & Kennard (1970) Ridge regression. Technometrics 12:55-67.
Saunders, Gammerman & Vovk (1998) Ridge regression learning algorithm in dual
variables. ICML.
"""

import logging
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from neuromm.kernels.arrays import Array, as_like, contiguous, host_array, namespace

__all__ = ["Form", "Scoring", "eigenmodes", "symmetric_eigh"]

logger = logging.getLogger(__name__)

Form = Literal["primal", "dual"]
Scoring = Literal["r2", "correlation", "mse"]


def eigenmodes(
    gram: Array, max_rank: int, noise: float = 0.0
) -> tuple[NDArray[np.float64], Array]:
    """Eigenvalues and eigenvectors of X'X or XX', without modes of rounding.

    Parameters
    ----------
    gram : array of shape (order, order), float64
        Symmetric and positive semidefinite.
    max_rank : int
        Highest rank that it can have.
    noise : float
        Rounding that the matrix holds already: eigenvalues up to it are left out.

    Returns
    -------
    eigenvalues : array of shape (rank,), on the host
        Largest first. Those up to max_rank * eps * largest are noise of rounding
        (duplicated or collinear columns, the null mode of centring) and left out.
    vectors : array of shape (order, rank)
    """
    # Of its negative, eigenvalues come largest first.
    values, vectors = symmetric_eigh(-gram)
    eigenvalues = -host_array(values)
    largest = max(float(eigenvalues[0]), 0.0) if len(eigenvalues) else 0.0
    noise = max(noise, max(max_rank, 1) * np.finfo(np.float64).eps * largest)
    rank = min(int(np.count_nonzero(eigenvalues > noise)), max_rank)
    return eigenvalues[:rank], contiguous(vectors[:, :rank])


def symmetric_eigh(matrix: Array) -> tuple[Array, Array]:
    """Eigenvalues, smallest first, and eigenvectors; never an error of the solver.

    Where the solver of the device does not converge, LAPACK's slower QR iteration
    does the work on the host.
    """
    xp = namespace(matrix)
    try:
        values, vectors = xp.linalg.eigh(matrix)
        if bool(xp.all(xp.isfinite(values))):
            return values, vectors
        reason = "it gave values that are not finite"
    except (np.linalg.LinAlgError, RuntimeError) as error:  # torch: a RuntimeError
        if "OutOfMemory" in type(error).__name__:
            raise
        reason = str(error)
    from scipy.linalg import eigh

    logger.warning("decomposing on the host by QR iteration, as %s", reason)

    host_values, host_vectors = eigh(host_array(matrix), driver="ev")
    return as_like(host_values, matrix), as_like(host_vectors, matrix)
