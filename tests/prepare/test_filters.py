"""Line noise goes, its neighbours stay, and high gamma follows its envelope."""

import mne
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromm.core import UsageError
from neuromm.prepare.filters import band_pass, high_gamma, line_harmonics, notch

SFREQ = 500.0


def recording(data, *, sfreq=SFREQ, types="seeg", line_freq=None):
    data = np.atleast_2d(data)
    info = mne.create_info([f"A{i + 1}" for i in range(len(data))], sfreq, types)
    info["line_freq"] = line_freq
    return mne.io.RawArray(data.copy(), info, verbose="ERROR")


def sinusoids(frequencies, *, seconds=20.0, sfreq=SFREQ):
    times = np.arange(int(seconds * sfreq)) / sfreq
    return times, 1e-4 * np.sin(2 * np.pi * np.outer(frequencies, times))


def gain_db(raw, filtered, margin_s=4.0):
    inner = slice(int(margin_s * SFREQ), -int(margin_s * SFREQ))
    before, after = raw.get_data()[:, inner], filtered.get_data()[:, inner]
    return 20 * np.log10(after.std(axis=1) / before.std(axis=1))


@given(
    line_freq=st.sampled_from([50.0, 60.0, 16.7]),
    sfreq=st.floats(20, 5000, allow_nan=False),
)
def test_harmonics_are_all_multiples_below_their_limit(line_freq, sfreq):
    expected = [
        k * line_freq for k in range(1, 400) if k * line_freq < 0.45 * sfreq - 1e-9
    ]
    np.testing.assert_allclose(line_harmonics(line_freq, sfreq), expected)


def test_line_noise_is_removed_and_its_neighbours_are_kept():
    lines, neighbours = [50.0, 100.0, 150.0, 200.0], [47.0, 53.0, 97.0, 103.0, 20.0]
    _, data = sinusoids([*lines, *neighbours])
    raw = recording(data)
    gains = gain_db(raw, notch(raw, 50))
    assert (gains[:4] < -40).all()
    assert (abs(gains[4:]) < 0.5).all()


def test_the_line_frequency_of_the_recording_is_used_where_none_is_given():
    _, data = sinusoids([60.0])
    raw = recording(data, line_freq=60.0)
    np.testing.assert_array_equal(notch(raw).get_data(), notch(raw, 60.0).get_data())
    assert notch(raw).get_data()[:, 2000:-2000].std() < 1e-2 * data.std()


def test_an_unknown_line_frequency_is_asked_for():
    raw = recording(np.zeros((1, 1000)))
    with pytest.raises(UsageError, match=r"give --line-freq 50"):
        notch(raw)
    with pytest.raises(UsageError, match=r"must be positive, got -50"):
        notch(raw, -50)


def test_a_recording_too_slow_for_the_line_comes_back_as_it_is():
    raw = recording(np.random.default_rng(0).standard_normal((1, 900)), sfreq=90)
    np.testing.assert_array_equal(notch(raw, 50).get_data(), raw.get_data())


def test_in_a_short_recording_the_line_is_still_removed():
    _, data = sinusoids([50.0], seconds=3.0)
    raw = recording(data)
    middle = notch(raw, 50).get_data()[:, 500:-500]
    assert middle.std() < 1e-2 * data.std()


def test_the_other_side_of_an_interruption_does_not_reach_a_filter():
    rng = np.random.default_rng(1)
    first = recording(1e-5 * rng.standard_normal((2, 4000)))
    second = recording(1e-2 * (1 + rng.standard_normal((2, 4000))))
    joined = mne.concatenate_raws([first.copy(), second.copy()], verbose="ERROR")
    for function in (
        lambda raw: notch(raw, 50),
        lambda raw: band_pass(raw, 1.0, 40.0),
        high_gamma,
    ):
        np.testing.assert_array_equal(
            function(joined).get_data(stop=4000), function(first).get_data()
        )
        np.testing.assert_array_equal(
            function(joined).get_data(start=4000), function(second).get_data()
        )


def test_spans_that_were_not_stored_are_left_alone():
    rng = np.random.default_rng(1)
    data = rng.standard_normal((1, 9000))
    data[:, 4000:5000] = 0
    raw = recording(data)
    raw.set_annotations(mne.Annotations([8.0], [2.0], ["BAD_ACQ_SKIP"]))
    filtered = band_pass(raw, 1.0, 40.0).get_data()
    assert (filtered[:, 4000:5000] == 0).all()
    np.testing.assert_array_equal(
        filtered[:, :4000], band_pass(recording(data[:, :4000]), 1.0, 40.0).get_data()
    )


def test_a_stretch_too_short_to_filter_is_kept_and_said_so(caplog):
    rng = np.random.default_rng(1)
    data = rng.standard_normal((1, 5000))
    raw = recording(data)
    raw.set_annotations(mne.Annotations([9.8], [0.0], ["EDGE boundary"]))
    filtered = notch(raw, 50).get_data()
    np.testing.assert_array_equal(filtered[:, 4900:], data[:, 4900:])
    assert "0.20 s between two interruptions is too short" in caplog.text


def test_a_band_keeps_what_lies_in_it():
    _, data = sinusoids([5.0, 20.0, 60.0])
    raw = recording(data)
    gains = gain_db(raw, band_pass(raw, 8.0, 40.0))
    assert gains[0] < -40
    assert abs(gains[1]) < 0.1
    assert gains[2] < -40


def test_band_pass_agrees_with_mne():
    raw = recording(np.random.default_rng(0).standard_normal((2, 5000)))
    peer = raw.copy().filter(2.0, 40.0, verbose="ERROR")
    np.testing.assert_allclose(
        band_pass(raw, 2.0, 40.0).get_data(), peer.get_data(), atol=1e-12
    )


def test_high_gamma_recovers_the_envelope_of_its_carrier():
    times = np.arange(10_000) / SFREQ
    envelope = 1 + 0.5 * np.sin(2 * np.pi * 2 * times) + 0.3 * np.cos(2 * np.pi * times)
    slow = 20e-5 * np.sin(2 * np.pi * 8 * times)  # 20 times the carrier
    raw = recording(1e-5 * envelope * np.sin(2 * np.pi * 100 * times) + slow)
    amplitude = np.exp(high_gamma(raw).get_data()[0])
    inner = slice(250, -250)
    assert np.corrcoef(amplitude[inner], envelope[inner])[0, 1] > 0.99
    np.testing.assert_allclose(amplitude[inner], 1e-5 * envelope[inner], rtol=0.02)


@given(gain=st.floats(1e-3, 1e3))
def test_high_gamma_shifts_by_the_logarithm_of_the_gain(gain):
    data = np.random.default_rng(3).standard_normal((1, 1500))
    shift = (
        high_gamma(recording(gain * data)).get_data()
        - high_gamma(recording(data)).get_data()
    )
    np.testing.assert_allclose(shift, np.log(gain), atol=1e-6)


def test_high_gamma_of_a_flat_channel_is_finite():
    assert np.isfinite(high_gamma(recording(np.zeros((1, 2000)))).get_data()).all()


@pytest.mark.parametrize("band", [(70.0, 150.0), (70.0, 125.0)])
def test_a_band_above_nyquist_is_refused(band):
    raw = recording(np.zeros((1, 1000)), sfreq=250)
    with pytest.raises(UsageError, match=r"recording has 250 Hz"):
        high_gamma(raw, band)


def test_a_band_that_descends_is_refused():
    with pytest.raises(UsageError, match="must ascend"):
        band_pass(recording(np.zeros((1, 1000))), 40.0, 1.0)


def test_filters_leave_their_input_and_other_channels_as_they_were():
    rng = np.random.default_rng(0)
    raw = recording(rng.standard_normal((3, 4000)), types=["seeg", "seeg", "stim"])
    raw.info["bads"] = ["A2"]
    before = raw.get_data()
    for filtered in (notch(raw, 50), band_pass(raw, 1, 40), high_gamma(raw)):
        np.testing.assert_array_equal(raw.get_data(), before)
        np.testing.assert_array_equal(filtered.get_data()[2], before[2])
        assert (filtered.get_data()[:2] != before[:2]).any(axis=1).all()
        assert filtered.info["bads"] == ["A2"]
