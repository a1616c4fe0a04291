"""Contacts keep their place, and pairs lie between their two contacts."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromm.core import DataError, TargetSpace
from neuromm.prepare.contact_space import ContactSpace

FRAME = "MNI152NLin2009cAsym"


def electrodes(names=("A1", "A2", "AL-3", "AL-4"), **columns):
    places = np.arange(3.0 * len(names)).reshape(-1, 3) ** 2
    return pd.DataFrame(
        {"name": names, **dict(zip("xyz", places.T, strict=True)), **columns}
    )


def places(space):
    return space.coords().set_index("target")[["x", "y", "z"]]


def test_contact_space_is_a_target_space():
    space = ContactSpace(electrodes(), FRAME)
    assert isinstance(space, TargetSpace)
    assert space.coordinate_frame == FRAME
    assert space.n_targets == 4


def test_channels_find_their_electrode_whatever_the_recording_system_wrote():
    table = electrodes()
    by_name = table.set_index("name")
    names = ["POL AL3", "EEG A02-Ref", "A1", "X7"]
    found = places(ContactSpace(table, FRAME, ch_names=names))
    assert found.index.tolist() == names
    for name, electrode in zip(names, ["AL-3", "A2", "A1"], strict=False):
        np.testing.assert_array_equal(
            found.loc[name], by_name.loc[electrode, ["x", "y", "z"]]
        )
    assert found.loc["X7"].isna().all()


def test_pairs_lie_at_the_midpoint_of_their_contacts():
    table = electrodes()
    by_name = table.set_index("name")[["x", "y", "z"]]
    names = ["A1-A2", "AL-3-AL-4", "A2-A9"]
    found = places(ContactSpace(table, FRAME, ch_names=names))
    np.testing.assert_allclose(found.loc["A1-A2"], by_name.iloc[:2].mean())
    np.testing.assert_allclose(found.loc["AL-3-AL-4"], by_name.iloc[2:].mean())
    assert found.loc["A2-A9"].isna().all()


def test_a_place_of_two_electrodes_names_neither():
    table = electrodes(["A1", "A01"])
    found = places(ContactSpace(table, FRAME, ch_names=["A1", "POL A001"]))
    np.testing.assert_array_equal(found.loc["A1"], table.loc[0, ["x", "y", "z"]])
    assert found.loc["POL A001"].isna().all()


def test_a_prime_is_another_shaft():
    found = places(ContactSpace(electrodes(["A'1", "A2"]), None, ch_names=["A1"]))
    assert found.loc["A1"].isna().all()


@given(seed=st.integers(0, 2**31), n_times=st.integers(1, 6))
def test_values_return_to_their_contact_and_time(seed, n_times):
    space = ContactSpace(electrodes(), FRAME, 0.025 * np.arange(n_times))
    values = np.random.default_rng(seed).standard_normal(space.n_targets)
    values[-1] = np.nan
    table = space.to_native(values)
    matrix = table.pivot(index="channel", columns="time", values="value")
    np.testing.assert_array_equal(
        matrix.loc[list(space.channels)], values.reshape(4, n_times)
    )
    assert table["target"].tolist() == space.coords()["target"].tolist()


def test_further_columns_of_the_electrodes_return_with_the_values():
    table = electrodes(group=["A", "A", "AL", "AL"], size=[1.0, 1.0, 2.0, 2.0])
    space = ContactSpace(table, FRAME, ch_names=["A1-A2", "A2-AL-3", "X1"])
    native = space.to_native(np.array([1.0, 2.0, 3.0]))
    assert native["group"].tolist() == ["A", None, None]
    assert native["value"].tolist() == [1, 2, 3]
    assert native["size"][0] == 1.0


def test_electrodes_are_not_changed():
    table = electrodes()
    before = table.copy(deep=True)
    space = ContactSpace(table, FRAME, [0.0, 0.1])
    native = space.to_native(np.zeros(8))
    native.loc[0, "x"] = 99
    pd.testing.assert_frame_equal(table, before)
    table.loc[0, "x"] = 99
    assert space.coords()["x"][0] != 99


def test_tables_that_cannot_be_contacts_are_refused():
    with pytest.raises(DataError, match="missing: z"):
        ContactSpace(electrodes().drop(columns="z"), FRAME)
    with pytest.raises(DataError, match=r"each electrode must occur once.*A1"):
        ContactSpace(electrodes(["A1", "A1"]), FRAME)
    with pytest.raises(DataError, match=r"each channel must occur once.*A2"):
        ContactSpace(electrodes(), FRAME, ch_names=["A2", "A2"])
    with pytest.raises(ValueError, match=r"each of 4 targets.*\(5,\)"):
        ContactSpace(electrodes(), FRAME).to_native(np.zeros(5))
