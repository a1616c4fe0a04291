"""Truths about features at the volumes of a scan."""

import numpy as np
import pandas as pd
import pytest
from nilearn.glm.first_level import compute_regressor

from neuromm.core import DataError, UsageError, pair_samples, response_matrix
from neuromm.features import feature_table, volume_features
from neuromm.prepare import convolve_samples, delay, frame_times

T_R = 2.0
TIMES = frame_times(120, T_R)


def film(n_rows=120, t_r=T_R, **settings):
    values = np.random.default_rng(0).standard_normal((n_rows, 3))
    settings = {"onset": np.arange(n_rows) * t_r, **settings}
    return feature_table(values, name="film", **settings)


def trials():
    events = pd.DataFrame({"onset": [4.0, 30.0, 61.3], "duration": [2.0, 0.0, 5.0]})
    events["trial_type"] = ["face", "house", "face"]
    return events


CATEGORIES = feature_table(
    [[1.0, 0.3], [0.0, 2.0]], name="category", trial_type=["face", "house"]
)


@pytest.mark.parametrize("hrf", ["spm", "glover"])
def test_event_features_agree_with_nilearn(hrf):
    events = trials()
    features = volume_features(CATEGORIES, events, TIMES, hrf=hrf)
    for column, amplitude in enumerate(([1, 0, 1], [0.3, 2.0, 0.3])):
        condition = (events["onset"], events["duration"], np.array(amplitude))
        peer = compute_regressor(condition, hrf, TIMES)[0][:, 0]
        np.testing.assert_allclose(
            features.values[:, column], peer, atol=1e-6 * np.abs(peer).max()
        )


def test_sampled_features_are_convolved_as_a_series():
    features = volume_features(film(), trials(), TIMES, t_r=T_R, delays=())
    np.testing.assert_allclose(features.values, convolve_samples(film().values, T_R))


def test_the_order_of_sampled_rows_is_that_of_their_onsets():
    order = np.random.default_rng(1).permutation(120)
    shuffled = feature_table(film().values[order], onset=np.arange(120)[order] * T_R)
    np.testing.assert_array_equal(
        volume_features(shuffled, None, TIMES).values,
        volume_features(film(), None, TIMES).values,
    )


def test_finite_impulse_responses_are_delays_of_what_a_volume_sees():
    features = volume_features(film(), None, TIMES, hrf="fir", delays=(1, 3))
    np.testing.assert_array_equal(features.values, delay(film().values, [1, 3]))
    assert list(features["feature"].values) == [
        "0@1",
        "1@1",
        "2@1",
        "0@3",
        "1@3",
        "2@3",
    ]


def test_finite_impulse_responses_to_events_begin_at_their_volume():
    features = volume_features(CATEGORIES, trials(), TIMES, hrf="fir", delays=(0, 2))
    face = features.sel(feature="0@0").values
    # Onset 4.0 lasts volume 2; 61.3 to 66.3 s fills 0.35, 1, 1 and 0.15 of 30 to 33.
    np.testing.assert_allclose(face[[2, 30, 31, 32, 33]], [1, 0.35, 1, 1, 0.15])
    assert face.sum() == pytest.approx(3.5)
    np.testing.assert_allclose(features.sel(feature="0@2").values[2:], face[:-2])


def test_no_model_gives_the_sampled_rows():
    features = volume_features(film(), None, TIMES, hrf="none")
    np.testing.assert_array_equal(features.values, film().values)


def test_derivatives_double_the_features():
    features = volume_features(CATEGORIES, trials(), TIMES, hrf="spm + derivative")
    named = ["0", "1", "0_derivative", "1_derivative"]
    assert list(features["feature"].values) == named


@pytest.mark.parametrize(
    ("n_rows", "message"),
    [
        (119, r"has 119 rows for run 02, the scan has 120 volumes; one row too few"),
        (123, r"has 123 rows for run 02, the scan has 120 volumes; 3 rows too many"),
    ],
)
def test_a_sampled_table_needs_one_row_a_volume(n_rows, message):
    table = film(n_rows, run="2")
    with pytest.raises(DataError, match=message + ".*dummy volumes dropped"):
        volume_features(table, None, TIMES, run="02")


def test_a_gap_in_a_sampled_table_is_found():
    onset = np.delete(np.arange(120), 18) * T_R
    with pytest.raises(DataError, match=r"one row too few.*missing after 34 s"):
        volume_features(film(119, onset=onset), None, TIMES)
    shifted = np.delete(np.arange(121), 18) * T_R
    with pytest.raises(DataError, match=r"not after 34 s \(next: 38 s\)"):
        volume_features(film(onset=shifted), None, TIMES)


def test_sampled_rows_count_from_the_start_of_the_run():
    with pytest.raises(DataError, match="the first row is at 12 s, expected within"):
        volume_features(film(onset=12 + np.arange(120) * T_R), None, TIMES)


def test_short_rows_once_a_volume_are_events():
    table = film(40, duration=np.full(40, 0.5))
    features = volume_features(table, None, TIMES)
    condition = (np.arange(40) * T_R, np.full(40, 0.5), table.values[:, 0])
    peer = compute_regressor(condition, "spm", TIMES)[0][:, 0]
    np.testing.assert_allclose(features.values[:, 0], peer, atol=1e-9)


def test_rows_at_another_rate_are_events():
    table = film(60, t_r=0.5)
    features = volume_features(table, None, TIMES)
    assert features.shape == (120, 3)
    assert np.abs(features.values[40:]).max() < np.abs(features.values[:30]).max() / 1e3


def test_events_after_the_scan_are_refused():
    events = trials()
    events.attrs["source"] = "film_events.tsv"
    with pytest.raises(
        DataError, match=r"^film_events\.tsv: 1 events begin after the scan.*60 s"
    ):
        volume_features(CATEGORIES, events, frame_times(30, T_R))


def test_features_pair_with_the_trimmed_responses():
    features = volume_features(film(run="2"), None, TIMES, run="2", subject="01")
    responses = response_matrix(
        np.zeros((110, 1)), onset=TIMES[5:115], run="2", subject="01"
    )
    paired, _ = pair_samples(features, responses)
    np.testing.assert_array_equal(paired.values, features.values[5:115])


def test_an_unknown_model_is_refused():
    with pytest.raises(
        UsageError, match=r'one of "spm".*"fir", "none", got \'boxcar\''
    ):
        volume_features(CATEGORIES, trials(), TIMES, hrf="boxcar")
