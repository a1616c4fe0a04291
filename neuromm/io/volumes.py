"""NIfTI volumes: opened lazily, after the header has been held against the file.

A damaged or malicious header can ask for any amount of memory, and a cut file is found
only when its end is read, hours into an analysis. So before an image is handed out,
the size that its header states is compared with the size of the file; of a compressed
file the stream is read through once, in pieces, with its checksum.

References
----------
NIfTI-1 and NIfTI-2 data format, https://nifti.nimh.nih.gov
"""

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from neuromm.core import DataError, InputMissingError
from neuromm.io.content import require_content

__all__ = [
    "EXTENSIONS",
    "check_same_grid",
    "grid_shift_mm",
    "load_mask",
    "open_volume",
    "stated_shape",
]

EXTENSIONS = (".nii", ".nii.gz")

_GZIP_MAGIC = b"\x1f\x8b"
_HEADER_BYTES = {348: "NIfTI-1", 540: "NIfTI-2"}
# deflate cannot shrink more than 1032 times (258 bytes for 2 bits).
_LARGEST_GZIP_RATIO = 1032
_CHUNK_BYTES = 4 * 2**20
# Some writers pad the end of a file; extensions of a header are small texts.
_PADDING_BYTES = 2**20
_EXTENSION_BYTES = 16 * 2**20
_GRID_TOLERANCE_MM = 1e-3


def open_volume(path: str | Path) -> Any:
    """Open a NIfTI file of any number of dimensions without reading its values.

    Parameters
    ----------
    path : path-like
        A single ``.nii`` or ``.nii.gz`` file.

    Returns
    -------
    image : nibabel.Nifti1Image or nibabel.Nifti2Image
        ``image.dataobj`` reads from the file on demand.

    Raises
    ------
    InputMissingError
        If there is no such file, or it may not be read.
    DataError
        If the file is empty, cut, no NIfTI file, or does not hold what its header
        states.
    """
    path = Path(path)
    _check_readable(path)
    try:
        expected = _stated_bytes(path)
        _check_length(path, expected)
        return _opened(path)
    except (gzip.BadGzipFile, EOFError, zlib.error, struct.error) as error:
        raise DataError(
            f"is truncated or damaged ({error}); copy or download it again", path
        ) from error
    except OSError as error:
        raise InputMissingError(
            f"{path}: cannot be read ({error.strerror or error})"
        ) from error


def stated_shape(path: str | Path) -> tuple[int, ...] | None:
    """Shape that the header of a NIfTI file states; None where it has none to read.

    Nothing is checked: this is for telling what a file may be.
    """
    import nibabel

    try:
        return tuple(int(n) for n in nibabel.load(path).shape)
    except Exception:  # any damage; `open_volume` explains it
        return None


def load_mask(path: str | Path) -> Any:
    """Read a mask.

    Parameters
    ----------
    path : path-like
        A 3-D NIfTI file. Whole numbers other than 0 and 1, as in a label image, count
        as inside; nan counts as outside.

    Returns
    -------
    mask_img : nibabel.Nifti1Image of uint8
        1 inside, 0 outside.

    Raises
    ------
    InputMissingError
        If there is no such file.
    DataError
        If it is damaged, not 3-D, holds fractions (a probability map), or is empty.
    """
    import nibabel

    image = open_volume(path)
    if len(image.shape) != 3:
        raise DataError(
            f"expected a 3-D mask, got {len(image.shape)}-D (shape {image.shape}). "
            "Is this the series itself?",
            path,
        )
    values = np.nan_to_num(np.asanyarray(image.dataobj), nan=0.0)
    if not np.array_equal(values, np.round(values)):
        raise DataError(
            f"expected a mask of 0 and 1, got fractions between {values.min():.3g} and "
            f"{values.max():.3g}. If this is a probability map, threshold it first, "
            "for example with nilearn.image.binarize_img",
            path,
        )
    inside = values != 0
    if not inside.any():
        raise DataError("the mask is empty: no voxel differs from zero", path)
    mask = nibabel.Nifti1Image(inside.astype(np.uint8), image.affine, image.header)
    mask.set_data_dtype(np.uint8)
    mask.header.set_slope_inter(1, 0)
    return mask


def check_same_grid(
    image: Any,
    mask: Any,
    image_path: str | Path = "the image",
    mask_path: str | Path = "the mask",
) -> None:
    """Check that two images have the same voxels.

    Parameters
    ----------
    image, mask : nibabel images
        Their first three dimensions and their affines are compared.
    image_path, mask_path : path-like
        For the message.

    Raises
    ------
    DataError
        If the shapes differ, or the affines move any corner of the grid by more than
        0.001 mm.
    """
    shape, mask_shape = tuple(image.shape[:3]), tuple(mask.shape[:3])
    if shape == mask_shape:
        distance = grid_shift_mm(image.affine, mask.affine, shape)
        if distance <= _GRID_TOLERANCE_MM:
            return
        difference = f"their affines differ by up to {distance:.3g} mm"
    else:
        difference = f"their shapes are {shape} and {mask_shape}"
    raise DataError(
        f"{image_path} and {mask_path} are not on the same grid: {difference}. "
        "Resample the mask to the series, for example with "
        "nilearn.image.resample_to_img(mask, series, interpolation='nearest')"
    )


def grid_shift_mm(affine: Any, other: Any, shape: tuple[int, ...]) -> float:
    """Largest distance (mm) between where two affines place a corner of one grid."""
    corners = np.array([[*c, 1] for c in np.ndindex(2, 2, 2)], dtype=float)
    corners[:, :3] *= np.maximum(np.array(shape[:3]) - 1, 1)
    moved = corners @ (np.asarray(affine) - np.asarray(other)).T
    return float(np.linalg.norm(moved[:, :3], axis=1).max())


def _check_readable(path: Path) -> None:
    require_content(path)
    if not path.is_file():
        raise DataError("expected a NIfTI file, got a folder", path)
    if not path.name.lower().endswith(EXTENSIONS):
        raise DataError("expected a NIfTI file, .nii or .nii.gz", path)
    if path.stat().st_size == 0:
        raise DataError("the file is empty; copy or download it again", path)


def _is_compressed(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


def _stream(path: Path) -> BinaryIO:
    compressed = _is_compressed(path)
    with open(path, "rb") as file:
        found = file.read(2) == _GZIP_MAGIC
    if found and not compressed:
        raise DataError("is gzip-compressed: rename it to end in .nii.gz", path)
    if compressed and not found:
        raise DataError("is not gzip-compressed, or its first bytes are damaged", path)
    return cast(BinaryIO, gzip.open(path) if compressed else open(path, "rb"))


def _stated_bytes(path: Path) -> int:
    """Size of the uncompressed file as its header states it."""
    with _stream(path) as stream:
        header = _header(stream, path)
        shape, itemsize = _checked_layout(header, path)
        size = len(header.binaryblock)
        offset = float(header["vox_offset"])
        # 0 stands for "right after the header and its 4 bytes of extension flags".
        offset = size + 4 if offset == 0 else offset
        if not size <= offset <= size + _EXTENSION_BYTES:
            raise DataError(
                f"the header is damaged: it places the data at byte {offset:.6g}", path
            )
        _check_extensions(stream, int(offset) - size, header.endianness, path)
    return int(offset) + math.prod(shape) * itemsize


def _header(stream: BinaryIO, path: Path) -> Any:
    import nibabel
    from nibabel.spatialimages import HeaderDataError

    block = stream.read(348)
    sizes = {struct.unpack(code + "i", block[:4])[0] for code in "<>"}
    size = next(iter(sizes & set(_HEADER_BYTES)), None)
    if size is None:
        raise DataError("is not a NIfTI file: its header is damaged", path)
    block += stream.read(size - 348)
    if len(block) < size:
        raise DataError(
            "is truncated: its header is not complete; copy or download it again", path
        )
    kinds = {348: nibabel.Nifti1Header, 540: nibabel.Nifti2Header}
    try:
        header = kinds[size](binaryblock=block, check=False)
        magic = bytes(header["magic"])
    except (HeaderDataError, ValueError) as error:
        raise DataError(f"the header is damaged ({error})", path) from error
    if not magic.startswith((b"n+1", b"n+2")):
        raise DataError(
            "is not a single-file NIfTI image; convert it, for example with "
            "nibabel.save(nibabel.load(old), 'new.nii.gz')",
            path,
        )
    return header


def _checked_layout(header: Any, path: Path) -> tuple[tuple[int, ...], int]:
    from nibabel.spatialimages import HeaderDataError

    n_dims = int(header["dim"][0])
    if not 1 <= n_dims <= 7:
        raise DataError(f"the header is damaged: it states {n_dims} dimensions", path)
    shape = tuple(int(n) for n in header["dim"][1 : 1 + n_dims])
    if min(shape) < 1:
        raise DataError(f"the header is damaged: it states the shape {shape}", path)
    try:
        dtype = header.get_data_dtype()
    except (HeaderDataError, KeyError) as error:
        raise DataError(f"the header states no known data type ({error})", path) from (
            error
        )
    if dtype.kind not in "iuf":
        raise DataError(f"expected real numbers, got the data type {dtype}", path)
    return shape, int(dtype.itemsize)


def _check_extensions(
    stream: BinaryIO, n_bytes: int, endianness: str, path: Path
) -> None:
    """An extension that claims a negative size would be read to the end of the file."""
    block = stream.read(max(n_bytes, 0))
    if len(block) < 4 or block[0] == 0:
        return
    position = 4
    while len(block) - position >= 16:
        (size,) = struct.unpack_from(f"{endianness}i", block, position)
        if not 8 <= size <= len(block) - position:
            raise DataError("an extension of the header is damaged", path)
        position += size


def _check_length(path: Path, expected: int) -> None:
    """Compare the length of the (uncompressed) file with the stated one."""
    stored = path.stat().st_size
    if not _is_compressed(path):
        found = stored
    elif expected > _LARGEST_GZIP_RATIO * stored + _PADDING_BYTES:
        raise DataError(
            f"the header states {expected:,} bytes, more than a compressed file of "
            f"{stored:,} bytes can hold: the file is truncated, or its header damaged; "
            "copy or download it again",
            path,
        )
    else:
        found = _uncompressed_bytes(path, limit=expected + _PADDING_BYTES)
    if found < expected:
        raise DataError(
            f"is truncated: the header states {expected:,} bytes, the file holds "
            f"{found:,}; copy or download it again",
            path,
        )
    if found > expected + _PADDING_BYTES:
        raise DataError(
            f"holds more data than its header states ({expected:,} bytes): the header "
            "is damaged; copy or download it again",
            path,
        )


def _uncompressed_bytes(path: Path, limit: int) -> int:
    """Length of a compressed file, read in pieces; stops soon after ``limit``."""
    found = 0
    try:
        with _stream(path) as stream:
            while found <= limit and (chunk := stream.read(_CHUNK_BYTES)):
                found += len(chunk)
    except EOFError as error:
        raise DataError(
            "is truncated: its compressed data end too early; copy or download it "
            "again",
            path,
        ) from error
    return found


def _opened(path: Path) -> Any:
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    try:
        image = nibabel.load(path)
    except (HeaderDataError, ImageFileError, ValueError, OverflowError) as error:
        raise DataError(f"the header is damaged ({error})", path) from error
    if isinstance(image, nibabel.Cifti2Image):
        raise DataError(
            "is a CIFTI file (.dtseries.nii), which is not read; use the volume or the "
            "GIFTI surfaces of the same run",
            path,
        )
    if not isinstance(image, nibabel.Nifti1Image):
        raise DataError(f"expected a NIfTI image, got {type(image).__name__}", path)
    affine = np.asarray(image.affine)
    with np.errstate(all="ignore"):
        volume_mm3 = abs(np.linalg.det(affine[:3, :3]))
    if not np.isfinite(affine).all() or not 0 < volume_mm3 < np.inf:
        raise DataError(
            "the header places no voxel: its affine is not finite, or flat", path
        )
    return image
