"""Simulated sections: pictures show what counts follow."""

import json

import numpy as np
import pytest

from neuromm.core import UsageError
from neuromm.features import load_backbone
from neuromm.io.tissue_sections import open_sections
from neuromm.prepare.patches import spot_patches
from neuromm.prepare.spot_quality import check_spots
from neuromm.prepare.tissue import tissue_mask
from neuromm.simulate import make_tissue_slides


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slides")
    return folder, make_tissue_slides(2, folder=folder, rng=1)


def test_dark_nuclei_are_as_dense_as_planted_at_each_spot(study):
    folder, truth = study
    for section, one in zip(open_sections(folder), truth, strict=True):
        adata = section.load().data
        slide = section.open_slide(adata)
        patches = spot_patches(slide, adata.obsm["spatial"], size_um=200, size_px=100)
        dark = [(patch.sum(axis=2) < 350).mean() for patch in patches]
        assert np.corrcoef(np.log(np.array(dark) + 1e-3), one.density)[0, 1] > 0.9
        assert check_spots(adata, tissue_mask(slide), "st") == []


def test_counts_scatter_around_their_rate(study):
    folder, truth = study
    adata = open_sections(folder)[0].load().data.to_memory()
    excess = adata.X.toarray() - np.exp(truth[0].log_rate)
    z = excess / np.exp(truth[0].log_rate / 2)
    assert abs(z.mean()) < 3 / np.sqrt(z.size)
    assert z.std() == pytest.approx(1, abs=0.05)
    # The last fifth of the genes follows nothing.
    assert np.ptp(truth[0].log_rate[:, -8:], axis=0).max() == 0


def test_the_same_seed_writes_the_same_bytes_and_says_that_it_is_simulated(tmp_path):
    for name in ("a", "b"):
        make_tissue_slides(1, folder=tmp_path / name, side=4, n_genes=5, rng=3)
    first, second = (tmp_path / n / "slides" / "P01.png" for n in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
    stated = json.loads((tmp_path / "a" / "dataset_description.json").read_text())
    assert "Simulated" in stated["Name"]
    with pytest.raises(UsageError, match="a side of 4"):
        make_tissue_slides(1, folder=tmp_path, side=3)


def test_colour_and_texture_tell_density(study):
    folder, truth = study
    section = open_sections(folder)[0]
    adata = section.load().data
    slide = section.open_slide(adata)
    patches = list(spot_patches(slide, adata.obsm["spatial"], size_px=56))
    seen = load_backbone("colorstats").embed(patches)
    best = max(
        abs(np.corrcoef(column, truth[0].density)[0, 1])
        for column in seen.T
        if column.std() > 0
    )
    assert best > 0.8
