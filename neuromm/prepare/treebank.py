"""Responses of depth electrodes to the words or cuts of a film, as published.

The table of Subramaniam et al. (2024): line noise removed, each contact against its
neighbours on the shaft, and means of 200 ms every 25 ms in 161 windows that begin from
2 s before to 2 s after the event. A target is a contact in a window.

Known of the published windows are their length, their number and that the first begins
2 s before the event; that they are 25 ms apart follows from 161 windows over 4 s.

References
----------
Subramaniam V et al. (2024) Revealing vision-language integration in the brain with
multimodal networks. ICML 2024, arXiv:2406.14481.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from neuromm.core import DataError, UsageError, response_matrix
from neuromm.prepare.contact_space import ContactSpace
from neuromm.prepare.epochs import event_responses
from neuromm.prepare.filters import notch
from neuromm.prepare.reference import rereference
from neuromm.prepare.shafts import contacts_by_shaft

__all__ = ["treebank_responses"]

# Contacts that are prepared at once, with up to two neighbours. A filter needs the
# whole recording, in four copies at its peak.
_BLOCK_CONTACTS = 4


def treebank_responses(
    raw: Any,
    events: pd.DataFrame,
    electrodes: pd.DataFrame,
    *,
    ch_names: Sequence[str] | None = None,
    before_s: float = 2.0,
    after_s: float = 2.0,
    window_ms: float = 200.0,
    step_ms: float = 25.0,
    line_freq: float = 60.0,
    stimulus: str = "stimulus",
    run: str = "1",
    subject: str = "",
    dtype: Any = np.float32,
) -> xr.DataArray:
    """Responses of every contact at every time around an event.

    Parameters
    ----------
    raw : mne.io.BaseRaw
        V; not changed, and not read but for a few contacts at a time.
    events : DataFrame
        A row a word or a cut: ``onset`` in s from the first sample of ``raw``.
    electrodes : DataFrame
        ``name``, ``x``, ``y``, ``z`` (mm) and ``region``; ``attrs["frame"]`` names the
        frame of the positions, where it is known.
    ch_names : sequence of str, optional
        Contacts wanted; all good ones that have a neighbour if not given.
    before_s, after_s : float
        Windows begin from ``before_s`` before to ``after_s`` after the event.
    window_ms, step_ms : float
        Length of a window, and from the beginning of one to that of the next.
    line_freq : float
        In Hz; removed with its harmonics below 0.45 times the sampling rate.
    stimulus : str
        Column of ``events`` that names the stimulus.
    run, subject : str
        Labels of the samples.
    dtype : dtype
        Of the result: float32 by default, for 6000 words and 25000 targets are 1.2 GB
        as float64.

    Returns
    -------
    responses : DataArray, dims (sample, target)
        V; contact by contact, windows within. Coordinates on ``target``: ``electrode``
        (and ``channel``, the same), ``time`` (middle of the window, s from the event),
        ``region``, ``x``, ``y``, ``z``. ``attrs``: ``units``, ``atlas``, ``reference``.

    Raises
    ------
    UsageError
        If a contact that is wanted is not there, is bad or has no good neighbour, or
        the windows end before they begin.
    DataError
        If no two good contacts are neighbours, an onset lies outside of the recording,
        or no event has a whole epoch.

    Notes
    -----
    Each contact minus the mean of those before and after it on the shaft, as far as
    there are good ones; a contact without any is dropped (`rereference`). The published
    code drops a contact at the end of a shaft too. Contacts are taken from their
    neighbours first and filtered then, which is the same by linearity and needs half as
    many filters. Filters are of zero phase (`notch`); those of the published code are
    causal and delay by up to 16 ms around each harmonic. Epochs that touch a span
    marked ``BAD``, such as a pause of the film, or leave the recording are dropped and
    counted in the log. Means are differences of cumulative sums on the grid of samples
    (`time_bins`).

    Memory does not grow with the number of contacts, but for the result: the samples of
    some 25 contacts, 4 GB for two and a half hours at 2048 Hz.
    """
    if before_s < 0 or after_s <= -before_s:
        raise UsageError(
            f"windows must begin before they end, got {before_s} s before to {after_s} "
            "s after the event"
        )
    neighbours = _neighbours(raw)
    wanted = _wanted(raw, neighbours, ch_names)
    # The epoch ends with the last sample of the last window.
    last = after_s + window_ms / 1000 - 1 / float(raw.info["sfreq"])
    values = np.empty(0, dtype)
    for block in _blocks(wanted):
        derived = _laplacian(raw, block, neighbours)
        part = event_responses(
            notch(derived, line_freq),
            events,
            tmin=-before_s,
            tmax=last,
            space=_space(electrodes, derived.ch_names),
            window_ms=window_ms,
            step_ms=step_ms,
            stimulus=stimulus,
            run=run,
            subject=subject,
        )
        cube = part.to_numpy().reshape(len(part), len(block), -1)
        if not values.size:
            values = np.empty((len(part), len(wanted), cube.shape[-1]), dtype)
            # Whether an event has an epoch hangs on its onset alone: once is enough.
            events = events[np.isin(events["onset"], part["onset"])]
        for name, own in zip(derived.ch_names, cube.swapaxes(0, 1), strict=True):
            values[:, wanted.index(name)] = own
    return _labelled(values, part, wanted, electrodes)


def _wanted(
    raw: Any, neighbours: dict[str, list[str]], ch_names: Sequence[str] | None
) -> list[str]:
    if not neighbours:
        raise DataError(
            "no two good contacts are neighbours on a shaft. Names must end in the "
            f"number along the shaft (A1, A2, …); got {', '.join(raw.ch_names[:6])}"
        )
    if ch_names is None:
        return list(neighbours)
    alone = [name for name in ch_names if name not in neighbours]
    if alone or not len(ch_names):
        raise UsageError(
            "each contact must be good and have a good neighbour on its shaft, which "
            f"is not so of: {', '.join(alone) or 'none given'}"
        )
    return list(ch_names)


def _laplacian(raw: Any, block: Sequence[str], neighbours: dict[str, list[str]]) -> Any:
    """Contacts of a block against their neighbours, in memory."""
    beside = [name for contact in block for name in neighbours[contact]]
    needed = raw.copy().pick(_in_order(raw, [*block, *beside]))
    # A neighbour at the rim of the block lacks one of its own, so it is no result.
    return rereference(needed, "laplacian").pick(_in_order(raw, block))


def _neighbours(raw: Any) -> dict[str, list[str]]:
    """Good contacts to the good ones beside them on the shaft, where there are any."""
    types = dict(zip(raw.ch_names, raw.get_channel_types(), strict=True))
    good = [
        name
        for name in raw.ch_names
        if types[name] in ("seeg", "ecog", "dbs") and name not in raw.info["bads"]
    ]
    found = {}
    for contacts in contacts_by_shaft(good).values():
        for number, name in contacts.items():
            beside = [contacts[n] for n in (number - 1, number + 1) if n in contacts]
            if beside:
                found[name] = beside
    return {name: found[name] for name in raw.ch_names if name in found}


def _blocks(names: Sequence[str]) -> list[list[str]]:
    return [
        list(names[first : first + _BLOCK_CONTACTS])
        for first in range(0, len(names), _BLOCK_CONTACTS)
    ]


def _in_order(raw: Any, names: Sequence[str]) -> list[str]:
    kept = set(names)
    return [name for name in raw.ch_names if name in kept]


def _space(
    electrodes: pd.DataFrame, names: Sequence[str], times: ArrayLike | None = None
) -> ContactSpace:
    frame = electrodes.attrs.get("frame")
    return ContactSpace(electrodes, frame, times, ch_names=names)


def _labelled(
    values: NDArray[np.floating],
    part: xr.DataArray,
    wanted: Sequence[str],
    electrodes: pd.DataFrame,
) -> xr.DataArray:
    """The responses as a matrix, with samples as in any block."""
    n_samples, _, n_times = values.shape
    targets = _space(electrodes, wanted, part["time"].to_numpy()[:n_times]).coords()
    region = electrodes.set_index("name")["region"]
    targets["electrode"] = targets["channel"]
    targets["region"] = targets["channel"].map(region).fillna("").astype(str)
    return response_matrix(
        values.reshape(n_samples, -1),
        onset=part["onset"].to_numpy(),
        run=[str(label) for label in part["run"].to_numpy()],
        subject=str(part["subject"].to_numpy()[0]),
        stimulus=[str(label) for label in part["stimulus"].to_numpy()],
        targets=targets,
        attrs={
            "units": "V",
            "reference": "laplacian",
            "atlas": str(electrodes.attrs.get("atlas", "")),
        },
    )
