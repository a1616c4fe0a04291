"""Files that belong to a recording: events, channels, electrodes, confounds, mask.

Events, channels and electrodes are found by the inheritance principle in the raw
dataset; confounds and brain mask by the naming of fMRIPrep in the derivatives.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from neuromm.core import InputMissingError
from neuromm.io.bids_name import BidsFile
from neuromm.io.content import require_content
from neuromm.io.inheritance import applicable, merged_metadata, most_specific
from neuromm.io.layout import Layout

__all__ = ["companions_of", "metadata_of"]

# fMRIPrep called the table of confounds desc-confounds_regressors before 20.2.
_CONFOUND_SUFFIXES = ("timeseries", "regressors")


def companions_of(
    file: BidsFile,
    raw: Layout,
    derivatives: Sequence[Layout],
    spaces: Sequence[str] = (),
) -> dict[str, Path]:
    """Files that belong to a recording, by role.

    Parameters
    ----------
    file : BidsFile
        The recording, raw or preprocessed.
    raw : Layout
        Where events, channels and electrodes are looked for.
    derivatives : sequence of Layout
        Where confounds and mask are looked for, the recording's own dataset first;
        empty for a raw recording.
    spaces : sequence of str
        Frames in which electrodes are wanted; those of the MNI family come first if
        none is given.

    Returns
    -------
    companions : dict of str to Path
        Some of ``events``, ``channels``, ``electrodes``, ``coordsystem``,
        ``confounds``, ``mask``. A role that has no file is left out.

    Raises
    ------
    DataError
        If two files are equally specific for one role.
    InputMissingError
        If a companion is a git-annex link without content, or iEEG electrodes are not
        there in a wanted space.
    """
    found: dict[str, BidsFile | None] = {"events": _inherited(file, raw, "events")}
    if file.suffix != "bold":
        found["channels"] = _inherited(file, raw, "channels")
        found["electrodes"] = _electrodes(file, raw, spaces)
        found["coordsystem"] = _coordsystem(file, raw, found["electrodes"])
    for layout in reversed(derivatives):  # the own dataset last: it overrides
        found["confounds"] = _confounds(file, layout) or found.get("confounds")
        found["mask"] = _mask(file, layout) or found.get("mask")
    return {
        role: require_content(companion.path)
        for role, companion in found.items()
        if companion is not None
    }


def metadata_of(file: BidsFile, own: Layout, raw: Layout) -> dict[str, Any]:
    """Merged sidecars of a recording.

    A preprocessed recording takes from the raw one's sidecars what its own do not
    say: fMRIPrep does not repeat every key.
    """
    inherited: dict[str, Any] = {}
    if own is not raw:
        sidecars = raw.find({"suffix": file.suffix, "extension": ".json"})
        inherited = merged_metadata(applicable(sidecars, file.folder, file.entities))
    return inherited | own.metadata(file.path)


def _inherited(file: BidsFile, raw: Layout, suffix: str) -> BidsFile | None:
    tables = raw.find({"suffix": suffix, "extension": ".tsv"})
    return most_specific(applicable(tables, file.folder, file.entities))


def _electrodes(file: BidsFile, raw: Layout, wanted: Sequence[str]) -> BidsFile | None:
    """Electrodes in a wanted space, else of the MNI family, else without a space."""
    tables = raw.find({"suffix": "electrodes", "extension": ".tsv"})
    candidates = applicable(tables, file.folder, file.entities, ignoring={"space"})
    if not candidates:
        return None
    spaces = {table.entities.get("space") for table in candidates}
    if wanted and file.suffix == "ieeg" and not spaces & set(wanted):
        found = ", ".join(sorted(f"space-{s}" if s else "no space" for s in spaces))
        raise InputMissingError(
            f"{file.path}: has no electrodes.tsv in space {', '.join(wanted)} "
            f"(found: {found})"
        )

    def rank(space: str | None) -> tuple[int, str]:
        name = space or ""
        if name in wanted:
            return (wanted.index(name) - len(wanted), name)
        return (0 if name.startswith("MNI") else 1 if space is None else 2, name)

    chosen = min(spaces, key=rank)
    return most_specific([t for t in candidates if t.entities.get("space") == chosen])


def _coordsystem(
    file: BidsFile, raw: Layout, electrodes: BidsFile | None
) -> BidsFile | None:
    """The coordsystem.json of the electrodes' own space.

    One of another space, or of none, may have other units: it is not taken.
    """
    files = raw.find({"suffix": "coordsystem", "extension": ".json"})
    space = electrodes.entities.get("space") if electrodes is not None else None
    kept = applicable(files, file.folder, file.entities, ignoring={"space"})
    return most_specific([c for c in kept if c.entities.get("space") == space])


def _confounds(file: BidsFile, layout: Layout) -> BidsFile | None:
    tables = layout.find(
        {
            "suffix": _CONFOUND_SUFFIXES,
            "extension": ".tsv",
            "description": "confounds",
        }
    )
    kept = applicable(tables, file.folder, file.entities, ignoring={"description"})
    newest = [table for table in kept if table.suffix == "timeseries"]
    return most_specific(newest or kept)


def _mask(file: BidsFile, layout: Layout) -> BidsFile | None:
    """The brain mask on the grid of a volume: same space, same resolution."""
    if file.extension == ".func.gii":
        return None
    masks = layout.find({"suffix": "mask", "description": "brain"})
    kept = applicable(masks, file.folder, file.entities, ignoring={"description"})
    grid = ("space", "cohort", "resolution")
    return most_specific(
        [
            mask
            for mask in kept
            if mask.extension in (".nii.gz", ".nii")
            and all(mask.entities.get(n) == file.entities.get(n) for n in grid)
        ]
    )
