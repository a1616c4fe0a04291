"""Names of derivative files.

The order of the entities is the entity table of BIDS 1.11.1. ``contrast`` and ``stat``
are no BIDS entities (yet): they stand where nilearn's `save_glm_to_bids` and FitLins
put them, behind the entities of BIDS and before ``desc``, which is always last.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from neuromm.core import UsageError

__all__ = ["bids_name", "contrast_label", "label_of", "parse_name", "spoken"]

# Long name to key, in the order of the entity table.
_ENTITIES = {
    "subject": "sub",
    "template": "tpl",
    "session": "ses",
    "cohort": "cohort",
    "sample": "sample",
    "task": "task",
    "tracksys": "tracksys",
    "acquisition": "acq",
    "nucleus": "nuc",
    "volume": "voi",
    "ceagent": "ce",
    "tracer": "trc",
    "stain": "stain",
    "reconstruction": "rec",
    "direction": "dir",
    "run": "run",
    "modality": "mod",
    "echo": "echo",
    "flip": "flip",
    "inversion": "inv",
    "mtransfer": "mt",
    "part": "part",
    "processing": "proc",
    "hemisphere": "hemi",
    "space": "space",
    "split": "split",
    "recording": "recording",
    "chunk": "chunk",
    "atlas": "atlas",
    "segmentation": "seg",
    "scale": "scale",
    "resolution": "res",
    "density": "den",
    "label": "label",
    "contrast": "contrast",
    "stat": "stat",
    "description": "desc",
}
_LONG = {key: name for name, key in _ENTITIES.items()}
_LABEL = re.compile(r"[0-9a-zA-Z+]+")


def bids_name(entities: Mapping[str, str | None], suffix: str, extension: str) -> str:
    """File name of a derivative, its entities in the order of BIDS.

    Parameters
    ----------
    entities : mapping of str to str or None
        Long names (``"subject"``) or keys (``"sub"``) to labels without the key; None
        and ``""`` are left out.
    suffix : str
        Such as ``"statmap"``.
    extension : str
        Such as ``".nii.gz"``; ``""`` gives the stem.

    Raises
    ------
    neuromm.core.UsageError
        If an entity is unknown or a label is not alphanumeric.

    Examples
    --------
    >>> bids_name({"task": "film", "sub": "01", "stat": "r"}, "statmap", ".nii.gz")
    'sub-01_task-film_stat-r_statmap.nii.gz'
    """
    labels: dict[str, str] = {}
    for name, label in entities.items():
        key = _ENTITIES.get(name, name)
        if key not in _LONG:
            raise UsageError(f"'{name}' is not an entity of BIDS")
        if label is None or label == "":
            continue
        if not _LABEL.fullmatch(str(label)):
            raise UsageError(
                f"label '{label}' of entity '{name}' must be letters and digits only"
            )
        labels[key] = str(label)
    parts = [f"{key}-{labels[key]}" for key in _LONG if key in labels]
    return "_".join([*parts, suffix]) + extension


def parse_name(path: str | Path) -> dict[str, str]:
    """Entities of a file name, by their long names.

    Examples
    --------
    >>> parse_name("sub-01_task-film_desc-encoding_scores.tsv")
    {'subject': '01', 'task': 'film', 'description': 'encoding'}
    """
    pairs = (part.partition("-") for part in Path(path).name.split("_"))
    return {_LONG[key]: label for key, dash, label in pairs if dash and key in _LONG}


def label_of(
    entities: Mapping[str, str | None], *, without: tuple[str, ...] = ()
) -> str:
    """Entities joined as in a file name: ``"ses-a_task-film_space-T1w"``."""
    kept = {name: label for name, label in entities.items() if name not in without}
    return bids_name(kept, "", "").rstrip("_")


def spoken(entities: Mapping[str, str]) -> str:
    """Entities in words, without the subject: ``"session a, task film, in T1w"``."""
    words = {
        "session": "session",
        "task": "task",
        "acquisition": "acquisition",
        "run": "run",
        "space": "in",
    }
    return ", ".join(f"{w} {entities[n]}" for n, w in words.items() if n in entities)


def contrast_label(space: str) -> str:
    """Feature space as a label of ``contrast-``: camelCase, letters and digits only.

    Examples
    --------
    >>> contrast_label("vision clip-L12")
    'visionClipL12'
    """
    words: list[str] = re.findall(r"[0-9a-zA-Z]+", space)
    if not words:
        raise UsageError(
            f"feature space '{space}' needs letters or digits to name files after it"
        )
    return words[0] + "".join(word[0].upper() + word[1:] for word in words[1:])
