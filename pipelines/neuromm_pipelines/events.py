"""The events of a recording that an analysis uses."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from neuromm.core import DataError, Sample

if TYPE_CHECKING:
    from neuromm.features.exchange import FeatureTable

__all__ = ["selected_events"]


def selected_events(
    sample: Sample, tables: "Sequence[FeatureTable]", trial_types: Sequence[str]
) -> pd.DataFrame | None:
    """Events that every feature table has a key for.

    Parameters
    ----------
    sample : Sample
    tables : sequence of FeatureTable
    trial_types : sequence of str
        Keep the events of these trial types; all if empty.

    Returns
    -------
    events : DataFrame or None
        None if the recording has no events.tsv and every table is keyed by onset, so
        that the tables' own rows are the events.

    Raises
    ------
    InputMissingError
        If events are needed and there are none.
    DataError
        If a column that a key needs is absent, or no event is left.
    """
    from neuromm.io.events import events_path, read_events

    keys = sorted({table.key for table in tables if table.key != "onset"})
    if not keys and not trial_types and "events" not in sample.companions:
        return None
    path = events_path(sample)
    needed = [*keys, "trial_type"] if trial_types else keys
    events = read_events(path, columns=needed)
    if trial_types:
        kept = events["trial_type"].isin(trial_types)
        if not kept.any():
            found = sorted(set(events["trial_type"]) - {""})
            raise DataError(
                f"no event has trial_type {' or '.join(trial_types)} "
                f"(found: {', '.join(found)})",
                path,
            )
        events = events[kept]
    for key in keys:
        events = events[events[key] != ""]
    if events.empty:
        raise DataError(
            f"no event has a value in {' and '.join(keys)}, by which the features are "
            "joined",
            path,
        )
    return events.reset_index(drop=True)
