"""Chunks of a job array, kept until ``neuromm merge`` joins them."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

UNITS = ("sub-01_task-film_func", "sub-02_task-film_func")


@pytest.fixture
def array(neuromm, arguments, tmp_path):
    """Run the given tasks of a job array."""

    def run(data, tasks, *options, output=tmp_path / "out"):
        for task in tasks:
            ran = neuromm(*arguments(data, output, "--targets-chunk", task, *options))
            assert ran.code == 0, ran.err
        return ran

    return run


def _chunks(folder, unit=UNITS[0]):
    return sorted((folder / ".neuromm" / "chunks" / unit).glob("chunk-*.npz"))


def test_a_merged_job_array_has_the_bytes_of_one_machine(
    neuromm, two_subjects, arguments, array, files_of, tmp_path, monkeypatch
):
    whole, output = tmp_path / "whole", tmp_path / "out"
    options = ("--save", "predictions")
    monkeypatch.chdir(tmp_path)
    near = replace(
        two_subjects,
        root=two_subjects.root.relative_to(tmp_path),
        mask=two_subjects.mask.relative_to(tmp_path),
    )
    assert neuromm(*arguments(near, "whole", *options, "--chunks", 3)).code == 0
    # In any order; and a task that is run again, skipped.
    ran = array(two_subjects, ["3/3", "1/3", "2/3", "1/3"], *options)
    assert "0 done, 2 skipped, 0 failed" in ran.out
    assert not list(output.rglob("sub-*.tsv"))
    assert len(_chunks(output)) == 3
    merged = neuromm("merge", output)
    assert merged.code == 0, merged.err
    assert merged.out.splitlines()[-1] == "neuromm merge: 2 done, 0 skipped, 0 failed"
    assert files_of(output) == files_of(whole)
    again = neuromm("merge", output)
    assert again.code == 0
    assert again.out.splitlines()[-1] == "neuromm merge: 0 done, 0 skipped, 0 failed"
    assert files_of(output) == files_of(whole)
    late = array(two_subjects, ["2/3"], *options)
    assert "0 done, 2 skipped, 0 failed" in late.out
    assert not _chunks(output)


def test_missing_chunks_are_listed_and_complete_units_merged(
    neuromm, two_subjects, array, files_of, tmp_path
):
    output = tmp_path / "out"
    array(two_subjects, ["1/6", "5/6"])
    array(two_subjects, ["2/6", "3/6", "4/6", "6/6"], "--participant-label", "02")
    merged = neuromm("merge", output)
    assert merged.code == 66
    assert f"{UNITS[0]}: 4 of 6 chunks are missing: 2-4,6" in merged.err
    assert merged.out.splitlines()[-1] == "neuromm merge: 1 done, 0 skipped, 1 failed"
    assert (output / "sub-02.html").exists()
    assert not (output / "sub-01").exists()
    assert not (output / "sub-01.html").exists()
    assert len(_chunks(output)) == 2
    array(two_subjects, ["2/6", "3/6", "4/6", "6/6"])
    assert neuromm("merge", output).code == 0
    assert (output / "sub-01.html").exists()


def test_nothing_is_written_where_no_unit_is_complete(
    neuromm, two_subjects, array, tmp_path
):
    output = tmp_path / "out"
    array(two_subjects, ["1/2"])
    merged = neuromm("merge", output)
    assert merged.code == 66
    assert not (output / "dataset_description.json").exists()
    assert not list(output.glob("sub-*"))


def test_a_folder_without_chunks_has_nothing_to_merge(neuromm, tmp_path):
    ran = neuromm("merge", tmp_path / "nowhere")
    assert ran.code == 66
    assert "--targets-chunk" in ran.err
    assert not (tmp_path / "nowhere").exists()


def test_a_chunk_of_another_setting_is_refused_by_its_name(
    two_subjects, neuromm, arguments, array, tmp_path
):
    array(two_subjects, ["1/2"])
    output = tmp_path / "out"
    changed = ("--targets-chunk", "2/2", "--hrf", "glover")
    ran = neuromm(*arguments(two_subjects, output, *changed))
    assert ran.code == 2
    assert "data.hrf was 'spm', now 'glover'" in ran.err
    assert "--overwrite" in ran.err
    assert len(_chunks(output)) == 1
    # Told to overwrite, the chunks of the old setting go.
    array(two_subjects, ["2/2"], "--hrf", "glover", "--overwrite")
    merged = neuromm("merge", output)
    assert merged.code == 66
    assert "1 of 2 chunks are missing: 1" in merged.err
    array(two_subjects, ["1/2"], "--hrf", "glover")
    assert neuromm("merge", output).code == 0


def test_an_input_that_changed_since_is_refused_by_its_name(
    two_subjects, neuromm, array, tmp_path
):
    array(two_subjects, ["1/2", "2/2"])
    path = two_subjects.file(1, "events.tsv")
    path.write_text(path.read_text() + "90.0\t1.0\tface\n")
    merged = neuromm("merge", tmp_path / "out")
    assert merged.code == 1  # one unit refused, the other merged
    assert "events.tsv was changed" in merged.err
    assert "1 done, 0 skipped, 1 failed" in merged.out


def test_a_damaged_chunk_counts_as_missing_and_is_made_again(
    two_subjects, neuromm, array, tmp_path
):
    array(two_subjects, ["1/2", "2/2"])
    output = tmp_path / "out"
    path = _chunks(output)[1]
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    merged = neuromm("merge", output)
    assert merged.code == 66
    assert "1 of 2 chunks are missing: 2" in merged.err
    array(two_subjects, ["2/2"])
    assert path.read_bytes() == whole
    assert neuromm("merge", output).code == 0


def test_a_changed_unit_is_merged_over_the_old_only_when_told_to(
    two_subjects, neuromm, arguments, array, tmp_path
):
    output = tmp_path / "out"
    assert neuromm(*arguments(two_subjects, output)).code == 0
    before = next(output.rglob("sub-01*_scores.tsv")).read_bytes()
    changed = ("--targets-chunk", "1/1", "--hrf", "glover")
    refused = neuromm(*arguments(two_subjects, output, *changed))
    assert refused.code == 2
    array(two_subjects, ["1/1"], "--overwrite", "--hrf", "glover")
    merged = neuromm("merge", output)
    assert merged.code == 2
    assert "--overwrite" in merged.err
    assert next(output.rglob("sub-01*_scores.tsv")).read_bytes() == before
    assert neuromm("merge", output, "--overwrite").code == 0
    assert next(output.rglob("sub-01*_scores.tsv")).read_bytes() != before


def test_a_merge_killed_at_its_work_is_finished_by_the_next(
    two_subjects, neuromm, arguments, array, files_of, tmp_path
):
    whole, output = tmp_path / "whole", tmp_path / "out"
    assert neuromm(*arguments(two_subjects, whole, "--chunks", 2)).code == 0
    array(two_subjects, ["1/2", "2/2"])
    process = subprocess.Popen(
        [sys.executable, "-m", "neuromm_pipelines.cli", "merge", str(output)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not list(output.glob("sub-01/func/*.nii.gz")):
        assert process.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    ran = neuromm("merge", output)
    assert ran.code == 0, ran.err
    assert files_of(output) == files_of(whole)


def test_tasks_that_start_at_once_do_not_hinder_each_other(
    tiny_bold, neuromm, arguments, files_of, tmp_path
):
    whole, output = tmp_path / "whole", tmp_path / "out"
    assert neuromm(*arguments(tiny_bold, whole, "--chunks", 2)).code == 0
    # The second task twice, as when a scheduler requeues one that still runs.
    tasks = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "neuromm_pipelines.cli",
                *arguments(tiny_bold, output, "--targets-chunk", task),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for task in ("1/2", "2/2", "2/2")
    ]
    for task in tasks:
        _, err = task.communicate(timeout=100)
        assert task.returncode == 0, err
    ran = neuromm("merge", output)
    assert ran.code == 0, ran.err
    assert files_of(output) == files_of(whole)


def test_chunks_whose_recordings_are_gone_are_named(two_subjects, neuromm, array):
    ran = array(two_subjects, ["1/1"])
    output = ran.out.split("neuromm merge ")[1].splitlines()[0]
    shutil.rmtree(two_subjects.root / "sub-02")
    merged = neuromm("merge", output)
    assert merged.code == 66
    assert UNITS[1] in merged.err
    assert "1 done, 0 skipped, 1 failed" in merged.out


def test_an_atlas_file_is_named_in_full(
    two_subjects, neuromm, arguments, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labels.nii.gz").touch()
    task = ("--targets-chunk", "1/2", "--atlas", "labels.nii.gz")
    ran = neuromm(*arguments(two_subjects, tmp_path / "out", *task))
    assert ran.code == 2
    assert str(tmp_path / "labels.nii.gz") in ran.err


def test_tasks_of_other_subjects_share_the_output(
    two_subjects, neuromm, arguments, array, files_of, tmp_path
):
    whole, output = tmp_path / "whole", tmp_path / "out"
    assert neuromm(*arguments(two_subjects, whole, "--chunks", 2)).code == 0
    for label in ("02", "01"):
        array(two_subjects, ["1/2", "2/2"], "--participant-label", label)
    ran = neuromm("merge", output, "--nprocs", 2)
    assert ran.code == 0, ran.err
    assert files_of(output) == files_of(whole)


def test_help_lists_merge(capsys):
    from neuromm_pipelines import cli

    with pytest.raises(SystemExit):
        cli.main(["--help"])
    assert "\n  merge " in capsys.readouterr().out
