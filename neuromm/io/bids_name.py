"""Entities, suffix and extension in a BIDS file name.

Parsed here rather than by an indexing library: labels keep their zeros (``run-01``),
entities unknown to a schema version are kept, and a label with a dash is not cut.

References
----------
BIDS 1.11, Common principles, "Filenames" and Appendix "Entities".
"""

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "ANY",
    "BidsFile",
    "Wanted",
    "has_value",
    "long_name",
    "natural_key",
    "parse_name",
    "short_name",
    "strip_prefix",
]

ANY = "*"

# What to keep of an entity: one value, several, "*" for any, None for absent.
Wanted = str | Sequence[str | None] | None

_LONG_NAMES = {
    "sub": "subject",
    "ses": "session",
    "acq": "acquisition",
    "ce": "ceagent",
    "trc": "tracer",
    "rec": "reconstruction",
    "dir": "direction",
    "inv": "inversion",
    "mt": "mtransfer",
    "mod": "modality",
    "proc": "processing",
    "hemi": "hemisphere",
    "seg": "segmentation",
    "res": "resolution",
    "den": "density",
    "desc": "description",
    "tpl": "template",
    "nuc": "nucleus",
    "voi": "volume",
}
_SHORT_NAMES = {long: short for short, long in _LONG_NAMES.items()}

# Entities whose value is a number: run-1 and run-01 are the same run.
_INDEX_ENTITIES = {"run", "echo", "split", "flip", "inversion", "chunk"}


@dataclass(frozen=True, slots=True)
class BidsFile:
    """A file of a dataset, or a folder that is a recording (``.ds``, ``.mefd``).

    Attributes
    ----------
    path : Path
        Absolute, symbolic links kept as they are.
    folder : tuple of str
        Folders from the root of the dataset down to the file.
    entities : mapping of str to str
        By long names, in the order of the file name.
    suffix : str
        Such as ``"bold"``.
    extension : str
        From the first dot, dot included: ``".nii.gz"``.
    """

    path: Path
    folder: tuple[str, ...]
    entities: Mapping[str, str]
    suffix: str
    extension: str

    @property
    def datatype(self) -> str | None:
        """Name of the datatype folder (``"func"``), None above it."""
        last = self.folder[-1] if self.folder else "sub-"
        return None if last.startswith(("sub-", "ses-")) else last


def parse_name(
    relative: str | Path, root: str | Path = "", *, strict: bool = True
) -> BidsFile | None:
    """Parse a path that is relative to the root of its dataset.

    Parameters
    ----------
    relative : path-like
        Such as ``sub-01/func/sub-01_task-film_bold.nii.gz``.
    root : path-like
        Root of the dataset, joined to give `BidsFile.path`.
    strict : bool
        Refuse a file whose ``sub-`` or ``ses-`` contradicts its folder.

    Returns
    -------
    file : BidsFile or None
        None where the name is no BIDS name.
    """
    relative = Path(relative)
    stem, dot, extension = relative.name.partition(".")
    *pairs, suffix = stem.split("_")
    if not dot or not suffix.isalnum():
        return None
    entities: dict[str, str] = {}
    for pair in pairs:
        key, dash, label = pair.partition("-")
        if not (key.isalnum() and dash and label) or long_name(key) in entities:
            return None
        entities[long_name(key)] = label
    folder = relative.parent.parts
    if strict and _contradicts(folder, entities):
        return None
    return BidsFile(Path(root) / relative, folder, entities, suffix, dot + extension)


def _contradicts(folder: tuple[str, ...], entities: Mapping[str, str]) -> bool:
    for part in folder:
        key, _, label = part.partition("-")
        if key in ("sub", "ses") and entities.get(long_name(key), label) != label:
            return True
    return False


def long_name(key: str) -> str:
    """Long name of an entity: ``"session"`` for ``"ses"``; others as they are."""
    return _LONG_NAMES.get(key, key)


def short_name(name: str) -> str:
    """Entity as it stands in a file name: ``"ses"`` for ``"session"``."""
    return _SHORT_NAMES.get(name, name)


def strip_prefix(name: str, label: str) -> str:
    """Label of an entity without its prefix: ``"01"`` for ``"sub-01"``."""
    return label.removeprefix(f"{short_name(name)}-")


def has_value(name: str, label: str | None, wanted: Wanted) -> bool:
    """Whether an entity has a wanted value.

    Parameters
    ----------
    name : str
        Long name of the entity; numbers such as ``run`` are compared as numbers.
    label : str or None
        Value in the file name, None where the entity is absent.
    wanted : str, sequence of str or None, or None
        One value or several; ``"*"`` is any value, None is absent.
    """
    if wanted is None or isinstance(wanted, str):
        wanted = (wanted,)
    return any(_is_same(name, label, value) for value in wanted)


def _is_same(name: str, label: str | None, value: str | None) -> bool:
    if label is None or value is None:
        return label is value
    if value == ANY:
        return True
    if name in _INDEX_ENTITIES and label.isdecimal() and value.isdecimal():
        return int(label) == int(value)
    return label == value


@functools.lru_cache(maxsize=65_536)  # folders and labels come again and again
def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key by which ``run-2`` comes before ``run-10``."""
    parts = re.findall(r"[0-9]+|[^0-9]+", text)
    return tuple(
        (0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts
    )
