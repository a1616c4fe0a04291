"""Recordings that MNE reads: opened, checked, and joined with their BIDS sidecars.

MNE chooses its reader by the extension, mne-bids adds what the sidecars of a BIDS data
set say. Around them stands what both pass over: whether the file is whole
(`neuromm.io.recording_checks`), whether every unit is known, and whether
the channels that a modality needs are there.

References
----------
Gramfort et al. (2013) MNE-Python. Front. Neurosci. 7:267.
Appelhoff et al. (2019) MNE-BIDS. J. Open Source Softw. 4:1896.
"""

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from neuromm.core import DataError, Sample
from neuromm.io.bids_name import BidsFile, parse_name
from neuromm.io.companions import companions_of, metadata_of
from neuromm.io.content import require_content
from neuromm.io.electrodes import read_coordsystem, read_electrodes
from neuromm.io.layout import AncpLayout
from neuromm.io.recording_checks import (
    HeaderUnit,
    check_recording,
    check_samples,
    dataset_root,
)

__all__ = ["load_recording", "read_channels"]

# Channel types of BIDS to those of MNE. MEG channels are told apart by their coils,
# which the file knows better than the table.
_TYPES = {
    **{"EEG": "eeg", "SEEG": "seeg", "ECOG": "ecog", "DBS": "dbs", "REF": "eeg"},
    **{"EOG": "eog", "VEOG": "eog", "HEOG": "eog", "ECG": "ecg", "EMG": "emg"},
    **{"TRIG": "stim", "RESP": "resp", "TEMP": "temperature", "GSR": "gsr"},
    **{"PUPIL": "pupil", "EYEGAZE": "eyegaze", "MISC": "misc", "AUDIO": "misc"},
}
_KEPT = ("MEG", "HLU", "FITERR")  # beginnings of types that are left to the file
_ELECTRIC = {"eeg", "seeg", "ecog", "dbs", "eog", "ecg", "emg"}

_VOLTS = {
    **{"V": "V", "mV": "mV", "µV": "uV", "\u03bcV": "uV", "uV": "uV", "nV": "nV"},
    **{"v": "V", "volt": "V", "volts": "V", "uv": "uV", "microv": "uV"},
    **{"microvolt": "uV", "microvolts": "uV", "millivolt": "mV", "millivolts": "mV"},
}
_OTHER_UNITS = {
    *("n/a", "%", "°c", "c", "degc", "oc", "k", "s", "ms", "us", "µs", "hz", "n", "g"),
    *("ohm", "kohm", "mohm", "bpm", "mmhg", "cmh2o", "pa", "kpa", "l/min", "a", "ma"),
    *("aru", "a.u.", "arbitrary", "boolean", "m/s2", "m/s^2", "rad", "deg", "px"),
    *("pixel", "rad/s", "deg/s", "lux", "mm", "cm", "m", "m/s"),
}
_HEAD_FRAMES = {"CapTrak", "ElektaNeuromag", "ChietiItab"}  # as MNE's head frame
_MAGNETIC = {"T", "mT", "uT", "nT", "pT", "fT", "T/m", "fT/cm", "fT/m", "pT/m", "n/a"}

# What MNE and mne-bids warn of that bears on the samples; the rest (columns of
# participants.tsv, file naming) does not.
_TELLING = re.compile(
    r"truncat|corrupt|damaged|number of records|shielding|maxshield|discontinu|"
    r"physical dimension|out(side|ward).*data range|expanding outside",
    re.IGNORECASE,
)


def load_recording(
    path: str | Path,
    *,
    modality: str,
    needed: Sequence[str],
    extensions: Sequence[str],
    entities: Mapping[str, str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    companions: Mapping[str, Path] | None = None,
) -> Sample:
    """Open a recording as an `mne.io.Raw` in SI units, its samples still on disk.

    Parameters
    ----------
    path : path-like
    modality : str
        Goes to ``Sample.modality``.
    needed : sequence of str
        MNE channel types of which one channel at least must be there.
    extensions : sequence of str
        Ends of names that the modality reads.
    entities, metadata, companions : mapping, optional
        As in `Sample`; looked for by name and beside the file where not given.

    Returns
    -------
    sample : Sample

    Raises
    ------
    InputMissingError
        If the file, or one that its header names, is not there.
    DataError
        If it is damaged, of another format, has a channel of unknown unit, contradicts
        a sidecar, or has no channel of the types needed.
    """
    path = Path(path)
    _require_file(path, extensions)
    root = dataset_root(path)
    folder = root or path.parent
    file = None
    if root is not None:
        file = parse_name(path.absolute().relative_to(root), root, strict=False)
    found_files, found_values = _sidecars(file, root, companions, metadata)
    companions = found_files if companions is None else dict(companions)
    metadata = found_values if metadata is None else dict(metadata)
    if entities is None:
        entities = {} if file is None else file.entities
    units = check_recording(path, folder)
    channels = companions.get("channels")
    table = None if channels is None else read_channels(channels)
    raw = _open(path, root, _blank_units(path, units, table))
    check_samples(raw, path, folder)
    _check_units(raw, units, table, path)
    if table is not None and channels is not None:
        _apply_channels(raw, table, path, channels)
    _apply_metadata(raw, metadata, path)
    _settle_positions(raw, companions, path)
    _require_types(raw, needed, modality, path)
    return Sample(
        data=raw,
        modality=modality,
        entities=dict(entities),
        source=path,
        metadata=metadata,
        companions=companions,
    )


def read_channels(path: str | Path) -> pd.DataFrame:
    """Read a ``*_channels.tsv``.

    Returns
    -------
    channels : DataFrame of str
        Index ``name`` (unique); ``type`` in upper case, ``units`` and ``status``, ""
        where the table has no such column.

    Raises
    ------
    InputMissingError
        If there is no such table.
    DataError
        If it has no column ``name`` or ``type``, names a channel twice, or gives a
        channel of EEG, iEEG or MEG an unknown unit.
    """
    path = require_content(path)
    try:
        table = pd.read_csv(
            path, sep="\t", dtype=str, keep_default_na=False, encoding="utf-8-sig"
        )
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"is no table with tabs between columns ({error})", path) from (
            error
        )
    if "name" not in table or "type" not in table:
        raise DataError(
            f"expected the columns name and type, got {', '.join(table.columns)}. Are "
            "the columns separated by tabs?",
            path,
        )
    twice = table["name"][table["name"].duplicated()].unique()
    if len(twice):
        raise DataError(f"names channels twice: {', '.join(twice[:5])}", path)
    for column in ("units", "status"):
        if column not in table:
            table[column] = ""
    table = table.set_index("name")[["type", "units", "status"]]
    table["type"] = table["type"].str.upper()
    unknown = [
        f"{name} ({row['units']!r})"
        for name, row in table.iterrows()
        if not _fits(row["type"], row["units"])
    ]
    if unknown:
        raise DataError(
            f"unknown unit of {_listed(unknown)}. Expected V, mV, uV or nV for "
            "electric and T, fT or T/m for magnetic channels",
            path,
        )
    return table


def _fits(channel_type: str, unit: str) -> bool:
    if unit in {"", "n/a"}:
        return True
    if channel_type.startswith("MEG"):
        return unit in _MAGNETIC or _TYPES.get(channel_type) is None
    return _TYPES.get(channel_type) not in _ELECTRIC or _volts(unit) is not None


def _volts(unit: str) -> str | None:
    # Symbols are not folded to lower case: mV and MV differ by nine orders.
    return _VOLTS.get(unit if len(unit) < 3 else unit.lower())


def _require_file(path: Path, extensions: Sequence[str]) -> None:
    require_content(path)
    name = path.name.lower()
    if name.endswith(".nwb"):
        raise DataError("MNE does not read NWB; convert it to BrainVision or EDF", path)
    if not name.endswith(tuple(extensions)):
        cure = (
            "; open the .vhdr of the recording"
            if name.endswith((".vmrk", ".amrk"))
            else ""
        )
        raise DataError(
            f"expected one of the formats {', '.join(extensions)}{cure}", path
        )
    if name.endswith(".eeg") and path.with_suffix(".vhdr").exists():
        raise DataError(
            f"holds the samples of a BrainVision recording; open its header "
            f"{path.with_suffix('.vhdr').name}",
            path,
        )


def _sidecars(
    file: BidsFile | None,
    root: Path | None,
    companions: Mapping[str, Path] | None,
    metadata: Mapping[str, Any] | None,
) -> tuple[dict[str, Path], dict[str, Any]]:
    """Companions and metadata of a recording that came without; nothing if given."""
    if root is None or file is None or None not in (companions, metadata):
        return {}, {}
    layout = AncpLayout(root, subjects=[file.entities["subject"]])
    found = companions_of(file, layout, []) if companions is None else {}
    return found, metadata_of(file, layout, layout) if metadata is None else {}


def _blank_units(
    path: Path, units: tuple[HeaderUnit, ...] | None, table: pd.DataFrame | None
) -> dict[str, str]:
    """Units of channels.tsv for EDF channels whose own are blank."""
    if units is None or table is None or path.suffix.lower() not in {".edf", ".bdf"}:
        return {}
    if all(unit.text for unit in units):
        return {}
    import mne

    reader = (
        mne.io.read_raw_edf if path.suffix.lower() == ".edf" else mne.io.read_raw_bdf
    )
    names = _quietly(path, reader, path, preload=False)[0].ch_names
    if len(names) != len(units):
        return {}
    return {
        name: unit
        for name, header in zip(names, units, strict=True)
        if not header.text and name in table.index
        if (unit := _volts(table.loc[name, "units"])) is not None
    }


def _open(path: Path, root: Path | None, blank: Mapping[str, str]) -> Any:
    import mne

    options: dict[str, Any] = {"units": dict(blank)} if blank else {}
    if path.name.lower().endswith((".fif", ".fif.gz")):
        options["allow_maxshield"] = True
    if root is not None and (bids_path := _bids_path(path, root)) is not None:
        import mne_bids

        try:
            raw, told = _quietly(
                path,
                mne_bids.read_raw_bids,
                bids_path,
                extra_params=options,
                on_ch_mismatch="warn",
            )
        except DataError as error:
            # A sidecar that mne-bids does not take is no reason to give up the
            # samples; a damaged recording fails below for itself.
            raw, told = _quietly(path, mne.io.read_raw, path, **options)
            told.append(f"read without what mne-bids adds: {error.__cause__}")
    else:
        raw, told = _quietly(path, mne.io.read_raw, path, **options)
    for message in told:
        _warn(path, message)
    if raw.n_times < 1:
        raise DataError("holds no samples", path)
    try:
        raw.get_channel_types()
    except (KeyError, ValueError) as error:
        raise DataError(
            f"has a channel whose type or unit MNE does not know ({error}). Is the "
            "file damaged?",
            path,
        ) from error
    return raw


def _bids_path(path: Path, root: Path) -> Any:
    """Path object of mne-bids, or None where BIDS knows no such file."""
    from mne_bids import get_bids_path_from_fname
    from mne_bids.config import ALLOWED_DATATYPE_EXTENSIONS as KNOWN

    name = parse_name(path.name)
    suffix = "" if name is None else name.suffix
    if path.suffix not in {*KNOWN.get(suffix, ()), ".EDF"}:
        return None
    try:
        found = get_bids_path_from_fname(path.absolute(), check=False, verbose="error")
        found.update(root=root, datatype=path.absolute().parent.name)
    except (ValueError, KeyError, RuntimeError):
        return None
    return found if found.fpath == path.absolute() else None


def _quietly(
    path: Path, function: Any, *arguments: Any, **options: Any
) -> tuple[Any, list[str]]:
    """Call a reader; its warnings about samples, and its errors as ours."""
    from mne.utils import logger

    def silent(_: Any) -> bool:
        return False

    # MNE logs to the standard output, which belongs to the command. At the level
    # "error" it would not warn either.
    logger.addFilter(silent)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            raw = function(*arguments, verbose="warning", **options)
    except Exception as error:
        raise DataError(
            f"cannot be read ({type(error).__name__}: {error}). Is the file whole, "
            "and of the format that its extension says?",
            path,
        ) from error
    finally:
        logger.removeFilter(silent)
    texts = dict.fromkeys(str(item.message) for item in caught)
    return raw, [" ".join(t.split()) for t in texts if _TELLING.search(t)]


def _check_units(
    raw: Any,
    units: tuple[HeaderUnit, ...] | None,
    table: pd.DataFrame | None,
    path: Path,
) -> None:
    """Every electric channel must be in volts for certain; others become ``misc``."""
    if units is None or len(units) != len(raw.ch_names):
        return
    unknown, other = [], {}
    current = dict(zip(raw.ch_names, raw.get_channel_types(), strict=True))
    for name, unit in zip(raw.ch_names, units, strict=True):
        described = table is not None and name in table.index
        row = table.loc[name] if described and table is not None else None
        if unit.volts or current[name] == "stim":
            continue
        if row is not None and _TYPES.get(row["type"], "misc") not in _ELECTRIC:
            continue
        if row is not None and not unit.text and _volts(row["units"]) is not None:
            continue
        if row is None and unit.text.lower() in _OTHER_UNITS:
            other[name] = "misc"
        else:
            unknown.append(f"{name} ({unit.text!r})")
    if unknown:
        raise DataError(
            f"unknown unit of {_listed(unknown)}. Expected V, mV or uV. Correct the "
            "header, or describe the channel in channels.tsv: units uV where the "
            "header is blank, type MISC for a channel that is no voltage",
            path,
        )
    if other:
        raw.set_channel_types(other, on_unit_change="ignore")
        _warn(path, f"no voltages, taken as misc: {_listed(list(other))}")


def _apply_channels(raw: Any, table: pd.DataFrame, path: Path, source: Path) -> None:
    """Types and bad channels by name, whatever mne-bids made of the table."""
    lacking = [name for name in table.index if name not in raw.ch_names]
    undescribed = [name for name in raw.ch_names if name not in table.index]
    if lacking and undescribed:
        raise DataError(
            f"{source.name} and the recording disagree: the table names "
            f"{_listed(lacking)}, the recording {_listed(undescribed)}. Rename the "
            "channels of the table as they are in the file",
            path,
        )
    if lacking:
        _warn(
            path, f"{source.name} names channels that are not there: {_listed(lacking)}"
        )
    if undescribed:
        _warn(path, f"{source.name} does not describe {_listed(undescribed)}")
    present = table.loc[[name for name in table.index if name in raw.ch_names]]
    types = {
        name: _TYPES.get(channel_type, "misc")
        for name, channel_type in present["type"].items()
        if not channel_type.startswith(_KEPT)
    }
    raw.set_channel_types(types, on_unit_change="ignore", verbose="error")
    if (table["status"] != "").any():
        bad = present.index[present["status"].str.lower() == "bad"]
        raw.info["bads"] = list(bad)


def _apply_metadata(raw: Any, metadata: Mapping[str, Any], path: Path) -> None:
    line = metadata.get("PowerLineFrequency")
    if isinstance(line, int | float) and not isinstance(line, bool):
        raw.info["line_freq"] = float(line)
    stated = metadata.get("SamplingFrequency")
    sfreq = float(raw.info["sfreq"])
    if isinstance(stated, int | float) and abs(stated - sfreq) > 0.01 * sfreq:
        raise DataError(
            f"is sampled at {sfreq:g} Hz, but its JSON sidecar says SamplingFrequency "
            f"{stated:g}. Which of the two is right?",
            path,
        )


def _settle_positions(raw: Any, companions: Mapping[str, Path], path: Path) -> None:
    """Positions with a known unit, or none."""
    electrodes, system = companions.get("electrodes"), companions.get("coordsystem")
    if electrodes is None:
        return
    if system is None:
        _warn(
            path,
            f"no coordsystem.json goes with {Path(electrodes).name}: its positions are "
            "left out, for their unit and frame are unknown",
        )
    elif read_coordsystem(system).units is None:
        _warn(path, f"the unit of positions is n/a in {Path(system).name}: left out")
    else:
        _place(raw, read_electrodes(electrodes, system))
        return
    # mne-bids would have guessed the unit from the size of the numbers.
    if raw.get_montage() is not None:
        raw.set_montage(None, verbose="error")


def _place(raw: Any, electrodes: pd.DataFrame) -> None:
    """Put positions in MNE's head frame where mne-bids could not choose a table."""
    import mne

    if raw.get_montage() is not None or electrodes.attrs["frame"] not in _HEAD_FRAMES:
        return
    metres = electrodes.set_index("name")[["x", "y", "z"]].dropna() / 1000
    placed = {name: metres.loc[name].to_numpy() for name in metres.index}
    montage = mne.channels.make_dig_montage(placed, coord_frame="head")
    raw.set_montage(montage, on_missing="ignore", verbose="error")


def _require_types(raw: Any, needed: Sequence[str], modality: str, path: Path) -> None:
    types = pd.Series(raw.get_channel_types()).value_counts()
    if not set(needed) & set(types.index):
        found = ", ".join(f"{count} {name}" for name, count in types.items())
        declared = {"eeg": "EEG", "meg": "MEGMAG", "ieeg": "SEEG, ECOG or DBS"}
        raise DataError(
            f"the reader {modality} needs a channel of type {' or '.join(needed)}, "
            f"found {found}. Declare them in channels.tsv "
            f"(type {declared.get(modality, needed[0])}), or choose another reader",
            path,
        )


def _listed(names: Sequence[str], most: int = 5) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def _warn(path: Path, message: str) -> None:
    warnings.warn(f"{path}: {message}", UserWarning, stacklevel=4)
