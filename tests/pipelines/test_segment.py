"""``neuromm segment`` on simulated Dixon scans: trained, found, compared; refused."""

import shutil

import nibabel
import numpy as np
import pandas as pd
import pytest

from neuromm.core import UsageError
from neuromm.core.files import read_json
from neuromm.metrics import localisation_error
from neuromm.simulate import make_dixon_spines
from neuromm_pipelines.cli import main
from neuromm_pipelines.segment_scans import classes_of, parsed_classes

FIT = ("--width", "3", "--epochs", "8", "--folds", "3", "--nthreads", "1")


@pytest.fixture(scope="module")
def spines(tmp_path_factory):
    folder = tmp_path_factory.mktemp("spines") / "data"
    thick = {"shape": (8, 64, 64), "spacing_mm": (8.0, 2.0, 2.0)}
    return folder, make_dixon_spines(6, folder=folder, rng=0, **thick)


@pytest.fixture(scope="module")
def model(spines, tmp_path_factory):
    """Trained on four scans, with two left out and both baselines beside it."""
    folder = tmp_path_factory.mktemp("model") / "model"
    arguments = ["segment", "fit", str(spines[0]), str(folder), *FIT]
    assert main([*arguments, "--baseline", "unet", "logistic"]) == 0
    return folder


@pytest.fixture
def data(spines, tmp_path):
    """A copy of two scans that a test may spoil."""
    for name in ("01", "02"):
        shutil.copytree(spines[0] / name, tmp_path / "data" / name)
    return tmp_path / "data"


def changed(path, change):
    image = nibabel.load(path)
    values = change(
        np.asarray(image.dataobj).copy()
    )  # a copy: the file is written over
    made = nibabel.Nifti1Image(values, image.affine)
    made.header.set_xyzt_units("mm", "sec")
    nibabel.save(made, path)


def test_no_patient_is_in_two_parts_and_baselines_stand_beside(model):
    split = pd.read_csv(model / "split.tsv", sep="\t", dtype=str)
    assert sorted(split["subject"]) == [f"0{number}" for number in range(1, 7)]
    counts = split["part"].value_counts()
    assert (counts["test"], counts["training"], counts["validation"]) == (2, 3, 1)
    comparison = pd.read_csv(model / "comparison.tsv", sep="\t")
    assert list(comparison["method"]) == [
        "IVD-Net",
        "U-Net (MONAI)",
        "logistic regression",
    ]
    assert (comparison["low"] <= comparison["dice_disc"]).all()
    assert not (model / "work").exists()


def test_the_same_fit_again_is_read_and_gives_the_same_weights(
    model, spines, neuromm, tmp_path
):
    # A copy: a fit without baselines writes a table without them.
    model = shutil.copytree(model, tmp_path / "model")
    before = (model / "model.safetensors").read_bytes()
    again = neuromm("segment", "fit", spines[0], model, *FIT)
    assert again.code == 0
    assert (model / "model.safetensors").read_bytes() == before
    other = neuromm("segment", "fit", spines[0], model, *FIT, "--seed", "1")
    assert other.code == 2
    assert "training" in other.err


def test_discs_lie_where_they_were_planted_and_scores_say_so(
    model, spines, neuromm, tmp_path
):
    out = tmp_path / "out"
    ran = neuromm("segment", "predict", spines[0], out, "--model", model)
    assert ran.code == 0, ran.err
    assert ran.out.splitlines()[-1] == "neuromm segment: 6 done, 0 skipped, 0 failed"
    stem = out / "sub-03" / "anat" / "sub-03_space-orig_desc-disc_"
    table = pd.read_csv(f"{stem}regions.tsv", sep="\t")
    centres = table[["centre_x", "centre_y", "centre_z"]].to_numpy()
    truth = spines[1][2]
    # Decoys may be among what so short a training finds; the discs must be.
    assert np.nanmean(localisation_error(centres, truth.centres_mm)) < 4.0
    mask = nibabel.load(f"{stem}dseg.nii.gz")
    np.testing.assert_allclose(mask.affine, truth.affine, atol=1e-5)
    assert mask.shape == truth.discs.shape
    assert (out / "sub-03.html").is_file()
    first = {p: p.read_bytes() for p in out.rglob("*") if p.suffix in (".gz", ".html")}

    (out / "sub-05.html").unlink()  # as if the run had been killed before its reports
    again = neuromm("segment", "predict", spines[0], out, "--model", model)
    assert "0 done, 6 skipped" in again.out
    assert (out / "sub-05.html").is_file()
    forced = neuromm("segment", "predict", spines[0], out, "--model", model,
                     "--overwrite", "--participant-label", "03")  # fmt: skip
    assert "1 done, 0 skipped" in forced.out
    assert all(path.read_bytes() == content for path, content in first.items())

    # The page of one evaluation holds nothing of one before it.
    assert neuromm("segment", "evaluate", spines[0], out).code == 0
    assert len(pd.read_csv(out / "segmentation.tsv", sep="\t")) == 6
    scored = neuromm("segment", "evaluate", spines[0], out, "--split", model)
    assert scored.code == 0, scored.err
    table = pd.read_csv(out / "segmentation.tsv", sep="\t")
    split = pd.read_csv(model / "split.tsv", sep="\t", dtype=str)
    left_out = split.loc[split["part"] == "test", "subject"]
    assert list(table["subject"]) == [f"sub-{name}" for name in sorted(left_out)]
    assert "2 scans of 2 patients" in scored.out
    means = read_json(out / "evaluation.json")["measures"]
    assert means["dice"]["low"] <= means["dice"]["mean"] <= means["dice"]["high"]
    assert means["dice"]["mean"] > 0.6  # 0.82 here, after eight epochs at width 3
    comparison = pd.read_csv(model / "comparison.tsv", sep="\t").set_index("method")
    # Small pieces were dropped, so Dice is near that of all voxels.
    assert means["dice"]["mean"] == pytest.approx(
        comparison.loc["IVD-Net", "dice_disc"], abs=0.15
    )
    assert (out / "segmentation.html").is_file()


def test_one_bad_scan_does_not_stop_the_others(model, data, neuromm, tmp_path):
    (data / "02" / "02_wat.nii").unlink()
    ran = neuromm("segment", "predict", data, tmp_path / "out", "--model", model)
    assert ran.code == 1
    assert "sub-02: has no wat" in ran.err
    assert "--modality-dropout" in ran.err
    assert "1 done, 0 skipped, 1 failed" in ran.out
    assert not (tmp_path / "out" / "sub-02").exists()


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        # Raw intensities where scaled ones were trained on: the released code's error.
        ("01_wat.nii", lambda v: (v * 0 + 7).astype(np.int16), "01_wat.nii"),
        ("01_wat.nii", lambda v: np.stack([v, v], axis=-1), "4-D"),
        ("01_wat.nii", lambda v: v[:, :, :-1], "grid"),
        ("01_opp.nii", lambda v: np.where(v > 500, np.nan, v).astype("f4"), "nan"),
    ],
)
def test_an_image_that_cannot_be_used_is_named(
    model, data, neuromm, tmp_path, file, change, message
):
    changed(data / "01" / file, change)
    ran = neuromm("segment", "predict", data, tmp_path / "out", "--model", model,
                  "--participant-label", "01")  # fmt: skip
    assert ran.code == 65, ran.err
    assert "sub-01" in ran.err
    assert message in ran.err
    assert not (tmp_path / "out" / "sub-01").exists()


def test_what_is_not_compared_is_said(model, data, neuromm, tmp_path):
    out = tmp_path / "out"
    assert neuromm("segment", "predict", data, out, "--model", model).code == 0
    (data / "02" / "02_Labels.nii").unlink()
    scored = neuromm("segment", "evaluate", data, out)
    assert scored.code == 0
    assert "1 scans have no labels or no prediction" in scored.err
    assert "sub-02" in scored.err
    assert "1 done, 0 skipped, 0 failed" in scored.out
    left_out = neuromm("segment", "fit", data, tmp_path / "model", "--folds", "2",
                       "--width", "2", "--epochs", "1")  # fmt: skip
    assert (left_out.code, "more patients than 2" in left_out.err) == (2, True)


def test_labels_that_are_not_there_or_empty_are_named(data, neuromm, tmp_path):
    fit = ("segment", "fit", data, tmp_path / "model", "--width", "2", "--epochs", "1")
    changed(data / "01" / "01_Labels.nii", np.zeros_like)
    ran = neuromm(*fit)
    assert ran.code == 65
    assert "01_Labels.nii" in ran.err
    assert "none of the classes disc" in ran.err
    (data / "01" / "01_Labels.nii").unlink()
    ran = neuromm(*fit)
    assert ran.code == 66
    assert "sub-01: has no labels" in ran.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("fit", "nowhere", "m"), 66, "no such folder"),
        (("fit", "DATA", "m", "--folds", "1"), 2, "--folds takes 2 or more"),
        (("fit", "DATA", "m", "--folds", "9"), 2, "more patients than 2"),
        (("fit", "DATA", "m", "--folds", "2", "--fold", "2"), 2, "--fold takes 0 to 1"),
        (("fit", "DATA", "m", "--baseline", "unet"), 2, "add --folds"),
        (("fit", "DATA", "m", "--classes", "canal=100"), 2, "a class disc"),
        (("fit", "DATA", "m", "--device", "cuda"), 2, "no CUDA device"),
        (("fit", "DATA", "m", "--layout", "files"), 2, "--modalities is needed"),
        (("fit", "DATA", "m", "--participant-label", "9"), 66, "no scan of sub-9"),
        (("predict", "DATA", "out"), 2, "--model is needed"),
        (("predict", "DATA", "out", "--model", "nowhere"), 66, "segment.json"),
        (
            ("predict", "DATA", "out", "--model", "MODEL", "--uncertainty", "flips"),
            2,
            "Train it with --flips",
        ),
        (
            ("predict", "DATA", "out", "--model", "MODEL", "--uncertainty", "dropout"),
            2,
            "--dropout",
        ),
        (("evaluate", "DATA", "out"), 66, "segment predict first"),
    ],
)
def test_what_cannot_be_done_is_said_with_its_cure(
    model, data, neuromm, tmp_path, monkeypatch, arguments, code, message
):
    monkeypatch.setattr("neuromm_pipelines.devices._has_gpu", lambda *_: False)
    places = {"DATA": data, "MODEL": model}
    own = {"m", "out", "nowhere"}
    given = [
        places.get(word, tmp_path / word if word in own else word) for word in arguments
    ]
    ran = neuromm("segment", *given)
    assert (ran.code, message in ran.err) == (code, True), ran.err


def test_several_processes_are_refused(data, neuromm, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    ran = neuromm("segment", "fit", data, tmp_path / "m")
    assert (ran.code, "one process" in ran.err) == (2, True), ran.err


def test_folders_of_subjects_are_read_with_a_scan_that_lacks_a_modality(
    spines, neuromm, tmp_path
):
    """Trained with modality dropout, a network does without; the report says so."""
    data = tmp_path / "scans"
    for number, name in enumerate(("01", "02", "03"), start=1):
        folder = data / f"sub-p{number}"
        folder.mkdir(parents=True)
        for modality in ("fat", "wat"):
            image = nibabel.load(spines[0] / name / f"{name}_{modality}.nii")
            nibabel.save(image, folder / f"{modality}.nii.gz")
        image = nibabel.load(spines[0] / name / f"{name}_Labels.nii")
        nibabel.save(image, folder / "labels.nii.gz")
    fitted = neuromm("segment", "fit", data, tmp_path / "model", "--modalities", "fat",
                     "wat", "--width", "2", "--epochs", "2", "--flips",
                     "--modality-dropout", "0.3", "--nthreads", "1")  # fmt: skip
    assert fitted.code == 0, fitted.err
    (data / "sub-p2" / "wat.nii.gz").unlink()
    ran = neuromm("segment", "predict", data, tmp_path / "out", "--model",
                  tmp_path / "model", "--uncertainty", "flips",
                  "--smallest-mm3", "0")  # fmt: skip
    assert ran.code == 0, ran.err
    stem = tmp_path / "out" / "sub-p2" / "anat" / "sub-p2_space-orig_desc-disc_"
    sidecar = read_json(tmp_path / f"{stem}regions.json")
    assert any("wat not acquired" in text for text in sidecar["Warnings"])
    assert sidecar["Segmentation"]["n_passes"] == 4


def test_labels_become_classes_by_ranges():
    classes = parsed_classes(["disc=201-225,250", "canal=100"], "spider")
    labels = np.array([0, 100, 101, 201, 225, 226, 250])
    np.testing.assert_array_equal(classes_of(labels, classes), [0, 2, 0, 1, 1, 0, 1])
    assert parsed_classes(None, "spider")["disc"] == ((201, 299),)
    for wrong in (["disc"], ["disc=a"], ["disc=1-9", "canal=9"], ["disc=0"]):
        with pytest.raises(UsageError, match="--classes"):
            parsed_classes(wrong, "bids")
