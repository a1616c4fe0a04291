"""Voltages and contacts of the Brain Treebank.

Voltages lie in HDF5, a data set an electrode: ``data/electrode_0`` is the first name of
``electrode_labels/sub_1/electrode_labels.json``, and so on. They are read a piece of an
electrode at a time: two and a half hours of 160 electrodes take 25 GB as floats.

References
----------
Wang C et al. (2024) Brain Treebank: large-scale intracranial recordings from
naturalistic language stimuli. arXiv:2411.08343.
"""

import functools
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuromm.core import DataError
from neuromm.core.files import read_json
from neuromm.io.content import require_content

__all__ = [
    "corrupted_electrodes",
    "electrode_names",
    "read_localization",
    "treebank_raw",
]

_TO_VOLTS = {"V": 1.0, "mV": 1e-3, "uV": 1e-6}

# Signals of depth electrodes deviate by 10 to 1000 uV; a wrong unit is off by 1000.
_LEAST_V, _MOST_V = 5e-7, 5e-2
_CHECKED_S, _CHECKED_ELECTRODES = 10.0, 9

# The atlas of the published regions first; the release names columns after atlases.
_ATLASES = ("DKT", "DesikanKillianyTourville", "DesikanKilliany")
_HEMISPHERES = {
    **{"ctx-lh": "L", "ctx_lh": "L", "left": "L", "lh": "L"},
    **{"ctx-rh": "R", "ctx_rh": "R", "right": "R", "rh": "R"},
}


def electrode_names(path: Path) -> list[str]:
    """Names in the order of the data sets, without the marks ``*``, ``#`` and ``_``.

    Raises
    ------
    InputMissingError
        If there is no such file.
    DataError
        If it is no list of names, or two names are the same without marks.
    """
    path = require_content(path)
    try:
        labels = json.loads(path.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"is not valid JSON ({error})", path) from error
    if not isinstance(labels, list) or not all(isinstance(n, str) for n in labels):
        raise DataError("expected a list of names of electrodes", path)
    names = [_bare(name) for name in labels]
    twice = sorted({name for name in names if names.count(name) > 1})
    if not names or twice:
        raise DataError(
            f"names {', '.join(twice)} more than once" if twice else "names none", path
        )
    return names


def corrupted_electrodes(path: Path, subject: str) -> list[str]:
    """Electrodes that the authors mark as corrupted; none, with a warning, if unsaid.

    Raises
    ------
    DataError
        If the file is no mapping of subjects to lists of names.
    """
    if not path.exists():
        warnings.warn(
            f"{path}: is not there, so no electrode is marked as bad. The list of "
            "corrupted electrodes comes with the code of the release",
            stacklevel=3,
        )
        return []
    names = read_json(path).get(f"sub_{subject}", [])
    if not isinstance(names, list):
        raise DataError(f"expected a list of names for sub_{subject}", path)
    return [_bare(str(name)) for name in names]


def read_localization(
    folder: Path, subject: str, names: list[str], frame: str | None
) -> pd.DataFrame:
    """Where each electrode lies, ready for `neuromm.prepare.ContactSpace`.

    Parameters
    ----------
    folder : Path
        ``localization``, with ``sub_1/depth-wm.csv`` (regions, and voxels ``L``, ``I``,
        ``P`` of the patient's own scan) and ``elec_coords_full.csv`` (``X``, ``Y``,
        ``Z`` in mm on an average brain, all patients).
    subject : str
    names : list of str
    frame : str or None
        Frame of ``X``, ``Y``, ``Z``. The files don't say which.

    Returns
    -------
    electrodes : DataFrame
        A row an electrode, in the order of ``names``: ``name``, ``x``, ``y``, ``z``
        (mm, nan where unknown), ``region`` ("" where unknown), ``hemi`` ("L", "R" or
        "", by the region) and the further columns of ``depth-wm.csv``. ``attrs`` hold
        ``frame`` and ``atlas``, the column that the regions are from.

    Warns
    -----
    UserWarning
        If there are no positions, or electrodes without a region.
    """
    path = require_content(folder / f"sub_{subject}" / "depth-wm.csv")
    table = _read_csv(path)
    atlas = next((name for name in _ATLASES if name in table), None)
    if "Electrode" not in table or atlas is None:
        raise DataError(
            f"expected the columns Electrode and one of {', '.join(_ATLASES)}, got "
            f"{', '.join(map(str, table.columns))}",
            path,
        )
    places = _by_name(table, path).reindex(names)
    regions = places[atlas].fillna("").astype(str)
    unplaced = [n for n in names if not regions[n] and not _is_trigger(n)]
    if unplaced:
        warnings.warn(
            f"{path}: {len(unplaced)} of {len(names)} electrodes have no region, such "
            f"as {', '.join(unplaced[:5])}",
            stacklevel=3,
        )
    positions = _positions(folder / "elec_coords_full.csv", subject, names)
    electrodes = pd.DataFrame({"name": names, **positions})
    electrodes["region"] = regions.to_numpy()
    electrodes["hemi"] = [_hemisphere(region) for region in regions]
    for column in places.columns.difference(electrodes.columns, sort=False):
        electrodes[column] = places[column].to_numpy()
    electrodes.attrs.update(frame=frame, atlas=atlas)
    return electrodes


def treebank_raw(
    path: Path, names: list[str], bads: list[str], sfreq: float, unit: str
) -> Any:
    """Open the voltages of a trial; nothing but a glance is read.

    Parameters
    ----------
    path : Path
        ``sub_1_trial000.h5``.
    names : list of str
        Name of ``data/electrode_0``, ``data/electrode_1``, …; data sets beyond them
        have no name and are left out, as in the code of the release.
    bads : list of str
    sfreq : float
        Hz.
    unit : {"V", "mV", "uV"}
        Unit of the file, which does not say it.

    Returns
    -------
    raw : mne.io.BaseRaw
        V, not preloaded, type ``seeg``; ``DC…`` and ``TRIG…`` are ``misc``.
        ``info["line_freq"]`` is 60 Hz: Boston.

    Raises
    ------
    InputMissingError
        If there is no such file.
    DataError
        If it is damaged, lacks an electrode, electrodes differ in length, or the
        voltages fit no electrode in that unit.
    """
    import mne

    path = require_content(path)
    keys = [f"electrode_{number}" for number in range(len(names))]
    n_times = _checked_length(path, keys)
    kinds = ["misc" if _is_trigger(name) else "seeg" for name in names]
    info = mne.create_info(names, sfreq, kinds)
    scale = _TO_VOLTS[unit]
    with info._unlock():
        info["line_freq"] = 60.0
    for channel in info["chs"]:
        channel["cal"] = scale
    info["bads"] = [name for name in names if name in set(bads)]
    recorded = [key for key, kind in zip(keys, kinds, strict=True) if kind == "seeg"]
    _check_unit(path, recorded, n_times, sfreq, unit)
    return _raw_class()(info, path, keys, n_times)


@functools.cache
def _raw_class() -> Any:
    """The reader, made when MNE is wanted: importing this module stays cheap."""
    import h5py
    from mne.io import BaseRaw

    class TreebankRaw(BaseRaw):  # type: ignore[misc]
        """Electrodes of one HDF5 file, read a piece at a time."""

        def __init__(
            self, info: Any, path: Path, keys: list[str], n_times: int
        ) -> None:
            super().__init__(
                info,
                last_samps=[n_times - 1],
                filenames=[path],
                raw_extras=[{"keys": keys}],
                verbose="ERROR",
            )

        def _read_segment_file(
            self, data: Any, idx: Any, fi: int, start: int, stop: int,
            cals: Any, mult: Any,
        ) -> None:  # fmt: skip
            keys = self._raw_extras[fi]["keys"]
            rows = np.arange(len(keys))[idx]
            wanted = data if mult is None else np.empty((len(rows), stop - start))
            try:
                with h5py.File(self.filenames[fi], "r") as file:
                    for row, values in zip(rows, wanted, strict=True):
                        values[:] = file["data"][keys[row]][start:stop]
            except (OSError, KeyError) as error:
                raise DataError(
                    f"cannot be read ({error}): copy it again from the archive",
                    self.filenames[fi],
                ) from error
            if mult is None:
                data *= cals
            else:
                data[:] = mult @ wanted

    return TreebankRaw


def _checked_length(path: Path, keys: list[str]) -> int:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            data = file.get("data")
            if not isinstance(data, h5py.Group):
                raise DataError("has no group 'data' with an electrode each", path)
            missing = [
                key for key in keys if not isinstance(data.get(key), h5py.Dataset)
            ]
            if missing:
                raise DataError(
                    f"{len(keys)} electrodes have a name and {len(missing)} of them no "
                    f"data, such as data/{missing[0]}: are the names of this subject?",
                    path,
                )
            shapes = {data[key].shape for key in keys}
            kinds = {data[key].dtype.kind for key in keys}
    except OSError as error:
        raise DataError(
            f"is no whole HDF5 file ({error}). Unpack the archive again", path
        ) from error
    if len(shapes) > 1 or len(next(iter(shapes))) != 1 or kinds - set("fiu"):
        raise DataError(
            "expected one row of numbers an electrode, all of one length, got the "
            f"shapes {sorted(shapes)[:4]}",
            path,
        )
    return int(next(iter(shapes))[0])


def _check_unit(
    path: Path, keys: list[str], n_times: int, sfreq: float, unit: str
) -> None:
    import h5py

    length = min(n_times, round(_CHECKED_S * sfreq))
    start = (n_times - length) // 2
    step = max(1, len(keys) // _CHECKED_ELECTRODES)
    deviations = []
    with h5py.File(path, "r") as file:
        for key in keys[::step]:
            piece = np.asarray(file["data"][key][start : start + length], dtype=float)
            deviations.append(float(np.std(piece)))
    moving = np.array([value for value in deviations if value > 0])
    typical = float(np.median(moving)) * _TO_VOLTS[unit] if len(moving) else np.nan
    if len(moving) and not _LEAST_V <= typical <= _MOST_V:
        raise DataError(
            f"voltages deviate by {typical:.3g} V if the file is in {unit}, which no "
            "electrode in the brain does. The file does not state its unit: give "
            "unit='V', 'mV' or 'uV'",
            path,
        )


def _read_csv(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as e:
        raise DataError(f"is no table separated by commas ({e})", path) from e


def _by_name(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    named = table.assign(Electrode=table["Electrode"].astype(str).map(_bare))
    if named["Electrode"].duplicated().any():
        twice = named["Electrode"][named["Electrode"].duplicated()].iloc[0]
        raise DataError(f"electrode {twice!r} has more than one row", path)
    unnamed = [c for c in named.columns if str(c).startswith("Unnamed")]
    return named.drop(columns=unnamed).set_index("Electrode")


def _positions(
    path: Path, subject: str, names: list[str]
) -> dict[str, NDArray[np.float64]]:
    if not path.exists():
        warnings.warn(f"{path}: is not there, so electrodes have no positions in mm",
                      stacklevel=4)  # fmt: skip
        return {axis: np.full(len(names), np.nan) for axis in "xyz"}
    table = _read_csv(path)
    if "Subject" not in table and "ID" in table:  # "sub_1-F3a1" in one column
        split = table["ID"].astype(str).str.split("-", n=1, expand=True)
        table = table.assign(Subject=split[0], Electrode=split[1])
    lacking = {"Subject", "Electrode", "X", "Y", "Z"} - set(table.columns)
    if lacking:
        raise DataError(f"has no column {', '.join(sorted(lacking))}", path)
    own = table[table["Subject"].astype(str) == f"sub_{subject}"]
    places = _by_name(own, path)[["X", "Y", "Z"]].reindex(names)
    numbers = places.apply(pd.to_numeric, errors="coerce").to_numpy(dtype=float)
    return dict(zip("xyz", numbers.T, strict=True))


def _hemisphere(region: str) -> str:
    lower = region.lower()
    return next((h for p, h in _HEMISPHERES.items() if lower.startswith(p)), "")


def _bare(label: str) -> str:
    return label.translate(str.maketrans("", "", "*#_")).strip()


def _is_trigger(name: str) -> bool:
    return name.upper().startswith(("DC", "TRIG"))
