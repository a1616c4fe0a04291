"""Which shaft a contact sits on, and its number there, read from its name.

Clinical systems name a contact by the letters of its electrode and a number that
counts from the tip (depth electrodes) or along the strip. Names come with the
decorations of recording systems: ``POL A1``, ``EEG A1-Ref``, ``LA01``, ``AL-12``,
``A'3`` (the prime is the left hemisphere), ``mTAL3``.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from neuromm.core import DataError

__all__ = ["Contact", "bare_name", "contacts_by_shaft", "parse_contact"]

# Channel labels of EDF files: a type or "POL" before the name, the reference after it.
_PREFIX = re.compile(r"^(?:POL|EEG|SEEG|IEEG|ECOG)\s+", re.IGNORECASE)
_SUFFIX = re.compile(r"\s*[-_](?:REF\d*|ORG|AVG|AVR|CAR)$", re.IGNORECASE)
# A number on both sides of a hyphen: A1-A2, or A1-2 for short. AL-12 has one.
_DIFFERENCE = re.compile(r"\d'?\s*-.*\d")
_LAST_DIGITS = re.compile(r"^(?P<head>.*?)(?P<number>\d+)(?P<tail>\D*)$")


class Contact(NamedTuple):
    """A contact by its place: letters of the shaft, and the number along it."""

    shaft: str
    number: int


def bare_name(name: str) -> str:
    """The name without what the recording system puts around it.

    Examples
    --------
    >>> bare_name("EEG LA01-Ref")
    'LA01'
    """
    return _SUFFIX.sub("", _PREFIX.sub("", name.strip()))


def parse_contact(name: str) -> Contact | None:
    """Shaft and number of a contact.

    The last run of digits is the number; what is left, without the decorations of the
    recording system and without separators at its end, is the shaft. Upper and lower
    case are kept apart, and so is a prime.

    Parameters
    ----------
    name : str
        Name of a channel or an electrode.

    Returns
    -------
    contact : Contact or None
        None for a name without a number, and for the difference of two contacts
        (``A1-A2``, ``A1-2``), which is no contact.

    Examples
    --------
    >>> parse_contact("EEG LA01-Ref")
    Contact(shaft='LA', number=1)
    >>> parse_contact("A'3")
    Contact(shaft="A'", number=3)
    >>> parse_contact("A1-A2") is None
    True
    """
    bare = bare_name(name)
    match = _LAST_DIGITS.match(bare)
    if match is None or _DIFFERENCE.search(bare):
        return None
    shaft = match["head"].rstrip(" -_") + match["tail"].strip(" -_")
    return Contact(shaft, int(match["number"]))


def contacts_by_shaft(names: Sequence[str]) -> dict[str, dict[int, str]]:
    """Group the contacts by shaft.

    Parameters
    ----------
    names : sequence of str
        Channel names; names that are no contact are left out.

    Returns
    -------
    shafts : dict of str to dict of int to str
        Shaft to number to the name as given; shafts in the order of their first
        contact, numbers ascending.

    Raises
    ------
    DataError
        If two names mean the same contact, such as ``A1`` and ``POL A01``.
    """
    shafts: dict[str, dict[int, str]] = {}
    for name in names:
        contact = parse_contact(name)
        if contact is None:
            continue
        numbers = shafts.setdefault(contact.shaft, {})
        if contact.number in numbers:
            raise DataError(
                f"the channels {numbers[contact.number]!r} and {name!r} both read as "
                f"contact {contact.number} of shaft {contact.shaft!r}: rename one, or "
                "mark it as another channel type"
            )
        numbers[contact.number] = name
    return {shaft: dict(sorted(numbers.items())) for shaft, numbers in shafts.items()}
