"""A model is given what it was trained on, or says that it is not."""

import numpy as np
import pytest
import torch

from neuromm.core import DataError, UsageError
from neuromm.models import IntensityScaling, IVDNet, IVDNetConfig, TrainedRange

SCANNER = 1200.0


def volume(seed: int = 0, shape=(2, 4, 20, 20)) -> np.ndarray:
    return SCANNER * np.random.default_rng(seed).random(shape)


@pytest.mark.parametrize("method", ["percentiles", "zscore"])
def test_scaling_by_the_volume_ignores_the_unit_of_the_scanner(method):
    scaling = IntensityScaling(method=method)
    # Offsets of some 1e3 in float32 leave 1e-4 of the range.
    np.testing.assert_allclose(
        scaling.apply(65535 * volume() + 7), scaling.apply(volume()), atol=1e-4
    )


def test_percentiles_become_zero_and_one():
    scaled = IntensityScaling(percentiles=(10, 90)).apply(volume())
    assert scaled.min() == 0
    assert scaled.max() == 1
    for modality in scaled:
        # A tenth on each side is clipped.
        assert np.mean(modality == 0) == pytest.approx(0.1, abs=0.01)
        assert np.mean(modality == 1) == pytest.approx(0.1, abs=0.01)


def test_zscores_have_mean_zero_and_unit_variance():
    scaled = IntensityScaling(method="zscore").apply(volume())
    np.testing.assert_allclose(scaled.mean(axis=(1, 2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(scaled.std(axis=(1, 2, 3)), 1, atol=1e-5)


def test_scaling_together_keeps_the_ratio_of_modalities():
    fat = volume()[:1]
    pair = np.concatenate([fat, 3 * fat])
    pair[:, 0, 0, 0] = 0
    scaling = IntensityScaling(percentiles=(0, 100), together=True)
    scaled = scaling.apply(pair)
    np.testing.assert_allclose(scaled[1], 3 * scaled[0], rtol=1e-6)


def test_fixed_limits_are_an_affine_map_without_clipping():
    scaled = IntensityScaling(method="fixed", limits=(-100, 100)).apply(
        np.array([[-100.0, 0.0, 300.0]])
    )
    np.testing.assert_array_equal(scaled, [[0, 0.5, 2]])


def test_volumes_without_a_scale_are_refused():
    blank = volume()
    blank[1] = 5
    with pytest.raises(DataError, match=r"modality 1 .* constant"):
        IntensityScaling().apply(blank)
    blank[1, 0, 0, 0] = np.nan
    with pytest.raises(DataError, match="nan or infinite"):
        IntensityScaling().apply(blank)
    with pytest.raises(UsageError, match="percentiles"):
        IntensityScaling(percentiles=(90, 10))
    with pytest.raises(UsageError, match="method"):
        IntensityScaling(method="minmax")
    with pytest.raises(UsageError, match="limits"):
        IntensityScaling(limits=(1, 1))


def trained() -> TrainedRange:
    guard = TrainedRange(2)
    guard(torch.rand(8, 2, 6, 6, generator=torch.Generator().manual_seed(0)))
    return guard.eval()


@pytest.mark.parametrize("factor", [65535, 1 / 65535, 10, 1 / 1000])
def test_another_scaling_than_in_training_is_caught(factor):
    images = torch.rand(1, 2, 6, 6, generator=torch.Generator().manual_seed(1))
    trained()(images)
    with pytest.raises(DataError, match=r"modality 0 .* trained on"):
        trained()(factor * images)


def test_the_modality_that_is_wrong_is_named_and_missing_ones_are_not_read():
    images = torch.rand(2, 2, 6, 6, generator=torch.Generator().manual_seed(1))
    images[0, 1] = 1e6
    with pytest.raises(DataError, match="modality 1"):
        trained()(images)
    trained()(images, torch.tensor([[True, False], [True, True]]))
    trained()(images, torch.tensor([[True, False], [True, False]]))
    images[0, 1] = torch.nan
    with pytest.raises(DataError, match=r"modality 1 .* nan or infinite"):
        trained()(images)


def test_padding_and_noise_are_within_the_range():
    trained()(torch.zeros(1, 2, 6, 6))
    trained()(0.03 * torch.rand(1, 2, 6, 6))


def test_the_range_is_that_of_all_training_batches_and_nothing_is_held_to_it_before():
    guard = TrainedRange(1)
    guard.eval()(torch.full((1, 1, 4), 1e9))
    guard.train()
    guard(torch.tensor([[[0.0, 1.0]]]))
    guard(torch.tensor([[[-3.0, 0.5]]]))
    assert (float(guard.low), float(guard.high)) == (-3.0, 1.0)


def test_the_mismatch_of_the_released_code_is_caught_by_the_network():
    """It trained on 16-bit values and divided them by 65535 at the end."""
    torch.manual_seed(0)
    model = IVDNet(IVDNetConfig(width=2, n_modalities=2))
    raw = torch.from_numpy(volume(shape=(2, 2, 16, 16))).float()
    model(raw)
    model.eval()
    model(raw)
    with pytest.raises(DataError, match="Scale the images as in training"):
        model(raw / 65535)
    # Guard or not, it matters: the same network, asked without it, says other things.
    model.trained_range = TrainedRange(2).eval()
    changed = model(raw / 65535).labels != model(raw).labels
    assert changed.any()
