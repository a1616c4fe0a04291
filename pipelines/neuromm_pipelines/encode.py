"""``neuromm encode``: BIDS app from recordings and feature spaces to encoding maps.

Contract: BIDS-Apps 1.0 (bids_dir output_dir {participant,group}), the flags of fMRIPrep
where they mean the same here, exit codes of sysexits.h.
"""

import argparse
import logging
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from neuromm import __version__
from neuromm.core.errors import InputMissingError, UsageError
from neuromm.core.files import remove_leftovers, write_json
from neuromm_pipelines.command_line import (
    RESEARCH_USE,
    QuietAliases,
    add_flag,
    named_paths,
    start_logging,
)
from neuromm_pipelines.encode_settings import (
    BoldSettings,
    EpochSettings,
    ModelSettings,
)

if TYPE_CHECKING:
    from neuromm_pipelines.encode_unit import Outcome

__all__ = ["EncodeConfig", "build_parser", "main", "run"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class EncodeConfig:
    """What ``neuromm encode`` was asked to do."""

    bids_dir: Path
    output_dir: Path
    analysis_level: Literal["participant", "group"] = "participant"
    features: Mapping[str, Path] = field(default_factory=dict)
    derivatives: Mapping[str, Path] = field(default_factory=dict)

    participant_label: tuple[str, ...] = ()
    session_label: tuple[str, ...] = ()
    task: tuple[str, ...] = ()
    run_label: tuple[str, ...] = ()
    space: tuple[str, ...] = ()
    datatype: tuple[str, ...] = ()
    trial_type: tuple[str, ...] = ()
    bids_filter_file: Path | None = None

    bold: BoldSettings = field(default_factory=BoldSettings)
    epochs: EpochSettings = field(default_factory=EpochSettings)
    model: ModelSettings = field(default_factory=ModelSettings)

    nprocs: int = 1
    omp_nthreads: int | None = None
    mem_mb: float | None = None
    low_mem: bool = False
    dry_run: bool = False
    resume: bool = True
    overwrite: bool = False
    reports_only: bool = False
    boilerplate_only: bool = False
    stop_on_first_crash: bool = False
    skip_bids_validation: bool = False
    debug: bool = False
    command_line: str = ""


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, run, and return the exit code."""
    parser = build_parser()
    arguments = list(sys.argv[1:] if argv is None else argv)
    args = parser.parse_args(arguments)
    if args.config_file is not None:
        parser.set_defaults(**_config_defaults(parser, Path(args.config_file)))
        args = parser.parse_args(arguments)
    start_logging(args.verbose)
    return run(_config(args, arguments))


def run(config: EncodeConfig) -> int:
    """Encode every unit that was asked for.

    Returns
    -------
    exit_code : int
        0 if every unit has all its files and its report; the failure's own code if
        every unit failed with the same one; else 1.

    Raises
    ------
    neuromm.core.NeurommError
        If nothing can be started: a folder, a label or a feature table is wrong.
    """
    from neuromm_pipelines import encode_unit, reporting

    _check_folders(config)
    if config.analysis_level == "group":
        return reporting.write_group(config)
    if config.reports_only or config.boilerplate_only:
        return reporting.rewrite(config)
    if not config.features:
        raise UsageError(
            "no feature space was given: --features vision=PATH [language=PATH …] "
            "(docs/features.md shows the format)"
        )
    if not config.skip_bids_validation:
        _validate_input(config.bids_dir)
    units = encode_unit.find_units(config)
    if config.dry_run:
        encode_unit.print_plan(config, units)
        return 0
    started = time.monotonic()
    reporting.prepare_output(config)
    for path in remove_leftovers(config.output_dir):
        logger.info("removed %s, left by a killed run", path)
    outcomes = _encode_all(config, units)
    outcomes += reporting.write_subjects(config, outcomes)
    _log_run(config, outcomes, time.monotonic() - started)
    for outcome in outcomes:
        if outcome.status == "failed":
            print(f"neuromm encode: error: {outcome.message}", file=sys.stderr)
    print(_summary(outcomes))
    return _exit_code(outcomes)


def _encode_all(config: EncodeConfig, units: Sequence[Any]) -> "list[Outcome]":
    from tqdm import tqdm

    from neuromm_pipelines.encode_unit import encode_unit_by_name

    outcomes = []
    names = [unit.name for unit in units]
    with tqdm(total=len(names), unit="unit", disable=None) as bar:
        if config.nprocs == 1 or len(names) == 1:
            for name in names:
                bar.set_postfix_str(name)
                outcomes.append(encode_unit_by_name(config, name))
                bar.update()
                if config.stop_on_first_crash and outcomes[-1].status == "failed":
                    break
            return outcomes
        # Fresh interpreters: a fork would copy the threads of BLAS half-alive.
        with ProcessPoolExecutor(
            config.nprocs, mp_context=get_context("spawn")
        ) as pool:
            jobs = [pool.submit(encode_unit_by_name, config, name) for name in names]
            for job in as_completed(jobs):
                outcomes.append(job.result())
                bar.update()
                if config.stop_on_first_crash and outcomes[-1].status == "failed":
                    pool.shutdown(cancel_futures=True)
                    break
    return sorted(outcomes, key=lambda outcome: outcome.name)


def _summary(outcomes: "Sequence[Outcome]") -> str:
    counts = {
        status: sum(outcome.status == status for outcome in outcomes)
        for status in ("done", "skipped", "failed")
    }
    return "neuromm encode: " + ", ".join(f"{n} {s}" for s, n in counts.items())


def _exit_code(outcomes: "Sequence[Outcome]") -> int:
    failures = {outcome.code for outcome in outcomes if outcome.status == "failed"}
    if not failures:
        return 0
    all_failed = all(outcome.status == "failed" for outcome in outcomes)
    return failures.pop() if all_failed and len(failures) == 1 else 1


def _log_run(
    config: EncodeConfig, outcomes: "Sequence[Outcome]", wall_time: float
) -> None:
    """Write what differs from run to run (time, memory) beside the results."""
    from neuromm.core.provenance import package_versions, peak_memory

    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    write_json(
        config.output_dir / "logs" / f"run_{stamp}_{time.time_ns() % 10**9:09d}.json",
        {
            "command": config.command_line,
            "versions": package_versions(),
            "wall_time_s": round(wall_time, 3),
            "peak_memory_bytes": peak_memory(),
            "units": [
                {
                    "name": outcome.name,
                    "status": outcome.status,
                    "wall_time_s": outcome.wall_time,
                    "peak_memory_bytes": outcome.peak_memory,
                    "message": outcome.message,
                }
                for outcome in outcomes
            ],
        },
    )


def _check_folders(config: EncodeConfig) -> None:
    if not config.bids_dir.is_dir():
        raise InputMissingError(f"the BIDS folder {config.bids_dir} does not exist")
    output = config.output_dir.resolve()
    for name, folder in {"BIDS": config.bids_dir, **config.derivatives}.items():
        if output == folder.resolve():
            raise UsageError(
                f"the output folder is the {name} input folder ({folder}). Inputs are "
                f"never written to: choose for example "
                f"{config.bids_dir}/derivatives/neuromm"
            )
    if config.output_dir.exists() and not config.output_dir.is_dir():
        raise UsageError(f"the output {config.output_dir} is a file, not a folder")


def _validate_input(bids_dir: Path) -> None:
    from neuromm_pipelines.validation import validate

    validate(bids_dir)


def _config_defaults(parser: argparse.ArgumentParser, path: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text())
    except FileNotFoundError as error:
        raise InputMissingError(f"the configuration {path} does not exist") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is not valid TOML ({error})") from error
    known = {action.dest for action in parser._actions if action.option_strings}
    defaults = {name.replace("-", "_"): value for name, value in content.items()}
    unknown = sorted(set(defaults) - known)
    if unknown:
        raise UsageError(
            f"{path} sets {', '.join(unknown)}, which neuromm encode does not know. "
            "Names are those of the flags: participant-label, hrf, alphas, …"
        )
    return defaults


def _stripped(values: Sequence[str] | None, prefix: str) -> tuple[str, ...]:
    return tuple(value.removeprefix(prefix) for value in values or ())


def _config(args: argparse.Namespace, argv: Sequence[str]) -> EncodeConfig:
    from neuromm_pipelines.encode_flags import (
        bold_settings,
        check_device,
        epoch_settings,
        model_settings,
    )

    check_device(args.device)
    return EncodeConfig(
        bids_dir=args.bids_dir,
        output_dir=args.output_dir,
        analysis_level=args.analysis_level,
        features=named_paths("--features", args.features),
        derivatives=named_paths("--derivatives", args.derivatives),
        participant_label=_stripped(args.participant_label, "sub-"),
        session_label=_stripped(args.session_label, "ses-"),
        task=_stripped(args.task, "task-"),
        run_label=_stripped(args.run_label, "run-"),
        space=_stripped(args.space, "space-"),
        datatype=tuple(args.datatype or ()),
        trial_type=tuple(args.trial_type or ()),
        bids_filter_file=args.bids_filter_file,
        bold=bold_settings(args),
        epochs=epoch_settings(args),
        model=model_settings(args),
        nprocs=args.nprocs,
        omp_nthreads=args.omp_nthreads,
        mem_mb=args.mem,
        low_mem=args.low_mem,
        dry_run=args.dry_run,
        resume=not args.no_resume,
        overwrite=args.overwrite,
        reports_only=args.reports_only,
        boilerplate_only=args.boilerplate_only,
        stop_on_first_crash=args.stop_on_first_crash,
        skip_bids_validation=args.skip_bids_validation,
        debug=args.debug,
        command_line="neuromm encode " + " ".join(argv),
    )


def build_parser() -> argparse.ArgumentParser:
    """Parser of ``neuromm encode``."""
    from neuromm_pipelines import encode_flags

    parser = argparse.ArgumentParser(
        prog="neuromm encode",
        usage="neuromm encode BIDS_DIR OUTPUT_DIR {participant,group} "
        "--features NAME=PATH … [options]",
        description="Predict every voxel, vertex, sensor or contact from feature "
        f"spaces; write maps, tables and a report.\n\n{RESEARCH_USE}",
        epilog="exit codes: 0 all done · 1 some unit failed · 2 usage · 65 bad data · "
        "66 input missing\n70 internal · 73 cannot write · 75 resource limit, safe to "
        "retry · 130 interrupted",
        formatter_class=QuietAliases,
    )
    parser.add_argument("bids_dir", type=Path, help="root of the BIDS data set")
    parser.add_argument("output_dir", type=Path, help="where the derivatives go")
    parser.add_argument("analysis_level", choices=["participant", "group"])
    parser.add_argument("--version", action="version", version=f"neuromm {__version__}")
    encode_flags.add_selection(parser.add_argument_group("what to encode"))
    encode_flags.add_bold(parser.add_argument_group("fMRI"))
    encode_flags.add_epochs(parser.add_argument_group("EEG, MEG and iEEG"))
    encode_flags.add_model(parser.add_argument_group("model and statistics"))
    encode_flags.add_running(parser.add_argument_group("running"))
    add_flag(
        parser, "--config-file", metavar="TOML", help="defaults for any of these flags"
    )
    return parser


if __name__ == "__main__":
    from neuromm_pipelines.command_line import guarded

    sys.exit(guarded("neuromm encode", main, sys.argv[1:]))
