"""Scores against scikit-learn; the ceiling against planted signal."""

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from neuromm.encoding import correlation_score, noise_ceiling, r2_score


def test_scores_equal_their_peers():
    rng = np.random.default_rng(0)
    y = rng.standard_normal((40, 3)) + 2
    yhat = y + rng.standard_normal((40, 3))
    np.testing.assert_allclose(
        r2_score(y, yhat), sklearn.metrics.r2_score(y, yhat, multioutput="raw_values")
    )
    for t in range(3):
        expected = np.corrcoef(y[:, t], yhat[:, t])[0, 1]
        assert correlation_score(y, yhat)[t] == pytest.approx(expected)
        assert correlation_score(y[:, t], yhat[:, t]) == pytest.approx(expected)


def test_constant_and_missing_responses_are_nan_and_a_constant_prediction_is_0():
    y = np.random.default_rng(0).standard_normal((20, 4))
    yhat = y.copy()
    y[:, 0] = 0.1
    y[3, 1] = np.nan
    yhat[:, 2] = 0.1
    np.testing.assert_allclose(correlation_score(y, yhat), [np.nan, np.nan, 0, 1])
    assert np.isnan(r2_score(y, yhat)).tolist() == [True, True, False, False]


def test_scores_need_equal_shapes():
    with pytest.raises(ValueError, match=r"same shape .* got \(4, 2\) and \(4, 3\)"):
        r2_score(np.zeros((4, 2)), np.zeros((4, 3)))


@pytest.mark.parametrize("n_repeats", [2, 4, 9])
def test_noise_ceiling_recovers_planted_signal_to_noise(n_repeats):
    rng = np.random.default_rng(0)
    noise_sd = 2.0
    signal = rng.standard_normal((1, 20_000, 3))
    responses = signal + noise_sd * rng.standard_normal((n_repeats, 20_000, 3))
    expected = np.sqrt(1 / (1 + noise_sd**2 / n_repeats))
    # The variance ratio of 20 000 samples errs by about noise_sd^2 / sqrt(20 000).
    three_standard_errors = 3 * noise_sd**2 / n_repeats / np.sqrt(20_000) + 0.02
    np.testing.assert_allclose(
        noise_ceiling(responses), expected, atol=three_standard_errors
    )


def test_the_true_signal_correlates_with_the_mean_at_the_ceiling():
    rng = np.random.default_rng(1)
    signal = rng.standard_normal((20_000, 2))
    responses = signal + 1.5 * rng.standard_normal((3, 20_000, 2))
    reached = correlation_score(responses.mean(0), signal)
    np.testing.assert_allclose(noise_ceiling(responses), reached, atol=0.02)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31), scale=st.floats(0.1, 10))
def test_ceiling_ignores_the_unit_of_the_response(seed, scale):
    r = np.random.default_rng(seed).standard_normal((3, 20, 2))
    # The ceiling is a square root, so rounding of eps shows as sqrt(eps).
    np.testing.assert_allclose(noise_ceiling(scale * r), noise_ceiling(r), atol=1e-7)


def test_identical_repeats_reach_1_opposed_ones_0_and_constants_nothing():
    ramp = np.arange(5.0)[:, None]
    repeats = np.stack([np.hstack([ramp, ramp, np.full((5, 1), 0.1)])] * 2)
    repeats[1, :, 1] = 0.5 * ramp[::-1, 0]
    np.testing.assert_allclose(noise_ceiling(repeats), [1, 0, np.nan])


@pytest.mark.parametrize("shape", [(1, 9, 2), (2, 1, 2), (9, 2)])
def test_a_ceiling_needs_repeats(shape):
    with pytest.raises(ValueError, match="at least two repeats of two samples"):
        noise_ceiling(np.zeros(shape))
