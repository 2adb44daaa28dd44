"""Telephone numbers as people write them, as they are dialled (ITU-T E.164). Pure."""

from __future__ import annotations

import re
from typing import Final

from schemas.errors import Invalid

_DIGITS: Final = str.maketrans("٠١٢٣٤٥٦٧٨٩۰۱۲۳۴۵۶۷۸۹", "01234567890123456789")
_BETWEEN: Final = re.compile(r"[\s().\-/\u200e\u200f\u2066-\u2069]+")
_EGYPT: Final = re.compile(
    r"\+20(?:1[0125][0-9]{8}|2[2-9][0-9]{7}|3[2-9][0-9]{6}|(?:1[35]|4[05678]|5[057]|6[245689]|8[2468]|9[235678])[2-9][0-9]{6})\Z"
)
"""Mobile numbers of the four networks; Cairo, Alexandria and the governorates, with the digits that each has."""
_BARE: Final = re.compile(r"(?:20)?1[0125][0-9]{8}\Z")
"""A mobile number whose leading zero, or plus, was lost in a table."""
_E164: Final = re.compile(r"\+[1-9][0-9]{7,14}\Z")
SHOWN: Final = 3
"""Last digits that may be shown to who must know their own number."""


def plain(text: str) -> str:
    """As it was typed, without what stands between the digits, which are ASCII."""
    return _BETWEEN.sub("", text.translate(_DIGITS))


def e164(text: str, country: str = "20") -> str:
    """`+201001234567` of `0100 123 4567`, `٠١٠٠١٢٣٤٥٦٧` or `0020…`; `country` is of numbers that name none.

    Raises Invalid(`phone`), which does not quote it.
    """
    number = plain(text)
    if number.startswith("00"):
        number = "+" + number[2:]
    elif number.startswith("0"):
        number = f"+{country}{number[1:]}"
    if not _E164.match(number):
        raise Invalid("phone", "this is no telephone number: +20 100 123 4567, or 0100 123 4567")
    return number


def checked(text: str, country: str = "20") -> str:
    """The same of a number that somebody types now: one of Egypt must have a form that is given out there.

    Raises Invalid(`phone`), which does not quote it.
    """
    bare = plain(text)
    if country == "20" and _BARE.match(bare):
        text = f"+20{bare.removeprefix('20')}"
    number = e164(text, country)
    if number.startswith("+20") and not _EGYPT.match(number):
        raise Invalid("phone", "this is no Egyptian telephone number: 0100 123 4567, 02 2345 6789")
    return number


def masked(number: str) -> str:
    """`…567`."""
    return f"…{number[-SHOWN:]}" if number else ""
