"""Backbones from folders agree with transformers, and open nothing unsafe."""

import json

import numpy as np
import pytest

from neuromm.core import DataError, InputMissingError, UsageError
from neuromm.features import (
    Backbone,
    LayeredBackbone,
    LayerReading,
    WordInContext,
    load_backbone,
)

pytest.importorskip("transformers", reason="needs transformers (extra hf)")

import torch
import transformers

from tests.features.tiny_models import (
    pictures,
    save_bert,
    save_clip,
    save_vit,
    tiny_tokenizer,
)

TEXTS = ["the cat sat on the mat", "a dog", "running dogs walked on the river bank"]
# Padding to another length changes the order of float32 sums: a few units of rounding.
ROUNDING = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture
def bert(tmp_path):
    return save_bert(tmp_path / "bert")


@pytest.fixture
def vit(tmp_path):
    return save_vit(tmp_path / "vit")


@pytest.fixture
def clip(tmp_path):
    return save_clip(tmp_path / "clip")


def hidden_states(folder, text):
    """Hidden states of one text alone, by transformers itself."""
    model = transformers.AutoModel.from_pretrained(folder).eval()
    encoded = tiny_tokenizer()(text, return_tensors="pt")
    with torch.no_grad():
        return model(**encoded, output_hidden_states=True).hidden_states


@pytest.mark.parametrize("layer", [0, 1, 2, -1])
@pytest.mark.parametrize("pooling", ["mean", "first", "last"])
def test_texts_are_embedded_as_transformers_embeds_each_alone(bert, layer, pooling):
    pool = {
        "mean": lambda states: states.mean(axis=0),
        "first": lambda states: states[0],
        "last": lambda states: states[-1],
    }[pooling]
    expected = [pool(hidden_states(bert, text)[layer][0].numpy()) for text in TEXTS]
    backbone = load_backbone(bert, layer=layer, pooling=pooling, batch_size=2)
    np.testing.assert_allclose(backbone.embed(TEXTS), expected, **ROUNDING)
    assert backbone.dim == 8
    assert isinstance(backbone, Backbone)
    assert isinstance(backbone, LayeredBackbone)


def test_a_word_is_the_mean_of_its_own_sub_tokens(bert):
    # [CLS] the dog ##s run ##ning [SEP]
    word = WordInContext("the dogs running", 9, 16)
    expected = hidden_states(bert, word.text)[-1][0, 4:6].mean(dim=0).numpy()
    (vector,) = load_backbone(bert).embed([word])
    np.testing.assert_allclose(vector, expected, **ROUNDING)


def test_the_same_word_differs_with_its_context(bert):
    river = WordInContext("the river bank", 10, 14)
    money = WordInContext("the money bank", 10, 14)
    one, other = load_backbone(bert).embed([river, money])
    assert np.abs(one - other).max() > 1e-2


def test_a_long_context_loses_its_beginning_and_keeps_the_word(bert):
    backbone = load_backbone(bert)
    # 16 tokens with [CLS] and [SEP] leave room for the last 14 words.
    long = "mat " * 40 + "the cat sat on the mat of the dog on a river of money"
    short = " ".join(long.split()[-14:])
    words = [WordInContext(t, len(t) - 5, len(t)) for t in (long, short)]
    one, other = backbone.embed(words)
    np.testing.assert_allclose(one, other, **ROUNDING)
    assert len(backbone.tokens([long])[0].values) == 16


@pytest.mark.parametrize("kind", ["bert", "vit", "clip"])
def test_use_changes_nothing_that_a_cache_is_keyed_by(kind, request):
    folder = request.getfixturevalue(kind)
    backbone = load_backbone(folder)
    before = dict(backbone.attrs)
    stimuli = {"text": TEXTS, "image": pictures(3)}.get(
        backbone.modality, list(zip(pictures(3), TEXTS, strict=True))
    )
    backbone.embed(stimuli)
    backbone.layers(stimuli, LayerReading(pooling="flatten"))
    assert backbone.attrs == before == load_backbone(folder).attrs


def test_tokens_carry_the_characters_that_they_stand_for(bert):
    (states,) = load_backbone(bert).tokens(["the dogs"])
    assert states.values.shape == (5, 8)
    assert states.spans.tolist() == [[0, 0], [0, 3], [4, 7], [7, 8], [0, 0]]


def test_a_word_without_a_token_of_its_own_is_refused(bert):
    space = WordInContext("the  cat", 3, 5)
    with pytest.raises(DataError, match="has no token: leave that event out"):
        load_backbone(bert).embed([space])


def test_images_are_embedded_as_transformers_prepares_and_embeds_them(vit):
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    images = pictures(3)
    model = transformers.AutoModel.from_pretrained(vit).eval()
    pixels = ViTImageProcessorPil.from_pretrained(vit)(images, return_tensors="pt")
    with torch.no_grad():
        output = model(**pixels, output_hidden_states=True)
    states = output.hidden_states
    # After the last norm, as published vectors of patch encoders are.
    first = load_backbone(vit, batch_size=2).embed(images)
    np.testing.assert_allclose(first, output.last_hidden_state[:, 0], **ROUNDING)
    before = load_backbone(vit, layer=-1).embed(images)
    np.testing.assert_allclose(before, states[-1][:, 0], **ROUNDING)
    assert np.abs(first - before).max() > 0.1
    middle = load_backbone(vit, layer=1, pooling="mean").embed(images)
    np.testing.assert_allclose(middle, states[1].mean(dim=1), **ROUNDING)
    tokens = load_backbone(vit).tokens(images)
    assert [t.values.shape for t in tokens] == [(5, 8)] * 3  # class token, 4 patches


def test_both_towers_of_clip_agree_with_transformers(clip):
    from transformers.models.clip.image_processing_pil_clip import (
        CLIPImageProcessorPil,
    )

    images = pictures(3)
    model = transformers.CLIPModel.from_pretrained(clip).eval()
    prepared = CLIPImageProcessorPil.from_pretrained(clip)(images, return_tensors="pt")
    encoded = tiny_tokenizer()(TEXTS, return_tensors="pt", padding=True)
    encoded.pop("token_type_ids", None)
    with torch.no_grad():
        output = model(**prepared, **encoded)
    expected = {
        "image": output.image_embeds.numpy(),
        "text": output.text_embeds.numpy(),
        "joint": np.hstack([output.image_embeds, output.text_embeds]),
    }
    stimuli = {
        "image": images,
        "text": TEXTS,
        "joint": list(zip(images, TEXTS, strict=True)),
    }
    for modality, rows in expected.items():
        backbone = load_backbone(clip, modality=modality, batch_size=2)
        assert (backbone.modality, backbone.dim) == (modality, rows.shape[1])
        embedded = backbone.embed(stimuli[modality])
        np.testing.assert_allclose(embedded, rows, **ROUNDING)
    assert load_backbone(clip).modality == "joint"


def test_layers_of_both_towers_are_read_together(clip):
    pairs = list(zip(pictures(3), TEXTS, strict=True))
    layers = load_backbone(clip).layers(pairs, LayerReading())
    towers = {name.split(".")[0] for name in layers}
    assert {"vision_model", "text_model"} <= towers
    assert {len(values) for values in layers.values()} == {3}
    image = load_backbone(clip, modality="image")
    own = image.layers([pair[0] for pair in pairs], LayerReading())
    for name, values in own.items():
        np.testing.assert_allclose(values, layers[f"vision_model.{name}"], **ROUNDING)


def test_padding_changes_no_layer_of_a_text(bert):
    backbone = load_backbone(bert)
    for pooling in ("mean", "first", "last", "flatten"):
        reading = LayerReading(pooling=pooling)
        together = backbone.layers(TEXTS, reading)
        alone = backbone.layers(
            TEXTS[1:2], LayerReading(pooling=pooling, layers=tuple(together))
        )
        for name, values in alone.items():
            np.testing.assert_allclose(values[0], together[name][1], **ROUNDING)


@pytest.mark.parametrize("kind", ["bert", "vit", "clip"])
def test_a_random_twin_differs_in_its_weights_alone(kind, request):
    folder = request.getfixturevalue(kind)
    trained = load_backbone(folder)
    twin = load_backbone(folder, random=True, seed=3)
    again = load_backbone(folder, random=True, seed=3)
    other = load_backbone(folder, random=True, seed=4)
    stimuli = {"text": TEXTS, "image": pictures(3)}.get(
        trained.modality, list(zip(pictures(3), TEXTS, strict=True))
    )
    for key in ("preprocessing", "layer", "pooling"):
        assert twin.attrs[key] == trained.attrs[key]
    assert (trained.attrs["kind"], twin.attrs["kind"]) == ("trained", "random twin")
    assert twin.attrs["seed"] == 3
    digests = [b.attrs["weights_sha256"] for b in (trained, twin, again, other)]
    assert digests[1] == digests[2]
    assert len(set(digests)) == 3
    assert np.abs(twin.embed(stimuli) - trained.embed(stimuli)).max() > 1e-2
    np.testing.assert_array_equal(twin.embed(stimuli), again.embed(stimuli))
    reading = LayerReading()
    assert list(twin.layers(stimuli, reading)) == list(trained.layers(stimuli, reading))


def test_a_random_twin_leaves_the_callers_random_numbers_alone(bert):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    load_backbone(bert, random=True, seed=5)
    assert torch.equal(torch.rand(3), expected)


def test_a_pooler_that_was_never_trained_is_no_layer(tmp_path):
    from transformers import AutoConfig, BertForMaskedLM

    folder = save_bert(tmp_path / "masked")
    config = AutoConfig.from_pretrained(folder)
    BertForMaskedLM(config).save_pretrained(folder)
    for random in (False, True):
        backbone = load_backbone(folder, random=random)
        layers = backbone.layers(TEXTS, LayerReading())
        assert not [name for name in layers if "pooler" in name]


def test_pickled_weights_are_not_opened(bert):
    (bert / "model.safetensors").unlink()
    (bert / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(DataError, match=r"pytorch_model.bin and no safetensors"):
        load_backbone(bert)


def test_code_that_a_folder_brings_is_not_run(bert):
    path = bert / "config.json"
    settings = json.loads(path.read_text())
    settings["auto_map"] = {"AutoModel": "modeling_trap.Trap"}
    path.write_text(json.dumps(settings))
    (bert / "modeling_trap.py").write_text("raise SystemExit('ran')\n")
    for random in (False, True):
        with pytest.raises(UsageError, match="code of its own"):
            load_backbone(bert, random=random)


def test_weights_of_another_shape_or_damaged_weights_are_refused(bert):
    path = bert / "config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "num_hidden_layers": 3}))
    with pytest.raises(DataError, match="tensors are missing or of another shape"):
        load_backbone(bert)
    path.write_text(json.dumps(settings))
    weights = bert / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(DataError, match="no model that transformers loads"):
        load_backbone(bert)


def test_missing_files_are_named(bert, vit):
    (bert / "tokenizer.json").unlink()
    (bert / "tokenizer_config.json").unlink()
    with pytest.raises(InputMissingError, match=r"has no tokenizer\.json"):
        load_backbone(bert)
    (vit / "preprocessor_config.json").unlink()
    with pytest.raises(InputMissingError, match=r"has no preprocessor_config\.json"):
        load_backbone(vit)
    (vit / "model.safetensors").unlink()
    with pytest.raises(InputMissingError, match="the weights are missing"):
        load_backbone(vit)


def test_what_a_model_lacks_is_said(bert, clip):
    with pytest.raises(UsageError, match="holds a model of text, not of image"):
        load_backbone(bert, modality="image")
    with pytest.raises(UsageError, match="hidden states 0 to 2"):
        load_backbone(bert, layer=3)
    with pytest.raises(UsageError, match="those of one tower"):
        load_backbone(clip, layer=1)
    with pytest.raises(DataError, match=r"must be a pair \(image, text\)"):
        load_backbone(clip).embed(TEXTS)
    with pytest.raises(DataError, match="must be a str"):
        load_backbone(bert).embed(pictures(1))


def test_weights_of_half_precision_are_computed_with_in_single_precision(bert):
    model = transformers.AutoModel.from_pretrained(bert).half()
    model.save_pretrained(bert)
    expected = model.float()
    encoded = tiny_tokenizer()(TEXTS[0], return_tensors="pt")
    with torch.no_grad():
        states = expected(**encoded).last_hidden_state[0]
    (row,) = load_backbone(bert).embed(TEXTS[:1])
    np.testing.assert_allclose(row, states.mean(dim=0), **ROUNDING)


def test_texts_are_cut_at_a_stated_length(bert, vit, clip):
    backbone = load_backbone(bert, max_tokens=5)
    assert len(backbone.tokens(["the cat sat on the mat"])[0].values) == 5
    text = load_backbone(clip, modality="text", max_tokens=5)
    assert len(text.tokens(["the cat sat on the mat"])[0].values) == 5
    with pytest.raises(UsageError, match="max_tokens is of text"):
        load_backbone(vit, max_tokens=5)
    with pytest.raises(UsageError, match="max_tokens must be 3 or more"):
        load_backbone(bert, max_tokens=2)


def test_sentence_settings_of_a_folder_are_kept(bert):
    (bert / "1_Pooling").mkdir()
    path = bert / "1_Pooling" / "config.json"
    path.write_text(json.dumps({"pooling_mode_cls_token": True}))
    (bert / "sentence_bert_config.json").write_text('{"max_seq_length": 6}')
    backbone = load_backbone(bert)
    assert backbone.attrs["pooling"] == "first"
    assert len(backbone.tokens(["the cat sat on the mat"])[0].values) == 6
    path.write_text(json.dumps({"pooling_mode_weightedmean_tokens": True}))
    with pytest.raises(UsageError, match="pooling_mode_weightedmean_tokens"):
        load_backbone(bert)
