"""In-batch k-means against scikit-learn, and the group loss against its formula."""

import math

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from torch.nn.functional import cross_entropy, normalize

from neuromm.kernels.batch_kmeans import (
    balanced_groups,
    batch_kmeans,
    plain_kmeans,
    spectral_groups,
)
from neuromm.losses.group_discrimination import InstanceGroup, instance_group

METHODS = ("kmeans", "spectral", "sinkhorn")


def _rows(n_samples, width=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n_samples, width, generator=generator, dtype=torch.float64)


def _blobs(n_groups=4, repeats=10, width=16, noise=0.1):
    """Rows around orthogonal directions, one of each group after the other."""
    truth = torch.arange(n_groups).repeat(repeats)
    centre = torch.eye(n_groups, width, dtype=torch.float64)[truth]
    return normalize(centre + noise * _rows(len(truth), width)), truth


@pytest.mark.parametrize("n_samples", [1, 2, 31, 32, 33, 127])
def test_products_find_the_groups_of_distance_by_distance(n_samples):
    rows = _rows(n_samples)
    n_groups = min(5, n_samples)
    labels, centres = batch_kmeans(rows, rows[:n_groups])
    plain_labels, plain_centres = plain_kmeans(rows, rows[:n_groups])
    assert torch.equal(labels, plain_labels)
    torch.testing.assert_close(centres, plain_centres, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_kmeans_agrees_with_scikit_learn(seed):
    rows = _rows(200, seed=seed)
    peer = KMeans(
        6, init=rows[:6].numpy(), n_init=1, algorithm="lloyd", max_iter=10, tol=0
    ).fit(rows.numpy())
    _, centres = batch_kmeans(rows, rows[:6])
    np.testing.assert_allclose(centres, peer.cluster_centers_, rtol=1e-10)
    # Its labels are those of one assignment more, to the final centres.
    nearest = torch.cdist(rows, centres).argmin(1)
    np.testing.assert_array_equal(nearest, peer.labels_)


def test_an_empty_group_keeps_a_zero_centre():
    rows = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    labels, centres = batch_kmeans(rows, rows)
    assert labels.tolist() == [0, 0, 2]
    assert centres.tolist() == [[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]


def test_planted_groups_are_found_by_each_method():
    rows, truth = _blobs()
    found = {
        "kmeans": batch_kmeans(rows, rows[:4])[0],
        "spectral": spectral_groups(rows, 4),
        "sinkhorn": balanced_groups(rows, rows[:4]),
    }
    for method, labels in found.items():
        assert torch.equal(labels, truth), method


def test_spectral_groups_join_opposite_rows():
    rows, truth = _blobs(2)
    sign = torch.ones(len(rows), 1, dtype=rows.dtype)
    sign[4::3] = -1
    assert torch.equal(spectral_groups(sign * rows, 2), truth)


def test_sinkhorn_balances_groups_that_kmeans_does_not():
    # Nine tenths of the rows lie about one direction.
    rows = _rows(200, 16)
    rows[20:, 0] += 4
    rows = normalize(rows)
    sizes = batch_kmeans(rows, rows[:4])[0].bincount(minlength=4)
    balanced = balanced_groups(rows, rows[:4]).bincount(minlength=4)
    assert balanced.double().std() < sizes.double().std() / 2


def _plain_loss(image, gene, n_groups, tau, instances=None, normalise=True):
    """K-means through which autograd goes, with the array of all differences."""
    u, w = normalize(image), normalize(gene)
    own_u, own_w = instances or (u, w)

    def groups(rows):
        centres = rows[:n_groups]
        for _ in range(10):
            labels = (rows[:, None] - centres[None]).square().sum(-1).argmin(1)
            total = torch.zeros_like(centres).index_add(0, labels, rows)
            count = labels.bincount(minlength=n_groups).clamp_min(1)
            centres = total / count[:, None]
        return labels, normalize(centres) if normalise else centres

    (cu, centre_u), (cw, centre_w) = groups(u), groups(w)
    image_loss = cross_entropy(own_u @ centre_w.T / tau, cw)
    return (image_loss + cross_entropy(own_w @ centre_u.T / tau, cu)) / 2


@pytest.mark.parametrize("n_samples", [4, 31, 32, 33, 127])
@pytest.mark.parametrize("normalise", [True, False])
def test_group_loss_and_gradients_are_those_of_the_formula(n_samples, normalise):
    leaves = [_rows(n_samples, seed=s).requires_grad_() for s in range(4)]
    image, gene, fused, query = leaves
    fast = instance_group(
        image, gene, 4, 0.3, instances=(fused, query), normalise_centres=normalise
    )
    plain = _plain_loss(image, gene, 4, 0.3, (fused, query), normalise)
    torch.testing.assert_close(fast, plain, rtol=1e-10, atol=1e-10)
    got = torch.autograd.grad(fast, leaves)
    for one, other in zip(got, torch.autograd.grad(plain, leaves), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("method", METHODS)
def test_gradients_of_the_group_loss_are_its_differences(method):
    image, gene = _rows(12).requires_grad_(), _rows(12, seed=1).requires_grad_()
    tau = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda u, w, t: instance_group(u, w, 3, t, method), (image, gene, tau)
    )


@pytest.mark.parametrize("method", METHODS)
def test_group_loss_is_chance_for_equal_rows_and_0_for_clear_groups(method):
    rows, _ = _blobs(noise=0.0)
    assert instance_group(rows, rows, 4, 0.01, method).item() < 1e-12
    assert instance_group(rows, rows, 1, 0.1, method).item() == 0
    # Matched to nothing: every instance is equally far from every group.
    away = torch.zeros_like(rows)
    away[:, -1] = 1
    apart = instance_group(rows, rows, 4, instances=(away, away), method=method)
    assert apart.item() == pytest.approx(math.log(4))


def test_group_loss_ignores_the_length_of_rows_and_their_layout():
    image, gene = _rows(33), _rows(33, seed=1)
    loss = instance_group(image, gene, 5)
    for same in (
        instance_group(7 * image, 1e-3 * gene, 5),
        instance_group(image.T.contiguous().T, gene, 5),
        instance_group(gene, image, 5),
    ):
        torch.testing.assert_close(same, loss, rtol=1e-10, atol=0)


def test_half_precision_is_widened_and_modules_hold_settings():
    rows, _ = _blobs()
    half = rows.half().requires_grad_()
    loss = instance_group(half, rows.half(), 4)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(
        loss.double(), instance_group(rows, rows, 4), rtol=1e-2, atol=1e-6
    )
    assert torch.autograd.grad(loss, half)[0].isfinite().all()
    module = InstanceGroup(4, 0.2, learnable=True)
    value = module(rows, rows)
    torch.testing.assert_close(
        value, instance_group(rows, rows, 4, 0.2), rtol=1e-6, atol=1e-12
    )
    value.backward()
    assert module.temperature.log_temperature.grad is not None


def test_empty_groups_leave_loss_and_gradients_finite():
    rows = _rows(1).repeat(6, 1).requires_grad_()  # one point six times, four groups
    loss = instance_group(rows, rows, 4)
    # One centre at cosine 1, three at 0.
    assert loss.item() == pytest.approx(math.log(1 + 3 * math.exp(-10)))
    assert torch.autograd.grad(loss, rows)[0].isfinite().all()


def test_bad_input_is_named():
    image, gene = _rows(4), _rows(4, seed=1)
    with pytest.raises(
        ValueError, match="5 groups need at least as many samples, got 4"
    ):
        instance_group(image, gene, 5)
    with pytest.raises(ValueError, match="n_groups must be >= 1"):
        instance_group(image, gene, 0)
    with pytest.raises(ValueError, match="one row per sample"):
        instance_group(image, gene[:3], 2)
    with pytest.raises(ValueError, match="gene has 4 rows of zeros"):
        instance_group(image, 0 * gene, 2)
    with pytest.raises(ValueError, match="image has nan"):
        instance_group(image * math.nan, gene, 2)
    with pytest.raises(ValueError, match=r"instances\[1\] has nan"):
        instance_group(image, gene, 2, instances=(image, gene * math.nan))
    with pytest.raises(ValueError, match='"kmeans", "spectral", "sinkhorn"'):
        InstanceGroup(3, method="dbscan")
    with pytest.raises(ValueError, match="n_iterations must be >= 1"):
        instance_group(image, gene, 2, n_iterations=0)
