"""Chunks of a unit's targets: how they are cut, and how they are kept on the disk.

A unit's chunks lie in ``OUTPUT_DIR/.neuromm/chunks/UNIT``: ``unit.json`` with the
settings and inputs that all of them share, and one file a chunk, NumPy's ``.npz``
without pickled objects. They are removed when the unit is joined.
"""

import json
import re
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuromm.core.errors import UsageError
from neuromm.core.files import atomic_path, write_json
from neuromm_pipelines.units import STATE_FOLDER, differences, locked

if TYPE_CHECKING:
    from neuromm.core import EncodingResult, SiteMap

__all__ = [
    "CHUNK_FOLDER",
    "UnitChunks",
    "as_ranges",
    "chunk_number",
    "stamp_of",
    "target_part",
]

CHUNK_FOLDER = Path(STATE_FOLDER, "chunks")


def target_part(n_targets: int, n_chunks: int, number: int, together: int = 1) -> slice:
    """Columns of one chunk: contiguous, and of one size up to ``together`` targets.

    Parameters
    ----------
    n_targets, n_chunks : int
        The cut depends on nothing else. With more chunks than targets some are empty.
    number : int
        1 to ``n_chunks``.
    together : int
        Neighbours that are not cut apart, such as the time bins of a site; divides
        ``n_targets``.

    Raises
    ------
    neuromm.core.UsageError
        If there is no chunk of that number.
    """
    if not 1 <= number <= n_chunks:
        raise UsageError(f"chunks are numbered from 1 to {n_chunks}, got {number}")
    n_wholes = n_targets // together
    edges = ((number - 1) * n_wholes // n_chunks, number * n_wholes // n_chunks)
    return slice(edges[0] * together, edges[1] * together)


def chunk_number(text: str) -> tuple[int, int]:
    """Read ``i/N``, as in ``--targets-chunk 3/100``.

    Raises
    ------
    neuromm.core.UsageError
        Unless 1 <= i <= N.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    number, n_chunks = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= n_chunks:
        raise UsageError(
            f"--targets-chunk takes i/N with i from 1 to N, such as 3/100, got {text!r}"
        )
    return number, n_chunks


def as_ranges(numbers: list[int]) -> str:
    """Numbers in the form that job schedulers take: ``"1,3-5"``; sorted on entry."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


class UnitChunks:
    """The chunks of one unit in an output folder.

    Parameters
    ----------
    output_dir : Path
    name : str
        Name of the unit.
    n_chunks : int
    settings : mapping
        Everything that can change a number, as JSON; the number of chunks included.
    inputs : mapping of str to str
        Input file to size and time of change.
    """

    def __init__(
        self,
        output_dir: Path,
        name: str,
        n_chunks: int,
        settings: Mapping[str, Any],
        inputs: Mapping[str, str],
    ) -> None:
        self.output_dir = output_dir
        self.name = name
        self.n_chunks = n_chunks
        self.stamp = {
            "settings": json.loads(json.dumps(settings, default=str)),
            "inputs": dict(inputs),
        }
        self.folder = output_dir / CHUNK_FOLDER / name

    def open(self, *, anew: bool) -> None:
        """Take the folder for these settings and inputs.

        Parameters
        ----------
        anew : bool
            Remove chunks of other settings or inputs instead of refusing.

        Raises
        ------
        neuromm.core.UsageError
            If it holds chunks of others and ``anew`` is False; the message names what
            differs.
        """
        with locked(self.output_dir, f"{self._lock}/unit", wait=True):
            if stamp_of(self.folder) not in (None, self.stamp):
                if not anew:
                    self.check()
                shutil.rmtree(self.folder)
            if stamp_of(self.folder) is None:
                write_json(self.folder / "unit.json", self.stamp)

    def check(self) -> None:
        """Raise `UsageError` if the folder holds chunks of others, naming what differs.

        Nothing is raised where there is no folder.
        """
        before = stamp_of(self.folder)
        if before is not None:
            self._compare(before, f"the chunks of {self.name} lie in {self.output_dir}")

    def is_open(self) -> bool:
        """Tell whether the folder was taken, by whatever machine."""
        return stamp_of(self.folder) is not None

    def lock_name(self, number: int) -> str:
        """Name to hold while a chunk is computed."""
        return f"{self._lock}/{self.path(number).stem}"

    def path(self, number: int) -> Path:
        """Where a chunk lies."""
        return self.folder / f"chunk-{number}-of-{self.n_chunks}.npz"

    def write(
        self,
        number: int,
        part: slice,
        results: "Mapping[str, EncodingResult]",
        sites: "SiteMap | None" = None,
    ) -> Path:
        """Keep what was fitted on the targets ``part``; whole or not at all."""
        import numpy as np

        from neuromm_pipelines.site_chunks import packed

        spaces: list[dict[str, Any]] = []
        arrays: dict[str, Any] = {}
        for index, (name, result) in enumerate(results.items()):
            scores = {str(key): value for key, value in result.scores.items()}
            spaces.append(
                {
                    "space": name,
                    "scores": list(scores),
                    "held_out_runs": result.scores["held_out_runs"].to_numpy().tolist(),
                    "attrs": dict(result.attrs),
                }
            )
            arrays |= {f"{key}_{index}": v.to_numpy() for key, v in scores.items()}
            if result.predictions is not None:
                arrays[f"predictions_{index}"] = result.predictions.to_numpy()
        header = {"part": [part.start, part.stop], "spaces": spaces, **self.stamp}
        if sites is not None:
            header["sites"], of_sites = packed(sites)
            arrays |= of_sites
        path = self.path(number)
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.savez(
                file, allow_pickle=False, header=np.array(json.dumps(header)), **arrays
            )
        return path

    def read(self, number: int) -> dict[str, Any] | None:
        """Give a chunk's header and arrays; None if it is absent or damaged.

        Raises
        ------
        neuromm.core.UsageError
            If it was made with other settings or from other inputs; the message names
            the file and what differs.
        """
        import numpy as np

        path = self.path(number)
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            header = json.loads(str(arrays.pop("header")))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            # Chunks are renamed into place, so a damaged one was damaged later; it is
            # computed again, which is always right.
            return None
        self._compare(header, f"{path} was made")
        return {**header, "arrays": arrays}

    def remove(self) -> None:
        """Remove the chunks and their locks, after the unit is joined."""
        shutil.rmtree(self.folder, ignore_errors=True)
        # The folder of all units stays: another unit's may be being made in it.
        locks = self.output_dir / STATE_FOLDER / "locks" / self._lock
        shutil.rmtree(locks, ignore_errors=True)

    @property
    def _lock(self) -> str:
        return f"chunks/{self.name}"

    def _compare(self, before: Mapping[str, Any], what: str) -> None:
        changed = differences("setting", before["settings"], self.stamp["settings"])
        changed += differences("input", before["inputs"], self.stamp["inputs"])
        if changed:
            raise UsageError(
                f"{what} with another configuration ({'; '.join(changed[:5])}). Use "
                "--overwrite to compute them anew, or another output folder to keep "
                "both."
            )


def stamp_of(folder: Path) -> dict[str, Any] | None:
    """Settings and inputs that the chunks in a folder share; None if there are none."""
    try:
        stamp: dict[str, Any] = json.loads((folder / "unit.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return stamp
