"""Words and cuts of a film of the Brain Treebank, at times of the film.

References
----------
Wang C et al. (2024) Brain Treebank: large-scale intracranial recordings from
naturalistic language stimuli. arXiv:2411.08343.
"""

import logging
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuromm.core import DataError
from neuromm.io.content import require_content

__all__ = ["read_scenes", "read_words"]

_logger = logging.getLogger(__name__)

# Names under which tables of cuts give the start of a scene in seconds; the last is
# that of PySceneDetect.
_SCENE_STARTS = (
    *("movie_time", "start", "start_time", "onset", "time", "start_seconds"),
    "Start Time (seconds)",
)
_SCENE_ENDS = ("end", "end_time", "end_seconds", "End Time (seconds)")

# What stands for no value, but in a text: "null" and "nan" are words.
_MISSING = ["", "NaN", "nan", "NA", "N/A", "n/a", "None", "null"]
_TEXTS = ("text", "sentence")


def read_words(path: Path, context_sentences: int) -> pd.DataFrame:
    """Words of a transcript, ``transcripts/FILM/features.csv``.

    Parameters
    ----------
    path : Path
        A table with ``text`` and ``start`` (s of the film), ``end`` if it has it, and
        what tells sentences apart: ``sentence_idx``, ``is_onset`` (1 for the first
        word of a sentence) or ``idx_in_sentence`` (from 0 in each sentence), the first
        of these that is there.
    context_sentences : int
        Sentences before its own with which the context of a word begins.

    Returns
    -------
    words : DataFrame
        In the order of the file: ``movie_time``, ``duration`` (s, 0 where unknown),
        ``stimulus``, ``text``, ``sentence``, ``context``, and the other columns.

    Raises
    ------
    DataError
        If a column is missing, or no word has a time.

    Notes
    -----
    ``sentence`` is the column of that name, or else the words of the sentence joined
    by spaces. ``context`` ends with the word itself: it holds nothing that the patient
    had not heard.
    """
    table = _read(path)
    lacking = [name for name in ("text", "start") if name not in table]
    if lacking:
        raise DataError(
            f"has no column {', '.join(lacking)} (found: "
            f"{', '.join(map(str, table.columns))})",
            path,
        )
    table = table.loc[:, [not str(c).startswith("Unnamed") for c in table.columns]]
    start = pd.to_numeric(table["start"], errors="coerce").to_numpy(dtype=float)
    text = table["text"].fillna("").astype(str).str.strip()
    timed = np.isfinite(start) & (text != "").to_numpy()
    if not timed.any():
        raise DataError(f"none of {len(table)} words has a text and a start", path)
    if not timed.all():
        _logger.info(
            "%s: %d of %d words have no text or no time",
            path,
            (~timed).sum(),
            len(text),
        )
    spoken = (text != "").to_numpy()  # a word without a time is context all the same
    number = _sentence_numbers(table, path)
    sentences = _sentences(table, text, number)
    context = _contexts(text, number, spoken, sentences, context_sentences)
    end = pd.to_numeric(table.get("end", pd.Series(np.nan, table.index)), "coerce")
    duration = np.nan_to_num(end.to_numpy(dtype=float) - start, nan=0.0)
    words = pd.DataFrame(
        {
            "movie_time": start,
            "duration": np.clip(duration, 0.0, None),
            "stimulus": text,
            "text": text,
            "sentence": [sentences[n] for n in number],
            "context": context,
        }
    )
    for column in table.columns:
        if column not in words:
            words[column] = table[column].to_numpy()
    heard: pd.DataFrame = words[timed].reset_index(drop=True)
    return heard


def read_scenes(folder: Path, film: str, words: pd.DataFrame) -> pd.DataFrame | None:
    """Cuts of a film: where a scene begins.

    Parameters
    ----------
    folder : Path
        ``scene_annotations``. The table is ``FILM.csv``, ``FILM_….csv`` or the only
        CSV in the folder ``FILM``. It has the start of scenes in s of the film under
        one of the names ``movie_time``, ``start``, ``start_time``, ``onset``,
        ``time``, ``start_seconds`` or, as PySceneDetect writes it,
        ``Start Time (seconds)``.
    film : str
    words : DataFrame
        With ``movie_time`` and ``sentence``.

    Returns
    -------
    scenes : DataFrame or None
        By time: ``movie_time``, ``duration`` (s, to the end if the table has it, else
        0), ``stimulus`` (``scene-0001``), ``sentence`` of the word that begins nearest
        to the cut, and the table's other columns; ``attrs["source"]`` is the file. None
        if there is no table for the film.

    Raises
    ------
    DataError
        If there is more than one table, or no such column.

    Notes
    -----
    These names are of tables of cuts in general: the one of the release was not at
    hand when this was written. A table with others is refused, with its columns.
    """
    path = _scene_table(folder, film)
    if path is None:
        return None
    table = _read(path)
    column = next((name for name in _SCENE_STARTS if name in table), None)
    if column is None:
        raise DataError(
            f"no column gives the start of scenes in seconds (found: "
            f"{', '.join(map(str, table.columns))}). Rename it to one of "
            f"{', '.join(_SCENE_STARTS)}",
            path,
        )
    start = pd.to_numeric(table[column], errors="coerce").to_numpy(dtype=float)
    if not np.isfinite(start).any():
        raise DataError(f"column {column!r} holds no number of seconds", path)
    final = next((name for name in _SCENE_ENDS if name in table), None)
    end = (
        start
        if final is None
        else pd.to_numeric(table[final], errors="coerce").to_numpy(dtype=float)
    )
    order = np.argsort(start[np.isfinite(start)], kind="stable")
    rows = np.flatnonzero(np.isfinite(start))[order]
    times = words["movie_time"].to_numpy(dtype=float)
    near = [int(np.argmin(np.abs(times - t))) for t in start[rows]]
    scenes = pd.DataFrame(
        {
            "movie_time": start[rows],
            "duration": np.clip(np.nan_to_num(end[rows] - start[rows]), 0.0, None),
            "stimulus": [f"scene-{k + 1:04d}" for k in range(len(rows))],
            "sentence": words["sentence"].to_numpy()[near],
        }
    )
    for name in table.columns.difference([*scenes.columns, column], sort=False):
        scenes[name] = table[name].to_numpy()[rows]
    scenes.attrs["source"] = str(path)
    return scenes


def _read(path: Path) -> pd.DataFrame:
    path = require_content(path)
    try:
        with open(path, encoding="utf-8-sig") as file:
            # PySceneDetect writes the list of cuts above its table.
            skipped = 1 if file.readline().startswith("Timecode List") else 0
        names = pd.read_csv(path, skiprows=skipped, nrows=0).columns
        missing = {name: _MISSING for name in names if name not in _TEXTS}
        return pd.read_csv(
            path, skiprows=skipped, keep_default_na=False, na_values=missing
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as e:
        raise DataError(f"is no table separated by commas ({e})", path) from e


def _scene_table(folder: Path, film: str) -> Path | None:
    found = [folder / f"{film}.csv"] if (folder / f"{film}.csv").exists() else []
    found = found or sorted(folder.glob(f"{film}_*.csv"))
    found = found or sorted((folder / film).glob("*.csv"))
    if len(found) > 1:
        raise DataError(
            f"holds {len(found)} tables of cuts of {film}: "
            f"{', '.join(path.name for path in found)}. Keep one",
            folder,
        )
    return found[0] if found else None


def _sentence_numbers(table: pd.DataFrame, path: Path) -> NDArray[np.intp]:
    """Number of the sentence of each row, ascending from 0."""
    if "sentence_idx" in table:
        label = table["sentence_idx"].ffill()
        first = (label != label.shift()).to_numpy()
    elif "is_onset" in table:
        onset = pd.to_numeric(table["is_onset"], errors="coerce").fillna(0)
        first = (onset > 0.5).to_numpy()
    elif "idx_in_sentence" in table:
        place = pd.to_numeric(table["idx_in_sentence"], errors="coerce").ffill()
        first = (place <= place.shift()).to_numpy()
    else:
        raise DataError(
            "no column tells sentences apart: expected sentence_idx, is_onset or "
            f"idx_in_sentence (found: {', '.join(map(str, table.columns))})",
            path,
        )
    first[0] = True
    return np.cumsum(first) - 1


def _sentences(
    table: pd.DataFrame, text: "pd.Series[str]", number: NDArray[np.intp]
) -> list[str]:
    joined = text.groupby(number).agg(lambda words: " ".join(w for w in words if w))
    if "sentence" not in table:
        return [str(sentence) for sentence in joined]
    given = table["sentence"].groupby(number).first()
    return [
        str(whole) if isinstance(whole, str) and whole else str(words)
        for whole, words in zip(given, joined, strict=True)
    ]


def _contexts(
    text: "pd.Series[str]",
    number: NDArray[np.intp],
    spoken: NDArray[np.bool_],
    sentences: list[str],
    n_before: int,
) -> list[str]:
    """Sentences before, and the words of the sentence up to each word."""
    contexts: list[str] = []
    said: list[str] = []
    current = -1
    for word, sentence, heard in zip(text, number, spoken, strict=True):
        if sentence != current:
            current, said = sentence, []
            said.extend(sentences[max(0, sentence - n_before) : sentence])
        if heard:
            said.append(word)
        contexts.append(" ".join(said))
    return contexts
