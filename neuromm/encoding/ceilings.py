"""Noise ceiling of responses to repeated stimuli.

References
----------
Schoppe et al. (2016) Measuring the performance of neural models.
Front. Comput. Neurosci. 10:10.
Sahani & Linden (2003) How linear are auditory cortical responses? NIPS 15.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuromm.kernels import is_constant

__all__ = ["noise_ceiling"]


def noise_ceiling(responses: ArrayLike) -> NDArray[np.floating]:
    """Highest correlation a model can reach with the mean response.

    Parameters
    ----------
    responses : array of shape (n_repeats, n_samples, n_targets)
        One response per repeat, in any linear unit (% signal change, uV).

    Returns
    -------
    ceiling : array of shape (n_targets,)
        Pearson correlation in [0, 1]. 0 where the repeats agree no better than chance
        (the estimated signal power is negative); nan for a target whose mean never
        varies, or that holds nan.

    Raises
    ------
    ValueError
        If there are fewer than two repeats or two samples.

    Notes
    -----
    Signal power SP = (Var(sum_r y_r) - sum_r Var(y_r)) / (R (R - 1)) and
    ceiling = sqrt(SP / Var(mean_r y_r)).

    Examples
    --------
    >>> noise_ceiling(np.ones((2, 5, 1)) * np.arange(5.0)[:, None])
    array([1.])
    """
    repeats = np.asarray(responses, dtype=np.float64)
    if repeats.ndim != 3 or len(repeats) < 2 or repeats.shape[1] < 2:
        raise ValueError(
            "a noise ceiling needs an array (n_repeats, n_samples, n_targets) with at "
            f"least two repeats of two samples, got shape {repeats.shape}. Responses "
            "to stimuli that were shown once have no ceiling."
        )
    n_repeats = len(repeats)
    summed = repeats.sum(axis=0)
    total = summed.var(axis=0, ddof=1)
    single = repeats.var(axis=1, ddof=1).sum(axis=0)
    signal = np.clip((total - single) / (n_repeats * (n_repeats - 1)), 0, None)
    with np.errstate(invalid="ignore", divide="ignore"):
        ceiling = np.sqrt(signal / (total / n_repeats**2))
    ceiling[is_constant(summed)] = np.nan
    return np.asarray(np.minimum(ceiling, 1.0))
