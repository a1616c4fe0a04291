"""Where the units of ``neuromm encode`` are worked on: here, or by workers.

Whole units are spread over processes. Units that are cut into chunks become tasks, a
chunk each and a join a unit, on processes of this machine or workers of a Dask cluster.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    Executor,
    Future,
    ProcessPoolExecutor,
    as_completed,
    wait,
)
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

from neuromm_pipelines import chunk_tasks
from neuromm_pipelines.chunk_tasks import NotSharedError
from neuromm_pipelines.encode_unit import encode_unit_by_name, unit_of
from neuromm_pipelines.outcomes import Outcome, subject_of
from neuromm_pipelines.stored_config import on_any_machine, store_config

if TYPE_CHECKING:
    from neuromm_pipelines.encode import EncodeConfig
    from neuromm_pipelines.encode_unit import EncodingUnit

__all__ = ["encode_all", "processes", "result_of", "spread"]

# Network file systems show a new file to other machines within a minute.
_SEEN_WITHIN_S = 60.0

# What a worker's death looks like to the one who waits for its task.
_DEATHS = {"BrokenProcessPool", "CancelledError", "CommClosedError", "KilledWorker"}


def encode_all(
    config: "EncodeConfig", units: "Sequence[EncodingUnit]"
) -> list[Outcome]:
    """Encode units, or with ``config.targets_chunk`` that chunk of each.

    Returns
    -------
    outcomes : list of Outcome
        One a unit, sorted by name.

    Raises
    ------
    neuromm.core.NeurommError
        If no scheduler answers, or workers do not see the folders.
    """
    names = [unit.name for unit in units]
    try:
        if config.targets_chunk is not None:
            store_config(config)
            return spread(config, names, _encode_one_chunk, config.targets_chunk[0])
        if not config.chunked:
            return spread(config, names, encode_unit_by_name)
        return _encode_in_chunks(config, units)
    finally:
        chunk_tasks.forget_prepared()


def spread(
    config: Any,
    names: Sequence[str],
    work: Callable[..., Outcome],
    *further: Any,
) -> list[Outcome]:
    """Work on units one after the other, or in ``config.nprocs`` processes.

    Parameters
    ----------
    config : EncodeConfig
    names : sequence of str
    work : callable
        ``work(config, name, *further)`` gives the outcome.
    """
    from tqdm import tqdm

    outcomes = []
    with tqdm(total=len(names), unit="unit", disable=None) as bar:
        if config.nprocs == 1 or len(names) == 1:
            for name in names:
                bar.set_postfix_str(name)
                outcomes.append(work(config, name, *further))
                bar.update()
                if config.stop_on_first_crash and outcomes[-1].status == "failed":
                    break
            return outcomes
        with processes(config.nprocs) as pool:
            jobs = {pool.submit(work, config, name, *further): name for name in names}
            for job in as_completed(jobs):
                outcomes.append(result_of(jobs[job], job))
                bar.update()
                if config.stop_on_first_crash and outcomes[-1].status == "failed":
                    pool.shutdown(cancel_futures=True)
                    break
    return sorted(outcomes, key=lambda outcome: outcome.name)


def _encode_one_chunk(config: "EncodeConfig", name: str, number: int) -> Outcome:
    ended = chunk_tasks.begin_unit(config, unit_of(config, name))
    return ended or chunk_tasks.encode_chunk(config, name, number)


def _encode_in_chunks(
    config: "EncodeConfig", units: "Sequence[EncodingUnit]"
) -> list[Outcome]:
    from tqdm import tqdm

    with tqdm(total=len(units) * config.chunks, unit="chunk", disable=None) as bar:
        board = _Board(config, bar)
        if config.executor == "dask":
            from neuromm_pipelines.dask_cluster import dask_workers

            with dask_workers(str(config.scheduler)) as executor:
                board.begin(units)
                _work_with(executor, board)
        elif config.nprocs == 1:
            board.begin(units)
            _work_here(board)
        else:
            board.begin(units)
            with processes(config.nprocs) as executor:
                _work_with(executor, board)
    return sorted(board.ended.values(), key=lambda outcome: outcome.name)


class _Board:
    """What is to do and what has ended, a unit."""

    def __init__(self, config: "EncodeConfig", bar: Any) -> None:
        self.config = config
        self.bar = bar
        self.ended: dict[str, Outcome] = {}
        self.chunks: dict[str, list[Outcome]] = {}
        # A task is done once, whoever does it again: what `begin` cleared stays fresh.
        self.task_config = replace(on_any_machine(config), overwrite=False, resume=True)

    def begin(self, units: "Sequence[EncodingUnit]") -> None:
        """Skip what is finished, refuse what changed, and open the others."""
        for unit in units:
            ended = chunk_tasks.begin_unit(self.config, unit)
            if ended is None:
                self.chunks[unit.name] = []
                continue
            self.end(ended)
            if self.stopped:
                break

    @property
    def stopped(self) -> bool:
        """Whether a failure ends the run."""
        failed = any(outcome.status == "failed" for outcome in self.ended.values())
        return failed and self.config.stop_on_first_crash

    def add(self, outcome: Outcome) -> bool:
        """Take the outcome of a chunk; tell whether the unit can be joined."""
        done = self.chunks[outcome.name]
        done.append(outcome)
        if outcome.status == "failed":
            self.end(outcome)
            return False
        self.bar.update()
        return len(done) == self.config.chunks

    def end(self, outcome: Outcome) -> None:
        """Take the outcome of a unit, with the time and memory of its chunks."""
        parts = self.chunks.get(outcome.name, [])
        if parts and outcome.status == "skipped":
            # Joined by an attempt whose worker died before it could tell.
            outcome = replace(outcome, status="done")
        others = [part for part in parts if part is not outcome]
        self.ended[outcome.name] = replace(
            outcome,
            wall_time=outcome.wall_time + sum(part.wall_time for part in others),
            peak_memory=max([outcome.peak_memory, *(p.peak_memory for p in others)]),
        )
        done = sum(part.status != "failed" for part in parts)
        self.bar.update(self.config.chunks - done)


def _work_here(board: _Board) -> None:
    config, numbers = board.task_config, range(1, board.config.chunks + 1)
    for name in board.chunks:
        board.bar.set_postfix_str(name)
        chunks = (chunk_tasks.encode_chunk(config, name, number) for number in numbers)
        while name not in board.ended and not board.add(next(chunks)):
            pass
        if name not in board.ended:
            board.end(chunk_tasks.join_unit(config, name))
        if board.stopped:
            break


def _work_with(executor: Executor, board: _Board) -> None:
    """Give chunks to workers, and a unit's join when its last chunk has come."""
    config = board.task_config
    remote = board.config.executor == "dask"
    seen = (_SEEN_WITHIN_S,) if remote else ()
    chunks: dict[Future[Outcome], str] = {
        executor.submit(chunk_tasks.encode_chunk, config, name, number, *seen): name
        for name in board.chunks
        for number in range(1, config.chunks + 1)
    }
    joins: dict[Future[Outcome], str] = {}
    while (chunks or joins) and not board.stopped:
        for job in wait({*chunks, *joins}, return_when=FIRST_COMPLETED).done:
            if job in joins:
                board.end(result_of(joins.pop(job), job))
                continue
            name = chunks.pop(job, None)
            if name is None or name in board.ended:
                continue
            if board.add(result_of(name, job)):
                join = executor.submit(chunk_tasks.join_unit, config, name, wait=remote)
                joins[join] = name
            elif name in board.ended:
                for other in [job for job, unit in chunks.items() if unit == name]:
                    other.cancel()
                    del chunks[other]
    for job in (*chunks, *joins):
        job.cancel()


@contextmanager
def processes(count: int) -> Iterator[ProcessPoolExecutor]:
    """Fresh interpreters: a fork would copy the threads of BLAS half-alive."""
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def result_of(name: str, job: "Future[Outcome]") -> Outcome:
    """Outcome of a task; the death of its worker is one, too."""
    try:
        return job.result()
    except NotSharedError:
        raise
    except Exception as error:
        kind = type(error).__name__
        died = kind in _DEATHS
        cause = (
            f"its worker was killed or lost ({kind}), perhaps for want of memory; what "
            "is finished is kept, run again to go on"
            if died
            else f"the worker could not run it ({kind}: {error}); is neuromm installed "
            "there in the same version?"
        )
        return Outcome(
            name, "failed", subject_of(name), 75 if died else 70, f"{name}: {cause}"
        )
