"""Real sections: eight of HER2ST, half of a CytAssist embryo, a whole slide."""

import numpy as np
import pandas as pd
import pytest

from neuromm.core.spot_grid import fitted_grid, microns_per_pixel
from neuromm.io import histology, load
from neuromm.prepare.spot_quality import check_spots
from neuromm.prepare.tissue import tissue_mask

pytestmark = pytest.mark.real

# Spots in the count tables; E1 and F1 are the largest.
HER2ST = {
    "A1": 346, "B1": 295, "B2": 270, "C1": 176,
    "D1": 306, "E1": 587, "F1": 691, "G2": 467,
}  # fmt: skip


def part_of(data_folder, *parts):
    place = data_folder.joinpath("histology_st", *parts)
    if not place.exists():
        pytest.skip(f"{place} is not there")
    return place


@pytest.mark.parametrize("section", HER2ST)
def test_a_section_of_her2st_lies_on_an_array_of_200_micrometres(data_folder, section):
    sample = load(part_of(data_folder, "her2st", "counts", f"{section}.tsv.gz"))
    adata = sample.data
    assert adata.n_obs == HER2ST[section]
    assert adata.n_vars > 14_000
    assert adata.X.sum() > 1e5
    fit = fitted_grid(
        adata.obs["array_row"], adata.obs["array_col"], adata.obsm["spatial"], "st"
    )
    assert not fit.is_mirrored
    assert abs(fit.rotation_deg) < 1
    # Spots were found in the picture, so they lie near, not on, the array.
    assert np.percentile(fit.residual_um, 95) < 30
    assert 0.65 < microns_per_pixel(adata) < 0.95


def test_labels_of_the_pathologist_lie_at_the_spots(data_folder):
    """They state places on the array, x first; their pixels are of other pictures."""
    sample = load(part_of(data_folder, "her2st", "counts", "B1.tsv.gz"))
    labels = pd.read_csv(sample.companions["labels"], sep="\t").dropna()
    places = labels[["x", "y"]].round().astype(int)
    names = [f"{x}x{y}" for x, y in places.to_numpy()]
    assert sample.data.obs_names.isin(names).mean() > 0.98
    turned = [f"{y}x{x}" for x, y in places.to_numpy()]
    assert sample.data.obs_names.isin(turned).mean() < 0.9


def test_spots_lie_on_the_tissue_of_their_picture_and_shifted_ones_do_not(data_folder):
    """The picture is masked to its tissue: black elsewhere."""
    adata = load(part_of(data_folder, "her2st", "counts", "A1.tsv.gz")).data
    slide = histology.load(
        part_of(data_folder, "her2st", "images", "A1_2000px.jpg"),
        microns_per_pixel=microns_per_pixel(adata),
        scale=2000 / 6954,
    ).data
    tissue = tissue_mask(slide)
    assert tissue.holds(adata.obsm["spatial"]).mean() > 0.99
    assert check_spots(adata, tissue, "st") == []
    for shift in ([437.0, 0.0], [0.0, -656.0]):
        moved = adata.copy()
        moved.obsm["spatial"] = moved.obsm["spatial"] + shift
        found = {one.kind: one for one in check_spots(moved, tissue, "st")}
        length = np.hypot(*shift) * microns_per_pixel(adata)
        assert found["shifted"].value == pytest.approx(length, abs=100)
    adata.obsm["spatial"] = adata.obsm["spatial"][:, ::-1].copy()
    assert "mirrored" in {one.kind for one in check_spots(adata, tissue, "st")}


def test_a_whole_slide_is_a_third_tissue(data_folder):
    pytest.importorskip("openslide")
    slide = load(part_of(data_folder, "wsi", "cmu_small_region.svs")).data
    assert 0.3 < tissue_mask(slide).mask.mean() < 0.45


def test_a_cytassist_folder_is_read_with_the_pitch_of_its_array(data_folder):
    adata = load(part_of(data_folder, "visium_cytassist")).data
    assert adata.shape == (1426, 19_465)
    library = adata.uns["spatial"]["visium_cytassist"]
    assert max(library["images"]["lowres"].shape) == 600
    fit = fitted_grid(
        adata.obs["array_row"], adata.obs["array_col"], adata.obsm["spatial"], "visium"
    )
    assert microns_per_pixel(adata) == pytest.approx(fit.microns_per_pixel)
    assert fit.residual_um.max() < 10
    # Space Ranger's diameter of a spot would make the pixel 7 % too small.
    diameter = library["scalefactors"]["spot_diameter_fullres"]
    assert microns_per_pixel(adata) == pytest.approx(4.66, abs=0.01)
    assert 65 / diameter == pytest.approx(4.34, abs=0.01)
    # The spot lies at the pixel that its row and column are in: x is the column.
    np.testing.assert_allclose(
        adata.obsm["spatial"][:, 0], adata.obs["pxl_col_in_fullres"]
    )


def test_a_whole_slide_states_the_size_of_its_pixels(data_folder):
    pytest.importorskip("openslide")
    slide = load(part_of(data_folder, "wsi", "cmu_small_region.svs")).data
    assert (slide.width, slide.height) == (2220, 2967)
    assert slide.microns_per_pixel == pytest.approx(0.499)
    whole = slide.read(0, 0, 2220, 2967)
    part = slide.read(700, 900, 64, 48)
    np.testing.assert_array_equal(part, whole[900:948, 700:764])
    small = slide.read(0, 0, 555, 741, downsample=4)
    blocks = whole[:2964].reshape(741, 4, 555, 4, 3).mean(axis=(1, 3))
    assert np.abs(small - blocks).max() <= 1.5


def test_tiles_without_a_stated_size_are_asked_for_it(data_folder):
    path = part_of(data_folder, "tiles", "high-nuclei-score-level0.png")
    with pytest.raises(ValueError, match="microns_per_pixel"):
        load(path)
    slide = histology.load(path, microns_per_pixel=0.5).data
    assert slide.read(0, 0, 32, 32).shape == (32, 32, 3)
