"""Finds atlases and kernel sources, in an installed wheel and in a checkout."""

from pathlib import Path

__all__ = ["shared_folder"]

_PACKAGE = Path(__file__).resolve().parent


def shared_folder(name: str) -> Path:
    """Folder of shared files, ``"atlases"`` or ``"cuda"``.

    Looks beside the package first (a wheel), else in the root of a checkout, which is
    recognised by its pyproject.toml.

    Raises
    ------
    FileNotFoundError
        If it is in neither place: the installation is damaged.
    """
    beside = _PACKAGE / "_shared" / name
    if beside.is_dir():
        return beside
    checkout = _PACKAGE.parent
    if (checkout / "pyproject.toml").is_file() and (checkout / name).is_dir():
        return checkout / name
    raise FileNotFoundError(
        f"the folder {name!r} that comes with neuromm is neither in {beside} nor in "
        f"{checkout}: install neuromm anew"
    )
