"""Blocks of events that are resampled together, long enough for what they share."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from neuromm.encoding.default_folds import default_block, outer_folds, run_labels
from neuromm.encoding.splitters import run_rows
from neuromm.kernels import is_constant
from neuromm.kernels.block_bootstrap import correlation_length

__all__ = ["event_block", "held_out_block", "scored_targets"]

Array = NDArray[np.floating]


def event_block(responses: xr.DataArray, cv: Any = None) -> int:
    """Events a block has, where `integration_sites` is given none.

    Parts of the targets that are mapped apart have to be given that of all targets.

    Parameters
    ----------
    responses : DataArray, dims (sample, target)
    cv : optional
        As for `integration_sites`.

    Returns
    -------
    length : int
        Twice the lag at which responses no longer correlate with themselves; at least
        10 events and 10 s, at most a quarter of the typical run.
    """
    labelled = responses.transpose("sample", "target")
    y = labelled.to_numpy()
    folds, _ = outer_folds(labelled, cv)
    held = np.sort(np.concatenate([test for _, test in folds]))
    rows = run_rows(run_labels(labelled)[held])
    return held_out_block(labelled, y[held][:, scored_targets(y)], rows)


def held_out_block(
    responses: xr.DataArray, y: Array, rows: Sequence[NDArray[np.intp]]
) -> int:
    """As `event_block`, from held-out responses and the rows of each run in them."""
    quarter = int(np.median([len(one) for one in rows]) // 4)
    wanted = max(default_block(responses), 2 * correlation_length(y, rows))
    return max(1, min(wanted, max(quarter, 1)))


def scored_targets(y: Array) -> NDArray[np.bool_]:
    """Targets that vary and have no missing value, (n_targets,)."""
    return np.asarray(np.isfinite(y).all(axis=0) & ~is_constant(y))
