"""How units end: done, skipped or failed, with the exit code that this makes."""

import logging
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from neuromm.core import NeurommError, OutputError, ResourceLimitError
from neuromm.core.files import write_json, write_text
from neuromm.core.provenance import package_versions, peak_memory

__all__ = [
    "Outcome",
    "Status",
    "exit_code",
    "log_run",
    "outcome_of",
    "subject_of",
    "summary",
]

logger = logging.getLogger(__name__)

Status = Literal["done", "skipped", "failed"]


@dataclass(frozen=True)
class Outcome:
    """How one unit, one chunk or one report ended."""

    name: str
    status: Status
    subject: str
    code: int = 0
    message: str = ""
    wall_time: float = 0.0
    peak_memory: int = 0


def outcome_of(
    name: str,
    work: Callable[[], Status],
    *,
    output_dir: Path,
    omp_nthreads: int | None,
    debug: bool,
) -> Outcome:
    """Work on a unit; whatever goes wrong becomes an outcome, not an exception.

    Parameters
    ----------
    name : str
        Name of the unit.
    work : callable
        Returns how it ended.
    output_dir : Path
        Where the traceback of an internal error is kept.
    omp_nthreads : int or None
        BLAS threads meanwhile; None leaves what the process has.
    debug : bool
        Show the traceback of errors that are meant for the user, too.
    """
    from threadpoolctl import threadpool_limits

    started = time.monotonic()
    limits = nullcontext() if omp_nthreads is None else threadpool_limits(omp_nthreads)
    status: Status = "failed"
    code, message = 0, ""
    try:
        with limits:
            status = work()
    except NeurommError as error:
        if debug:
            logger.exception("%s", name)
        code, message = error.exit_code, f"{name}: {error}"
    except MemoryError:
        code = ResourceLimitError.exit_code
        message = f"{name}: memory ran out; set --mem, or free memory and run again"
    except Exception as error:
        code = 70
        where = _write_crash(output_dir, name)
        message = (
            f"{name}: internal error, {type(error).__name__}: {error}. The details are "
            f"in {where}; please report them."
        )
    wall_time = time.monotonic() - started
    return Outcome(
        name, status, subject_of(name), code, message, wall_time, peak_memory()
    )


def subject_of(name: str) -> str:
    """Label of the subject of a unit: ``"01"`` of ``"sub-01_task-film_func"``."""
    return name.split("_")[0].removeprefix("sub-")


def summary(outcomes: Sequence[Outcome]) -> str:
    """The last line: ``"2 done, 0 skipped, 1 failed"``."""
    counts = {
        status: sum(outcome.status == status for outcome in outcomes)
        for status in ("done", "skipped", "failed")
    }
    return ", ".join(f"{n} {status}" for status, n in counts.items())


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """0 if nothing failed; the common code if everything failed with one; else 1."""
    failures = {outcome.code for outcome in outcomes if outcome.status == "failed"}
    if not failures:
        return 0
    all_failed = all(outcome.status == "failed" for outcome in outcomes)
    return failures.pop() if all_failed and len(failures) == 1 else 1


def log_run(
    output_dir: Path, command: str, outcomes: Sequence[Outcome], wall_time: float
) -> None:
    """Write what differs from run to run (time, memory) beside the results."""
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    write_json(
        output_dir / "logs" / f"run_{stamp}_{time.time_ns() % 10**9:09d}.json",
        {
            "command": command,
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


def _write_crash(output_dir: Path, name: str) -> str:
    """Keep a traceback for a report; a full disk must not hide the first error."""
    text = traceback.format_exc()
    try:
        return str(write_text(output_dir / "logs" / f"crash-{name}.txt", text))
    except OutputError:
        logger.error("%s", text)
        return "the lines above"
