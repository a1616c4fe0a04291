"""Slides: pictures of tissue that are read a region at a time.

Whole-slide formats go through OpenSlide (extra ``wsi``); PNG, JPEG and plain TIFF are
decoded by Pillow when they are first read, as long as they are not too large for that.
"""

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromm._optional import require
from neuromm.core import DataError, ResourceLimitError, UsageError

__all__ = ["PICTURES", "WHOLE_SLIDES", "Slide", "open_slide"]

WHOLE_SLIDES = (".svs", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide")
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
_TIFF = (".tif", ".tiff")

# A picture is decoded as a whole: three bytes a pixel.
_LARGEST_PICTURE = 500 * 10**6  # pixels
_PLAUSIBLE_UM = (0.05, 50.0)

# What a whole file ends with; some programs append more.
_ENDS = {"PNG": b"IEND\xaeB`\x82", "JPEG": b"\xff\xd9"}
_TAIL_BYTES = 2**16
# Tags of a TIFF: offsets and lengths of strips, and of tiles.
_TIFF_PARTS = ((273, 279), (324, 325))


class Slide:
    """A picture of tissue, read a region at a time.

    Made by `open_slide`.

    Attributes
    ----------
    path : Path
    width, height : int
        Of the full-resolution picture, in pixels.
    microns_per_pixel : float
        Of the full-resolution picture.
    downsamples : tuple of float
        Of the levels that are stored, 1 first.
    """

    def __init__(
        self,
        path: Path,
        size: tuple[int, int],
        microns_per_pixel: float,
        source: "_OpenSlide | _Picture",
        scale: float = 1.0,
    ) -> None:
        self.path = path
        self.width, self.height = size
        self.microns_per_pixel = microns_per_pixel
        self._source = source
        self._scale = scale
        self.downsamples = tuple(one / scale for one in source.downsamples)

    def __repr__(self) -> str:
        return (
            f"<Slide {self.path.name}: {self.width} x {self.height} pixels of "
            f"{self.microns_per_pixel:.4g} um>"
        )

    @property
    def is_in_memory(self) -> bool:
        """Whether pixels have been decoded and are kept."""
        return self._source.is_in_memory

    def read(
        self,
        x: float,
        y: float,
        width: int,
        height: int,
        *,
        downsample: float = 1.0,
        fill: int = 255,
    ) -> NDArray[np.uint8]:
        """Read a region.

        Parameters
        ----------
        x, y : float
            Its upper left corner, in pixels of the full-resolution picture. May lie
            outside.
        width, height : int
            Of the result.
        downsample : float
            Pixels of the full-resolution picture along a pixel of the result.
        fill : int
            Value outside of the picture.

        Returns
        -------
        region : array of shape (height, width, 3), uint8
            RGB; what is transparent has the value ``fill``.

        Raises
        ------
        DataError
            If the file is damaged there.
        """
        if width < 1 or height < 1 or not downsample > 0:
            raise UsageError(
                f"a region measures one pixel at least, got {width} x {height} with a "
                f"downsample of {downsample:g}"
            )
        scale = self._scale
        return self._source.read(
            x * scale, y * scale, width, height, downsample * scale, fill
        )

    def thumbnail(self, longest: int = 1024) -> NDArray[np.uint8]:
        """The whole picture in small.

        Parameters
        ----------
        longest : int
            Pixels along the longer side, or fewer if the picture has fewer.

        Returns
        -------
        picture : array of shape (height, width, 3), uint8
        """
        stored = self.downsamples[0]
        downsample = max(max(self.width, self.height) / longest, stored)
        size = (
            max(math.floor(side / downsample + 1e-6), 1)
            for side in (self.width, self.height)
        )
        return self.read(0, 0, *size, downsample=downsample)


def open_slide(
    path: str | Path,
    *,
    microns_per_pixel: float | None = None,
    scale: float = 1.0,
) -> Slide:
    """Open a picture of tissue.

    Parameters
    ----------
    path : path-like
    microns_per_pixel : float, optional
        Size of a pixel of the full-resolution picture; whole-slide formats state it.
    scale : float
        Size of the picture in that of the full-resolution one: 0.2 for a picture that
        was made smaller by five. Places and sizes stay those of the full-resolution
        picture.

    Raises
    ------
    ImportError
        If OpenSlide is needed and is not installed.
    UsageError
        If the size of a pixel is not known.
    ResourceLimitError
        If the picture is too large to be decoded as a whole.
    DataError
        If the file is damaged, or the size of a pixel impossible.
    """
    path = Path(path)
    if not 0 < scale <= 1:
        raise UsageError(f"scale must be above 0 and 1 at most, got {scale:g}")
    name = path.name.lower()
    source: _OpenSlide | _Picture
    if name.endswith(WHOLE_SLIDES):
        source = _OpenSlide(path)
    elif name.endswith(PICTURES):
        source = _opened_picture(path)
    else:
        known = ", ".join((*WHOLE_SLIDES, *PICTURES))
        raise UsageError(f"{path}: no picture of tissue (known: {known})")
    stated = source.microns_per_pixel
    size = microns_per_pixel
    if size is None and stated is not None:
        size = stated * scale
    if size is None:
        raise UsageError(
            f"{path}: the size of a pixel is not known. Give it as microns_per_pixel, "
            "or in a .json beside the picture with PixelSize and PixelSizeUnits (BIDS)"
        )
    if not _PLAUSIBLE_UM[0] <= size <= _PLAUSIBLE_UM[1]:
        raise DataError(
            f"a pixel would measure {size:.4g} um, expected {_PLAUSIBLE_UM[0]:g} to "
            f"{_PLAUSIBLE_UM[1]:g} um. Is its size in another unit?",
            path,
        )
    whole = tuple(round(side / scale) for side in source.size)
    return Slide(path, (whole[0], whole[1]), float(size), source, scale)


def _opened_picture(path: Path) -> "_OpenSlide | _Picture":
    picture = _Picture(path)
    n_pixels = picture.size[0] * picture.size[1]
    if n_pixels <= _LARGEST_PICTURE:
        return picture
    if path.name.lower().endswith(_TIFF):
        return _OpenSlide(path)
    raise ResourceLimitError(
        f"{path}: {picture.size[0]} x {picture.size[1]} pixels are decoded at once, "
        f"more than {_LARGEST_PICTURE / 1e6:.0f} million. Convert it to a tiled TIFF "
        "(vips tiffsave --tile --pyramid), which is read by regions"
    )


class _OpenSlide:
    """A file that OpenSlide reads."""

    is_in_memory = False

    def __init__(self, path: Path) -> None:
        openslide = require("openslide", extra="wsi")
        self._path = path
        try:
            self._slide: Any = openslide.OpenSlide(str(path))
        except (openslide.OpenSlideError, OSError) as error:
            raise DataError(
                f"cannot be read as a slide ({error}): is it cut or damaged?", path
            ) from error
        self.size: tuple[int, int] = tuple(self._slide.dimensions)
        self.downsamples: Sequence[float] = tuple(self._slide.level_downsamples)
        self.microns_per_pixel = self._stated()

    def read(
        self, x: float, y: float, width: int, height: int, downsample: float, fill: int
    ) -> NDArray[np.uint8]:
        import openslide
        from PIL import Image

        # A level no coarser than what is asked for, made smaller by less than two.
        level = self._slide.get_best_level_for_downsample(downsample * (1 + 1e-6))
        step = downsample / self.downsamples[level]
        stored = (max(round(width * step), 1), max(round(height * step), 1))
        corner = (round(x), round(y))
        try:
            region = self._slide.read_region(corner, level, stored)
        except (openslide.OpenSlideError, OSError) as error:
            raise DataError(
                f"cannot be read at x {x:.0f}, y {y:.0f} ({error})", self._path
            ) from error
        if stored != (width, height):
            region = region.resize((width, height), Image.Resampling.BOX)
        pixels = np.asarray(region, dtype=np.float64)
        opacity = pixels[..., 3:] / 255
        mixed = pixels[..., :3] * opacity + fill * (1 - opacity)
        return np.rint(mixed).astype(np.uint8)

    def _stated(self) -> float | None:
        sizes = [
            float(self._slide.properties.get(f"openslide.mpp-{axis}", "nan"))
            for axis in "xy"
        ]
        if not all(map(math.isfinite, sizes)):
            return None
        if abs(sizes[0] / sizes[1] - 1) > 0.01:
            raise DataError(
                f"its pixels are not square ({sizes[0]:.4g} x {sizes[1]:.4g} um)",
                self._path,
            )
        return sum(sizes) / 2


class _Picture:
    """A picture that Pillow decodes as a whole, when it is first read."""

    microns_per_pixel = None
    downsamples: Sequence[float] = (1.0,)

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._opened() as picture:
            self.size: tuple[int, int] = picture.size
            if not _is_whole(path, picture):
                raise DataError("is cut short: copy it again", path)

    @property
    def is_in_memory(self) -> bool:
        return "_pixels" in self.__dict__

    @cached_property
    def _pixels(self) -> NDArray[np.uint8]:
        with self._opened() as picture:
            try:
                return np.asarray(picture.convert("RGB"))
            except MemoryError:
                raise
            except Exception as error:  # Pillow meets damage with many errors
                raise DataError(
                    f"cannot be decoded ({error}): is it cut or damaged?", self._path
                ) from error

    def read(
        self, x: float, y: float, width: int, height: int, downsample: float, fill: int
    ) -> NDArray[np.uint8]:
        from PIL import Image

        left, top = round(x), round(y)
        wide, high = (max(round(n * downsample), 1) for n in (width, height))
        region = np.full((high, wide, 3), fill, dtype=np.uint8)
        columns = slice(max(left, 0), max(min(left + wide, self.size[0]), 0))
        rows = slice(max(top, 0), max(min(top + high, self.size[1]), 0))
        part = self._pixels[rows, columns]
        if part.size:
            place = rows.start - top, columns.start - left
            region[
                place[0] : place[0] + part.shape[0],
                place[1] : place[1] + part.shape[1],
            ] = part
        if (wide, high) == (width, height):
            return region
        is_smaller = wide >= width and high >= height
        way = Image.Resampling.BOX if is_smaller else Image.Resampling.BILINEAR
        return np.asarray(Image.fromarray(region).resize((width, height), way))

    def _opened(self) -> Any:
        from PIL import Image

        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(self._path)
        except MemoryError:
            raise
        except Exception as error:  # Pillow meets damage with many errors
            raise DataError(
                f"is no readable picture ({error}): is it cut or damaged?", self._path
            ) from error
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _is_whole(path: Path, picture: Any) -> bool:
    """Whether the file holds its end, or as a TIFF all that its tags point to."""
    if picture.format in _ENDS:
        with open(path, "rb") as file:
            file.seek(0, 2)
            file.seek(max(file.tell() - _TAIL_BYTES, 0))
            return _ENDS[picture.format] in file.read()
    tags = getattr(picture, "tag_v2", {})
    n_bytes = path.stat().st_size
    for offsets, counts in _TIFF_PARTS:
        if offsets in tags and counts in tags:
            pairs = zip(_as_tuple(tags[offsets]), _as_tuple(tags[counts]), strict=False)
            if any(start + count > n_bytes for start, count in pairs):
                return False
    return True


def _as_tuple(value: Any) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)
