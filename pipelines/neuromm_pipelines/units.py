"""Units of work that finish once: markers, locks and the reasons to run again.

A unit is one subject, session, task and space. When its files lie in the output, a
marker records the settings, the inputs and the digest of every file. A restarted run
skips a unit whose marker still holds, and refuses one whose settings or inputs changed.
"""

import fcntl
import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from neuromm.core.errors import OutputError, ResourceLimitError, UsageError
from neuromm.core.files import file_digest, write_json

__all__ = ["STATE_FOLDER", "UnitState", "differences", "locked"]

STATE_FOLDER = ".neuromm"


class UnitState:
    """What is known of one unit in an output folder.

    Parameters
    ----------
    output_dir : Path
        Root of the derivative dataset.
    name : str
        Name of the unit, fit for a file name.
    settings : mapping
        Everything that can change a number of the unit, as JSON.
    inputs : mapping of str to str
        Input file (relative to its dataset) to size and time of change.
    """

    def __init__(
        self,
        output_dir: Path,
        name: str,
        settings: Mapping[str, Any],
        inputs: Mapping[str, str],
    ) -> None:
        self.output_dir = output_dir
        self.name = name
        self.settings = json.loads(json.dumps(settings, default=str))
        self.inputs = dict(inputs)
        self._marker = output_dir / STATE_FOLDER / "units" / f"{name}.json"

    def is_done(self) -> bool:
        """Tell whether every file of the unit is there, made with these settings.

        Raises
        ------
        UsageError
            If the unit was made with other settings or from other inputs; the message
            names what differs.
        """
        marker = self._read_marker()
        if marker is None:
            return False
        changed = differences("setting", marker["settings"], self.settings)
        changed += differences("input", marker["inputs"], self.inputs)
        if changed:
            raise UsageError(
                f"{self.name} lies in {self.output_dir} with another configuration "
                f"({'; '.join(changed[:5])}). Use --overwrite to compute it anew, or "
                "another output folder to keep both."
            )
        return all(
            (self.output_dir / path).is_file()
            and file_digest(self.output_dir / path) == digest
            for path, digest in marker["outputs"].items()
        )

    def finish(self, outputs: Sequence[Path]) -> None:
        """Record the unit as done; call when all ``outputs`` lie in their places."""
        digests = {
            str(path.relative_to(self.output_dir)): file_digest(path)
            for path in sorted(outputs)
        }
        write_json(
            self._marker,
            {"settings": self.settings, "inputs": self.inputs, "outputs": digests},
        )

    def forget(self) -> None:
        """Remove the marker and the files that it names, before computing anew."""
        marker = self._read_marker()
        if marker is None:
            return
        self._marker.unlink()
        for path in marker["outputs"]:
            (self.output_dir / path).unlink(missing_ok=True)

    def _read_marker(self) -> dict[str, Any] | None:
        try:
            marker: dict[str, Any] = json.loads(self._marker.read_text())
        except FileNotFoundError:
            return None
        except json.JSONDecodeError:
            # Markers are renamed into place, so a damaged one was edited by hand; the
            # unit is computed again, which is always right.
            return None
        return marker


@contextmanager
def locked(output_dir: Path, name: str, *, wait: bool = False) -> Iterator[None]:
    """Hold a name in an output folder, so that two runs never write the same files.

    The lock is the operating system's and ends with the process, however it ends.

    Parameters
    ----------
    wait : bool
        Wait for the other run instead of refusing: for files that are written quickly.

    Raises
    ------
    ResourceLimitError
        If another run holds it and ``wait`` is False.
    OutputError
        If the folder cannot be written.
    """
    path = output_dir / STATE_FOLDER / "locks" / f"{name}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+")  # noqa: SIM115, closed below
    except OSError as error:
        raise OutputError(
            f"cannot write to {output_dir}: {error.strerror}. Choose a folder that you "
            "may write to."
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise ResourceLimitError(
                f"{name} in {output_dir} is being written by {holder}. Wait for it to "
                "end, or choose another output folder."
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def differences(
    kind: str, before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = ""
) -> list[str]:
    """One phrase for each value that differs, nested mappings by dotted names."""
    changed = []
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        label = f"{prefix}{name}"
        if isinstance(old, dict) and isinstance(new, dict):
            changed += differences(kind, old, new, f"{label}.")
        elif old != new and kind == "input":
            changed.append(f"input {label} {_fate(old, new)}")
        elif old != new:
            changed.append(f"{kind} {label} was {old!r}, now {new!r}")
    return changed


def _fate(old: Any, new: Any) -> str:
    if old is None:
        return "was added"
    return "was removed" if new is None else "was changed"
