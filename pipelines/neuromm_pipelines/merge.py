"""``neuromm merge``: joins the chunks of a job array to results, maps and reports.

The configuration lies beside the chunks, so the output folder is all that is named. The
recordings are read once more: for positions, design and the digests of the inputs.
"""

import argparse
import json
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from neuromm import __version__
from neuromm.core.errors import InputMissingError
from neuromm.core.files import remove_leftovers
from neuromm_pipelines.command_line import (
    RESEARCH_USE,
    QuietAliases,
    add_flag,
    start_logging,
)

if TYPE_CHECKING:
    from neuromm_pipelines.encode import EncodeConfig
    from neuromm_pipelines.outcomes import Outcome

__all__ = ["MergeConfig", "build_parser", "main", "run"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class MergeConfig:
    """What ``neuromm merge`` was asked to do."""

    output_dir: Path
    nprocs: int = 1
    overwrite: bool = False
    debug: bool = False
    command_line: str = ""


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, run, and return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    args = build_parser().parse_args(arguments)
    start_logging(args.verbose)
    return run(
        MergeConfig(
            output_dir=args.output_dir,
            nprocs=args.nprocs,
            overwrite=args.overwrite,
            debug=args.debug,
            command_line="neuromm merge " + " ".join(arguments),
        )
    )


def run(config: MergeConfig) -> int:
    """Join every unit whose chunks are all there.

    Returns
    -------
    exit_code : int
        0 if no chunk is missing and all was written; 66 if chunks are missing and
        nothing else went wrong; else as for ``neuromm encode``.

    Raises
    ------
    neuromm.core.NeurommError
        If there is no chunk, or the recordings are not where they were.
    """
    from neuromm_pipelines import chunk_tasks, execution, outcomes, reporting
    from neuromm_pipelines.stored_config import stored_configs

    started = time.monotonic()
    runs = stored_configs(config.output_dir)
    if not runs:
        return _nothing_left(config)
    for path in remove_leftovers(config.output_dir):
        logger.info("removed %s, left by a killed run", path)
    owners = _owners(config.output_dir, runs)
    ended: list[Outcome] = []
    for path, encoding in runs.items():
        names = sorted(name for name, owner in owners.items() if owner == path)
        task = replace(
            encoding,
            overwrite=config.overwrite,
            nprocs=config.nprocs,
            debug=config.debug,
        )
        ended += execution.spread(task, names, merge_unit)
    chunk_tasks.forget_prepared()
    ended.sort(key=lambda outcome: outcome.name)
    reports = reporting.write_subjects(next(iter(runs.values())), ended)
    if not reports:  # one that failed is written by the next merge
        failed = {owners[o.name] for o in ended if o.status == "failed"}
        for path in set(runs) - failed:
            path.unlink(missing_ok=True)
    ended += reports
    if any(outcome.status == "done" for outcome in ended):
        wall_time = time.monotonic() - started
        outcomes.log_run(config.output_dir, config.command_line, ended, wall_time)
    for outcome in ended:
        if outcome.status == "failed":
            print(f"neuromm merge: error: {outcome.message}", file=sys.stderr)
    print(f"neuromm merge: {outcomes.summary(ended)}")
    codes = {outcome.code for outcome in ended if outcome.status == "failed"}
    missing = InputMissingError.exit_code
    return missing if codes == {missing} else outcomes.exit_code(ended)


def merge_unit(config: "EncodeConfig", name: str) -> "Outcome":
    """Join a unit whose chunks came from a job array.

    Returns
    -------
    outcome : Outcome
        "skipped" if it was joined before; "failed" with 66 if chunks are missing, and
        then nothing was written.
    """
    from neuromm_pipelines import chunk_tasks, reporting

    return chunk_tasks.join_unit(
        config, name, before=lambda: reporting.prepare_output(config)
    )


def _owners(output_dir: Path, runs: "Mapping[Path, EncodeConfig]") -> dict[str, Path]:
    """Units to merge, by name, and the configuration that their chunks were made with.

    Every unit that the runs selected is listed, also one of which no chunk is there.
    """
    from neuromm_pipelines.chunks import CHUNK_FOLDER, stamp_of
    from neuromm_pipelines.encode_unit import find_units, unit_settings

    stamps = {
        path.parent.name: stamp_of(path.parent)
        for path in (output_dir / CHUNK_FOLDER).glob("*/unit.json")
    }
    owners: dict[str, Path] = {}
    for path, encoding in runs.items():
        for unit in find_units(encoding):
            stamp = stamps.get(unit.name)
            settings = json.loads(json.dumps(unit_settings(encoding, unit)))
            if unit.name not in owners or (stamp and stamp["settings"] == settings):
                owners[unit.name] = path
    # Chunks whose recordings are gone are named as such, not passed over.
    return {name: next(iter(runs)) for name in stamps} | owners


def _nothing_left(config: MergeConfig) -> int:
    from neuromm_pipelines.units import STATE_FOLDER

    if not list((config.output_dir / STATE_FOLDER / "units").glob("*.json")):
        raise InputMissingError(
            f"{config.output_dir} holds no chunks to merge: run neuromm encode … "
            "--targets-chunk 1/N and its other parts first"
        )
    print("neuromm merge: 0 done, 0 skipped, 0 failed")
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Parser of ``neuromm merge``."""
    parser = argparse.ArgumentParser(
        prog="neuromm merge",
        usage="neuromm merge OUTPUT_DIR [options]",
        description="Join the chunks that `neuromm encode … --targets-chunk i/N` left "
        "in OUTPUT_DIR, and write the files that `neuromm encode … --chunks N` writes."
        f"\n\n{RESEARCH_USE}",
        epilog="exit codes: 0 all done · 66 chunks are missing (listed; complete units "
        "are merged) ·\nothers as of neuromm encode",
        formatter_class=QuietAliases,
    )
    parser.add_argument("output_dir", type=Path, help="where the chunks lie")
    parser.add_argument("--version", action="version", version=f"neuromm {__version__}")
    add_flag(
        parser, "--nprocs", "--n-cpus", "--nthreads", type=int, default=1,
        help="units at a time (default: 1)",
    )  # fmt: skip
    add_flag(
        parser, "--overwrite", switch=True,
        help="replace units that were made with another configuration",
    )  # fmt: skip
    add_flag(parser, "--debug", switch=True, help="show the traceback of a failed unit")
    parser.add_argument(
        "-v", "--verbose", action="count", default=0, help="say more; -vv says all"
    )
    return parser


if __name__ == "__main__":
    from neuromm_pipelines.command_line import guarded

    sys.exit(guarded("neuromm merge", main, sys.argv[1:]))
