"""A saved model is the model, and a damaged one is told apart from it."""

import json

import numpy as np
import pytest
import torch

from neuromm.core import DataError, InputMissingError, UsageError
from neuromm.models import IntensityScaling, IVDNet, IVDNetConfig, predict_volume
from neuromm.models.checkpoint import save_model


def trained(**settings) -> IVDNet:
    torch.manual_seed(0)
    model = IVDNet(IVDNetConfig(**{"width": 2, "n_modalities": 2, **settings}))
    for seed in range(2):
        model(torch.rand(2, 2, 32, 32, generator=torch.Generator().manual_seed(seed)))
    return model.eval()


@pytest.fixture
def folder(tmp_path):
    return trained().save_pretrained(tmp_path / "model")


def test_a_loaded_model_gives_the_same_bytes(tmp_path):
    model = trained(
        fusion="late",
        scaling=IntensityScaling(percentiles=(1, 99), together=True),
    )
    model.to(memory_format=torch.channels_last)
    loaded = IVDNet.from_pretrained(model.save_pretrained(tmp_path / "model"))
    assert loaded.config == model.config
    assert not loaded.training
    x = torch.rand(1, 2, 32, 32, generator=torch.Generator().manual_seed(5))
    model.to(memory_format=torch.contiguous_format)
    assert torch.equal(loaded(x).logits, model(x).logits)


def test_the_range_of_training_comes_along(folder):
    with pytest.raises(DataError, match="trained on"):
        IVDNet.from_pretrained(folder)(65535 * torch.rand(1, 2, 32, 32))


def test_saving_twice_writes_the_same_bytes(tmp_path, folder):
    again = trained().save_pretrained(tmp_path / "again")
    for name in ("config.json", "model.safetensors"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def test_a_damaged_folder_is_told(folder):
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    with pytest.raises(DataError, match="not the weights that config"):
        IVDNet.from_pretrained(folder)
    weights.unlink()
    with pytest.raises(InputMissingError, match=r"no model\.safetensors"):
        IVDNet.from_pretrained(folder)


def test_settings_of_another_model_are_told(folder):
    path = folder / "config.json"
    content = json.loads(path.read_text())

    def write(**changes):
        path.write_text(json.dumps({**content, **changes}))

    write(model="MoRE")
    with pytest.raises(UsageError, match=r"holds MoRE.*expected IVDNet"):
        IVDNet.from_pretrained(folder)
    write(config={**content["config"], "width": 4})
    with pytest.raises(DataError, match=r"has shape \(.*expected"):
        IVDNet.from_pretrained(folder)
    write(config={**content["config"], "fusion": "early"})
    with pytest.raises(DataError, match="in the file alone"):
        IVDNet.from_pretrained(folder)
    write(config={**content["config"], "n_heads": 4})
    with pytest.raises(DataError, match="no setting 'n_heads'"):
        IVDNet.from_pretrained(folder)
    write(config={**content["config"], "width": 0})
    with pytest.raises(DataError, match="width must be at least 1"):
        IVDNet.from_pretrained(folder)


def test_a_kill_between_the_files_leaves_no_model(tmp_path, folder):
    """New weights under old settings, which is all that a kill can leave."""
    other = trained(width=3)
    save_model(other, other.config, tmp_path / "other")
    (tmp_path / "other" / "model.safetensors").replace(folder / "model.safetensors")
    with pytest.raises(DataError, match="killed process"):
        IVDNet.from_pretrained(folder)


def test_a_volume_is_its_slices_on_the_grid_it_came_in():
    model = trained()
    volume = 900 * np.random.default_rng(0).random((2, 3, 32, 32))
    told = []
    whole = predict_volume(model, volume, progress=lambda *x: told.append(x))
    assert told == [(1, 3), (2, 3), (3, 3)]
    scaled = torch.from_numpy(model.config.scaling.apply(volume))
    for index in range(3):
        expected = model(scaled[None, :, index]).probabilities[0].detach().numpy()
        # Batch normalisation is folded into float32 weights.
        np.testing.assert_allclose(whole[:, index], expected, atol=1e-5)
    odd = predict_volume(model, volume[..., :30, :19])
    assert odd.shape == (2, 3, 30, 19)
    np.testing.assert_allclose(odd.sum(axis=0), 1, rtol=1e-6)
    assert not model.training


def test_a_model_of_volumes_takes_any_volume():
    torch.manual_seed(0)
    model = IVDNet(IVDNetConfig(width=2, n_modalities=1, spatial_dims=3, n_classes=3))
    volume = np.random.default_rng(0).random((1, 5, 17, 20))
    probabilities = predict_volume(model, volume)
    assert probabilities.shape == (3, 5, 17, 20)
    assert model.training


def test_values_of_a_missing_modality_do_not_matter():
    model = trained()
    volume = np.random.default_rng(0).random((2, 2, 32, 32))
    first = predict_volume(model, volume, available=[True, False])
    volume[1] = np.nan
    np.testing.assert_array_equal(
        predict_volume(model, volume, available=[True, False]), first
    )
    with pytest.raises(UsageError, match="available must be 2 times"):
        predict_volume(model, volume, available=[False, False])
    with pytest.raises(UsageError, match=r"shape \(2, slices"):
        predict_volume(model, volume[0])
