"""A feature table is checked once, when it is made, for all that a model relies on.

One key, no key twice, names that are unique, and numbers that are finite.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from neuromm.core import DataError
from neuromm.features.keys import KEYS, RESERVED, key_frame
from neuromm.features.table import FeatureTable, Key

__all__ = ["checked_table", "feature_table"]

_LISTED = 10  # names in a message; more would hide the cure


def feature_table(
    values: ArrayLike,
    *,
    name: str = "features",
    stim_file: Sequence[str] | None = None,
    trial_type: Sequence[str] | None = None,
    onset: ArrayLike | None = None,
    duration: ArrayLike | None = None,
    run: Sequence[str] | str | None = None,
    session: Sequence[str] | str | None = None,
    subject: Sequence[str] | str | None = None,
    columns: Sequence[str] | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> FeatureTable:
    """Put features and their keys together, ready for `write_features`.

    Parameters
    ----------
    values : array of shape (n_rows, n_features)
    name : str
        Name of the space.
    stim_file, trial_type : sequence of str of length n_rows
        The key; exactly one of these and ``onset``.
    onset, duration : array of shape (n_rows,)
        Seconds from the start of the run.
    run, session, subject : str or sequence of str
        For which recordings the rows hold; for all if not given.
    columns : sequence of str of length n_features, optional
        Names of the features; ``0 … n_features - 1`` if not given.
    attrs : mapping of str to str, int or float, optional
        What is known of the features, such as ``model`` and ``layer``.

    Returns
    -------
    table : FeatureTable

    Raises
    ------
    DataError
        If there is no key or more than one, a key occurs twice, or a value is missing
        or infinite.
    """
    matrix = np.asarray(values)
    given = {
        "stim_file": stim_file,
        "trial_type": trial_type,
        "onset": onset,
        "duration": duration,
        "run": run,
        "session": session,
        "subject": subject,
    }
    keys = {
        key: np.repeat(column, len(matrix)) if isinstance(column, str) else column
        for key, column in given.items()
        if column is not None
    }
    return checked_table(
        name=name,
        keys={key: np.asarray(column) for key, column in keys.items()},
        values=matrix,
        columns=columns,
        source=Path(name),
        attrs=attrs or {},
    )


def checked_table(
    *,
    name: str,
    keys: Mapping[str, NDArray[Any]],
    values: NDArray[Any],
    columns: Sequence[str] | None,
    source: Path,
    attrs: Mapping[str, Any],
) -> FeatureTable:
    """Check what a file or a caller brought, and make the table of it.

    Raises
    ------
    DataError
        As `feature_table`, naming ``source``.
    """
    key = _only_key(keys, columns or (), source)
    matrix = _checked_values(values, source)
    names = _checked_columns(columns, matrix.shape[1], source)
    frame = key_frame(keys, key, len(matrix), source)
    _check_finite(matrix, names, frame[key], source)
    return FeatureTable(
        name=name,
        key=key,
        keys=frame,
        values=matrix,
        columns=names,
        source=source,
        attrs=_checked_attrs(attrs, source),
    )


def _only_key(
    keys: Mapping[str, NDArray[Any]], names: Sequence[str], source: Path
) -> Key:
    present: list[Key] = [key for key in KEYS if key in keys]
    if len(present) == 1:
        return present[0]
    found = ", ".join([*keys, *names[:5]]) + (" …" if len(names) > 5 else "")
    if present:
        raise DataError(
            f"has {len(present)} keys, {' and '.join(present)}, expected one (columns: "
            f"{found}). Keep the one by which rows are joined with the events.",
            source,
        )
    raise DataError(
        f"has no key: expected a column stim_file, trial_type or onset "
        f"(columns: {found}). Name the column that says which stimulus a row "
        "describes; a text table must be separated by tabs.",
        source,
    )


def _checked_values(values: NDArray[Any], source: Path) -> NDArray[np.floating]:
    if values.ndim != 2:
        raise DataError(
            f"features must have the shape (n_rows, n_features), got {values.shape}. "
            "Pool or flatten further axes first.",
            source,
        )
    if values.shape[0] == 0 or values.shape[1] == 0:
        raise DataError(f"holds no features: {values.shape} rows and columns", source)
    if values.dtype.kind not in "fiub":
        raise DataError(f"features must be real numbers, got {values.dtype}", source)
    keep = values.dtype.kind == "f" and values.dtype.itemsize >= 4
    small = np.float32 if values.dtype == np.float16 else np.float64
    return np.ascontiguousarray(values, dtype=values.dtype if keep else small)


def _checked_columns(
    columns: Sequence[str] | None, n_features: int, source: Path
) -> tuple[str, ...]:
    if columns is None:
        return tuple(str(i) for i in range(n_features))
    names = tuple(str(column) for column in columns)
    if len(names) != n_features:
        raise DataError(
            f"has {len(names)} names of features for {n_features} features", source
        )
    twice = (
        sorted({name for name in names if names.count(name) > 1})
        if (len(set(names)) < n_features)
        else []
    )
    taken = [name for name in names if name in RESERVED]
    for problem, what in ((twice, "occur twice"), (taken, "are reserved for keys")):
        if problem:
            raise DataError(
                f"names of features that {what}: {', '.join(problem[:_LISTED])}", source
            )
    return names


def _check_finite(
    values: NDArray[np.floating],
    names: Sequence[str],
    keys: pd.Series,
    source: Path,
) -> None:
    bad = ~np.isfinite(values)
    if not bad.any():
        return
    row, column = np.argwhere(bad)[0]
    raise DataError(
        f"{int(bad.sum())} values are missing or infinite, the first in feature "
        f"{names[column]} of {keys.iloc[row]} (row {row + 1}): {values[row, column]}. "
        "A model cannot be fitted to them: mend the export, or leave the rows out.",
        source,
    )


def _checked_attrs(attrs: Mapping[str, Any], source: Path) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for name, value in attrs.items():
        scalar = value.item() if isinstance(value, np.generic) else value
        if not isinstance(scalar, str | int | float):
            raise DataError(
                f"attribute {name} must be a text or a number, got "
                f"{type(value).__name__}",
                source,
            )
        plain[str(name)] = scalar
    return plain
