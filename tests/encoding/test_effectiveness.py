"""Inverse effectiveness where it is planted, and not where noise alone mimics it."""

import numpy as np
import pytest
from scipy.stats import norm, spearmanr

from neuromm.core import DataError, UsageError
from neuromm.encoding.effectiveness import inverse_effectiveness

FLAT = np.ones(6)
STRENGTH = np.linspace(0.4, 3, 6)  # d' of either cue
FEW = {"rng": 0, "n_resamples": 100, "n_permutations": 199}


def correct(d):
    """Proportion correct above chance: a response that saturates."""
    return 2 * norm.cdf(d / np.sqrt(2)) - 1


def trials(a, b, ab, *, n=40, noise_sd=1.0, n_targets=100, seed=0):
    rng = np.random.default_rng(seed)
    level = np.repeat(np.arange(len(a)), n)
    shape = (len(level), n_targets)
    means = (np.asarray(mean)[level][:, None] for mean in (a, b, ab))
    return *(mean + noise_sd * rng.standard_normal(shape) for mean in means), level


def subjects(a, b, ab, n_subjects=12, **settings):
    each = [trials(a, b, ab, seed=seed, **settings) for seed in range(n_subjects)]
    *responses, level = (np.concatenate(parts) for parts in zip(*each, strict=True))
    return *responses, level, np.repeat(np.arange(n_subjects), len(each[0][3]))


def below_0(found):
    return np.mean(found.high < 0)


def covers_0(found):
    return np.mean((found.low <= 0) & (found.high >= 0))


def test_optimal_combination_of_cues_has_its_gain_additivity_and_slope():
    d, both = correct(STRENGTH), correct(np.sqrt(2) * STRENGTH)
    found = inverse_effectiveness(*trials(d, d, both, noise_sd=1e-6, n=8), **FEW)
    expected = np.repeat(((both - d) / d)[:, None], 100, axis=1)
    np.testing.assert_allclose(found.gain, expected, atol=1e-4)
    np.testing.assert_allclose(
        found.additivity, (both - 2 * d)[:, None] + 0 * expected, atol=1e-4
    )
    np.testing.assert_allclose(found.unimodal, d[:, None] + 0 * expected, atol=1e-4)
    np.testing.assert_allclose(found.slope, -1)
    assert np.all(found.high < 0)
    # Of the 720 orders of six levels one falls from end to end.
    assert np.all(found.p < 0.02)


def test_a_response_that_follows_d_prime_gains_the_same_at_every_level():
    found = inverse_effectiveness(
        *trials(STRENGTH, STRENGTH, np.sqrt(2) * STRENGTH, noise_sd=1e-6, n=8), **FEW
    )
    np.testing.assert_allclose(found.gain, np.sqrt(2) - 1, atol=1e-4)


def test_planted_inverse_effectiveness_is_found_in_noise():
    d, both = correct(STRENGTH), correct(np.sqrt(2) * STRENGTH)
    found = inverse_effectiveness(*trials(d, d, both, noise_sd=0.2, n=100), **FEW)
    assert found.slope.mean() < -0.7
    assert np.mean(found.p <= 0.05) > 0.8
    *responses, level, subject = subjects(d, d, both, noise_sd=0.4, n_targets=30)
    group = inverse_effectiveness(*responses, level, subjects=subject, **FEW)
    assert below_0(group) > 0.8


@pytest.mark.parametrize("gain", [1.0, 1.4])
def test_without_interaction_the_slope_covers_0_only_with_split_halves(gain):
    *responses, level, subject = subjects(FLAT, 0.5 * FLAT, gain * FLAT, n_targets=40)
    settings = {"subjects": subject, **FEW}
    guarded = inverse_effectiveness(*responses, level, **settings)
    plain = inverse_effectiveness(*responses, level, split_half=False, **settings)
    # 40 intervals of 12 subjects at 95 %; percentiles of few subjects cover 90 to 95 %.
    assert covers_0(guarded) >= 0.85
    assert np.mean(guarded.p <= 0.05) <= 0.05 + 2 * 0.035
    # The same noise lifts the unimodal response and lowers the gain.
    assert covers_0(plain) < 0.05
    assert plain.slope.mean() < -0.4
    assert abs(guarded.slope.mean()) < 0.05


def test_of_single_subjects_too():
    null = trials(FLAT, 0.5 * FLAT, FLAT)
    guarded = inverse_effectiveness(*null, **FEW)
    plain = inverse_effectiveness(*null, split_half=False, **FEW)
    assert covers_0(guarded) >= 0.95
    assert covers_0(plain) < 0.8
    assert np.mean(guarded.p <= 0.05) < 0.1
    assert np.mean(plain.p <= 0.05) > 0.15


@pytest.mark.parametrize("weaker", [0.2, 1.0])
def test_growing_responses_without_gain_are_seldom_called_inverse(weaker):
    grow = np.linspace(0.5, 2, 6)
    found = inverse_effectiveness(*trials(grow, weaker * grow, grow, n=100), **FEW)
    # 100 tests at 5 %: a standard error of 2.2 %.
    assert np.mean(found.p <= 0.05) < 0.05 + 2 * 0.022


def test_slope_of_exact_responses_is_spearmans():
    rng = np.random.default_rng(0)
    a, ab = rng.uniform(1, 2, 7), rng.uniform(2, 3, 7)
    data = trials(a, 0.1 * a, ab, noise_sd=0, n=40, n_targets=1)
    found = inverse_effectiveness(*data, **FEW)
    expected = spearmanr(a, (ab - a) / a).statistic
    np.testing.assert_allclose(found.slope, expected)
    np.testing.assert_allclose([found.low, found.high], expected)


def test_the_unit_of_responses_does_not_matter():
    *responses, level = trials(STRENGTH, FLAT, STRENGTH, n_targets=5)
    found = inverse_effectiveness(*responses, level, **FEW)
    scaled = inverse_effectiveness(*(1e-6 * r for r in responses), level, **FEW)
    np.testing.assert_allclose(scaled.slope, found.slope)
    np.testing.assert_allclose(scaled.gain, found.gain)
    np.testing.assert_allclose(scaled.p, found.p)


def test_gains_are_undefined_where_there_is_no_unimodal_response():
    means = np.array([0.0, 0.0, 1.0, 2.0, 3.0])
    data = trials(means, 0 * means, means + 1, noise_sd=0.1, n_targets=20)
    found = inverse_effectiveness(*data, min_response=5, **FEW)
    assert np.isnan(found.gain[:2]).all()
    assert np.isfinite(found.gain[2:]).all()
    assert np.isfinite(found.additivity).all()
    np.testing.assert_allclose(found.slope, -1)  # of the three that are left
    silent = inverse_effectiveness(
        *trials(0 * means, 0 * means, means, noise_sd=0.1, n_targets=3),
        min_response=5,
        **FEW,
    )
    for value in (silent.slope, silent.low, silent.high, silent.p):
        assert np.isnan(value).all()


def test_missing_values_have_no_slope():
    *responses, level = trials(STRENGTH, FLAT, STRENGTH + 1, n_targets=3)
    responses[2][:, 1] = np.nan
    found = inverse_effectiveness(*responses, level, **FEW)
    assert np.isnan(found.slope).tolist() == [False, True, False]
    assert np.isnan(found.p).tolist() == [False, True, False]


def test_conditions_may_have_their_own_trials():
    d, both = correct(STRENGTH), correct(np.sqrt(2) * STRENGTH)
    a, b, _, level = trials(d, d, both, noise_sd=1e-6, n=8, n_targets=2)
    *_, ab, level_ab = trials(d, d, both, noise_sd=1e-6, n=5, n_targets=2)
    shuffled = np.random.default_rng(0).permutation(len(level_ab))
    found = inverse_effectiveness(
        a, b, ab[shuffled], (level, level, level_ab[shuffled]), **FEW
    )
    np.testing.assert_allclose(found.slope, -1)


DATA = trials(FLAT, FLAT, FLAT, n=4, n_targets=2)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"levels": np.zeros(24)}, UsageError, "slope across levels needs 3"),
        ({"levels": np.zeros(23)}, DataError, r"label a trial .*\(24,\)"),
        (
            {"levels": np.arange(24) % 7},
            DataError,
            "need four at each level, got 3 of A",
        ),
        ({"response_a": np.zeros(24)}, DataError, "of the same targets"),
        ({"subjects": np.zeros(24)}, UsageError, "too few to resample"),
        ({"confidence": 1.0}, UsageError, "between 0 and 1"),
    ],
)
def test_designs_that_cannot_be_tested_are_refused(change, error, message):
    names = ("response_a", "response_b", "response_ab", "levels")
    arguments = dict(zip(names, DATA, strict=True)) | change
    with pytest.raises(error, match=message):
        inverse_effectiveness(**arguments, rng=0)
