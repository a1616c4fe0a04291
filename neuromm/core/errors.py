"""Errors that say what was expected, what came, and how to mend it.

Each error carries the exit code with which a command ends (sysexits of BSD), so that
a script on a cluster can tell bad data from a full disk.
"""

from pathlib import Path

__all__ = [
    "DataError",
    "InputMissingError",
    "NeurommError",
    "OutputError",
    "ResourceLimitError",
    "UsageError",
]


class NeurommError(Exception):
    """An error whose message is meant for the user; ends a command with 70."""

    exit_code = 70


class UsageError(NeurommError, ValueError):
    """The command line or an argument asks for something that does not exist (2)."""

    exit_code = 2


class DataError(NeurommError, ValueError):
    """A file is damaged or contradicts another one (65).

    Parameters
    ----------
    message : str
        What was expected, what came, and the likely cure.
    path : path-like, optional
        The file at fault; it opens the message.
    """

    exit_code = 65

    def __init__(self, message: str, path: str | Path | None = None) -> None:
        self.path = None if path is None else Path(path)
        super().__init__(message if path is None else f"{path}: {message}")


class InputMissingError(NeurommError, FileNotFoundError):
    """A file or a recording that was named is not there (66)."""

    exit_code = 66


class OutputError(NeurommError, OSError):
    """The output cannot be written (73)."""

    exit_code = 73


class ResourceLimitError(NeurommError, MemoryError):
    """A memory limit, a lock or a signal stopped the work; safe to try again (75)."""

    exit_code = 75
