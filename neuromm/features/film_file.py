"""Frames of a film file, read in order, never the whole film.

Files that need a codec (.mp4, .mkv, …) are decoded by PyAV (extra ``video``); animated
.gif, .webp and .apng by Pillow; a folder of numbered images is read as it lies there.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromm.core import DataError, InputMissingError
from neuromm.core.files import file_digest, read_json

__all__ = ["Film", "FilmFrame", "frame_digest", "frame_pixels", "is_film", "open_film"]

CODED = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")
_ANIMATED = (".apng", ".gif", ".webp")
_RATE = "FrameRate"


@dataclass(frozen=True, slots=True)
class FilmFrame:
    """A frame as a stimulus: an image that is read when it is embedded.

    Attributes
    ----------
    film : Path
    number : int
        From 0, in the order in which frames are shown.
    """

    film: Path
    number: int


@dataclass(frozen=True, eq=False)
class Film:
    """What a film file says of itself.

    Attributes
    ----------
    path : Path
    onsets : array of shape (n_frames,)
        When each frame is shown, in s from the first one.
    length_s : float
        Until the last frame is gone.
    """

    path: Path
    onsets: NDArray[np.float64]
    length_s: float

    def frame_at(self, times: NDArray[np.float64]) -> NDArray[np.intp]:
        """Number of the frame on the screen at each time (s); the last one stays."""
        # A cut at frame 25 of 30 a second is at 0.8333 s: rounding must not miss it.
        place = np.searchsorted(self.onsets, times + 1e-6, side="right") - 1
        return np.clip(place, 0, len(self.onsets) - 1).astype(np.intp)


def is_film(path: Path) -> bool:
    """Tell whether a path is a film: by its extension, or a folder, or its frames."""
    suffix = path.suffix.lower()
    if suffix in CODED or path.is_dir():
        return True
    if suffix not in _ANIMATED or not path.is_file():
        return False
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return bool(getattr(image, "is_animated", False))
    except (OSError, UnidentifiedImageError):
        return False  # a damaged image is told when it is read


def open_film(path: Path) -> Film:
    """Read when each frame is shown; decode none that a codec would have to.

    Raises
    ------
    InputMissingError
        If a folder of frames does not say its rate, or PyAV is not installed.
    DataError
        If the file is no film, or holds no frame.
    """
    if path.is_dir():
        return _folder_film(path)
    stamp = path.stat()
    return _opened(path, stamp.st_mtime_ns, stamp.st_size)


def frame_pixels(frame: FilmFrame) -> NDArray[np.uint8]:
    """Pixels of a frame, (height, width, 3); cheap where frames are asked for in order.

    Raises
    ------
    DataError
        If the frame cannot be decoded.
    """
    if frame.film.is_dir():
        from neuromm.features.film_frames import film_frames
        from neuromm.features.image_pixels import read_pixels

        return read_pixels(film_frames(frame.film)[frame.number])
    return _cursor(frame.film, frame.film.stat().st_mtime_ns).read(frame.number)


def frame_digest(frame: FilmFrame) -> bytes:
    """What a frame is, without decoding it: digest of its film, and its number."""
    if frame.film.is_dir():
        from neuromm.features.film_frames import film_frames

        return file_digest(film_frames(frame.film)[frame.number]).encode()
    stamp = frame.film.stat()
    digest = _film_digest(frame.film, stamp.st_mtime_ns, stamp.st_size)
    return f"{digest} {frame.number}".encode()


@lru_cache(maxsize=64)
def _film_digest(path: Path, _changed: int, _size: int) -> str:
    return file_digest(path)


@lru_cache(maxsize=64)
def _opened(path: Path, _changed: int, _size: int) -> Film:
    starts = list(_coded_onsets(path) if path.suffix.lower() in CODED else _gif(path))
    if not starts:
        raise DataError("holds no frame", path)
    onsets = np.array([start for start, _ in starts])
    order = np.argsort(onsets, kind="stable")
    last = starts[int(order[-1])]
    lasting = last[1] or (float(np.median(np.diff(onsets[order]))) if order[1:] else 0)
    length = last[0] + lasting - onsets[order[0]]
    return Film(path, onsets[order] - onsets[order[0]], float(length))


def _folder_film(path: Path) -> Film:
    from neuromm.features.film_frames import film_frames

    sidecar = path.with_name(f"{path.name}.json")
    frames = film_frames(path)
    if not sidecar.is_file():
        raise InputMissingError(
            f"{path} is a folder of frames, and {sidecar.name} beside it is missing: "
            f'expected {{"{_RATE}": 25}}, frames per second'
        )
    rate = read_json(sidecar).get(_RATE)
    if not isinstance(rate, int | float) or isinstance(rate, bool) or not rate > 0:
        raise DataError(f"{_RATE} must be frames per second, got {rate!r}", sidecar)
    return Film(path, np.arange(len(frames)) / rate, len(frames) / rate)


def _gif(path: Path) -> Iterator[tuple[float, float]]:
    """Onset and duration in s of each frame of an animated image."""
    from PIL import Image

    start = 0.0
    try:
        with Image.open(path) as image:
            for number in range(getattr(image, "n_frames", 1)):
                image.seek(number)
                image.load()
                lasting = float(image.info.get("duration") or 0) / 1000
                if lasting <= 0:
                    raise DataError(
                        f"frame {number + 1} does not say how long it is shown", path
                    )
                yield start, lasting
                start += lasting
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise DataError(f"is damaged ({error})", path) from error


def _coded_onsets(path: Path) -> Iterator[tuple[float, float]]:
    """Onset and duration in s of each frame, from packets, in the order of the file."""
    av = _av(path)
    try:
        with av.open(str(path)) as container:
            stream = _video(container, path)
            for packet in container.demux(stream):
                if packet.pts is not None and packet.size:
                    base = float(packet.time_base)
                    yield packet.pts * base, (packet.duration or 0) * base
    except av.error.FFmpegError as error:
        raise DataError(f"is no film that FFmpeg reads ({error})", path) from error


def _av(path: Path) -> Any:
    from neuromm._optional import require

    try:
        return require("av", extra="video")
    except ImportError as error:
        raise InputMissingError(
            f"{path.name} needs a codec: {error}. Or cut it into a folder of numbered "
            "images."
        ) from error


def _video(container: Any, path: Path) -> Any:
    if not container.streams.video:
        raise DataError("holds no video stream", path)
    return container.streams.video[0]


@lru_cache(maxsize=1)
def _cursor(path: Path, _changed: int) -> "_Cursor":
    """One film is open at a time: stimuli come film by film."""
    return _Cursor(path)


class _Cursor:
    """A film that is read forwards; going back begins anew."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._number = -1
        self._frames: Iterator[NDArray[np.uint8]] = iter(())
        self._pixels: NDArray[np.uint8] = np.empty((0, 0, 3), dtype=np.uint8)

    def read(self, number: int) -> NDArray[np.uint8]:
        if number < self._number or self._number < 0:
            coded = self._path.suffix.lower() in CODED
            self._frames = self._decoded() if coded else self._animated()
            self._number = -1
        while self._number < number:
            pixels = next(self._frames, None)
            if pixels is None:
                found = self._number + 1
                self._number = -1
                raise DataError(
                    f"frame {number + 1} cannot be decoded: only {found} are there",
                    self._path,
                )
            self._number, self._pixels = self._number + 1, pixels
        return self._pixels

    def _decoded(self) -> Iterator[NDArray[np.uint8]]:
        av = _av(self._path)
        try:
            with av.open(str(self._path)) as container:
                for frame in container.decode(_video(container, self._path)):
                    yield frame.to_ndarray(format="rgb24")
        except av.error.FFmpegError as error:
            raise DataError(f"cannot be decoded ({error})", self._path) from error

    def _animated(self) -> Iterator[NDArray[np.uint8]]:
        from PIL import Image

        try:
            with Image.open(self._path) as image:
                for number in range(getattr(image, "n_frames", 1)):
                    image.seek(number)
                    yield np.asarray(image.convert("RGB"))
        except (OSError, ValueError, SyntaxError, EOFError) as error:
            raise DataError(f"is damaged ({error})", self._path) from error
