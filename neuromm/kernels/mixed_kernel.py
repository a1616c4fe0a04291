"""Kernel of several feature spaces, each with a weight of its own."""

import numpy as np
from numpy.typing import NDArray

from neuromm.kernels.arrays import Array, runs_kernels

__all__ = ["mixed_kernel"]


def mixed_kernel(kernels: Array, gamma: NDArray[np.float64]) -> Array:
    """Weighted sum of the kernels of spaces: K = sum_i gamma_i K_i.

    Parameters
    ----------
    kernels : array of shape (n_spaces, n_samples, n_samples), float64
    gamma : array of shape (n_spaces,), on the host
        0 or above, and above 0 in one space at least. Kernels with a weight of 0 are
        not read.

    Returns
    -------
    kernel : array of shape (n_samples, n_samples), float64
    """
    if runs_kernels(kernels):
        from neuromm.kernels import gpu_mixtures

        return gpu_mixtures.mixed_kernel(kernels, gamma)
    used = np.flatnonzero(gamma > 0)
    total = kernels[int(used[0])] * float(gamma[used[0]])
    for space in used[1:]:
        total += kernels[int(space)] * float(gamma[space])
    return total
