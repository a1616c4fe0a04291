"""From the time of a film to the samples of a recording of the Brain Treebank.

The computer that plays the film sends triggers to the amplifier. The table of a trial,
``subject_timings/sub_1_trial000_timings.csv``, has a row a trigger: ``movie_time`` (s),
``index`` (the sample, from 0) and ``type`` (``trigger``, ``beginning``, ``end``,
``pause``, ``unpause``).

The code of the release places an event at the nearest trigger plus its distance from it
at the nominal sampling rate, and so does this module, but for three things. A trigger
on the other side of a pause is never the nearest; an event outside of the triggers has
no place; and the rate that the triggers give must be the nominal one.

References
----------
Wang C et al. (2024) Brain Treebank: large-scale intracranial recordings from
naturalistic language stimuli. arXiv:2411.08343. Columns and the rule of the nearest
trigger: code of the release, data/trial_data_reader.py.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuromm.core import DataError
from neuromm.io.content import require_content

__all__ = ["FilmClock", "read_clock"]

# Nine subjects were sampled at 2048 Hz and one at 1024 Hz; their triggers give 2038 to
# 2050 Hz and 1019 Hz.
_RATES_HZ = (256.0, 512.0, 1024.0, 2048.0, 4096.0)
_RATE_TOLERANCE = 0.01

# Two triggers in a row that disagree by more than this about the time between them
# have a break between them, whether it is marked or not.
_BREAK_S = 0.25
_DRIFT = 0.02

# Farther from a trigger, half a percent of drift is more than a sample of 100 Hz.
_FARTHEST_TRIGGER_S = 2.0

_LAST_BEFORE_BREAK = ("pause", "end")
_FIRST_AFTER_BREAK = ("unpause", "beginning")


@dataclass(frozen=True)
class FilmClock:
    """Triggers of one trial, cut where the film stood still.

    Attributes
    ----------
    sfreq : float
        Nominal sampling rate in Hz.
    movie_time : array of shape (n_triggers,)
        Time of the film in s, ascending within a segment.
    sample : array of shape (n_triggers,)
        Sample of the recording, ascending.
    segment : array of shape (n_triggers,)
        0 for the triggers before the first break, and so on.
    """

    sfreq: float
    movie_time: NDArray[np.float64]
    sample: NDArray[np.float64]
    segment: NDArray[np.intp]

    def samples(self, movie_time: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sample at which the film was at a time.

        Parameters
        ----------
        movie_time : array of shape (n_events,)
            In s.

        Returns
        -------
        samples : array of shape (n_events,)
            Whole numbers; nan for a time that was not shown, or is farther than 2 s
            from a trigger. A time that was shown twice is placed at the first.
        """
        placed = np.full(len(movie_time), np.nan)
        for segment in range(int(self.segment[-1]) + 1):
            rows = self.segment == segment
            times, samples = self.movie_time[rows], self.sample[rows]
            shown = (movie_time >= times[0]) & (movie_time <= times[-1])
            wanted = np.flatnonzero(shown & np.isnan(placed))
            near = _nearest(times, movie_time[wanted])
            distance = movie_time[wanted] - times[near]
            estimate = np.rint(samples[near] + distance * self.sfreq)
            estimate[np.abs(distance) > _FARTHEST_TRIGGER_S] = np.nan
            placed[wanted] = estimate
        return placed

    def breaks(self) -> NDArray[np.float64]:
        """Samples during which the film stood still.

        Returns
        -------
        spans : array of shape (n_breaks, 2)
            Last trigger before and first trigger after each break.
        """
        cuts = np.flatnonzero(np.diff(self.segment))
        return np.column_stack([self.sample[cuts], self.sample[cuts + 1]])


def read_clock(path: str | Path, sfreq: float | None = None) -> FilmClock:
    """Read the triggers of a trial.

    Parameters
    ----------
    path : path-like
        ``subject_timings/sub_1_trial000_timings.csv``.
    sfreq : float, optional
        Sampling rate of the recording in Hz; told from the triggers if not given.

    Raises
    ------
    InputMissingError
        If there is no such file.
    DataError
        If columns are missing, there are fewer than two triggers, their samples do
        not ascend, or the rate that they give is no rate of an amplifier or not
        ``sfreq``: the two clocks then don't belong together.
    """
    path = require_content(path)
    try:
        table = pd.read_csv(path)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as e:
        raise DataError(f"is no table of triggers ({e})", path) from e
    lacking = {"movie_time", "index"} - set(table.columns)
    if lacking:
        raise DataError(
            f"has no column {', '.join(sorted(lacking))} (found: "
            f"{', '.join(map(str, table.columns))}). Expected the timings of a trial: "
            "type, movie_time (s) and index (sample)",
            path,
        )
    times = pd.to_numeric(table["movie_time"], errors="coerce").to_numpy(dtype=float)
    samples = pd.to_numeric(table["index"], errors="coerce").to_numpy(dtype=float)
    kinds = table.get("type", pd.Series("", index=table.index)).astype(str).to_numpy()
    given = np.isfinite(times) & np.isfinite(samples)
    times, samples, kinds = times[given], samples[given], kinds[given]
    if len(times) < 2:
        raise DataError(f"has {len(times)} triggers with a time, expected many", path)
    backwards = np.flatnonzero(np.diff(samples) < 0)
    if len(backwards):
        first = int(backwards[0])
        raise DataError(
            f"samples must ascend, got {samples[first]:.0f} and then "
            f"{samples[first + 1]:.0f}: are these the triggers of one trial?",
            path,
        )
    rate = _checked_rate(times, samples, sfreq, path)
    segment = np.concatenate([[0], np.cumsum(_broken(times, samples, kinds, rate))])
    return FilmClock(rate, times, samples, segment.astype(np.intp))


def _checked_rate(
    times: NDArray[np.float64],
    samples: NDArray[np.float64],
    sfreq: float | None,
    path: Path,
) -> float:
    """Nominal rate; the median of neighbours, for breaks would spoil any mean."""
    steps, counts = np.diff(times), np.diff(samples)
    forward = steps > 1e-6
    if not forward.any():
        raise DataError("the time of the film never advances", path)
    measured = float(np.median(counts[forward] / steps[forward]))
    known = _RATES_HZ if sfreq is None else (float(sfreq),)
    nearest = min(known, key=lambda rate: abs(rate - measured))
    if abs(measured - nearest) > _RATE_TOLERANCE * nearest:
        expected = (
            "that of an amplifier (256, 512, 1024, 2048 or 4096 Hz)"
            if sfreq is None
            else f"{sfreq:g} Hz"
        )
        raise DataError(
            f"the clocks of film and recording don't belong together: the triggers "
            f"are {measured:.1f} samples apart per second of the film, expected "
            f"{expected} within 1 %. Are they of this trial? A recording at another "
            "rate is opened with sfreq=",
            path,
        )
    return nearest


def _broken(
    times: NDArray[np.float64],
    samples: NDArray[np.float64],
    kinds: NDArray[np.object_],
    sfreq: float,
) -> NDArray[np.bool_]:
    """Whether there is a break between each trigger and the next."""
    film = np.diff(times)
    marked = np.isin(kinds[:-1], _LAST_BEFORE_BREAK)
    marked |= np.isin(kinds[1:], _FIRST_AFTER_BREAK)
    disagree = np.abs(np.diff(samples) / sfreq - film)
    broken: NDArray[np.bool_] = marked | (film < 0)
    return broken | (disagree > _BREAK_S + _DRIFT * np.abs(film))


def _nearest(
    times: NDArray[np.float64], wanted: NDArray[np.float64]
) -> NDArray[np.intp]:
    """Row of the nearest of ascending times; the first of two as near."""
    after = np.clip(np.searchsorted(times, wanted), 1, max(len(times) - 1, 1))
    before = after - 1
    if len(times) == 1:
        return np.zeros(len(wanted), dtype=np.intp)
    closer = (times[after] - wanted) < (wanted - times[before])
    return np.where(closer, after, before)
