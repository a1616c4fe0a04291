"""Truths about random projections."""

import numpy as np
import pytest
from sklearn.random_projection import (
    SparseRandomProjection,
    johnson_lindenstrauss_min_dim,
)

from neuromm.core import UsageError
from neuromm.features import feature_table, matched_dimension
from neuromm.features.projection import (
    johnson_lindenstrauss_dim,
    resolved_dim,
    sparse_projection,
)


def squared_distances(rows):
    norms = np.sum(rows.astype(float) ** 2, axis=1)
    squared = norms[:, None] + norms - 2 * rows.astype(float) @ rows.astype(float).T
    return squared[np.triu_indices(len(rows), 1)]


@pytest.mark.parametrize("n_samples", [2, 50, 6070])
@pytest.mark.parametrize("epsilon", [0.05, 0.1, 0.5])
def test_the_dimension_is_that_of_scikit_learn(n_samples, epsilon):
    peer = johnson_lindenstrauss_min_dim(n_samples, eps=epsilon)
    assert johnson_lindenstrauss_dim(n_samples, epsilon) == peer


def test_the_projection_is_that_of_scikit_learn():
    rows = np.random.default_rng(0).standard_normal((7, 400)).astype(np.float32)
    peer = SparseRandomProjection(n_components=50, random_state=0).fit_transform(rows)
    # float32 sums of about 20 terms
    np.testing.assert_allclose(sparse_projection(rows, 50, 0), peer, atol=1e-4)


@pytest.mark.parametrize("n_features", [300, 20_000])
def test_distances_stay_within_the_bound_of_johnson_and_lindenstrauss(n_features):
    # 30 rows, epsilon 0.1: the bound holds with probability 1 - 1/n or more, for up-
    # and for down-projections.
    rows = np.random.default_rng(1).standard_normal((30, n_features)).astype("f4")
    projected = sparse_projection(rows, johnson_lindenstrauss_dim(30), seed=0)
    ratio = squared_distances(projected) / squared_distances(rows)
    assert np.abs(ratio - 1).max() < 0.1


def test_no_value_decides_the_matrix():
    rng = np.random.default_rng(2)
    train, test = rng.standard_normal((2, 5, 60)).astype("f4")
    whole = sparse_projection(np.vstack([train, 100 * test]), 12, 0)
    np.testing.assert_allclose(sparse_projection(train, 12, 0), whole[:5], rtol=1e-5)
    assert np.abs(sparse_projection(train, 12, 1) - whole[:5]).max() > 0.1


def test_a_dimension_is_a_positive_number():
    assert resolved_dim("auto", 6070) == 7466
    assert resolved_dim(None, 3) is None
    for wrong in (0, -1, 2.5, True, "all"):
        with pytest.raises(UsageError, match="must be a positive number"):
            resolved_dim(wrong, 3)


@pytest.mark.parametrize("dim", [4, 40, 4000])
def test_a_matched_space_keeps_distances_on_average_up_and_down(dim):
    rng = np.random.default_rng(3)
    table = feature_table(
        rng.standard_normal((20, 40)), onset=np.arange(20.0), attrs={"model": "x"}
    )
    ratios = [
        np.mean(
            squared_distances(matched_dimension(table, dim, seed).values)
            / squared_distances(table.values)
        )
        for seed in range(20)
    ]
    # Standard deviation of one distance sqrt(2 / dim), 20 independent matrices.
    assert abs(np.mean(ratios) - 1) < 4 * np.sqrt(2 / dim / 20)
    matched = matched_dimension(table, dim, 0)
    assert matched.values.shape == (20, dim) == (20, len(matched.columns))
    assert matched.attrs["model"] == "x"
    assert f"to {dim} columns, seed 0" in matched.attrs["control"]
    assert matched.keys is table.keys
