"""Workers of a Dask cluster give the bytes of one machine, also when one is killed."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future

import pytest

distributed = pytest.importorskip("distributed")

UNIT = "sub-01_task-film_func"


@pytest.fixture(scope="module")
def cluster():
    # The scheduler lives in this process, and outlives the streams that a test catches.
    logger = logging.getLogger("distributed")
    logger.propagate = False
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        yield cluster
    logger.propagate = True


@pytest.fixture
def dask(cluster):
    return ("--executor", "dask", "--scheduler", cluster.scheduler_address)


def _start(words):
    return subprocess.Popen(
        [sys.executable, "-m", "neuromm_pipelines.cli", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _holder_of_a_chunk(output, process):
    """Process that is at work on a chunk, as the lock tells, and the chunk's file."""
    deadline = time.monotonic() + 60
    locks = output / ".neuromm" / "locks" / "chunks" / UNIT
    while time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read()
        for lock in locks.glob("chunk-*.lock"):
            words = lock.read_text().split()
            chunk = output / ".neuromm" / "chunks" / UNIT / f"{lock.stem}.npz"
            if len(words) == 4 and not chunk.exists():
                return int(words[1]), chunk
        time.sleep(0.002)
    raise AssertionError("no chunk was begun")


def test_two_workers_give_the_bytes_of_one_machine(
    neuromm, two_subjects, arguments, files_of, tmp_path, dask
):
    local, spread = tmp_path / "local", tmp_path / "spread"
    assert neuromm(*arguments(two_subjects, local, "--chunks", 3)).code == 0
    ran = neuromm(*arguments(two_subjects, spread, "--chunks", 3, *dask))
    assert ran.code == 0, ran.err
    assert ran.out.splitlines()[-1] == "neuromm encode: 2 done, 0 skipped, 0 failed"
    assert files_of(spread) == files_of(local)
    again = neuromm(*arguments(two_subjects, spread, "--chunks", 3, *dask))
    assert again.out.splitlines()[-1] == "neuromm encode: 0 done, 2 skipped, 0 failed"


def test_a_killed_worker_loses_nothing(
    neuromm, two_subjects, arguments, files_of, tmp_path, dask
):
    local, spread = tmp_path / "local", tmp_path / "spread"
    assert neuromm(*arguments(two_subjects, local, "--chunks", 3)).code == 0
    process = _start(arguments(two_subjects, spread, "--chunks", 3, *dask))
    worker, chunk = _holder_of_a_chunk(spread, process)
    os.kill(worker, signal.SIGKILL)
    assert worker != process.pid
    assert not chunk.exists()
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    assert out.splitlines()[-1] == "neuromm encode: 2 done, 0 skipped, 0 failed"
    assert files_of(spread) == files_of(local)


def test_a_stopped_driver_cancels_and_goes_on_later(
    neuromm, two_subjects, arguments, files_of, tmp_path, dask, cluster
):
    local, spread = tmp_path / "local", tmp_path / "spread"
    assert neuromm(*arguments(two_subjects, local, "--chunks", 3)).code == 0
    words = arguments(two_subjects, spread, "--chunks", 3, *dask)
    process = _start(words)
    _holder_of_a_chunk(spread, process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert "run again to go on" in err
    assert "Traceback" not in err
    ran = neuromm(*words)
    assert ran.code == 0, ran.err
    assert files_of(spread) == files_of(local)


def test_one_bad_subject_does_not_stop_the_other(
    neuromm, two_subjects, arguments, tmp_path, dask
):
    two_subjects.file(1, "events.tsv").unlink()
    ran = neuromm(*arguments(two_subjects, tmp_path / "out", "--chunks", 2, *dask))
    assert ran.code == 1
    assert ran.out.splitlines()[-1] == "neuromm encode: 1 done, 0 skipped, 1 failed"
    assert len([line for line in ran.err.splitlines() if "error:" in line]) == 1
    assert (tmp_path / "out" / "sub-02.html").exists()


def test_a_scheduler_file_is_an_address_too(
    neuromm, tiny_bold, arguments, tmp_path, cluster
):
    path = tmp_path / "scheduler.json"
    path.write_text(json.dumps({"address": cluster.scheduler_address}))
    options = ("--executor", "dask", "--scheduler", path, "--chunks", 2)
    assert neuromm(*arguments(tiny_bold, tmp_path / "out", *options)).code == 0


def test_a_worker_that_does_not_see_the_output_is_one_clear_error(
    neuromm, two_subjects, arguments, tmp_path, dask, monkeypatch
):
    from neuromm_pipelines import chunks, execution

    # As on nodes that mount another disk there: what the driver wrote is not seen.
    monkeypatch.setattr(chunks.UnitChunks, "open", lambda self, *, anew: None)
    monkeypatch.setattr(execution, "_SEEN_WITHIN_S", 1.0)
    ran = neuromm(*arguments(two_subjects, tmp_path / "out", "--chunks", 2, *dask))
    assert ran.code == 73
    errors = [line for line in ran.err.splitlines() if "error:" in line]
    assert len(errors) == 1
    assert "shared" in errors[0]


def test_an_address_where_nothing_answers_is_refused(
    neuromm, tiny_bold, arguments, tmp_path, monkeypatch
):
    from neuromm_pipelines import dask_cluster

    monkeypatch.setattr(dask_cluster, "_ANSWER_WITHIN_S", 1)
    for address in ("tcp://127.0.0.1:9", str(tmp_path / "absent.json")):
        options = ("--executor", "dask", "--scheduler", address)
        ran = neuromm(*arguments(tiny_bold, tmp_path / "out", *options))
        assert ran.code == 2
        assert address in ran.err
        assert "Traceback" not in ran.err


def test_a_chunk_that_kills_its_workers_may_be_tried_again():
    from distributed.scheduler import KilledWorker

    from neuromm_pipelines.execution import result_of

    job = Future()
    job.set_exception(KilledWorker("encode_chunk-1", None, 3))
    outcome = result_of(UNIT, job)
    assert (outcome.status, outcome.code, outcome.subject) == ("failed", 75, "01")
    assert "run again to go on" in outcome.message
