"""Whether a MATLAB file is built as its format demands, before SciPy reads it.

EEGLAB writes its ``.set`` as a MATLAB 5 file. SciPy trusts the lengths and the types in
one, and a damaged file can end the whole process with a segmentation fault. Here the
elements are walked once, with nothing kept in memory.

References
----------
MathWorks, MAT-File Format, level 5.
"""

import math
import struct
import zlib
from pathlib import Path
from typing import IO, NoReturn

from neuromm.core import DataError

__all__ = ["check_mat_file"]

_NUMBER_BYTES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8}
_TEXT_BYTES = {1: 1, 2: 1, 3: 2, 4: 2, 16: 1, 17: 2, 18: 4}
_INT8, _INT32, _UINT32, _MATRIX, _COMPRESSED = 1, 5, 6, 14, 15
_CELL, _STRUCT, _OBJECT, _CHAR, _SPARSE, _FUNCTION, _OPAQUE = 1, 2, 3, 4, 5, 16, 17
_DEEPEST = 64  # structures within structures
_CHUNK = 1 << 20


def check_mat_file(path: Path) -> None:
    """Walk the elements of a MATLAB 5 file.

    Files of another version (HDF5 since 7.3, level 4) are passed by: their libraries
    check for themselves.

    Raises
    ------
    DataError
        If an element is cut off, does not fit into the one around it, or is of no
        known type.
    """
    with open(path, "rb") as file:
        start = file.read(128)
        if not start.startswith(b"MATLAB 5.0") or len(start) < 128:
            return
        order = {b"IM": "<", b"MI": ">"}.get(start[126:128])
        if order is None:
            _refuse(path, "gives no byte order")
        left = path.stat().st_size - 128
        while left >= 8:
            kind, size = struct.unpack(f"{order}2I", file.read(8))
            if size > left - 8:
                _refuse(path, f"ends {size - left + 8} bytes too early")
            if kind == _COMPRESSED:
                _Walk(path, order, file, size, packed=True).whole()
            elif kind == _MATRIX:
                _Walk(path, order, file, size, packed=False).matrix(size)
            else:
                _refuse(path, f"has an element of the unknown type {kind}")
            left -= 8 + size


def _refuse(path: Path, what: str) -> NoReturn:
    raise DataError(
        f"is a damaged MATLAB file: it {what}. Save it again from EEGLAB, or copy it "
        "again from the archive",
        path,
    )


class _Walk:
    """One pass over a variable, forward only."""

    def __init__(
        self, path: Path, order: str, file: IO[bytes], size: int, *, packed: bool
    ) -> None:
        self.path, self.order, self.file, self.left = path, order, file, size
        self.unpacker = zlib.decompressobj() if packed else None

    def whole(self) -> None:
        """Walk the one variable in a compressed element, to its checksum."""
        kind, size = struct.unpack(f"{self.order}2I", self.read(8))
        if kind != _MATRIX:
            _refuse(self.path, f"has an element of the unknown type {kind}")
        self.matrix(size)
        unpacker = self.unpacker
        while unpacker is not None and not unpacker.eof:
            if not self._raw(_CHUNK):
                _refuse(self.path, "ends inside of a compressed variable")
        self.file.seek(self.left, 1)

    def read(self, n_bytes: int) -> bytes:
        parts, wanted = [], n_bytes
        while wanted:
            part = self._raw(min(wanted, _CHUNK))
            if not part:
                _refuse(self.path, "ends inside of a variable")
            parts.append(part)
            wanted -= len(part)
        return b"".join(parts)

    def skip(self, n_bytes: int) -> None:
        while n_bytes:
            n_bytes -= len(self.read(min(n_bytes, _CHUNK)))

    def _raw(self, n_bytes: int) -> bytes:
        """At most ``n_bytes`` of content; none at the end."""
        if self.unpacker is None:
            part = self.file.read(min(n_bytes, self.left))
            self.left -= len(part)
            return part
        try:
            while not self.unpacker.eof:
                packed = self.unpacker.unconsumed_tail
                if not packed:
                    packed = self.file.read(min(_CHUNK, self.left))
                    self.left -= len(packed)
                part = self.unpacker.decompress(packed, n_bytes)
                if part or not packed:
                    return part
        except zlib.error as error:
            _refuse(self.path, f"cannot be unpacked ({error})")
        return b""

    def element(self, room: int) -> tuple[int, int, int, bool]:
        """Type, bytes of data, bytes taken altogether, whether data sit in the tag."""
        if room < 8:
            _refuse(self.path, "has a variable without its parts")
        (first,) = struct.unpack(f"{self.order}I", self.read(4))
        if first >> 16:
            kind, size, taken, small = first & 0xFFFF, first >> 16, 8, True
        else:
            (size,) = struct.unpack(f"{self.order}I", self.read(4))
            # MATLAB pads to eight bytes, but for matrices, which are padded within.
            kind, small = first, False
            taken = 8 + size + (0 if kind == _MATRIX else -size % 8)
        if taken > room or (small and size > 4):
            _refuse(self.path, "has a part that is larger than the whole")
        return kind, size, taken, small

    def content(self, room: int, kinds: set[int]) -> tuple[int, bytes, int]:
        """Type, data and bytes taken by a small element of one of these types."""
        kind, size, taken, small = self.element(room)
        if kind not in kinds or size > 65_536:
            _refuse(self.path, f"has a part of type {kind} where it can't be")
        data = self.read(size)
        self.skip((4 if small else taken - 8) - size)
        return kind, data, taken

    def values(self, room: int, count: int | None, kinds: dict[int, int]) -> int:
        """Pass over numbers or text, ``count`` of them if that is known."""
        kind, size, taken, small = self.element(room)
        if kind not in kinds or size % kinds[kind]:
            _refuse(self.path, f"has a part of type {kind} where it can't be")
        if count is not None and size // kinds[kind] != count:
            _refuse(self.path, f"has {size // kinds[kind]} values for {count} places")
        self.skip(4 if small else taken - 8)
        return taken

    def matrix(self, room: int, depth: int = 0) -> None:
        """Walk the parts of one array, which take ``room`` bytes."""
        if room == 0:
            return
        if depth > _DEEPEST:
            _refuse(self.path, f"has more than {_DEEPEST} levels of structures")
        _, flags, taken = self.content(room, {_UINT32})
        if len(flags) != 8:
            _refuse(self.path, "has an array of no type")
        (word,) = struct.unpack(f"{self.order}I", flags[:4])
        room -= taken
        kind, is_complex = word & 0xFF, bool(word & 0x800)
        if kind == _OPAQUE:  # an object of MATLAB's own, which nobody reads
            self.skip(room)
            return
        _, dims, taken = self.content(room, {_INT32})
        room -= taken
        if len(dims) < 8 or len(dims) % 4 or len(dims) > 128:
            _refuse(self.path, "has an array of no shape")
        shape = struct.unpack(f"{self.order}{len(dims) // 4}i", dims)
        if min(shape) < 0:
            _refuse(self.path, f"has an array of the shape {shape}")
        room -= self.content(room, {_INT8})[2]
        room = self.parts(kind, math.prod(shape), is_complex, room, depth)
        if not 0 <= room < 8:
            _refuse(self.path, f"has {room} bytes behind a variable")
        self.skip(room)

    def parts(
        self, kind: int, count: int, is_complex: bool, room: int, depth: int
    ) -> int:
        """Walk what follows the name of an array; bytes that are left."""
        if kind in {_CELL, _FUNCTION}:
            return self.arrays(count if kind == _CELL else 1, room, depth)
        if kind in {_STRUCT, _OBJECT}:
            if kind == _OBJECT:
                room -= self.content(room, {_INT8})[2]
            _, length, taken = self.content(room, {_INT32})
            room -= taken
            width = int.from_bytes(length, "little" if self.order == "<" else "big")
            _, names, taken = self.content(room, {_INT8})
            if len(length) != 4 or width < 1 or len(names) % width:
                _refuse(self.path, "has a structure without names of its fields")
            return self.arrays(count * (len(names) // width), room - taken, depth)
        if kind == _CHAR:
            return room - self.values(room, None, _TEXT_BYTES)
        if kind == _SPARSE:
            for _ in range(4 if is_complex else 3):
                room -= self.values(room, None, _NUMBER_BYTES)
            return room
        if not 6 <= kind <= 15:
            _refuse(self.path, f"has an array of the unknown class {kind}")
        for _ in range(2 if is_complex else 1):
            room -= self.values(room, count, _NUMBER_BYTES)
        return room

    def arrays(self, count: int, room: int, depth: int) -> int:
        """Walk ``count`` arrays; bytes that are left."""
        if count * 8 > room:
            _refuse(self.path, f"has no room for {count} parts of a structure")
        for _ in range(count):
            kind, size, taken, small = self.element(room)
            if kind != _MATRIX or small:
                _refuse(self.path, f"has a part of type {kind} where it can't be")
            self.matrix(size, depth + 1)
            room -= taken
        return room
