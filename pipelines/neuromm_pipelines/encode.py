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
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from neuromm import __version__
from neuromm.core.errors import InputMissingError, UsageError
from neuromm.core.files import remove_leftovers
from neuromm_pipelines.backbone_flags import BackboneSettings
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
    SiteSettings,
)

if TYPE_CHECKING:
    from neuromm_pipelines.backbone_features import PlannedSpace
    from neuromm_pipelines.encode_unit import EncodingUnit

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
    backbones: BackboneSettings | None = None  # spaces computed from stimuli

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
    sites: SiteSettings | None = None  # None: no map of sites
    both_alignments: Path | None = None

    chunks: int = 1
    targets_chunk: tuple[int, int] | None = None  # number from 1, and number of chunks
    executor: Literal["local", "dask"] = "local"
    scheduler: str | None = None
    backend: Literal["numpy", "torch", "cupy"] = "numpy"
    device: str | None = None
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

    def __post_init__(self) -> None:
        self._check_spaces()
        if self.chunks < 1:
            raise UsageError(f"--chunks must be 1 or more, got {self.chunks}")
        if self.targets_chunk is not None and self.targets_chunk[1] != self.chunks:
            raise UsageError(
                f"--chunks {self.chunks} contradicts --targets-chunk "
                f"{self.targets_chunk[0]}/{self.targets_chunk[1]}: leave --chunks out"
            )
        if self.executor == "dask":
            self._check_dask()
        elif self.scheduler is not None:
            raise UsageError("--scheduler is for --executor dask: give both")

    def _check_spaces(self) -> None:
        computed = self.backbones.spaces if self.backbones else {}
        twice = [name for name in computed if name in self.features]
        if twice:
            raise UsageError(
                f"the feature space {', '.join(twice)} is given by --features and by "
                "--backbone: leave one of them out, or give it another name"
            )

    def _check_dask(self) -> None:
        if self.scheduler is None:
            raise UsageError(
                "--executor dask needs --scheduler: the address of a running scheduler "
                "(tcp://host:8786) or its scheduler file; with dask-jobqueue, "
                "cluster.scheduler_address"
            )
        if self.targets_chunk is not None:
            raise UsageError(
                "--targets-chunk is a task of a job array, and --executor dask spreads "
                "all chunks: give one of them (--chunks N with Dask)"
            )
        if self.nprocs != 1:
            raise UsageError(
                "--nprocs is of this machine; with --executor dask the cluster has the "
                "workers: leave --nprocs out"
            )

    @property
    def chunked(self) -> bool:
        """Whether chunks of targets are fitted apart and joined."""
        return (
            self.chunks > 1 or self.targets_chunk is not None or self.executor == "dask"
        )


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
    from neuromm_pipelines import (
        backbone_features,
        encode_sites,
        encode_unit,
        execution,
        outcomes,
        reporting,
        site_protocol,
    )

    _check_folders(config)
    elsewhere = config.analysis_level == "group" or (
        config.reports_only or config.boilerplate_only
    )
    if elsewhere and config.targets_chunk is not None:
        raise UsageError(
            "--targets-chunk fits a chunk of participants: leave it out of the group "
            "level and of --reports-only and --boilerplate-only"
        )
    if config.both_alignments is not None and config.analysis_level != "group":
        raise UsageError(
            "--both-alignments joins two outputs of participants: give it at the group "
            "level"
        )
    if config.analysis_level == "group":
        return reporting.write_group(config)
    if config.reports_only or config.boilerplate_only:
        return reporting.rewrite(config)
    _check_atlas(config)
    if not config.features and config.backbones is None:
        raise UsageError(
            "no feature space was given: --features vision=PATH [language=PATH …] "
            "(docs/features.md shows the format), or --backbone vision=NAME"
        )
    encode_sites.check_sites(backbone_features.with_names(config))
    if not config.skip_bids_validation:
        _validate_input(config.bids_dir)
    units = encode_unit.find_units(config)
    site_protocol.check_units(config.sites, units)
    spaces = backbone_features.planned_spaces(config, units)
    if config.dry_run:
        _print_plan(config, units, spaces)
        return 0
    started = time.monotonic()
    if config.targets_chunk is None:
        reporting.prepare_output(config)
    for path in remove_leftovers(config.output_dir):
        logger.info("removed %s, left by a killed run", path)
    config = backbone_features.with_features(config, spaces)
    ended = execution.encode_all(config, units)
    if config.targets_chunk is None:
        ended += reporting.write_subjects(config, ended)
    wall_time = time.monotonic() - started
    outcomes.log_run(config.output_dir, config.command_line, ended, wall_time)
    for outcome in ended:
        if outcome.status == "failed":
            print(f"neuromm encode: error: {outcome.message}", file=sys.stderr)
    if config.targets_chunk is not None:
        number, count = config.targets_chunk
        print(
            f"chunk {number} of {count}; when all are there: "
            f"neuromm merge {config.output_dir}"
        )
    print(f"neuromm encode: {outcomes.summary(ended)}")
    return outcomes.exit_code(ended)


def _print_plan(
    config: EncodeConfig,
    units: "Sequence[EncodingUnit]",
    spaces: "Sequence[PlannedSpace]",
) -> None:
    """Print what would be embedded and fitted; compute nothing."""
    from neuromm_pipelines import backbone_features, encode_plan, encode_unit

    for line in backbone_features.told_plan(spaces):
        print(line)
    tables = encode_unit.read_tables(config)
    tables += backbone_features.planned_tables(spaces)
    encode_plan.print_plan(backbone_features.with_names(config), units, tables)


def _check_atlas(config: EncodeConfig) -> None:
    """Refuse an atlas file that a worker, or the merge, would look for elsewhere."""
    atlas = Path(config.model.atlas)
    leaves_here = config.executor == "dask" or config.targets_chunk is not None
    if leaves_here and atlas.exists() and not atlas.is_absolute():
        raise UsageError(
            f"--atlas {atlas} is relative to this folder, and the work is done in "
            f"others: give {atlas.absolute()}"
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
    from neuromm_pipelines.backbone_flags import backbone_settings
    from neuromm_pipelines.chunks import chunk_number
    from neuromm_pipelines.devices import chosen_device
    from neuromm_pipelines.encode_flags import (
        bold_settings,
        epoch_settings,
        model_settings,
    )
    from neuromm_pipelines.site_flags import site_settings

    backend, device = chosen_device(args.device, args.backend)
    targets_chunk = chunk_number(args.targets_chunk) if args.targets_chunk else None
    chunks = args.chunks
    if chunks is None:
        chunks = 1 if targets_chunk is None else targets_chunk[1]
    return EncodeConfig(
        bids_dir=args.bids_dir,
        output_dir=args.output_dir,
        analysis_level=args.analysis_level,
        features=named_paths("--features", args.features),
        derivatives=named_paths("--derivatives", args.derivatives),
        backbones=backbone_settings(args),
        participant_label=_stripped(args.participant_label, "sub-"),
        session_label=_stripped(args.session_label, "ses-"),
        task=_stripped(args.task, "task-"),
        run_label=_stripped(args.run_label, "run-"),
        space=_stripped(args.space, "space-"),
        datatype=tuple(args.datatype or ()),
        trial_type=tuple(args.trial_type or ()),
        both_alignments=args.both_alignments,
        bids_filter_file=args.bids_filter_file,
        bold=bold_settings(args),
        epochs=epoch_settings(args),
        model=model_settings(args),
        sites=site_settings(args),
        chunks=chunks,
        targets_chunk=targets_chunk,
        executor=args.executor,
        scheduler=args.scheduler,
        backend=backend,
        device=device,
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
    from neuromm_pipelines import backbone_flags, encode_flags, site_flags

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
    backbone_flags.add_backbones(parser.add_argument_group("features of stimuli"))
    encode_flags.add_bold(parser.add_argument_group("fMRI"))
    encode_flags.add_epochs(parser.add_argument_group("EEG, MEG and iEEG"))
    encode_flags.add_model(parser.add_argument_group("model and statistics"))
    site_flags.add_sites(parser.add_argument_group("sites of multimodal integration"))
    encode_flags.add_spreading(parser.add_argument_group("spreading the work"))
    encode_flags.add_running(parser.add_argument_group("running"))
    add_flag(
        parser, "--config-file", metavar="TOML", help="defaults for any of these flags"
    )
    return parser


if __name__ == "__main__":
    from neuromm_pipelines.command_line import guarded

    sys.exit(guarded("neuromm encode", main, sys.argv[1:]))
