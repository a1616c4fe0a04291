"""The filter file of BIDS apps: which files of each type to use.

The shape is fMRIPrep's ``--bids-filter-file``: type of data to entities to values,
``{"bold": {"session": "02", "acquisition": null, "run": ["1", "2"]}}``. ``null`` is
an entity that must be absent, ``"*"`` one that must be there.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neuromm.core import DataError, InputMissingError, UsageError
from neuromm.core.files import read_json
from neuromm.io.bids_name import ANY, Wanted, long_name, strip_prefix

__all__ = ["read_filters"]

_USED = ("bold", "eeg", "meg", "ieeg")

# Types of fMRIPrep and its sisters, so that one filter file serves several apps.
_OTHER_APPS = {
    "fmap", "sbref", "flair", "t1w", "t2w", "roi", "dwi", "asl", "pet", "events",
    "anat", "mask", "xfm", "mrac", "m0scan",
}  # fmt: skip

_KEYS = {
    "subject", "session", "task", "acquisition", "ceagent", "tracer", "reconstruction",
    "direction", "run", "echo", "part", "processing", "hemisphere", "space", "cohort",
    "split", "recording", "resolution", "density", "description", "datatype", "suffix",
    "extension",
}  # fmt: skip

_SENTINELS: dict[str, str | None] = {
    ANY: ANY,
    "Query.ANY": ANY,
    "Query.REQUIRED": ANY,
    "Query.NONE": None,
}


def read_filters(
    filters: Mapping[str, Mapping[str, Any]] | str | Path | None,
) -> dict[str, dict[str, Wanted]]:
    """Check filters and bring them to one form.

    Parameters
    ----------
    filters : mapping, path-like or None
        Type of data (``bold``, ``eeg``, ``meg``, ``ieeg``) to entities to values; or
        the JSON file that holds it. None filters nothing. Types that only other apps
        use (``t1w``, ``fmap`` …) are passed over.

    Returns
    -------
    filters : dict of str to dict of str to values
        Long entity names; values without prefixes, ``"*"`` for any, None for absent.

    Raises
    ------
    InputMissingError
        If the file is not there.
    DataError
        If the file is no JSON object.
    UsageError
        If a type, an entity or a value is none that a filter can have.
    """
    if filters is None:
        return {}
    where = "filters"
    if isinstance(filters, str | Path):
        where = str(filters)
        filters = _read_file(Path(filters))
    checked: dict[str, dict[str, Wanted]] = {}
    for kind, entities in filters.items():
        if kind in _OTHER_APPS:
            continue
        if kind not in _USED or not isinstance(entities, Mapping):
            raise UsageError(
                f"{where}: {kind!r} must be a type of data with a JSON object of "
                f"entities. Types that are used here: {', '.join(_USED)}; such as "
                '{"bold": {"session": "02"}}'
            )
        checked[kind] = {
            _entity(key, kind, where): _wanted(key, value, kind, where)
            for key, value in entities.items()
        }
    return checked


def _read_file(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputMissingError(f"{path}: no such filter file")
    try:
        return read_json(path)
    except DataError as error:
        raise DataError(
            f"{error}. A filter file is a JSON object such as "
            '{"bold": {"session": "02", "acquisition": null}}'
        ) from error


def _entity(key: str, kind: str, where: str) -> str:
    name = long_name(key)
    if name not in _KEYS:
        raise UsageError(
            f"{where}: {key!r} of {kind!r} is no entity to filter by (these are: "
            f"{', '.join(sorted(_KEYS))})"
        )
    return name


def _wanted(key: str, value: Any, kind: str, where: str) -> Wanted:
    values = value if isinstance(value, list | tuple) else [value]
    wanted: list[str | None] = []
    for item in values:
        if isinstance(item, bool) or not isinstance(item, str | int | None):
            raise UsageError(
                f"{where}: {key!r} of {kind!r} is {item!r}, expected a label, a list "
                'of labels, null (absent) or "*" (any)'
            )
        if isinstance(item, str) and item in _SENTINELS:
            wanted.append(_SENTINELS[item])
        else:
            label = None if item is None else str(item)
            wanted.append(label and _normalised(long_name(key), label))
    return tuple(wanted)


def _normalised(name: str, label: str) -> str:
    if name == "extension" and not label.startswith("."):
        return f".{label}"
    return strip_prefix(name, label)
