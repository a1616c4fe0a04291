"""References, filters and epochs on recordings of brains."""

import mne
import numpy as np
import pandas as pd
import pytest

from neuromm import io
from neuromm.prepare import (
    SensorSpace,
    band_pass,
    epoch_responses,
    event_epochs,
    high_gamma,
    notch,
    rereference,
)

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def depth(data_folder):
    folder = data_folder / "ieeg" / "zurich_hfo_bids"
    return io.load(next(folder.rglob("*_ieeg.vhdr"))).data


@pytest.fixture(scope="module")
def scalp(data_folder):
    path = data_folder / "eeg" / "eeglab_visual_attention" / "eeglab_data.set"
    raw = io.load(path, modality="eeg").data
    wanted = raw.annotations.description == "square"
    events = pd.DataFrame(
        {"onset": raw.annotations.onset[wanted], "trial_type": "square"}
    )
    return raw, events


# Contacts on each shaft of the recording.
SHAFTS = {"IAR": 6, "IPR": 4, "AHR": 8, "AL": 8, "AR": 8, "HL": 8, "PHR": 8}


def test_a_shaft_of_n_contacts_has_n_minus_1_pairs_and_n_laplacians(depth):
    pairs = rereference(depth, "bipolar").ch_names
    local = rereference(depth, "laplacian").ch_names
    assert local == depth.ch_names
    assert len(pairs) == sum(n - 1 for n in SHAFTS.values())
    for shaft, n_contacts in SHAFTS.items():
        expected = [f"{shaft}{i}-{shaft}{i + 1}" for i in range(1, n_contacts)]
        assert [name for name in pairs if name in expected] == expected


def test_local_references_remove_what_the_contacts_share(depth):
    def shared(raw):
        return np.median(np.abs(np.corrcoef(raw.get_data())))

    raw = depth.copy().load_data()
    assert shared(rereference(depth, "bipolar")) < 0.5 * shared(raw)
    assert shared(rereference(depth, "laplacian")) < 0.5 * shared(raw)


def test_the_notch_lowers_the_line_and_leaves_the_rest(depth):
    raw = depth.copy().load_data(verbose="ERROR")
    filtered = notch(depth)  # 50 Hz, as the sidecar says
    frequencies = np.fft.rfftfreq(raw.n_times, 1 / raw.info["sfreq"])

    def power(recording, frequency):
        spectrum = np.fft.rfft(recording.get_data() * np.hanning(raw.n_times))
        near = abs(frequencies - frequency) < 0.6
        return (np.abs(spectrum[:, near]) ** 2).sum(axis=1)

    def change_db(frequency):
        ratio = power(filtered, frequency) / power(raw, frequency)
        return 10 * np.log10(np.median(ratio))

    assert all(change_db(line) < -10 for line in (50, 150, 250))
    assert all(abs(change_db(other)) < 0.1 for other in (20, 45, 55, 120, 180))


def test_high_gamma_rises_where_fast_ripples_were_marked(depth):
    amplitude = high_gamma(rereference(depth, "bipolar"), band=(80, 250))
    values = amplitude.get_data()
    z = (values - values.mean(axis=1, keepdims=True)) / values.std(axis=1)[:, None]
    inside = []
    for mark in depth.annotations:  # such as ripple_AHR3-4
        first, _, second = mark["description"].partition("_")[2].partition("-")
        shaft = first.rstrip("0123456789")
        row = amplitude.ch_names.index(f"{first}-{shaft}{second}")
        start = round(mark["onset"] * 2000)
        stop = start + round(mark["duration"] * 2000)
        inside.append(z[row, start:stop].mean())
    assert len(inside) == 68
    # Under no relation the mean of 68 spans would lie within 3 / sqrt(68) of zero.
    assert np.mean(inside) > 3 / np.sqrt(68)


def test_squares_evoke_a_late_response_of_some_microvolts(scalp):
    raw, events = scalp
    clean = band_pass(rereference(raw, "average"), 1.0, 30.0)
    epochs, kept = event_epochs(
        clean, events, tmin=-0.2, tmax=0.8, baseline=(None, 0.0)
    )
    assert len(epochs) == len(kept) == 80
    evoked = epochs.average()
    strength = 1e6 * evoked.data.std(axis=0)  # over sensors, in uV
    before, late = evoked.times < 0, (evoked.times > 0.25) & (evoked.times < 0.45)
    assert 3 < strength[late].max() < 30
    assert strength[late].mean() > 2 * strength[before].mean()
    # Halves of the trials agree on the response.
    halves = [epochs[first::2].average().data[:, late].ravel() for first in (0, 1)]
    assert np.corrcoef(*halves)[0, 1] > 0.7


def test_epochs_agree_with_mne_on_a_real_recording(scalp):
    raw, events = scalp
    epochs, _ = event_epochs(raw, events, tmin=-0.2, tmax=0.8)
    rows, _ = mne.events_from_annotations(raw, {"square": 1}, verbose="ERROR")
    peer = mne.Epochs(
        raw, rows, tmin=-0.2, tmax=0.8, baseline=None, preload=True, verbose="ERROR"
    )
    np.testing.assert_array_equal(epochs.events, peer.events)
    np.testing.assert_array_equal(epochs.get_data(), peer.get_data())


@pytest.mark.parametrize(
    ("name", "n_channels", "units", "frame"),
    [
        ("sample_audvis_trunc_raw_sss.fif", 366, "T, T/m, V", "head"),
        ("141027_cropped_90Hz_raw.fif", 306, "T, T/m", None),
        ("mne_io_tests/test_ctf_comp_raw.fif", 274, "T", "head"),
    ],
)
def test_meg_becomes_responses_and_returns(data_folder, name, n_channels, units, frame):
    raw = io.load(data_folder / "meg" / name, modality="meg").data
    raw = raw.copy().pick(["meg", "eeg"], exclude=())
    middle = raw.n_times / raw.info["sfreq"] / 2
    events = pd.DataFrame({"onset": [middle]})
    epochs, kept = event_epochs(raw, events, tmin=-0.05, tmax=0.05)
    space = SensorSpace(epochs.info, epochs.times)
    responses = epoch_responses(epochs, kept, space=space, window_ms=None)
    assert len(space.channels) == n_channels
    assert responses.attrs["units"] == units
    assert space.coordinate_frame == frame
    if frame:
        # A helmet is within 300 mm of the middle of the head, and not within 30.
        places = space.coords()[["x", "y", "z"]].to_numpy()
        radius = np.linalg.norm(places, axis=1)
        assert (radius > 30).all()
        assert (radius < 300).all()
    evoked = space.to_native(responses.values[0])
    np.testing.assert_array_equal(evoked.data, epochs.get_data()[0])
