"""Bins are plain means, as many as fit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromm.core import UsageError
from neuromm.prepare.time_bins import bin_times, time_bins


def grid(n_times, sfreq, tmin=0.0):
    return tmin + np.arange(n_times) / sfreq


@given(
    seed=st.integers(0, 2**31),
    n_times=st.integers(20, 200),
    width=st.integers(1, 20),
    step=st.floats(1, 15),
    offset=st.sampled_from([0.0, 1e4]),
)
def test_bins_equal_the_mean_of_their_samples(seed, n_times, width, step, offset):
    sfreq = 250.0
    data = offset + np.random.default_rng(seed).standard_normal((2, 3, n_times))
    times = grid(n_times, sfreq, -0.1)
    binned, centres = time_bins(data, times, 1e3 * width / sfreq, 1e3 * step / sfreq)
    starts = np.floor(np.arange(len(centres)) * step + 0.5 + 1e-6).astype(int)
    expected = [data[..., s : s + width].mean(-1) for s in starts]
    np.testing.assert_allclose(binned, np.stack(expected, -1), rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(
        centres, [times[s : s + width].mean() for s in starts], atol=1e-12
    )
    assert starts[-1] + width <= n_times < starts[-1] + width + step + 0.5


@pytest.mark.parametrize("sfreq", [1000.0, 2000.0, 2048.0, 512.0, 256.0, 128.0])
@pytest.mark.parametrize("seconds", [4.0, 4.2])
def test_the_number_of_bins_has_a_closed_form(sfreq, seconds):
    times = grid(int(seconds * sfreq) + 1, sfreq, -2.0)  # both ends, as MNE epochs
    expected = {4.0: 153, 4.2: 161}[seconds]  # floor((seconds - 0.2) / 0.025) + 1
    assert len(bin_times(times, 200, 25)) == expected


def test_bins_do_not_drift_from_their_step():
    centres = bin_times(grid(513, 128.0), 200, 25)  # 25 ms are 3.2 samples
    nominal = centres[0] + 0.025 * np.arange(len(centres))
    assert abs(centres - nominal).max() <= 0.5 / 128 + 1e-12


@given(seed=st.integers(0, 2**31), at=st.integers(0, 49), kind=st.sampled_from("ni"))
def test_a_missing_sample_reaches_its_own_windows_alone(seed, at, kind):
    data = np.random.default_rng(seed).standard_normal(50)
    spoilt = data.copy()
    spoilt[at] = {"n": np.nan, "i": np.inf}[kind]
    times = grid(50, 100.0)
    clean, _ = time_bins(data, times, 80, 30)
    binned, _ = time_bins(spoilt, times, 80, 30)
    starts = 3 * np.arange(len(binned))
    holds = (starts <= at) & (at < starts + 8)
    assert np.isnan(binned[holds]).all()
    np.testing.assert_allclose(binned[~holds], clean[~holds], atol=1e-12)


def test_without_a_window_every_sample_is_a_bin():
    data, times = np.arange(12.0).reshape(2, 6), grid(6, 10.0)
    binned, centres = time_bins(data, times, None)
    np.testing.assert_array_equal(binned, data)
    np.testing.assert_array_equal(centres, times)
    binned, centres = time_bins(data, times, None, 200)
    np.testing.assert_array_equal(binned, data[:, ::2])
    np.testing.assert_array_equal(centres, times[::2])


def test_without_a_step_windows_lie_side_by_side():
    binned, _ = time_bins(np.arange(6.0), grid(6, 10.0), 300)
    np.testing.assert_allclose(binned, [1, 4])


def test_the_data_are_not_changed():
    data = np.array([1.0, np.nan, 3.0])
    time_bins(data, grid(3, 10.0), 200, 100)
    np.testing.assert_array_equal(data, [1.0, np.nan, 3.0])


@pytest.mark.parametrize(
    ("window", "step", "message"),
    [
        (1, 100, "window of 1 ms is shorter than a sample"),
        (100, 1, "step of 1 ms is shorter than a sample"),
        (5000, 100, "window of 5000 ms does not fit into epochs of 1000 ms"),
    ],
)
def test_windows_that_cannot_be_are_refused(window, step, message):
    with pytest.raises(UsageError, match=message):
        time_bins(np.zeros(100), grid(100, 100.0), window, step)


def test_data_and_times_must_agree():
    with pytest.raises(ValueError, match="3 samples and 4 times"):
        time_bins(np.zeros(3), grid(4, 10.0), None)
