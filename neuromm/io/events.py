"""Events of a recording: ``events.tsv``.

References
----------
BIDS 1.11, "Task events": onsets in seconds from the first sample of the recording,
durations in seconds, missing values written ``n/a``.
"""

import csv
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from neuromm.core import DataError, InputMissingError, Sample
from neuromm.io.bids_name import short_name
from neuromm.io.content import require_content

__all__ = ["check_events_within", "events_path", "read_events"]

_MISSING = "n/a"

# Entities that a derivative adds to the name of a recording; its events have none.
_NOT_IN_EVENTS = {
    "space", "cohort", "resolution", "density", "description", "hemisphere", "label",
    "atlas", "segmentation", "scale", "echo", "part", "split", "processing",
}  # fmt: skip


def read_events(path: str | Path, *, columns: Sequence[str] = ()) -> pd.DataFrame:
    """Read the events of a recording.

    Parameters
    ----------
    path : path-like
        An ``events.tsv``.
    columns : sequence of str
        Columns that must be there besides ``onset`` and ``duration``.

    Returns
    -------
    events : DataFrame
        Sorted by onset, equal onsets in the order of the file, index 0 … n - 1.
        ``onset`` (s from the start of the recording, may be negative) and
        ``duration`` (s, 0 where the file has ``n/a``) as float; every other column
        as str, ``""`` where the file has ``n/a``. ``attrs["source"]`` is the path.

    Raises
    ------
    InputMissingError
        If the file is not there.
    DataError
        If it is empty, lacks a column, is not separated by tabs, or an onset or a
        duration is no number or a duration is negative; the message names the line.

    Warns
    -----
    UserWarning
        If onsets were not ascending, or events without an onset were left out: an
        event that has no time cannot be placed.
    """
    path = require_content(path)
    header, rows, lines = _read_table(path)
    for name in ("onset", "duration", *columns):
        if name not in header:
            raise DataError(_lacking(name, header), path)
    table = pd.DataFrame(rows, columns=header, dtype=object)
    timed = (table["onset"] != _MISSING).to_numpy()
    _warn_of_untimed(timed, lines, path)
    lines = [line for line, kept in zip(lines, timed, strict=True) if kept]
    events = table[timed].replace(_MISSING, "")
    events["onset"] = _numbers(table["onset"][timed], "onset", lines, path)
    duration = table["duration"][timed].replace(_MISSING, "0")
    events["duration"] = _numbers(duration, "duration", lines, path)
    negative = np.flatnonzero(events["duration"].to_numpy() < 0)
    if negative.size:
        first = int(negative[0])
        raise DataError(
            f"line {lines[first]}: duration is {events['duration'].iloc[first]:g} s, "
            "expected 0 or more. Write n/a for an unknown duration.",
            path,
        )
    return _sorted_by_onset(events, path)


def check_events_within(
    events: pd.DataFrame, duration_s: float, path: str | Path, recording: str | Path
) -> None:
    """Refuse events that begin after the recording has ended.

    Parameters
    ----------
    events : DataFrame
        As `read_events` gives them.
    duration_s : float
        Length of the recording in s: volumes times t_r, or samples over sfreq.
    path, recording : path-like
        File of the events and of the recording, for the message.

    Raises
    ------
    DataError
        The message says how many events are beyond the end, the first such onset,
        the length of the recording, and the likely cure.
    """
    onset = events["onset"].to_numpy(dtype=float)
    # A microsecond forgives the rounding of a marker at the very end.
    beyond = onset[onset > duration_s + 1e-6]
    if not beyond.size:
        return
    cure = "Do the events belong to another run, or was the recording cut?"
    if onset.max() / 1000 <= duration_s and np.median(onset) > duration_s:
        cure = "Onsets must be in seconds, not milliseconds."
    raise DataError(
        f"{beyond.size} of {onset.size} events begin after the end of "
        f"{Path(recording).name}, which lasts {duration_s:g} s: the first at "
        f"{beyond.min():g} s. {cure}",
        path,
    )


def events_path(sample: Sample) -> Path:
    """Path of the events of a recording.

    Raises
    ------
    InputMissingError
        If it has none; the message names the recording and the file that is expected.
    """
    if "events" in sample.companions:
        return sample.companions["events"]
    recording = sample.source if sample.source is not None else "the recording"
    raise InputMissingError(
        f"{recording}: has no events. Expected {_events_name(sample.entities)} beside "
        "the raw recording, or an events.tsv above it that applies, such as "
        f"task-{sample.entities.get('task', 'film')}_events.tsv at the root. It needs "
        "the columns onset and duration, in seconds."
    )


def _events_name(entities: Mapping[str, str]) -> str:
    pairs = [
        f"{short_name(name)}-{label}"
        for name, label in entities.items()
        if name not in _NOT_IN_EVENTS
    ]
    return "_".join([*pairs, "events.tsv"])


def _read_table(path: Path) -> tuple[list[str], list[list[str]], list[int]]:
    """Header, rows of equal length, and the line number of each row."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"is not UTF-8 text ({error.reason} at byte {error.start}). Save it as "
            "UTF-8, separated by tabs.",
            path,
        ) from error
    # str.splitlines would also break at separators that may stand in a stimulus text.
    numbered = [
        (number, line)
        for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1)
        if line.strip()
    ]
    if not numbered:
        raise DataError(
            "is empty, expected a header line with onset and duration, and one line "
            "an event. Was it downloaded in full?",
            path,
        )
    header = [name.strip() for name in numbered[0][1].split("\t")]
    if len(set(header)) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise DataError(f"line 1: two columns are called {twice!r}", path)
    if len(numbered) == 1 and {"onset", "duration"} <= set(header):
        raise DataError(
            "line 1: has a header and no events. A recording without events needs no "
            "events.tsv.",
            path,
        )
    rows = [_fields(line, len(header), number, path) for number, line in numbered[1:]]
    return header, rows, [number for number, _ in numbered[1:]]


def _fields(line: str, n_columns: int, number: int, path: Path) -> list[str]:
    # A lone quotation mark is a stimulus (a transcript has them), so that quotes are
    # undone field by field and only a quoted tab asks for a CSV reader.
    fields = line.split("\t")
    if len(fields) > n_columns and '"' in line:
        fields = next(csv.reader([line], delimiter="\t"))
    if len(fields) > n_columns and not "".join(fields[n_columns:]).strip():
        fields = fields[:n_columns]
    if len(fields) != n_columns:
        raise DataError(
            f"line {number}: {len(fields)} fields, expected {n_columns} as in the "
            "header. Are fields separated by one tab, and missing values n/a?",
            path,
        )
    return [_unquoted(field.strip()) for field in fields]


def _unquoted(field: str) -> str:
    if len(field) > 1 and field[0] == field[-1] == '"':
        return field[1:-1].replace('""', '"')
    return field


def _lacking(name: str, header: Sequence[str]) -> str:
    message = f"line 1: no column {name!r} (found: {', '.join(header)})."
    if len(header) == 1:
        return f"{message} Are the columns separated by tabs?"
    if name == "duration":
        return f"{message} BIDS requires it: write 0 for impulses, n/a if unknown."
    if name == "onset":
        return f"{message} BIDS requires it: seconds from the start of the recording."
    return message


def _numbers(
    column: pd.Series, name: str, lines: Sequence[int], path: Path
) -> list[float]:
    numbers = []
    for line, text in zip(lines, column, strict=True):
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            cure = "Use a decimal point." if "," in text else "Seconds as a number."
            raise DataError(f"line {line}: {name} is {text!r}. {cure}", path)
        numbers.append(number)
    return numbers


def _warn_of_untimed(
    timed: Sequence[bool] | np.ndarray, lines: Sequence[int], path: Path
) -> None:
    untimed = [line for line, kept in zip(lines, timed, strict=True) if not kept]
    if untimed:
        warnings.warn(
            f"{path}: left out {len(untimed)} events whose onset is n/a, the first in "
            f"line {untimed[0]}",
            stacklevel=3,
        )


def _sorted_by_onset(events: pd.DataFrame, path: Path) -> pd.DataFrame:
    if not events["onset"].is_monotonic_increasing:
        warnings.warn(f"{path}: onsets are not ascending; sorted them", stacklevel=3)
        events = events.sort_values("onset", kind="stable")
    events = events.reset_index(drop=True)
    events.attrs["source"] = str(path)
    return events
