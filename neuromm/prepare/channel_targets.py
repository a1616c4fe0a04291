"""Targets of a channel and a time: their names and their order."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

__all__ = ["checked_times", "target_table"]


def checked_times(times: ArrayLike | None) -> NDArray[np.float64] | None:
    """The times as an array of their own, or None.

    Raises
    ------
    ValueError
        If there is none, or they do not ascend.
    """
    if times is None:
        return None
    values = np.array(times, dtype=float).reshape(-1)
    if len(values) == 0 or not (np.diff(values) > 0).all():
        raise ValueError(f"times must be given and ascend, got {values[:5]} …")
    values.setflags(write=False)
    return values


def target_table(
    channels: Sequence[str],
    positions_mm: NDArray[np.float64],
    times: NDArray[np.float64] | None,
) -> pd.DataFrame:
    """One row a target: channel by channel, times within.

    Parameters
    ----------
    channels : sequence of str of length n_channels
    positions_mm : array of shape (n_channels, 3)
    times : array of shape (n_times,) or None
        In s from the event.

    Returns
    -------
    table : DataFrame
        ``target`` (``TP9``, or ``TP9@0.180`` with a time), ``x``, ``y``, ``z`` in mm,
        ``channel`` and, with times, ``time`` in s.
    """
    n_times = 1 if times is None else len(times)
    names = np.repeat(np.array(channels, dtype=object), n_times)
    labels = _time_labels(times)
    table = pd.DataFrame(
        {
            "target": [
                f"{name}{label}"
                for name, label in zip(names, labels * len(channels), strict=True)
            ],
            **dict(zip("xyz", np.repeat(positions_mm, n_times, axis=0).T, strict=True)),
            "channel": names,
        }
    )
    if times is not None:
        table["time"] = np.tile(times, len(channels))
    return table


def _time_labels(times: NDArray[np.float64] | None) -> list[str]:
    """``@0.180``, with as many decimals as tell the times apart."""
    if times is None:
        return [""]
    for decimals in range(3, 13):
        # Adding 0.0 turns the minus zero of a rounded -0.0001 into zero.
        labels = [f"@{round(float(t), decimals) + 0.0:.{decimals}f}" for t in times]
        if len(set(labels)) == len(labels):
            return labels
    raise ValueError("times must differ by more than 1e-12 s")
