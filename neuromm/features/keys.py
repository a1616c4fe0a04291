"""Keys of a feature table: which columns they are, and when two of them are equal."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuromm.core import DataError

__all__ = [
    "KEYS",
    "LABELS",
    "MISSING",
    "RESERVED",
    "key_frame",
    "path_key",
    "plain_label",
]

KEYS: tuple[Literal["stim_file", "trial_type", "onset"], ...] = (
    "stim_file",
    "trial_type",
    "onset",
)
LABELS = ("run", "session", "subject")
RESERVED = (*KEYS, "duration", *LABELS)
MISSING = ("", "n/a")

_PREFIXES = {"run": "run-", "session": "ses-", "subject": "sub-"}
_STIMULI = "stimuli/"
# Onsets closer than this are one: as in `neuromm.core.pair_samples`.
_ONSET_STEP_S = 1e-4


def path_key(stim_file: str) -> str:
    """Spell a stimulus path in one way.

    BIDS gives ``stim_file`` relative to the folder ``stimuli``; exporters also write
    ``stimuli/…``, ``./…`` or backslashes. Folders are never dropped: two stimuli may
    share a file name.
    """
    path = stim_file.strip().replace("\\", "/")
    while path.startswith("./"):
        path = path[2:]
    return path.removeprefix(_STIMULI)


def plain_label(label: object) -> str:
    """Label of an entity without prefix and leading zeros: ``run-01`` is ``1``."""
    text = str(label).strip()
    for prefix in _PREFIXES.values():
        text = text.removeprefix(prefix)
    return text.lstrip("0") or "0" if text.isdigit() else text


def key_frame(
    keys: Mapping[str, NDArray[Any]], key: str, n_rows: int, source: Path
) -> pd.DataFrame:
    """Key columns in their types: onset and duration as float, all else as str.

    Raises
    ------
    DataError
        If a column has another length than the features, a key is empty or no number,
        or two rows have the same key.
    """
    frame = {}
    for name in RESERVED:
        if name not in keys:
            continue
        column = keys[name]
        if column.shape != (n_rows,):
            raise DataError(
                f"{name} must have one value per row ({n_rows}), got shape "
                f"{column.shape}",
                source,
            )
        timed = name in ("onset", "duration")
        frame[name] = _seconds(name, column, source) if timed else _texts(name, column)
    table = pd.DataFrame(frame)
    _check_labels(table, key, source)
    _check_unique(table, key, source)
    return table


def _seconds(name: str, column: NDArray[Any], source: Path) -> NDArray[np.float64]:
    texts = pd.Series(_texts(name, column) if column.dtype.kind in "SUOT" else column)
    if name == "duration":
        texts = texts.replace(dict.fromkeys(MISSING, "0"))
    numbers = pd.to_numeric(texts, errors="coerce").to_numpy(dtype=float)
    bad = np.flatnonzero(~np.isfinite(numbers))
    if len(bad):
        raise DataError(
            f"{name} must be seconds, got {texts.iloc[bad[0]]!r} in row {bad[0] + 1}",
            source,
        )
    return numbers


def _texts(name: str, column: NDArray[Any]) -> NDArray[np.object_]:
    if column.dtype.kind == "f" and np.all(column == np.rint(column)):
        column = column.astype(np.int64)  # a run that a writer has made 1.0
    return np.array(
        [
            entry.decode("utf-8", "replace") if isinstance(entry, bytes) else str(entry)
            for entry in column.tolist()
        ],
        dtype=object,
    )


def _check_labels(table: pd.DataFrame, key: str, source: Path) -> None:
    for name in table.columns:
        if name in ("onset", "duration"):
            continue
        empty = np.flatnonzero(table[name].str.strip().isin(MISSING))
        if len(empty):
            raise DataError(
                f"{name} is empty in {len(empty)} rows, the first is row "
                f"{empty[0] + 1}: every row needs its {name}",
                source,
            )


def _check_unique(table: pd.DataFrame, key: str, source: Path) -> None:
    identity = pd.DataFrame(
        {name: table[name].map(plain_label) for name in LABELS if name in table}
    )
    if key == "onset":
        identity[key] = np.rint(table[key] / _ONSET_STEP_S)
    else:
        identity[key] = table[key].map(path_key if key == "stim_file" else str)
    twice = np.flatnonzero(identity.duplicated())
    if len(twice):
        cure = (
            "Say in a column run (session, subject) for which recording each row holds."
            if key == "onset"
            else "Keep one row a stimulus: average or choose before the export."
        )
        raise DataError(
            f"{len(twice)} rows repeat the {key} of another row, the first is "
            f"{table[key].iloc[twice[0]]} in row {twice[0] + 1}. {cure}",
            source,
        )
