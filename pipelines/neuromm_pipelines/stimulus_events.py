"""Which stimuli the events of a BIDS data set show, and the texts that belong to them.

``stim_file`` names files below ``stimuli/``. Texts are in a column of ``events.tsv``
or in ``.txt`` files; ``docs/backbones.md`` tells which is taken when.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from neuromm.core import DataError, InputMissingError, UsageError

if TYPE_CHECKING:
    from neuromm.features import Backbone, StimulusRows
    from neuromm.features.film_rows import Scan
    from neuromm_pipelines.encode_unit import EncodingUnit
    from neuromm_pipelines.film_events import FilmRun

__all__ = ["ShownStimuli", "StimulusEvents", "shown_stimuli", "stimulus_events"]

_LABELS = ("subject", "session", "run")
_IMAGES = {
    ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp",
}  # fmt: skip
_LISTED = 3


@dataclass(frozen=True, eq=False)
class StimulusEvents:
    """Events of the recordings that are encoded, one below the other.

    Attributes
    ----------
    folder : Path
        ``stimuli`` of the data set.
    table : DataFrame
        Columns of ``events.tsv`` ("" where one has none), and of ``subject``,
        ``session`` and ``run`` those that every recording has.
    n_tasks : int
        Tasks that have the same subject, session and run, at most.
    trial_types : tuple of str
        Trial types that are encoded; all if empty.
    runs : tuple of FilmRun
        The recordings.
    """

    folder: Path
    table: pd.DataFrame
    n_tasks: int
    trial_types: tuple[str, ...]
    runs: "tuple[FilmRun, ...]" = ()

    @property
    def shown(self) -> pd.DataFrame:
        """Events that are encoded."""
        if not self.trial_types or "trial_type" not in self.table:
            return self.table
        return self.table[self.table["trial_type"].isin(self.trial_types)]

    def holds(self, column: str) -> bool:
        """Whether an event that is encoded has a value in a column."""
        return column in self.table and bool((self.shown[column] != "").any())


@dataclass(frozen=True, eq=False)
class ShownStimuli:
    """Stimuli for a backbone.

    Attributes
    ----------
    rows : StimulusRows
    told : str
        Where they were found, as sidecars say it.
    scans : tuple of Scan
        Volumes within which rows are averaged; empty where a row is a row of the table.
    """

    rows: "StimulusRows"
    told: str
    scans: "tuple[Scan, ...]" = ()


def stimulus_events(
    bids_dir: Path, units: "Sequence[EncodingUnit]", trial_types: Sequence[str]
) -> StimulusEvents:
    """Gather the events of all units; each file of events once a recording.

    Raises
    ------
    InputMissingError
        If a recording has no events.
    DataError
        If events cannot be read, or none is of the trial types.
    """
    from neuromm.io.events import events_path, read_events
    from neuromm_pipelines.film_events import film_runs

    found: dict[tuple[Path, tuple[str, ...]], pd.DataFrame] = {}
    tasks: dict[tuple[str, ...], set[str]] = {}
    for sample in (sample for unit in units for sample in unit.study):
        path = events_path(sample)
        labels = {key: str(sample.entities.get(key) or "") for key in _LABELS}
        recording = tuple(labels.values())
        tasks.setdefault(recording, set()).add(str(sample.entities.get("task", "")))
        if (path, recording) not in found:
            found[path, recording] = read_events(path).assign(**labels)
    table = pd.concat(found.values(), ignore_index=True).fillna("")
    for label in _LABELS:
        if (table[label] == "").any():
            table = table.drop(columns=label)
    events = StimulusEvents(
        bids_dir / "stimuli",
        table,
        max(len(names) for names in tasks.values()),
        tuple(trial_types),
        film_runs(units, [label for label in _LABELS if label in table]),
    )
    if not len(events.shown):
        raise DataError(f"no event has trial_type {' or '.join(trial_types)}", bids_dir)
    return events


def shown_stimuli(
    events: StimulusEvents,
    backbone: "Backbone",
    *,
    text_column: str | None = None,
    context_words: int = 20,
    film_step_s: float = 0.5,
) -> ShownStimuli:
    """Stimuli of the kind that a backbone takes, and where they were found.

    Raises
    ------
    InputMissingError
        If the folder of stimuli, or a file in it, is missing.
    UsageError
        If the data set holds stimuli of another kind alone.
    DataError
        If one stimulus has several texts, or an event names none.
    """
    from neuromm.features import paired_rows

    if backbone.modality == "image":
        films = _films(events)
        if len(films):
            return _of_films(events, films, backbone.name, film_step_s)
        return ShownStimuli(_images(events, backbone.name), "images of stimuli/")
    by_file = backbone.modality == "joint"
    texts = _Texts(events, backbone.name, by_file=by_file)
    rows, told = texts.rows(text_column, context_words)
    if not by_file:
        return ShownStimuli(rows, told)
    images = _images(events, backbone.name)
    return ShownStimuli(paired_rows(images, rows), f"images of stimuli/ with {told}")


def _films(events: StimulusEvents) -> pd.DataFrame:
    """Events that name a film or a picture, if one of them names a film.

    What is on the screen is found also where --trial-type leaves its event out.
    """
    from neuromm.features.film_file import CODED, is_film
    from neuromm.features.keys import path_key

    for table in (events.shown, events.table):
        if "stim_file" not in table:
            continue
        named = table[table["stim_file"] != ""]
        files = sorted({path_key(file) for file in named["stim_file"]})
        films = [
            file
            for file in files
            if Path(file).suffix.lower() in CODED or is_film(events.folder / file)
        ]
        if films:
            seen = {file for file in files if Path(file).suffix.lower() in _IMAGES}
            return named[named["stim_file"].map(path_key).isin(seen | set(films))]
        if files:
            break
    return events.table.iloc[:0]


def _of_films(
    events: StimulusEvents, showing: pd.DataFrame, name: str, step_s: float
) -> ShownStimuli:
    from neuromm.features.keys import path_key
    from neuromm_pipelines.film_events import shown_films

    if events.n_tasks > 1:
        raise UsageError(
            f"{name}: frames of films are joined by onset, and recordings of several "
            "tasks have the same subject, session and run. Choose one task with --task."
        )
    files = sorted({path_key(file) for file in showing["stim_file"]})
    _check_folder(events, files)
    root = events.folder.resolve()
    for file in files:
        if not (root / file).resolve().is_relative_to(root):
            raise DataError(f"{file} leads out of {root}: stimuli lie below it")
    missing = [file for file in files if not (events.folder / file).exists()]
    if missing:
        raise InputMissingError(
            f"{events.folder} lacks {len(missing)} of {len(files)} stimuli: "
            f"{_listed(missing)}"
        )
    rows, scans = shown_films(events.folder, showing, events.shown, events.runs, step_s)
    told = f"frames of stimuli/ every {step_s:g} s, averaged within each volume"
    return ShownStimuli(
        rows, told if scans else "frames of stimuli/ at each event", scans
    )


def _images(events: StimulusEvents, name: str) -> "StimulusRows":
    from neuromm.features import image_rows

    files = _stim_files(events)
    if not files:
        raise DataError(
            f"{name} takes images, and no event that is encoded names one: expected a "
            "column stim_file with paths below stimuli/",
            events.folder.parent,
        )
    others = [file for file in files if Path(file).suffix.lower() not in _IMAGES]
    if others:
        raise UsageError(
            f"{name} takes images, and {len(others)} of {len(files)} stimuli are none: "
            f"{_listed(others)}. Choose the events of images with --trial-type, or "
            "another backbone; pairs of film and text are embedded from a script "
            "(neuromm.features.frame_rows)."
        )
    _check_folder(events, files)
    return image_rows(events.folder, files)


def _stim_files(events: StimulusEvents) -> list[str]:
    """Files in alphabetical order: the same stimuli are the same cached features."""
    from neuromm.features.keys import path_key

    if "stim_file" not in events.table:
        return []
    return sorted({path_key(file) for file in events.shown["stim_file"] if file})


def _check_folder(events: StimulusEvents, files: Sequence[str]) -> None:
    if not events.folder.is_dir():
        raise InputMissingError(
            f"{events.folder.parent} has no folder stimuli, in which events name "
            f"{len(files)} files ({_listed(files)}). Put them there, or give features "
            "that were computed elsewhere with --features."
        )


@dataclass(frozen=True, eq=False)
class _Texts:
    """Texts of events, for a backbone; ``by_file`` if each belongs to an image."""

    events: StimulusEvents
    name: str
    by_file: bool

    def rows(
        self, text_column: str | None, context_words: int
    ) -> "tuple[StimulusRows, str]":
        column = self._column(text_column)
        if column is None:
            return self._from_files(), "texts of stimuli/"
        if column == "word" and not self.by_file:
            told = f"column word with {context_words} words before"
            return self._by_onset(column, context_words), told
        if column == "trial_type" and not self.by_file:
            return self._by_trial_type(), "column trial_type"
        if self.events.holds("stim_file"):
            return self._by_file(column), f"column {column}"
        return self._by_onset(column, None), f"column {column}"

    def _column(self, asked: str | None) -> str | None:
        """Column that holds the texts; None if they are in files."""
        if asked is not None:
            if not self.events.holds(asked):
                found = ", ".join(map(str, self.events.table.columns))
                raise UsageError(
                    f"--text-column {asked}: no event that is encoded has a value "
                    f"there (columns of events.tsv: {found})"
                )
            return asked
        # Joined to an image, a text describes it; a word of a story does not.
        usual = ("text", "caption") if self.by_file else ("word", "text", "caption")
        for column in usual:
            if self.events.holds(column):
                return column
        if self.events.holds("stim_file"):
            return None
        if self.events.holds("stimulus"):
            return "stimulus"
        raise DataError(
            f"{self.name} takes text, and no event that is encoded has one: expected a "
            f"column {', '.join(usual)} in events.tsv, or stim_file with texts below "
            "stimuli/. --text-column names another column.",
            self.events.folder.parent,
        )

    def _from_files(self) -> "StimulusRows":
        from neuromm.features import text_file_rows

        files = _stim_files(self.events)
        _check_folder(self.events, files)
        beside = [(self.events.folder / file).with_suffix(".txt") for file in files]
        if not any(path.is_file() for path in beside) and not any(
            file.endswith(".txt") for file in files
        ):
            raise UsageError(
                f"{self.name} takes {'pairs' if self.by_file else 'text'}, and the "
                f"stimuli have no text: {_listed(files)}. Name a column with "
                "--text-column, add a column text or caption to events.tsv, put "
                f"{beside[0].name} beside {Path(files[0]).name}, or choose a backbone "
                "that takes images."
            )
        return text_file_rows(self.events.folder, files)

    def _by_trial_type(self) -> "StimulusRows":
        from neuromm.features import text_rows

        kinds = sorted(set(self.events.shown["trial_type"]) - {""})
        return text_rows({kind: kind for kind in kinds}, key="trial_type")

    def _by_file(self, column: str) -> "StimulusRows":
        from neuromm.features import text_rows
        from neuromm.features.keys import path_key

        shown = self.events.shown
        shown = shown[shown["stim_file"] != ""]
        texts: dict[str, str] = {}
        for file, text in zip(shown["stim_file"], shown[column], strict=True):
            key, text = path_key(file), text.strip()
            if not text or texts.setdefault(key, text) != text:
                told = f"{texts[key]!r} and {text!r}" if text else "none"
                raise DataError(
                    f"{self.name}: each stimulus needs one text in column {column}, "
                    f"and {key} has {told}. Words of a story belong in a column word, "
                    "which is joined by onset.",
                    self.events.folder.parent,
                )
        return text_rows(dict(sorted(texts.items())))

    def _by_onset(self, column: str, context: int | None) -> "StimulusRows":
        """Words in context, or with ``context=None`` whole texts, at their onsets."""
        from neuromm.features import word_rows

        if self.events.n_tasks > 1:
            raise UsageError(
                f"{self.name}: texts of column {column} are joined by onset, and "
                "recordings of several tasks have the same subject, session and run. "
                "Choose one task with --task."
            )
        # Context is what was heard, also where its events are not encoded.
        table = self.events.table if context is not None else self.events.shown
        labels = [label for label in _LABELS if label in table]
        kept = table[["onset", "duration", column, *labels]].drop_duplicates(
            subset=["onset", column, *labels]
        )
        if context is None:
            return word_rows(kept, column=column, context=0, vector="text")
        return word_rows(kept, column=column, context=context)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_LISTED]) + (" …" if len(names) > _LISTED else "")
