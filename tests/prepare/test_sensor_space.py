"""Sensors keep their place in the head and their order."""

import mne
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromm.core import TargetSpace, UsageError
from neuromm.prepare.sensor_space import SensorSpace

POSITIONS_M = {
    "TP9": (-0.07, -0.04, -0.01),
    "AF7": (-0.05, 0.07, 0.03),
    "AF8": (0.05, 0.07, 0.03),
    "TP10": (0.07, -0.04, -0.01),
    "Cz": (0.0, 0.0, 0.12),
}


def cap(names=("TP9", "AF7", "AF8", "TP10"), *, montage=True):
    info = mne.create_info(list(names), 256.0, "eeg")
    if montage:
        positions = {name: POSITIONS_M[name] for name in names}
        info.set_montage(mne.channels.make_dig_montage(positions, coord_frame="head"))
    return info


def test_sensor_space_is_a_target_space():
    assert isinstance(SensorSpace(cap()), TargetSpace)


def test_positions_are_in_millimetres_in_the_head():
    space = SensorSpace(cap())
    table = space.coords()
    assert space.coordinate_frame == "head"
    assert table["target"].tolist() == ["TP9", "AF7", "AF8", "TP10"]
    expected = 1e3 * np.array([POSITIONS_M[name] for name in table["target"]])
    # MNE keeps positions in single precision.
    np.testing.assert_allclose(table[["x", "y", "z"]], expected, atol=1e-4)


def test_unknown_positions_are_nan_and_have_no_frame():
    space = SensorSpace(cap(montage=False))
    assert space.coords()[["x", "y", "z"]].isna().all(axis=None)
    assert space.coordinate_frame is None


def test_meg_sensors_are_brought_from_the_device_to_the_head():
    info = mne.create_info(["M1", "M2"], 100.0, "mag")
    from mne.io.constants import FIFF

    for channel, place in zip(info["chs"], [(0.1, 0, 0), (0, 0, 0.1)], strict=True):
        channel["loc"][:3] = place
        channel["coord_frame"] = FIFF.FIFFV_COORD_DEVICE
    assert SensorSpace(info).coordinate_frame is None
    shift = np.eye(4)
    shift[:3, 3] = 0, 0, 0.04
    with info._unlock():
        info["dev_head_t"] = mne.transforms.Transform("meg", "head", shift)
    places = SensorSpace(info).coords()[["x", "y", "z"]].to_numpy()
    np.testing.assert_allclose(places, [[100, 0, 40], [0, 0, 140]], atol=1e-9)


def test_targets_are_sensors_by_times():
    space = SensorSpace(cap(["TP9", "Cz"]), times=[-0.1, 0.0, 0.18])
    table = space.coords()
    assert space.n_targets == len(table) == 6
    assert table["target"].tolist()[:4] == [
        "TP9@-0.100",
        "TP9@0.000",
        "TP9@0.180",
        "Cz@-0.100",
    ]
    assert table["channel"].tolist() == ["TP9"] * 3 + ["Cz"] * 3
    np.testing.assert_array_equal(table["time"], [-0.1, 0, 0.18] * 2)


@given(step=st.floats(1e-6, 0.1), tmin=st.floats(-1, 1), n_times=st.integers(1, 300))
def test_names_are_unique_however_fine_the_times(step, tmin, n_times):
    space = SensorSpace(cap(["TP9", "Cz"]), tmin + step * np.arange(n_times))
    assert space.coords()["target"].is_unique


def test_times_around_zero_have_no_minus_zero():
    space = SensorSpace(cap(["Cz"]), [-0.0001, 0.1])
    assert space.coords()["target"].tolist() == ["Cz@0.000", "Cz@0.100"]


@given(seed=st.integers(0, 2**31), n_times=st.integers(1, 20))
def test_values_return_to_their_sensor_and_time(seed, n_times):
    times = -0.0875 + 0.025 * np.arange(n_times)
    space = SensorSpace(cap(), times)
    values = np.random.default_rng(seed).standard_normal(space.n_targets)
    values[0] = np.nan
    evoked = space.to_native(values)
    np.testing.assert_allclose(evoked.times, times, atol=1e-12)
    table = space.coords()
    for row in (0, len(table) // 2, len(table) - 1):
        channel = evoked.ch_names.index(table["channel"][row])
        sample = np.argmin(abs(evoked.times - table["time"][row]))
        np.testing.assert_array_equal(evoked.data[channel, sample], values[row])


def test_without_times_the_evoked_has_one_sample():
    evoked = SensorSpace(cap()).to_native(np.arange(4.0))
    assert evoked.data.shape == (4, 1)
    assert evoked.times.tolist() == [0.0]
    assert evoked.get_montage() is not None


def test_the_info_is_not_changed_and_other_types_are_left_out():
    info = mne.create_info(["Cz", "EOG"], 256.0, ["eeg", "eog"])
    space = SensorSpace(info, [0.0, 0.1])
    space.to_native(np.zeros(2)).info["bads"] = ["Cz"]
    assert space.channels == ("Cz",)
    assert info["sfreq"] == 256.0
    assert info["bads"] == []
    with pytest.raises(UsageError, match="needs MEG, EEG or intracranial"):
        SensorSpace(mne.create_info(["EOG"], 256.0, "eog"))


def test_values_of_another_number_and_descending_times_are_refused():
    with pytest.raises(ValueError, match=r"each of 4 targets.*\(3,\)"):
        SensorSpace(cap()).to_native(np.zeros(3))
    with pytest.raises(ValueError, match="ascend"):
        SensorSpace(cap(), [0.1, 0.0])
