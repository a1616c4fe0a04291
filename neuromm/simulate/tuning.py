"""How strongly each planted target follows each feature."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["planted_weights"]

_OWN_SHARE = 0.5  # of the variance of the weights; the rest is that of the region


def planted_weights(
    rng: np.random.Generator,
    tuning: NDArray[np.floating],
    kinds: NDArray[np.object_],
    region: NDArray[np.intp],
) -> NDArray[np.floating]:
    """Weights of unit length, half the region's own and half the target's own.

    Parameters
    ----------
    rng : Generator
    tuning : array of shape (n_regions + 1, 2, n_features)
        Weights of each region for vision and language; the last is for no region.
    kinds : array of shape (n_targets,)
        ``"vision"``, ``"language"``, ``"both"`` or ``"none"``.
    region : array of shape (n_targets,)
        Number of the region, -1 for none.

    Returns
    -------
    weights : array of shape (2 * n_features, n_targets)
        Vision first, then language; zero for a space that the target does not follow.
    """
    own = rng.standard_normal((len(kinds), *tuning.shape[1:]))
    mixed = np.sqrt(1 - _OWN_SHARE) * tuning[region] + np.sqrt(_OWN_SHARE) * own
    mixed /= np.linalg.norm(mixed, axis=2, keepdims=True)
    for position, space in enumerate(("vision", "language")):
        mixed[(kinds != space) & (kinds != "both"), position] = 0
    mixed[kinds == "both"] /= np.sqrt(2)
    return np.asarray(mixed.reshape(len(kinds), -1).T)
