"""Feature exchange: a feature space goes from any tool to neuromm through a file.

Tools for stimulus features pin versions that cannot be installed side by side, so a
file is the interface: a table whose rows carry a key and whose other columns are the
features. ``docs/features.md`` shows how to write one.
"""

from collections.abc import Callable
from pathlib import Path

from neuromm.core import InputMissingError, UsageError
from neuromm.features.array_file import (
    read_dataset,
    read_npz,
    write_dataset,
    write_npz,
)
from neuromm.features.checked_table import feature_table
from neuromm.features.design import event_features, volume_features
from neuromm.features.table import FeatureEvents, FeatureTable
from neuromm.features.text_table import read_text_table, write_text_table

__all__ = [
    "FeatureEvents",
    "FeatureTable",
    "event_features",
    "feature_table",
    "read_features",
    "volume_features",
    "write_features",
]

Reader = Callable[[Path, str], FeatureTable]
Writer = Callable[[Path, FeatureTable], None]

_FORMATS: dict[str, tuple[Reader, Writer]] = {
    ".tsv": (read_text_table, write_text_table),
    ".tsv.gz": (read_text_table, write_text_table),
    ".npz": (read_npz, write_npz),
    ".nc": (read_dataset, write_dataset),
    ".zarr": (read_dataset, write_dataset),
}


def read_features(path: str | Path, name: str | None = None) -> FeatureTable:
    """Read a feature space.

    Parameters
    ----------
    path : path-like
        ``.tsv``, ``.tsv.gz``, ``.npz``, ``.nc`` or a ``.zarr`` folder.
    name : str, optional
        Name of the space; the file name without its extension if not given.

    Returns
    -------
    table : FeatureTable

    Raises
    ------
    InputMissingError
        If nothing lies at ``path``.
    UsageError
        If the extension is none of the above.
    DataError
        If the file is damaged, unsafe, has no key or more than one, repeats a key, or
        holds a feature that is not numeric, missing or infinite.
    """
    file = Path(path)
    extension = _extension(file)
    if not file.exists():
        raise InputMissingError(f"no feature table at {file}")
    read, _ = _FORMATS[extension]
    return read(file, name or file.name.removesuffix(extension))


def write_features(path: str | Path, table: FeatureTable) -> Path:
    """Write a feature space; it reads back as the same table.

    Parameters
    ----------
    path : path-like
        Its extension chooses the format. The attributes of a text table go to a
        ``.json`` beside it.
    table : FeatureTable
        Such as `feature_table` makes.

    Returns
    -------
    path : Path

    Raises
    ------
    UsageError
        If the extension is none of ``.tsv``, ``.tsv.gz``, ``.npz``, ``.nc``, ``.zarr``.
    OutputError
        If the file cannot be written.
    """
    file = Path(path)
    _, write = _FORMATS[_extension(file)]
    write(file, table)
    return file


def _extension(path: Path) -> str:
    for extension in sorted(_FORMATS, key=len, reverse=True):
        if path.name.endswith(extension):
            return extension
    raise UsageError(
        f"{path}: features come as {', '.join(_FORMATS)}, got {path.suffix or 'no'!r} "
        "extension. A .csv becomes a .tsv by writing tabs; docs/features.md shows how "
        "to write each format."
    )
