"""Whether the files of a recording hold what their headers claim.

The samples of a long recording are read only when they are wanted. A header that
promises more than the file holds would be noticed hours later, or never, so the sizes
are compared when the recording is opened. A header also names other files; none outside
of the data set is followed.

References
----------
Kemp & Olivan (2003) European data format 'plus' (EDF+). Clin. Neurophysiol. 114:1755.
BrainVision Core Data Format 1.0, Brain Products GmbH (2019).
Functional Image File Format, Elekta Neuromag Oy (2005).
"""

import gzip
import os
import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from neuromm.core import DataError, InputMissingError
from neuromm.io.mat_files import check_mat_file

__all__ = [
    "HeaderUnit",
    "check_recording",
    "check_samples",
    "data_file",
    "dataset_root",
]

# Spellings that MNE scales to volts; any other it takes for volts or for no unit,
# without a word: millivolts in GDF 1, nanovolts in EDF.
_EDF_VOLTS = {"uV", "µV", "\u03bcV", "\x83\xcaV", "mV", "V"}
_BRAINVISION_VOLTS = {"V", "mV", "µV", "uV", "nV"}
_GDF_UNITS = {4256: "V", 4274: "mV", 4275: "uV", 512: "n/a", 0: ""}

_SAMPLE_BYTES = {"INT_16": 2, "INT_32": 4, "IEEE_FLOAT_32": 4}
_TRUNCATED = "The file was cut off: copy it again from the recorder or the archive"

# Kinds of FIF tags and their layout (kind, type, size, position of the next tag).
_FIF_HEADER = struct.Struct(">4i")
_FIF_FILE_ID, _FIF_BLOCK_START, _FIF_BLOCK_END, _FIF_REF_FILE_NAME = 100, 104, 105, 118


class HeaderUnit(NamedTuple):
    """Unit of a channel: as the header writes it, and whether it is scaled to volts."""

    text: str
    volts: bool


def dataset_root(path: Path) -> Path | None:
    """Root of the BIDS data set in which a file lies; None outside of one."""
    if not path.name.startswith("sub-"):
        return None
    for folder in path.absolute().parents:
        if (folder / "dataset_description.json").exists():
            return folder
    return None


def check_recording(path: Path, folder: Path) -> tuple[HeaderUnit, ...] | None:
    """Compare the header of a recording with its files, before anything is read.

    Parameters
    ----------
    path : Path
        Main file of the recording.
    folder : Path
        Folder outside of which no file may be named: the root of the BIDS data set, or
        the recording's own folder.

    Returns
    -------
    units : tuple of HeaderUnit, or None
        Of each channel in the order of the file, without annotation channels. None for
        formats whose unit is fixed (FIF, EEGLAB) or is not looked at.

    Raises
    ------
    DataError
        If the file is empty, cut off, or names a file outside of ``folder``.
    InputMissingError
        If a file that the header names is not there.
    """
    if path.is_file() and path.stat().st_size == 0:
        raise DataError(f"is empty. {_TRUNCATED}", path)
    name = path.name.lower()
    if name.endswith((".edf", ".bdf")):
        return _check_edf(path)
    if name.endswith(".gdf"):
        return _gdf_units(path)
    if name.endswith((".vhdr", ".ahdr")):
        return _check_brainvision(path, folder)
    if name.endswith((".fif", ".fif.gz")):
        _check_fif(path, folder)
    if name.endswith(".set"):
        check_mat_file(path)
    return None


def check_samples(raw: Any, path: Path, folder: Path) -> None:
    """Compare an opened recording with the file of its samples.

    Only for EEGLAB, whose header is read by MNE: the ``.fdt`` holds one 32-bit float
    a channel and sample.

    Raises
    ------
    DataError
        If there are fewer, or the file lies outside of ``folder``.
    """
    source = raw.filenames[0]
    if source is None or Path(source).suffix.lower() != ".fdt":
        return
    data_path = _inside(str(source), path, folder)
    n_channels = raw._raw_extras[0].get("orig_nchan", len(raw.ch_names))
    expected, found = n_channels * raw.n_times * 4, data_path.stat().st_size
    if found != expected:
        raise DataError(
            f"{path.name} describes {n_channels} channels of {raw.n_times} samples "
            f"({expected} bytes), but the file has {found}. {_TRUNCATED}",
            data_path,
        )


def data_file(path: Path) -> Path:
    """File that holds the samples: the ``.eeg`` of a ``.vhdr``, the file itself else.

    Parameters
    ----------
    path : Path
        Main file of the recording.
    """
    if path.suffix.lower() in {".vhdr", ".ahdr"}:
        header = _brainvision_header(path)
        return path.parent / _named(header["common infos"].get("datafile", ""), path)
    if path.suffix.lower() == ".set" and path.with_suffix(".fdt").exists():
        return path.with_suffix(".fdt")
    return path


def _check_edf(path: Path) -> tuple[HeaderUnit, ...]:
    """Size against ``n_records`` x size of a record; EDF+, BDF and BDF+ alike."""
    n_bytes = path.stat().st_size
    with open(path, "rb") as file:
        fixed = file.read(256)
        n_header = _edf_number(fixed[184:192], "size of the header", path)
        n_records = _edf_number(fixed[236:244], "number of data records", path)
        n_channels = _edf_number(fixed[252:256], "number of signals", path)
        if n_channels < 1 or n_header != 256 * (n_channels + 1):
            raise DataError(
                f"an EDF header of {n_channels} signals takes "
                f"{256 * (n_channels + 1)} bytes, this one claims {n_header}. Is it an "
                "EDF or BDF file?",
                path,
            )
        fields = file.read(256 * n_channels)
    if len(fields) < 256 * n_channels:
        raise DataError(f"ends inside of its header. {_TRUNCATED}", path)
    labels = _edf_column(fields, 0, 16, n_channels)
    units = _edf_column(fields, 96, 8, n_channels)
    lengths = [
        _edf_number(text.encode("latin-1"), "samples in a record", path)
        for text in _edf_column(fields, 216, 8, n_channels)
    ]
    if min(lengths) < 0 or sum(lengths) == 0:
        raise DataError("its header gives no samples in a data record", path)
    sample_bytes = 3 if path.suffix.lower() == ".bdf" else 2
    record_bytes = sample_bytes * sum(lengths)
    # -1 stands for "unknown": the recorder was not stopped. What is there is read.
    expected = n_header + max(n_records, 1) * record_bytes
    if n_bytes < expected:
        raise DataError(
            f"its header promises {max(n_records, 1)} data records of {record_bytes} "
            f"bytes ({expected} bytes in all), but the file has {n_bytes}. "
            f"{_TRUNCATED}",
            path,
        )
    return tuple(
        HeaderUnit(unit, unit in _EDF_VOLTS)
        for label, unit in zip(labels, units, strict=True)
        if label not in {"EDF Annotations", "BDF Annotations"}
    )


def _edf_number(field: bytes, what: str, path: Path) -> int:
    try:
        return int(field.decode("latin-1").strip("\x00 "))
    except ValueError:
        raise DataError(
            f"its header has {field.decode('latin-1')!r} for the {what}. Is it an EDF "
            "or BDF file, and whole?",
            path,
        ) from None


def _edf_column(fields: bytes, start: int, width: int, n: int) -> list[str]:
    column = fields[start * n : (start + width) * n]
    cells = [column[i * width : (i + 1) * width] for i in range(n)]
    return [cell.decode("latin-1").strip("\x00 ") for cell in cells]


def _gdf_units(path: Path) -> tuple[HeaderUnit, ...]:
    """Units of GDF 2 are codes of ISO/IEEE 11073-10101; GDF 1 writes them as EDF."""
    with open(path, "rb") as file:
        fixed = file.read(256)
        if len(fixed) < 256 or not re.match(rb"GDF \d\.\d", fixed):
            raise DataError("does not start like a GDF file, or is cut off", path)
        modern = float(fixed[4:7]) >= 1.9
        (n,) = struct.unpack(
            "<H" if modern else "<I", fixed[252 : 254 if modern else 256]
        )
        fields = file.read(256 * n) if 256 * n <= path.stat().st_size else b""
    if len(fields) < 256 * n:
        raise DataError(f"ends inside of its header. {_TRUNCATED}", path)
    if not modern:
        texts = _edf_column(fields, 96, 8, n)
        return tuple(HeaderUnit(t, t == "V" or t.startswith("uV")) for t in texts)
    codes = struct.unpack(f"<{n}H", fields[102 * n : 104 * n])
    texts = [_GDF_UNITS.get(code, f"code {code}") for code in codes]
    return tuple(HeaderUnit(text, text in _EDF_VOLTS) for text in texts)


def _check_brainvision(path: Path, folder: Path) -> tuple[HeaderUnit, ...]:
    header = _brainvision_header(path)
    common = header["common infos"]
    try:
        n_channels = int(common["numberofchannels"])
        named = common["datafile"]
    except (KeyError, ValueError) as error:
        raise DataError(
            f"[Common Infos] must give DataFile and NumberOfChannels ({error}). Is the "
            "header whole?",
            path,
        ) from error
    data_path = _inside(_named(named, path), path, folder)
    if not data_path.exists():
        raise InputMissingError(
            f"{path}: its DataFile={named} is not there. Was the recording renamed or "
            "copied without it? Edit DataFile in the header, or bring the file"
        )
    if path.suffix.lower() == ".ahdr":  # MNE adds a channel that the header leaves out
        n_channels += 1
    n_samples = _brainvision_samples(header, n_channels, data_path)
    marker = common.get("markerfile", "")
    if marker and n_samples is not None:
        markers = _inside(_named(marker, path), path, folder)
        _check_markers(markers, n_samples, data_path)
    infos = header.get("channel infos", {})
    rows = [infos.get(f"ch{i + 1}", "").split(",") for i in range(n_channels)]
    # The standard allows the unit to be left out, and then it is microvolts.
    texts = [row[3] if len(row) > 3 and row[3] else "µV" for row in rows]
    return tuple(
        HeaderUnit(text, text.replace("\xc2", "") in _BRAINVISION_VOLTS)
        for text in texts
    )


def _brainvision_header(path: Path) -> dict[str, dict[str, str]]:
    """Sections of a BrainVision header, keys in lower case."""
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    sections: dict[str, dict[str, str]] = {"common infos": {}}
    current = ""
    for line in text.splitlines():
        if line.startswith("[") and "]" in line:
            current = line[1 : line.index("]")].strip().lower()
            sections.setdefault(current, {})
        elif current and current != "comment" and not line.startswith(";"):
            key, equals, value = line.partition("=")
            if equals:
                sections[current][key.strip().lower()] = value.strip()
    return sections


def _named(name: str, path: Path) -> str:
    """File name of a header, ``$b`` standing for the header's own name."""
    return name.replace("$b", path.name.partition(".")[0])


def _inside(name: str, path: Path, folder: Path) -> Path:
    """Where a file that a header names lies; links are the user's own."""
    # Elsewhere a Windows path is one long file name; it is read as what it means.
    portable = name.replace("\\", "/")
    foreign = os.name != "nt" and re.match(r"[A-Za-z]:", portable) is not None
    root = os.path.abspath(folder)
    target = os.path.normpath(os.path.join(os.path.abspath(path.parent), portable))
    if foreign or os.path.commonpath([root, target]) != root:
        raise DataError(
            f"it names the file {name}, which is outside of {folder}. No file outside "
            "of the data set is read: put it beside, and write its bare name into the "
            "header",
            path,
        )
    return Path(target)


def _brainvision_samples(
    header: Mapping[str, Mapping[str, str]], n_channels: int, data_path: Path
) -> int | None:
    """Samples a channel; None for text, which has no fixed size."""
    common, binary = header["common infos"], header.get("binary infos", {})
    if common.get("dataformat", "BINARY").upper() != "BINARY":
        return None
    kind = binary.get("binaryformat", "").upper()
    if kind not in _SAMPLE_BYTES or n_channels < 1:
        raise DataError(
            f"its header gives BinaryFormat={kind} and {n_channels} channels; expected "
            f"one of {', '.join(_SAMPLE_BYTES)} and one channel at least",
            data_path,
        )
    frame = _SAMPLE_BYTES[kind] * n_channels
    n_samples, rest = divmod(data_path.stat().st_size, frame)
    if rest or n_samples == 0:
        raise DataError(
            f"its size of {data_path.stat().st_size} bytes is not a whole number of "
            f"samples of {n_channels} channels ({frame} bytes each). {_TRUNCATED}",
            data_path,
        )
    promised = common.get("datapoints", "")
    if promised.isdigit() and n_samples < int(promised):
        raise DataError(
            f"its header promises {promised} samples a channel, but the file has "
            f"{n_samples}. {_TRUNCATED}",
            data_path,
        )
    return n_samples


def _check_markers(markers: Path, n_samples: int, data_path: Path) -> None:
    if not markers.exists():
        return
    found = re.findall(rb"^Mk\d+=[^,\n]*,[^,\n]*,(\d+)", markers.read_bytes(), re.M)
    last = max((int(position) for position in found), default=0)
    if last > n_samples:
        raise DataError(
            f"{markers.name} has a marker at sample {last}, but the file has "
            f"{n_samples} samples a channel. {_TRUNCATED}",
            data_path,
        )


def _check_fif(path: Path, folder: Path) -> None:
    """Follow the chain of tags to its end."""
    opener: Any = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opener(path, "rb") as file:
            n_bytes = file.seek(0, os.SEEK_END)
            file.seek(0)
            for kind, content in _fif_tags(file, n_bytes, path):
                if kind == _FIF_REF_FILE_NAME:  # next part of a split recording
                    _inside(content.decode("latin-1"), path, folder)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"is no whole gzip file ({error}). {_TRUNCATED}", path) from (
            error
        )


def _fif_tags(file: IO[bytes], n_bytes: int, path: Path) -> Iterator[tuple[int, bytes]]:
    """Kind of each tag, with the content of those that name a file."""
    position = depth = 0
    for _ in range(n_bytes // _FIF_HEADER.size + 1):
        file.seek(position)
        header = file.read(_FIF_HEADER.size)
        if not header and depth == 0 and position:
            return
        if len(header) < _FIF_HEADER.size:
            raise _fif_cut(position, n_bytes, path)
        kind, _, size, following = _FIF_HEADER.unpack(header)
        if position == 0 and kind != _FIF_FILE_ID:
            raise DataError("does not start like a FIF file", path)
        end = position + _FIF_HEADER.size + size
        if size < 0 or end > n_bytes or following > n_bytes:
            raise _fif_cut(position, n_bytes, path)
        depth += (kind == _FIF_BLOCK_START) - (kind == _FIF_BLOCK_END)
        yield kind, file.read(size) if kind == _FIF_REF_FILE_NAME else b""
        if following < 0:
            if depth > 0:
                raise _fif_cut(position, n_bytes, path)
            return
        position = following if following > 0 else end
    raise DataError("its chain of tags runs in a circle; the file is damaged", path)


def _fif_cut(position: int, n_bytes: int, path: Path) -> DataError:
    return DataError(
        f"its chain of tags breaks off at byte {position} of {n_bytes}. {_TRUNCATED}",
        path,
    )
