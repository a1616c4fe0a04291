"""The inheritance principle: which metadata files apply to a recording.

References
----------
BIDS 1.11, Common principles, "The Inheritance Principle": a metadata file applies to
a data file if it lies in the same folder or above, has the same suffix, and has no
entity that the data file lacks. Of tables the most specific one alone counts; JSON
files are read from the root down, and a key overrides the same key above it.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from neuromm.core import DataError
from neuromm.core.files import read_json
from neuromm.io.bids_name import BidsFile, has_value
from neuromm.io.content import require_content

__all__ = ["applicable", "merged_metadata", "most_specific"]


def applicable(
    files: Iterable[BidsFile],
    folder: tuple[str, ...],
    entities: Mapping[str, str],
    *,
    ignoring: Collection[str] = (),
) -> list[BidsFile]:
    """Files that apply to a recording, from the least to the most specific.

    Parameters
    ----------
    files : iterable of BidsFile
        Metadata files of one suffix and one extension.
    folder : tuple of str
        Folder of the recording below the root of the dataset.
    entities : mapping of str to str
        Entities of the recording.
    ignoring : collection of str
        Entities that the metadata file may have and the recording lacks, such as
        ``space`` of ``electrodes.tsv``.

    Returns
    -------
    applicable : list of BidsFile
        By depth, then by number of entities, then by name.
    """
    kept = [
        file
        for file in files
        if folder[: len(file.folder)] == file.folder
        and all(
            name in ignoring or has_value(name, entities.get(name), label)
            for name, label in file.entities.items()
        )
    ]
    return sorted(kept, key=lambda file: (*_specificity(file), file.path.name))


def most_specific(files: list[BidsFile]) -> BidsFile | None:
    """The last of the files that `applicable` gives, None of none.

    Raises
    ------
    DataError
        If two are equally specific, so that BIDS leaves open which one counts.
    """
    if len(files) > 1 and _specificity(files[-1]) == _specificity(files[-2]):
        raise DataError(
            f"applies to the same recording as {files[-2].path.name} beside it, and "
            "neither is more specific. BIDS allows one: rename or remove the other.",
            files[-1].path,
        )
    return files[-1] if files else None


def merged_metadata(files: Iterable[BidsFile]) -> dict[str, Any]:
    """Merge JSON files from the first to the last; later keys override.

    A value is replaced whole: lists such as ``SliceTiming`` are not joined.

    Raises
    ------
    DataError
        If a file is no JSON object.
    InputMissingError
        If a file is a git-annex link without content.
    """
    merged: dict[str, Any] = {}
    for file in files:
        merged |= read_json(require_content(file.path))
    return merged


def _specificity(file: BidsFile) -> tuple[int, int]:
    return len(file.folder), len(file.entities)
