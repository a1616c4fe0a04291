"""Choice of a penalty for each target."""

import numpy as np

from neuromm.kernels.arrays import Array, as_like, host_array, namespace, runs_kernels

__all__ = ["select_alphas"]

# himalaya adds the same slope per unit of log(alpha), so that scores which differ by
# rounding alone go to the larger alpha.
_TIE_SLOPE = 1e-10


def select_alphas(
    scores: Array, alphas: Array, *, tie_scale: Array | float = 1.0
) -> Array:
    """Position of the best penalty of each target; ties go to the larger one.

    Parameters
    ----------
    scores : array of shape (n_alphas, n_targets)
        Higher is better. nan never wins; a target with nan alone gets the largest
        penalty.
    alphas : array of shape (n_alphas,)
        In any order.
    tie_scale : float or array of shape (n_targets,)
        Unit of the score: scores that differ by less than 1e-10 of it per unit of
        log(alpha) are a tie.

    Returns
    -------
    best : integer array of shape (n_targets,)
    """
    xp = namespace(scores)
    penalties = np.asarray(host_array(alphas), dtype=np.float64)
    largest_first = np.argsort(-penalties, kind="stable")
    slope = _TIE_SLOPE * np.log(np.maximum(penalties, np.finfo(np.float64).tiny))
    if runs_kernels(scores):
        from neuromm.kernels.gpu_ridge import select

        choice, _ = select(scores, slope, tie_scale, largest_first)
        return xp.astype(choice, xp.int64)  # torch indexes with these alone
    ranked = scores + as_like(slope, scores)[:, None] * tie_scale
    ranked = xp.where(xp.isnan(ranked), -xp.inf, ranked)
    order = as_like(largest_first, scores)
    ranked = xp.take(ranked, order, axis=0)
    return xp.take(order, xp.argmax(ranked, axis=0))
