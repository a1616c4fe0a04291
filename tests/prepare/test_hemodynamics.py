"""Truths about the haemodynamic model."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nilearn.glm.first_level import compute_regressor, spm_hrf

from neuromm.core import UsageError
from neuromm.prepare import (
    convolve_events,
    convolve_samples,
    delay,
    frame_times,
    volume_means,
)


def random_events(seed, n_events=30, end=200.0):
    rng = np.random.default_rng(seed)
    onset = np.sort(rng.uniform(-5, end + 5, n_events))
    duration = rng.choice([0.0, 0.3, 2.0, 17.5], n_events)
    return onset, duration, rng.standard_normal((n_events, 4))


@pytest.mark.parametrize("slice_time_ref", [0.0, 0.5])
@pytest.mark.parametrize("t_r", [0.72, 2.0, 2.5])
@pytest.mark.parametrize("hrf", ["spm", "glover", "spm + derivative"])
def test_amplitude_modulated_events_agree_with_nilearn(hrf, t_r, slice_time_ref):
    onset, duration, values = random_events(0)
    times = frame_times(int(200 / t_r), t_r, slice_time_ref)
    ours = convolve_events(onset, duration, values, times, hrf=hrf)
    for feature in range(4):
        peer, _ = compute_regressor((onset, duration, values[:, feature]), hrf, times)
        scale = np.abs(peer).max(axis=0)
        np.testing.assert_allclose(ours[:, feature::4] / scale, peer / scale, atol=1e-9)


def test_more_events_than_one_block_are_all_counted():
    onset, duration, values = random_events(1, n_events=2500)
    times = frame_times(100, 2.0)
    peer, _ = compute_regressor((onset, duration, values[:, 0]), "spm", times)
    ours = convolve_events(onset, duration, values[:, :1], times)
    np.testing.assert_allclose(ours, peer, atol=1e-9 * np.abs(peer).max())


def test_an_impulse_draws_the_response_itself():
    # At oversampling 1 the grid is the volumes, and the response is the kernel.
    times = frame_times(40, 2.0, slice_time_ref=0.0)
    drawn = convolve_events([0.0], [0.0], [[1.0]], times, oversampling=1)[:, 0]
    np.testing.assert_allclose(drawn[:16], spm_hrf(2.0, 1), atol=1e-12)
    np.testing.assert_allclose(drawn[16:], 0, atol=1e-12)


def test_a_lasting_event_settles_at_its_value():
    times = frame_times(60, 2.0)
    plateau = convolve_events([0.0], [120.0], [[3.0]], times)[25:, 0]
    np.testing.assert_allclose(plateau, 3.0, rtol=1e-12)  # the kernel has unit area


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), a=st.floats(-5, 5))
def test_convolution_is_linear_in_the_features(seed, a):
    onset, duration, x = random_events(seed, 8, 60.0)
    y = np.random.default_rng(seed + 1).standard_normal(x.shape)
    times = frame_times(30, 2.0)
    np.testing.assert_allclose(
        convolve_events(onset, duration, a * x + y, times),
        a * convolve_events(onset, duration, x, times)
        + convolve_events(onset, duration, y, times),
        atol=1e-10,
    )


def test_volumes_before_an_event_do_not_know_of_it():
    times = frame_times(30, 2.0)
    response = convolve_events([20.0], [4.0], [[1.0]], times)[:, 0]
    np.testing.assert_array_equal(response[times < 20.0], 0)
    assert 24 <= times[response.argmax()] <= 30  # SPM peaks about 6 s after a stimulus


def test_the_derivative_is_orthogonal_to_the_response_of_its_feature():
    onset, duration, values = random_events(2)
    both = convolve_events(
        onset, duration, values, frame_times(100, 2.0), hrf="glover + derivative"
    )
    cosine = np.sum(both[:, :4] * both[:, 4:], axis=0) / (
        np.linalg.norm(both[:, :4], axis=0) * np.linalg.norm(both[:, 4:], axis=0)
    )
    np.testing.assert_allclose(cosine, 0, atol=1e-10)


def test_a_constant_feature_sampled_per_volume_settles_at_itself():
    np.testing.assert_allclose(
        convolve_samples(np.full((60, 1), 2.0), 1.5)[25:], 2.0, rtol=1e-12
    )


@settings(max_examples=20, deadline=None)
@given(shift=st.integers(0, 20), seed=st.integers(0, 2**31))
def test_convolving_samples_commutes_with_a_delay(shift, seed):
    x = np.random.default_rng(seed).standard_normal((40, 2))
    np.testing.assert_allclose(
        convolve_samples(delay(x, [shift]), 2.0),
        delay(convolve_samples(x, 2.0), [shift]),
        atol=1e-12,
    )


def test_samples_agree_with_events_that_last_one_volume():
    x = np.random.default_rng(0).standard_normal((80, 3))
    onset = frame_times(80, 2.0, 0.0)
    times = frame_times(80, 2.0)
    events = convolve_events(onset, np.full(80, 2.0), x, times, oversampling=400)
    samples = convolve_samples(x, 2.0, oversampling=400)
    # Events start on a grid of 5 ms; a response that rises over 5 s moves by 1e-3.
    np.testing.assert_allclose(samples, events, atol=5e-3 * np.abs(events).max())


def test_volume_means_weigh_events_by_the_part_of_the_volume_they_fill():
    means = volume_means(
        [1.0, 4.0, 6.5], [2.0, 0.0, 1.5], [[10.0], [1.0], [4.0]], frame_times(5, 2.0)
    )
    np.testing.assert_allclose(means[:, 0], [5, 5, 1, 3, 0])


@given(ref=st.floats(0, 1))
def test_volume_means_do_not_depend_on_the_slice_reference(ref):
    onset, duration, values = random_events(3, 12, 40.0)
    np.testing.assert_allclose(
        volume_means(
            onset, duration, values, frame_times(20, 2.0, ref), slice_time_ref=ref
        ),
        volume_means(
            onset, duration, values, frame_times(20, 2.0, 0.0), slice_time_ref=0.0
        ),
        atol=1e-9,
    )


def test_an_unknown_model_is_refused_with_the_known_ones():
    with pytest.raises(UsageError, match=r'one of "spm", "glover".*got \'boxcar\''):
        convolve_events([0.0], [0.0], [[1.0]], frame_times(9, 2.0), hrf="boxcar")


def test_frame_times_lie_at_the_reference_of_the_slices():
    np.testing.assert_allclose(frame_times(3, 2.0), [1, 3, 5])
    with pytest.raises(UsageError, match=r"slice_time_ref must lie in \[0, 1\]"):
        frame_times(3, 2.0, 1.5)
