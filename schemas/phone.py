"""Telephone numbers as people write them, as they are dialled (ITU-T E.164). Pure."""

from __future__ import annotations

import re
from typing import Final

from schemas.errors import Invalid

_DIGITS: Final = str.maketrans("٠١٢٣٤٥٦٧٨٩۰۱۲۳۴۵۶۷۸۹", "01234567890123456789")
_BETWEEN: Final = re.compile(r"[\s().\-/\u200e\u200f\u2066-\u2069]+")
_E164: Final = re.compile(r"\+[1-9][0-9]{7,14}\Z")
SHOWN: Final = 3
"""Last digits that may be shown to who must know their own number."""


def e164(text: str, country: str = "20") -> str:
    """`+201001234567` of `0100 123 4567`, `٠١٠٠١٢٣٤٥٦٧` or `0020…`; `country` is of numbers that name none.

    Raises Invalid(`phone`), which does not quote it.
    """
    number = _BETWEEN.sub("", text.translate(_DIGITS))
    if number.startswith("00"):
        number = "+" + number[2:]
    elif number.startswith("0"):
        number = f"+{country}{number[1:]}"
    if not _E164.match(number):
        raise Invalid("phone", "this is no telephone number: +20 100 123 4567, or 0100 123 4567")
    return number


def masked(number: str) -> str:
    """`…567`."""
    return f"…{number[-SHOWN:]}" if number else ""
