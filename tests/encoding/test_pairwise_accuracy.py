"""2V2 accuracy against a loop over pairs; pattern and voxel correlations."""

import itertools

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cosine

from neuromm.encoding import pairwise_accuracy
from neuromm.encoding.pairwise_accuracy import (
    pattern_r,
    roi_scores,
    two_v_two,
    voxel_r,
)


def by_pairs(y, yhat):
    """The definition of Oota et al., pair by pair, with ties as one half."""
    hits = []
    for i, j in itertools.combinations(range(len(y)), 2):
        matched = cosine(y[i], yhat[i]) + cosine(y[j], yhat[j])
        crossed = cosine(y[i], yhat[j]) + cosine(y[j], yhat[i])
        tie = abs(matched - crossed) < 1e-12
        hits.append(0.5 if tie else float(matched < crossed))
    return np.mean(hits)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**31),
    n_samples=st.integers(2, 14),
    noise=st.floats(0, 3),
    offset=st.floats(-5, 5),
)
def test_one_matrix_gives_what_the_loop_over_pairs_gives(
    seed, n_samples, noise, offset
):
    rng = np.random.default_rng(seed)
    y = rng.standard_normal((n_samples, 6)) + offset
    yhat = y + noise * rng.standard_normal(y.shape)
    yhat[-1] = yhat[0]  # a tie, if these two are the pair
    assert two_v_two(y, yhat) == pytest.approx(by_pairs(y, yhat), abs=1e-12)


@pytest.mark.parametrize("rows", [1, 3, 7, 40])
def test_tiles_of_any_size_count_every_pair_once(rows, monkeypatch):
    rng = np.random.default_rng(0)
    y = rng.standard_normal((23, 5))
    yhat = y + 2 * rng.standard_normal(y.shape)
    expected = by_pairs(y, yhat)
    monkeypatch.setattr(pairwise_accuracy, "_TILE_ROWS", rows)
    assert two_v_two(y, yhat) == pytest.approx(expected, abs=1e-12)


def test_unrelated_predictions_are_at_chance_and_true_ones_at_one():
    rng = np.random.default_rng(0)
    y, other = rng.standard_normal((2, 1500, 20))
    # A U-statistic. Its margin is a sum of four terms alike, one of which a stimulus
    # decides: variance 4 / n times arcsin(1/4) / (2 pi), in the limit of many voxels.
    standard_error = np.sqrt(4 * np.arcsin(0.25) / (2 * np.pi) / 1500)
    assert two_v_two(y, other) == pytest.approx(0.5, abs=3 * standard_error)
    assert two_v_two(y, y) == 1.0
    assert two_v_two(y, -y) == 0.0


def test_one_prediction_for_all_is_exactly_at_chance():
    rng = np.random.default_rng(0)
    y = rng.standard_normal((30, 8))
    assert two_v_two(y, np.tile(y.mean(0), (30, 1))) == 0.5
    assert two_v_two(y, np.zeros_like(y)) == 0.5


def test_scale_of_a_row_does_not_count():
    rng = np.random.default_rng(1)
    y = rng.standard_normal((12, 6))
    yhat = y + 2 * rng.standard_normal(y.shape)
    scaled = yhat * 10.0 ** rng.uniform(-200, 200, (12, 1))
    assert two_v_two(y, scaled) == two_v_two(y, yhat)


def test_only_pairs_within_a_group_count():
    rng = np.random.default_rng(2)
    y = rng.standard_normal((15, 6))
    yhat = y + 2 * rng.standard_normal(y.shape)
    fold = np.array(["a"] * 6 + ["b"] * 8 + ["c"])  # c has no pair
    hits = [by_pairs(y[fold == k], yhat[fold == k]) for k in "ab"]
    expected = np.average(hits, weights=[15, 28])
    assert two_v_two(y, yhat, fold) == pytest.approx(expected)
    assert np.isnan(two_v_two(y, yhat, np.arange(15)))


def test_pattern_r_is_the_mean_correlation_over_voxels():
    rng = np.random.default_rng(3)
    y = rng.standard_normal((9, 7))
    yhat = y + rng.standard_normal(y.shape)
    r = np.array([np.corrcoef(a, b)[0, 1] for a, b in zip(y, yhat, strict=True)])
    fold = np.array([0] * 6 + [1] * 3)
    assert pattern_r(y, yhat) == pytest.approx(r.mean())
    expected = (r[:6].mean() + r[6:].mean()) / 2
    assert pattern_r(y, yhat, fold) == pytest.approx(expected)


def test_the_mean_pattern_alone_gives_a_high_pattern_r_and_no_voxel_r():
    rng = np.random.default_rng(4)
    mean_pattern = 3 * rng.standard_normal(50)
    y = mean_pattern + rng.standard_normal((200, 50))
    yhat = np.tile(mean_pattern, (200, 1))
    assert pattern_r(y, yhat) > 0.9
    np.testing.assert_array_equal(voxel_r(y, yhat), 0)
    assert two_v_two(y, yhat) == 0.5


def test_regions_are_scored_apart_and_keep_their_order():
    rng = np.random.default_rng(5)
    y = rng.standard_normal((40, 6))
    yhat = rng.standard_normal((40, 6))
    yhat[:, 3:] = y[:, 3:]
    roi = ["RSC"] * 3 + ["PPA"] * 3
    table = roi_scores(y, yhat, roi)
    assert table["roi"].tolist() == ["RSC", "PPA"]
    assert table["n_voxels"].tolist() == [3, 3]
    scores = table[["two_v_two", "voxel_r", "pattern_r"]].to_numpy()
    np.testing.assert_allclose(scores[1], 1)
    assert table.loc[0, "two_v_two"] == two_v_two(y[:, :3], yhat[:, :3])
    labelled = xr.DataArray(
        y, dims=("sample", "target"), coords={"roi": ("target", roi)}
    )
    pd.testing.assert_frame_equal(roi_scores(labelled, yhat), table)


def test_a_voxel_that_never_varies_is_left_out_of_the_mean_of_its_region():
    rng = np.random.default_rng(6)
    y = rng.standard_normal((20, 3))
    y[:, 0] = 1.0
    table = roi_scores(y, y, ["PPA"] * 3)
    assert table.loc[0, "voxel_r"] == pytest.approx(1)
    assert table.loc[0, "n_voxels"] == 3


def test_unusable_input_is_refused_in_words():
    y = np.ones((4, 3))
    with pytest.raises(ValueError, match=r"same shape .* got \(4, 3\) and \(4, 2\)"):
        two_v_two(y, np.ones((4, 2)))
    lost = np.where(np.eye(4, 3) > 0, np.nan, 1.0)
    with pytest.raises(ValueError, match=r"y has 3 values that are nan .* in 3 voxels"):
        pattern_r(lost, y)
    with pytest.raises(ValueError, match="groups must have one label per sample"):
        two_v_two(y, y, [0, 1])
    with pytest.raises(ValueError, match="each voxel needs a region: give roi"):
        roi_scores(y, y)
    with pytest.raises(ValueError, match="got 2 regions for 3 voxels"):
        roi_scores(y, y, ["PPA", "RSC"])
