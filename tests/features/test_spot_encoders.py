"""Encoders of the shape of UNI and UNI2-h take spots: their widths, their tokens.

The widths are the real ones, with one layer of random weights instead of 24 of trained.
"""

import json

import numpy as np
import pytest
import torch

from neuromm.core import DataError
from neuromm.features import (
    ImagePreparation,
    load_backbone,
    module_backbone,
    spot_features,
)
from tests.features.test_spot_encoding import checkered, section

PLACES = [(2, 3), (4, 1)]


def save_uni(folder):
    """ViT-L/16 at 224 pixels, 1024 wide."""
    transformers = pytest.importorskip("transformers", reason="needs the extra hf")
    torch.manual_seed(0)
    config = transformers.Dinov2Config(
        hidden_size=1024,
        num_hidden_layers=1,
        num_attention_heads=16,
        image_size=224,
        patch_size=16,
    )
    return save(transformers.Dinov2Model(config), folder)


def save_uni2(folder):
    """ViT-H/14 at 224 pixels, 1536 wide, with 8 registers and gated units."""
    transformers = pytest.importorskip("transformers", reason="needs the extra hf")
    torch.manual_seed(0)
    config = transformers.Dinov2WithRegistersConfig(
        hidden_size=1536,
        num_hidden_layers=1,
        num_attention_heads=24,
        image_size=224,
        patch_size=14,
        num_register_tokens=8,
        use_swiglu_ffn=True,
    )
    return save(transformers.Dinov2WithRegistersModel(config), folder)


def save(model, folder):
    model.save_pretrained(folder)
    settings = {
        "do_resize": True, "size": {"height": 224, "width": 224}, "resample": 3,
        "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
        "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225],
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize(
    ("save_model", "n_tokens", "n_features"),
    [(save_uni, 1 + 14**2, 1024), (save_uni2, 1 + 8 + 16**2, 1536)],
)
def test_a_spot_has_the_tokens_of_uni_and_the_first_is_of_the_class(
    tmp_path, save_model, n_tokens, n_features
):
    slide, _ = checkered()
    backbone = load_backbone(save_model(tmp_path / "uni"))
    found = spot_features(
        section(PLACES), slide, backbone, section="A1", n_tiles=1, patch_tokens=True
    )
    assert found.target.shape == (2, n_tokens, n_features)
    assert found.overview.shape == (2, n_features)
    assert found.neighbors.shape == (2, 1, n_features)
    np.testing.assert_allclose(found.target[:, 0], found.overview, atol=1e-5)
    # Two colours: an encoder that sees nothing would give one vector.
    assert np.abs(found.overview[0] - found.overview[1]).max() > 1e-3
    assert (found.encoder, found.is_stand_in) == ("uni", False)


class LikeTimm(torch.nn.Module):
    """Tokens by forward_features, the class token by forward, as timm has it."""

    def __init__(self):
        super().__init__()
        self.patches = torch.nn.Conv2d(3, 1024, 16, 16)
        self.cls_token = torch.nn.Parameter(torch.randn(1, 1, 1024))
        self.norm = torch.nn.LayerNorm(1024)

    def forward_features(self, pixels):
        patches = self.patches(pixels).flatten(2).mT
        mean = patches.mean(dim=1, keepdim=True)
        return self.norm(torch.cat([self.cls_token + mean, patches], dim=1))

    def forward(self, pixels):
        return self.forward_features(pixels)[:, 0]


class Tokens(torch.nn.Module):
    """All tokens of a network of timm."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, pixels):
        return self.net.forward_features(pixels)


def test_a_network_of_timm_gives_tokens_and_the_vector_of_its_own_forward():
    slide, _ = checkered()
    torch.manual_seed(0)
    net, prepare = LikeTimm().eval(), ImagePreparation(height=224, width=224)
    uni = module_backbone(
        Tokens(net), prepare, name="uni", dim=1024, pooling="first",
        preprocessing=prepare.description,
    )  # fmt: skip
    found = spot_features(
        section(PLACES), slide, uni, section="A1", n_tiles=1, patch_tokens=True
    )
    assert found.target.shape == (2, 197, 1024)
    tiles = [slide.read(c * 50, r * 50, 50, 50) for r, c in PLACES]
    with torch.no_grad():
        expected = net(torch.from_numpy(prepare(tiles))).numpy()
    # A square of one colour is the same however it is made larger.
    np.testing.assert_allclose(found.overview, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.target[:, 0], expected, rtol=1e-4, atol=1e-5)


def test_weights_that_timm_pickled_are_refused_with_a_way_out(tmp_path):
    """As UNI is distributed: a configuration of timm, and a pickle."""
    pytest.importorskip("transformers", reason="needs the extra hf")
    (tmp_path / "config.json").write_text('{"architecture": "vit_large_patch16_224"}')
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02")
    with pytest.raises(DataError, match=r"holds pytorch_model\.bin and no safetensors"):
        load_backbone(tmp_path)
