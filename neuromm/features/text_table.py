"""Feature tables as text: ``.tsv`` and ``.tsv.gz``, with attributes in a JSON beside.

The columns are those of BIDS tables: tabs, a header, ``n/a`` for a missing value.
"""

import csv
import gzip
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuromm.core import DataError
from neuromm.core.files import atomic_path, read_json, write_json
from neuromm.features.checked_table import checked_table
from neuromm.features.keys import RESERVED
from neuromm.features.table import FeatureTable
from neuromm.io.file_limits import unpacked

__all__ = ["read_text_table", "write_text_table"]

_MISSING = ["n/a", "N/A", "NA", "NaN", "nan", "null", ""]


def read_text_table(path: Path, name: str) -> FeatureTable:
    """Read a table of text.

    Raises
    ------
    DataError
        If it is no table, or a feature is not numeric; the message names the column
        and the first such line.
    """
    content = unpacked(path) if path.suffix == ".gz" else path.read_bytes()
    header = _header(content, path)
    table = _parsed(content, header, path)
    features = [column for column in header if column not in RESERVED]
    values = np.empty((len(table), len(features)))
    for position, column in enumerate(features):
        values[:, position] = _numbers(table[column], path)
    return checked_table(
        name=name,
        keys={
            column: table[column].to_numpy(dtype=object)
            for column in header
            if column in RESERVED
        },
        values=values,
        columns=features,
        source=path,
        attrs=_sidecar_attrs(path),
    )


def write_text_table(path: Path, table: FeatureTable) -> None:
    """Write a table of text, and its attributes into the JSON beside it."""
    features = pd.DataFrame(table.values, columns=list(table.columns))
    whole = pd.concat([table.keys.reset_index(drop=True), features], axis=1)
    # pandas writes the shortest text that reads back as the same number.
    text = whole.to_csv(sep="\t", index=False, lineterminator="\n").encode()
    with atomic_path(path) as temporary:
        # No time in the gzip header: the same table gives the same bytes.
        packed = gzip.compress(text, mtime=0) if path.suffix == ".gz" else text
        temporary.write_bytes(packed)
    if table.attrs:
        write_json(_sidecar(path), table.attrs)


def _header(content: bytes, path: Path) -> list[str]:
    try:
        first = content.split(b"\n", 1)[0].decode("utf-8-sig").rstrip("\r")
    except UnicodeDecodeError as error:
        raise DataError(f"is not UTF-8 text ({error.reason})", path) from error
    header = [column.strip() for column in first.split("\t")]
    if not any(header):
        raise DataError("is empty, expected a header and a row a stimulus", path)
    if len(set(header)) < len(header):
        twice = next(column for column in header if header.count(column) > 1)
        raise DataError(f"line 1: two columns are called {twice!r}", path)
    return header


def _parsed(content: bytes, header: list[str], path: Path) -> pd.DataFrame:
    keys = {column: str for column in header if column in RESERVED}
    try:
        with warnings.catch_warnings():
            # Fields beyond the header: pandas would drop them with a warning.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(
                io.BytesIO(content),
                sep="\t",
                header=0,
                names=header,
                index_col=False,
                dtype=keys,
                keep_default_na=False,
                na_values={c: _MISSING for c in header if c not in keys},
                quoting=csv.QUOTE_NONE,
                encoding="utf-8-sig",
                low_memory=False,
                float_precision="round_trip",
            )
    except (pd.errors.ParserError, pd.errors.ParserWarning, ValueError) as error:
        raise DataError(
            f"is no table of {len(header)} columns ({error}): each line needs the same "
            "number of tabs as the header",
            path,
        ) from error


def _numbers(column: pd.Series, path: Path) -> NDArray[Any]:
    if column.dtype.kind in "fiub":
        return column.to_numpy(dtype=float)
    numbers = pd.to_numeric(column, errors="coerce")
    bad = np.flatnonzero((numbers.isna() & column.notna()).to_numpy())
    if len(bad):
        text = str(column.iloc[bad[0]])
        cure = (
            "Use a decimal point."
            if text.replace(",", "", 1).lstrip("-").isdigit()
            else "Every column but the keys is a feature: leave this one out, or turn "
            "it into numbers."
        )
        raise DataError(
            f"line {bad[0] + 2}: column {column.name} holds {text!r}, expected a "
            f"number. {cure}",
            path,
        )
    return numbers.to_numpy(dtype=float)


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(".gz").removesuffix(".tsv") + ".json")


def _sidecar_attrs(path: Path) -> dict[str, Any]:
    """Attributes of the table; descriptions of single columns are objects."""
    sidecar = _sidecar(path)
    if not sidecar.is_file():
        return {}
    content = read_json(sidecar)
    return {k: v for k, v in content.items() if isinstance(v, str | int | float)}
