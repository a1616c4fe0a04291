"""GIFTI surface series: checked in a first pass, then read by nibabel.

GIFTI is XML with compressed blocks. The first pass refuses entities, blocks that
unpack to more than their stated dimensions, and data in other files.

References
----------
GIFTI Surface Data Format, version 1.0, https://www.nitrc.org/projects/gifti
"""

import base64
import binascii
import math
import re
import zlib
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element  # the type alone: parsed by defusedxml

from neuromm.core import DataError, InputMissingError
from neuromm.io.content import require_content

__all__ = ["EXTENSIONS", "open_surface_pair", "surface_shape"]

EXTENSIONS = (".func.gii",)

_SIDES = {"L": "left", "R": "right"}
# fsaverage (163,842 vertices) with 4,000 volumes is 2.6 GB of base64.
_LARGEST_FILE_BYTES = 4 * 2**30


def open_surface_pair(path: str | Path) -> dict[str, Any]:
    """Read both hemispheres of a surface series.

    Parameters
    ----------
    path : path-like
        The file of either hemisphere, with ``hemi-L`` or ``hemi-R`` in its name.

    Returns
    -------
    images : dict
        ``{"left": GiftiImage, "right": GiftiImage}``, with equally many volumes.

    Raises
    ------
    InputMissingError
        If the file, or that of the other hemisphere, is not there.
    DataError
        If a file is damaged, its name states no hemisphere, or the hemispheres have
        different numbers of volumes.
    """
    paths = _pair(Path(path))
    images = {side: _open_surface(file) for side, file in paths.items()}
    volumes = {side: surface_shape(image)[0] for side, image in images.items()}
    if volumes["left"] != volumes["right"]:
        raise DataError(
            f"the hemispheres differ: {volumes['left']} volumes in "
            f"{paths['left'].name}, {volumes['right']} in {paths['right'].name}",
            path,
        )
    return images


def surface_shape(image: Any) -> tuple[int, int]:
    """Numbers of volumes and of vertices of a surface series.

    Parameters
    ----------
    image : nibabel.GiftiImage
        One data array a volume, or a single one of shape (n_vertices, n_volumes).

    Returns
    -------
    n_volumes, n_vertices : int
    """
    shapes = [array.data.shape for array in image.darrays]
    if len(shapes) == 1 and len(shapes[0]) == 2:
        n_vertices, n_volumes = shapes[0]
        return n_volumes, n_vertices
    return len(shapes), shapes[0][0] if shapes else 0


def _pair(path: Path) -> dict[str, Path]:
    found = re.search(r"(?:^|_)hemi-([LR])(?=_)", path.name)
    if found is None:
        raise DataError(
            "expected hemi-L or hemi-R in the name of a surface file, got neither",
            path,
        )
    position = found.start(1)
    paths = {
        name: path.with_name(path.name[:position] + side + path.name[position + 1 :])
        for side, name in _SIDES.items()
    }
    require_content(path)
    for sibling in paths.values():
        if not sibling.exists():
            raise InputMissingError(
                f"{sibling}: the other hemisphere of {path.name} is not there; both "
                "are needed"
            )
    return paths


def _open_surface(path: Path) -> Any:
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.gifti.parse_gifti_fast import GiftiParseError

    if not path.is_file():
        raise DataError("expected a GIFTI file, got a folder", path)
    n_bytes = path.stat().st_size
    if n_bytes == 0:
        raise DataError("the file is empty; copy or download it again", path)
    if n_bytes > _LARGEST_FILE_BYTES:
        raise DataError(f"is too large for a surface series ({n_bytes:,} bytes)", path)
    require_content(path)
    lengths = _checked_blocks(path)
    if len(set(lengths)) != 1:
        raise DataError(
            f"expected a series of equally long vectors, got lengths {set(lengths)}",
            path,
        )
    try:
        image = nibabel.load(path)
    except (
        ImageFileError,
        GiftiParseError,
        ValueError,
        KeyError,
        AssertionError,
        zlib.error,
    ) as error:
        raise DataError(f"is not a valid GIFTI file ({error})", path) from error
    n_volumes, _ = surface_shape(image)
    if n_volumes < 2:
        raise DataError(
            f"expected a series of at least two volumes, got {n_volumes}. Is this a "
            "single map?",
            path,
        )
    return image


def _checked_blocks(path: Path) -> list[tuple[int, ...]]:
    """Dimensions of each data array, after its content was found to fit them."""
    from xml.etree.ElementTree import ParseError

    from defusedxml.common import DefusedXmlException
    from defusedxml.ElementTree import iterparse

    dims = []
    try:
        for _, element in iterparse(path, events=("end",)):
            if element.tag == "DataArray":
                dims.append(_checked_block(element, path))
                element.clear()
    except ParseError as error:
        raise DataError(
            f"is truncated or damaged ({error}); copy or download it again", path
        ) from error
    except DefusedXmlException as error:
        raise DataError(
            f"declares XML entities, which are refused ({error})", path
        ) from error
    if not dims:
        raise DataError("is not a GIFTI file, or holds no data array", path)
    return dims


def _checked_block(element: Element, path: Path) -> tuple[int, ...]:
    itemsizes = {"UINT8": 1, "INT32": 4, "FLOAT32": 4, "FLOAT64": 8}
    kind = element.get("DataType", "").removeprefix("NIFTI_TYPE_")
    try:
        n_dims = int(element.get("Dimensionality", ""))
        dims = tuple(int(element.get(f"Dim{i}", "")) for i in range(min(n_dims, 7)))
        expected = math.prod(dims) * itemsizes[kind]
        text = element.findtext("Data") or ""
        found = _block_bytes(text, element.get("Encoding", ""), expected)
    except (KeyError, ValueError, binascii.Error, zlib.error) as error:
        raise DataError(
            f"is truncated or damaged: a data array cannot be read ({error})", path
        ) from error
    if not dims or min(dims) < 1 or found not in (expected, None):
        raise DataError(
            f"is damaged: a data array states the dimensions {dims} ({expected:,} "
            f"bytes) and holds {found or 0:,} bytes",
            path,
        )
    return dims


def _block_bytes(text: str, encoding: str, expected: int) -> int | None:
    """Unpacked length, stopping one byte beyond the expected; None for plain text."""
    if encoding == "ASCII":
        return None  # no longer than the file itself
    if encoding not in ("Base64Binary", "GZipBase64Binary"):
        raise ValueError(f"the encoding {encoding!r} is not supported")
    content = base64.b64decode(text)
    if encoding == "Base64Binary":
        return len(content)
    # The stated length is bounded by what deflate can pack into the block.
    if expected > 1032 * len(content) + 1024:
        return 0
    return len(zlib.decompressobj().decompress(content, expected + 1))
