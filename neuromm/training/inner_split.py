"""Validation groups, taken out of the training data and never out of the test data."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromm.core import UsageError

__all__ = ["inner_split"]

Rows = NDArray[np.intp]


def inner_split(
    groups: Sequence[Any] | NDArray[Any], fraction: float, seed: int
) -> tuple[Rows, Rows]:
    """Rows to train on and rows to validate on, no group in both.

    Parameters
    ----------
    groups : sequence of n_samples labels
        Whom a sample belongs to (patient, subject, slide): what must not be split.
    fraction : float
        Of the groups, rounded, and at least one group if above 0.
    seed : int

    Returns
    -------
    train, validation : arrays of int
        In order; ``validation`` is empty if the fraction is 0.

    Raises
    ------
    UsageError
        If there are too few groups to leave one for training.
    """
    labels, codes = np.unique(np.asarray(groups), return_inverse=True)
    n_held = 0 if fraction == 0 else max(1, round(fraction * len(labels)))
    if n_held >= len(labels):
        raise UsageError(
            f"{len(labels)} group(s) cannot be split into training and validation: "
            "give more groups, or set validation_fraction to 0"
        )
    held = np.random.default_rng([seed, 0]).permutation(len(labels))[:n_held]
    inside = np.isin(codes, held)
    return np.flatnonzero(~inside), np.flatnonzero(inside)
