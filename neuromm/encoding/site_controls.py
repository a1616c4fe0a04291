"""The linear part of a multimodal space, as a control of sites of integration.

A space that is linear in unimodal features but holds few dimensions, those that the
brain happens to use, is learnt from fewer events than all unimodal features and
predicts better. Its regression on them is as good as the space itself, and no help to
a space that is more than linear.
"""

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from neuromm.encoding.feature_scaling import training_scaler
from neuromm.encoding.ridge_fit import fit_ridge
from neuromm.encoding.splitters import contiguous_splits

__all__ = ["LINEAR_PART", "linear_part"]

Array = NDArray[np.floating]

# Name of the control, which is made from the other spaces.
LINEAR_PART = "linear-part"

# Above this share of features to events, a regression repeats what it is given.
_MOST_FEATURES = 0.5

_N_FOLDS = 5


def linear_part(unimodal: Sequence[Array], joint: Array) -> Array:
    """What unimodal features tell of joint ones, linearly: their ridge regression.

    No response takes part in it, so events may be those that models are tested on.

    Parameters
    ----------
    unimodal : sequence of arrays of shape (n_events, n_features)
    joint : array of shape (n_events, n_joint)

    Returns
    -------
    part : array of shape (n_events, n_joint)

    Warns
    -----
    UserWarning
        If there are more than half as many features as events. The regression then
        repeats the joint space, by chance, and no target can be a site.
    """
    n_events = len(joint)
    x = np.concatenate(
        [training_scaler(one, joint.dtype)(one) for one in unimodal], axis=1
    )
    if x.shape[1] > _MOST_FEATURES * n_events:
        warnings.warn(
            f"the control {LINEAR_PART} regresses the multimodal space on "
            f"{x.shape[1]} unimodal features of {n_events} events, and so many repeat "
            "it whatever it holds: hardly any target can be a site. Project the "
            "unimodal spaces to fewer features (neuromm.features.projection).",
            UserWarning,
            stacklevel=2,
        )
    alphas = np.asarray(np.geomspace(1e-4, 1e5, 19) * n_events)
    splits = contiguous_splits(n_events, min(_N_FOLDS, n_events))
    fit = fit_ridge(x, joint, splits, alphas)
    return np.asarray(fit.predict(x))
