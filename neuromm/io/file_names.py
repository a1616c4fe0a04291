"""BIDS entities of a file name.

Source: BIDS 1.11, "Entities" of the appendices.
"""

from pathlib import Path

__all__ = ["ENTITY_NAMES", "file_entities", "file_suffix", "plain_stem"]

ENTITY_NAMES = {
    "sub": "subject",
    "ses": "session",
    "task": "task",
    "acq": "acquisition",
    "ce": "ceagent",
    "trc": "tracer",
    "dir": "direction",
    "rec": "reconstruction",
    "run": "run",
    "echo": "echo",
    "part": "part",
    "proc": "processing",
    "hemi": "hemisphere",
    "space": "space",
    "split": "split",
    "recording": "recording",
    "res": "resolution",
    "den": "density",
    "label": "label",
    "desc": "description",
}


def file_entities(path: str | Path) -> dict[str, str]:
    """Entities by their long names, in the order of the file name.

    Parameters
    ----------
    path : path-like
        Only the name is looked at; parts that are no known entity are left out.

    Returns
    -------
    entities : dict of str to str
        Without prefixes; empty for a name that is not of BIDS.

    Examples
    --------
    >>> file_entities("sub-01_task-film_run-2_bold.nii.gz")
    {'subject': '01', 'task': 'film', 'run': '2'}
    """
    entities = {}
    for part in plain_stem(path).split("_")[:-1]:
        key, dash, value = part.partition("-")
        if dash and value and key in ENTITY_NAMES:
            entities[ENTITY_NAMES[key]] = value
    return entities


def file_suffix(path: str | Path) -> str:
    """Last part of the name before the extensions: ``"bold"``; "" if there is none.

    Examples
    --------
    >>> file_suffix("sub-01_task-film_bold.nii.gz")
    'bold'
    """
    _, underscore, suffix = plain_stem(path).rpartition("_")
    return suffix if underscore and "-" not in suffix else ""


def plain_stem(path: str | Path) -> str:
    """File name without any extension: ``sub-01_bold`` of ``sub-01_bold.nii.gz``."""
    return Path(path).name.partition(".")[0]
