"""Hooks see every leaf once, as it was when it was computed."""

import numpy as np
import pytest
import torch
from torch import nn

from neuromm.core import DataError, UsageError
from neuromm.features import LayerReading, module_backbone, module_layers
from neuromm.features.projection import sparse_projection


class Net(nn.Module):
    """Convolution, a shared activation, pooling, dropout, a head."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.act = nn.ReLU()
        self.conv2 = nn.Conv2d(4, 5, 3)
        self.copy = nn.Identity()
        self.drop = nn.Dropout(0.5)
        self.flat = nn.Flatten()
        self.head = nn.Linear(5 * 4 * 4, 2)
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        x = self.act(self.norm(self.conv(x)))
        x = self.copy(self.act(self.conv2(x)))
        return self.head(self.flat(self.drop(x)))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net()


@pytest.fixture
def images():
    return torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_every_leaf_is_read_once_duplicates_and_dropouts_left_out(net, images):
    # `copy` and `flat` repeat the second call of `act`; `unused` is never called.
    assert list(module_layers(net, images)) == [
        "conv", "norm", "act", "conv2", "act:2", "head",
    ]  # fmt: skip


def test_activations_are_those_of_the_layers(net, images):
    net.eval()
    with torch.no_grad():
        conv = net.conv(images)
        first = torch.relu(net.norm(conv))
        second = torch.relu(net.conv2(first))
        expected = {
            "conv": conv.mean(dim=(2, 3)),
            "act": first.mean(dim=(2, 3)),
            "act:2": second.mean(dim=(2, 3)),
            "head": net.head(second.flatten(1)),
        }
    found = module_layers(net, images)
    whole = module_layers(net, images, pooling="flatten")
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values.numpy(), atol=1e-6)
    np.testing.assert_allclose(whole["act"], first.flatten(1).numpy(), atol=1e-6)


def test_layers_are_the_same_in_batches_of_any_size(net, images):
    whole = module_layers(net, images)
    for size in (1, 4, 6):
        parts = module_layers(net, images, batch_size=size)
        assert list(parts) == list(whole)
        for name, values in whole.items():
            np.testing.assert_allclose(parts[name], values, atol=1e-6)


def test_a_layer_that_writes_into_its_input_does_not_change_what_was_read(images):
    torch.manual_seed(2)
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    in_place = nn.Sequential(plain[0], nn.ReLU(inplace=True))
    for pooling in ("mean", "flatten"):
        expected = module_layers(plain, images, pooling=pooling)
        found = module_layers(in_place, images, pooling=pooling)
        assert list(found) == ["0", "1"]
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name], values)


def test_layers_that_are_equal_for_some_stimuli_alone_are_both_kept():
    # The first rows are positive, where a ReLU changes nothing.
    rows = torch.cat([torch.ones(4, 3), -torch.ones(1, 3)])
    net = nn.Sequential(nn.Identity(), nn.ReLU())
    assert list(module_layers(net, rows, batch_size=2)) == ["0", "1"]
    assert list(module_layers(net, rows[:4])) == ["0"]


def test_the_module_is_left_as_it_was(net, images):
    net.train()
    net.norm.eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    module_layers(net, images)
    assert net.training
    assert not net.norm.training
    assert net.conv.training
    assert not any(part._forward_hooks for part in net.modules())
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])


def test_hooks_are_removed_when_the_network_fails(net):
    with pytest.raises(RuntimeError):
        module_layers(net, torch.randn(2, 3, 2, 2))
    assert not any(part._forward_hooks for part in net.modules())
    assert net.training


def test_named_layers_and_blocks_are_read_and_no_others(images):
    torch.manual_seed(3)
    net = nn.Sequential(Net(), nn.Identity())
    found = module_layers(net, images, layers=["0", "0.act:2", "0.conv"])
    assert list(found) == ["0.conv", "0.act:2", "0"]  # as they are computed
    with torch.no_grad():
        expected = net.eval()[0](images).numpy()
    np.testing.assert_allclose(found["0"], expected, atol=1e-6)


def test_a_layer_that_cannot_be_read_is_named(net, images):
    with pytest.raises(UsageError, match="no layer 'conv3'; near it: conv"):
        module_layers(net, images, layers=["conv3"])
    with pytest.raises(UsageError, match="'unused' is not called"):
        module_layers(net, images, layers=["unused"])
    with pytest.raises(UsageError, match="pooling must be one of"):
        module_layers(net, images, pooling="max")
    with pytest.raises(DataError, match="x: 6, y: 5"):
        module_layers(net, {"x": images, "y": images[:5]})


class Positions(nn.Module):
    """Tokens with position embeddings that are no row a stimulus."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(10, 4)
        self.places = nn.Embedding(5, 4)
        self.norm = nn.LayerNorm(4)

    def forward(self, tokens):
        places = self.places(torch.arange(tokens.shape[1])[None])
        return self.norm(self.words(tokens) + places)


def test_embeddings_of_positions_are_no_rows_even_of_one_stimulus():
    tokens = torch.arange(10).reshape(2, 5)
    for rows in (tokens, tokens[:1]):
        assert list(module_layers(Positions(), rows)) == ["words", "norm"]
    with pytest.raises(UsageError, match="'places' gives no row a stimulus"):
        module_layers(Positions(), tokens, layers=["places"])


def test_padding_counts_for_no_pooling():
    torch.manual_seed(4)
    net = Positions()
    tokens = torch.tensor([[1, 2, 3, 0, 0], [4, 5, 6, 7, 8]])
    mask = tokens > 0
    with torch.no_grad():
        states = net(tokens)[0].numpy()
    expected = {"mean": states[:3].mean(axis=0), "last": states[2], "first": states[0]}
    for pooling, row in expected.items():
        found = module_layers(net, tokens, pooling=pooling, mask=mask)["norm"]
        np.testing.assert_allclose(found[0], row, atol=1e-6)
    flat = module_layers(net, tokens, pooling="flatten", mask=mask)["norm"][0]
    np.testing.assert_allclose(flat[:12], states[:3].ravel(), atol=1e-6)
    assert not flat[12:].any()


@pytest.mark.parametrize("channels_last", [False, True])
def test_activations_after_a_map_are_averaged_over_its_positions(channels_last):
    class Map(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 7) if channels_last else nn.Conv2d(3, 7, 1)
            self.act = nn.Tanh()

        def forward(self, x):
            return self.act(self.layer(x.movedim(1, -1) if channels_last else x))

    found = module_layers(Map(), torch.randn(2, 3, 5, 6))
    assert [values.shape for values in found.values()] == [(2, 7)] * 2


def test_attention_is_a_leaf_and_the_fast_path_hides_no_layer():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    found = module_layers(nn.TransformerEncoder(layer, 1), torch.randn(3, 4, 8))
    assert [name.removeprefix("layers.0.") for name in found] == [
        "self_attn", "norm1", "linear1", "linear2", "norm2",
    ]  # fmt: skip


def test_a_layer_is_flattened_then_projected_with_a_fixed_seed(net, images):
    whole = module_layers(net, images, pooling="flatten")
    projected = module_layers(
        net, images, pooling="flatten", projection_dim=9, seed=5, batch_size=2
    )
    assert list(projected) == list(whole)
    for name, values in projected.items():
        expected = sparse_projection(whole[name], 9, 5)
        np.testing.assert_allclose(values, expected, atol=1e-4)
    auto = module_layers(net, images, layers=["head"], projection_dim="auto")
    assert auto["head"].shape == (6, 1535)  # 4 ln 6 / (0.1^2 / 2 - 0.1^3 / 3)


def test_any_module_is_a_backbone(net, images):
    stimuli = list(images.numpy())
    backbone = module_backbone(
        net, np.stack, name="net", dim=2, preprocessing="none", batch_size=4
    )
    with torch.no_grad():
        expected = net.eval()(images).numpy()
    np.testing.assert_allclose(backbone.embed(stimuli), expected, atol=1e-6)
    middle = module_backbone(
        net, np.stack, name="net", dim=4, preprocessing="none", layer="act"
    )
    np.testing.assert_array_equal(
        middle.embed(stimuli), module_layers(net, images, batch_size=32)["act"]
    )
    body = nn.Sequential(net.conv, net.act)
    tokens = module_backbone(
        body, np.stack, name="body", dim=4, preprocessing="none"
    ).tokens(stimuli)
    assert [t.values.shape for t in tokens] == [(36, 4)] * 6
    with pytest.raises(DataError, match="one vector a stimulus and no tokens"):
        backbone.tokens(stimuli)
    wrong = module_backbone(net, np.stack, name="net", dim=3, preprocessing="none")
    with pytest.raises(DataError, match="gives 2 features, expected dim=3"):
        wrong.embed(stimuli)


def test_the_digest_tells_every_changed_weight(net):
    def digest():
        return module_backbone(
            net, np.stack, name="net", dim=2, preprocessing="none"
        ).attrs["weights_sha256"]

    before = digest()
    assert digest() == before
    with torch.no_grad():
        net.head.bias[1] += 1e-6
    assert digest() != before


def test_a_reading_says_what_it_is():
    assert LayerReading(pooling="flatten", projection_dim=50, seed=1).attrs == {
        "pooling": "flatten",
        "projection": "sparse random, 50 columns, seed 1",
    }
