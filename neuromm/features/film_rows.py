"""What a film shows when: its frames on the clock of a run.

Frames become rows at the events of a run, or at regular steps that are averaged within
each volume of a scan.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuromm.core import DataError, UsageError
from neuromm.features.film_file import Film, FilmFrame
from neuromm.features.stimulus_rows import StimulusRows
from neuromm.features.table import FeatureTable

__all__ = [
    "Scan",
    "Showing",
    "film_event_rows",
    "film_step_rows",
    "in_film_order",
    "scan_keys",
    "scan_table",
]

# Logs are less exact than films: the last frame may be taken to stay this much longer.
_SLACK_S = 0.1


@dataclass(frozen=True, eq=False)
class Showing:
    """A film, or a picture, that an event puts on the screen.

    Attributes
    ----------
    shown : Film or Path
        A path is a picture that stays.
    onset, duration : float
        In s on the clock of the run. A film of duration 0 is shown to its end.
    labels : mapping of str to str
        ``run``, ``session`` and ``subject`` of the recording, where it has them.
    """

    shown: Film | Path
    onset: float
    duration: float
    labels: Mapping[str, str]

    def __post_init__(self) -> None:
        if not isinstance(self.shown, Film):
            return
        # An event may name a part of a film: the beginning.
        missing = self.duration - self.shown.length_s
        if missing > max(_SLACK_S, self.shown.length_s / len(self.shown.onsets)):
            told = " ".join(f"{name} {label}" for name, label in self.labels.items())
            raise DataError(
                f"lasts {self.shown.length_s:g} s ({len(self.shown.onsets)} frames), "
                f"and the event at {self.onset:g} s{f' of {told}' if told else ''} "
                f"lasts {self.duration:g} s. Correct the duration in events.tsv, or "
                "put the whole film into stimuli/.",
                self.shown.path,
            )

    @property
    def end(self) -> float:
        """When it leaves the screen, in s on the clock of the run."""
        if isinstance(self.shown, Film) and not self.duration:
            return self.onset + self.shown.length_s
        return self.onset + self.duration

    def frames(self, times: NDArray[np.float64]) -> list[FilmFrame | Path]:
        """What is on the screen at these times of the run, in s."""
        if isinstance(self.shown, Path):
            return [self.shown] * len(times)
        numbers = self.shown.frame_at(times - self.onset)
        return [FilmFrame(self.shown.path, int(number)) for number in numbers]


@dataclass(frozen=True, eq=False)
class Scan:
    """Volumes of a run: how many, every how many s, and the labels of the run."""

    n_volumes: int
    t_r: float
    labels: Mapping[str, str]


def film_event_rows(
    showings: Sequence[Showing], onsets: Sequence[float], labels: Mapping[str, str]
) -> StimulusRows:
    """The frame on the screen at each event of one run.

    Parameters
    ----------
    showings : sequence of Showing
        Of the run.
    onsets : sequence of float
        Of the events, in s.
    labels : mapping of str to str
        Of the run.

    Raises
    ------
    DataError
        If nothing is shown at an event.
    """
    times = np.unique(np.asarray(onsets, dtype=float))
    rows: dict[float, FilmFrame | Path] = {}
    for showing in sorted(showings, key=lambda one: one.onset):
        on = times[(times >= showing.onset - 1e-6) & (times < showing.end - 1e-6)]
        rows.update(zip(on.tolist(), showing.frames(on), strict=True))
    dark = [time for time in times.tolist() if time not in rows]
    if dark:
        told = " ".join(f"{name} {label}" for name, label in labels.items())
        raise DataError(
            f"{len(dark)} events{f' of {told}' if told else ''} begin while no film is "
            f"shown, the first at {dark[0]:g} s: choose those within the film with "
            "--trial-type, or correct the onset and duration of the event that names "
            "the film"
        )
    keys = pd.DataFrame({"onset": times, **labels})
    return StimulusRows(tuple(rows[time] for time in times.tolist()), keys, "image")


def film_step_rows(showings: Sequence[Showing], step_s: float) -> StimulusRows:
    """What is on the screen every ``step_s`` seconds, in the middle of each step.

    Parameters
    ----------
    showings : sequence of Showing
        Of any runs. The last step of one ends with it.
    step_s : float

    Raises
    ------
    UsageError
        If the step is not positive.
    DataError
        If showings of one run overlap.
    """
    if not step_s > 0:
        raise UsageError(f"the step between frames must be positive, got {step_s:g} s")
    frames: list[FilmFrame | Path] = []
    keys: list[pd.DataFrame] = []
    ended: dict[tuple[str, ...], float] = {}
    for showing in sorted(showings, key=lambda one: one.onset):
        run = tuple(showing.labels.values())
        if ended.get(run, -np.inf) > showing.onset + 1e-3:
            raise DataError(
                f"two stimuli are on the screen at {showing.onset:g} s of "
                f"{' '.join(run) or 'the run'}: correct their durations in events.tsv"
            )
        ended[run] = showing.end
        length = showing.end - showing.onset
        if length <= 0:
            continue
        begins = np.arange(max(int(np.ceil(length / step_s - 1e-6)), 1)) * step_s
        lasting = np.minimum(step_s, length - begins)
        onsets = showing.onset + begins
        frames += showing.frames(onsets + lasting / 2)
        keys.append(
            pd.DataFrame({"onset": onsets, "duration": lasting, **showing.labels})
        )
    if not frames:
        raise DataError("nothing is shown: events that name a stimulus last 0 s")
    return in_film_order(frames, pd.concat(keys, ignore_index=True))


def in_film_order(
    frames: Sequence[FilmFrame | Path], keys: pd.DataFrame
) -> StimulusRows:
    """Order rows by film and frame, so that each film is read once, from its start."""
    places = [
        (str(one.film), one.number) if isinstance(one, FilmFrame) else (str(one), 0)
        for one in frames
    ]
    order = sorted(range(len(places)), key=places.__getitem__)
    return StimulusRows(
        tuple(frames[row] for row in order),
        keys.iloc[order].reset_index(drop=True),
        "image",
    )


def scan_keys(scans: Sequence[Scan]) -> pd.DataFrame:
    """Keys of a row for each volume of each scan."""
    frames = [
        pd.DataFrame({"onset": np.arange(scan.n_volumes) * scan.t_r, **scan.labels})
        for scan in scans
    ]
    return pd.concat(frames, ignore_index=True)


def scan_table(table: FeatureTable, scans: Sequence[Scan]) -> FeatureTable:
    """Average the steps of `film_step_rows` within the volumes of each scan.

    Parameters
    ----------
    table : FeatureTable
        Keyed by onset, with ``duration``.
    scans : sequence of Scan

    Returns
    -------
    table : FeatureTable
        A row for each volume of each scan. A volume during which something is shown for
        a part of the time holds that part of the features; 0 where nothing is shown.
    """
    from neuromm.prepare.hemodynamics import volume_means

    values = []
    for scan in scans:
        kept = np.ones(len(table.keys), dtype=bool)
        for name, label in scan.labels.items():
            kept &= (table.keys[name] == label).to_numpy()
        onsets = np.arange(scan.n_volumes) * scan.t_r
        own = table.keys[kept]
        values.append(
            volume_means(
                own["onset"],
                own["duration"],
                table.values[kept],
                onsets,
                slice_time_ref=0.0,
            )
        )
    return replace(
        table,
        keys=scan_keys(scans),
        values=np.concatenate(values).astype(table.values.dtype),
    )
