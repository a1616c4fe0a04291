"""What was acquired: one recording, and recordings that belong together."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd

from neuromm.core.errors import InputMissingError

__all__ = ["Sample", "Study"]

_EMPTY: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One acquired thing, in the object that its field uses.

    Attributes
    ----------
    data : object
        Native and lazy where the native is: `mne.io.BaseRaw` or `mne.Epochs` (V, T,
        metres), a nibabel image or a pair of GIFTI images, `anndata.AnnData`, a wfdb
        record, a pydicom dataset.
    modality : str
        Name of the reader that made it, one of ``neuromm.io.readers()``.
    entities : mapping of str to str
        BIDS entities by their long names (``subject``, ``session``, ``task``, ``run``,
        ``space``, …), without prefixes: ``{"subject": "01", "task": "film"}``.
    source : Path or None
        The file that was read.
    metadata : mapping
        The merged JSON sidecar in the units of BIDS (``RepetitionTime`` in seconds).
    companions : mapping of str to Path
        Files that go with it, by role: ``events``, ``channels``, ``electrodes``,
        ``coordsystem``, ``confounds``, ``mask``, ``labels``.
    """

    data: Any
    modality: str
    entities: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    source: Path | None = None
    metadata: Mapping[str, Any] = field(default_factory=lambda: _EMPTY)
    companions: Mapping[str, Path] = field(default_factory=lambda: _EMPTY)


@dataclass(frozen=True)
class Study:
    """Recordings that belong together: a table, and a loader for each row.

    Attributes
    ----------
    table : pandas.DataFrame
        A row a recording, index 0 … n - 1, at least the columns ``subject``,
        ``session``, ``task``, ``run``, ``space``, ``modality`` and ``path``; an entity
        that a recording lacks is ``None``.
    loader : callable
        Takes a row of the table, returns its `Sample`. Nothing is read before.
    """

    table: pd.DataFrame
    loader: Callable[[pd.Series], Sample]

    def __len__(self) -> int:
        return len(self.table)

    def __iter__(self) -> Iterator[Sample]:
        for position in range(len(self)):
            yield self.load(position)

    def load(self, position: int) -> Sample:
        """Read the recording in row ``position`` of the table."""
        return self.loader(self.table.iloc[position])

    def select(self, wanted: Mapping[str, str | Sequence[str] | None]) -> "Study":
        """Keep the recordings whose entities have one of the given values.

        Parameters
        ----------
        wanted : mapping of str to str, sequence of str or None
            Column of the table to the value, or values, to keep; None keeps the rows
            that lack the entity: ``{"task": "film", "run": ["1", "2"]}``.

        Raises
        ------
        InputMissingError
            If no recording is left; the message lists what there is.
        """
        table = self.table
        for name, values in wanted.items():
            kept = _matches(table[name], values)
            if not kept.any():
                found = sorted(table[name].dropna().astype(str).unique())
                raise InputMissingError(
                    f"no recording has {name}={values} (found: {', '.join(found)})"
                )
            table = table[kept]
        return Study(table.reset_index(drop=True), self.loader)


def _matches(column: pd.Series, wanted: str | Sequence[str] | None) -> pd.Series:
    if wanted is None:
        return column.isna()
    values = [wanted] if isinstance(wanted, str) else list(wanted)
    return column.isin(values)
