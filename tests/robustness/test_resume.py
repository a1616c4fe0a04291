"""A killed run, started again, ends with the same bytes and repeats nothing."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


@pytest.fixture
def two_subjects(tiny_bold):
    copy = tiny_bold.root / "sub-02"
    shutil.copytree(tiny_bold.root / "sub-01", copy)
    for path in sorted(copy.rglob("sub-01*")):
        path.rename(path.with_name(path.name.replace("sub-01", "sub-02")))
    return tiny_bold


def _arguments(data, output, *options):
    return [
        "encode", str(data.root), str(output), "participant",
        "--features", f"kind={data.features}", "--mask", str(data.mask),
        "--n-permutations", "20", "--skip-bids-validation", *options,
    ]  # fmt: skip


def _results(folder: Path) -> dict[str, bytes]:
    """Every file but the logs and locks, which differ from run to run."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not path.is_relative_to(folder / ".neuromm" / "locks")
        and not (path.parent.name == "logs" and path.name.startswith("run_"))
    }


@pytest.mark.parametrize("when", ["after the first unit", "within the first unit"])
def test_a_killed_run_restarted_gives_the_same_bytes(
    two_subjects, tmp_path, neuromm, when
):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert neuromm(*_arguments(two_subjects, whole)).code == 0

    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "neuromm_pipelines.cli",
            *_arguments(two_subjects, killed),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    awaited = {
        "after the first unit": ".neuromm/units/sub-01_task-film_func.json",
        "within the first unit": "sub-01/func/*.nii.gz",
    }[when]
    deadline = time.monotonic() + 120
    while not list(killed.glob(awaited)):
        assert process.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (killed / "sub-02.html").exists()

    ran = neuromm(*_arguments(two_subjects, killed))
    assert ran.code == 0, ran.err
    skipped = "1 skipped" if when == "after the first unit" else "0 skipped"
    assert skipped in ran.out.splitlines()[-1]
    assert _results(killed) == _results(whole)


def test_a_second_run_skips_and_changes_nothing(two_subjects, tmp_path, neuromm):
    output = tmp_path / "out"
    assert neuromm(*_arguments(two_subjects, output)).code == 0
    before = {
        p: p.stat().st_mtime_ns
        for p in output.rglob("sub-*")
        if p.is_file() and p.suffix != ".lock"
    }
    ran = neuromm(*_arguments(two_subjects, output))
    assert ran.code == 0
    assert ran.out.splitlines()[-1] == "neuromm encode: 0 done, 2 skipped, 0 failed"
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_two_processes_give_the_bytes_of_one(two_subjects, tmp_path, neuromm):
    one, two = tmp_path / "one", tmp_path / "two"
    assert neuromm(*_arguments(two_subjects, one, "--omp-nthreads", "1")).code == 0
    ran = neuromm(
        *_arguments(two_subjects, two, "--nprocs", "2", "--omp-nthreads", "1")
    )
    assert ran.code == 0, ran.err
    assert _results(two) == _results(one)


def test_a_changed_configuration_is_refused_until_told_to_overwrite(
    two_subjects, tmp_path, neuromm
):
    output = tmp_path / "out"
    assert neuromm(*_arguments(two_subjects, output)).code == 0
    before = _results(output)
    changed = ("--hrf", "glover")
    ran = neuromm(*_arguments(two_subjects, output, *changed))
    assert ran.code == 2
    assert "data.hrf was 'spm', now 'glover'" in ran.err
    assert "--overwrite" in ran.err
    assert _results(output) == before
    ran = neuromm(*_arguments(two_subjects, output, *changed, "--overwrite"))
    assert ran.code == 0
    assert "2 done" in ran.out
    assert _results(output) != before


def test_reports_are_rebuilt_from_the_files_with_the_same_bytes(
    two_subjects, tmp_path, neuromm
):
    output = tmp_path / "out"
    assert neuromm(*_arguments(two_subjects, output)).code == 0
    report = output / "sub-01.html"
    before = report.read_bytes()
    report.unlink()
    ran = neuromm(*_arguments(two_subjects, output, "--reports-only"))
    assert ran.code == 0
    assert report.read_bytes() == before


def test_a_dry_run_writes_nothing_and_names_memory_and_time(
    two_subjects, tmp_path, neuromm
):
    ran = neuromm(*_arguments(two_subjects, tmp_path / "out", "--dry-run"))
    assert ran.code == 0, ran.err
    assert not (tmp_path / "out").exists()
    assert "sub-02_task-film_run-2_bold.nii.gz" in ran.out
    assert "120 samples x 2 features -> 24 targets" in ran.out
    assert "MB and about" in ran.out


def test_too_little_memory_is_refused_before_work_begins(
    two_subjects, tmp_path, neuromm
):
    ran = neuromm(*_arguments(two_subjects, tmp_path / "out", "--mem", "0.001"))
    assert ran.code == 75
    assert "Raise --mem" in ran.err
    assert not list((tmp_path / "out").rglob("sub-*.nii.gz"))
