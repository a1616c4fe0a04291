"""The permutation test is exact under its null, and finds what is there."""

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.stats import false_discovery_control, kstest

from neuromm.core import UsageError
from neuromm.encoding import correlation_score, permutation_test, r2_score


def autocorrelated(n_samples, n_targets, seed, coefficient=0.9):
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((n_samples + 100, n_targets))
    return lfilter([1], [1, -coefficient], noise, axis=0)[100:]


def null_p(block, **settings):
    # Series that remember about 10 samples, and predictions that know nothing.
    y, yhat = (autocorrelated(1200, 400, seed) for seed in (1, 2))
    return permutation_test(
        yhat, y, block=block, n_permutations=199, rng=0, **settings
    ).p


def test_p_is_uniform_under_the_null_if_blocks_outlast_the_autocorrelation():
    p = null_p(block=60)
    assert kstest(p, "uniform").pvalue > 0.01
    # 400 tests at 5 %: 20 expected, standard deviation 4.4.
    assert 0.05 - 3 * 0.011 < np.mean(p <= 0.05) < 0.05 + 3 * 0.011


def test_p_is_too_small_if_blocks_are_shorter_than_the_autocorrelation():
    assert np.mean(null_p(block=1) <= 0.05) > 0.2


def test_p_is_uniform_within_runs_that_differ_in_mean():
    runs = np.repeat(np.arange(4), 300)
    offset = 5.0 * runs[:, None]  # both know the run, which nothing may count for
    rng = np.random.default_rng(0)
    y, yhat = offset + rng.standard_normal((2, 1200, 300))
    p = permutation_test(yhat, y, groups=runs, block=10, n_permutations=199, rng=0).p
    assert kstest(p, "uniform").pvalue > 0.01
    unaware = permutation_test(yhat, y, block=10, n_permutations=199, rng=0).p
    assert np.all(unaware <= 0.05)


def test_planted_predictions_reach_the_smallest_p():
    yhat = autocorrelated(600, 20, seed=0)
    y = yhat + np.random.default_rng(1).standard_normal((600, 20))
    y[:, 10:] = autocorrelated(600, 10, seed=5)
    found = permutation_test(yhat, y, block=30, n_permutations=99, rng=0)
    np.testing.assert_allclose(found.p[:10], 1 / 100)
    np.testing.assert_allclose(found.q, false_discovery_control(found.p))
    np.testing.assert_allclose(found.statistic, correlation_score(y, yhat))


@pytest.mark.parametrize("block", [1, 7, 25])
def test_both_ways_to_compute_the_null_equal_the_definition(block, monkeypatch):
    from neuromm.encoding import permutation

    rng = np.random.default_rng(0)
    y, yhat = rng.standard_normal((2, 110, 5)) + 0.05 * np.arange(110)[:, None]
    runs = np.repeat([0, 1], [50, 60])
    layout = permutation._block_layout(110, runs, block, 49, 3)
    exceeding = np.zeros(5)
    observed = correlation_score(y, yhat)
    for number in range(49):
        rows = np.arange(110)
        for group in layout:
            rows[group.rows.ravel()] = group.rows[group.orders[number]].ravel()
        assert sorted(rows) == list(range(110))
        exceeding += correlation_score(y[rows], yhat) >= observed - 1e-12
    expected = (1 + exceeding) / 50
    for paired in (True, False):
        monkeypatch.setattr(permutation, "_is_paired", lambda _, paired=paired: paired)
        result = permutation_test(
            yhat, y, groups=runs, block=block, n_permutations=49, rng=3
        )
        np.testing.assert_allclose(result.p, expected)


def test_r2_has_the_same_p_as_correlation():
    rng = np.random.default_rng(0)
    y, yhat = rng.standard_normal((2, 200, 30))
    settings = {"block": 5, "n_permutations": 99, "rng": 0}
    by_r2 = permutation_test(yhat, y, statistic="r2", **settings)
    np.testing.assert_array_equal(by_r2.p, permutation_test(yhat, y, **settings).p)
    np.testing.assert_allclose(by_r2.statistic, r2_score(y, yhat))


def test_small_chunks_of_targets_give_the_same_p(monkeypatch):
    from neuromm.encoding import permutation

    y, yhat = np.random.default_rng(0).standard_normal((2, 200, 30))
    settings = {"block": 5, "n_permutations": 99, "rng": 0}
    whole = permutation_test(yhat, y, **settings).p
    monkeypatch.setattr(permutation, "_CHUNK_BYTES", 1)
    np.testing.assert_array_equal(permutation_test(yhat, y, **settings).p, whole)


def test_what_cannot_be_tested_has_no_p_and_a_constant_prediction_has_1():
    y, yhat = np.random.default_rng(0).standard_normal((2, 60, 4))
    y[:, 0] = 0.1
    y[2, 1] = np.nan
    yhat[:, 2] = 0.1
    found = permutation_test(yhat, y, block=5, n_permutations=19, rng=0)
    assert np.isnan(found.p).tolist() == [True, True, False, False]
    assert np.isnan(found.q).tolist() == [True, True, False, False]
    assert found.p[2] == 1


def test_runs_shorter_than_two_blocks_cannot_be_permuted():
    y = np.random.default_rng(0).standard_normal((30, 2))
    runs = np.repeat([0, 1, 2], 10)
    with pytest.raises(UsageError, match=r"two blocks of 8 samples \(the longest"):
        permutation_test(y, y, groups=runs, block=8, rng=0)
