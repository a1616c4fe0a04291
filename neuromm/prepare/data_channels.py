"""The channels that record the brain: MEG, EEG, SEEG, ECoG and DBS."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["data_channels"]


def data_channels(info: Any, *, bads: bool = True) -> NDArray[np.int64]:
    """Indices of the channels that record the brain.

    Parameters
    ----------
    info : mne.Info
    bads : bool
        Whether channels marked as bad are among them.

    Returns
    -------
    picks : array of shape (n_channels,)
        Ascending. Reference sensors of CTF systems, which record the noise of the
        room, are not among them.
    """
    import mne

    picks: NDArray[np.int64] = mne.pick_types(
        info,
        meg=True,
        ref_meg=False,
        eeg=True,
        seeg=True,
        ecog=True,
        dbs=True,
        exclude=() if bads else "bads",
    )
    return picks
