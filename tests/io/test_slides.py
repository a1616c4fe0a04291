"""Slides: regions, borders, sizes of pixels, and pictures that are not right."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from neuromm.core import DataError, ResourceLimitError, UsageError
from neuromm.io import histology, load, slides
from neuromm.io.slides import open_slide


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)


@pytest.fixture(params=["png", "tif"])
def picture(request, tmp_path, pixels):
    path = tmp_path / f"tissue.{request.param}"
    Image.fromarray(pixels).save(path)
    return path


def test_a_region_holds_the_pixels_of_its_place(picture, pixels):
    slide = open_slide(picture, microns_per_pixel=0.5)
    assert (slide.width, slide.height) == (80, 60)
    np.testing.assert_array_equal(slide.read(10, 20, 30, 25), pixels[20:45, 10:40])


def test_what_lies_outside_has_the_value_of_fill(picture, pixels):
    slide = open_slide(picture, microns_per_pixel=0.5)
    region = slide.read(-5, -3, 20, 10, fill=7)
    assert (region[:3] == 7).all()
    assert (region[:, :5] == 7).all()
    np.testing.assert_array_equal(region[3:, 5:], pixels[:7, :15])
    np.testing.assert_array_equal(slide.read(75, 55, 10, 10)[:5, :5], pixels[55:, 75:])
    assert (slide.read(500, 500, 4, 4) == 255).all()


def test_a_smaller_region_is_the_mean_of_its_pixels(picture, pixels):
    slide = open_slide(picture, microns_per_pixel=0.5)
    found = slide.read(0, 0, 20, 15, downsample=4.0)
    blocks = pixels.reshape(15, 4, 20, 4, 3).mean(axis=(1, 3))
    assert np.abs(found - blocks).max() <= 1  # rounding, once a direction
    assert slide.thumbnail(40).shape == (30, 40, 3)
    assert slide.thumbnail(4000).shape == (60, 80, 3)


def test_a_picture_made_smaller_keeps_the_places_of_the_whole(picture, pixels):
    slide = open_slide(picture, microns_per_pixel=0.25, scale=0.2)
    assert (slide.width, slide.height) == (400, 300)
    assert slide.downsamples == (5.0,)
    np.testing.assert_array_equal(
        slide.read(50, 100, 10, 5, downsample=5.0), pixels[20:25, 10:20]
    )
    assert slide.read(50, 100, 64, 64).shape == (64, 64, 3)


def test_pixels_are_decoded_when_they_are_first_read(picture):
    slide = open_slide(picture, microns_per_pixel=0.5)
    assert not slide.is_in_memory
    slide.read(0, 0, 1, 1)
    assert slide.is_in_memory


@pytest.mark.parametrize(
    ("size", "unit", "expected"),
    [([0.5, 0.5], "um", 0.5), ([250, 250, 3000], "nm", 0.25), (0.001, "mm", 1.0)],
)
def test_the_size_of_a_pixel_comes_from_a_sidecar_of_bids(
    tmp_path, pixels, size, unit, expected
):
    path = tmp_path / "sub-01_sample-A_BF.png"
    Image.fromarray(pixels).save(path)
    stated = {"PixelSize": size, "PixelSizeUnits": unit}
    path.with_suffix(".json").write_text(json.dumps(stated))
    sample = load(path)
    assert sample.data.microns_per_pixel == pytest.approx(expected)
    assert sample.entities["subject"] == "01"


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"PixelSize": [0.5, 0.5]}, "PixelSizeUnits must be one of"),
        ({"PixelSize": [0.5, 0.7], "PixelSizeUnits": "um"}, "one size for x and y"),
        ({"PixelSize": "small", "PixelSizeUnits": "um"}, "one size for x and y"),
        ({"PixelSize": [500, 500], "PixelSizeUnits": "um"}, "in another unit"),
    ],
)
def test_an_impossible_size_is_refused(tmp_path, pixels, stated, message):
    path = tmp_path / "tissue.png"
    Image.fromarray(pixels).save(path)
    path.with_suffix(".json").write_text(json.dumps(stated))
    with pytest.raises(DataError, match=message):
        histology.load(path)


def test_an_unknown_size_says_how_to_give_it(picture):
    with pytest.raises(UsageError, match="microns_per_pixel"):
        histology.load(picture)
    with pytest.raises(UsageError, match=r"known: \.svs"):
        open_slide(picture.with_suffix(".bmp"), microns_per_pixel=1.0)
    with pytest.raises(UsageError, match="scale must be"):
        open_slide(picture, microns_per_pixel=1.0, scale=3.0)


@pytest.mark.parametrize("share", [0.3, 0.95])
def test_a_cut_picture_is_refused_when_it_is_opened(picture, share):
    content = picture.read_bytes()
    picture.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError, match="tissue"):
        open_slide(picture, microns_per_pixel=0.5)


def test_a_picture_too_large_to_decode_says_what_to_do(tmp_path, pixels, monkeypatch):
    monkeypatch.setattr(slides, "_LARGEST_PICTURE", 1000)
    path = tmp_path / "large.png"
    Image.fromarray(pixels).save(path)
    with pytest.raises(ResourceLimitError, match="tiled TIFF"):
        open_slide(path, microns_per_pixel=0.5)


def test_a_whole_slide_without_openslide_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openslide", None)
    path = tmp_path / "slide.svs"
    path.write_bytes(b"x" * 100)
    with pytest.raises(ImportError, match=r"neuromm\[wsi\]"):
        open_slide(path)


def test_what_is_no_slide_is_refused(tmp_path):
    pytest.importorskip("openslide")
    path = tmp_path / "slide.svs"
    path.write_bytes(b"x" * 100)
    with pytest.raises(DataError, match=r"slide\.svs"):
        open_slide(path)
