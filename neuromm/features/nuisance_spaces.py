"""Controls: what a network must beat before its score says anything about it.

Low-level spaces (word rate, position, envelope, luminance, motion), a model of
autocorrelation alone, permuted rows, and projections to a common dimension.

References
----------
Hadidi, Feghhi et al. (2025) Illusions of alignment between language models and brains.
Adelson & Bergen (1985) Spatiotemporal energy models for the perception of motion. JOSA
A 2: 284-299. Nishimoto et al. (2011) Current Biology 21: 1641-1646.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from neuromm.core import DataError, UsageError
from neuromm.features.checked_table import checked_table
from neuromm.features.keys import LABELS, MISSING, plain_label
from neuromm.features.table import FeatureTable

__all__ = [
    "audio_envelope",
    "autocorrelation_only",
    "joined_runs",
    "matched_dimension",
    "permuted_rows",
    "position_in_run",
    "word_rate",
]


def word_rate(
    words: pd.DataFrame,
    events: pd.DataFrame | None = None,
    *,
    column: str = "word",
    window_s: float = 1.0,
    name: str = "word rate",
) -> FeatureTable:
    """Words a second around each event.

    Parameters
    ----------
    words : DataFrame
        ``onset`` (s), ``column``, and where known ``run``, ``session``, ``subject``.
    events : DataFrame, optional
        ``onset`` (s) and the same labels; the words themselves if not given.
    column : str
        Holds the words; rows without one do not count.
    window_s : float
        Length of the window, with the event in its middle, in s.
    name : str
        Of the space.

    Returns
    -------
    table : FeatureTable
        Keyed by onset; one column, in words a second.
    """
    _check_window(window_s)
    spoken = words[~words[column].fillna("").astype(str).str.strip().isin(MISSING)]
    rows = spoken if events is None else events
    rate = np.zeros(len(rows))
    heard = _recordings(spoken)
    for label, place in _recordings(rows).items():
        onsets = np.sort(_onsets(spoken)[heard.get(label, np.empty(0, dtype=np.intp))])
        times = _onsets(rows)[place]
        begin = np.searchsorted(onsets, times - window_s / 2, side="left")
        end = np.searchsorted(onsets, times + window_s / 2, side="right")
        rate[place] = (end - begin) / window_s
    return _table(rate[:, None], rows, name, ["word_rate"], window_s=window_s)


def position_in_run(
    events: pd.DataFrame, *, degree: int = 3, name: str = "position"
) -> FeatureTable:
    """When in its run an event comes: slow drifts and fatigue.

    Parameters
    ----------
    events : DataFrame
        ``onset`` (s), and where known ``run``, ``session``, ``subject``.
    degree : int
        Legendre polynomials 1 … degree of the time from the first to the last event of
        the run, which goes from -1 to 1.
    name : str
        Of the space.

    Returns
    -------
    table : FeatureTable
        Keyed by onset; ``degree`` columns.
    """
    if degree < 1:
        raise UsageError(f"degree must be 1 or more, got {degree}")
    onsets = _onsets(events)
    scaled = np.zeros(len(events))
    for place in _recordings(events).values():
        times = onsets[place]
        length = np.ptp(times)
        if length > 0:
            scaled[place] = 2 * (times - times.min()) / length - 1
    values = np.polynomial.legendre.legvander(scaled, degree)[:, 1:]
    names = [f"position_{power}" for power in range(1, degree + 1)]
    return _table(values, events, name, names, degree=degree)


def audio_envelope(
    audio: ArrayLike | str | Path,
    onsets: ArrayLike,
    *,
    sfreq: float | None = None,
    window_s: float = 0.2,
    run: str | None = None,
    name: str = "audio envelope",
) -> FeatureTable:
    """Loudness of the sound around each event.

    Parameters
    ----------
    audio : array of shape (n_samples,) or (n_samples, n_channels), or path of a .wav
        Channels are averaged. Integers of a .wav are scaled so that full scale is 1.
    onsets : array of shape (n_events,)
        In s from the beginning of the sound, which must be that of the run.
    sfreq : float, optional
        Sampling rate in Hz; needed for an array, taken from a .wav.
    window_s : float
        Length of the window, with the event in its middle, in s.
    run : str, optional
        Labels the rows.
    name : str
        Of the space.

    Returns
    -------
    table : FeatureTable
        Keyed by onset; one column, ``envelope``.

    Raises
    ------
    DataError
        If an event lies outside the sound, or the .wav cannot be read.
    UsageError
        If the sampling rate is not given.

    Notes
    -----
    sqrt(2) times the root mean square in the window: the amplitude of a tone that lasts
    a few periods, without a filter that would reach over the window.
    """
    _check_window(window_s)
    wave, rate = _wave(audio, sfreq)
    times = np.asarray(onsets, dtype=float)
    _check_within(times, len(wave) / rate, "sound")
    begin = np.clip(np.rint((times - window_s / 2) * rate), 0, len(wave) - 1)
    end = np.clip(np.rint((times + window_s / 2) * rate), begin + 1, len(wave))
    envelope = [
        np.sqrt(2 * np.mean(np.square(wave[int(a) : int(b)])))
        for a, b in zip(begin, end, strict=True)
    ]
    rows = _run_rows(times, run)
    return _table(
        np.array(envelope)[:, None], rows, name, ["envelope"], window_s=window_s
    )


def autocorrelation_only(
    events: pd.DataFrame,
    *,
    width_s: float = 4.0,
    name: str = "autocorrelation only",
) -> FeatureTable:
    """Bumps of time within each run: all that smoothness alone can predict.

    A model that beats this one knows more than which samples lie near each other. With
    shuffled folds it predicts smooth responses well without any stimulus.

    Parameters
    ----------
    events : DataFrame
        ``onset`` (s), and where known ``run``, ``session``, ``subject``.
    width_s : float
        Standard deviation of a bump, and the distance between bumps, in s.
    name : str
        Of the space.

    Returns
    -------
    table : FeatureTable
        Keyed by onset; a column a bump, 0 outside its run.

    Notes
    -----
    After the orthogonal autocorrelated sequences of Hadidi, Feghhi et al. (2025):
    smoothed indicators of the sample, not across passages. With Gaussians at a distance
    of one standard deviation the bumps span what smoothed indicators span, with fewer
    columns.
    """
    if not width_s > 0:
        raise UsageError(f"width_s must be positive, got {width_s}")
    onsets = _onsets(events)
    blocks = []
    for number, place in enumerate(_recordings(events).values()):
        times = onsets[place]
        n_bumps = int(np.ptp(times) // width_s) + 1
        slack = (np.ptp(times) - (n_bumps - 1) * width_s) / 2
        centres = times.min() + slack + width_s * np.arange(n_bumps)
        block = np.zeros((len(events), n_bumps))
        block[place] = np.exp(-0.5 * ((times[:, None] - centres) / width_s) ** 2)
        names = [f"recording{number}_{centre:.3f}s" for centre in centres]
        blocks.append((block, names))
    values = np.hstack([block for block, _ in blocks])
    columns = [column for _, names in blocks for column in names]
    return _table(values, events, name, columns, width_s=width_s)


def permuted_rows(
    table: FeatureTable, rng: np.random.Generator, *, within_run: bool = False
) -> FeatureTable:
    """Give each row the features of another one: same numbers, wrong stimuli.

    Parameters
    ----------
    table : FeatureTable
    rng : numpy.random.Generator
    within_run : bool
        Exchange rows of the same run alone.

    Returns
    -------
    table : FeatureTable
        Keys stay; ``attrs["control"]`` says what was done.
    """
    order = np.arange(len(table.values))
    groups = list(_recordings(table.keys).values()) if within_run else [order.copy()]
    for place in groups:
        order[place] = rng.permutation(place)
    where = " within runs" if within_run else ""
    return replace(
        table,
        values=table.values[order],
        attrs={**table.attrs, "control": f"permuted rows{where}"},
    )


def matched_dimension(table: FeatureTable, dim: int, seed: int) -> FeatureTable:
    """Project a space to a stated number of columns, up or down.

    A space with more columns has more to fit with; spaces of one dimension can be
    compared without that.

    Parameters
    ----------
    table : FeatureTable
    dim : int
    seed : int
        The matrix depends on it and on the two dimensions, on no value.

    Returns
    -------
    table : FeatureTable
        ``attrs["control"]`` says what was done.

    Notes
    -----
    The matrix holds independent Gaussians of variance 1 / dim, so that squared
    distances are kept on average, with a relative standard deviation of sqrt(2 / dim).
    """
    if dim < 1:
        raise UsageError(f"dim must be 1 or more, got {dim}")
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal((table.values.shape[1], dim)) / np.sqrt(dim)
    return replace(
        table,
        values=(table.values @ matrix).astype(table.values.dtype),
        columns=tuple(str(column) for column in range(dim)),
        attrs={
            **table.attrs,
            "control": f"Gaussian random projection to {dim} columns, seed {seed}",
        },
    )


def joined_runs(tables: Sequence[FeatureTable]) -> FeatureTable:
    """Put tables of several runs under each other.

    Parameters
    ----------
    tables : sequence of FeatureTable
        Of one space, with the same columns and key columns.

    Raises
    ------
    DataError
        If they differ in those, or a key occurs twice: each needs its ``run``.
    """
    if not tables:
        raise DataError("no tables: expected one or more")
    first = tables[0]
    for table in tables[1:]:
        ours = (first.columns, list(first.keys), dict(first.attrs))
        theirs = (table.columns, list(table.keys), dict(table.attrs))
        if ours != theirs:
            raise DataError(
                f"{table.name} differs from {first.name} in its columns, keys or "
                "attributes: expected tables of one space"
            )
    keys = pd.concat([table.keys for table in tables], ignore_index=True)
    return checked_table(
        name=first.name,
        keys={str(column): keys[column].to_numpy() for column in keys},
        values=np.concatenate([table.values for table in tables]),
        columns=first.columns,
        source=first.source,
        attrs=first.attrs,
    )


def _table(
    values: NDArray[np.floating],
    rows: pd.DataFrame,
    name: str,
    columns: Sequence[str],
    **settings: float,
) -> FeatureTable:
    kept = [c for c in ("onset", "duration", *LABELS) if c in rows]
    return checked_table(
        name=name,
        keys={column: rows[column].to_numpy() for column in kept},
        values=values,
        columns=columns,
        source=Path(name),
        attrs={"model": name, "kind": "nuisance", **settings},
    )


def _onsets(frame: pd.DataFrame) -> NDArray[np.float64]:
    if "onset" not in frame:
        raise DataError(
            "expected a column onset in s (found: "
            f"{', '.join(map(str, frame.columns))})"
        )
    return frame["onset"].to_numpy(dtype=float)


def _recordings(frame: pd.DataFrame) -> dict[tuple[str, ...], NDArray[np.intp]]:
    """Rows of each recording, in the order in which recordings come."""
    labels = [frame[name].map(plain_label) for name in LABELS if name in frame]
    found: dict[tuple[str, ...], list[int]] = {}
    named = zip(*labels, strict=True) if labels else [()] * len(frame)
    for row, label in enumerate(named):
        found.setdefault(tuple(label), []).append(row)
    return {label: np.array(rows, dtype=np.intp) for label, rows in found.items()}


def _wave(
    audio: ArrayLike | str | Path, sfreq: float | None
) -> tuple[NDArray[np.float64], float]:
    if isinstance(audio, str | Path):
        samples, rate = _read_wav(Path(audio))
    elif sfreq is None or not sfreq > 0:
        raise UsageError("an array of sound needs its sampling rate: sfreq, in Hz")
    else:
        samples, rate = np.asarray(audio, dtype=np.float64), sfreq
    if samples.ndim not in (1, 2) or not len(samples):
        raise DataError(
            "sound must have the shape (n_samples,) or (n_samples, n_channels), got "
            f"{samples.shape}"
        )
    return (samples.mean(axis=1) if samples.ndim == 2 else samples), rate


def _read_wav(path: Path) -> tuple[NDArray[np.float64], float]:
    from scipy.io import wavfile

    from neuromm.core import InputMissingError

    if not path.is_file():
        raise InputMissingError(f"no sound at {path}")
    try:
        rate, samples = wavfile.read(path)
    except MemoryError:
        raise
    except Exception as error:  # damaged headers raise errors of several types
        raise DataError(f"is no readable .wav ({error})", path) from error
    if samples.dtype == np.uint8:
        return (samples.astype(np.float64) - 128) / 128, float(rate)
    if samples.dtype.kind == "i":
        full_scale = float(np.iinfo(samples.dtype).max) + 1
        return samples / full_scale, float(rate)
    return samples.astype(np.float64), float(rate)


def _run_rows(times: NDArray[np.float64], run: str | None) -> pd.DataFrame:
    rows = pd.DataFrame({"onset": times})
    return rows if run is None else rows.assign(run=run)


def _check_window(window_s: float) -> None:
    if not window_s > 0:
        raise UsageError(f"window_s must be positive, got {window_s}")


def _check_within(times: NDArray[np.float64], length_s: float, what: str) -> None:
    outside = times[(times < 0) | (times >= length_s)]
    if len(outside):
        raise DataError(
            f"{len(outside)} events lie outside the {what} of {length_s:g} s, the "
            f"first at {outside[0]:g} s: do both begin with the run?"
        )
