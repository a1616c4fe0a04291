"""Doubt is where the passes say it is, and nothing of the model is changed."""

import numpy as np
import pytest
import torch
from scipy.special import entr
from scipy.stats import norm
from sklearn.metrics import roc_auc_score
from torch import nn

from neuromm.core import UsageError
from neuromm.models import (
    IVDNet,
    IVDNetConfig,
    IVDNetOutput,
    predict_volume,
    predict_with_uncertainty,
)
from neuromm.models.intensity import IntensityScaling

RAW = IntensityScaling(method="fixed")  # 0 and 1 stay what they are


class Planted(nn.Module):
    """Logit of disc = a function of the intensity, and of the place if asked for."""

    def __init__(self, *, slope=1.0, spatial_dims=2, by_column=False, dropout=0.0):
        super().__init__()
        self.config = IVDNetConfig(
            n_modalities=1, width=1, spatial_dims=spatial_dims, scaling=RAW
        )
        self.slope = nn.Parameter(torch.tensor(float(slope)))
        self.by_column = by_column
        self.drop = nn.Dropout(dropout)

    def forward(self, images, available):
        values = images[:, :1]
        if self.by_column:
            values = torch.arange(images.shape[-1]).expand_as(values) / 4 - 2
        logit = self.slope * self.drop(values)
        return IVDNetOutput(torch.cat([torch.zeros_like(logit), logit], dim=1))


def logistic(x):
    return 1 / (1 + np.exp(-x))


def share(p):
    """Entropy of disc or not, as a part of that of one half."""
    return (entr(p) + entr(1 - p)) / np.log(2)


def volume(*shape, seed=0):
    return np.random.default_rng(seed).normal(0, 2, (1, *shape)).astype(np.float32)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_passes_that_agree_leave_the_entropy_of_one(spatial_dims):
    images = volume(3, 16, 32)
    model = Planted(slope=1.5, spatial_dims=spatial_dims)
    found = predict_with_uncertainty(model, images)
    assert found.n_passes == 2**spatial_dims
    stated = logistic(1.5 * images[0].astype(float))
    # float32, through a softmax.
    np.testing.assert_allclose(found.probabilities[1], stated, atol=1e-6)
    np.testing.assert_allclose(found.probabilities.sum(axis=0), 1, atol=1e-6)
    np.testing.assert_allclose(found.uncertainty, share(stated), atol=1e-5)
    np.testing.assert_allclose(found.disagreement, 0, atol=1e-6)
    np.testing.assert_array_equal(found.labels, images[0] > 0)
    np.testing.assert_allclose(
        found.probabilities, predict_volume(model, images), atol=1e-6
    )


def test_passes_that_differ_are_averaged_and_their_disagreement_is_told():
    images = np.zeros((1, 2, 16, 16), dtype=np.float32)
    found = predict_with_uncertainty(Planted(by_column=True), images, flips=(2,))
    assert found.n_passes == 2
    one = logistic(np.arange(16) / 4 - 2)
    other = one[::-1]
    mean = (one + other) / 2
    doubt = share(mean)
    expected = doubt - (share(one) + share(other)) / 2  # mutual information
    shape = found.uncertainty.shape
    np.testing.assert_allclose(
        found.probabilities[1], np.broadcast_to(mean, shape), atol=1e-6
    )
    np.testing.assert_allclose(
        found.uncertainty, np.broadcast_to(doubt, shape), atol=1e-5
    )
    np.testing.assert_allclose(
        found.disagreement, np.broadcast_to(expected, shape), atol=1e-5
    )
    # Along another axis the model sees no difference.
    across = predict_with_uncertainty(Planted(by_column=True), images, flips=(1,))
    np.testing.assert_allclose(across.disagreement, 0, atol=1e-6)


def test_uncertainty_is_one_where_nothing_is_known_and_zero_where_all_is():
    images = np.full((1, 1, 16, 16), 0.0, dtype=np.float32)
    images[..., 8:] = 200
    doubt = predict_with_uncertainty(Planted(), images).uncertainty
    np.testing.assert_allclose(doubt[..., :8], 1, atol=1e-6)
    np.testing.assert_array_equal(doubt[..., 8:], 0)


def test_wrong_voxels_are_more_uncertain_than_right_ones():
    """A classifier that knows the noise: intensity = +-1 and noise of unit variance."""
    rng = np.random.default_rng(0)
    truth = rng.random((4, 32, 32)) < 0.5
    images = np.where(truth, 1.0, -1.0)[None] + rng.standard_normal((1, *truth.shape))
    # The likelihood ratio of the two classes is exp(2 x).
    found = predict_with_uncertainty(Planted(slope=2.0), images.astype(np.float32))
    wrong = (found.labels != truth).ravel()
    area = roc_auc_score(wrong, found.uncertainty.ravel())
    # Distance from the border of the classes, given that the answer is wrong or right.
    step = 0.001
    far = np.arange(step / 2, 8, step)
    far_wrong, far_right = (norm.pdf(far + side) for side in (1, -1))
    share_wrong = far_wrong.sum() * step
    expected = (np.cumsum(far_wrong) * far_right).sum() * step**2
    expected /= share_wrong * (1 - share_wrong)
    # Four standard errors, of 650 wrong and 3400 right voxels.
    assert wrong.mean() == pytest.approx(share_wrong, abs=0.025)
    assert area == pytest.approx(expected, abs=0.04)
    assert expected > 0.75


def test_dropped_units_add_disagreement_and_repeat_with_their_seed():
    images = np.full((1, 2, 16, 16), 2.0, dtype=np.float32)
    model = Planted(dropout=0.5)
    first = predict_with_uncertainty(model, images, flips=False, n_dropout=8, rng=3)
    again = predict_with_uncertainty(model, images, flips=False, n_dropout=8, rng=3)
    other = predict_with_uncertainty(model, images, flips=False, n_dropout=8, rng=4)
    assert first.n_passes == 8
    np.testing.assert_array_equal(first.probabilities, again.probabilities)
    assert (first.probabilities != other.probabilities).any()
    # A voxel is kept, and doubled, or dropped: 0.982 or 0.5 at odds of one half.
    assert first.probabilities[1].mean() == pytest.approx(
        (logistic(4) + 0.5) / 2, abs=0.02
    )
    assert first.disagreement.mean() > 0.1
    both = predict_with_uncertainty(model, images, n_dropout=2)
    assert both.n_passes == 8


def test_neither_the_model_nor_the_random_numbers_of_others_are_changed():
    model = Planted(dropout=0.5).train()
    before = torch.get_rng_state()
    predict_with_uncertainty(model, volume(2, 16, 16), n_dropout=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    assert model.drop.training
    assert predict_volume(model.eval(), volume(2, 16, 16)).shape == (2, 2, 16, 16)


def test_a_network_without_dropped_units_says_so():
    torch.manual_seed(0)
    model = IVDNet(IVDNetConfig(n_modalities=1, width=1)).eval()
    images = volume(2, 16, 16)
    with pytest.raises(UsageError, match=r"drops no units.*dropout=0\.1.*n_dropout=0"):
        predict_with_uncertainty(model, images, n_dropout=4)
    model = IVDNet(IVDNetConfig(n_modalities=1, width=4, dropout=0.5)).eval()
    found = predict_with_uncertainty(model, images, flips=False, n_dropout=4)
    assert found.disagreement.max() > 0
    # In evaluation nothing is dropped.
    plain = predict_with_uncertainty(model, images, flips=False)
    np.testing.assert_array_equal(plain.probabilities, predict_volume(model, images))


@pytest.mark.parametrize("flips", [(0,), (3,), (1, 1)])
def test_axes_that_a_network_does_not_look_along_are_refused(flips):
    with pytest.raises(UsageError, match="flips must be axes"):
        predict_with_uncertainty(Planted(), volume(2, 16, 16), flips=flips)
    with pytest.raises(UsageError, match="n_dropout must be 0 or more"):
        predict_with_uncertainty(Planted(), volume(2, 16, 16), n_dropout=-1)
