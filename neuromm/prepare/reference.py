"""Re-referencing: common average, bipolar, and Laplacian along the shaft.

References
----------
Li G et al. (2018) Optimal referencing for stereo-electroencephalographic (SEEG)
recordings. NeuroImage 183:327-335.
Mercier MR et al. (2022) Advances in human intracranial electroencephalography research,
guidelines and good practices. NeuroImage 260:119438.
"""

import warnings
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np

from neuromm.core import DataError, UsageError
from neuromm.prepare.data_channels import data_channels
from neuromm.prepare.shafts import bare_name, contacts_by_shaft

__all__ = ["Scheme", "rereference"]

Scheme = Literal["none", "average", "bipolar", "laplacian"]

# Voltages have a reference electrode; magnetic fields have none.
_VOLTAGES = ("eeg", "seeg", "ecog", "dbs")
_INTRACRANIAL = ("seeg", "ecog", "dbs")

# Depth electrodes have 18 contacts at most; a longer run of numbers is a grid.
_LONGEST_SHAFT = 18


def rereference(raw: Any, scheme: Scheme) -> Any:
    """Re-reference a recording.

    Parameters
    ----------
    raw : mne.io.BaseRaw
        It is not changed.
    scheme : {"none", "average", "bipolar", "laplacian"}
        ``"average"`` subtracts the mean of the good channels, for each type of voltage
        channel (EEG, SEEG, ECoG, DBS) on its own; bad channels stay, marked as bad,
        and MEG stays as it is. ``"bipolar"`` gives the differences of the contacts n
        and n + 1 of a shaft, named ``A1-A2``, at the midpoint of the two.
        ``"laplacian"`` subtracts from each contact the mean of its neighbours n - 1
        and n + 1, where there is at least one. The last two return intracranial
        channels alone; a bad contact is left out and is nobody's neighbour, so no
        pair bridges it.

    Returns
    -------
    rereferenced : mne.io.BaseRaw
        The data channels, in memory, in the unit of ``raw``.

    Raises
    ------
    UsageError
        If the scheme is unknown, or the recording has no channel that it applies to.
    DataError
        If no contact has a neighbour, a channel type has fewer than two good channels
        to average, or two names mean the same contact.

    Warns
    -----
    UserWarning
        If a "shaft" has more than 18 contacts. It is then a grid numbered row by row,
        in which n and n + 1 are neighbours except at the end of a row.

    Notes
    -----
    Shaft and number come from the channel names (`neuromm.prepare.shafts`). A signal
    common to a whole shaft, such as that of the reference, vanishes under the last two.
    """
    if scheme not in get_args(Scheme):
        known = ", ".join(get_args(Scheme))
        raise UsageError(f"unknown reference scheme {scheme!r} (known: {known})")
    data = _data_only(raw)
    if scheme == "none":
        return data
    if scheme == "average":
        return _average(data)
    shafts = _good_shafts(data, scheme)
    return _bipolar(data, shafts) if scheme == "bipolar" else _laplacian(data, shafts)


def _data_only(raw: Any) -> Any:
    picks = data_channels(raw.info)
    if len(picks) == 0:
        types = ", ".join(sorted(set(raw.get_channel_types())))
        raise UsageError(
            f"the recording has no MEG, EEG or intracranial channel (found: {types}); "
            "are the types in channels.tsv right?"
        )
    return raw.copy().pick(picks, verbose="ERROR").load_data(verbose="ERROR")


def _average(raw: Any) -> Any:
    import mne

    types = np.array(raw.get_channel_types())
    present = [kind for kind in _VOLTAGES if kind in types]
    if not present:
        raise UsageError(
            "the average reference needs EEG or intracranial channels, and the "
            f"recording has only {', '.join(sorted(set(types)))}"
        )
    bad = np.isin(raw.ch_names, raw.info["bads"])
    for kind in present:
        if ((types == kind) & ~bad).sum() < 2:
            raise DataError(
                f"the average reference needs at least two good {kind} channels, got "
                f"{((types == kind) & ~bad).sum()} (bad: {(types == kind)[bad].sum()})"
            )
        mne.set_eeg_reference(
            raw, "average", copy=False, ch_type=kind, verbose="WARNING"
        )
    return raw


def _good_shafts(raw: Any, scheme: str) -> list[dict[int, str]]:
    """Good contacts by number, one mapping a shaft and channel type."""
    types = dict(zip(raw.ch_names, raw.get_channel_types(), strict=True))
    if not set(types.values()) & set(_INTRACRANIAL):
        found = ", ".join(sorted(set(types.values())))
        raise UsageError(
            f"the {scheme} scheme follows the shafts of intracranial electrodes, and "
            f"the recording has only {found} channels. "
            "If they are contacts, say so in channels.tsv (type SEEG, ECOG or DBS)"
        )
    bads = set(raw.info["bads"])
    shafts: list[dict[int, str]] = []
    for kind in _INTRACRANIAL:
        names = [name for name in raw.ch_names if types[name] == kind]
        for shaft, contacts in contacts_by_shaft(names).items():
            if len(contacts) > _LONGEST_SHAFT:
                warnings.warn(
                    f"{shaft!r} has {len(contacts)} contacts and is probably a grid: "
                    f"the {scheme} scheme takes successive numbers as neighbours, also "
                    "where a row of the grid ends",
                    stacklevel=3,
                )
            good = {n: name for n, name in contacts.items() if name not in bads}
            shafts.append(good)
    return shafts


def _bipolar(raw: Any, shafts: Sequence[dict[int, str]]) -> Any:
    import mne

    pairs = [
        (name, contacts[number + 1])
        for contacts in shafts
        for number, name in contacts.items()
        if number + 1 in contacts
    ]
    if not pairs:
        raise _no_neighbours(raw)
    names = [f"{bare_name(anode)}-{bare_name(cathode)}" for anode, cathode in pairs]
    # MNE multiplies by a matrix with zeros, and 0 x nan of a bad contact is nan.
    raw = raw.pick(list(dict.fromkeys(name for pair in pairs for name in pair)))
    positions = {ch["ch_name"]: ch["loc"] for ch in raw.info["chs"]}
    infos = []
    for anode, cathode in pairs:
        loc = positions[anode].copy()
        loc[:3] = (positions[anode][:3] + positions[cathode][:3]) / 2
        infos.append({"loc": loc})
    return mne.set_bipolar_reference(
        raw,
        anode=[anode for anode, _ in pairs],
        cathode=[cathode for _, cathode in pairs],
        ch_name=names,
        ch_info=infos,
        copy=False,
        verbose="WARNING",
    ).pick(names)


def _laplacian(raw: Any, shafts: Sequence[dict[int, str]]) -> Any:
    neighbours: dict[str, list[str]] = {}
    for contacts in shafts:
        for number, name in contacts.items():
            beside = [contacts[n] for n in (number - 1, number + 1) if n in contacts]
            if beside:
                neighbours[name] = beside
    if not neighbours:
        raise _no_neighbours(raw)
    kept = [name for name in raw.ch_names if name in neighbours]
    row = {name: i for i, name in enumerate(kept)}
    derived = raw.copy().pick(kept)

    # Neighbourhood is mutual: every neighbour is itself kept, so it has a row.
    def subtract_neighbours(data: Any) -> Any:
        result = np.empty_like(data)
        for name in kept:
            beside = [row[other] for other in neighbours[name]]
            result[row[name]] = data[row[name]] - data[beside].mean(axis=0)
        return result

    return derived.apply_function(
        subtract_neighbours, picks="all", channel_wise=False, verbose="WARNING"
    )


def _no_neighbours(raw: Any) -> DataError:
    shown = ", ".join(raw.ch_names[:6])
    return DataError(
        "no two good contacts are neighbours on a shaft. Names must end in the number "
        f"along the shaft (A1, A2, …), and must not be differences already; got {shown}"
    )
