"""Files whose name is there and whose bytes are not: git-annex and DataLad.

A DataLad dataset is cloned without its large files. Locked files are then symbolic
links that lead nowhere, unlocked ones are short texts that name an annex object.
"""

from pathlib import Path

from neuromm.core import InputMissingError

__all__ = ["require_content"]

_ANNEX_POINTER = b"/annex/objects/"
_LONGEST_POINTER = 32_768  # bytes; git-annex writes no longer pointer


def require_content(path: str | Path) -> Path:
    """Return the path of a file, or of a folder, that can be read.

    Raises
    ------
    InputMissingError
        If it is not there, or is a git-annex link or pointer without content; the
        message gives the command that fetches it.
    """
    path = Path(path)
    if not path.exists():
        if not path.is_symlink():
            raise InputMissingError(f"{path}: no such file")
        raise InputMissingError(
            f"{path}: is a link to a file that is not there ({path.readlink()}). In a "
            f"DataLad dataset its content is fetched with: datalad get {path}"
        )
    if path.is_file() and _is_annex_pointer(path):
        raise InputMissingError(
            f"{path}: holds a git-annex pointer instead of data. Fetch the content "
            f"with: datalad get {path}"
        )
    return path


def _is_annex_pointer(path: Path) -> bool:
    if path.stat().st_size > _LONGEST_POINTER:
        return False
    with open(path, "rb") as file:
        return file.read(len(_ANNEX_POINTER)) == _ANNEX_POINTER
