"""``neuromm express`` on real sections: A1 of HER2ST, a CytAssist folder, a slide."""

import warnings

import anndata
import numpy as np
import pandas as pd
import pytest

from neuromm.io import load
from neuromm_pipelines.cli import main

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def histology(data_folder):
    place = data_folder / "histology_st"
    if not place.exists():
        pytest.skip(f"{place} is not there")
    return place


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def model(histology, cache, tmp_path_factory):
    """Of section A1, scored on blocks of it and on random spots."""
    folder = tmp_path_factory.mktemp("model") / "model"
    arguments = [
        "express", "fit", str(histology / "her2st"), str(folder), "--section-label",
        "A1", "--slide-scale", str(2000 / 6954), "--backbone", "image-statistics",
        "--genes", "50", "--tiles", "1", "--epochs", "10", "--also-random",
        "--n-folds", "2", "--nthreads", "1", "--cache", str(cache),
    ]  # fmt: skip
    assert main(arguments) == 0
    return folder


def section(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return anndata.read_h5ad(path)


def test_blocks_of_a1_are_predicted_a_little_and_random_spots_look_better(model):
    rows = pd.read_csv(model / "folds.tsv", sep="\t")
    ridge = rows[rows["model"] == "ridge"]
    is_random = ridge["fold"].str.startswith("random")
    blocks, random = ridge[~is_random]["pcc"].mean(), ridge[is_random]["pcc"].mean()
    assert 0.02 < blocks < random < 0.35  # .06 against .18 by a trained network
    page = (model / "report.html").read_text()
    assert "a leak" in page
    assert "STAND-IN" in page


def test_a_cytassist_folder_is_predicted_from_its_small_picture_with_warnings(
    model, histology, cache, neuromm, tmp_path
):
    ran = neuromm("express", "predict", histology / "visium_cytassist", tmp_path,
                  "--model", model, "--cache", cache)  # fmt: skip
    assert ran.code == 0, ran.err
    made = section(tmp_path / "visium_cytassist.h5ad")
    assert made.shape == (1426, 50)
    assert np.isfinite(made.layers["predicted"]).all()
    # Genes of a human panel are not those of a mouse: nothing stands as measured.
    assert "observed" not in made.layers
    found = " ".join(made.uns["neuromm"]["express"]["findings"])
    assert "small picture of Space Ranger" in found
    assert "another stain, scanner or tissue" in found


def test_a_slide_without_spots_gets_a_map_over_its_tissue(
    model, histology, cache, neuromm, tmp_path
):
    pytest.importorskip("openslide")
    slide = histology / "wsi" / "cmu_small_region.svs"
    ran = neuromm("express", "predict", slide, tmp_path, "--model", model,
                  "--cache", cache, "--grid-um", "100")  # fmt: skip
    assert ran.code == 0, ran.err
    made = section(tmp_path / "cmu_small_region.h5ad")
    # A third of 1.1 x 1.5 mm is tissue.
    assert 40 < made.n_obs < 75
    assert made.obsm["spatial"][:, 0].max() < 2220


@pytest.mark.slow
def test_an_h5ad_is_predicted_as_the_count_table_that_it_was_made_of(
    model, histology, cache, neuromm, tmp_path
):
    table = load(histology / "her2st" / "counts" / "A1.tsv.gz").data
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table.write_h5ad(tmp_path / "A1.h5ad")
    picture = histology / "her2st" / "images" / "A1_2000px.jpg"
    common = ("--model", model, "--cache", cache, "--slide-scale", 2000 / 6954)
    one = neuromm("express", "predict", tmp_path / "A1.h5ad", tmp_path / "a",
                  "--slide", picture, *common)  # fmt: skip
    two = neuromm("express", "predict", histology / "her2st", tmp_path / "b",
                  "--section-label", "A1", *common)  # fmt: skip
    assert (one.code, two.code) == (0, 0), one.err + two.err
    first, second = (
        section(tmp_path / "a" / "A1.h5ad"),
        section(tmp_path / "b" / "A1.h5ad"),
    )
    np.testing.assert_array_equal(first.layers["predicted"], second.layers["predicted"])
    scored = neuromm("express", "evaluate", histology / "her2st", tmp_path / "b",
                     "--slide-scale", 2000 / 6954)  # fmt: skip
    assert scored.code == 66
    assert "--include-trained" in scored.err
