"""The tasks of a unit that is cut into chunks: begin, fit a chunk, join.

Each may run in this process, in a worker of this machine or of a cluster, and again
after a worker was killed: what an earlier attempt has finished is taken as it is.
"""

import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from neuromm.core import InputMissingError, OutputError
from neuromm.core.provenance import config_digest
from neuromm_pipelines.chunk_join import joined_maps, joined_results
from neuromm_pipelines.chunks import UnitChunks, as_ranges, target_part
from neuromm_pipelines.encode_plan import check_memory
from neuromm_pipelines.encode_sites import bins_a_site, fit_sites
from neuromm_pipelines.encode_unit import (
    EncodingUnit,
    Prepared,
    fit_unit,
    prepare_unit,
    read_tables,
    unit_of,
    unit_state,
    write_results,
)
from neuromm_pipelines.outcomes import Outcome, Status, outcome_of
from neuromm_pipelines.units import UnitState, locked

if TYPE_CHECKING:
    from neuromm.features.exchange import FeatureTable
    from neuromm_pipelines.encode import EncodeConfig

__all__ = [
    "NotSharedError",
    "begin_unit",
    "encode_chunk",
    "forget_prepared",
    "join_unit",
]

logger = logging.getLogger(__name__)

# A process works on one task at a time, however many threads a worker has: the number
# of BLAS threads is the process's, and with it the bits of a result.
_one_task = threading.Lock()

# Features and samples of the unit that this process prepared last, so that the unit's
# next chunk does not read and filter its recordings again.
_kept: "dict[str, tuple[list[FeatureTable], Prepared]]" = {}


class NotSharedError(OutputError):
    """A worker does not see a folder of the machine that gave it the task."""


def begin_unit(config: "EncodeConfig", unit: EncodingUnit) -> Outcome | None:
    """Make a unit ready for its chunks.

    Returns
    -------
    outcome : Outcome or None
        None if there is work to do; "skipped" if the unit was finished before;
        "failed" if its settings or inputs differ from what lies there.
    """
    anew = config.overwrite or not config.resume
    number = None if config.targets_chunk is None else config.targets_chunk[0]

    def begin() -> Status:
        state, chunks = _known(config, unit)
        if not anew and state.is_done():
            logger.info("%s: finished before, skipped", unit.name)
            return "skipped"
        if anew and number is None:
            with locked(config.output_dir, unit.name):
                state.forget()
                chunks.remove()
        chunks.open(anew=config.overwrite)
        if anew and number is not None:
            # The other chunks may be the fresh ones of the array's other tasks.
            chunks.path(number).unlink(missing_ok=True)
        return "done"

    outcome = _outcome_of(config, unit.name, begin)
    return None if outcome.status == "done" else outcome


def encode_chunk(
    config: "EncodeConfig", name: str, number: int, seen_within_s: float = 0.0
) -> Outcome:
    """Fit one chunk of a unit and keep it; "skipped" if it was there.

    Parameters
    ----------
    config : EncodeConfig
    name : str
        Name of the unit, which was begun.
    number : int
        From 1.
    seen_within_s : float
        How long to wait for the unit's folder to be seen: network file systems may show
        a new file to other machines only after some seconds.

    Raises
    ------
    NotSharedError
        If the folder of the driver is not seen here.
    """

    def work() -> Status:
        unit = unit_of(config, name)
        _, chunks = _known(config, unit)
        chunks.check()
        with locked(config.output_dir, chunks.lock_name(number), wait=True):
            if chunks.read(number) is not None:
                return "skipped"
            _, prepared = _prepared_once(config, unit, chunks)
            part = _part(config, prepared, number)
            if part.start == part.stop:
                chunks.write(number, part, {})
            else:
                results = fit_unit(config, prepared, part)
                sites = fit_sites(config, prepared, part)
                chunks.write(number, part, results, sites)
        return "done"

    with _one_task:
        _check_seen(config, name, seen_within_s)
        return _outcome_of(config, name, work)


def join_unit(
    config: "EncodeConfig",
    name: str,
    *,
    wait: bool = False,
    before: Callable[[], None] | None = None,
) -> Outcome:
    """Join the chunks of a unit, write its files and remove the chunks.

    Parameters
    ----------
    config : EncodeConfig
        With ``overwrite``, results of another configuration are replaced.
    name : str
    wait : bool
        Wait for another process that joins it, instead of refusing.
    before : callable, optional
        Called when all chunks are there, before anything is written.

    Returns
    -------
    outcome : Outcome
        "skipped" if it was joined before. "failed" with 66 if chunks are missing: the
        message lists them, and nothing was written.
    """

    def work() -> Status:
        unit = unit_of(config, name)
        state, chunks = _known(config, unit)
        with locked(config.output_dir, name, wait=wait):
            if not chunks.is_open() and state.is_done():
                return "skipped"
            chunks.check()
            there = _all_chunks(chunks)
            if config.overwrite:
                state.forget()
            elif state.is_done():  # and killed before its chunks were removed
                chunks.remove()
                return "skipped"
            if before is not None:
                before()
            tables, prepared = _prepared_once(config, unit, chunks)
            results = joined_results(there, prepared.responses, prepared.targets)
            sites = joined_maps(there)
            state.finish(write_results(config, unit, tables, prepared, results, sites))
            chunks.remove()
        return "done"

    with _one_task:
        return _outcome_of(config, name, work)


def forget_prepared() -> None:
    """Let go of the samples that this process keeps for a next chunk."""
    _kept.clear()


def _part(config: "EncodeConfig", prepared: Prepared, number: int) -> slice:
    """Targets of a chunk; where sites are mapped, their time bins stay together."""
    n_targets = prepared.responses.sizes["target"]
    together = 1 if config.sites is None else bins_a_site(prepared.responses)
    return target_part(n_targets, config.chunks, number, together)


def _all_chunks(chunks: UnitChunks) -> list[dict[str, Any]]:
    found = {i: chunks.read(i) for i in range(1, chunks.n_chunks + 1)}
    missing = [number for number, chunk in found.items() if chunk is None]
    if missing:
        raise InputMissingError(
            f"{len(missing)} of {chunks.n_chunks} chunks are missing: "
            f"{as_ranges(missing)}. Run these tasks of the job array again "
            f"(--targets-chunk {missing[0]}/{chunks.n_chunks} …), then merge."
        )
    return [chunk for chunk in found.values() if chunk is not None]


def _known(config: "EncodeConfig", unit: EncodingUnit) -> tuple[UnitState, UnitChunks]:
    state = unit_state(config, unit)
    chunks = UnitChunks(
        config.output_dir, unit.name, config.chunks, state.settings, state.inputs
    )
    return state, chunks


def _prepared_once(
    config: "EncodeConfig", unit: EncodingUnit, chunks: UnitChunks
) -> "tuple[list[FeatureTable], Prepared]":
    key = f"{unit.name} {config_digest(chunks.stamp)}"
    if key not in _kept:
        _kept.clear()  # before the next is read: two units may not fit in memory
        tables = read_tables(config)
        check_memory(config, unit, tables)
        _kept[key] = tables, prepare_unit(config, unit, tables)
    return _kept[key]


def _check_seen(config: "EncodeConfig", name: str, within_s: float) -> None:
    """Raise `NotSharedError` unless this machine sees what the driver sees."""
    here = socket.gethostname()
    folder = UnitChunks(config.output_dir, name, config.chunks, {}, {})
    deadline = time.monotonic() + within_s
    while not folder.is_open():
        if time.monotonic() >= deadline:
            raise NotSharedError(
                f"the worker on {here} does not see {folder.folder}, which was just "
                "made. The output folder must be shared: on a disk that every worker "
                "sees under the same path."
            )
        time.sleep(0.5)
    inputs = {"BIDS": config.bids_dir, **config.derivatives, **config.features}
    for kind, path in inputs.items():
        if not path.exists():
            raise NotSharedError(
                f"the worker on {here} does not see {path} ({kind}). Inputs must be "
                "shared: on a disk that every worker sees under the same path."
            )


def _outcome_of(
    config: "EncodeConfig", name: str, work: Callable[[], Status]
) -> Outcome:
    return outcome_of(
        name,
        work,
        output_dir=config.output_dir,
        omp_nthreads=config.omp_nthreads,
        debug=config.debug,
    )
