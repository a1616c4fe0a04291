"""Shaft and number are read from the names that recording systems write."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromm.core import DataError
from neuromm.prepare.shafts import bare_name, contacts_by_shaft, parse_contact

NAMES = {
    "HR1": ("HR", 1),
    "AL-12": ("AL", 12),
    "A'3": ("A'", 3),
    "A3'": ("A'", 3),
    "LA01": ("LA", 1),
    "POL A1": ("A", 1),
    "POL A'14": ("A'", 14),
    "EEG A1-Ref": ("A", 1),
    "EEG LAH10-REF": ("LAH", 10),
    "mTAL3": ("mTAL", 3),
    "G12": ("G", 12),
    "T1 b2": ("T1 b", 2),
    "7": ("", 7),
    "LOF_5": ("LOF", 5),
}


@pytest.mark.parametrize(("name", "expected"), NAMES.items())
def test_the_last_run_of_digits_is_the_number_and_the_rest_the_shaft(name, expected):
    assert parse_contact(name) == expected


@pytest.mark.parametrize("name", ["A1-A2", "PHR1-2", "A'1-A'2", "AL-1-AL-2", "Cz", ""])
def test_differences_and_names_without_a_number_are_no_contacts(name):
    assert parse_contact(name) is None


@given(
    shaft=st.from_regex(r"[A-Z]{1,3}[a-z]?'?", fullmatch=True),
    number=st.integers(1, 99),
    form=st.sampled_from(["{}{}", "{}{:02d}", "{}-{}", "POL {}{}", "EEG {}{}-Ref"]),
)
def test_decorations_do_not_change_the_contact(shaft, number, form):
    assert parse_contact(form.format(shaft, number)) == (shaft, number)


def test_bare_names_keep_the_digits_as_written():
    assert bare_name("EEG LA01-Ref") == "LA01"
    assert bare_name("AL-12") == "AL-12"


def test_contacts_are_sorted_by_number_and_keep_their_names():
    shafts = contacts_by_shaft(["B2", "A10", "A9", "ECG", "B1"])
    assert list(shafts) == ["B", "A"]
    assert list(shafts["A"].items()) == [(9, "A9"), (10, "A10")]
    assert list(shafts["B"].items()) == [(1, "B1"), (2, "B2")]


def test_two_names_of_one_contact_are_refused():
    with pytest.raises(DataError, match=r"'A1' and 'POL A01' both read as contact 1"):
        contacts_by_shaft(["A1", "POL A01"])
