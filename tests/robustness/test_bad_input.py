"""Bad input gets one clear error, and leaves nothing half-written."""

import errno
import json
import os
import shutil
import subprocess
import sys

import nibabel
import numpy as np
import pandas as pd
import pytest


@pytest.fixture
def encode(neuromm, tiny_bold, tmp_path):
    """Run ``neuromm encode`` on the tiny data set, with what is given on top."""

    def run(*options, features=None, mask=None, output=None):
        return neuromm(
            "encode",
            tiny_bold.root,
            output or tmp_path / "out",
            "participant",
            "--features",
            f"kind={features or tiny_bold.features}",
            "--mask",
            mask or tiny_bold.mask,
            "--n-permutations",
            20,
            "--skip-bids-validation",
            *options,
        )

    return run


def _one_message(ran, *words):
    """The error is one line on standard error, no traceback, with these words."""
    lines = [line for line in ran.err.splitlines() if "error:" in line]
    assert len(lines) == 1, ran.err
    assert "Traceback" not in ran.err
    for word in words:
        assert word in lines[0], lines[0]


def _nothing_half_written(folder):
    locks = folder / ".neuromm" / "locks"
    files = [p for p in folder.rglob("*") if p.is_file()]
    left = [p for p in files if not p.is_relative_to(locks)]
    assert not [p for p in left if ".tmp-" in p.name]
    assert not [p for p in left if p.name.startswith("sub-")]
    assert not list(folder.glob(".neuromm/units/*"))


def test_the_data_set_itself_is_encoded_and_its_planted_voxels_found(encode, tmp_path):
    ran = encode()
    assert ran.code == 0, ran.err
    assert ran.out.splitlines()[-1] == "neuromm encode: 1 done, 0 skipped, 0 failed"
    (path,) = (tmp_path / "out").rglob("*_desc-encoding_scores.tsv")
    scores = pd.read_csv(path, sep="\t").set_index("target")
    planted = scores.index.isin(["0-0-0", "1-0-0"])
    assert scores.r[planted].min() > 0.5 > scores.r[~planted].max()


def test_missing_events(encode, tiny_bold, tmp_path):
    tiny_bold.file(2, "events.tsv").unlink()
    ran = encode()
    assert ran.code == 66
    _one_message(ran, "sub-01_task-film_run-2", "events.tsv")
    _nothing_half_written(tmp_path / "out")


def test_events_beyond_the_scan(encode, tiny_bold, tmp_path):
    path = tiny_bold.file(1, "events.tsv")
    path.write_text(path.read_text() + "4000\t1.0\tface\n")
    ran = encode()
    assert ran.code == 65
    _one_message(ran, "sub-01_task-film_run-1_events.tsv", "4000", "120")
    _nothing_half_written(tmp_path / "out")


def test_repetition_times_of_header_and_sidecar_disagree(encode, tiny_bold, tmp_path):
    tiny_bold.file(1, "bold.json").write_text(
        json.dumps({"RepetitionTime": 2.5, "TaskName": "film"})
    )
    ran = encode()
    assert ran.code == 65
    _one_message(ran, "sub-01_task-film_run-1_bold", "2.5", "2")
    _nothing_half_written(tmp_path / "out")


def test_a_volume_of_nan(encode, tiny_bold, tmp_path):
    path = tiny_bold.file(2, "bold.nii.gz")
    image = nibabel.load(path)
    series = image.get_fdata(dtype=np.float32)
    series[..., 7] = np.nan
    nibabel.Nifti1Image(series, image.affine, image.header).to_filename(path)
    ran = encode()
    assert ran.code == 65
    _one_message(ran, "sub-01_task-film_run-2_bold.nii.gz", "7")
    _nothing_half_written(tmp_path / "out")


def test_mask_on_another_grid(encode, tiny_bold, tmp_path):
    mask = tmp_path / "shifted.nii.gz"
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    affine[0, 3] = 1.5
    nibabel.Nifti1Image(np.ones((4, 3, 2), np.uint8), affine).to_filename(mask)
    ran = encode(mask=mask)
    assert ran.code == 65
    _one_message(ran, "shifted.nii.gz", "resample")
    _nothing_half_written(tmp_path / "out")


def test_truncated_image(encode, tiny_bold, tmp_path):
    path = tiny_bold.file(1, "bold.nii.gz")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    ran = encode()
    assert ran.code == 65
    _one_message(ran, "sub-01_task-film_run-1_bold.nii.gz", "truncated")
    _nothing_half_written(tmp_path / "out")


def test_a_category_that_events_name_and_the_features_lack(encode, tiny_bold, tmp_path):
    features = tmp_path / "short.tsv"
    features.write_text("trial_type\tface\thouse\nface\t1\t0\n")
    ran = encode(features=features)
    assert ran.code == 65
    _one_message(ran, "short.tsv", "house")
    _nothing_half_written(tmp_path / "out")


def test_features_sampled_once_a_volume_with_one_row_too_few(
    encode, tiny_bold, tmp_path
):
    onset = np.tile(np.arange(59) * 2.0, 2)
    table = pd.DataFrame({"onset": onset, "run": np.repeat([1, 2], 59), "x": onset % 7})
    table.to_csv(tmp_path / "sampled.tsv", sep="\t", index=False)
    ran = encode(features=tmp_path / "sampled.tsv")
    assert ran.code == 65
    _one_message(ran, "sampled.tsv", "59", "60")
    _nothing_half_written(tmp_path / "out")


def test_an_unknown_task(encode, tmp_path):
    ran = encode("--task", "movie")
    assert ran.code in {2, 66}
    _one_message(ran, "movie", "found: ", "film")
    assert not (tmp_path / "out" / "sub-01").exists()


def test_an_unknown_participant(encode, tmp_path):
    ran = encode("--participant-label", "01", "99")
    assert ran.code in {2, 66}
    _one_message(ran, "99")
    assert not (tmp_path / "out" / "sub-01").exists()


def test_the_output_folder_is_the_input_folder(encode, tiny_bold):
    before = sorted(tiny_bold.root.rglob("*"))
    ran = encode(output=tiny_bold.root)
    assert ran.code == 2
    _one_message(ran, str(tiny_bold.root), "derivatives")
    assert sorted(tiny_bold.root.rglob("*")) == before


def test_a_full_disk(encode, tmp_path, monkeypatch):
    replace, n_left = os.replace, 6

    def until_full(source, target):
        nonlocal n_left
        n_left -= 1
        if n_left < 0:
            raise OSError(errno.ENOSPC, "No space left on device", str(source))
        replace(source, target)

    monkeypatch.setattr(os, "replace", until_full)
    ran = encode()
    assert ran.code == 73
    assert "No space left on device" in ran.err
    assert not [p for p in (tmp_path / "out").rglob("*") if ".tmp-" in p.name]
    assert not list((tmp_path / "out" / ".neuromm" / "units").glob("*"))
    monkeypatch.undo()
    assert encode().code == 0


def test_two_runs_on_one_output(encode, tmp_path):
    script = (
        "import sys, time; from pathlib import Path\n"
        "from neuromm_pipelines.units import locked\n"
        "with locked(Path(sys.argv[1]), 'sub-01_task-film_func'):\n"
        "    print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path / "out"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        holder.stdout.readline()
        ran = encode()
    finally:
        holder.kill()
        holder.wait()
    assert ran.code == 75
    _one_message(ran, f"process {holder.pid}", "another output folder")
    _nothing_half_written(tmp_path / "out")


def test_one_bad_subject_does_not_stop_the_others(encode, tiny_bold, tmp_path):
    source = tiny_bold.root / "sub-01"
    copy = tiny_bold.root / "sub-02"
    shutil.copytree(source, copy)
    for path in sorted(copy.rglob("sub-01*")):
        path.rename(path.with_name(path.name.replace("sub-01", "sub-02")))
    tiny_bold.file(1, "events.tsv").unlink()
    ran = encode()
    assert ran.code == 1
    assert ran.out.splitlines()[-1] == "neuromm encode: 1 done, 0 skipped, 1 failed"
    assert (tmp_path / "out" / "sub-02.html").exists()
    assert not (tmp_path / "out" / "sub-01").exists()
