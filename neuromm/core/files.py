"""Files that appear whole or not at all.

A file is written beside its place under a temporary name, flushed to the disk and
renamed. The temporary name says which process on which machine writes it, so that
`remove_leftovers` can tell the files of a killed process from those of one at work.
"""

import contextlib
import hashlib
import json
import os
import re
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from neuromm.core.errors import OutputError

__all__ = [
    "atomic_path",
    "file_digest",
    "read_json",
    "remove_leftovers",
    "write_json",
    "write_text",
]

_WRITER = re.compile(r"\.tmp-(?P<machine>[0-9a-f]{8})-(?P<process>\d+)-[0-9a-f]{8}")
_A_DAY_S = 24 * 3600


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary name beside ``path``; rename it when the block ends well.

    The temporary name keeps the suffix of ``path`` (``.nii.gz``, ``.tsv``), by which
    many writers choose the format.

    Parameters
    ----------
    path : path-like
        Where the finished file will lie. Missing folders are made.

    Yields
    ------
    temporary : Path
        Where to write.

    Raises
    ------
    OutputError
        If the folder cannot be made or the file cannot be written (a full disk, a
        read-only folder); nothing is left behind.
    """
    path = Path(path)
    stem, dot, suffixes = path.name.partition(".")
    writer = f"{_machine()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    temporary = path.with_name(f"{stem}.tmp-{writer}{dot}{suffixes}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        # Only a failure to write is ours to explain: a reader inside the block that
        # misses its input names another file.
        ours = error.filename is None or str(temporary) in str(error.filename)
        if ours or error.filename == str(path.parent):
            raise OutputError(
                f"cannot write {path}: {error.strerror or error}. Is the disk full, or "
                "the folder read-only? Finished files are kept; run again to go on."
            ) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: str | Path) -> list[Path]:
    """Delete the temporary files that killed processes left below ``folder``.

    A file whose writer still runs on this machine is kept; so is one written by another
    machine, whose processes cannot be seen, until it is a day old.

    Returns
    -------
    removed : list of Path
        The files that were deleted.
    """
    leftovers = [
        path
        for path in Path(folder).rglob("*.tmp-*")
        if path.is_file() and _is_abandoned(path)
    ]
    for path in leftovers:
        path.unlink(missing_ok=True)
    return leftovers


def write_text(path: str | Path, text: str) -> Path:
    """Write UTF-8 text atomically and return its path."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def write_json(path: str | Path, content: Mapping[str, Any]) -> Path:
    """Write a JSON object atomically, two spaces deep, keys as given."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    return write_text(path, text + "\n")


def read_json(path: str | Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises
    ------
    neuromm.core.DataError
        If the file is no JSON object; the message gives line and column.
    """
    from neuromm.core.errors import DataError

    try:
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"is not valid JSON ({error})", path) from error
    if not isinstance(content, dict):
        raise DataError(f"expected a JSON object, got a {type(content).__name__}", path)
    return content


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _machine() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _is_abandoned(path: Path) -> bool:
    match = _WRITER.search(path.name)
    if match is None:
        return False
    if match["machine"] != _machine():
        return time.time() - path.stat().st_mtime > _A_DAY_S
    try:
        os.kill(int(match["process"]), 0)  # asks whether it lives, sends nothing
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
