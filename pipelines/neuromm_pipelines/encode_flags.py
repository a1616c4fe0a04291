"""The flags of ``neuromm encode``, and the settings that they make."""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from neuromm.core.errors import UsageError
from neuromm_pipelines.command_line import add_flag
from neuromm_pipelines.encode_settings import (
    BoldSettings,
    EpochSettings,
    ModelSettings,
)
from neuromm_pipelines.site_protocol import epoch_window

__all__ = [
    "add_bold",
    "add_epochs",
    "add_model",
    "add_running",
    "add_selection",
    "add_spreading",
    "bold_settings",
    "epoch_settings",
    "model_settings",
]

logger = logging.getLogger(__name__)
Group = argparse._ActionsContainer

_BOLD = BoldSettings()
_EPOCHS = EpochSettings()
_MODEL = ModelSettings()
_WINDOW = ("tmin", "tmax", "window_ms", "step_ms")


def add_selection(group: Group) -> None:
    """Flags that choose recordings and features."""
    many = "+"
    add_flag(
        group, "--features", nargs=many, metavar="NAME=PATH",
        help="feature spaces: tables keyed by stim_file, trial_type or onset "
        "(.tsv, .tsv.gz, .npz, .nc, .zarr)",
    )  # fmt: skip
    add_flag(
        group, "-d", "--derivatives", nargs=many, metavar="NAME=PATH",
        help="preprocessed data sets, such as fmriprep=PATH",
    )  # fmt: skip
    add_flag(
        group, "--participant-label", nargs=many, help="subjects, with or without sub-"
    )
    add_flag(group, "--session-label", nargs=many, help="sessions")
    add_flag(group, "-t", "--task", "--task-id", nargs=many, help="tasks")
    add_flag(group, "--run-label", nargs=many, help="runs")
    add_flag(group, "--space", nargs=many, help="spaces of preprocessed fMRI")
    add_flag(
        group, "--datatype", nargs=many, choices=["func", "eeg", "meg", "ieeg"],
        help="kinds of recordings; all that are there if not given",
    )  # fmt: skip
    add_flag(
        group, "--trial-type", nargs=many,
        help="keep the events of these trial types; all others if not given",
    )  # fmt: skip
    add_flag(
        group, "--bids-filter-file", type=Path, metavar="JSON",
        help="entity filters a data type, in fMRIPrep's form",
    )  # fmt: skip


def add_bold(group: Group) -> None:
    """Flags from BOLD volumes to samples."""
    add_flag(
        group, "--hrf", choices=["spm", "glover", "fir"], default=_BOLD.hrf,
        help="haemodynamic model (default: %(default)s)",
    )  # fmt: skip
    add_flag(
        group, "--delays", type=int, nargs="+", default=list(_BOLD.delays),
        help="delays in volumes, with --hrf fir (default: 1 2 3 4)",
    )  # fmt: skip
    add_flag(
        group, "--high-pass", type=float, default=_BOLD.high_pass, metavar="HZ",
        help="slowest frequency kept, 0 for none (default: 1/128)",
    )  # fmt: skip
    add_flag(
        group, "--confounds", nargs="+", default=[],
        help="columns or sets to regress out: motion6, motion24, wm_csf, acompcor5, "
        "cosine, or column names (default: none)",
    )  # fmt: skip
    add_flag(
        group, "--trim", type=int, nargs=2, default=list(_BOLD.trim),
        metavar=("START", "END"), help="volumes left out of each run (default: 0 0)",
    )  # fmt: skip
    add_flag(
        group, "--slice-time-ref", type=float, default=_BOLD.slice_time_ref,
        help="time of a volume as a part of the TR (default: %(default)s)",
    )  # fmt: skip
    add_flag(
        group, "--mask", type=Path, metavar="NIFTI",
        help="voxels to encode; the derivatives' brain mask if not given",
    )  # fmt: skip


def add_epochs(group: Group) -> None:
    """Flags from continuous recordings to epochs."""
    add_flag(
        group, "--tmin", type=float, metavar="S",
        help=f"start of the epoch (default: {_EPOCHS.tmin})",
    )  # fmt: skip
    add_flag(
        group, "--tmax", type=float, metavar="S",
        help=f"end of the epoch (default: {_EPOCHS.tmax})",
    )  # fmt: skip
    add_flag(
        group, "--baseline", type=float, nargs=2, metavar=("FROM", "TO"),
        help="interval in s whose mean is taken off each epoch (default: none)",
    )  # fmt: skip
    add_flag(
        group, "--window-ms", type=float,
        help=f"length of a time bin (default: {_EPOCHS.window_ms})",
    )  # fmt: skip
    add_flag(
        group, "--step-ms", type=float,
        help=f"step from bin to bin (default: {_EPOCHS.step_ms})",
    )  # fmt: skip
    add_flag(
        group, "--reference", choices=["none", "average", "bipolar", "laplacian"],
        default=_EPOCHS.reference,
        help="re-referencing; laplacian and bipolar run along the shaft "
        "(default: as recorded)",
    )  # fmt: skip
    add_flag(
        group, "--line-freq", type=float, metavar="HZ",
        help="mains frequency; the recording's own if not given",
    )  # fmt: skip
    add_flag(group, "--no-notch", switch=True, help="keep the mains frequency")
    add_flag(
        group, "--l-freq", type=float, default=_EPOCHS.l_freq, metavar="HZ",
        help="low edge of the pass band, 0 for none (default: %(default)s)",
    )  # fmt: skip
    add_flag(
        group, "--h-freq", type=float, metavar="HZ",
        help="high edge of the pass band (default: none)",
    )  # fmt: skip
    add_flag(
        group, "--high-gamma", type=float, nargs=2, metavar=("LOW", "HIGH"),
        help="encode log amplitude in this band, such as 70 150",
    )  # fmt: skip
    _add_reject(group)


def _add_reject(group: Group) -> None:
    add_flag(
        group, "--reject", nargs="+", metavar="TYPE=AMPLITUDE",
        help="drop epochs with a larger peak-to-peak amplitude, in V, T or T/m: "
        "eeg=100e-6 (default: keep all)",
    )  # fmt: skip


def add_model(group: Group) -> None:
    """Flags of the regression and its statistics."""
    add_flag(
        group, "--alphas", type=float, nargs="+",
        help="ridge penalties to choose from, per target (default: 17 from 0.1 to 1e7)",
    )  # fmt: skip
    add_flag(
        group, "--scoring", choices=["r2", "correlation", "mse"],
        help=f"what chooses the penalty (default: {_MODEL.scoring})",
    )  # fmt: skip
    add_flag(
        group, "--folds", type=int,
        help="folds of whole runs, or of blocks in a single run "
        "(default: one run a fold; 5 blocks)",
    )  # fmt: skip
    add_flag(
        group,
        "--no-joint",
        switch=True,
        help="leave out the model of all feature spaces together",
    )
    add_flag(
        group, "--n-permutations", type=int, default=_MODEL.n_permutations,
        help="block permutations for p and q, 0 for none (default: %(default)s)",
    )  # fmt: skip
    add_flag(
        group, "--block", type=int, metavar="SAMPLES",
        help="block length of the permutations (default: 20 s of volumes, 10 events)",
    )  # fmt: skip
    add_flag(
        group, "--atlas", default=_MODEL.atlas,
        help="regions: a name, a NIfTI with labels beside it, none, or auto "
        "(Desikan-Killiany in MNI space; default)",
    )  # fmt: skip
    add_flag(
        group, "--atlas-distance-mm", type=float, default=_MODEL.atlas_distance_mm,
        help="farthest label that names a target (default: %(default)s)",
    )  # fmt: skip
    add_flag(
        group, "--random-seed", type=int, default=_MODEL.seed,
        help="seed of the permutations (default: %(default)s)",
    )  # fmt: skip
    _add_save(group)
    add_flag(
        group,
        "--sloppy",
        switch=True,
        help="100 permutations and resamples: to try a command out, not for results",
    )


def _add_save(group: Group) -> None:
    add_flag(
        group, "--save", nargs="+", choices=["predictions"],
        help="further outputs: held-out predictions with the responses (.npz)",
    )  # fmt: skip


def add_spreading(group: Group) -> None:
    """Flags that spread the work over chunks of targets, processes and machines."""
    add_flag(
        group, "--chunks", type=int, metavar="N",
        help="cut the targets of each unit into N parts, fitted apart (default: 1)",
    )  # fmt: skip
    add_flag(
        group, "--targets-chunk", metavar="I/N",
        help="fit part I of N alone, such as a task of a job array; neuromm merge "
        "joins them",
    )  # fmt: skip
    add_flag(
        group, "--executor", choices=["local", "dask"], default="local",
        help="who works: processes of this machine, or a Dask cluster "
        "(default: %(default)s)",
    )  # fmt: skip
    add_flag(
        group, "--scheduler", metavar="ADDRESS",
        help="of the Dask cluster: tcp://host:8786, or a scheduler file",
    )  # fmt: skip
    add_flag(
        group, "--nprocs", "--n-cpus", "--nthreads", type=int, default=1,
        help="units, or chunks, at a time (default: 1)",
    )  # fmt: skip
    add_flag(group, "--omp-nthreads", type=int, help="threads a process (default: all)")
    add_flag(
        group, "--mem", "--mem-mb", type=float, metavar="MB",
        help="memory limit; work is cut to fit, or refused with 75",
    )  # fmt: skip


def add_running(group: Group) -> None:
    """Flags that change no number."""
    add_flag(
        group, "--dry-run", switch=True,
        help="print inputs, outputs, memory and time, and stop",
    )  # fmt: skip
    add_flag(group, "--low-mem", switch=True, help="keep responses in single precision")
    add_flag(
        group, "--device", default="auto", help="auto, cpu or cuda[:N] (default: auto)"
    )
    add_flag(group, "--overwrite", switch=True, help="compute changed units anew")
    add_flag(group, "--resume", switch=True, help="skip finished units (the default)")
    add_flag(group, "--no-resume", switch=True, help="compute finished units again")
    add_flag(group, "--reports-only", switch=True, help="rebuild reports, no computing")
    add_flag(
        group, "--boilerplate-only", "--md-only-boilerplate", switch=True,
        help="write the methods text (Markdown), no computing",
    )  # fmt: skip
    add_flag(
        group, "--skip-bids-validation", switch=True, help="trust the input folder"
    )
    add_flag(
        group, "--stop-on-first-crash", switch=True,
        help="stop when a unit fails; the others go on if not given",
    )  # fmt: skip
    add_flag(
        group, "-w", "--work-dir", type=Path,
        help="accepted; state is kept in OUTPUT_DIR/.neuromm, and no scratch is needed",
    )  # fmt: skip
    add_flag(
        group, "--bids-database-dir", type=Path,
        help="accepted; no index is kept, since reading 3000 files takes half a second",
    )  # fmt: skip
    add_flag(
        group, "--backend", choices=["auto", "numpy", "torch", "cupy"], default="auto",
        help="array library that fits (default: numpy on the CPU, torch on a GPU)",
    )  # fmt: skip
    add_flag(
        group, "--clean-workdir", switch=True,
        help="accepted; there is no scratch folder to clean",
    )  # fmt: skip
    add_flag(
        group, "--resource-monitor", switch=True,
        help="accepted; time and memory are always written to OUTPUT_DIR/logs",
    )  # fmt: skip
    add_flag(group, "--debug", switch=True, help="show the traceback of a failed unit")
    add_flag(
        group, "--notrack", switch=True, help="accepted; neuromm never sends anything"
    )
    group.add_argument(
        "-v", "--verbose", action="count", default=0, help="say more; -vv says all"
    )


def bold_settings(args: argparse.Namespace) -> BoldSettings:
    """`BoldSettings` of parsed flags."""
    return BoldSettings(
        hrf=args.hrf,
        delays=tuple(args.delays) if args.hrf == "fir" else (),
        high_pass=args.high_pass,
        confounds=tuple(args.confounds),
        trim=tuple(args.trim),
        slice_time_ref=args.slice_time_ref,
        mask=args.mask,
    )


def epoch_settings(args: argparse.Namespace) -> EpochSettings:
    """`EpochSettings` of parsed flags."""
    given = {name: getattr(args, name) for name in _WINDOW}
    own = epoch_window(args)
    window = {
        name: own.get(name, getattr(_EPOCHS, name)) if value is None else value
        for name, value in given.items()
    }
    return EpochSettings(
        tmin=window["tmin"],
        tmax=window["tmax"],
        baseline=tuple(args.baseline) if args.baseline else None,
        window_ms=window["window_ms"],
        step_ms=window["step_ms"],
        reference=args.reference,
        line_freq=args.line_freq,
        notch=not args.no_notch,
        l_freq=args.l_freq or None,
        h_freq=args.h_freq,
        high_gamma=tuple(args.high_gamma) if args.high_gamma else None,
        reject=_amplitudes(args.reject),
    )


def _amplitudes(values: Sequence[str] | None) -> dict[str, float]:
    """Read ``eeg=100e-6 …``."""
    amplitudes = {}
    for value in values or ():
        kind, _, amplitude = value.partition("=")
        try:
            amplitudes[kind] = float(amplitude)
        except ValueError as error:
            raise UsageError(
                f"--reject takes TYPE=AMPLITUDE in V, T or T/m, such as eeg=100e-6, "
                f"got {value!r}"
            ) from error
    return amplitudes


def model_settings(args: argparse.Namespace) -> ModelSettings:
    """`ModelSettings` of parsed flags."""
    return ModelSettings(
        alphas=tuple(sorted(args.alphas or _MODEL.alphas)),
        scoring=args.scoring or _MODEL.scoring,
        folds=args.folds,
        joint=not args.no_joint,
        n_permutations=min(args.n_permutations, 100)
        if args.sloppy
        else args.n_permutations,
        block=args.block,
        seed=args.random_seed,
        atlas=args.atlas,
        atlas_distance_mm=args.atlas_distance_mm,
        save=tuple(args.save or ()),
    )
