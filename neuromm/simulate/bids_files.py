"""Files of a simulated BIDS data set, apart from the recordings."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from neuromm import __version__
from neuromm.core.files import write_json, write_text
from neuromm.simulate.film import Film

__all__ = [
    "BIDS_VERSION",
    "TASK",
    "write_derivative_description",
    "write_features",
    "write_root",
    "write_table",
]

BIDS_VERSION = "1.10.0"
TASK = "film"

_README = """\
Simulated recordings of a film, with planted truth
==================================================

Made by neuromm.simulate.make_bids_dataset. No person was measured.

Every clip of the film has features for vision and for language
(derivatives/features). Voxels and contacts follow one of them, both, their products,
or none; derivatives/features/truth.tsv says which. The files below stimuli/ only stand
for the clips that events.tsv names.
"""

_EVENT_COLUMNS = {
    "trial_type": {
        "Description": "What was shown.",
        "Levels": {
            "clip": "A clip of the film.",
            "word": "A clip of the film, from the onset of its word.",
        },
    },
    "stim_file": {
        "Description": "The clip, below stimuli/; key of the feature tables."
    },
}


def write_table(path: Path, table: pd.DataFrame, decimals: int = 6) -> None:
    """Write a TSV file as BIDS has it: ``n/a`` for missing values."""
    text = table.to_csv(
        sep="\t",
        index=False,
        na_rep="n/a",
        float_format=f"%.{decimals}f",
        lineterminator="\n",
    )
    write_text(path, text)


def write_root(
    root: Path, subjects: Sequence[str], sidecars: Mapping[str, Mapping[str, Any]]
) -> None:
    """Write what describes the data set as a whole.

    Parameters
    ----------
    root : Path
    subjects : sequence of str
    sidecars : mapping of str to mapping
        Suffix of a recording (``"bold"``, ``"ieeg"``) to the metadata of all its runs,
        which BIDS lets stand once at the root.
    """
    write_json(
        root / "dataset_description.json",
        {
            "Name": "Simulated film with planted truth",
            "BIDSVersion": BIDS_VERSION,
            "DatasetType": "raw",
            "License": "CC0",
            "Authors": ["The neuromm developers"],
            "GeneratedBy": _generated_by(),
        },
    )
    write_text(root / "README", _README)
    people = [f"sub-{label}" for label in subjects]
    write_table(root / "participants.tsv", pd.DataFrame({"participant_id": people}))
    write_json(
        root / "participants.json",
        {"participant_id": {"Description": "A simulated participant."}},
    )
    write_json(root / f"task-{TASK}_events.json", _EVENT_COLUMNS)
    for suffix, metadata in sidecars.items():
        write_json(root / f"task-{TASK}_{suffix}.json", metadata)


def write_derivative_description(folder: Path, name: str) -> None:
    """Write ``dataset_description.json`` of a derivative data set."""
    write_json(
        folder / "dataset_description.json",
        {
            "Name": name,
            "BIDSVersion": BIDS_VERSION,
            "DatasetType": "derivative",
            "License": "CC0",
            "GeneratedBy": _generated_by(),
            "SourceDatasets": [{"URL": "../../"}],
        },
    )


def write_features(root: Path, film: Film) -> dict[str, Path]:
    """Write the clips' stand-ins and the feature tables; give the tables' paths."""
    for clip in film.clips:
        path = root / "stimuli" / clip
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"Stands for the simulated clip {path.stem}.\n")
    folder = root / "derivatives" / "features"
    write_derivative_description(folder, "Features of the simulated film")
    write_text(folder / ".bidsignore", "*.tsv\n")
    paths = {space: folder / f"{space}.tsv" for space in film.features}
    for space, path in paths.items():
        write_table(path, film.table(space))
    return paths


def _generated_by() -> list[dict[str, str]]:
    return [{"Name": "neuromm.simulate", "Version": __version__}]
