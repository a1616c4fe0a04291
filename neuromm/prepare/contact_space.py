"""Intracranial contacts as targets, alone or at the times of an epoch."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from neuromm.core import DataError
from neuromm.prepare.channel_targets import checked_times, target_table
from neuromm.prepare.shafts import bare_name, parse_contact

__all__ = ["ContactSpace"]


class ContactSpace:
    """Contacts of intracranial electrodes; implements `neuromm.core.TargetSpace`.

    Parameters
    ----------
    electrodes : DataFrame
        A row a contact: ``name``, ``x``, ``y``, ``z`` in mm (nan where unknown), and
        any further columns.
    frame : str or None
        Name of the frame of the positions, such as ``"MNI152NLin2009cAsym"``; None
        where it is unknown.
    times : array of shape (n_times,), optional
        Ascending, in s from the event. A target is then a contact at a time, contact
        by contact.
    ch_names : sequence of str, optional
        The channels that are the targets, in their order; the electrodes themselves
        if not given. A channel takes the electrode of its name, or else the one with
        the same shaft and number (``POL A01`` and ``A1``); a difference ``A1-A2`` the
        midpoint of the two; a channel without an electrode has no position.

    Attributes
    ----------
    n_targets : int
    coordinate_frame : str or None
    channels : tuple of str
    times : array of shape (n_times,) or None

    Raises
    ------
    DataError
        If a column is missing, or an electrode or channel occurs twice.
    """

    n_targets: int
    coordinate_frame: str | None
    channels: tuple[str, ...]
    times: NDArray[np.float64] | None

    def __init__(
        self,
        electrodes: pd.DataFrame,
        frame: str | None,
        times: ArrayLike | None = None,
        *,
        ch_names: Sequence[str] | None = None,
    ) -> None:
        lacking = [name for name in ("name", "x", "y", "z") if name not in electrodes]
        if lacking:
            raise DataError(
                f"electrodes need the columns name, x, y, z; missing: "
                f"{', '.join(lacking)}"
            )
        self._electrodes = electrodes.reset_index(drop=True)
        names = [str(name) for name in self._electrodes["name"]]
        _check_unique(names, "electrode")
        self.channels = tuple(names if ch_names is None else ch_names)
        _check_unique(self.channels, "channel")
        self._rows = _electrode_rows(self.channels, names)
        self._positions_mm = _positions(self._rows, self._electrodes)
        self.times = checked_times(times)
        n_times = 1 if self.times is None else len(self.times)
        self.n_targets = len(self.channels) * n_times
        self.coordinate_frame = frame

    def at_times(self, times: ArrayLike) -> "ContactSpace":
        """The same contacts at these times (s from the event)."""
        return ContactSpace(
            self._electrodes, self.coordinate_frame, times, ch_names=self.channels
        )

    def coords(self) -> pd.DataFrame:
        """One row a target.

        Returns
        -------
        coords : DataFrame
            ``target`` (``A1`` or ``A1@0.180``), ``x``, ``y``, ``z`` in mm (nan where
            unknown), ``channel``, and ``time`` in s where there are times.
        """
        return target_table(self.channels, self._positions_mm, self.times)

    def to_native(self, values: NDArray[np.floating]) -> pd.DataFrame:
        """Put one value a target beside the contacts.

        Parameters
        ----------
        values : array of shape (n_targets,)
            nan is kept.

        Returns
        -------
        table : DataFrame
            ``coords()``, the column ``value``, and the further columns of the
            electrodes (for a difference, where its two contacts agree).
        """
        column = np.asarray(values, dtype=float)
        if column.shape != (self.n_targets,):
            raise ValueError(
                f"expected one value for each of {self.n_targets} targets, got an "
                f"array of shape {column.shape}"
            )
        table = self.coords().assign(value=column)
        repeats = self.n_targets // len(self.channels)
        for name in self._electrodes.columns.difference(table.columns, sort=False):
            if name == "name":
                continue
            cells = [_agreed(self._electrodes[name], rows) for rows in self._rows]
            table[name] = np.repeat(np.array(cells, dtype=object), repeats)
        return table.infer_objects()


def _check_unique(names: Sequence[str], what: str) -> None:
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise DataError(f"each {what} must occur once; more often: {', '.join(twice)}")


def _electrode_rows(
    channels: Sequence[str], electrodes: Sequence[str]
) -> list[tuple[int, ...]]:
    """Rows of the electrodes that each channel is made of: none, one, or two."""
    exact = {name: row for row, name in enumerate(electrodes)}
    by_place: dict[object, int] = {}
    shared = set()
    for name, row in exact.items():
        place = parse_contact(name)
        if place in by_place:
            shared.add(place)
        by_place[place] = row
    for ambiguous in {None, *shared}:  # a place of two electrodes names neither
        by_place.pop(ambiguous, None)

    def row_of(name: str) -> int | None:
        for candidate in (name, bare_name(name)):
            if candidate in exact:
                return exact[candidate]
        return by_place.get(parse_contact(name))

    rows: list[tuple[int, ...]] = []
    for channel in channels:
        single = row_of(channel)
        rows.append(_pair(channel, row_of) if single is None else (single,))
    return rows


def _pair(channel: str, row_of: Callable[[str], int | None]) -> tuple[int, ...]:
    """Rows of the two contacts of a difference; empty where they are not found."""
    for cut in (i for i, letter in enumerate(channel) if letter == "-"):
        first, second = row_of(channel[:cut]), row_of(channel[cut + 1 :])
        if first is not None and second is not None:
            return first, second
    return ()


def _positions(
    rows: Sequence[tuple[int, ...]], electrodes: pd.DataFrame
) -> NDArray[np.float64]:
    places = electrodes[["x", "y", "z"]].to_numpy(dtype=float)
    return np.array(
        [places[list(row)].mean(axis=0) if row else [np.nan] * 3 for row in rows]
    ).reshape(-1, 3)


def _agreed(column: "pd.Series[Any]", rows: tuple[int, ...]) -> object:
    cells = [column.iloc[row] for row in rows]
    return cells[0] if cells and all(cell == cells[0] for cell in cells) else None
