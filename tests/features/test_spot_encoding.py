"""Spots get the vectors of their own patch and of the tiles around it."""

import anndata
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from neuromm.core import DataError, UsageError
from neuromm.features import FeatureCache, TokenStates, load_backbone
from neuromm.features.spot_encoding import spot_features
from neuromm.io import histology
from neuromm.prepare.stain import HED_VECTORS, StainFit, StainNormalised
from tests.prepare.tissue_pictures import MadeSlide


class MeanColour:
    """Mean of the three channels of a picture, and how often it was asked."""

    name, dim, modality = "mean-colour", 3, "image"

    def __init__(self, kind="stand-in"):
        self.attrs = {"model": self.name, "kind": kind}
        self.n_pictures = 0

    def embed(self, stimuli):
        self.n_pictures += len(stimuli)
        return np.stack([s.mean(axis=(0, 1)) for s in stimuli]).astype(np.float32)

    def tokens(self, stimuli):
        halves = [np.split(s, 2, axis=0) for s in stimuli]
        return [TokenStates(self.embed(parts)) for parts in halves]


def checkered(n=6, side=50):
    """A slide of n x n squares of 112 um, each of a colour of its own."""
    colours = np.stack(np.mgrid[:n, :n], axis=-1) * 40
    colours = np.concatenate([colours, np.full((n, n, 1), 7)], axis=2)
    pixels = colours.repeat(side, axis=0).repeat(side, axis=1).astype(np.uint8)
    return MadeSlide(pixels, microns_per_pixel=112 / side), colours


def section(places, side=50):
    """Spots in the middle of squares (row, column)."""
    rows, columns = np.array(places).T
    adata = anndata.AnnData(
        np.zeros((len(places), 1), dtype=np.float32),
        obs=pd.DataFrame(
            {"array_row": rows, "array_col": columns},
            index=[f"{c}x{r}" for r, c in places],
        ),
    )
    adata.obsm["spatial"] = (np.column_stack([columns, rows]) + 0.5) * side
    return adata


def test_tiles_are_the_squares_around_a_spot_row_by_row():
    slide, colours = checkered()
    places = [(2, 3), (0, 0), (5, 4)]
    found = spot_features(
        section(places), slide, MeanColour(), section="A1", patch_px=10
    )
    for spot, (row, column) in enumerate(places):
        np.testing.assert_array_equal(found.overview[spot], colours[row, column])
        for tile in range(25):
            r, c = row + tile // 5 - 2, column + tile % 5 - 2
            is_inside = 0 <= r < 6 and 0 <= c < 6
            assert found.neighbor_mask[spot, tile] == is_inside
            expected = colours[r, c] if is_inside else [0, 0, 0]
            np.testing.assert_array_equal(found.neighbors[spot, tile], expected)
    np.testing.assert_array_equal(found.target[:, 0], found.overview)
    np.testing.assert_array_equal(found.grid, places)
    assert list(found.spots) == ["3x2", "0x0", "4x5"]
    assert found.is_stand_in
    trained = spot_features(
        section(places), slide, MeanColour("trained"), section="A1", patch_px=10
    )
    assert not trained.is_stand_in


def test_tokens_are_of_the_patch_of_the_spot():
    slide, colours = checkered()
    # Half a square lower: the upper half of the patch is of one, the lower of the next.
    adata = section([(2, 3)])
    adata.obsm["spatial"] = adata.obsm["spatial"] + [0, 25]
    found = spot_features(
        adata, slide, MeanColour(), section="A1", patch_px=10, patch_tokens=True
    )
    np.testing.assert_array_equal(found.target[0], colours[2:4, 3])


def test_what_was_encoded_is_read_and_another_slide_is_not_mistaken_for_it(tmp_path):
    slide, _ = checkered()
    adata = section([(1, 1), (4, 2), (3, 3)])
    cache = FeatureCache(tmp_path / "cache", part_rows=2)

    def run(name, pixels):
        Image.fromarray(pixels).save(tmp_path / name)
        picture = histology.load(
            tmp_path / name, microns_per_pixel=slide.microns_per_pixel
        ).data
        backbone, told = MeanColour(), []
        found = spot_features(
            adata, picture, backbone, section="A1", patch_px=10, cache=cache,
            progress=lambda *step: told.append(step),
        )  # fmt: skip
        return found, backbone.n_pictures, told

    first, n_first, told = run("slide.png", slide.pixels)
    assert n_first == first.neighbor_mask.sum()
    assert told == [(1, 3), (2, 3), (3, 3)]
    again, n_again, _ = run("copy.png", slide.pixels)
    assert n_again == 0  # the same picture under another name
    np.testing.assert_array_equal(again.neighbors, first.neighbors)
    other, n_other, _ = run("slide.png", 255 - slide.pixels)
    assert n_other == n_first
    assert (other.overview != first.overview).all()
    with pytest.raises(UsageError, match="a slide that is a file"):
        spot_features(adata, slide, MeanColour(), section="A1", cache=cache)


def test_a_cache_keeps_other_stains_apart_from_those_of_the_slide(tmp_path):
    slide, _ = checkered()
    Image.fromarray(slide.pixels).save(tmp_path / "slide.png")
    picture = histology.load(
        tmp_path / "slide.png", microns_per_pixel=slide.microns_per_pixel
    ).data
    adata, cache = section([(1, 1), (4, 2)]), FeatureCache(tmp_path / "cache")
    own = StainFit(HED_VECTORS[:2], np.array([1.0, 1.0]))
    shown = [picture]
    shown += [
        StainNormalised(picture, own, StainFit(HED_VECTORS[:2], np.array(strongest)))
        for strongest in ([0.5, 1.0], [1.0, 0.5])
    ]
    found = []
    for one in shown * 2:
        backbone = MeanColour()
        features = spot_features(
            adata, one, backbone, section="A1", patch_px=10, cache=cache
        )
        found.append((features.overview, backbone.n_pictures))
    assert [n > 0 for _, n in found] == [True] * 3 + [False] * 3
    for first in range(3):
        np.testing.assert_array_equal(found[first][0], found[first + 3][0])
        assert (found[first][0] != found[(first + 1) % 3][0]).any()


def test_a_spot_outside_and_a_table_without_places_are_named():
    slide, _ = checkered()
    with pytest.raises(DataError, match=r"1 spots lie outside .* such as 9x9"):
        spot_features(
            section([(1, 1), (9, 9)]), slide, MeanColour(), section="A1", patch_px=10
        )
    bare = section([(1, 1)])
    del bare.obsm["spatial"]
    with pytest.raises(DataError, match=r'A1: has no obsm\["spatial"\]'):
        spot_features(bare, slide, MeanColour(), section="A1")
    words = load_backbone("hashed-text")
    with pytest.raises(UsageError, match="a backbone of images, got hashed-text"):
        spot_features(section([(1, 1)]), slide, words, section="A1")
