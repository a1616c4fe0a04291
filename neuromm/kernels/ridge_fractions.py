"""Ridge by the length of its weights: fractions of that of least squares.

A fraction says how far weights are shrunken whatever the scale of features, so one grid
serves all data. The penalty of a fraction differs from target to target and from fold
to fold; it is interpolated on a fine grid, linearly in log(1 + alpha).

References
----------
Rokem & Kay (2020) Fractional ridge regression: a fast, interpretable reparameterization
of ridge regression. GigaScience 9:giaa133 (the grid and the interpolation).
"""

import numpy as np
from numpy.typing import NDArray

from neuromm.kernels.arrays import Array, as_like, host_array, namespace
from neuromm.kernels.ridge_batch import EigenBatch
from neuromm.kernels.ridge_folds import EigenRidge

__all__ = ["FractionalRidge", "fraction_alphas"]

# Limits of the grid in units of the smallest and the largest eigenvalue, and its step
# in powers of ten.
_BELOW, _ABOVE, _STEP = 1e-2, 1e4, 0.2


def fraction_alphas(
    eigenvalues: NDArray[np.float64],
    power: NDArray[np.float64],
    fractions: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Penalties that shorten weights to fractions of those of least squares.

    Parameters
    ----------
    eigenvalues : array of shape (rank,)
    power : array of shape (rank, n_targets)
        Squared weights of least squares in modes.
    fractions : array of shape (n_fractions,)
        In (0, 1].

    Returns
    -------
    alphas : array of shape (n_fractions, n_targets)
        0 for a fraction of 1, and for a target without weights.
    """
    if not len(eigenvalues):
        return np.zeros((len(fractions), power.shape[1]))
    low = np.floor(np.log10(_BELOW * eigenvalues.min()))
    high = np.ceil(np.log10(_ABOVE * eigenvalues.max()))
    grid = np.concatenate([[0.0], 10 ** np.arange(low, high, _STEP)])
    kept = (eigenvalues / (eigenvalues + grid[:, None])) ** 2
    full = power.sum(axis=0)
    lengths = np.sqrt(kept @ power / np.where(full > 0, full, 1.0))
    logs = np.log1p(grid)[::-1]
    found = [np.interp(fractions, one[::-1], logs) for one in lengths.T]
    alphas: NDArray[np.float64] = np.expm1(np.stack(found, axis=1))
    alphas[:, full == 0] = 0.0
    return alphas


class FractionalRidge:
    """Choice among fractions, with the interface of `EigenRidge`.

    Parameters
    ----------
    engine : EigenRidge
    fractions : array of shape (n_fractions,)
        In (0, 1].
    """

    def __init__(self, engine: EigenRidge, fractions: NDArray[np.float64]) -> None:
        self._engine = engine
        self.fractions = fractions

    def load(self, y: Array) -> EigenBatch:
        """Centre a batch of targets of shape (n_samples, n_targets)."""
        return self._engine.load(y)

    def path(self, batch: EigenBatch) -> Array:
        """Score of every fraction, (n_fractions, n_targets), averaged over folds."""
        self._engine.project(batch)
        *folds, _ = self._alphas(batch, self.fractions)
        rows = [
            self._engine.score_at(
                batch, [as_like(one[row], batch.targets.means) for one in folds]
            )
            for row in range(len(self.fractions))
        ]
        batch.scores = namespace(rows[0]).stack(rows)
        return batch.scores

    def at(self, batch: EigenBatch, choice: Array) -> Array:
        """Score of one fraction a target; the path has it from predictions already."""
        xp = namespace(batch.scores)
        return xp.take_along_axis(batch.scores, choice[None, :], axis=0)[0]

    def penalties(self, batch: EigenBatch, choice: Array) -> Array:
        """Penalty of each target in the fit of all rows, (n_targets,), float64."""
        alphas = list(self._alphas(batch, self.fractions))[-1]
        chosen = np.take_along_axis(alphas, host_array(choice)[None, :], axis=0)[0]
        return as_like(chosen, batch.targets.means)

    def weights(
        self, batch: EigenBatch, choice: Array, out: Array | None = None
    ) -> tuple[Array, Array]:
        """Weights and intercepts of a fit of all rows, as `EigenRidge.weights`."""
        return self._engine.weights_at(batch, self.penalties(batch, choice), out)

    def _alphas(
        self, batch: EigenBatch, fractions: NDArray[np.float64]
    ) -> list[NDArray[np.float64]]:
        return [
            fraction_alphas(values, host_array(power), fractions)
            for values, power in self._engine.spectra(batch)
        ]
