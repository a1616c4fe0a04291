"""Features that were computed before: kept by weights, settings and stimuli.

A folder a set of features, named by a digest of all that the numbers depend on; in it a
part for each stretch of stimuli. Parts appear whole or not at all, so that a killed run
goes on where it stopped and ends with the same bytes.
"""

import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neuromm.core import DataError, UsageError
from neuromm.core.files import atomic_path, write_json
from neuromm.features.backbones import Attrs, WordInContext
from neuromm.features.film_file import FilmFrame, frame_digest
from neuromm.io.file_limits import check_npz

__all__ = [
    "FeatureCache",
    "computed_in_parts",
    "default_cache_folder",
    "stimulus_digest",
]

_VARIABLE = "NEUROMM_CACHE_DIR"
_LAYOUT = 1  # raised when older parts must not be read
_PART_ROWS = 128

Parts = dict[str, NDArray[np.float32]]
Compute = Callable[[Sequence[object]], Mapping[str, NDArray[np.float32]]]


def default_cache_folder() -> Path:
    """Folder of cached features.

    ``features`` below the environment variable NEUROMM_CACHE_DIR, else below
    ``$XDG_CACHE_HOME/neuromm``, else below ``~/.cache/neuromm``.
    """
    chosen = os.environ.get(_VARIABLE)
    if chosen:
        return Path(chosen) / "features"
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "neuromm" / "features"


class FeatureCache:
    """Features on disk, by what they were computed from.

    Parameters
    ----------
    folder : path-like, optional
        `default_cache_folder` if not given.
    part_rows : int
        Stimuli of a part: what a killed run loses at most.

    Notes
    -----
    A part that is damaged is computed again. Nothing is ever removed: delete the folder
    to free its space.
    """

    def __init__(
        self, folder: str | Path | None = None, *, part_rows: int = _PART_ROWS
    ) -> None:
        if part_rows < 1:
            raise UsageError(f"part_rows must be 1 or more, got {part_rows}")
        self.folder = default_cache_folder() if folder is None else Path(folder)
        self.part_rows = part_rows

    def computed(
        self,
        settings: Attrs,
        stimuli: Sequence[object],
        compute: Compute,
    ) -> Parts:
        """Give the features of stimuli, computing those that are not there.

        Parameters
        ----------
        settings : mapping of str to str, int or float
            All that the numbers depend on beside the stimuli: weights, preprocessing,
            layer, pooling, projection.
        stimuli : sequence
            See `stimulus_digest`.
        compute : callable
            Maps a part of the stimuli to arrays with a row each; the same names for
            each part.

        Returns
        -------
        features : dict of str to array of shape (n_stimuli, n_features)

        Raises
        ------
        OutputError
            If the folder cannot be written.
        """
        place = self.folder / self._key(settings, stimuli)
        parts = []
        for number, rows in enumerate(_stretches(stimuli, self.part_rows)):
            path = place / f"part-{number:05d}.npz"
            part = _read_part(path, len(rows))
            if part is None:
                if number == 0:
                    write_json(place / "settings.json", dict(settings))
                part = {name: np.asarray(v) for name, v in compute(rows).items()}
                _write_part(path, part)
            parts.append(part)
        return _joined(parts)

    def _key(self, settings: Attrs, stimuli: Sequence[object]) -> str:
        content = {
            "layout": _LAYOUT,
            "part_rows": self.part_rows,
            "settings": dict(settings),
            "stimuli": [stimulus_digest(stimulus) for stimulus in stimuli],
        }
        text = json.dumps(content, sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()


def computed_in_parts(stimuli: Sequence[object], compute: Compute) -> Parts:
    """Compute features in the parts in which a cache would keep them, and keep none.

    Numbers may depend in their last digit on what is computed together: they are the
    same with and without a cache.
    """
    return _joined([dict(compute(rows)) for rows in _stretches(stimuli, _PART_ROWS)])


def stimulus_digest(stimulus: object) -> str:
    """SHA-256 of a stimulus: of what is in it, never of where it lies.

    Parameters
    ----------
    stimulus : str, WordInContext, Path, FilmFrame, PIL.Image.Image, array, or a pair
        A str is a text; an image file must be given as a Path.

    Raises
    ------
    UsageError
        If it is something else.
    """
    digest = hashlib.sha256()
    _add(digest, stimulus)
    return digest.hexdigest()


def _stretches(stimuli: Sequence[object], n_rows: int) -> list[Sequence[object]]:
    return [stimuli[i : i + n_rows] for i in range(0, len(stimuli), n_rows)]


def _joined(parts: Sequence[Parts]) -> Parts:
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def _add(digest: "hashlib._Hash", stimulus: object) -> None:
    if isinstance(stimulus, str):
        digest.update(b"text" + _sized(stimulus.encode()))
    elif isinstance(stimulus, WordInContext):
        place = f"word {stimulus.start} {stimulus.end} ".encode()
        digest.update(place + _sized(stimulus.text.encode()))
    elif isinstance(stimulus, tuple | list):
        digest.update(f"pair {len(stimulus)} ".encode())
        for part in stimulus:
            _add(digest, part)
    elif isinstance(stimulus, FilmFrame):
        digest.update(b"frame " + _sized(frame_digest(stimulus)))
    else:
        _add_image(digest, stimulus)


def _add_image(digest: "hashlib._Hash", stimulus: object) -> None:
    from neuromm.features.image_pixels import read_pixels

    if not isinstance(stimulus, Path | np.ndarray) and not hasattr(stimulus, "convert"):
        raise UsageError(
            f"a stimulus must be a text, an image or a pair of them, got "
            f"{type(stimulus).__name__}"
        )
    # The pixels, not the file: metadata and the path change no feature.
    pixels = read_pixels(stimulus)
    digest.update(f"image {pixels.shape} ".encode() + _sized(pixels.tobytes()))


def _sized(content: bytes) -> bytes:
    return f"{len(content)}:".encode() + content


def _read_part(path: Path, n_rows: int) -> Parts | None:
    if not path.is_file():
        return None
    try:
        check_npz(path)
        with np.load(path, allow_pickle=False) as archive:
            part = {name: archive[name] for name in archive.files}
    except (DataError, OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None  # cut short or damaged: computed again
    if not part or any(len(values) != n_rows for values in part.values()):
        return None
    return part


def _write_part(path: Path, part: Parts) -> None:
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, allow_pickle=False, **part)  # type: ignore[arg-type]
