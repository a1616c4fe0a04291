"""EEG and MEG sensors as targets, alone or at the times of an epoch."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from neuromm.core import UsageError
from neuromm.prepare.channel_targets import checked_times, target_table
from neuromm.prepare.data_channels import data_channels

__all__ = ["SensorSpace"]


class SensorSpace:
    """Sensors of a recording; implements `neuromm.core.TargetSpace`.

    Parameters
    ----------
    info : mne.Info
        Its data channels are the sensors, in its order, bad ones included: pass the
        ``info`` of the epochs.
    times : array of shape (n_times,), optional
        Ascending, in s from the event. A target is then a sensor at a time, sensor by
        sensor.

    Attributes
    ----------
    n_targets : int
    coordinate_frame : str or None
        ``"head"`` (MNE: origin between the ears, x to the right, y to the nasion), or
        None where no sensor has a known position.
    channels : tuple of str
    times : array of shape (n_times,) or None

    Raises
    ------
    UsageError
        If there is no data channel.
    """

    n_targets: int
    coordinate_frame: str | None
    channels: tuple[str, ...]
    times: NDArray[np.float64] | None

    def __init__(self, info: Any, times: ArrayLike | None = None) -> None:
        import mne

        picks = data_channels(info)
        if len(picks) == 0:
            raise UsageError("a sensor space needs MEG, EEG or intracranial channels")
        self._info = mne.pick_info(info, picks)
        self._positions_mm = 1e3 * _head_positions(self._info)
        self.channels = tuple(self._info["ch_names"])
        self.times = checked_times(times)
        self.n_targets = len(picks) * (1 if self.times is None else len(self.times))
        known = np.isfinite(self._positions_mm).any()
        self.coordinate_frame = "head" if known else None

    def at_times(self, times: ArrayLike) -> "SensorSpace":
        """The same sensors at these times (s from the event)."""
        return SensorSpace(self._info, times)

    def coords(self) -> pd.DataFrame:
        """One row a target.

        Returns
        -------
        coords : DataFrame
            ``target`` (``TP9`` or ``TP9@0.180``), ``x``, ``y``, ``z`` in mm in the
            head (nan where unknown), ``channel``, and ``time`` in s where there are
            times.
        """
        return target_table(self.channels, self._positions_mm, self.times)

    def to_native(self, values: NDArray[np.floating]) -> Any:
        """Put one value a target into an evoked response.

        Parameters
        ----------
        values : array of shape (n_targets,)
            nan is kept.

        Returns
        -------
        evoked : mne.EvokedArray
            Sensors by times; one sample, at 0 s, for a space without times. MNE holds
            evenly spaced times only: bins that were rounded to samples are drawn at
            most one sample from their centre.
        """
        import mne

        matrix = np.asarray(values, dtype=float)
        if matrix.shape != (self.n_targets,):
            raise ValueError(
                f"expected one value for each of {self.n_targets} targets, got an "
                f"array of shape {matrix.shape}"
            )
        times = np.zeros(1) if self.times is None else self.times
        info = self._info.copy()
        if len(times) > 1:
            # MNE has no public way to give channels another sampling rate.
            with info._unlock():
                info["sfreq"] = (len(times) - 1) / (times[-1] - times[0])
        evoked = mne.EvokedArray(
            matrix.reshape(len(self.channels), -1), info, verbose="WARNING"
        )
        return evoked.shift_time(float(times[0]), relative=False)


def _head_positions(info: Any) -> NDArray[np.float64]:
    """Positions (n_channels, 3) in m in the head; nan where unknown."""
    from mne.io.constants import FIFF
    from mne.transforms import apply_trans

    positions = np.full((len(info["chs"]), 3), np.nan)
    for row, channel in zip(positions, info["chs"], strict=True):
        place = np.asarray(channel["loc"][:3], dtype=float)
        if not np.isfinite(place).all() or not place.any():
            continue  # files write 0 0 0 for a sensor that was not digitised
        if channel["coord_frame"] == FIFF.FIFFV_COORD_HEAD:
            row[:] = place
        elif (
            channel["coord_frame"] == FIFF.FIFFV_COORD_DEVICE
            and info["dev_head_t"] is not None
        ):
            row[:] = apply_trans(info["dev_head_t"], place)
    return positions
