"""What every sidecar of a unit tells: sources, space, settings, all as JSON."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from neuromm.core import Provenance, UsageError
from neuromm.core.files import atomic_path
from neuromm.report.dataset import bids_uri, linked_datasets

__all__ = [
    "plain",
    "provenance_of",
    "sampling",
    "source_uris",
    "spatial_reference_of",
    "unit_entities",
    "write_tsv",
]

# Images that templateflow publishes; other frames are named as they are.
_TEMPLATE = "https://templateflow.s3.amazonaws.com/tpl-{0}_res-01_T1w.nii.gz"
_TEMPLATES = ("MNI152NLin2009cAsym", "MNI152NLin6Asym")


def unit_entities(entities: Mapping[str, str | None]) -> dict[str, str]:
    """Entities of a unit by long names, without what tells its files apart.

    Raises
    ------
    neuromm.core.UsageError
        If there is no subject.
    """
    dropped = {"description", "desc", "hemisphere", "hemi", "suffix", "extension"}
    unit = {k: str(v) for k, v in entities.items() if v and k not in dropped}
    if "subject" not in unit:
        raise UsageError(f"entities of a unit need a subject, got {dict(entities)}")
    return unit


def sampling(unit: Mapping[str, str]) -> dict[str, str]:
    """What BIDS requires to be told where a name has ``res-`` or ``den-``."""
    keys = {"resolution": "Resolution", "density": "Density"}
    return {
        key: f"That of the source data, labelled {unit[entity]}"
        for entity, key in keys.items()
        if entity in unit
    }


def source_uris(sources: Sequence[str | Path], root: str | Path) -> list[str]:
    """BIDS URIs of what was read; of a file in no linked dataset, its name."""
    datasets = linked_datasets(root)
    return [
        source
        if isinstance(source, str) and source.startswith("bids:")
        else bids_uri(source, datasets)
        for source in sources
    ]


def spatial_reference_of(frame: str | None) -> str:
    """Image of a template that is published, else the frame's name."""
    if frame is None:
        return "n/a"
    return _TEMPLATE.format(frame) if frame in _TEMPLATES else frame


def provenance_of(provenance: Provenance | Mapping[str, Any] | None) -> Any:
    """As JSON, without time and memory, which differ from run to run."""
    if isinstance(provenance, Provenance):
        return plain(provenance.to_dict(volatile=False))
    return plain(dict(provenance or {}))


def plain(value: Any) -> Any:
    """As JSON holds it: numpy scalars and arrays, paths and tuples resolved."""
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if value is None or isinstance(value, str | int | bool):
        return value
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value) if isinstance(value, set | frozenset) else value
        return [plain(item) for item in items]
    return str(value)


def write_tsv(path: Path, table: pd.DataFrame, *, figures: int = 6) -> Path:
    """Write a table as BIDS wants it: so many figures, ``n/a``, ``true`` and ``false``.

    The same table gives the same bytes.
    """
    written = table.copy()
    for name in written.select_dtypes(bool).columns:
        written[name] = np.where(written[name], "true", "false")
    with atomic_path(path) as temporary:
        written.to_csv(
            temporary,
            sep="\t",
            index=False,
            na_rep="n/a",
            float_format=f"%.{figures}g",
            lineterminator="\n",
            encoding="utf-8",
        )
    return path
