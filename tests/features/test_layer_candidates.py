"""Hidden states side by side in one table, and apart again at the samples."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from neuromm.core import DataError, UsageError
from neuromm.features import (
    FeatureCache,
    event_features,
    feature_table,
    layer_candidates,
    load_backbone,
    read_features,
    split_candidates,
    stimulus_features,
    text_rows,
    volume_features,
    word_rows,
    write_features,
)
from tests.features.tiny_models import save_bert, save_vit

TEXTS = {"a.txt": "the cat sat on the mat", "b.txt": "a dog run", "c.txt": "the bank"}


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    pytest.importorskip("transformers")
    return save_bert(tmp_path_factory.mktemp("models") / "bert")


def test_each_hidden_state_is_that_of_the_backbone_of_that_layer(bert):
    words = pd.DataFrame(
        {"onset": np.arange(6.0), "word": ["the", "cat", "sat", "on", "the", "mat"]}
    )
    several = layer_candidates(load_backbone(bert, layer=-1), [2, 0])
    for rows in (text_rows(TEXTS), word_rows(words, context=3)):
        table = stimulus_features(several, rows, name="language")
        for layer, own in ((2, slice(0, 8)), (0, slice(8, 16))):
            alone = stimulus_features(load_backbone(bert, layer=layer), rows, name="x")
            np.testing.assert_array_equal(table.values[:, own], alone.values)
    assert table.columns[0] == "layer2/0"
    assert table.columns[-1] == "layer0/7"


def test_maps_of_different_widths_are_candidates_of_their_own_width(tmp_path):
    pytest.importorskip("transformers")
    vit = load_backbone(save_vit(tmp_path / "vit"), layer=-1)
    several = layer_candidates(vit)
    assert vit.state_dims == (8, 8, 8)
    assert several.dim == 24
    image = Image.new("RGB", (20, 20), "red")
    np.testing.assert_array_equal(several.embed([image])[:, 16:], vit.embed([image]))


def test_blocks_of_a_convolutional_network_are_its_hidden_states():
    several = layer_candidates(load_backbone("efficientnet-lite0", random=True))
    assert several.dim == sum(several.inner.state_dims)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 80, 3), dtype=np.uint8)
    values = several.embed(list(pixels))
    starts = np.cumsum([0, *several.inner.state_dims])
    for layer in (0, 1, 8, 16, 17):
        alone = load_backbone("efficientnet-lite0", random=True, layer=layer)
        own = slice(starts[layer], starts[layer + 1])
        np.testing.assert_allclose(
            values[:, own], alone.embed(list(pixels)), rtol=1e-5, atol=1e-6
        )
    assert load_backbone("efficientnet-lite0", random=True).attrs["layer"] == "output"
    with pytest.raises(UsageError, match="hidden states 0 to 17"):
        load_backbone("efficientnet-lite0", random=True, layer=18)
    with pytest.raises(UsageError, match="no token"):
        load_backbone("efficientnet-lite0", random=True, pooling="first")


def test_candidates_survive_files_delays_and_runs(tmp_path, bert):
    several = layer_candidates(load_backbone(bert, layer=-1))
    rows = text_rows(TEXTS)
    table = stimulus_features(several, rows, name="language")
    table = read_features(write_features(tmp_path / "language.npz", table))
    events = pd.DataFrame(
        {"onset": [0.0, 4.0, 8.0], "duration": 1.0, "stim_file": list(TEXTS)}
    )
    apart = split_candidates(event_features(table, events))
    assert list(apart) == ["layer0", "layer1", "layer2"]
    np.testing.assert_array_equal(apart["layer1"], table.values[:, 8:16])
    times = (np.arange(8) + 0.5) * 2.0
    delayed = volume_features(table, events, times, hrf="fir", delays=(1, 2))
    one = split_candidates(delayed)["layer2"]
    assert one.sizes == {"sample": 8, "feature": 16}
    assert list(one["feature"].to_numpy()[[0, 8]]) == ["0@1", "0@2"]
    lone = feature_table(
        table.values[:, 16:], stim_file=list(TEXTS), columns=list("abcdefgh")
    )
    expected = volume_features(lone, events, times, hrf="fir", delays=(1, 2))
    np.testing.assert_array_equal(one, expected)


def test_the_cache_tells_candidates_from_one_layer(tmp_path, bert):
    cache = FeatureCache(tmp_path / "cache")
    last = load_backbone(bert, layer=-1)
    rows = text_rows(TEXTS)
    alone = stimulus_features(last, rows, name="x", cache=cache)
    for _ in range(2):
        table = stimulus_features(
            layer_candidates(last, [1, 2]), rows, name="x", cache=cache
        )
        np.testing.assert_array_equal(table.values[:, 8:], alone.values)


def test_a_table_without_candidates_is_handed_back():
    table = feature_table(np.eye(2), stim_file=["a", "b"])
    events = pd.DataFrame({"onset": [0.0, 1.0], "duration": 1, "stim_file": ["a", "b"]})
    matrix = event_features(table, events)
    assert split_candidates(matrix) is matrix


@pytest.mark.parametrize(
    ("told", "columns", "match"),
    [
        ("layer1:1 layer2:1", ["layer1/0", "layer3/0"], "got layer3/0"),
        ("layer1:1 layer2:1", ["layer1/0", "layer1/1"], "columns do not fit"),
        ("layer1:1 layer1:1", ["layer1/0", "layer1/1"], "such as 'layer4:768"),
        ("first", ["first/0", "first/1"], "got 'first'"),
    ],
)
def test_columns_that_contradict_the_candidates_are_told(told, columns, match):
    table = feature_table(
        np.eye(2), stim_file=["a", "b"], columns=columns, attrs={"candidates": told}
    )
    events = pd.DataFrame({"onset": [0.0, 1.0], "duration": 1, "stim_file": ["a", "b"]})
    with pytest.raises(DataError, match=match):
        split_candidates(event_features(table, events))


def test_what_has_no_layers_to_choose_among_is_refused(bert):
    with pytest.raises(UsageError, match="no hidden states to choose among"):
        layer_candidates(load_backbone("hashed-text"))
    last = load_backbone(bert, layer=-1)
    with pytest.raises(UsageError, match="hidden states 0 to 2"):
        layer_candidates(last, [3])
    with pytest.raises(UsageError, match="each once"):
        layer_candidates(last, [2, -1])
    with pytest.raises(UsageError, match="mixes the columns"):
        stimulus_features(
            layer_candidates(last), text_rows(TEXTS), name="x", projection_dim=4
        )
    with pytest.raises(UsageError, match="layer=N"):
        layer_candidates(last).tokens(["the cat"])
