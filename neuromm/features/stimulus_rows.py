"""What is shown when: stimuli with the keys by which recordings find them.

Images and texts are keyed by ``stim_file``, words and frames by ``onset``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from neuromm.core import DataError, InputMissingError, UsageError
from neuromm.features.backbones import Modality, WordInContext
from neuromm.features.keys import KEYS, LABELS, MISSING, path_key, plain_label

__all__ = [
    "StimulusRows",
    "frame_rows",
    "image_rows",
    "paired_rows",
    "text_file_rows",
    "text_rows",
    "word_rows",
    "words_at",
]

Unit = Literal["words", "sentences"]

_LISTED = 10
_SAME_ONSET_S = 1e-3


@dataclass(frozen=True, eq=False)
class StimulusRows:
    """Stimuli, a row each.

    Attributes
    ----------
    stimuli : tuple
        Paths or arrays of images, texts, words in context, or pairs (image, text).
    keys : DataFrame
        One key (``stim_file``, ``trial_type`` or ``onset`` in s), and where known
        ``duration`` (s), ``run``, ``session`` and ``subject``.
    modality : {"image", "text", "joint"}
    """

    stimuli: tuple[object, ...]
    keys: pd.DataFrame
    modality: Modality

    def __post_init__(self) -> None:
        if len(self.stimuli) != len(self.keys):
            raise DataError(
                f"expected a key for each stimulus, got {len(self.keys)} keys and "
                f"{len(self.stimuli)} stimuli"
            )
        if not self.stimuli:
            raise DataError("no stimuli: expected one or more")


def image_rows(folder: str | Path, stim_file: Sequence[str]) -> StimulusRows:
    """Images of a folder, such as ``stimuli`` of a BIDS data set.

    Parameters
    ----------
    folder : path-like
    stim_file : sequence of str
        Paths below the folder as events name them; repeats and ``n/a`` are left out.

    Raises
    ------
    InputMissingError
        If files are missing; the message lists them.
    DataError
        If a path leads out of the folder.
    """
    paths = _files(Path(folder), stim_file)
    return StimulusRows(
        tuple(paths.values()), pd.DataFrame({"stim_file": list(paths)}), "image"
    )


def text_rows(
    texts: Mapping[str, str], *, key: Literal["stim_file", "trial_type"] = "stim_file"
) -> StimulusRows:
    """Texts by the stimulus or condition that they belong to: captions, category words.

    Parameters
    ----------
    texts : mapping of str to str
    key : {"stim_file", "trial_type"}
        What the keys of the mapping are.
    """
    if key not in ("stim_file", "trial_type"):
        raise UsageError(f'key must be "stim_file" or "trial_type", got {key!r}')
    return StimulusRows(tuple(texts.values()), pd.DataFrame({key: list(texts)}), "text")


def text_file_rows(folder: str | Path, stim_file: Sequence[str]) -> StimulusRows:
    """Texts of a folder: ``story.txt``, or ``anna.txt``, which describes ``anna.png``.

    Parameters
    ----------
    folder : path-like
    stim_file : sequence of str
        Paths below the folder as events name them. A file that is not ``.txt`` is
        described by the ``.txt`` of the same name beside it.

    Raises
    ------
    InputMissingError
        If files are missing; the message lists them.
    DataError
        If a file is no UTF-8 text, or empty.
    """
    paths = _files(Path(folder), stim_file, suffix=".txt")
    texts = {}
    for name, path in paths.items():
        try:
            texts[name] = path.read_text(encoding="utf-8-sig").strip()
        except UnicodeDecodeError as error:
            raise DataError(f"is not UTF-8 text ({error.reason})", path) from error
        if not texts[name]:
            raise DataError("is empty: expected a text", path)
    return text_rows(texts)


def word_rows(
    words: pd.DataFrame,
    *,
    column: str = "word",
    context: int = 20,
    unit: Unit = "words",
    vector: Literal["word", "text"] = "word",
) -> StimulusRows:
    """Words with what came before them, a row at each onset.

    Parameters
    ----------
    words : DataFrame
        A row a word: ``onset`` (s), ``column``, and where known ``duration``, ``run``,
        ``session``, ``subject`` and (for ``unit="sentences"``) ``sentence``, a label
        that changes from sentence to sentence. Rows without a word are left out.
    column : str
        Holds the words.
    context : int
        Previous words, or previous sentences beside the one of the word. Never more
        than the run holds: a context does not reach into another run.
    unit : {"words", "sentences"}
    vector : {"word", "text"}
        "word" asks the backbone for the mean over the sub-tokens of the word; "text"
        for the vector of the whole text up to the word.

    Returns
    -------
    rows : StimulusRows
        In the order of the onsets within each run.

    Raises
    ------
    DataError
        If a column is missing, or no word is left.
    """
    if vector not in ("word", "text"):
        raise UsageError(f'vector must be "word" or "text", got {vector!r}')
    told = _told_words(words, column, context, unit)
    stimuli = [told.stimulus(row) for row in range(len(told.words))]
    kept = [c for c in ("onset", "duration", *LABELS) if c in told.frame]
    return StimulusRows(
        tuple(s if vector == "word" else s.text for s in stimuli),
        told.frame[kept].reset_index(drop=True),
        "text",
    )


def words_at(
    words: pd.DataFrame,
    onsets: ArrayLike,
    *,
    column: str = "word",
    context: int = 20,
    unit: Unit = "words",
    run: str | None = None,
) -> StimulusRows:
    """Text around other events of a run, such as scene cuts: that of the nearest word.

    Parameters
    ----------
    words : DataFrame
        As in `word_rows`; of one run, or with a column ``run``.
    onsets : array of shape (n_events,)
        In s.
    column, context, unit
        As in `word_rows`.
    run : str, optional
        Takes the words of this run, and labels the rows with it.

    Returns
    -------
    rows : StimulusRows
        Plain texts, keyed by ``onsets``.

    Raises
    ------
    DataError
        If the words are of several runs and ``run`` is not given, or none is left.
    """
    if "run" in words:
        labels = words["run"].map(plain_label)
        if run is None and labels.nunique() > 1:
            raise DataError(
                f"the words are of runs {', '.join(sorted(set(labels)))}: name the run "
                "of the events"
            )
        if run is not None:
            words = words[labels == plain_label(run)]
    told = _told_words(words, column, context, unit)
    times = np.asarray(onsets, dtype=float)
    own = told.frame["onset"].to_numpy(dtype=float)
    after = np.clip(np.searchsorted(own, times), 0, len(own) - 1)
    before = np.clip(after - 1, 0, None)
    nearer = np.abs(own[before] - times) <= np.abs(own[after] - times)
    nearest = np.where(nearer, before, after)
    return StimulusRows(
        tuple(told.stimulus(int(row)).text for row in nearest),
        _onset_keys(times, run),
        "text",
    )


def frame_rows(
    frames: Sequence[object],
    fps: float,
    onsets: ArrayLike,
    *,
    run: str | None = None,
) -> StimulusRows:
    """Frames of a film at events: scene cuts, word onsets, or a regular grid.

    Parameters
    ----------
    frames : sequence
        Arrays or paths, such as `film_frames` gives; frame i is shown from i / fps on.
    fps : float
        Frames per second.
    onsets : array of shape (n_events,)
        In s from the beginning of the film, which must be that of the run.
    run : str, optional
        Labels the rows.

    Raises
    ------
    DataError
        If an onset lies before or after the film.
    """
    if not fps > 0:
        raise UsageError(f"fps must be positive, got {fps}")
    times = np.asarray(onsets, dtype=float)
    # A cut at frame 25 of 30 a second is at 0.8333 s: rounding must not miss it.
    number = np.floor(times * fps + 1e-6).astype(int)
    outside = times[(number < 0) | (number >= len(frames))]
    if len(outside):
        raise DataError(
            f"{len(outside)} onsets lie outside the film of {len(frames) / fps:g} s "
            f"({len(frames)} frames at {fps:g} a second), the first at {outside[0]:g} s"
        )
    return StimulusRows(
        tuple(frames[i] for i in number), _onset_keys(times, run), "image"
    )


def paired_rows(images: StimulusRows, texts: StimulusRows) -> StimulusRows:
    """Pair images and texts of the same key, in the order of the images.

    Parameters
    ----------
    images, texts : StimulusRows
        Keyed alike: by stimulus, or by onset (equal to the millisecond) and run.

    Raises
    ------
    DataError
        If the keys differ in kind, or an image has no text.
    """
    key = _key(images.keys)
    if (images.modality, texts.modality) != ("image", "text"):
        raise DataError(
            f"expected images and texts, got {images.modality} and {texts.modality}"
        )
    if _key(texts.keys) != key:
        raise DataError(
            f"images are keyed by {key} and texts by {_key(texts.keys)}: pair those "
            "that share a key"
        )
    place = {name: row for row, name in enumerate(_names(texts.keys, key))}
    wanted = _names(images.keys, key)
    lacking = [str(name[0]) for name in wanted if name not in place]
    if lacking:
        raise DataError(
            f"{len(lacking)} images have no text of the same {key}: "
            f"{', '.join(lacking[:_LISTED])}"
        )
    pairs = tuple(
        (image, texts.stimuli[place[name]])
        for image, name in zip(images.stimuli, wanted, strict=True)
    )
    return StimulusRows(pairs, images.keys, "joint")


@dataclass(frozen=True, eq=False)
class _ToldWords:
    """Words in order, and the row at which the context of each begins."""

    frame: pd.DataFrame
    words: list[str]
    first: NDArray[np.intp]

    def stimulus(self, row: int) -> WordInContext:
        text = " ".join(self.words[self.first[row] : row + 1])
        return WordInContext(text, len(text) - len(self.words[row]), len(text))


def _told_words(
    words: pd.DataFrame, column: str, context: int, unit: Unit
) -> _ToldWords:
    if unit not in get_args(Unit):
        raise UsageError(f'unit must be "words" or "sentences", got {unit!r}')
    if context < 0:
        raise UsageError(f"context must be 0 or more, got {context}")
    needed = ["onset", column, *(["sentence"] if unit == "sentences" else [])]
    lacking = [name for name in needed if name not in words]
    if lacking:
        raise DataError(
            f"the words have no column {', '.join(lacking)} (found: "
            f"{', '.join(map(str, words.columns))})"
        )
    words = words.assign(**{column: words[column].fillna("").astype(str).str.strip()})
    kept = words[~words[column].isin(MISSING)]
    if not len(kept):
        raise DataError(f"column {column} holds no word")
    labels = [name for name in ("subject", "session", "run") if name in kept]
    # In the order in which runs come, and in time within each.
    recording = np.zeros(len(kept), dtype=np.intp)
    if labels:
        recording[:] = kept.groupby(labels, sort=False).ngroup().to_numpy()
    order = np.lexsort((kept["onset"].to_numpy(dtype=float), recording))
    frame, recording = kept.iloc[order], recording[order]
    begins = np.flatnonzero(np.diff(recording, prepend=-1))[
        np.cumsum(np.diff(recording, prepend=-1) != 0) - 1
    ]
    rows = np.arange(len(frame))
    if unit == "words":
        first = np.maximum(rows - context, begins)
    else:
        first = np.maximum(_sentence_begin(frame, recording, context), begins)
    return _ToldWords(frame, frame[column].tolist(), first)


def _sentence_begin(
    frame: pd.DataFrame, recording: NDArray[np.intp], context: int
) -> NDArray[np.intp]:
    label = frame["sentence"].astype(str).to_numpy()
    changes = np.ones(len(label), dtype=bool)
    changes[1:] = (label[1:] != label[:-1]) | (recording[1:] != recording[:-1])
    starts = np.flatnonzero(changes)
    number = np.cumsum(changes) - 1
    begins: NDArray[np.intp] = starts[np.maximum(number - context, 0)]
    return begins


def _files(
    folder: Path, stim_file: Sequence[str], suffix: str | None = None
) -> dict[str, Path]:
    root = folder.resolve()
    found: dict[str, Path] = {}
    missing = []
    for name in dict.fromkeys(path_key(str(n)) for n in stim_file):
        if name in MISSING or name == "nan":
            continue
        path = folder / name
        path = path if suffix is None else path.with_suffix(suffix)
        if not path.resolve().is_relative_to(root):
            raise DataError(f"{name} leads out of {folder}: stimuli lie below it")
        if not path.is_file():
            missing.append(str(path.relative_to(folder)))
        found[name] = path
    if missing:
        more = f" and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
        raise InputMissingError(
            f"{folder} lacks {len(missing)} of {len(found)} stimuli: "
            f"{', '.join(missing[:_LISTED])}{more}"
        )
    if not found:
        raise DataError("the events name no stimulus (column stim_file is empty)")
    return found


def _onset_keys(times: NDArray[np.float64], run: str | None) -> pd.DataFrame:
    keys = pd.DataFrame({"onset": times})
    return keys if run is None else keys.assign(run=run)


def _key(keys: pd.DataFrame) -> str:
    return next(key for key in KEYS if key in keys)


def _names(keys: pd.DataFrame, key: str) -> list[tuple[object, ...]]:
    column = keys[key]
    if key == "onset":
        shown = np.rint(column.to_numpy(dtype=float) / _SAME_ONSET_S).astype(int)
        named: list[object] = [int(time) for time in shown]
    else:
        named = [path_key(str(name)) for name in column]
    labels = [keys[name].map(plain_label) for name in LABELS if name in keys]
    return list(zip(named, *labels, strict=True))
