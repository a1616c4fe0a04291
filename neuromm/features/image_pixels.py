"""Images to pixels, and pixels to what a vision network expects.

Pillow resizes, NumPy does the rest: no torchvision. The settings are those of a
transformers ``preprocessor_config.json``.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromm.core import DataError, InputMissingError, UsageError
from neuromm.core.files import read_json
from neuromm.features.film_file import FilmFrame, frame_pixels

__all__ = ["ImagePreparation", "luminance", "read_pixels", "read_preparation"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_BILINEAR, _BICUBIC = 2, 3  # Pillow's codes, which preprocessor_config.json holds
_STEPS_NOT_DONE = (
    "do_pad",
    "do_flip_channel_order",
    "do_thumbnail",
    "do_align_long_axis",
)
# sRGB, IEC 61966-2-1: weights of linear light (Rec. 709 primaries).
_LUMINANCE_WEIGHTS = (0.2126, 0.7152, 0.0722)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePreparation:
    """Resize, crop and normalise images; call it with pixels.

    Attributes
    ----------
    height, width : int or None
        The image is stretched to this size; None where ``shortest_edge`` is given, or
        where it is not resized.
    shortest_edge : int or None
        The shorter side gets this length, the other one keeps the ratio.
    crop_height, crop_width : int or None
        Cut out of the middle; None keeps all.
    resample : int
        Pillow's code: 0 nearest, 2 bilinear, 3 bicubic.
    scale : float
        By which values from 0 to 255 are multiplied.
    mean, std : tuple of three float
        Per channel, after scaling.
    """

    height: int | None = None
    width: int | None = None
    shortest_edge: int | None = None
    crop_height: int | None = None
    crop_width: int | None = None
    resample: int = _BICUBIC
    scale: float = 1 / 255
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __call__(self, images: Sequence[object]) -> NDArray[np.float32]:
        """Map n images to an array of shape (n, 3, height, width)."""
        return np.stack([self._prepared(read_pixels(image)) for image in images])

    @property
    def description(self) -> str:
        """The settings as one line of JSON: part of a cache key and of a table."""
        return json.dumps(asdict(self), sort_keys=True)

    def _prepared(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        pixels = self._cropped(self._resized(pixels))
        scaled = pixels.astype(np.float64) * self.scale
        normal = (scaled - np.asarray(self.mean)) / np.asarray(self.std)
        return np.ascontiguousarray(normal.transpose(2, 0, 1), dtype=np.float32)

    def _resized(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = pixels.shape[:2]
        if self.shortest_edge is not None:
            short = min(height, width)
            # Rounded down, as transformers and torchvision do.
            height = int(self.shortest_edge * height / short)
            width = int(self.shortest_edge * width / short)
        elif self.height is not None and self.width is not None:
            height, width = self.height, self.width
        if (height, width) == pixels.shape[:2]:
            return pixels
        from PIL import Image

        image = Image.fromarray(pixels).resize(
            (width, height), Image.Resampling(self.resample)
        )
        return np.asarray(image)

    def _cropped(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self.crop_height is None or self.crop_width is None:
            return pixels
        height, width = pixels.shape[:2]
        if height < self.crop_height or width < self.crop_width:
            raise DataError(
                f"an image of {height} x {width} pixels is smaller than the crop of "
                f"{self.crop_height} x {self.crop_width}: does its preparation "
                "(preprocessor_config.json) resize before it crops?"
            )
        top = (height - self.crop_height) // 2
        left = (width - self.crop_width) // 2
        return pixels[top : top + self.crop_height, left : left + self.crop_width]


def read_pixels(image: object) -> NDArray[np.uint8]:
    """Pixels of an image: a path, a frame of a film, a Pillow image, or an array.

    Parameters
    ----------
    image : path-like, FilmFrame, PIL.Image.Image or array
        An array has the shape (height, width), (height, width, 3) or (height, width, 4)
        and holds integers from 0 to 255 or floats from 0 to 1. Transparency is dropped,
        as Pillow's conversion to RGB does.

    Returns
    -------
    pixels : array of uint8 of shape (height, width, 3)

    Raises
    ------
    InputMissingError
        If nothing lies at the path.
    DataError
        If the file is no image, or an array has another shape, type or range.
    """
    if isinstance(image, str | Path):
        return _file_pixels(Path(image))
    if isinstance(image, FilmFrame):
        return frame_pixels(image)
    if hasattr(image, "convert"):  # a Pillow image
        return np.asarray(image.convert("RGB"))
    array = np.asarray(image)
    if array.ndim != 2 and (array.ndim != 3 or array.shape[2] not in (1, 3, 4)):
        raise DataError(
            "an image must have the shape (height, width) or (height, width, 3), got "
            f"{array.shape}. Put channels last; a frame a call."
        )
    if array.dtype == np.uint8:
        return _rgb(array)
    if array.dtype.kind == "f":
        if not (np.isfinite(array).all() and 0 <= array.min() <= array.max() <= 1):
            raise DataError(
                f"an image of {array.dtype} must lie between 0 and 1, got "
                f"{array.min():g} to {array.max():g}: divide by the largest value that "
                "the format allows"
            )
        return _rgb(np.rint(array * 255).astype(np.uint8))
    if array.dtype.kind in "iu" and 0 <= array.min() <= array.max() <= 255:
        return _rgb(array.astype(np.uint8))
    found = f" up to {array.max()}" if array.dtype.kind in "iu" else ""
    raise DataError(
        "an image must hold integers from 0 to 255 or floats from 0 to 1, got "
        f"{array.dtype}{found}"
    )


def luminance(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Relative luminance of sRGB pixels: black is 0, white is 1, in linear light.

    Parameters
    ----------
    pixels : array of uint8 of shape (..., 3)

    Returns
    -------
    luminance : array of shape (...)

    References
    ----------
    IEC 61966-2-1 (sRGB).

    Examples
    --------
    >>> luminance(np.array([[0, 0, 0], [255, 255, 255]], dtype=np.uint8)).round(6)
    array([0., 1.])
    """
    light: NDArray[np.float64] = _LINEAR_LIGHT[pixels] @ np.asarray(_LUMINANCE_WEIGHTS)
    return light


def read_preparation(folder: Path) -> ImagePreparation:
    """Settings of a folder's ``preprocessor_config.json`` (or processor_config.json).

    Raises
    ------
    InputMissingError
        If the folder has neither.
    UsageError
        If the file asks for a step that is not done here, such as padding.
    """
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (folder / name).is_file():
            settings = read_json(folder / name)
            nested = settings.get("image_processor", settings)
            if "image_mean" in nested or "image_processor_type" in nested:
                return _preparation(nested, folder / name)
    raise InputMissingError(
        f"{folder} has no preprocessor_config.json: without it, nobody knows how the "
        "network wants its images. Copy it from where the weights came from."
    )


def _file_pixels(path: Path) -> NDArray[np.uint8]:
    from PIL import Image

    if not path.is_file():
        raise InputMissingError(f"no image at {path}")
    try:
        with Image.open(path) as image:
            return read_pixels(image)
    except (DataError, MemoryError):
        raise
    except Exception as error:  # damage raises several types; bombs one of their own
        raise DataError(f"is no readable image ({error})", path) from error


def _rgb(array: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if array.ndim == 2 or array.shape[2] == 1:
        grey = array if array.ndim == 2 else array[:, :, 0]
        return np.repeat(grey[:, :, None], 3, axis=2)
    return np.ascontiguousarray(array[:, :, :3])


def _linear_light() -> NDArray[np.float64]:
    coded = np.arange(256) / 255
    return np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)


_LINEAR_LIGHT = _linear_light()


def _preparation(settings: Mapping[str, Any], path: Path) -> ImagePreparation:
    for step in _STEPS_NOT_DONE:
        if settings.get(step):
            raise UsageError(
                f"{path} asks for {step}, which is not done here. Compute the features "
                "with the model's own tools and pass them as a table (--features)."
            )
    kind = str(
        settings.get("image_processor_type", settings.get("feature_extractor_type", ""))
    )
    normalised = settings.get("do_normalize", True)
    return ImagePreparation(
        **_size(settings, kind, path),
        resample=int(settings.get("resample", _BILINEAR)),
        scale=(
            float(settings.get("rescale_factor", 1 / 255))
            if settings.get("do_rescale", True)
            else 1.0
        ),
        mean=_channels(settings.get("image_mean"), path) if normalised else (0.0,) * 3,
        std=_channels(settings.get("image_std"), path) if normalised else (1.0,) * 3,
    )


def _size(settings: Mapping[str, Any], kind: str, path: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    size = settings.get("size")
    if settings.get("do_resize", True):
        short = kind.startswith(("CLIP", "ConvNext", "ChineseCLIP"))
        if isinstance(size, int):  # written by transformers before 4.26
            size = {"shortest_edge": size} if short else {"height": size, "width": size}
        known = {k: int(v) for k, v in (size or {}).items() if v is not None}
        if set(known) == {"shortest_edge"}:
            found = _shortest(known["shortest_edge"], settings, kind)
        elif set(known) == {"height", "width"}:
            found = known
        else:
            raise UsageError(
                f"{path}: size must be a shortest_edge, or height and width, got {size}"
            )
    if settings.get("do_center_crop"):
        crop = settings.get("crop_size", size)
        crop = {"height": crop, "width": crop} if isinstance(crop, int) else crop
        found |= {f"crop_{side}": int(crop[side]) for side in ("height", "width")}
    return found


def _shortest(edge: int, settings: Mapping[str, Any], kind: str) -> dict[str, int]:
    if not kind.startswith("ConvNext"):
        return {"shortest_edge": edge}
    if edge >= 384:  # ConvNeXt at its larger sizes is stretched, not cropped
        return {"height": edge, "width": edge}
    share = float(settings.get("crop_pct") or 224 / 256)
    return {
        "shortest_edge": int(edge / share),
        "crop_height": edge,
        "crop_width": edge,
    }


def _channels(values: Any, path: Path) -> tuple[float, ...]:
    listed = [values] * 3 if isinstance(values, int | float) else values
    if not isinstance(listed, list) or len(listed) != 3:
        raise UsageError(
            f"{path}: image_mean and image_std must have three numbers, got {values!r}"
        )
    return tuple(float(value) for value in listed)
