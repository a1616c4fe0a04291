"""Which files a BIDS dataset holds, behind a protocol of three methods.

ancpbids walks the folders. Names are parsed by `neuromm.io.bids_name` and sidecars
are merged by `neuromm.io.inheritance`, because ancpbids 0.4 turns ``run-01`` into
``run-1``, cuts labels at a dash, and joins lists of inherited sidecars, which would
double ``SliceTiming``. It would also unpickle a ``.ancpbids-dataset.pickle`` that
lies in a dataset; that is switched off.
"""

import os
import warnings
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from neuromm.core import DataError, InputMissingError
from neuromm.io.bids_name import (
    ANY,
    BidsFile,
    Wanted,
    has_value,
    long_name,
    natural_key,
    parse_name,
)
from neuromm.io.inheritance import applicable, merged_metadata

__all__ = ["AncpLayout", "Layout", "require_dataset", "subject_labels"]

# Folders of a subject that hold no data: fMRIPrep writes hundreds of figures.
_NO_DATA = {"figures", "log", "logs"}

# Root files that ancpbids parses as it loads, and stumbles over when they are damaged.
_PARSED_AT_ROOT = {"dataset_description", "samples", "participants", "genetic_info"}


@runtime_checkable
class Layout(Protocol):
    """Files of one BIDS dataset.

    Attributes
    ----------
    root : Path
        Folder of ``dataset_description.json``, absolute.
    """

    root: Path

    def subjects(self) -> list[str]:
        """Labels of the indexed subjects, without ``sub-``, sorted."""
        ...

    def find(self, wanted: Mapping[str, Wanted]) -> list[BidsFile]:
        """Files whose entities, suffix, extension and datatype have wanted values.

        Parameters
        ----------
        wanted : mapping of str to str, sequence of str or None, or None
            Entity (long or short name), ``suffix``, ``extension`` or ``datatype`` to
            the value or values to keep; ``"*"`` is any value, None is absent.

        Returns
        -------
        files : list of BidsFile
            In natural order of their paths.
        """
        ...

    def metadata(self, path: str | Path) -> dict[str, Any]:
        """Merged JSON sidecars of a file, by the inheritance principle."""
        ...


class AncpLayout:
    """A `Layout` that ancpbids indexes.

    Parameters
    ----------
    root : path-like
        Root of a dataset, raw or derivative.
    subjects : collection of str, optional
        Index these subjects only; labels without ``sub-``.

    Notes
    -----
    Indexed are the files at the root, in ``sub-*``, in ``ses-*`` and in their datatype
    folders; not ``derivatives``, ``sourcedata``, ``code``, ``stimuli``, figures and
    hidden files. A folder with an extension (``.ds``, ``.mefd``) counts as a file.
    """

    root: Path

    def __init__(
        self, root: str | Path, *, subjects: Collection[str] | None = None
    ) -> None:
        self.root = Path(os.path.abspath(root))
        walked = _walk(self.root, subjects)
        parsed = [parse_name(path, self.root) for path in sorted(walked, key=_by_parts)]
        self._files = [file for file in parsed if file is not None]
        self._warn_of_contradictions(walked)
        self._by_suffix: dict[str, list[BidsFile]] = defaultdict(list)
        for file in self._files:
            self._by_suffix[file.suffix].append(file)

    def subjects(self) -> list[str]:
        """Labels of the indexed subjects, without ``sub-``, sorted."""
        labels = {
            file.folder[0].removeprefix("sub-") for file in self._files if file.folder
        }
        return sorted(labels, key=natural_key)

    def find(self, wanted: Mapping[str, Wanted]) -> list[BidsFile]:
        """Files whose entities, suffix, extension and datatype have wanted values.

        See `Layout.find`.
        """
        wanted = {long_name(key): value for key, value in wanted.items()}
        return [
            file
            for file in self._candidates(wanted)
            if all(has_value(key, _value(file, key), wanted[key]) for key in wanted)
        ]

    def metadata(self, path: str | Path) -> dict[str, Any]:
        """Merged JSON sidecars of a file, by the inheritance principle.

        Parameters
        ----------
        path : path-like
            A file of the dataset, absolute or relative to its root.

        Raises
        ------
        DataError
            If a sidecar is no JSON object, or the path is no BIDS name.
        """
        absolute = Path(os.path.abspath(self.root / path))
        file = None
        if absolute.is_relative_to(self.root):
            file = parse_name(absolute.relative_to(self.root), self.root)
        if file is None:
            raise DataError(f"is no BIDS file of the dataset {self.root}", absolute)
        sidecars = self.find({"suffix": file.suffix, "extension": ".json"})
        return merged_metadata(applicable(sidecars, file.folder, file.entities))

    def _candidates(self, wanted: Mapping[str, Wanted]) -> Sequence[BidsFile]:
        suffix = wanted.get("suffix")
        if not isinstance(suffix, str) or suffix == ANY:
            return self._files
        return self._by_suffix.get(suffix, ())

    def _warn_of_contradictions(self, walked: Sequence[str]) -> None:
        kept = {file.path for file in self._files}
        lost = [
            path
            for path in walked
            if self.root / path not in kept and parse_name(path, strict=False)
        ]
        if lost:
            warnings.warn(
                f"{self.root}: left out {len(lost)} files whose name contradicts their "
                f"folder, such as {lost[0]}",
                stacklevel=3,
            )


def subject_labels(root: str | Path) -> list[str]:
    """Labels of the ``sub-*`` folders of a dataset, without ``sub-``, sorted."""
    with os.scandir(root) as entries:
        labels = [
            entry.name.removeprefix("sub-")
            for entry in entries
            if entry.name.startswith("sub-") and entry.is_dir()
        ]
    return sorted(labels, key=natural_key)


def require_dataset(root: str | Path, *, derivative: str | None = None) -> Path:
    """Return the absolute root of a BIDS dataset.

    Parameters
    ----------
    root : path-like
    derivative : str, optional
        Name of the derivative dataset, for the message; None of a raw one.

    Raises
    ------
    InputMissingError
        If the folder is not there.
    DataError
        If it has no ``dataset_description.json``, which BIDS requires of raw and
        derivative datasets; the message gives the line to write.
    """
    path = Path(os.path.abspath(root))
    what = f"derivatives {derivative!r}" if derivative else "BIDS dataset"
    if not path.is_dir():
        state = "is a file" if path.exists() else "no such folder"
        raise InputMissingError(f"{path}: {state}, expected the root of the {what}")
    if not (path / "dataset_description.json").is_file():
        raise DataError(
            f"has no dataset_description.json, which BIDS requires of the root of the "
            f"{what}. {_cure_of_description(path, derivative)}",
            path,
        )
    return path


def _cure_of_description(path: Path, derivative: str | None) -> str:
    inside = sorted(path.glob("*/dataset_description.json"))
    if inside:
        return f"Did you mean {inside[0].parent}?"
    line = f'{{"Name": "{path.name}", "BIDSVersion": "1.11.0", "DatasetType": "raw"}}'
    if derivative:
        line = (
            f'{{"Name": "{path.name}", "BIDSVersion": "1.11.0", "DatasetType": '
            f'"derivative", "GeneratedBy": [{{"Name": "{derivative}"}}]}}'
        )
    return f"If this is the root, write there: {line}"


class _DatasetFolders:
    """The part of ancpbids' file-system protocol that indexing calls.

    Shows only what `AncpLayout` indexes and asks the disk once a folder. It enters no
    recording that is a folder, and the depth is bounded, so that links cannot circle.
    """

    def __init__(self, root: Path, subjects: Collection[str] | None) -> None:
        self._root = str(root)
        self._subjects = None if subjects is None else set(subjects)
        self._folders = {self._root}

    def is_dir(self, path: str) -> bool:
        return path in self._folders

    def exists(self, path: str) -> bool:
        # Hides dataset_description.json: whatever version it declares, the newest
        # schema reads the names, and a damaged one is reported by us.
        return False

    def listdir(self, path: str) -> list[str]:
        relative = path[len(self._root) :].strip("/")
        depth = relative.count("/") + 1 if relative else 0
        in_session = os.path.basename(path).startswith("ses-")
        with os.scandir(path) as entries:
            shown = [entry for entry in entries if not entry.name.startswith(".")]
        names = []
        for entry in shown:
            if "." not in entry.name and entry.is_dir():
                if self._is_entered(entry.name, depth, in_session):
                    self._folders.add(f"{path}/{entry.name}")
                    names.append(entry.name)
            elif depth or entry.name.partition(".")[0] not in _PARSED_AT_ROOT:
                names.append(entry.name)
        return names

    def _is_entered(self, name: str, depth: int, in_session: bool) -> bool:
        if depth == 0:
            wanted = self._subjects is None or name[len("sub-") :] in self._subjects
            return name.startswith("sub-") and wanted
        return name not in _NO_DATA and (depth == 1 or (depth == 2 and in_session))


def _walk(root: Path, subjects: Collection[str] | None) -> list[str]:
    """Paths of the files, relative to the root."""
    import ancpbids
    from ancpbids.model_base import File

    options = ancpbids.DatasetOptions(ignore_pickle_file=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = ancpbids.load_dataset(
            str(root), options, vfs=_DatasetFolders(root, subjects)
        )
        return list(dataset.select(File).get_file_paths())


def _by_parts(path: str) -> tuple[Any, ...]:
    return tuple(natural_key(part) for part in path.split("/"))


def _value(file: BidsFile, key: str) -> str | None:
    if key == "suffix":
        return file.suffix
    if key == "extension":
        return file.extension
    if key == "datatype":
        return file.datatype
    return file.entities.get(key)
