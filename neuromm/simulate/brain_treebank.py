"""A trial in the layout of the Brain Treebank, with responses that are known.

Voltage of a contact = evoked + noise + reference + line:

evoked     after each word (cut), a bump of Gaussian shape times the loudness of the
           word (the brightness of the scene) times the gain of the contact
noise      white
reference  a slow wave that all contacts share, which the Laplacian removes
line       60 Hz and its double, which the notch removes

The film pauses once, and the recording goes on.

References
----------
Layout: Wang C et al. (2024) Brain Treebank. arXiv:2411.08343.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuromm.core.files import write_json, write_text

__all__ = ["TreebankTruth", "make_brain_treebank"]

Array = NDArray[np.floating]

_WORDS = (
    "the", "a", "fox", "runs", "house", "sees", "green", "over", "hill", "and", "dog",
    "sleeps", "river", "under", "bright", "moon",
)  # fmt: skip
_SENTENCE_WORDS = 6
_WORD_S, _SCENE_S, _START_S = 0.45, 1.7, 3.0
_TRIGGER_S, _LEAD_S, _PAUSE_S = 0.5, 2.0, 7.0
_REGIONS = ("ctx-lh-superiortemporal", "ctx-rh-lateraloccipital", "Left-Hippocampus")
_MARKS = ("", "*", "#")  # the release marks some names


@dataclass(frozen=True, kw_only=True)
class TreebankTruth:
    """Where the files lie, and what they must be found to hold.

    Attributes
    ----------
    root : Path
    film : str
    words, scenes : DataFrame
        In the order of the film: ``movie_time`` (s), ``onset`` (s from the first
        sample of the recording) and ``strength`` (standard normal), which drives the
        responses; ``text`` and ``sentence`` for words.
    contacts : DataFrame
        ``name``, ``region``, ``word_gain``, ``scene_gain`` (V per unit of strength at
        the peak), ``corrupted``.
    pause : (float, float)
        Start and end in s of the recording.
    peak_s, width_s : float
        Middle and standard deviation of the evoked bump, in s after the event.
    """

    root: Path
    film: str
    words: pd.DataFrame
    scenes: pd.DataFrame
    contacts: pd.DataFrame
    pause: tuple[float, float]
    peak_s: float
    width_s: float

    def evoked(self, times: Array) -> Array:
        """The bump, 1 at its peak, at times in s after an event."""
        bump: Array = np.exp(-0.5 * ((times - self.peak_s) / self.width_s) ** 2)
        return bump


def make_brain_treebank(
    root: str | Path,
    *,
    subject: int = 1,
    trial: int = 0,
    n_words: int = 120,
    sfreq: float = 512.0,
    noise_uv: float = 10.0,
    rng: int | np.random.Generator = 0,
) -> TreebankTruth:
    """Write one trial: two shafts of depth electrodes, a film with words and cuts.

    Parameters
    ----------
    root : path-like
        Folder of the release; made if it is not there. More trials may be written to
        it.
    subject, trial : int
    n_words : int
        0.45 s apart, six a sentence.
    sfreq : float
        Sampling rate in Hz, one that the reader knows (256 to 4096).
    noise_uv : float
        Standard deviation of the noise of a sample, uV.
    rng : int or Generator

    Returns
    -------
    truth : TreebankTruth

    Notes
    -----
    Shaft ``T1a`` has five contacts, of which the second answers to words; shaft
    ``O1b`` four, of which the third answers to cuts and the last is corrupted; contact
    ``F2c1`` stands alone. ``DC1`` carries triggers, and the file has one data set more
    than names, as that of subject 1.
    """
    import h5py

    generator = np.random.default_rng(rng)
    folder = Path(root)
    film, name = f"film-{trial}", f"sub_{subject}_trial{trial:03d}"
    contacts = _contacts()
    words, scenes = _words(generator, n_words), _scenes(generator, n_words)
    length_s = _START_S + n_words * _WORD_S + 2.0
    pause_at = words["movie_time"].iloc[n_words // 2] + _WORD_S / 2
    for events in (words, scenes):
        events["onset"] = _recorded(events["movie_time"].to_numpy(), pause_at)
    pause = (float(_LEAD_S + pause_at), float(_LEAD_S + pause_at + _PAUSE_S))
    truth = TreebankTruth(
        root=folder,
        film=film,
        words=words,
        scenes=scenes,
        contacts=contacts,
        pause=pause,
        peak_s=0.3,
        width_s=0.08,
    )
    n_times = round((_LEAD_S + length_s + _PAUSE_S + 3.0) * sfreq)
    names = [*contacts["name"], "DC1"]
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / f"{name}.h5", "w") as file:
        group = file.create_group("data")
        signals = _voltages(generator, truth, n_times, sfreq, noise_uv)
        for number, signal in enumerate([*signals, np.zeros(n_times), signals[0]]):
            group.create_dataset(f"electrode_{number}", data=signal)
    _write_tables(folder, name, subject, truth, names)
    timings = folder / f"subject_timings/{name}_timings.csv"
    _write_timings(timings, length_s, pause_at, sfreq)
    return truth


def _contacts() -> pd.DataFrame:
    names = [*(f"T1a{k}" for k in range(1, 6)), *(f"O1b{k}" for k in range(1, 5))]
    names.append("F2c1")
    table = pd.DataFrame({"name": names})
    table["region"] = [_REGIONS["TOF".index(name[0])] for name in names]
    table["word_gain"] = np.where(table["name"] == "T1a2", 20e-6, 0.0)
    table["scene_gain"] = np.where(table["name"] == "O1b3", 20e-6, 0.0)
    table["corrupted"] = table["name"] == "O1b4"
    return table


def _words(rng: np.random.Generator, n_words: int) -> pd.DataFrame:
    text = rng.choice(_WORDS, n_words)
    number = np.arange(n_words) // _SENTENCE_WORDS
    sentences = pd.Series(text).groupby(number).agg(" ".join)
    return pd.DataFrame(
        {
            "text": text,
            "sentence": sentences.to_numpy()[number],
            "first": np.arange(n_words) % _SENTENCE_WORDS == 0,
            "movie_time": _START_S + _WORD_S * np.arange(n_words),
            "strength": rng.standard_normal(n_words),
        }
    )


def _scenes(rng: np.random.Generator, n_words: int) -> pd.DataFrame:
    times = np.arange(_START_S + 0.2, _START_S + n_words * _WORD_S, _SCENE_S)
    strength = rng.standard_normal(len(times))
    return pd.DataFrame({"movie_time": times, "strength": strength})


def _recorded(movie_time: Array, pause_at: float) -> Array:
    """Seconds of the recording at which the film was at a time."""
    return _LEAD_S + movie_time + _PAUSE_S * (movie_time >= pause_at)


def _voltages(
    rng: np.random.Generator,
    truth: TreebankTruth,
    n_times: int,
    sfreq: float,
    noise_uv: float,
) -> Array:
    """In uV, as the release."""
    contacts = truth.contacts
    times = np.arange(n_times) / sfreq
    signals = noise_uv * rng.standard_normal((len(contacts), n_times))
    signals += 100 * np.sin(2 * np.pi * 0.7 * times)
    for harmonic, strength in ((60.0, 30.0), (120.0, 10.0)):
        phase = rng.uniform(0, 2 * np.pi, (len(contacts), 1))
        signals += strength * np.sin(2 * np.pi * harmonic * times + phase)
    for events, gain in ((truth.words, "word_gain"), (truth.scenes, "scene_gain")):
        evoked = np.zeros(n_times)
        for onset, strength in zip(events["onset"], events["strength"], strict=True):
            first = round(onset * sfreq)
            span = slice(first, min(first + round(sfreq), n_times))
            evoked[span] += strength * truth.evoked(times[span] - first / sfreq)
        signals += 1e6 * contacts[gain].to_numpy()[:, None] * evoked
    return signals


def _write_tables(
    folder: Path, name: str, subject: int, truth: TreebankTruth, names: list[str]
) -> None:
    marked = [name + _MARKS[k % len(_MARKS)] for k, name in enumerate(names)]
    labels = folder / f"electrode_labels/sub_{subject}/electrode_labels.json"
    write_text(labels, json.dumps(marked))
    contacts = truth.contacts
    bad = contacts["name"][contacts["corrupted"]].tolist()
    write_json(folder / "corrupted_elec.json", {f"sub_{subject}": [*bad, "DC1"]})
    write_json(
        folder / f"subject_metadata/{name}_metadata.json",
        {"title": truth.film, "filename": truth.film},
    )
    number = np.arange(len(contacts))
    voxels = pd.DataFrame(
        {
            "Electrode": contacts["name"],
            "L": 100 + number,
            "I": 120 + number,
            "P": 90 + number,
            "DesikanKilliany": contacts["region"],
        }
    )
    place = folder / f"localization/sub_{subject}/depth-wm.csv"
    write_text(place, voxels[::-1].to_csv(index=False))
    positions = pd.DataFrame(
        {
            "Subject": f"sub_{subject}",
            "Electrode": contacts["name"],
            "Z": 5.0,
            "X": -40.0 - 3.5 * number,
            "Y": -20.0,
        }
    )
    on_average = folder / "localization/elec_coords_full.csv"
    write_text(on_average, positions.to_csv(index=False))
    words = truth.words
    transcript = pd.DataFrame(
        {
            "text": words["text"],
            "start": words["movie_time"].round(6),
            "end": (words["movie_time"] + 0.3).round(6),
            "is_onset": words["first"].astype(float),
            "rms": words["strength"],
        }
    )
    write_text(folder / f"transcripts/{truth.film}/features.csv", transcript.to_csv())
    cuts = truth.scenes[["movie_time", "strength"]].rename(
        columns={"movie_time": "start", "strength": "brightness"}
    )
    write_text(folder / f"scene_annotations/{truth.film}.csv", cuts.to_csv(index=False))


def _write_timings(path: Path, length_s: float, pause_at: float, sfreq: float) -> None:
    times = np.arange(0, length_s, _TRIGGER_S)
    recorded = _recorded(times, pause_at)
    shown = (("beginning", 0.0, _LEAD_S), ("pause", pause_at, _LEAD_S + pause_at))
    resumed = _LEAD_S + pause_at + _PAUSE_S
    rows = [
        *shown,
        ("unpause", pause_at, resumed),
        *(("trigger", *row) for row in zip(times, recorded, strict=True)),
        ("end", length_s, _LEAD_S + length_s + _PAUSE_S),
    ]
    table = pd.DataFrame(rows, columns=["type", "movie_time", "index"])
    table["index"] = (table["index"] * sfreq).round().astype(int)
    ordered = table.sort_values("index", kind="stable")
    write_text(path, ordered.to_csv(index=False))
