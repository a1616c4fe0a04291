"""What a reference removes, and what it keeps."""

import mne
import numpy as np
import pytest

from neuromm.core import DataError, UsageError
from neuromm.prepare.reference import rereference

SFREQ = 100.0
EPS_V = 1e-17  # rounding of sums of signals of about 1e-4 V


def recording(names, types="seeg", *, bads=(), seed=0, n_times=50):
    rng = np.random.default_rng(seed)
    info = mne.create_info(list(names), SFREQ, types)
    raw = mne.io.RawArray(
        1e-4 * rng.standard_normal((len(names), n_times)), info, verbose="ERROR"
    )
    raw.info["bads"] = list(bads)
    return raw


def with_positions(raw, positions):
    for channel, position in zip(raw.info["chs"], positions, strict=True):
        channel["loc"][:3] = position
    return raw


@pytest.mark.parametrize("scheme", ["bipolar", "laplacian"])
def test_a_signal_common_to_a_shaft_vanishes(scheme):
    raw = recording(["A1", "A2", "A3", "A4", "B1", "B2", "B3"])
    common = raw.copy()
    common._data[:4] += 1e-3 * np.sin(np.arange(50))
    common._data[4:] += 5e-3
    np.testing.assert_allclose(
        rereference(common, scheme).get_data(),
        rereference(raw, scheme).get_data(),
        atol=1e-17,
        rtol=1e-10,
    )


def test_laplacian_is_the_contact_minus_the_mean_of_its_neighbours():
    raw = recording(["A1", "A2", "A3", "A5", "B7", "B8"])
    x = dict(zip(raw.ch_names, raw.get_data(), strict=True))
    derived = rereference(raw, "laplacian")
    assert derived.ch_names == ["A1", "A2", "A3", "B7", "B8"]  # A5 has no neighbour
    expected = [
        x["A1"] - x["A2"],
        x["A2"] - (x["A1"] + x["A3"]) / 2,
        x["A3"] - x["A2"],
        x["B7"] - x["B8"],
        x["B8"] - x["B7"],
    ]
    np.testing.assert_allclose(derived.get_data(), expected, atol=EPS_V)


def test_laplacian_of_a_linear_gradient_is_zero_inside_the_shaft():
    raw = recording(["A1", "A2", "A3", "A4", "A5"])
    raw._data[:] = 1e-5 * np.arange(5)[:, None]
    inside = rereference(raw, "laplacian").get_data()[1:-1]
    np.testing.assert_allclose(inside, 0, atol=EPS_V)


def test_bipolar_is_the_difference_of_successive_contacts_at_their_midpoint():
    raw = recording(["A3", "A1", "A2", "A10", "B1"])
    raw = with_positions(raw, np.arange(15.0).reshape(5, 3) ** 2 / 1e3)
    derived = rereference(raw, "bipolar")
    assert derived.ch_names == ["A1-A2", "A2-A3"]
    x = dict(zip(raw.ch_names, raw.get_data(), strict=True))
    np.testing.assert_allclose(
        derived.get_data(), [x["A1"] - x["A2"], x["A2"] - x["A3"]], atol=EPS_V
    )
    p = {ch["ch_name"]: ch["loc"][:3] for ch in raw.info["chs"]}
    q = {ch["ch_name"]: ch["loc"][:3] for ch in derived.info["chs"]}
    np.testing.assert_allclose(q["A1-A2"], (p["A1"] + p["A2"]) / 2)
    np.testing.assert_allclose(q["A2-A3"], (p["A2"] + p["A3"]) / 2)


def test_bipolar_agrees_with_mne():
    raw = recording(["A1", "A2", "A3"])
    peer = mne.set_bipolar_reference(raw, ["A1", "A2"], ["A2", "A3"], verbose="ERROR")
    derived = rereference(raw, "bipolar")
    np.testing.assert_allclose(
        derived.get_data(), peer.get_data(derived.ch_names), atol=EPS_V
    )


def test_names_of_recording_systems_become_bare_in_pairs():
    raw = recording(["EEG LA01-Ref", "EEG LA02-Ref"])
    assert rereference(raw, "bipolar").ch_names == ["LA01-LA02"]


def test_the_average_reference_sums_to_zero_in_each_type():
    raw = recording(
        ["Fp1", "Cz", "Oz", "A1", "A2"], ["eeg"] * 3 + ["seeg"] * 2, bads=["Oz"]
    )
    data = rereference(raw, "average").get_data()
    np.testing.assert_allclose(data[:2].sum(axis=0), 0, atol=EPS_V)
    np.testing.assert_allclose(data[3:].sum(axis=0), 0, atol=EPS_V)


def test_a_bad_channel_does_not_reach_the_good_ones():
    for scheme in ("average", "bipolar", "laplacian"):
        raw = recording(["A1", "A2", "A3", "A4", "A5", "A6"], bads=["A3"])
        spoilt = raw.copy()
        spoilt._data[2] = np.nan
        good = [n for n in rereference(raw, scheme).ch_names if n != "A3"]
        derived = rereference(spoilt, scheme)
        assert np.isfinite(derived.get_data(good)).all()
        if scheme == "average":
            assert derived.info["bads"] == ["A3"]
        else:
            assert derived.info["bads"] == []


def test_no_pair_bridges_a_bad_contact():
    raw = recording(["A1", "A2", "A3", "A4", "A5"], bads=["A2"])
    assert rereference(raw, "bipolar").ch_names == ["A3-A4", "A4-A5"]
    assert rereference(raw, "laplacian").ch_names == ["A3", "A4", "A5"]


@pytest.mark.parametrize("scheme", ["none", "average", "bipolar", "laplacian"])
def test_what_was_handed_is_not_changed(scheme):
    raw = recording(["A1", "A2", "A3", "ECG1"], ["seeg"] * 3 + ["ecg"], bads=["A3"])
    raw.set_annotations(mne.Annotations([0.1], [0.1], ["BAD_x"]))
    before = raw.copy()
    derived = rereference(raw, scheme)
    assert derived is not raw
    derived._data[:] = 0
    derived.info["bads"] = []
    np.testing.assert_array_equal(raw.get_data(), before.get_data())
    assert raw.info["bads"] == ["A3"]
    assert raw.ch_names == before.ch_names
    assert "ECG1" not in derived.ch_names
    assert derived.annotations.description.tolist() == ["BAD_x"]
    assert derived.first_samp == raw.first_samp
    assert derived.info["sfreq"] == SFREQ


def test_meg_keeps_its_values_under_the_average_reference():
    raw = recording(["M1", "E1", "E2"], ["mag", "eeg", "eeg"])
    np.testing.assert_array_equal(
        rereference(raw, "average").get_data("M1"), raw.get_data("M1")
    )


def test_a_grid_is_taken_as_a_line_with_a_warning():
    raw = recording([f"G{i}" for i in range(1, 65)], "ecog")
    with pytest.warns(UserWarning, match=r"'G' has 64 contacts and is probably a grid"):
        assert len(rereference(raw, "bipolar").ch_names) == 63


def test_scalp_electrodes_have_no_shaft():
    raw = recording(["F3", "F4"], "eeg")
    with pytest.raises(UsageError, match=r"only eeg channels.*type SEEG"):
        rereference(raw, "laplacian")


def test_a_bipolar_recording_is_not_differenced_again():
    raw = recording(["A1-A2", "A2-A3"])
    with pytest.raises(DataError, match="must not be differences already"):
        rereference(raw, "laplacian")


def test_one_good_channel_has_no_average():
    raw = recording(["A1", "A2"], bads=["A2"])
    with pytest.raises(DataError, match=r"at least two good seeg channels, got 1"):
        rereference(raw, "average")


def test_unknown_schemes_and_recordings_without_data_are_refused():
    with pytest.raises(UsageError, match="unknown reference scheme 'car'"):
        rereference(recording(["A1"]), "car")
    with pytest.raises(UsageError, match=r"no MEG, EEG or intracranial.*misc"):
        rereference(recording(["A1"], "misc"), "none")
