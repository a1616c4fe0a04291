"""What a file may claim: sizes and links are checked before anything is read.

A header can promise terabytes, a compressed file can unpack to them, and an HDF5 file
can point at any other file of the machine.
"""

import gzip
import json
import mmap
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from neuromm.core import DataError

__all__ = ["check_expansion", "check_hdf5", "check_npz", "check_zarr", "unpacked"]

# Real features shrink by less than this; a table of mostly zeros may need to be saved
# with less compression.
_MAX_RATIO = 500
_ALWAYS_ALLOWED_BYTES = 256 * 2**20
_CHUNK_BYTES = 2**20

_HEAP = b"GCOL\x01\x00\x00\x00"

# Codecs that only move or compress bytes. Others, pickle above all, are refused.
_PLAIN_CODECS = {
    "adler32", "blosc", "bytes", "bz2", "crc32", "crc32c", "delta", "fixedscaleoffset",
    "gzip", "lz4", "lzma", "shuffle", "sharding_indexed", "transpose", "vlen-utf8",
    "zlib", "zstd",
}  # fmt: skip


def check_expansion(declared: int, stored: int, path: Path) -> None:
    """Refuse a file that would unpack to far more than it holds.

    Parameters
    ----------
    declared, stored : int
        Bytes in memory and on the disk.
    path : Path

    Raises
    ------
    DataError
    """
    if declared <= max(_ALWAYS_ALLOWED_BYTES, _MAX_RATIO * stored):
        return
    raise DataError(
        f"declares {declared / 2**20:.0f} MB in a file of {stored / 2**20:.3g} MB, "
        f"more than {_MAX_RATIO} times its size: it is damaged or made to fill the "
        "memory. If it is neither, save it uncompressed.",
        path,
    )


def unpacked(path: Path) -> bytes:
    """Unpack a .gz file, within the allowed expansion.

    Raises
    ------
    DataError
        If it is cut short, damaged or expands too far.
    """
    stored = path.stat().st_size
    parts: list[bytes] = []
    total = 0
    try:
        with gzip.open(path, "rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                total += len(chunk)
                check_expansion(total, stored, path)
                parts.append(chunk)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"cannot be unpacked ({error}): it is cut short or damaged, copy it again",
            path,
        ) from error
    return b"".join(parts)


def check_npz(path: Path) -> None:
    """Check that each array of an .npz fits its entry and holds no Python objects.

    Raises
    ------
    DataError
    """
    stored = path.stat().st_size
    total = 0
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                total += entry.file_size
                check_expansion(total, stored, path)
                _check_npy_entry(archive, entry, path)
    except (DataError, MemoryError):
        raise
    except Exception as error:  # zipfile meets damage with errors of several types
        raise DataError(
            f"is no readable .npz ({error}): it is cut short or damaged, copy it again",
            path,
        ) from error


def _check_npy_entry(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path
) -> None:
    if not entry.filename.endswith(".npy"):
        raise DataError(f"holds {entry.filename}, expected arrays alone", path)
    with archive.open(entry) as file:
        try:
            version = np.lib.format.read_magic(file)
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, _, dtype = read(file)
        except (ValueError, KeyError) as error:
            raise DataError(f"{entry.filename} is no array ({error})", path) from error
        header = file.tell()
    if dtype.hasobject:
        raise DataError(
            f"{entry.filename} holds Python objects, which only pickle could read. "
            "Save text as np.asarray(names, dtype=str) and numbers as floats.",
            path,
        )
    declared = _n_bytes(shape, dtype.itemsize)
    if declared != entry.file_size - header:
        raise DataError(
            f"{entry.filename} declares {declared} bytes and holds "
            f"{entry.file_size - header}: the file is damaged",
            path,
        )


def check_hdf5(path: Path, kind: str = "NetCDF-4 (HDF5)") -> None:
    """Check that an HDF5 file keeps to itself and its data sets fit the file.

    Parameters
    ----------
    path : Path
    kind : str
        What is expected, for the message.

    Raises
    ------
    DataError
    """
    import h5py

    _check_heaps(path, kind)
    try:
        with h5py.File(path, "r") as file:
            declared = _checked_group(file, path, set())
    except (DataError, MemoryError):
        raise
    except Exception as error:  # the HDF5 library meets damage with errors of any type
        raise DataError(
            f"is no readable {kind} file ({error}): it is cut short, damaged, or in "
            "another format",
            path,
        ) from error
    check_expansion(declared, path.stat().st_size, path)


def _check_heaps(path: Path, kind: str) -> None:
    """Check the heaps that hold text: HDF5 2.0 never ends at a free block of size 0.

    Layout (HDF5 file format 3.0, "Global Heap"): "GCOL", version, 3 zeros, size; then
    objects of a 16-byte header (index, count, 4 zeros, size) and data padded to 8.
    Index 0 is the free space that ends the heap; its size counts the header.
    """
    if path.stat().st_size == 0:
        raise DataError(f"is empty, expected a {kind} file", path)
    with (
        open(path, "rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        start = content.find(_HEAP)
        while start >= 0:
            if not _is_walkable(content, start):
                raise DataError("is damaged (a heap of texts): copy it again", path)
            start = content.find(_HEAP, start + len(_HEAP))


def _is_walkable(content: mmap.mmap, start: int) -> bool:
    if start + 16 > len(content):
        return False
    (size,) = struct.unpack_from("<Q", content, start + 8)
    end, place = start + size, start + 16
    if end > len(content):
        return False
    while place + 16 <= end:
        index, n_bytes = struct.unpack_from("<H6xQ", content, place)
        if index == 0:
            return bool(16 <= n_bytes <= end - place)
        place += 16 + (n_bytes + 7) // 8 * 8
    return bool(place <= end)


def _checked_group(group: Any, path: Path, seen: set[int]) -> int:
    import h5py

    # A group may hold itself: each is visited once, by its place in the file.
    address = int(h5py.h5o.get_info(group.id).addr)
    if address in seen:
        return 0
    seen.add(address)
    total = 0
    for name in group:
        link = group.get(name, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            raise DataError(
                f"{name} is a link to another file ({link.filename}), which is not "
                "followed: copy the data into this file",
                path,
            )
        if isinstance(link, h5py.SoftLink):
            continue
        item = group[name]
        if isinstance(item, h5py.Group):
            total += _checked_group(item, path, seen)
        elif isinstance(item, h5py.Dataset):
            if item.external or item.is_virtual:
                raise DataError(
                    f"the data of {item.name} lie in another file, which is not read: "
                    "copy them into this file",
                    path,
                )
            total += _n_bytes(item.shape or (), item.dtype.itemsize)
    return total


def check_zarr(path: Path) -> None:
    """Check the metadata of a zarr folder: plain types, plain codecs, honest sizes.

    Raises
    ------
    DataError
    """
    stored = total = 0
    for file in sorted(path.rglob("*")):
        if not file.is_file():
            continue
        if not file.resolve().is_relative_to(path.resolve()):
            raise DataError(f"{file.name} is a link out of the folder", path)
        stored += file.stat().st_size
        if file.name in (".zarray", "zarr.json"):
            total += _checked_array(file, path)
    check_expansion(total, stored, path)


def _checked_array(file: Path, path: Path) -> int:
    try:
        meta = json.loads(file.read_text(encoding="utf-8"))
        if meta.get("node_type") == "group":
            return 0
        codecs = {str(name) for name in _codec_names(meta)}
        dtype = meta.get("dtype", meta.get("data_type"))
        shape = tuple(int(n) for n in meta["shape"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file.name} is no zarr metadata ({error!r})", path) from error
    unknown = codecs - _PLAIN_CODECS
    if unknown or (dtype == "|O" and "vlen-utf8" not in codecs):
        what = f"the codec {sorted(unknown)[0]}" if unknown else "Python objects"
        raise DataError(
            f"{file.parent.name} uses {what}, which is not read. Save text as strings "
            "and numbers as floats, with the standard compression.",
            path,
        )
    return _n_bytes(shape, _zarr_itemsize(dtype))


def _codec_names(meta: dict[str, Any]) -> list[str]:
    version_2 = [*(meta.get("filters") or []), meta.get("compressor")]
    names = [codec["id"] for codec in version_2 if codec]
    for codec in meta.get("codecs") or []:
        name = codec if isinstance(codec, str) else codec["name"]
        names.append(name.removeprefix("numcodecs."))
        if name == "sharding_indexed":
            inner = codec["configuration"]
            names += _codec_names({"codecs": inner.get("codecs")})
            names += _codec_names({"codecs": inner.get("index_codecs")})
    return names


def _zarr_itemsize(dtype: Any) -> int:
    if isinstance(dtype, dict):  # fixed-length text of version 3
        return int(dtype.get("configuration", {}).get("length_bytes", 8))
    try:
        return int(np.dtype(dtype).itemsize) or 8
    except TypeError:  # "string" of version 3: a pointer each
        return 8


def _n_bytes(shape: tuple[int, ...], itemsize: int) -> int:
    total = itemsize
    for length in shape:  # Python integers: a product in numpy could wrap round
        total *= int(length)
    return total
