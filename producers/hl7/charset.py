"""The character set of a message: as MSH-18 says (HL7 v2.5.1 table 0211), else by what its bytes show. Pure.

Most systems of the region leave MSH-18 empty, or say ASCII or 8859/1 whatever they write. UTF-8 is told by its form. Of
windows-1256 and ISO 8859-6 the one in which the Arabic words look like Arabic is taken: half of the letters lie at
other bytes, where the other set has accented Latin letters, diacritics or nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

STATED: Final[Mapping[str, str]] = {
    "UNICODE UTF-8": "utf-8",
    "UTF-8": "utf-8",
    "UTF8": "utf-8",
    "8859/6": "iso-8859-6",
    "ISO-8859-6": "iso-8859-6",
    "ISO8859-6": "iso-8859-6",
    "WINDOWS-1256": "cp1256",
    "CP1256": "cp1256",
    "8859/2": "iso-8859-2",
    "8859/5": "iso-8859-5",
    "8859/7": "iso-8859-7",
    "8859/8": "iso-8859-8",
    "8859/9": "iso-8859-9",
    "8859/15": "iso-8859-15",
}
"""MSH-18 → codec. ASCII and 8859/1 are not here: they are what is written when nobody thought of it."""
_LATIN: Final = frozenset({"8859/1", "ISO-8859-1"})

ARABIC: Final = ("cp1256", "iso-8859-6")
"""Candidates, the commoner first: it is taken when both look the same."""
_COMMON: Final = frozenset("اليمونرتبةعسدفهكقحأجشطصخذضغئزثءظإآىؤ")
_DIACRITICS: Final = re.compile(r"[\u064b-\u0652]")
_WORD: Final = re.compile(r"[\u0621-\u0652À-ÿœŒƒ\u0679-\u06d2\ufffd×÷]+")
_STATED_AT: Final = 17
"""Fields between MSH and MSH-18."""


def decode(data: bytes) -> tuple[str, str]:
    """(text, codec). What no set explains is replaced (U+FFFD): a report with a strange letter is still a report."""
    body = data.removeprefix(b"\xef\xbb\xbf")
    stated = _stated(body)
    codec = STATED.get(stated, "")
    if codec and (text := _strictly(body, codec)) is not None:
        return text, codec
    if (text := _strictly(body, "utf-8")) is not None:
        return text, "utf-8"
    candidates = {codec: body.decode(codec, "replace") for codec in ARABIC}
    best = max(ARABIC, key=lambda codec: _arabic(candidates[codec]))
    if stated in _LATIN and _arabic(candidates[best]) <= 0:
        return body.decode("iso-8859-1"), "iso-8859-1"
    return candidates[best], best


def _strictly(data: bytes, codec: str) -> str | None:
    try:
        return data.decode(codec)
    except UnicodeDecodeError:
        return None


def _stated(data: bytes) -> str:
    """MSH-18, its first repetition; separators of MSH are ASCII in every set taken here."""
    header = re.split(rb"[\r\n]", data, maxsplit=1)[0]
    fields = header.split(header[3:4]) if len(header) > 5 else []
    raw = fields[_STATED_AT] if len(fields) > _STATED_AT else b""
    return raw.split(header[5:6] or b"~")[0].decode("ascii", "replace").strip().upper()


def _arabic(text: str) -> float:
    """How much its words beyond ASCII look like Arabic."""
    score = 0.0
    for word in _WORD.findall(text):
        score += sum(1.0 if c in _COMMON else -2.0 for c in _DIACRITICS.sub("", word))
        score -= 1.5 * len(_DIACRITICS.findall(word))  # in reports nobody writes them
        score += 2.0 if word.startswith(("ال", "وال", "بال", "لل")) else 0.0
        score += 1.0 if word.endswith(("ة", "ية", "ين", "ات", "ي")) else 0.0
    return score
