"""Sites of multimodal integration through the command: planted ones, and no others."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pandas as pd
import pytest

from neuromm.simulate import make_bids_dataset
from neuromm.simulate.planted_brain import INTERACTIVE_REGIONS, REGIONS
from neuromm_pipelines.chunks import target_part
from neuromm_pipelines.cli import main

VALIDATOR = Path(sys.executable).with_name("bids-validator-deno")
STEM = "sub-01_task-film_space-MNI152NLin2009cAsym_res-8"


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """One subject, fMRI and SEEG, with sites in the angular gyri; a small mask."""
    root = tmp_path_factory.mktemp("film")
    truth = make_bids_dataset(root / "bids", n_subjects=1, interactive=True, rng=0)
    (mask,) = root.rglob("sub-01*run-1_*desc-brain_mask.nii.gz")
    image = nibabel.load(mask)
    inside = np.argwhere(np.asarray(image.dataobj) > 0)
    places = nibabel.affines.apply_affine(image.affine, inside)
    chosen = (REGIONS[0], REGIONS[6], REGIONS[10], *INTERACTIVE_REGIONS)
    centres = np.array([region.centre for region in chosen])
    distance = np.linalg.norm(places[:, None] - centres, axis=2).min(axis=1)
    kept = inside[distance < 22]
    small = np.zeros(image.shape, np.uint8)
    small[tuple(kept.T)] = 1
    path = root / "mask.nii.gz"
    nibabel.Nifti1Image(small, image.affine).to_filename(path)
    features = pd.read_csv(truth.features["joint"], sep="\t")
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(features))
    permuted = features.drop(columns="stim_file").iloc[rows].reset_index(drop=True)
    permuted.insert(0, "stim_file", features["stim_file"])
    permuted.to_csv(root / "permuted.tsv", sep="\t", index=False)
    return SimpleNamespace(
        truth=truth, mask=path, features=truth.features, permuted=root / "permuted.tsv"
    )


def words(film, output, *options, spaces=("vision", "language", "joint"), more=()):
    features = [f"{name}={film.features[name]}" for name in spaces]
    return [
        "encode", str(film.truth.root), str(output), "participant",
        "--features", *features, *more,
        "--derivatives", f"fmriprep={film.truth.derivatives['fmriprep']}",
        "--mask", str(film.mask), "--confounds", "motion6",
        "--window-ms", "100", "--step-ms", "100", "--n-permutations", "0",
        "--alphas", "1", "10", "100", "1000", "10000",
        "--skip-bids-validation", "--omp-nthreads", "1", *map(str, options),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def mapped(film, tmp_path_factory):
    """The output of one run over both recordings; not to be changed."""
    output = tmp_path_factory.mktemp("mapped") / "out"
    control = f"permuted={film.permuted}"
    options = ("--sites", "--controls", "permuted", "--sites-over-time", "cluster")
    assert main(words(film, output, *options, more=(control,))) == 0
    return output


@pytest.fixture
def no_pictures(monkeypatch):
    """Reports without figures, which take most of their time."""
    from neuromm.report import html, site_sections

    monkeypatch.setattr(html, "unit_pictures", lambda unit: [])
    monkeypatch.setattr(site_sections, "site_pictures", lambda unit, sites: [])


def sites_of(output, datatype):
    (path,) = output.rglob(f"{datatype}/*_desc-multimodalsites_scores.tsv")
    table = pd.read_csv(path, sep="\t", na_values="n/a", dtype={"target": str})
    table["is_site"] = table["is_site"].astype(str).str.lower() == "true"
    return table.set_index("target")


def sidecar_of(output, datatype):
    (path,) = output.rglob(f"{datatype}/*_desc-multimodalsites_scores.json")
    return json.loads(path.read_text())


@pytest.mark.parametrize(("datatype", "r_max"), [("func", 0.5), ("ieeg", 0.4)])
def test_planted_sites_are_found_and_nothing_simpler_is_taken_for_one(
    film, mapped, datatype, r_max
):
    table = sites_of(mapped, datatype)
    truth = film.truth.table.query("datatype == @datatype").set_index("target")
    kind = truth["kind"].reindex(table.index)
    assert set(kind) == {"vision", "language", "both", "interactive", "none"}
    found = table["is_site"]
    # Targets at the rim of a region follow it weakly, and runs are few and short: half
    # of the strong ones must come out where the level is honest.
    strong = truth["r_max"].reindex(table.index) > r_max
    driven = (kind == "interactive") & strong
    assert driven.sum() >= 4
    assert found[driven].mean() >= 0.4
    wrong = found & (kind != "interactive")
    assert wrong.sum() <= 0.05 * found.sum()
    # Averaged over bins, most of which hold nothing, scores are small.
    assert (table["winner"][driven] == "joint").mean() >= 0.8
    assert sidecar_of(mapped, datatype)["Summary"]["n_sites"] == found.sum()


def test_the_space_called_joint_is_the_networks_and_no_concatenation(film, mapped):
    (path,) = mapped.rglob("func/*_desc-encoding_scores.json")
    sidecar = json.loads(path.read_text())
    assert list(sidecar["Summary"]) == ["vision", "language", "joint", "permuted"]
    spaces = sidecar["Encoding"]["feature_spaces"]
    assert spaces["joint"]["n_features"] == 48  # vision, language and their products


def test_maps_hold_what_the_table_says(mapped):
    table = sites_of(mapped, "func")
    folder = mapped / "sub-01" / "func"
    index = tuple(np.array([t.split("-") for t in table.index], dtype=int).T)

    def values(name):
        return np.asarray(nibabel.load(folder / f"{STEM}_{name}.nii.gz").dataobj)

    mask = values("desc-multimodalsites_mask")
    assert mask.sum() == table["is_site"].sum()
    np.testing.assert_array_equal(mask[index] == 1, table["is_site"])
    gain = values("contrast-jointMinusStrongest_stat-deltar_statmap")
    np.testing.assert_allclose(gain[index], table["gain"], rtol=1e-5, atol=1e-6)
    vision = values("contrast-jointMinusVision_stat-deltar_statmap")
    np.testing.assert_allclose(
        vision[index], table["score_joint"] - table["score_vision"], rtol=0, atol=1e-5
    )
    names = pd.read_csv(folder / f"{STEM}_desc-multimodalsites_dseg.tsv", sep="\t")
    named = names.set_index("index")["name"]
    labels = pd.Series(values("desc-multimodalsites_dseg")[index], table.index)
    assert (labels[table["is_site"]] == 1).all()
    others = ~table["is_site"] & (table["winner"] != "joint")
    assert (labels[others].map(named) == table["winner"][others]).all()


def test_gain_interval_and_conjunction_follow_from_the_columns(mapped):
    table = sites_of(mapped, "ieeg")
    rivals = ["vision", "language", "permuted", "concatenation", "banded"]
    best = table[[f"score_{name}" for name in rivals]].max(axis=1)
    np.testing.assert_allclose(
        table["gain"], table["score_joint"] - best, rtol=0, atol=2e-5
    )
    p = table[[f"p_{name}" for name in [*rivals, "chance"]]].max(axis=1)
    np.testing.assert_allclose(table["p"], p)
    sidecar = sidecar_of(mapped, "ieeg")
    assert not set(table.columns) - set(sidecar)
    assert {"block", "n_resamples", "q", "cv", "seed"} <= set(sidecar["Sites"])
    assert sidecar["Provenance"]["versions"]["neuromm"]


def test_regions_count_their_targets_and_sites(mapped):
    (path,) = mapped.rglob("func/*_desc-multimodalsites_regions.tsv")
    counts = pd.read_csv(path, sep="\t").set_index("region")
    table = sites_of(mapped, "func")
    named = table[table["region"].notna()]
    expected = named.groupby("region")["is_site"].agg(["size", "sum"])
    pd.testing.assert_frame_equal(
        counts[["n_targets", "n_sites"]].sort_index(),
        expected.set_axis(["n_targets", "n_sites"], axis=1),
        check_dtype=False,
    )
    np.testing.assert_allclose(
        counts["share"], counts["n_sites"] / counts["n_targets"], rtol=1e-5
    )


def test_the_output_passes_the_bids_validator(mapped):
    ended = subprocess.run(
        [VALIDATOR, str(mapped), "--format", "json"], capture_output=True, text=True
    )
    issues = json.loads(ended.stdout)["issues"]["issues"]
    assert [issue for issue in issues if issue["severity"] == "error"] == []
    lacking = {issue["subCode"] for issue in issues if "SIDECAR" in issue["code"]}
    assert not lacking & {"Description", "SpatialReference", "Sources"}


def test_the_report_tells_the_claim_its_counts_and_the_controls(mapped):
    page = (mapped / "sub-01.html").read_text()
    text = " ".join(re.sub(r"<[^>]+>", " ", page).split())
    for datatype, noun in (("func", "target"), ("ieeg", "contact")):
        numbers = sidecar_of(mapped, datatype)["Summary"]
        share = f"{numbers['n_sites'] / numbers['n_tested']:.1%}"
        assert (
            f"{numbers['n_sites']:,} of {numbers['n_tested']:,} tested {noun}s "
            f"({share}) are sites" in text
        )
    assert "the controls permuted" in text
    assert "Berger and Hsu" in text
    table = sites_of(mapped, "ieeg")
    assert all(name in text for name in table.index[table["is_site"]])


def test_reports_are_made_again_from_the_files_alone(mapped, neuromm, film, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(mapped, copy)
    before = (copy / "sub-01.html").read_bytes()
    ran = neuromm(*words(film, copy, "--reports-only"))
    assert ran.code == 0, ran.err
    assert (copy / "sub-01.html").read_bytes() == before


def test_a_report_shows_what_was_changed_by_hand(
    mapped, neuromm, film, no_pictures, tmp_path
):
    copy = tmp_path / "copy"
    shutil.copytree(mapped, copy)
    (path,) = copy.rglob("ieeg/*_desc-multimodalsites_scores.json")
    changed = json.loads(path.read_text())
    changed["Warnings"] = ["written by hand"]
    path.write_text(json.dumps(changed))
    assert neuromm(*words(film, copy, "--reports-only")).code == 0
    assert "written by hand" in (copy / "sub-01.html").read_text()


def test_a_control_as_good_as_the_network_warns_and_leaves_no_site(
    neuromm, film, no_pictures, tmp_path
):
    twin = f"twin={film.features['joint']}"
    options = ("--sites", "--controls", "twin", "--datatype", "func")
    ran = neuromm(*words(film, tmp_path / "out", *options, more=(twin,)))
    assert ran.code == 0, ran.err
    assert not sites_of(tmp_path / "out", "func")["is_site"].any()
    sidecar = sidecar_of(tmp_path / "out", "func")
    n_before = sidecar["Summary"]["n_sites_without_controls"]
    assert n_before > 20
    assert sidecar["Summary"]["controls"]["twin"]["n_not_beaten"] == n_before
    (warning,) = sidecar["Warnings"]
    assert f"does as well as 'joint' at {n_before:,} of {n_before:,}" in warning
    assert "does as well as" in (tmp_path / "out" / "sub-01.html").read_text()


def test_a_stand_in_backbone_is_named(neuromm, film, no_pictures, tmp_path):
    stood_in = tmp_path / "joint.tsv"
    shutil.copy(film.features["joint"], stood_in)
    (tmp_path / "joint.json").write_text('{"kind": "stand-in", "model": "image-text"}')
    options = ("--sites", "--datatype", "ieeg", "--n-resamples", 100)
    ran = neuromm(
        *words(
            film, tmp_path / "out", *options,
            spaces=("vision", "language"), more=(f"joint={stood_in}",),
        )
    )  # fmt: skip
    assert ran.code == 0, ran.err
    (warning,) = sidecar_of(tmp_path / "out", "ieeg")["Warnings"]
    assert "joint comes from a stand-in backbone" in warning


@pytest.mark.slow
def test_chunks_of_contacts_join_to_the_map_of_one_fit(
    neuromm, film, files_of, no_pictures, tmp_path
):
    options = ("--sites", "--datatype", "ieeg", "--n-resamples", 200)
    whole, cut, array = (tmp_path / name for name in ("whole", "cut", "array"))
    assert neuromm(*words(film, whole, *options)).code == 0
    ran = neuromm(*words(film, cut, *options, "--chunks", 3))
    assert ran.code == 0, ran.err
    a, b = sites_of(whole, "ieeg"), sites_of(cut, "ieeg")
    assert list(a) == list(b)
    assert (a["is_site"] == b["is_site"]).all()
    numbers = a.select_dtypes(float).columns
    # Six digits are written; products of parts may round differently in the last, and
    # p, a small tail, more so.
    pd.testing.assert_frame_equal(a[numbers], b[numbers], rtol=1e-3, atol=1e-5)
    assert sidecar_of(whole, "ieeg")["Sites"] == sidecar_of(cut, "ieeg")["Sites"]
    for task in ("2/3", "3/3", "1/3"):
        ran = neuromm(*words(film, array, *options, "--targets-chunk", task))
        assert ran.code == 0, ran.err
    merged = neuromm("merge", array)
    assert merged.code == 0, merged.err
    assert files_of(array) == files_of(cut)


def test_time_bins_of_a_site_are_never_cut_apart():
    parts = [target_part(40 * 39, 7, i + 1, together=39) for i in range(7)]
    assert parts[0].start == 0
    assert parts[-1].stop == 40 * 39
    assert all(part.start % 39 == 0 == part.stop % 39 for part in parts)
    assert target_part(10, 5, 1) == slice(0, 2)


def test_a_second_run_skips_and_one_with_other_sites_is_refused(
    neuromm, film, no_pictures, tmp_path
):
    options = ("--sites", "--datatype", "ieeg", "--n-resamples", 100)
    output = tmp_path / "out"
    assert neuromm(*words(film, output, *options)).code == 0
    again = neuromm(*words(film, output, *options))
    assert again.out.splitlines()[-1] == "neuromm encode: 0 done, 1 skipped, 0 failed"
    other = neuromm(*words(film, output, *options, "--sites-correction", "by"))
    assert other.code == 2
    assert "sites.correction was 'bh', now 'by'" in other.err
    without = neuromm(*words(film, output, "--datatype", "ieeg", "--overwrite"))
    assert without.code == 0, without.err
    assert not list(output.rglob("*multimodalsites*"))


def test_the_plan_names_the_models_and_counts_their_predictions(
    neuromm, film, tmp_path
):
    plain = neuromm(*words(film, tmp_path / "out", "--dry-run"))
    sites = neuromm(*words(film, tmp_path / "out", "--dry-run", "--sites"))
    assert sites.code == 0, sites.err
    assert "joint against vision, language and two linear combinations" in sites.out

    def megabytes(ran):
        return [float(x) for x in re.findall(r"needs +([\d.]+) MB", ran.out)]

    sizes = [
        (int(n), int(m)) for n, m in re.findall(r"(\d+) samples.*-> (\d+)", sites.out)
    ]
    assert len(sizes) == 2
    for before, after, (n, m) in zip(
        megabytes(plain), megabytes(sites), sizes, strict=True
    ):
        assert after - before > 5 * n * m * 8 / 2**20  # five models
    refused = neuromm(*words(film, tmp_path / "out", "--sites", "--mem", 20))
    assert refused.code == 75
    assert not (tmp_path / "out" / "sub-01").exists()


@pytest.mark.parametrize(
    ("spaces", "options", "told"),
    [
        (("vision", "language"), ("--sites",), "no 'joint' among vision, language"),
        (("vision", "joint"), ("--sites",), "two or more feature spaces"),
        (
            ("vision", "language", "joint"),
            ("--sites", "--multimodal", "vision", "--unimodal", "vision", "language"),
            "vision can be only one of",
        ),
        (
            ("vision", "language", "joint"),
            ("--sites", "--controls", "random"),
            "--controls names random",
        ),
        (("vision", "language", "joint"), ("--multimodal", "joint"), "give --sites"),
        (
            ("vision", "language", "joint"),
            ("--sites", "--n-resamples", "10"),
            "--n-resamples must be 100 or more",
        ),
    ],
)
def test_sites_that_cannot_be_mapped_are_refused_before_anything_is_read(
    neuromm, film, tmp_path, spaces, options, told
):
    ran = neuromm(*words(film, tmp_path / "out", *options, spaces=spaces))
    assert ran.code == 2
    assert told in ran.err
    assert not (tmp_path / "out").exists()
