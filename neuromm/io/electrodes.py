"""Positions of electrodes, with the unit and the frame that BIDS gives them.

A table of positions says neither; ``coordsystem.json`` does. Millimetres taken for
metres, and a patient's own frame taken for MNI, are the two errors that users of
intracranial data report most, so both are checked here.

References
----------
Holdgraf et al. (2019) iEEG-BIDS. Sci. Data 6:102.
BIDS 1.11, appendix "Coordinate systems".
"""

import difflib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuromm.core import DataError
from neuromm.core.files import read_json
from neuromm.io.bids_name import parse_name
from neuromm.io.content import require_content
from neuromm.io.inheritance import applicable, most_specific
from neuromm.io.recording_checks import dataset_root

__all__ = ["CoordinateSystem", "read_coordsystem", "read_electrodes"]

_TO_MM = {"m": 1000.0, "cm": 10.0, "mm": 1.0}

# No contact lies farther from the usual origins (commissure, centre of the magnet, of
# the head) than this, and no set of contacts closer to it than the lower limit.
_FARTHEST_MM, _NEAREST_MM = 250.0, 2.0

# BIDS 1.11: template spaces, and the frames of EEG, MEG and iEEG.
_FRAMES = (
    *("ICBM452AirSpace", "ICBM452Warp5Space", "IXI549Space", "MNIColin27"),
    *("MNI152Lin", "MNI152NLin6Sym", "MNI152NLin6ASym", "MNI305"),
    *(f"MNI152NLin2009{v}{s}" for v in "abc" for s in ("Sym", "Asym")),
    *("fsaverage", "fsaverageSym", "fsLR", "NIHPD", "OASIS30AntsOASISAnts"),
    *("OASIS30Atropos", "Talairach", "UNCInfant"),
    *("ACPC", "ScanRAS", "CapTrak", "EEGLAB", "EEGLAB-HJ"),
    *("CTF", "ElektaNeuromag", "4DBti", "KitYokogawa", "ChietiItab"),
)
_ALIASES = {frame.lower(): frame for frame in _FRAMES} | {
    "mni152nlin6": "MNI152NLin6ASym",
    **{f"fsaverage{order}": "fsaverage" for order in "3456"},
}
_UNPLACED = {"", "other", "n/a", "pixels"}


@dataclass(frozen=True, kw_only=True)
class CoordinateSystem:
    """In what unit and frame positions are given.

    Attributes
    ----------
    frame : str or None
        BIDS name such as ``"MNI152NLin2009aSym"`` or ``"ACPC"``; None where the file
        says ``Other``, ``Pixels`` or a name that BIDS does not know, so that the
        positions have no place in a template.
    units : {"m", "cm", "mm", "pixels"} or None
        None where the file says ``n/a``.
    declared : str
        Frame as the file writes it.
    source : Path
    """

    frame: str | None
    units: str | None
    declared: str
    source: Path


def read_coordsystem(path: str | Path) -> CoordinateSystem:
    """Read a ``*_coordsystem.json`` of iEEG, EEG or MEG.

    Raises
    ------
    InputMissingError
        If there is no such file.
    DataError
        If the unit is missing or unknown.
    """
    path = require_content(path)
    content = read_json(path)
    prefix = next(
        (
            p
            for p in ("iEEG", "EEG", "MEG")
            if f"{p}CoordinateSystem" in content or f"{p}CoordinateUnits" in content
        ),
        "iEEG",
    )
    key = f"{prefix}CoordinateUnits"
    declared = str(content.get(f"{prefix}CoordinateSystem", ""))
    return CoordinateSystem(
        frame=_known_frame(declared, path),
        units=_known_units(content.get(key), key, path),
        declared=declared,
        source=path,
    )


def read_electrodes(
    path: str | Path, coordsystem: str | Path | None = None
) -> pd.DataFrame:
    """Read a ``*_electrodes.tsv`` into millimetres.

    Parameters
    ----------
    path : path-like
    coordsystem : path-like, optional
        Its ``*_coordsystem.json``; looked for beside the table, by the inheritance of
        BIDS, if not given.

    Returns
    -------
    electrodes : DataFrame
        ``name`` (str, unique), ``x``, ``y``, ``z`` (float, mm; nan where the table
        says n/a, or where positions are pixels of a picture), and ``group`` (str) if
        the table has it. ``attrs`` hold ``frame`` (str or None, see
        `CoordinateSystem`) and ``source_units``.

    Raises
    ------
    InputMissingError
        If there is no such table.
    DataError
        If columns are missing, a name occurs twice, the unit is not given, or the
        positions do not fit a head in that unit.
    """
    path = Path(path)
    table = _electrode_table(path)
    system = _coordinate_system(path, coordsystem)
    positions = _positions(table, path)
    if system.units == "pixels":
        _warn(path, "positions are pixels of a picture; they have no place in mm")
        positions = np.full_like(positions, np.nan)
    elif system.units is None:
        raise DataError(
            f"the unit of its positions is n/a in {system.source.name}; write m, cm or "
            "mm there",
            path,
        )
    else:
        positions = _in_millimetres(positions, system, path)
    _warn_of_gaps(positions, path)
    electrodes = pd.DataFrame({"name": table["name"].astype(str)})
    electrodes[["x", "y", "z"]] = positions
    if "group" in table:
        electrodes["group"] = table["group"].astype(str)
    electrodes.attrs = {"frame": system.frame, "source_units": system.units}
    return electrodes


def _electrode_table(path: Path) -> pd.DataFrame:
    require_content(path)
    try:
        table = pd.read_csv(
            path, sep="\t", dtype=str, keep_default_na=False, encoding="utf-8-sig"
        )
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"is no table with tabs between columns ({error})", path) from (
            error
        )
    lacking = [name for name in ("name", "x", "y", "z") if name not in table]
    if lacking:
        raise DataError(
            f"expected the columns name, x, y, z, got {', '.join(table.columns)} "
            f"(missing: {', '.join(lacking)}). Are the columns separated by tabs?",
            path,
        )
    twice = table["name"][table["name"].duplicated()].unique()
    if len(twice):
        raise DataError(
            f"{len(twice)} names occur more than once, such as {', '.join(twice[:5])}. "
            "A channel must find one position",
            path,
        )
    return table


def _coordinate_system(path: Path, coordsystem: str | Path | None) -> CoordinateSystem:
    found = coordsystem or _inherited_coordsystem(path)
    if found is None:
        raise DataError(
            "no coordsystem.json goes with it, so the unit and the frame of its "
            f"positions are unknown. Write {path.name.removesuffix('electrodes.tsv')}"
            'coordsystem.json beside it, such as {"iEEGCoordinateSystem": "ACPC", '
            '"iEEGCoordinateUnits": "mm"}, or name the file that there is',
            path,
        )
    system = read_coordsystem(found)
    name = parse_name(path.name)
    space = "" if name is None else name.entities.get("space", "")
    named = _ALIASES.get(space.lower())
    if named and system.frame and named != system.frame:
        raise DataError(
            f"its name says space-{space}, but {system.source} says {system.declared}. "
            "Which of the two is the frame of the positions?",
            path,
        )
    if space and named is None and system.frame:
        _warn(
            path, f"space-{space} names no frame; taken is {system.frame} of its JSON"
        )
    if named and system.frame is None and system.declared.lower() in {"", "n/a"}:
        return CoordinateSystem(
            frame=named,
            units=system.units,
            declared=space,
            source=system.source,
        )
    return system


def _inherited_coordsystem(path: Path) -> Path | None:
    """The file of the same space; one of another space may have other units."""
    path = path.absolute()
    root = dataset_root(path) or path.parent
    file = parse_name(path.relative_to(root), root, strict=False)
    if file is None:
        return None
    folders = [path.parent, *path.parent.parents]
    candidates = [
        parse_name(candidate.relative_to(root), root, strict=False)
        for folder in folders[: len(file.folder) + 1]
        for candidate in folder.glob("*coordsystem.json")
    ]
    same_space = [
        candidate
        for candidate in candidates
        if candidate is not None
        and candidate.suffix == "coordsystem"
        and candidate.entities.get("space") == file.entities.get("space")
    ]
    best = most_specific(applicable(same_space, file.folder, file.entities))
    return None if best is None else best.path


def _known_frame(declared: str, path: Path) -> str | None:
    if declared.lower() in _UNPLACED:
        return None
    if declared.lower() in _ALIASES:
        return _ALIASES[declared.lower()]
    close = difflib.get_close_matches(declared.lower(), _ALIASES, n=3, cutoff=0.5)
    hint = f" Was {' or '.join(_ALIASES[c] for c in close)} meant?" if close else ""
    _warn(
        path,
        f"the frame {declared!r} is none of BIDS, so the positions have no place in a "
        f"template or atlas.{hint}",
    )
    return None


def _known_units(units: Any, key: str, path: Path) -> str | None:
    if units in {*_TO_MM, "pixels"}:
        return str(units)
    if units == "n/a":
        return None
    came = "nothing" if units is None else repr(units)
    raise DataError(
        f"expected {key} to be m, cm, mm or pixels, got {came}. Write the unit of the "
        "positions there",
        path,
    )


def _positions(table: pd.DataFrame, path: Path) -> NDArray[np.float64]:
    columns = table[["x", "y", "z"]].replace({"n/a": "nan", "": "nan"})
    try:
        positions = columns.astype(float).to_numpy()
    except ValueError as error:
        raise DataError(
            f"positions must be numbers or n/a ({error}). Is the decimal sign a point?",
            path,
        ) from error
    positions[np.isinf(positions)] = np.nan
    return np.asarray(positions, dtype=float)


def _in_millimetres(
    positions: NDArray[np.float64], system: CoordinateSystem, path: Path
) -> NDArray[np.float64]:
    """Convert, unless the result is no head while another unit would make it one."""
    located = positions[np.isfinite(positions).all(axis=1)]
    farthest = float(np.abs(located).max()) if len(located) else float("nan")
    factor = _TO_MM[str(system.units)]
    if not len(located) or _NEAREST_MM <= farthest * factor <= _FARTHEST_MM:
        return positions * factor
    fitting = [u for u, f in _TO_MM.items() if 10 <= farthest * f <= _FARTHEST_MM]
    # Of two units that fit, the one that comes nearest to the radius of a head.
    fitting.sort(key=lambda unit: abs(np.log(farthest * _TO_MM[unit] / 80)))
    likely = (
        f"They look like {fitting[0]}: correct the unit in {system.source.name}"
        if fitting
        else "Are they pixels or voxels?"
    )
    raise DataError(
        f"positions reach {farthest:g} {system.units} from the origin according to "
        f"{system.source}: that is {farthest * factor:g} mm and fits no head. {likely}",
        path,
    )


def _warn_of_gaps(positions: NDArray[np.float64], path: Path) -> None:
    known = np.asarray(np.isfinite(positions).all(axis=1))
    if not known.all() and known.any():
        _warn(
            path,
            f"{int((~known).sum())} of {len(known)} electrodes have no position; they "
            "are kept and left out of maps",
        )
    located = np.compress(known, positions, axis=0)
    shared = len(located) - len(np.unique(located, axis=0))
    if shared:
        _warn(path, f"{shared} electrodes have the position of another one")


def _warn(path: Path, message: str) -> None:
    warnings.warn(f"{path}: {message}", UserWarning, stacklevel=4)
