"""A feature space: rows of numbers, each with the key by which events find it.

A row is found by one key: the ``stim_file`` or ``trial_type`` of an event, or its
``onset``. ``run``, ``session`` and ``subject`` say for which recordings a row holds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuromm.core import DataError
from neuromm.features.keys import LABELS, MISSING, path_key, plain_label

__all__ = ["FeatureEvents", "FeatureTable", "Key"]

_LISTED = 10  # keys in a message; more would hide the cure

Key = Literal["stim_file", "trial_type", "onset"]


@dataclass(frozen=True, eq=False)
class FeatureEvents:
    """Events of one recording with their features.

    Attributes
    ----------
    onset, duration : array of shape (n_events,)
        Seconds from the start of the run.
    values : array of shape (n_events, n_features)
    stimulus : array of str of shape (n_events,)
        Key of each event as the events name it; "" for the key onset.
    """

    onset: NDArray[np.float64]
    duration: NDArray[np.float64]
    values: NDArray[np.floating]
    stimulus: NDArray[np.object_]


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """A feature space as it was exchanged.

    Made by `neuromm.features.read_features` or `feature_table`, which check it.

    Attributes
    ----------
    name : str
        Name of the space, such as ``"vision"``.
    key : {"stim_file", "trial_type", "onset"}
    keys : DataFrame
        A row per row of ``values``: the key, and where given ``duration`` (s), ``run``,
        ``session``, ``subject``.
    values : array of shape (n_rows, n_features)
        Finite.
    columns : tuple of str
        Names of the features.
    source : Path
        File it came from; the name of the space where there is none.
    attrs : mapping
        What is known of the features, such as ``model`` and ``layer``.
    """

    name: str
    key: Key
    keys: pd.DataFrame
    values: NDArray[np.floating]
    columns: tuple[str, ...]
    source: Path
    attrs: Mapping[str, Any] = field(default_factory=dict)

    def select(
        self,
        *,
        run: str | None = None,
        session: str | None = None,
        subject: str | None = None,
    ) -> "FeatureTable":
        """Keep the rows that hold for one recording.

        Labels are compared without prefix and leading zeros: ``"run-01"`` is ``"1"``.

        Parameters
        ----------
        run, session, subject : str or None
            None or "" where the recording has no such entity.

        Raises
        ------
        DataError
            If the table has rows for several values of an entity that is not given, or
            none for the one that is; or if the key is the onset, the run is not the
            first, and the table does not say which run its rows belong to.
        """
        wanted = {"run": run, "session": session, "subject": subject}
        kept = np.ones(len(self.keys), dtype=bool)
        for entity in LABELS:
            if entity in self.keys:
                kept &= self._rows_with(entity, wanted[entity] or None)
        if "run" not in self.keys and self.key == "onset" and run:
            self._check_first_run(run)
        if not kept.any():
            raise DataError(
                f"has no row for {_recording(wanted)}: each of its labels occurs, but "
                "not together",
                self.source,
            )
        if kept.all():
            return self
        return FeatureTable(
            name=self.name,
            key=self.key,
            keys=self.keys[kept].reset_index(drop=True),
            values=self.values[kept],
            columns=self.columns,
            source=self.source,
            attrs=self.attrs,
        )

    def rows_for(
        self,
        events: pd.DataFrame | None,
        *,
        run: str | None = None,
        session: str | None = None,
        subject: str | None = None,
        tolerance: float = 1e-3,
    ) -> FeatureEvents:
        """Find the features of the events of one recording.

        Parameters
        ----------
        events : DataFrame or None
            ``onset``, ``duration`` (s) and the key; ``attrs["source"]`` names their
            file in errors. Events whose key is empty or ``n/a`` are left out. With the
            key onset, None takes the rows of the table as the events.
        run, session, subject : str or None
            See `select`.
        tolerance : float
            How far an onset may lie from that of its row, in s.

        Returns
        -------
        found : FeatureEvents
            In the order of the events.

        Raises
        ------
        DataError
            If the table lacks the key of an event (the message lists them), the events
            lack the column of the key, or no event has a key.
        """
        table = self.select(run=run, session=session, subject=subject)
        if events is None:
            return table._own_events()
        path = events.attrs.get("source", "the events")
        if self.key not in events:
            raise DataError(
                f"is keyed by {self.key}, and {path} has no such column (found: "
                f"{', '.join(map(str, events.columns))}). Add it to the events, or "
                "export the features with another key.",
                self.source,
            )
        if self.key == "onset":
            return table._by_onset(events, path, tolerance)
        return table._by_name(events, path)

    def _rows_with(self, entity: str, label: str | None) -> NDArray[np.bool_]:
        labels = self.keys[entity].map(plain_label)
        found = sorted(set(labels))
        if label is None:
            if len(found) > 1:
                raise DataError(
                    f"has rows for {entity} {', '.join(found)}, and the recording has "
                    f"no {entity}: export the features without the column {entity}, or "
                    "name the recording by it",
                    self.source,
                )
            return np.ones(len(labels), dtype=bool)
        rows: NDArray[np.bool_] = (labels == plain_label(label)).to_numpy(dtype=bool)
        if not rows.any():
            raise DataError(
                f"has no row for {entity} {label} (found: {', '.join(found)})",
                self.source,
            )
        return rows

    def _check_first_run(self, run: str) -> None:
        # A recording without the entity counts as run 1, so any other label means that
        # there are several, and one list of onsets cannot be right for all of them.
        if plain_label(run) != "1":
            raise DataError(
                f"is keyed by onset and has no column run, while this recording is run "
                f"{run}: add a column run that says which run each row belongs to",
                self.source,
            )

    def _own_events(self) -> FeatureEvents:
        if self.key != "onset":
            raise DataError(
                f"is keyed by {self.key}: without events its rows have no time",
                self.source,
            )
        order = np.argsort(self.keys["onset"].to_numpy(), kind="stable")
        n_rows = len(self.keys)
        duration = (
            self.keys["duration"].to_numpy(dtype=float)
            if "duration" in self.keys
            else np.zeros(n_rows)
        )
        return FeatureEvents(
            onset=self.keys["onset"].to_numpy(dtype=float)[order],
            duration=duration[order],
            values=self.values[order],
            stimulus=np.array([""] * n_rows, dtype=object),
        )

    def _by_name(self, events: pd.DataFrame, path: str) -> FeatureEvents:
        named = events[self.key].fillna("").astype(str).str.strip()
        kept = ~named.isin(MISSING)
        if not kept.any():
            raise DataError(
                f"is keyed by {self.key}, and that column of {path} is empty",
                self.source,
            )
        named = named[kept]
        normal = path_key if self.key == "stim_file" else str
        index = pd.Index([normal(key) for key in self.keys[self.key]])
        rows = index.get_indexer(pd.Index([normal(key) for key in named]))
        self._check_found(rows, named.to_list(), path)
        return _feature_events(events[kept], self.values[rows], named.to_numpy(object))

    def _by_onset(
        self, events: pd.DataFrame, path: str, tolerance: float
    ) -> FeatureEvents:
        own = self.keys["onset"].to_numpy(dtype=float)
        order = np.argsort(own, kind="stable")
        wanted = events["onset"].to_numpy(dtype=float)
        after = np.clip(np.searchsorted(own[order], wanted), 0, len(own) - 1)
        before = np.clip(after - 1, 0, None)
        closer = np.abs(own[order[before]] - wanted) <= np.abs(
            own[order[after]] - wanted
        )
        rows = order[np.where(closer, before, after)]
        near = np.abs(own[rows] - wanted) <= tolerance
        self._check_found(
            np.where(near, rows, -1), [f"{onset:g} s" for onset in wanted], path
        )
        nameless = np.array([""] * len(wanted), dtype=object)
        return _feature_events(events, self.values[rows], nameless)

    def _check_found(
        self, rows: NDArray[np.intp], names: Sequence[str], path: str
    ) -> None:
        lacking = list(
            dict.fromkeys(n for n, row in zip(names, rows, strict=True) if row < 0)
        )
        if not lacking:
            return
        listed = ", ".join(lacking[:_LISTED])
        more = f" and {len(lacking) - _LISTED} more" if len(lacking) > _LISTED else ""
        have = [
            f"{key:g} s" if self.key == "onset" else str(key)
            for key in self.keys[self.key].iloc[:3]
        ]
        raise DataError(
            f"has no row for {len(lacking)} values of {self.key} in {path}: "
            f"{listed}{more}. Its rows are named {', '.join(have)} … Export the "
            "features of every stimulus, or leave those events out of the analysis.",
            self.source,
        )


def _feature_events(
    events: pd.DataFrame, values: NDArray[np.floating], stimulus: NDArray[np.object_]
) -> FeatureEvents:
    duration = (
        events["duration"].to_numpy(dtype=float)
        if "duration" in events
        else np.zeros(len(events))
    )
    return FeatureEvents(
        onset=events["onset"].to_numpy(dtype=float),
        duration=np.nan_to_num(duration),
        values=values,
        stimulus=stimulus,
    )


def _recording(wanted: Mapping[str, str | None]) -> str:
    return ", ".join(f"{entity} {label}" for entity, label in wanted.items() if label)
