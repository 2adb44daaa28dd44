"""Which way a paragraph runs, and what in it must not be turned around (UAX #9). Pure.

In an Arabic line `12 × 9 mm` would be laid out as `mm 9 × 12`, `≥ 3` with its sign mirrored, `L4-L5` with its ends
exchanged: the bidirectional algorithm takes signs between numbers for the line's own. So every run of Latin words and
numbers stands between U+2066 and U+2069. Directional controls that came with a text are left out: they could make it
read as something else than it says.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final, Literal

Direction = Literal["rtl", "ltr"]

LRI, PDI = "\u2066", "\u2069"
NO_BREAK: Final = "\u00a0"
TOGETHER_MAX: Final = 24
"""Letters of a figure with its unit that no line's end parts."""
_CONTROLS: Final = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069\u061c]")
_LETTER: Final = "A-Za-z\u00c0-\u024f\u0370-\u03ff\u00b5"
_SIGN: Final = r"(?:[<>≤≥±~≈+−-] ?)?"
_TOKEN: Final = rf"{_SIGN}[{_LETTER}0-9%°][{_LETTER}0-9%°²³₀-₉⁰-⁹./:'’+_^-]*"
_BETWEEN: Final = r"(?:,? | ?[×*/–=<>≤≥±~≈-] ?)"
_ISLAND: Final = re.compile(rf"(?<![{_LETTER}0-9]){_TOKEN}(?:{_BETWEEN}{_TOKEN})*")
_ENDS: Final = re.compile(r"[./:,'’_^-]+\Z")
_DIGIT: Final = re.compile(r"[0-9]")
_LATIN: Final = re.compile(f"[{_LETTER}]")


def of(text: str, default: Direction) -> Direction:
    """By the first letter that has one (UAX #9 P2, P3)."""
    for letter in text:
        match unicodedata.bidirectional(letter):
            case "R" | "AL":
                return "rtl"
            case "L":
                return "ltr"
    return default


def isolated(text: str) -> str:
    """The text with its Latin words and numbers isolated, and no other directional controls."""
    return _ISLAND.sub(_isolate, _CONTROLS.sub("", text))


def _isolate(found: re.Match[str]) -> str:
    island = found[0]
    if ", " in island and not _LATIN.search(island):  # numbers one after another are read in the line's direction
        return ", ".join(_wrapped(part) for part in island.split(", "))
    return _wrapped(island)


def _wrapped(island: str) -> str:
    """A full stop or comma at the end is the sentence's."""
    end = _ENDS.search(island)
    kept, rest = (island[: end.start()], end[0]) if end else (island, "")
    if len(kept) <= TOGETHER_MAX and _DIGIT.search(kept):
        kept = kept.replace(" ", NO_BREAK)
    return f"{LRI}{kept}{PDI}{rest}" if kept else rest
