"""Targets cut into chunks, fitted apart and joined, give what one fit gives."""

import json
import subprocess
import sys
import time
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromm.core import UsageError
from neuromm_pipelines.chunks import target_part

UNIT = "sub-01_task-film_func"


def _scores(output):
    (path,) = output.rglob("sub-01*_desc-encoding_scores.tsv")
    return pd.read_csv(path, sep="\t", na_values="n/a").set_index("target")


def _sidecar(output):
    (path,) = output.rglob("sub-01*_desc-encoding_scores.json")
    return json.loads(path.read_text())


@given(n_targets=st.integers(0, 10**7), n_chunks=st.integers(1, 300))
def test_the_parts_tile_the_targets_and_differ_by_one_at_most(n_targets, n_chunks):
    parts = [target_part(n_targets, n_chunks, i + 1) for i in range(n_chunks)]
    assert parts[0].start == 0
    assert parts[-1].stop == n_targets
    assert all(a.stop == b.start for a, b in pairwise(parts))
    sizes = {part.stop - part.start for part in parts}
    assert max(sizes) - min(sizes) <= 1


def test_chunks_give_the_scores_of_one_fit(neuromm, tiny_bold, arguments, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    options = ("--save", "predictions")
    assert neuromm(*arguments(tiny_bold, whole, *options)).code == 0
    ran = neuromm(*arguments(tiny_bold, cut, *options, "--chunks", 5))
    assert ran.code == 0, ran.err
    assert ran.out.splitlines()[-1] == "neuromm encode: 1 done, 0 skipped, 0 failed"

    def names(folder):
        return sorted(p.name for p in folder.rglob("sub-01*") if p.suffix != ".lock")

    assert names(cut) == names(whole)
    assert not list((cut / ".neuromm" / "chunks").iterdir())
    a, b = _scores(whole), _scores(cut)
    assert list(a) == list(b)
    # Six digits are written; the product of a part may round differently in the last.
    pd.testing.assert_frame_equal(a, b, rtol=2e-6)
    assert (a["q"] == b["q"]).all()  # over all targets, not over those of a part
    assert (b["q"] != b["p"]).any()

    one, many = _sidecar(whole), _sidecar(cut)
    assert one["Provenance"]["config"].pop("chunks") == 1
    assert many["Provenance"]["config"].pop("chunks") == 5
    assert many["Provenance"] == one["Provenance"]
    assert many["Encoding"] == one["Encoding"]
    predictions = [next(f.rglob("*_predictions.npz")) for f in (whole, cut)]
    with np.load(predictions[0]) as first, np.load(predictions[1]) as second:
        np.testing.assert_allclose(
            first["predictions"], second["predictions"], rtol=1e-5, atol=1e-6
        )
        np.testing.assert_array_equal(first["responses"], second["responses"])


def test_false_discoveries_are_controlled_over_the_joined_targets(
    neuromm, tiny_bold, arguments, tmp_path
):
    from scipy.stats import false_discovery_control

    output = tmp_path / "out"
    assert neuromm(*arguments(tiny_bold, output, "--chunks", 4)).code == 0
    scores = _scores(output)
    np.testing.assert_allclose(
        scores["q"], false_discovery_control(scores["p"]), rtol=1e-5
    )


def test_masked_targets_are_those_of_one_fit(neuromm, tiny_bold, arguments, tmp_path):
    import nibabel

    for run in (1, 2):
        path = tiny_bold.file(run, "bold.nii.gz")
        image = nibabel.load(path)
        series = image.get_fdata(dtype=np.float32)
        series[2] = 1000.0  # six voxels that never vary: a whole chunk of them
        nibabel.Nifti1Image(series, image.affine, image.header).to_filename(path)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert neuromm(*arguments(tiny_bold, whole)).code == 0
    ran = neuromm(*arguments(tiny_bold, cut, "--chunks", 4))
    assert ran.code == 0, ran.err
    assert _sidecar(cut)["Summary"] == _sidecar(whole)["Summary"]
    assert _scores(cut)["r"].isna().sum() == 6


def test_more_chunks_than_targets_leave_some_empty(
    neuromm, tiny_bold, arguments, tmp_path
):
    ran = neuromm(*arguments(tiny_bold, tmp_path / "out", "--chunks", 30))
    assert ran.code == 0, ran.err
    assert _scores(tmp_path / "out")["r"].notna().all()


@pytest.mark.slow
def test_processes_share_the_chunks_and_give_the_same_bytes(
    neuromm, two_subjects, arguments, files_of, tmp_path
):
    one, two = tmp_path / "one", tmp_path / "two"
    assert neuromm(*arguments(two_subjects, one, "--chunks", 3)).code == 0
    ran = neuromm(*arguments(two_subjects, two, "--chunks", 3, "--nprocs", 2))
    assert ran.code == 0, ran.err
    assert ran.out.splitlines()[-1] == "neuromm encode: 2 done, 0 skipped, 0 failed"
    assert files_of(two) == files_of(one)


def test_a_memory_limit_changes_no_bit_of_a_chunk(
    neuromm, tiny_bold, arguments, files_of, tmp_path
):
    one, two = tmp_path / "one", tmp_path / "two"
    assert neuromm(*arguments(tiny_bold, one, "--chunks", 3)).code == 0
    limited = arguments(tiny_bold, two, "--chunks", 3, "--mem", 2)
    assert neuromm(*limited).code == 0
    assert files_of(two) == files_of(one)


def test_a_run_killed_between_chunks_ends_with_the_same_bytes(
    neuromm, two_subjects, arguments, files_of, tmp_path
):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert neuromm(*arguments(two_subjects, whole, "--chunks", 20)).code == 0
    words = arguments(two_subjects, killed, "--chunks", 20)
    process = subprocess.Popen(
        [sys.executable, "-m", "neuromm_pipelines.cli", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    chunks = killed / ".neuromm" / "chunks" / UNIT
    deadline = time.monotonic() + 60
    while not list(chunks.glob("chunk-2-of-20.npz")):
        assert process.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.kill()
    process.wait()
    kept = len(list(chunks.glob("chunk-*-of-20.npz")))
    assert kept < 20
    ran = neuromm(*words)
    assert ran.code == 0, ran.err
    assert files_of(killed) == files_of(whole)


def test_a_bad_subject_fails_once_and_the_other_is_done(
    neuromm, two_subjects, arguments, tmp_path
):
    two_subjects.file(1, "events.tsv").unlink()
    ran = neuromm(*arguments(two_subjects, tmp_path / "out", "--chunks", 4))
    assert ran.code == 1
    assert ran.out.splitlines()[-1] == "neuromm encode: 1 done, 0 skipped, 1 failed"
    errors = [line for line in ran.err.splitlines() if "error:" in line]
    assert len(errors) == 1
    assert "events.tsv" in errors[0]
    assert (tmp_path / "out" / "sub-02.html").exists()


def test_a_second_run_skips_and_another_number_of_chunks_is_refused(
    neuromm, tiny_bold, arguments, tmp_path
):
    output = tmp_path / "out"
    assert neuromm(*arguments(tiny_bold, output, "--chunks", 3)).code == 0
    again = neuromm(*arguments(tiny_bold, output, "--chunks", 3))
    assert again.out.splitlines()[-1] == "neuromm encode: 0 done, 1 skipped, 0 failed"
    other = neuromm(*arguments(tiny_bold, output, "--chunks", 4))
    assert other.code == 2
    assert "chunks was 3, now 4" in other.err
    anew = neuromm(*arguments(tiny_bold, output, "--chunks", 4, "--overwrite"))
    assert anew.code == 0, anew.err


def test_the_plan_tells_what_a_chunk_needs(neuromm, tiny_bold, arguments, tmp_path):
    ran = neuromm(*arguments(tiny_bold, tmp_path / "out", "--chunks", 5, "--dry-run"))
    assert ran.code == 0, ran.err
    assert "5 chunks of at most 5 targets" in ran.out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "a/b", "1/0", "-1/4", "1/2/3"])
def test_a_part_that_is_none_is_refused(neuromm, tiny_bold, arguments, tmp_path, text):
    ran = neuromm(*arguments(tiny_bold, tmp_path, f"--targets-chunk={text}"))
    assert ran.code == 2
    assert "--targets-chunk takes i/N" in ran.err
    assert text in ran.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--chunks", 0), "--chunks must be 1 or more"),
        (("--chunks", 3, "--targets-chunk", "1/4"), "--chunks 3"),
        (("--executor", "dask"), "--scheduler"),
        (("--scheduler", "tcp://x:1"), "--executor dask"),
        (
            ("--executor", "dask", "--scheduler", "tcp://x:1", "--nprocs", 2),
            "--nprocs",
        ),
        (
            ("--executor", "dask", "--scheduler", "x", "--targets-chunk", "1/2"),
            "--targets-chunk",
        ),
    ],
)
def test_flags_that_do_not_go_together_are_refused(
    neuromm, tiny_bold, arguments, tmp_path, options, words
):
    ran = neuromm(*arguments(tiny_bold, tmp_path / "out", *options))
    assert ran.code == 2
    assert words in ran.err
    assert not (tmp_path / "out").exists()


def test_parts_are_numbered_from_one():
    assert target_part(10, 5, 1) == slice(0, 2)
    with pytest.raises(UsageError, match="1 to 5"):
        target_part(10, 5, 0)
