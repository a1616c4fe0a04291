"""Films of ``stimuli/`` on the clock of each run: frames at events, or at volumes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from neuromm.core import UsageError

if TYPE_CHECKING:
    from neuromm.core import Sample
    from neuromm.features import StimulusRows
    from neuromm.features.film_rows import Scan, Showing
    from neuromm_pipelines.encode_unit import EncodingUnit

__all__ = ["FilmRun", "film_runs", "shown_films"]


@dataclass(frozen=True, eq=False)
class FilmRun:
    """A recording during which a film may be shown.

    Attributes
    ----------
    sample : Sample
    datatype : str
    labels : mapping of str to str
        Its subject, session and run, those that every recording has.
    """

    sample: "Sample"
    datatype: str
    labels: Mapping[str, str]

    def own(self, table: pd.DataFrame) -> pd.DataFrame:
        """Events of this recording."""
        kept = pd.Series(True, index=table.index)
        for name, label in self.labels.items():
            kept &= table[name] == label
        return table[kept]


def film_runs(
    units: "Sequence[EncodingUnit]", labels: Sequence[str]
) -> tuple[FilmRun, ...]:
    """Recordings of all units, each once, however many spaces it comes in."""
    found: dict[tuple[str, ...], FilmRun] = {}
    for unit in units:
        for sample in unit.study:
            own = {name: str(sample.entities.get(name) or "") for name in labels}
            run = FilmRun(sample, unit.datatype, own)
            found.setdefault((unit.datatype, *own.values()), run)
    return tuple(found.values())


def shown_films(
    folder: Path,
    showing: pd.DataFrame,
    events: pd.DataFrame,
    runs: Sequence[FilmRun],
    step_s: float,
) -> "tuple[StimulusRows, tuple[Scan, ...]]":
    """Frames of films (and pictures among them) by the onset of what they belong to.

    Parameters
    ----------
    folder : Path
        ``stimuli`` of the data set.
    showing, events : DataFrame
        Events that name what is shown, and events that are encoded.
    runs : sequence of FilmRun
    step_s : float
        Between frames that are embedded for a scan.

    Returns
    -------
    rows : StimulusRows
        Of fMRI a row a step, of other recordings a row an event.
    scans : tuple of Scan
        Volumes to which the steps belong; empty for other recordings.

    Raises
    ------
    UsageError
        If fMRI and other recordings come together.
    DataError
        If a film is shorter than its event or damaged, or an event lies outside of
        every film.
    InputMissingError
        If a codec is not installed.
    """
    from neuromm.features.film_rows import (
        film_event_rows,
        film_step_rows,
        in_film_order,
    )

    kinds = sorted({run.datatype for run in runs})
    if "func" in kinds and len(kinds) > 1:
        raise UsageError(
            "films give a row a volume for fMRI and a row an event for other "
            f"recordings, and here are {', '.join(kinds)}: choose one with --datatype"
        )
    by_run = [(run, _showings(folder, run.own(showing), run)) for run in runs]
    everything = [one for _, showings in by_run for one in showings]
    if kinds == ["func"]:
        return film_step_rows(everything, step_s), tuple(_scan(run) for run in runs)
    rows = [
        film_event_rows(showings, run.own(events)["onset"].tolist(), run.labels)
        for run, showings in by_run
    ]
    frames = [frame for one in rows for frame in one.stimuli]
    keys = pd.concat([one.keys for one in rows], ignore_index=True)
    return in_film_order(frames, keys), ()  # type: ignore[arg-type]


def _showings(folder: Path, events: pd.DataFrame, run: FilmRun) -> "list[Showing]":
    from neuromm.features.film_file import is_film, open_film
    from neuromm.features.film_rows import Showing
    from neuromm.features.keys import path_key

    shown = []
    for file, onset, duration in zip(
        events["stim_file"], events["onset"], events["duration"], strict=True
    ):
        path = folder / path_key(file)
        what = open_film(path) if is_film(path) else path
        shown.append(Showing(what, float(onset), float(duration), run.labels))
    return shown


def _scan(run: FilmRun) -> "Scan":
    from neuromm.features.film_rows import Scan
    from neuromm_pipelines.encode_bold import scan_size

    n_volumes, t_r = scan_size(run.sample)
    return Scan(n_volumes, t_r, run.labels)
