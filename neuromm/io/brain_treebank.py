"""The Brain Treebank: depth electrodes of ten patients who watched films.

What lies on disk, after unpacking (https://braintreebank.dev):

    sub_1_trial000.h5                       or in all_subject_data/
    electrode_labels/sub_1/electrode_labels.json
    localization/sub_1/depth-wm.csv         regions; localization/elec_coords_full.csv
    subject_metadata/sub_1_trial000_metadata.json     "filename": the film
    subject_timings/sub_1_trial000_timings.csv        triggers
    transcripts/FILM/features.csv           words
    scene_annotations/FILM…csv              cuts, optional
    corrupted_elec.json                     from the code of the release, optional

Certain, by the code of the release and by others who read it: the names above, the
data sets ``data/electrode_N``, the columns that are required below, and the rule by
which a time of the film becomes a sample (`neuromm.io.treebank_clock`). Not stated by
the files, and so an argument: the unit of the voltages (uV by others' readers; checked
against what electrodes record) and the frame of the positions. Not seen: how the tables
of scene cuts name their columns; see `neuromm.io.treebank_events.read_scenes`.

References
----------
Wang C et al. (2024) Brain Treebank: large-scale intracranial recordings from
naturalistic language stimuli. arXiv:2411.08343.
"""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from neuromm.core import DataError, InputMissingError, Sample, Study, UsageError
from neuromm.core.files import read_json
from neuromm.io.content import require_content
from neuromm.io.treebank_clock import FilmClock, read_clock
from neuromm.io.treebank_events import read_scenes, read_words
from neuromm.io.treebank_recording import (
    corrupted_electrodes,
    electrode_names,
    read_localization,
    treebank_raw,
)

__all__ = ["TreebankTrial", "brain_treebank_study", "open_brain_treebank"]

_logger = logging.getLogger(__name__)

_RECORDING = re.compile(r"sub_(?P<subject>\d+)_trial(?P<trial>\d{3})\.h5$")


@dataclass(frozen=True, kw_only=True)
class TreebankTrial:
    """One patient and one film.

    Attributes
    ----------
    sample : Sample
        ``data`` is the recording (`mne.io.BaseRaw`, V, not in memory), corrupted
        electrodes in ``info["bads"]``; spans in which the film stood still are
        annotated ``BAD_film_paused``. ``entities``: ``subject``, ``task`` (the film)
        and ``run`` (``"000"``).
    electrodes : DataFrame
        A row an electrode: ``name``, ``x``, ``y``, ``z`` (mm), ``region``, ``hemi``
        and more, for `neuromm.prepare.ContactSpace`; ``attrs`` hold ``frame`` and
        ``atlas``.
    words : DataFrame
        A row a word, by onset: ``onset`` (s from the first sample), ``duration`` (s),
        ``stimulus`` and ``text`` (the word), ``sentence``, ``context`` (what was said
        up to and with the word), ``movie_time`` (s), and every other column of the
        transcript (pitch, rms, brightness, …) under its own name.
    scenes : DataFrame or None
        A row a cut: ``onset``, ``duration``, ``stimulus`` (``scene-0001``),
        ``sentence`` (the one of the nearest word), ``movie_time``; None where the
        release has no table of cuts for the film.
    film : str
    """

    sample: Sample
    electrodes: pd.DataFrame
    words: pd.DataFrame
    scenes: pd.DataFrame | None
    film: str


def open_brain_treebank(
    root: str | Path,
    subject: str | int,
    trial: str | int,
    *,
    sfreq: float | None = None,
    unit: Literal["V", "mV", "uV"] = "uV",
    frame: str | None = None,
    context_sentences: int = 2,
) -> TreebankTrial:
    """Open one trial of the Brain Treebank; voltages stay on disk.

    Parameters
    ----------
    root : path-like
        The unpacked release.
    subject : str or int
        ``1``, ``"1"`` or ``"sub_1"``.
    trial : str or int
        ``0``, ``"0"`` or ``"trial000"``.
    sfreq : float, optional
        Sampling rate in Hz, which the files don't state; that of the amplifiers which
        is within 1 % of what the triggers give (2048 Hz, and 1024 Hz in subject 9) if
        not given.
    unit : {"V", "mV", "uV"}
        Unit of the voltages in the file. It does not say; an unlikely one is refused.
    frame : str, optional
        Name of the frame of the electrodes' ``x``, ``y``, ``z``, such as
        ``"MNI152NLin2009aSym"``. The release gives positions on an average brain and
        doesn't name it, so that without this they are not drawn in a template.
    context_sentences : int
        Sentences before the word's own that its ``context`` begins with.

    Returns
    -------
    trial : TreebankTrial

    Raises
    ------
    InputMissingError
        If a file is not there; the message names it and the download that holds it.
    DataError
        If a file is damaged or contradicts another, the clocks of film and recording
        don't belong together, or no word has a place in the recording.

    Warns
    -----
    UserWarning
        If electrodes have no region or position, or the list of corrupted ones is
        missing.

    Notes
    -----
    Onsets lie on samples. Words that were not shown, lie beyond the recording (some
    stopped before the film did) or have no time in the transcript are left out, and
    counted in the log.
    """
    if context_sentences < 0:
        raise UsageError(f"context_sentences must be >= 0, got {context_sentences}")
    folder = _root(root)
    who, which = _number(subject, "sub_"), f"{int(_number(trial, 'trial')):03d}"
    name = f"sub_{who}_trial{which}"
    path = _recording(folder, name)
    film = _film(_file(folder, f"subject_metadata/{name}_metadata.json"))
    timings = _file(folder, f"subject_timings/{name}_timings.csv")
    clock = read_clock(timings, sfreq)
    labels = electrode_names(
        _file(folder, f"electrode_labels/sub_{who}/electrode_labels.json")
    )
    bads = corrupted_electrodes(folder / "corrupted_elec.json", who)
    raw = treebank_raw(path, labels, bads, clock.sfreq, unit)
    _mark_pauses(raw, clock)
    _file(folder, f"localization/sub_{who}/depth-wm.csv")
    electrodes = read_localization(folder / "localization", who, labels, frame)
    transcript = _file(folder, f"transcripts/{film}/features.csv")
    words = _placed(read_words(transcript, context_sentences), clock, raw, transcript)
    scenes = read_scenes(folder / "scene_annotations", film, words)
    if scenes is not None:
        scenes = _placed(scenes, clock, raw, Path(scenes.attrs["source"]))
    sample = Sample(
        data=raw,
        modality="ieeg",
        entities={"subject": who, "task": film, "run": which},
        source=path,
        metadata={"SamplingFrequency": clock.sfreq, "PowerLineFrequency": 60},
        companions={
            "electrodes": folder / f"localization/sub_{who}/depth-wm.csv",
            "events": transcript,
            "timings": timings,
        },
    )
    return TreebankTrial(
        sample=sample, electrodes=electrodes, words=words, scenes=scenes, film=film
    )


def brain_treebank_study(root: str | Path) -> Study:
    """List the recordings of a release; `open_brain_treebank` adds the events.

    Returns
    -------
    study : Study
        A row a trial, by subject and trial: ``subject``, ``session``, ``task`` (the
        film, None without metadata), ``run`` (``"000"``), ``space``, ``modality``,
        ``path``.

    Raises
    ------
    InputMissingError
        If there is no recording.
    """
    folder = _root(root)
    rows = []
    for place in (folder, folder / "all_subject_data"):
        for path in place.glob("sub_*_trial*.h5"):
            match = _RECORDING.fullmatch(path.name)
            if match is None:
                continue
            about = folder / "subject_metadata" / f"{path.stem}_metadata.json"
            rows.append(
                {
                    "subject": match["subject"],
                    "session": None,
                    "task": _film(about) if about.exists() else None,
                    "run": match["trial"],
                    "space": None,
                    "modality": "ieeg",
                    "path": path,
                }
            )
    if not rows:
        raise InputMissingError(
            f"{folder}: holds no recording. Expected files like sub_1_trial000.h5, "
            "there or in all_subject_data/"
        )
    rows.sort(key=lambda row: (int(str(row["subject"])), str(row["run"])))

    def load(row: "pd.Series[Any]") -> Sample:
        return open_brain_treebank(folder, row["subject"], row["run"]).sample

    return Study(pd.DataFrame(rows), load)


def _root(root: str | Path) -> Path:
    folder = Path(root)
    if not folder.is_dir():
        raise InputMissingError(f"{folder}: is no folder of the Brain Treebank")
    return folder


def _number(label: str | int, prefix: str) -> str:
    text = str(label).removeprefix(prefix)
    if not text.isdecimal():
        raise UsageError(f"expected a number or {prefix}<number>, got {label!r}")
    return str(int(text))


def _file(folder: Path, name: str) -> Path:
    """A file of the release; an error that names the archive it comes in."""
    path = folder / name
    if not path.exists() and not path.is_symlink():
        archive = name.partition("/")[0]
        raise InputMissingError(
            f"{path}: no such file. It comes in {archive}.zip of the release; is it "
            "unpacked there?"
        )
    return require_content(path)


def _recording(folder: Path, name: str) -> Path:
    for place in (folder, folder / "all_subject_data"):
        path = place / f"{name}.h5"
        if path.exists() or path.is_symlink():
            return require_content(path)
    there = sorted(
        path.stem
        for path in [*folder.glob("sub_*.h5"), *folder.glob("all_subject_data/*.h5")]
    )
    raise InputMissingError(
        f"{folder}: has no recording {name}.h5, there or in all_subject_data/ (found: "
        f"{', '.join(there) or 'none'})"
    )


def _film(path: Path) -> str:
    film = read_json(path).get("filename")
    if not isinstance(film, str) or not film or Path(film).name != film:
        raise DataError(f"expected the film as 'filename', got {film!r}", path)
    return film


def _mark_pauses(raw: Any, clock: FilmClock) -> None:
    """Annotate where the film stood still: what is seen there is no film."""
    import mne

    onset, end = (clock.breaks() / clock.sfreq).T
    recorded = onset < raw.n_times / clock.sfreq
    duration = np.minimum(end, raw.n_times / clock.sfreq) - onset
    raw.set_annotations(
        mne.Annotations(
            onset[recorded],
            duration[recorded],
            ["BAD_film_paused"] * int(recorded.sum()),
        ),
        verbose="ERROR",
    )


def _placed(
    events: pd.DataFrame, clock: FilmClock, raw: Any, path: Path
) -> pd.DataFrame:
    """Events that have a sample in the recording, with their onset in s."""
    samples = clock.samples(events["movie_time"].to_numpy(dtype=float))
    unshown = np.isnan(samples)
    beyond = ~unshown & ((samples < 0) | (samples >= raw.n_times))
    kept = ~(unshown | beyond)
    counts = (
        f"{int(unshown.sum())} are not between two triggers, {int(beyond.sum())} not "
        "within the recording"
    )
    if not kept.any():
        raise DataError(
            f"none of {len(events)} events has a place in the recording: {counts}. Is "
            "this the film of this trial, and are these its timings?",
            path,
        )
    if not kept.all():
        _logger.warning(
            "%s: %d of %d events left out: %s",
            *(path, int((~kept).sum()), len(events), counts),
        )
    placed = events[kept].assign(onset=samples[kept] / clock.sfreq)
    first: Mapping[str, None] = dict.fromkeys(("onset", "duration", "stimulus"))
    columns = [*first, *(c for c in placed.columns if c not in first)]
    ordered: pd.DataFrame = placed[columns].sort_values("onset", kind="stable")
    return ordered.reset_index(drop=True)
