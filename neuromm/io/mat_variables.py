"""Variables of a MATLAB 5 file, by name.

Read by `scipy.io.loadmat` alone, after a walk over the elements of the file
(`neuromm.io.mat_files`): a damaged file would otherwise end the whole process.
"""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuromm.core import DataError
from neuromm.io.content import require_content
from neuromm.io.mat_files import check_mat_file

__all__ = ["cell", "read_variables", "texts"]

_LISTED = 12  # names in a message


def read_variables(
    path: str | Path, names: Sequence[str], optional: Sequence[str] = ()
) -> dict[str, Any]:
    """Read some variables of a file.

    Parameters
    ----------
    path : path-like
    names : sequence of str
        Variables that must be there.
    optional : sequence of str
        Variables to read where they are there.

    Returns
    -------
    variables : dict of str to array
        Two-dimensional at least, as MATLAB has them; structures and cells as arrays of
        objects.

    Raises
    ------
    InputMissingError
        If there is no such file.
    DataError
        If it is damaged, of another format, or lacks a variable; the message lists
        what there is.
    """
    from scipy.io import loadmat, whosmat
    from scipy.io.matlab import MatReadError

    path = require_content(path)
    try:
        check_mat_file(path)
    except DataError as error:
        # The cure that it names is for recordings saved by EEGLAB.
        raise DataError(
            "is a damaged MATLAB file: copy it again from the archive", path
        ) from error
    try:
        there = [name for name, _, _ in whosmat(path)]
        missing = [name for name in names if name not in there]
        if missing:
            raise DataError(
                f"has no variable {', '.join(missing)} (found: "
                f"{', '.join(there[:_LISTED]) or 'none'})",
                path,
            )
        wanted = [*names, *(name for name in optional if name in there)]
        found = loadmat(path, variable_names=wanted)
    except NotImplementedError as error:
        raise DataError(
            "is a MATLAB file of version 7.3; the release has version 5. Save it with "
            "-v7",
            path,
        ) from error
    except DataError:
        raise
    except (MatReadError, zlib.error, ValueError, TypeError, OSError) as error:
        raise DataError(f"is no MATLAB file of version 5 ({error})", path) from error
    return {name: found[name] for name in wanted}


def cell(value: Any) -> list[Any]:
    """Elements of a cell array, column by column."""
    return list(np.asarray(value).ravel(order="F"))


def texts(value: Any) -> list[str]:
    """Texts of a cell array of texts."""
    words = []
    for element in cell(value):
        inner = np.asarray(element).ravel()
        words.append(str(inner[0]) if inner.size else "")
    return words
