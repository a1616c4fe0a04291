"""Features scaled by the statistics of training samples alone."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["training_scaler"]

Array = NDArray[np.floating]


def training_scaler(
    train: Array, dtype: np.dtype[Any], *, standardize: bool = True
) -> Callable[[Array], Array]:
    """Return a function that scales features by the statistics of training samples.

    A column that is constant there becomes 0, which to a ridge is as if it were absent.

    Parameters
    ----------
    train : array of shape (n_samples, n_features)
    dtype : dtype
        Of what is returned.
    standardize : bool
        Divide by the standard deviation; False only centres.
    """
    mean = train.mean(axis=0, dtype=np.float64)
    spread = train.std(axis=0, dtype=np.float64)
    noise = 10 * np.finfo(train.dtype).eps * np.abs(train).max(axis=0)
    varies = spread > noise
    factor = np.zeros(len(spread))
    factor[varies] = 1 / spread[varies] if standardize else 1.0

    def scale(x: Array) -> Array:
        scaled: Array = ((x - mean) * factor).astype(dtype, copy=False)
        return scaled

    return scale
