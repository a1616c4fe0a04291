"""What every published model keeps to, found by its ``CARD``.

A new model needs a case below, its settings made small, and nothing else here.
"""

import dataclasses
import importlib
import json
import pkgutil

import pytest
import torch

import neuromm.models
from neuromm.core import InputMissingError
from neuromm.models import ModelCard
from neuromm.models.checkpoint import config_from_json

# Settings of a small model, and what it is called with, or the shapes of it.
CASES = {
    "IVDNet": ({"width": 2, "n_modalities": 2}, [(2, 2, 32, 32)]),
    "GeneDML": (
        {
            "n_features": 8, "n_genes": 5, "dim": 6, "n_tiles": 3, "head_width": 7,
            "neighbor_depth": 1, "neighbor_heads": 2, "neighbor_mlp": 9,
            "global_depth": 2, "global_heads": 4, "global_mlp": 9, "fusion_mlp": 9,
        },
        [
            (4, 3, 8),
            (4, 9, 8),
            (4, 8),
            torch.tensor([[3, 1], [3, 2], [4, 1], [6, 6]]),
            (4, 5),
        ],
    ),
    "TRIPLEX": (
        {
            "n_features": 8, "n_genes": 5, "dim": 8, "n_tiles": 3, "neighbor_heads": 2,
            "global_heads": 2, "fusion_heads": 2,
        },
        [(4, 3, 8), (4, 9, 8), (4, 8), torch.tensor([[3, 1], [3, 2], [4, 1], [6, 6]])],
    ),
}  # fmt: skip


def cards() -> dict[str, ModelCard]:
    found = {}
    for info in pkgutil.walk_packages(neuromm.models.__path__, "neuromm.models."):
        card = getattr(importlib.import_module(info.name), "CARD", None)
        if card is not None:
            found[card.name] = card
    return found


CARDS = cards()


def made(name: str) -> tuple[torch.nn.Module, list[torch.Tensor]]:
    settings, shapes = CASES[name]
    torch.manual_seed(0)
    config = getattr(neuromm.models, f"{name}Config")(**settings)
    inputs = [s if isinstance(s, torch.Tensor) else torch.rand(s) for s in shapes]
    return getattr(neuromm.models, name)(config), inputs


def test_every_model_has_a_case():
    assert set(CASES) == set(CARDS)


@pytest.mark.parametrize("name", CARDS)
def test_the_card_says_what_the_model_is_and_is_not(name):
    card = CARDS[name]
    for field in dataclasses.fields(card):
        assert getattr(card, field.name), field.name
    assert any("not a medical device" in limit for limit in card.limits)


@pytest.mark.parametrize("name", CARDS)
def test_settings_are_frozen_and_survive_json(name):
    model, _ = made(name)
    config = model.config
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config, dataclasses.fields(config)[0].name, None)
    assert not hasattr(config, "__dict__")  # slots: no setting is made by a typo
    read = json.loads(json.dumps(dataclasses.asdict(config)))
    assert config_from_json(type(config), read) == config


@pytest.mark.parametrize("name", CARDS)
def test_the_output_is_named_and_its_gradients_reach_the_weights(name):
    model, inputs = made(name)
    output = model(*inputs)
    assert hasattr(output, "_fields") or dataclasses.is_dataclass(output)
    values = output._asdict() if hasattr(output, "_fields") else vars(output)
    sum(value.square().sum() for value in values.values()).backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name


@pytest.mark.parametrize("name", CARDS)
def test_a_saved_model_is_the_model(name, tmp_path):
    model, inputs = made(name)
    model(*inputs)
    model.eval()
    folder = model.save_pretrained(tmp_path / "model")
    assert {path.suffix for path in folder.iterdir()} == {".json", ".safetensors"}
    read = type(model).from_pretrained(folder)
    assert read.config == model.config
    for ours, theirs in zip(model(*inputs), read(*inputs), strict=True):
        assert torch.equal(ours, theirs)
    with pytest.raises(InputMissingError, match="save_pretrained"):
        type(model).from_pretrained(tmp_path / "nowhere")


@pytest.mark.parametrize("name", CARDS)
def test_a_model_changes_neither_its_input_nor_in_evaluation_itself(name):
    model, inputs = made(name)
    model(*inputs)
    model.eval()
    copies = [value.clone() for value in inputs]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    first = model(*inputs)
    second = model(*inputs)
    for a, b in zip(inputs, copies, strict=True):
        assert torch.equal(a, b)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)
