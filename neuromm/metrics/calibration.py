"""Whether a probability of 0.8 comes true in 80 of 100 cases.

References
----------
Naeini, Cooper & Hauskrecht (2015) Obtaining well calibrated probabilities using
Bayesian binning. AAAI.
Guo et al. (2017) On calibration of modern neural networks. ICML.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuromm.core import UsageError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["expected_calibration_error", "reliability_table"]


def reliability_table(
    probabilities: ArrayLike, truth: ArrayLike, n_bins: int = 15
) -> "pd.DataFrame":
    """Stated and observed frequencies, in bins of equal width.

    Parameters
    ----------
    probabilities : array of shape (n_samples,) or (n_samples, n_classes)
        Of the positive class; or of all classes, of which the most probable one is
        looked at. A sample may be a voxel.
    truth : array of int or bool of shape (n_samples,)
        0 or 1; or the class.
    n_bins : int

    Returns
    -------
    table : DataFrame of n_bins rows
        ``low`` and ``high``, the edges (low, high], the first bin with 0;
        ``n_samples``; ``confidence``, the mean probability; ``frequency``, how often
        it came true. The last two are nan in an empty bin.

    Raises
    ------
    UsageError
        If shapes do not match, a probability is outside [0, 1], probabilities of
        classes do not sum to 1, or a class is not there.
    """
    import pandas as pd

    stated, right = _stated_and_right(probabilities, truth)
    if n_bins < 1:
        raise UsageError(f"n_bins must be at least 1, got {n_bins}")
    edges = np.linspace(0, 1, n_bins + 1)
    bins = np.searchsorted(edges[1:-1], stated)
    counts = np.bincount(bins, minlength=n_bins)
    with np.errstate(invalid="ignore"):
        confidence = np.bincount(bins, stated, minlength=n_bins) / counts
        frequency = np.bincount(bins, right, minlength=n_bins) / counts
    return pd.DataFrame(
        {
            "low": edges[:-1],
            "high": edges[1:],
            "n_samples": counts,
            "confidence": confidence,
            "frequency": frequency,
        }
    )


def expected_calibration_error(
    probabilities: ArrayLike, truth: ArrayLike, n_bins: int = 15
) -> float:
    """Mean distance between stated and observed frequency.

    Parameters
    ----------
    probabilities, truth, n_bins
        As in `reliability_table`.

    Returns
    -------
    error : float
        In [0, 1]: the bins' distances, weighted by their samples. It is above 0 for
        a calibrated model, too, as frequencies in bins are drawn.
    """
    table = reliability_table(probabilities, truth, n_bins)
    distance = (table["confidence"] - table["frequency"]).abs().fillna(0)
    return float((distance * table["n_samples"]).sum() / table["n_samples"].sum())


def _stated_and_right(
    probabilities: ArrayLike, truth: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    stated = np.asarray(probabilities, dtype=np.float64)
    true = np.asarray(truth)
    if stated.ndim not in (1, 2) or true.shape != stated.shape[:1] or not len(true):
        raise UsageError(
            "probabilities must be (n_samples,) or (n_samples, n_classes) and truth "
            f"(n_samples,), got {stated.shape} and {true.shape}"
        )
    if not ((stated >= 0) & (stated <= 1)).all():
        raise UsageError(
            "probabilities must lie in [0, 1]: are they logits, or is one nan?"
        )
    n_classes = 2 if stated.ndim == 1 else stated.shape[1]
    if true.dtype.kind not in "biu" or true.min() < 0 or true.max() >= n_classes:
        raise UsageError(
            f"truth must hold classes 0 to {n_classes - 1}, got {true.dtype} from "
            f"{true.min()} to {true.max()}"
        )
    if stated.ndim == 1:
        return stated, true.astype(np.float64)
    # Half precision sums to 1 within a few thousandths.
    if np.abs(stated.sum(axis=1) - 1).max() > 0.01:
        raise UsageError("probabilities of the classes must sum to 1 in each sample")
    top = stated.argmax(axis=1)
    return stated.max(axis=1), (top == true).astype(np.float64)
