"""How strongly each planted target follows each feature."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["planted_weights"]

# Which drivers a kind follows: vision, language and their products.
_DRIVERS = {"vision": (0,), "language": (1,), "both": (0, 1), "interactive": (2,)}
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
    tuning : array of shape (n_regions + 1, n_drivers, n_features)
        Weights of each region for vision, language and, where there are sites of
        integration, their products; the last is for no region.
    kinds : array of shape (n_targets,)
        ``"vision"``, ``"language"``, ``"both"``, ``"interactive"`` or ``"none"``.
    region : array of shape (n_targets,)
        Number of the region, -1 for none.

    Returns
    -------
    weights : array of shape (n_drivers * n_features, n_targets)
        Vision first, then language; zero for a driver that the target does not follow.
    """
    own = rng.standard_normal((len(kinds), *tuning.shape[1:]))
    mixed = np.sqrt(1 - _OWN_SHARE) * tuning[region] + np.sqrt(_OWN_SHARE) * own
    mixed /= np.linalg.norm(mixed, axis=2, keepdims=True)
    for position in range(tuning.shape[1]):
        followers = [kind for kind, which in _DRIVERS.items() if position in which]
        mixed[~np.isin(kinds, followers), position] = 0
    mixed[kinds == "both"] /= np.sqrt(2)
    return np.asarray(mixed.reshape(len(kinds), -1).T)
