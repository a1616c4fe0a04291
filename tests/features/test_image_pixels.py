"""Images reach a network as its own tools would bring them."""

import json

import numpy as np
import pytest
from PIL import Image

from neuromm.core import DataError, InputMissingError, UsageError
from neuromm.features import ImagePreparation
from neuromm.features.image_pixels import luminance, read_pixels, read_preparation
from tests.features.tiny_models import pictures

SETTINGS = {
    "vit": {"size": {"height": 24, "width": 30}, "resample": 2},
    "clip": {
        "size": {"shortest_edge": 24},
        "crop_size": {"height": 20, "width": 22},
        "resample": 3,
    },
    "convnext": {"size": {"shortest_edge": 20}, "crop_pct": 0.875, "resample": 3},
    "convnext large": {"size": {"shortest_edge": 384}, "resample": 3},
}


@pytest.mark.parametrize("kind", SETTINGS)
@pytest.mark.parametrize("shape", [(40, 57, 3), (57, 40, 3), (24, 24, 3)])
def test_preparation_agrees_with_transformers(tmp_path, kind, shape):
    pytest.importorskip("transformers", reason="needs transformers (extra hf)")
    from transformers.models.clip.image_processing_pil_clip import (
        CLIPImageProcessorPil,
    )
    from transformers.models.convnext.image_processing_pil_convnext import (
        ConvNextImageProcessorPil,
    )
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    peer = {
        "vit": ViTImageProcessorPil,
        "clip": CLIPImageProcessorPil,
        "convnext": ConvNextImageProcessorPil,
    }[kind.split()[0]](**SETTINGS[kind])
    peer.save_pretrained(tmp_path)
    images = pictures(2, shape=shape)
    expected = peer(images, return_tensors="np")["pixel_values"]
    # float32 of values up to 3
    np.testing.assert_allclose(read_preparation(tmp_path)(images), expected, atol=1e-5)


def test_shrinking_agrees_with_the_antialiased_interpolation_of_torch():
    import torch

    smooth = np.asarray(Image.fromarray(pictures(1)[0]).resize((90, 60)))
    prepare = ImagePreparation(
        height=20, width=30, resample=2, mean=(0,) * 3, std=(1,) * 3
    )
    peer = torch.nn.functional.interpolate(
        torch.tensor(smooth / 255.0).permute(2, 0, 1)[None],
        size=(20, 30),
        mode="bilinear",
        antialias=True,
    )
    # Pillow rounds to 8 bits after each of its two passes.
    np.testing.assert_allclose(prepare([smooth])[0], peer[0], atol=1.01 / 255)


def test_settings_of_older_releases_are_understood(tmp_path):
    path = tmp_path / "preprocessor_config.json"
    old = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": 20, "resample": 2}
    path.write_text(json.dumps({**old, "feature_extractor_type": "ViT"}))
    assert read_preparation(tmp_path).height == 20
    clip = {"do_center_crop": True, "crop_size": 16, "image_processor_type": "CLIP"}
    path.write_text(json.dumps({**old, **clip}))
    prepared = read_preparation(tmp_path)
    assert (prepared.shortest_edge, prepared.crop_width) == (20, 16)
    assert prepared(pictures(1))[0].shape == (3, 16, 16)


def test_steps_that_are_not_done_are_refused(tmp_path):
    path = tmp_path / "preprocessor_config.json"
    base = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    for settings, match in (
        ({"size": 4, "do_pad": True}, "asks for do_pad"),
        ({"size": {"longest_edge": 5}}, "size must be"),
        ({"size": 4, "image_std": [1, 1]}, "must have three numbers"),
    ):
        path.write_text(json.dumps({**base, **settings}))
        with pytest.raises(UsageError, match=match):
            read_preparation(tmp_path)
    with pytest.raises(DataError, match="smaller than the crop"):
        ImagePreparation(crop_height=30, crop_width=9)(pictures(1))


def test_one_image_is_one_however_it_comes(tmp_path):
    (pixels,) = pictures(1)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    forms = (
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        Image.fromarray(pixels),
        pixels,
        pixels / 255,
        pixels.astype(np.int64),
        np.dstack([pixels, np.full(pixels.shape[:2], 9, dtype=np.uint8)]),
    )
    for form in forms:
        np.testing.assert_array_equal(read_pixels(form), pixels)
    grey = pixels[:, :, 0]
    for form in (grey, grey[:, :, None], Image.fromarray(grey)):
        np.testing.assert_array_equal(read_pixels(form), np.stack([grey] * 3, axis=2))


def test_what_is_no_image_is_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nnot an image")
    with pytest.raises(DataError, match="no readable image"):
        read_pixels(tmp_path / "a.png")
    with pytest.raises(InputMissingError, match="no image at"):
        read_pixels(tmp_path / "b.png")
    for wrong, match in (
        (np.zeros((3, 8, 8)), "Put channels last"),
        (np.full((8, 8), 7.0), "must lie between 0 and 1"),
        (np.full((8, 8), np.nan), "must lie between 0 and 1"),
        (np.full((8, 8), 300), "integers from 0 to 255"),
        (np.array([["a"]]), "integers from 0 to 255"),
    ):
        with pytest.raises(DataError, match=match):
            read_pixels(wrong)


def test_luminance_is_that_of_the_srgb_standard():
    primaries = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255] * 3, [0] * 3])
    expected = [0.2126, 0.7152, 0.0722, 1, 0]
    np.testing.assert_allclose(
        luminance(primaries.astype(np.uint8)), expected, atol=1e-12
    )
    # 188 / 255 is the code of half the light: ((0.7373 + 0.055) / 1.055)^2.4 = 0.503.
    half = luminance(np.full(3, 188, dtype=np.uint8))
    assert abs(half - ((188 / 255 + 0.055) / 1.055) ** 2.4) < 1e-12
