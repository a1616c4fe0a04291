"""Every ceiling against planted signal and noise, and against the others."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuromm.core import UsageError
from neuromm.encoding.ceilings import (
    bootstrap_ceiling,
    noise_ceiling,
    normalised_scores,
)

REPEATED = ["signal_power", "explainable_variance", "ncsnr", "split_half"]
ACROSS = ["inter_subject", "inter_subject_upper"]


def planted(n_repeats, n_samples, noise_sd, n_targets=3, seed=0):
    rng = np.random.default_rng(seed)
    signal = rng.standard_normal((1, n_samples, n_targets))
    noise = rng.standard_normal((n_repeats, n_samples, n_targets))
    return signal + noise_sd * noise


def as_trials(repeats, seed=0):
    """The same responses as shuffled single trials, with their labels."""
    n_repeats, n_samples = repeats.shape[:2]
    order = np.random.default_rng(seed).permutation(n_repeats * n_samples)
    stimulus = np.tile(np.arange(n_samples), n_repeats)[order]
    session = np.repeat(np.arange(n_repeats), n_samples)[order]
    return repeats.reshape(-1, repeats.shape[2])[order], stimulus, session


def ragged(n_stimuli, noise_sd, seed=0, n_targets=3):
    """Stimuli shown once to four times, in sessions of other mean and scale."""
    rng = np.random.default_rng(seed)
    n_shown = rng.integers(1, 5, n_stimuli)
    stimulus = rng.permutation(np.repeat(np.arange(n_stimuli), n_shown))
    signal = rng.standard_normal((n_stimuli, n_targets))
    y = signal[stimulus] + noise_sd * rng.standard_normal((len(stimulus), n_targets))
    session = np.arange(len(stimulus)) * 4 // len(stimulus)
    return y, stimulus, session, n_shown


@pytest.mark.parametrize("method", REPEATED)
@pytest.mark.parametrize(
    ("n_repeats", "n_samples", "noise_sd"),
    [(2, 20_000, 1.0), (3, 20_000, 0.3), (5, 20_000, 2.0), (10, 5000, 1.5)],
)
def test_planted_signal_and_noise_are_recovered(method, n_repeats, n_samples, noise_sd):
    responses = planted(n_repeats, n_samples, noise_sd)
    draw = {"rng": 0, "n_splits": 5}
    for k in (n_repeats, 1):
        r2 = 1 / (1 + noise_sd**2 / k)
        given_k = None if k == n_repeats else k
        found = noise_ceiling(responses, method, n_averaged=given_k, **draw)
        np.testing.assert_allclose(found, np.sqrt(r2), atol=0.02)
        found = noise_ceiling(
            responses, method, measure="r2", n_averaged=given_k, **draw
        )
        np.testing.assert_allclose(found, r2, atol=0.02)
    ratio = noise_ceiling(responses, method, measure="ncsnr", **draw)
    np.testing.assert_allclose(ratio * noise_sd, 1, atol=0.04)


@pytest.mark.parametrize("method", REPEATED)
@pytest.mark.parametrize("noise_sd", [0.5, 1.0, 2.0])
def test_ragged_repeats_recover_what_is_planted(method, noise_sd):
    y, stimulus, session, n_shown = ragged(20_000, noise_sd)
    y = (y + session[:, None]) * 3  # sessions differ in mean
    labels = {"stimulus": stimulus, "session": session, "rng": 0, "n_splits": 5}
    found = noise_ceiling(y, method, **labels)
    k = 1 / np.mean(1 / n_shown)
    np.testing.assert_allclose(found, np.sqrt(1 / (1 + noise_sd**2 / k)), atol=0.02)
    one = noise_ceiling(y, method, n_averaged=1, **labels)
    np.testing.assert_allclose(one, np.sqrt(1 / (1 + noise_sd**2)), atol=0.02)


def test_the_ceiling_of_ragged_means_is_reached_by_the_signal():
    rng = np.random.default_rng(0)
    n_shown = rng.integers(1, 5, 20_000)
    signal = rng.standard_normal(20_000)
    stimulus = np.repeat(np.arange(20_000), n_shown)
    y = signal[stimulus] + rng.standard_normal(len(stimulus))
    means = np.bincount(stimulus, y) / n_shown
    reached = np.corrcoef(means, signal)[0, 1]
    found = noise_ceiling(y[:, None], stimulus=stimulus)
    np.testing.assert_allclose(found, reached, atol=0.02)


def test_inter_subject_bounds_lie_about_the_best_model_of_all():
    n_subjects, noise_sd = 6, 1.2
    responses = planted(n_subjects, 20_000, noise_sd)
    s, n = 1.0, noise_sd**2
    lower, upper = (noise_ceiling(responses, method) for method in ACROSS)
    expected = s / np.sqrt((s + n) * (s + n / (n_subjects - 1)))
    np.testing.assert_allclose(lower, expected, atol=0.02)
    expected = np.sqrt((s + n / n_subjects) / (s + n))
    np.testing.assert_allclose(upper, expected, atol=0.02)
    best = np.sqrt(s / (s + n))
    assert np.all(lower < best)
    assert np.all(upper > best)
    squared = noise_ceiling(responses, "inter_subject", measure="r2")
    np.testing.assert_allclose(squared, lower**2)


def test_signal_power_is_its_definition():
    y = planted(4, 60, 1.0)
    total, single = y.sum(0).var(0, ddof=1), y.var(1, ddof=1).sum(0)
    power = np.clip((total - single) / 12, 0, None)
    np.testing.assert_allclose(
        noise_ceiling(y), np.sqrt(power / y.mean(0).var(0, ddof=1))
    )


def test_explainable_variance_is_that_of_the_voxelwise_tutorials():
    y = planted(5, 80, 1.0) * np.array([1.0, 2.0, 3.0, 4.0, 5.0])[:, None, None]
    scaled = (y - y.mean(1, keepdims=True)) / y.std(1, ddof=1, keepdims=True)
    ev = scaled.mean(0).var(0, ddof=1)
    found = noise_ceiling(y, "explainable_variance", measure="r2", n_averaged=1)
    np.testing.assert_allclose(found, ev - (1 - ev) / 4)
    correlations = np.corrcoef(y[:, :, 0])[np.triu_indices(5, 1)]
    assert found[0] == pytest.approx(correlations.mean())


def test_ncsnr_is_that_of_the_natural_scenes_dataset():
    y, stimulus, session, n_shown = ragged(300, 0.8)
    z = np.empty_like(y)
    for number in range(4):
        part = y[session == number]
        z[session == number] = (part - part.mean(0)) / part.std(0, ddof=1)
    within = [z[stimulus == i].var(0, ddof=1) for i in np.flatnonzero(n_shown > 1)]
    noise = np.mean(within, axis=0)
    ncsnr = np.sqrt(np.clip(1 - noise, 0, None) / noise)
    labels = {"stimulus": stimulus, "session": session}
    found = noise_ceiling(y, "ncsnr", measure="ncsnr", **labels)
    np.testing.assert_allclose(found, ncsnr)
    percent = 100 * ncsnr**2 / (ncsnr**2 + np.mean(1 / n_shown))
    found = noise_ceiling(y, "ncsnr", measure="r2", **labels)
    np.testing.assert_allclose(100 * found, percent)


@pytest.mark.parametrize("method", [m for m in REPEATED if m != "split_half"])
def test_labels_and_a_repeats_axis_give_the_same(method):
    y = planted(3, 50, 1.0) + np.array([0.0, 5.0, -2.0])[:, None, None]
    trials, stimulus, session = as_trials(y)
    found = noise_ceiling(trials, method, stimulus=stimulus, session=session)
    np.testing.assert_allclose(found, noise_ceiling(y, method))


def test_two_repeats_split_in_one_way_only():
    y = planted(2, 5000, 1.0)
    found = noise_ceiling(y, "split_half", measure="r2", rng=0, n_splits=2)
    # Halves swap single trials between repeats, so r varies by less than 1 / sqrt(n).
    r = np.array([np.corrcoef(y[:, :, t])[0, 1] for t in range(3)])
    np.testing.assert_allclose(found, 2 * r / (1 + r), atol=0.02)


@settings(deadline=None, max_examples=20)
@given(
    seed=st.integers(0, 2**31),
    scale=st.floats(0.1, 10),
    offset=st.floats(-10, 10),
    method=st.sampled_from(REPEATED + ACROSS),
)
def test_no_ceiling_depends_on_the_unit(seed, scale, offset, method):
    y = np.random.default_rng(seed).standard_normal((3, 20, 2))
    # The ceiling is a square root, so rounding of eps shows as sqrt(eps).
    np.testing.assert_allclose(
        noise_ceiling(scale * y + offset, method, rng=0),
        noise_ceiling(y, method, rng=0),
        atol=1e-6,
    )


@pytest.mark.parametrize("method", REPEATED + ACROSS)
def test_constants_and_missing_values_have_no_ceiling(method):
    y = planted(3, 30, 0.5, n_targets=4)
    y[:, :, 1] = 0.1
    y[1, 4, 2] = np.nan
    found = noise_ceiling(y, method, rng=0)
    assert np.isnan(found).tolist() == [False, True, True, False]
    low, high = bootstrap_ceiling(y, method, rng=0, n_resamples=20)
    assert np.isnan(low).tolist() == [False, True, True, False]
    assert np.isnan(high).tolist() == [False, True, True, False]


@pytest.mark.parametrize("method", REPEATED)
def test_noise_has_a_ceiling_near_0_and_equal_repeats_of_1(method):
    noise = np.random.default_rng(0).standard_normal((4, 5000, 3))
    assert np.all(noise_ceiling(noise, method, measure="r2", rng=0) < 0.1)
    same = np.repeat(noise[:1], 4, axis=0)
    np.testing.assert_allclose(noise_ceiling(same, method, rng=0), 1, rtol=1e-12)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("signal_power", np.sqrt(1 / (1 + 1 / 3))),
        ("ncsnr", np.sqrt(1 / (1 + 1 / 3))),
        ("split_half", np.sqrt(1 / (1 + 1 / 3))),
        ("inter_subject", 1 / np.sqrt(2 * 1.5)),
    ],
)
def test_intervals_cover_the_planted_ceiling(method, expected):
    y = planted(3, 150, 1.0, n_targets=300)
    low, high = bootstrap_ceiling(y, method, rng=0, n_resamples=300, n_splits=5)
    covered = np.mean((low <= expected) & (expected <= high))
    # 300 intervals at 95 %: a standard error of 1.3 %. Percentiles of a bounded
    # statistic at 150 stimuli are off by one or two points.
    assert 0.90 < covered < 0.985


def test_intervals_of_single_samples_are_too_narrow_for_slow_signals():
    rng = np.random.default_rng(0)
    slow = np.repeat(rng.standard_normal((1, 30, 200)), 10, axis=1)
    y = slow + 2 * np.repeat(rng.standard_normal((3, 30, 200)), 10, axis=1)
    width = [
        np.mean(np.subtract(*bootstrap_ceiling(y, rng=0, n_resamples=200, block=b)))
        for b in (1, 10)
    ]
    assert abs(width[1]) > 1.5 * abs(width[0])


def test_normalised_scores_are_shares_that_are_not_clipped():
    found = normalised_scores([[0.3, 0.7, -0.2, 0.1]], [0.6, 0.5, 0.4, 0.09])
    np.testing.assert_allclose(found, [[0.5, 1.4, -0.5, np.nan]])
    np.testing.assert_allclose(
        normalised_scores([0.1, 0.1], [0.09, np.nan], threshold=0.05),
        [0.1 / 0.09, np.nan],
    )


def test_the_true_signal_has_a_normalised_score_of_1():
    rng = np.random.default_rng(3)
    signal = rng.standard_normal((20_000, 2))
    y = signal + rng.standard_normal((4, 20_000, 2))
    r = [np.corrcoef(y.mean(0)[:, t], signal[:, t])[0, 1] for t in range(2)]
    np.testing.assert_allclose(normalised_scores(r, noise_ceiling(y)), 1, atol=0.02)


Y = np.random.default_rng(0).standard_normal((3, 9, 2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: noise_ceiling(Y[0]), "at least two repeats of two samples"),
        (lambda: noise_ceiling(Y, "spearman"), "method must be one of signal_power"),
        (lambda: noise_ceiling(Y, "split_half"), "drawn at random: give rng="),
        (lambda: noise_ceiling(Y, n_averaged=0), "n_averaged must be positive"),
        (lambda: noise_ceiling(Y, session=[0, 1, 2]), "give their stimulus= too"),
        (
            lambda: noise_ceiling(Y[0], stimulus=np.arange(9)),
            "9 trials of 9 stimuli in 1 sessions hold too few repeats",
        ),
        (
            lambda: noise_ceiling(Y, stimulus=np.arange(9)),
            r"responses must be \(n_trials, n_targets\)",
        ),
        (
            lambda: noise_ceiling(Y, "inter_subject", measure="ncsnr"),
            "compares subjects",
        ),
        (lambda: bootstrap_ceiling(Y, rng=0, block=5), "half the stimuli"),
        (lambda: normalised_scores([1.0], [1.0], threshold=0), "must be positive"),
        (lambda: normalised_scores([1.0], [1.0, 1.0]), "of the same targets"),
    ],
)
def test_what_has_no_ceiling_is_said(call, message):
    with pytest.raises(UsageError, match=message):
        call()
