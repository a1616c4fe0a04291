"""Samples are paired by label, never by position."""

import numpy as np
import pandas as pd
import pytest

from neuromm.core import DataError, feature_matrix, pair_samples, response_matrix

ONSET = np.array([0.0, 2.0, 0.0, 2.0])
RUN = ["1", "1", "2", "2"]


def test_features_in_another_order_come_to_the_rows_of_the_responses():
    order = [3, 0, 2, 1]
    values = np.arange(8.0).reshape(4, 2)
    features = feature_matrix(
        values[order], onset=ONSET[order], run=[RUN[i] for i in order]
    )
    responses = response_matrix(np.zeros((4, 3)), onset=ONSET, run=RUN)
    paired, _ = pair_samples(features, responses)
    np.testing.assert_array_equal(paired.to_numpy(), values)


def test_onsets_that_differ_by_rounding_of_a_table_are_the_same_sample():
    features = feature_matrix(np.ones((1, 1)), onset=[0.333])
    responses = response_matrix(np.ones((1, 1)), onset=[0.333 + 1e-9])
    paired, _ = pair_samples(features, responses)
    assert paired.sizes["sample"] == 1


def test_a_response_without_features_is_named():
    features = feature_matrix(np.zeros((3, 1)), onset=ONSET[:3], run=RUN[:3])
    responses = response_matrix(np.zeros((4, 1)), onset=ONSET, run=RUN)
    with pytest.raises(DataError, match=r"1 of 4 samples.*\(-, 2, 2 s\)"):
        pair_samples(features, responses)


def test_two_rows_of_features_for_one_sample_are_refused():
    features = feature_matrix(np.zeros((2, 1)), onset=[0.0, 0.0])
    responses = response_matrix(np.zeros((1, 1)), onset=[0.0])
    with pytest.raises(DataError, match="2 rows and responses 1 for the same sample"):
        pair_samples(features, responses)


def test_events_that_begin_together_pair_in_their_order():
    onset = np.array([1.0, 1.0, 3.0])
    features = feature_matrix([[3.0], [1.0], [2.0]], onset=np.roll(onset, 1))
    responses = response_matrix(np.zeros((3, 1)), onset=onset)
    paired, _ = pair_samples(features, responses)
    np.testing.assert_array_equal(paired.to_numpy().ravel(), [1.0, 2.0, 3.0])


def test_target_coordinates_travel_with_the_columns():
    targets = pd.DataFrame(
        {"target": ["A1", "A2"], "x": [1.0, 2.0], "hemi": ["L", "R"]}
    )
    responses = response_matrix(np.zeros((2, 4, 2)), onset=ONSET, targets=targets)
    assert responses.dims == ("repeat", "sample", "target")
    assert responses.sel(target="A2").x == 2.0
    assert responses.sel(target="A2").hemi == "R"


def test_a_label_per_sample_is_required():
    with pytest.raises(ValueError, match="run must have one value per sample, got 3"):
        feature_matrix(np.zeros((4, 1)), onset=ONSET, run=RUN[:3])
