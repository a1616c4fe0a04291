"""MetaImage volumes (``.mha``), the format in which SPIDER is published.

A header of ``Key = value`` lines in text, closed by ``ElementDataFile = LOCAL``, then
the voxels, first index fastest, often compressed by zlib. Offset and directions are in
the frame of DICOM (left, posterior, superior; mm).

References
----------
MetaIO documentation, https://itk.org/Wiki/MetaIO/Documentation
"""

import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from neuromm.core import DataError
from neuromm.io.content import require_content

__all__ = ["EXTENSIONS", "read_metaimage"]

EXTENSIONS = (".mha",)

_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2",
    "MET_INT": "i4", "MET_UINT": "u4", "MET_LONG": "i4", "MET_ULONG": "u4",
    "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip
_LONGEST_HEADER = 2**16
_LARGEST_RATIO = 1032  # deflate cannot shrink more


def read_metaimage(path: str | Path) -> Any:
    """Read a 3-D MetaImage.

    Parameters
    ----------
    path : path-like
        A ``.mha``, with its voxels in the same file.

    Returns
    -------
    image : nibabel.Nifti1Image
        In the type of the file (32-bit for wider integers); its affine leads to RAS,
        mm.

    Raises
    ------
    InputMissingError
        If there is no such file.
    DataError
        If it is damaged, cut, not 3-D, or of several values a voxel.
    """
    import nibabel

    path = require_content(path)
    try:
        fields, start = _header(path)
        shape = tuple(int(n) for n in fields["DimSize"].split())
        affine = _affine(fields, len(shape))
        kind = _TYPES[fields["ElementType"]]
    except DataError:
        raise
    except (KeyError, ValueError) as error:
        raise DataError(
            f"is no MetaImage that can be read: its header lacks or garbles {error}",
            path,
        ) from error
    if len(shape) != 3 or min(shape) < 1 or _is_vector(fields):
        raise DataError(
            f"expected one 3-D volume of single values, got the shape {shape}", path
        )
    order = ">" if fields.get("BinaryDataByteOrderMSB", "False") == "True" else "<"
    dtype = np.dtype(order + kind)
    expected = math.prod(shape) * dtype.itemsize
    block = _voxels(path, start, expected, fields)
    values = np.frombuffer(block, dtype=dtype).reshape(shape, order="F")
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) == 0:
        raise DataError("places no voxel: its directions are not finite or flat", path)
    image = nibabel.Nifti1Image(values.astype(dtype.newbyteorder("=")), affine)
    image.header.set_xyzt_units("mm")
    return image


def _header(path: Path) -> tuple[dict[str, str], int]:
    """The header's fields, and where the voxels begin."""
    fields: dict[str, str] = {}
    with open(path, "rb") as file:
        while file.tell() < _LONGEST_HEADER:
            line = file.readline(_LONGEST_HEADER)
            key, equals, value = line.decode("latin-1").partition("=")
            if not equals or not line.endswith(b"\n"):
                break
            fields[key.strip()] = value.strip()
            if key.strip() == "ElementDataFile":
                if value.strip() != "LOCAL":
                    raise DataError(
                        "keeps its voxels in another file; convert it to .nii.gz", path
                    )
                return fields, file.tell()
    raise DataError("is no MetaImage, or its header is cut", path)


def _is_vector(fields: dict[str, str]) -> bool:
    return fields.get("ElementNumberOfChannels", "1") != "1"


def _affine(fields: dict[str, str], n_dims: int) -> Any:
    if fields.get("BinaryData", "True") != "True":
        raise ValueError("BinaryData")
    spacing = [float(v) for v in fields["ElementSpacing"].split()]
    offset = [float(v) for v in (fields.get("Offset") or fields["Position"]).split()]
    # A row of the file is the direction of one axis, so a column of the affine.
    default = " ".join(str(v) for v in np.eye(n_dims).ravel())
    matrix = fields.get("TransformMatrix", default).split()
    directions = np.array([float(v) for v in matrix]).reshape(n_dims, n_dims)
    affine = np.eye(n_dims + 1)
    affine[:-1, :-1] = directions.T * np.array(spacing)
    affine[:-1, -1] = offset
    if n_dims != 3:
        return affine
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def _voxels(path: Path, start: int, expected: int, fields: dict[str, str]) -> bytes:
    """The voxels' bytes, never more than the header states."""
    compressed = fields.get("CompressedData", "False") == "True"
    stored = path.stat().st_size - start
    if expected > (_LARGEST_RATIO if compressed else 1) * stored:
        raise DataError(
            f"is truncated: its header states {expected:,} bytes of voxels, the file "
            f"holds {stored:,}{' compressed' if compressed else ''}; copy it again",
            path,
        )
    with open(path, "rb") as file:
        file.seek(start)
        if not compressed:
            return file.read(expected)
        try:
            decoder = zlib.decompressobj()
            block = decoder.decompress(file.read(), expected)
            beyond = decoder.decompress(decoder.unconsumed_tail, 1)
        except zlib.error as error:
            raise DataError(f"is damaged ({error}); copy it again", path) from error
    if beyond:
        raise DataError(f"holds more than the {expected:,} bytes that it states", path)
    if len(block) < expected or not decoder.eof:  # the end is a checksum
        raise DataError("is truncated: its voxels end too early; copy it again", path)
    return block
