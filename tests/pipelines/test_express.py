"""``neuromm express`` on simulated sections: scored, trained, predicted; refused."""

import json
import shutil
import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from neuromm.core.files import read_json
from neuromm.features import write_spot_features
from neuromm.simulate import make_tissue_sections, make_tissue_slides
from neuromm_pipelines.cli import main
from neuromm_pipelines.units import locked

FIT = (
    "--genes", "40", "--epochs", "20", "--nthreads", "1", "--tiles", "3",
    "--backbone", "image-statistics",
)  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slides")
    return folder, make_tissue_slides(4, folder=folder, side=9, rng=0)


@pytest.fixture(scope="module")
def model(slides, cache, tmp_path_factory):
    """Of the first three patients, each left out once."""
    folder = tmp_path_factory.mktemp("model") / "model"
    names = ("--section-label", "P01", "P02", "P03")
    arguments = ["express", "fit", str(slides[0]), str(folder), *FIT, *names]
    assert main([*arguments, "--cache", str(cache)]) == 0
    return folder


@pytest.fixture(scope="module")
def predicted(slides, cache, model, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    arguments = ["express", "predict", str(slides[0]), str(out)]
    assert main([*arguments, "--model", str(model), "--cache", str(cache)]) == 0
    return out


def section(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return anndata.read_h5ad(path)


def test_each_patient_is_scored_by_models_that_never_saw_it(model):
    rows = pd.read_csv(model / "folds.tsv", sep="\t")
    honest = rows[rows["fold"].str.startswith("patient")]
    assert len(honest) == 3 * 2
    assert set(honest["model"]) == {"GeneDML", "ridge"}
    for row in honest.itertuples():
        assert row.patient in row.fold
    # The last fifth of the genes follows nothing, the others follow the picture.
    assert (honest["pcc"] > 0.3).all()
    genes = pd.read_csv(model / "genes.tsv", sep="\t").set_index("gene")["pcc"]
    noise = [f"GENE{n}" for n in range(33, 41)]
    assert abs(genes[noise].mean()) < 0.1
    assert genes.drop(noise).mean() > 0.4
    means = pd.read_csv(model / "means.tsv", sep="\t")
    own = means[(means["model"] == "GeneDML") & (means["measure"] == "pcc")].iloc[0]
    assert own["n_patients"] == 3
    assert own["low"] <= own["mean"] <= own["high"]
    page = (model / "report.html").read_text()
    assert "image-statistics" in page
    assert "stand-in" in page.lower()
    assert "imulated" in page
    assert not (model / "work" / "fold-000").exists()


def test_the_same_fit_again_reads_its_folds_and_gives_the_same_weights(
    model, slides, cache, neuromm
):
    before = (model / "model.safetensors").read_bytes()
    scores = (model / "folds.tsv").read_bytes()
    names = ("--section-label", "P01", "P02", "P03")
    same = ("express", "fit", slides[0], model, *FIT, *names, "--cache", cache)
    again = neuromm(*same)
    assert again.code == 0, again.err
    assert "patient P01" not in again.out
    assert (model / "model.safetensors").read_bytes() == before
    assert (model / "folds.tsv").read_bytes() == scores
    other = neuromm(*same, "--seed", "1")
    assert other.code == 2
    assert "seed" in other.err


def test_a_new_patient_is_predicted_and_the_file_says_how(predicted, slides):
    made = section(predicted / "P04.h5ad")
    truth = slides[1][3]
    assert made.layers["predicted"].shape == (81, 40)
    assert made.obsm["genedml"].shape == (81, 64)
    told = made.uns["neuromm"]["express"]
    assert told["model"] == "GeneDML"
    assert list(told["panel"]) == list(made.var_names)
    assert bool(told["is_stand_in"])
    assert list(told["trained_patients"]) == ["P01", "P02", "P03"]
    assert "imulated" in told["notice"]
    provenance = json.loads(made.uns["neuromm"]["provenance"])
    assert len(provenance["inputs"]) == 2
    genes = [int(name[4:]) - 1 for name in made.var_names]
    rate = truth.log_rate[:, genes]
    r = [
        np.corrcoef(made.layers["predicted"][:, n], rate[:, n])[0, 1]
        for n in range(len(genes))
        if genes[n] < 32
    ]
    assert np.mean(r) > 0.5
    # In the unit of the measured expression: level, not only pattern.
    error = made.layers["predicted"] - made.layers["observed"]
    assert abs(error.mean()) < 0.3
    assert (predicted / "P04_report.html").is_file()
    warned = section(predicted / "P01.h5ad").uns["neuromm"]["express"]["findings"]
    assert any("trained on a patient of this name" in text for text in warned)


def test_random_spots_alone_are_scored_as_the_leak_that_they_are(
    slides, cache, neuromm, tmp_path
):
    ran = neuromm("express", "fit", slides[0], tmp_path / "m", *FIT, "--cache", cache,
                  "--epochs", "1", "--section-label", "P01", "--folds", "random",
                  "--n-folds", "2")  # fmt: skip
    assert ran.code == 0, ran.err
    assert ran.out.count("a leak") == 1
    assert set(pd.read_csv(tmp_path / "m" / "means.tsv", sep="\t")["model"]) == {
        "GeneDML",
        "ridge",
    }
    assert "a leak" in (tmp_path / "m" / "report.html").read_text()


def test_finished_sections_are_skipped_and_one_bad_one_stops_no_other(
    model, slides, cache, neuromm, tmp_path
):
    study = tmp_path / "study"
    shutil.copytree(slides[0], study)
    (study / "spots" / "P02.h5ad").write_bytes(b"no HDF5")
    out = tmp_path / "out"
    run = ("express", "predict", study, out, "--model", model, "--cache", cache)
    first = neuromm(*run)
    assert first.code == 1
    assert first.out.splitlines()[-1] == "neuromm express: 3 done, 0 skipped, 1 failed"
    assert "P02" in first.err
    assert not list(out.glob("P02*"))
    bytes_before = {p.name: p.read_bytes() for p in out.glob("*.h5ad")}
    again = neuromm(*run)
    assert "0 done, 3 skipped, 1 failed" in again.out
    forced = neuromm(*run, "--overwrite", "--section-label", "P04")
    assert "1 done" in forced.out
    assert (out / "P04_report.html").is_file()
    kept = section(out / "P04.h5ad")
    np.testing.assert_array_equal(
        kept.layers["predicted"], section(out / "P04.h5ad").layers["predicted"]
    )
    assert set(bytes_before) == {p.name for p in out.glob("*.h5ad")}


def test_counts_of_the_section_change_no_prediction(
    model, slides, cache, neuromm, tmp_path, predicted
):
    study = tmp_path / "study"
    shutil.copytree(slides[0], study)
    path = study / "spots" / "P04.h5ad"
    spoiled = section(path)
    spoiled.X = np.full(spoiled.shape, 7.0, dtype=np.float32)
    spoiled.write_h5ad(path)
    out = tmp_path / "out"
    ran = neuromm("express", "predict", study, out, "--model", model,
                  "--section-label", "P04", "--cache", cache)  # fmt: skip
    assert ran.code == 0, ran.err
    ours, theirs = section(out / "P04.h5ad"), section(predicted / "P04.h5ad")
    np.testing.assert_array_equal(ours.layers["predicted"], theirs.layers["predicted"])
    assert (ours.layers["observed"] != theirs.layers["observed"]).any()


def test_only_new_patients_count_unless_asked(predicted, model, slides, cache, neuromm):
    ran = neuromm("express", "evaluate", slides[0], predicted)
    assert ran.code == 0, ran.err
    assert "1 section(s) of 1 patient(s)" in ran.out
    assert "1 done, 3 skipped, 0 failed" in ran.out
    scores = pd.read_csv(predicted / "scores.tsv", sep="\t")
    assert list(scores["section"].unique()) == ["P04"]
    assert (scores["pcc"] > 0.3).all()
    assert read_json(predicted / "evaluation.json")["n_patients"] == 1
    both = neuromm("express", "evaluate", slides[0], predicted, "--include-trained",
                   "--section-label", "P01", "P04")  # fmt: skip
    assert "2 section(s) of 2 patient(s)" in both.out
    assert "says nothing about new ones" in both.out
    means = pd.read_csv(predicted / "means.tsv", sep="\t")
    assert set(means["n_patients"]) == {1}  # of the new one alone
    scores = pd.read_csv(predicted / "scores.tsv", sep="\t")
    assert set(scores.loc[scores["section"] == "P01", "fold"]) == {"trained on"}
    smooth = neuromm("express", "evaluate", slides[0], predicted, "--smooth-truth")
    assert smooth.code == 0
    again = neuromm("express", "predict", slides[0], predicted, "--model", model,
                    "--cache", cache, "--section-label", "P04")  # fmt: skip
    assert "1 skipped" in again.out  # scores in its page make no section unfinished
    page = (predicted / "P04_report.html").read_text()
    assert "mean over a spot and its neighbours" in page


def test_a_slide_without_spots_is_predicted_over_a_grid(
    model, slides, cache, neuromm, tmp_path
):
    slide = slides[0] / "slides" / "P04.png"
    run = ("express", "predict", slide, tmp_path / "out", "--model", model,
           "--cache", cache)  # fmt: skip
    refused = neuromm(*run)
    assert refused.code == 2
    assert "--grid-um 100" in refused.err
    ran = neuromm(*run, "--grid-um", "200")
    assert ran.code == 0, ran.err
    made = section(tmp_path / "out" / "P04.h5ad")
    assert "observed" not in made.layers
    assert made.n_obs >= 81
    truth = slides[1][3]
    # Each place of the grid against the spot that lies nearest.
    places = made.obsm["spatial"]
    spots = section(slides[0] / "spots" / "P04.h5ad").obsm["spatial"]
    distance = np.linalg.norm(places[:, None] - spots, axis=2)
    near = distance.min(axis=1) < 50
    rate = truth.log_rate[distance.argmin(axis=1)][near]
    genes = [int(name[4:]) - 1 for name in made.var_names]
    values = made.layers["predicted"][near]
    r = [
        np.corrcoef(values[:, n], rate[:, gene])[0, 1]
        for n, gene in enumerate(genes)
        if gene < 32
    ]
    assert np.mean(r) > 0.4


def test_folds_of_a_job_array_end_with_the_bytes_of_one_run(
    model, slides, cache, neuromm, tmp_path
):
    folder = tmp_path / "model"
    names = ("--section-label", "P01", "P02", "P03")
    same = ("express", "fit", slides[0], folder, *FIT, *names, "--cache", cache)
    with locked(folder, "fold-001"):  # another job is at it
        for fold in (2, 0):
            ran = neuromm(*same, "--fold", fold)
            assert ran.code == 0, ran.err
        refused = neuromm(*same, "--fold", "1")
        assert refused.code == 75, refused.err
    ran = neuromm(*same, "--fold", "1")
    assert "wrote" in ran.out
    for name in ("folds.tsv", "model.safetensors", "ridge.safetensors"):
        assert (folder / name).read_bytes() == (model / name).read_bytes()


@pytest.mark.slow
def test_slides_of_another_scanner_are_brought_to_the_stains_of_the_first(
    slides, neuromm, tmp_path
):
    """The same tissue, once darker: with the stains exchanged, features agree."""
    study = tmp_path / "study"
    shutil.copytree(slides[0], study)
    path = study / "slides" / "P01.png"
    with Image.open(path) as picture:
        darker = 255.0 * (np.asarray(picture) / 255.0) ** 1.5
        Image.fromarray(np.rint(darker).astype(np.uint8)).save(path)
    far = {}
    for flags in ((), ("--stain-normalise",)):
        folder, out = tmp_path / f"m{len(flags)}", tmp_path / f"o{len(flags)}"
        common = ("--cache", tmp_path / "cache")
        ran = neuromm("express", "fit", slides[0], folder, *FIT, "--epochs", "2",
                      "--tiles", "1", "--section-label", "P02", "P03",
                      "--folds", "none", *flags, *common)  # fmt: skip
        assert ran.code == 0, ran.err
        values = []
        for name, data in (("as", slides[0]), ("darker", study)):
            ran = neuromm("express", "predict", data, out / name, "--model", folder,
                          "--section-label", "P01", *common)  # fmt: skip
            assert ran.code == 0, ran.err
            values.append(section(out / name / "P01.h5ad").layers["ridge"])
        far[flags] = np.abs(values[0] - values[1]).mean()
    assert far["--stain-normalise",] < 0.5 * far[()]


def test_features_that_would_not_fit_into_memory_are_not_computed(
    slides, neuromm, tmp_path, monkeypatch, cache
):
    import psutil

    little = psutil.virtual_memory()._replace(available=100_000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: little)
    ran = neuromm("express", "fit", slides[0], tmp_path / "m", *FIT, "--cache", cache)
    assert ran.code == 75
    assert "features of 324 spots take" in ran.err
    assert "--section-label" in ran.err


@pytest.mark.parametrize(
    ("flags", "code", "text"),
    [
        (("--genes", "0"), 2, "--genes must be at least 1"),
        (("--genes", "400"), 2, "40 genes were measured in all 4 sections"),
        (("--gene-list", "GENE01", "TP53"), 2, "not measured in every section: TP53"),
        ((*FIT, "--fold", "9"), 2, "--fold takes 0 to 3"),
        (
            (*FIT, "--patch-tokens", "--section-label", "P01"),
            2,
            "leave out --patch-tokens",
        ),
        (("--folds", "none", "--fold", "1"), 2, "there are none"),
        (("--features", "nowhere"), 66, "no such file or folder"),
        (("--genes", "40", "--features", "obsm:uni"), 2, "obsm"),
        (("--backbone", "hashed-text"), 2, "backbone of images"),
        (("--section-label", "P9"), 2, "has no section P9"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(
    slides, cache, neuromm, tmp_path, flags, code, text
):
    ran = neuromm("express", "fit", slides[0], tmp_path / "m", "--cache", cache, *flags)
    assert ran.code == code, ran.err
    assert text in ran.err
    assert "Traceback" not in ran.err
    assert not (tmp_path / "m" / "model.safetensors").exists()


def test_the_same_section_twice_is_no_second_patient(slides, cache, neuromm, tmp_path):
    table = pd.read_csv(slides[0] / "sections.tsv", sep="\t").iloc[[0, 0, 1]].copy()
    table["section"], table["patient"] = ["A", "B", "C"], ["1", "2", "3"]
    for role in ("spots", "slide"):
        table[role] = [str(slides[0] / path) for path in table[role]]
    table.to_csv(tmp_path / "sections.tsv", sep="\t", index=False)
    ran = neuromm("express", "fit", tmp_path, tmp_path / "m", *FIT, "--cache", cache)
    assert ran.code == 65
    assert "A and B hold the same counts" in ran.err


def test_a_model_is_not_read_with_other_features(model, slides, neuromm, tmp_path):
    ran = neuromm("express", "predict", slides[0], tmp_path / "out", "--model", model,
                  "--backbone", "colorstats")  # fmt: skip
    assert ran.code == 2
    assert "not those that the model was trained with" in ran.err
    (tmp_path / "file").write_text("no folder")
    ran = neuromm("express", "predict", slides[0], tmp_path / "file" / "out", "--model",
                  model)  # fmt: skip
    assert ran.code == 73, ran.err
    damaged = tmp_path / "model"
    shutil.copytree(model, damaged)
    text = (damaged / "express.json").read_text().replace('"GENE', '"NOGENE', 1)
    (damaged / "express.json").write_text(text[:-20])
    ran = neuromm("express", "predict", slides[0], tmp_path / "o", "--model", damaged)
    assert ran.code == 65


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Sections whose vectors, not pictures, tell what genes do."""
    folder = tmp_path_factory.mktemp("planted")
    (folder / "spots").mkdir()
    rows = []
    for one in make_tissue_sections(5, side=10, n_genes=12, rng=2):
        own = one.features
        adata = anndata.AnnData(
            one.counts.astype(np.float32),
            obs=pd.DataFrame(own.grid, own.spots, columns=["array_row", "array_col"]),
            var=pd.DataFrame(index=[f"G{n}" for n in range(12)]),
        )
        adata.obsm["spatial"] = own.grid[:, ::-1] * 400.0 + 500
        adata.obsm["planted"] = own.overview
        scales = {"microns_per_pixel": 0.5, "spot_diameter_fullres": 200.0}
        adata.uns["spatial"] = {own.section: {"images": {}, "scalefactors": scales}}
        path = folder / "spots" / f"{own.section}.h5ad"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            adata.write_h5ad(path)
        write_spot_features(own, folder / "emb")
        name = own.section
        rows.append({"section": name, "spots": f"spots/{name}.h5ad", "patient": name})
    pd.DataFrame(rows).to_csv(folder / "sections.tsv", sep="\t", index=False)
    return folder


@pytest.mark.parametrize(
    "model", [pytest.param("GeneDML", marks=pytest.mark.slow), "TRIPLEX"]
)
def test_vectors_from_elsewhere_are_read_with_the_tiles_around_their_spots(
    planted, neuromm, tmp_path, model
):
    """A field around the spot is planted, which its own vector does not show."""
    found = {}
    for name, source in (("tiles", planted / "emb"), ("alone", "obsm:planted")):
        folder = tmp_path / name
        ran = neuromm("express", "fit", planted, folder, "--genes", "12", "--features",
                      source, "--model", model, "--epochs", "3", "--nthreads", "1",
                      "--n-folds", "2")  # fmt: skip
        assert ran.code == 0, ran.err
        rows = pd.read_csv(folder / "folds.tsv", sep="\t")
        found[name] = rows.groupby("model")["pcc"].mean()
        assert set(found[name].index) == {model, "ridge"}
    assert found["tiles"]["ridge"] > found["alone"]["ridge"] + 0.1

    out = tmp_path / "out"
    run = ("express", "predict", planted, "--model", tmp_path / "tiles",
           "--section-label", "P05")  # fmt: skip
    ran = neuromm(*run[:3], out, *run[3:])
    assert ran.code == 0, ran.err
    # The same vectors from another folder are the same; those of a spot alone are not.
    moved = tmp_path / "emb"
    shutil.copytree(planted / "emb", moved)
    again = neuromm(*run[:3], tmp_path / "again", *run[3:], "--features", moved)
    assert again.code == 0, again.err
    np.testing.assert_array_equal(
        section(out / "P05.h5ad").layers["predicted"],
        section(tmp_path / "again" / "P05.h5ad").layers["predicted"],
    )
    other = neuromm(*run[:3], tmp_path / "other", *run[3:], "--features",
                    "obsm:planted")  # fmt: skip
    assert other.code == 2
    assert "P05" in other.err
