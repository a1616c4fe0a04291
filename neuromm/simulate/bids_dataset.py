"""A BIDS data set of a film, with planted truth: fMRI, iEEG and EEG."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from neuromm.core import OutputError, UsageError
from neuromm.core.files import write_text
from neuromm.simulate.bids_bold import BOLD_SIDECAR, EVENTS_PER_BOLD_RUN, write_bold
from neuromm.simulate.bids_files import (
    write_derivative_description,
    write_features,
    write_root,
    write_table,
)
from neuromm.simulate.bids_voltage import (
    EVENTS_PER_VOLTAGE_RUN,
    SIDECARS,
    voltage_sidecar,
    write_voltage,
)
from neuromm.simulate.film import Film, make_film
from neuromm.simulate.planted_brain import planted_regions

__all__ = ["BidsTruth", "make_bids_dataset"]

_EVENTS = {
    "fmri": EVENTS_PER_BOLD_RUN,
    "ieeg": EVENTS_PER_VOLTAGE_RUN,
    "eeg": EVENTS_PER_VOLTAGE_RUN,
}
_N_FEATURES = 16
_REGION_SHIFT_MM = 2.0


@dataclass(frozen=True, kw_only=True)
class BidsTruth:
    """Where a simulated data set lies, and what is true of it.

    Attributes
    ----------
    root : Path
        The BIDS folder.
    subjects : tuple of str
        Labels without ``sub-``.
    derivatives : dict of str to Path
        ``"fmriprep"``, where there is fMRI.
    features : dict of str to Path
        Feature space to its table, keyed by ``stim_file``.
    table : DataFrame
        A row a voxel, contact or sensor: ``subject``; ``datatype`` (``func``, ``ieeg``
        or ``eeg``); ``target`` (voxel indices as in ``"12-30-4"``, or the channel);
        ``x``, ``y``, ``z`` (mm, MNI; nan for EEG); ``kind`` (``vision``, ``language``,
        ``both``, a sum of them; ``interactive``, their products; or ``none``);
        ``r_max``, the correlation of the noise-free signal with
        the recording once drift, motion and line noise are gone (for channels, at the
        peak of the response).
    table_path : Path
        The same as a file.
    """

    root: Path
    subjects: tuple[str, ...]
    derivatives: dict[str, Path]
    features: dict[str, Path]
    table: pd.DataFrame
    table_path: Path


def make_bids_dataset(
    root: str | Path,
    *,
    n_subjects: int = 3,
    modalities: Sequence[str] = ("fmri", "ieeg"),
    n_runs: int = 3,
    interactive: bool = False,
    rng: int | np.random.Generator = 0,
) -> BidsTruth:
    """Write a valid BIDS data set of which the right answer is known.

    Parameters
    ----------
    root : path-like
        A new or empty folder.
    n_subjects : int
    modalities : sequence of {"fmri", "ieeg", "eeg"}
        ``"fmri"``: raw BOLD (TR 2 s) with events, and a derivative data set with the
        names of fMRIPrep: preprocessed BOLD in MNI space at 8 mm, brain masks and
        confounds. ``"ieeg"``: three depth electrodes with positions in mm of MNI space,
        256 Hz, BrainVision. ``"eeg"``: 19 electrodes of the 10-20 system.
    n_runs : int
        Runs a subject and modality, at least 2 to hold one out.
    interactive : bool
        Plant sites of integration: two further regions, and a fourth depth electrode,
        answer to products of vision and language; the features ``"joint"``, as of a
        network trained on both, know these products.
    rng : int or Generator
        The same seed gives the same bytes.

    Returns
    -------
    truth : BidsTruth

    Raises
    ------
    UsageError
        If a modality is unknown, or a number is below 1.
    OutputError
        If ``root`` holds files already.

    Notes
    -----
    All subjects see the same clips in their own order, each clip once, so that runs
    held out hold clips that no model was fitted to. The features of vision and language
    are independent of each other.
    """
    root = Path(root)
    _check(root, n_subjects, modalities, n_runs)
    rng = np.random.default_rng(rng)
    n_clips = n_runs * max(_EVENTS[modality] for modality in modalities)
    # Spawned streams: sub-02 is the same, whether there are two subjects or ten.
    film_rng, weight_rng, *subject_rngs = rng.spawn(2 + n_subjects)
    film = make_film(film_rng, n_clips, _N_FEATURES, joint=interactive)
    n_regions, n_drivers = (
        len(planted_regions(interactive=interactive)),
        len(film.drivers),
    )
    tuning = weight_rng.standard_normal((n_regions + 1, n_drivers, _N_FEATURES))
    subjects = tuple(f"{i + 1:02d}" for i in range(n_subjects))
    write_root(root, subjects, _root_sidecars(modalities, interactive))
    features = write_features(root, film)
    derivatives = {}
    if "fmri" in modalities:
        derivatives["fmriprep"] = root / "derivatives" / "fmriprep"
        write_derivative_description(
            derivatives["fmriprep"], "Simulated BOLD under the names of fMRIPrep"
        )
        # fMRIPrep's name for confounds is older than the standard's.
        write_text(derivatives["fmriprep"] / ".bidsignore", "*_timeseries.*\n")
    tables = [
        part
        for label, stream in zip(subjects, subject_rngs, strict=True)
        for part in _write_subject(
            root, label, film, tuning, modalities, n_runs, stream
        )
    ]
    table = pd.concat(tables, ignore_index=True)
    table_path = root / "derivatives" / "features" / "truth.tsv"
    write_table(table_path, table, decimals=4)
    return BidsTruth(
        root=root,
        subjects=subjects,
        derivatives=derivatives,
        features=features,
        table=table,
        table_path=table_path,
    )


def _check(root: Path, n_subjects: int, modalities: Sequence[str], n_runs: int) -> None:
    unknown = sorted(set(modalities) - set(_EVENTS))
    if unknown or not modalities:
        raise UsageError(
            f"modalities must name some of {', '.join(_EVENTS)}, got "
            f"{', '.join(unknown) or 'none'}"
        )
    if n_subjects < 1 or n_runs < 1:
        raise UsageError(
            f"n_subjects and n_runs must be at least 1, got {n_subjects} and {n_runs}"
        )
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise OutputError(
            f"{root} is there already. A data set is written into a new or empty "
            "folder: remove it, or choose another."
        )


def _root_sidecars(
    modalities: Sequence[str], interactive: bool
) -> dict[str, Mapping[str, object]]:
    known = {name: voltage_sidecar(name, interactive=interactive) for name in SIDECARS}
    known["bold"] = BOLD_SIDECAR
    suffixes = ["bold" if name == "fmri" else name for name in modalities]
    return {suffix: known[suffix] for suffix in dict.fromkeys(suffixes)}


def _write_subject(
    root: Path,
    subject: str,
    film: Film,
    tuning: np.ndarray,
    modalities: Sequence[str],
    n_runs: int,
    rng: np.random.Generator,
) -> list[pd.DataFrame]:
    streams = dict(zip(("brain", *_EVENTS), rng.spawn(1 + len(_EVENTS)), strict=True))
    n_regions = len(tuning) - 1
    shift = _REGION_SHIFT_MM * streams["brain"].standard_normal((n_regions, 3))
    tables = []
    for modality in dict.fromkeys(modalities):
        if modality == "fmri":
            table = write_bold(
                root, subject, film, tuning, shift, n_runs, streams["fmri"]
            )
        else:
            table = write_voltage(
                root, subject, modality, film, tuning, shift, n_runs, streams[modality]
            )
        tables.append(table)
    return tables
