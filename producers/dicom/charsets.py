"""Text of a dataset in any character set of PS3.3 §C.12.1.1.2, to `str`, never failing.

The terms and their Python codecs are pydicom's tables. What no term explains is guessed and marked: UTF-8 first (no
other text passes for it), then Windows-1256 or ISO 8859-6 when the letters make Arabic words, else Latin-1, which has a
character for every byte: nothing is ever replaced or dropped.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from pydicom.charset import CODES_TO_ENCODINGS, STAND_ALONE_ENCODINGS, python_encoding

_ESC: Final = 0x1B
# A designation ends at these (PS3.5 §6.1.2.5.3): controls and the backslash; in a person name also ^ and =.
_TEXT_ENDS: Final = re.compile(rb"[\t\n\f\r\\]")
_NAME_ENDS: Final = re.compile(rb"[\t\n\f\r\\^=]")
_FRAGMENT: Final = re.compile(rb"\x1b[^\x1b]*|[^\x1b]+")
# These put two 7-bit bytes where ASCII stood, so a delimiter's byte may be half a character; their codecs know.
_STATEFUL: Final = frozenset(("iso2022_jp", "iso2022_jp_2"))

LATIN_9: Final = ("ISO_IR 203", "ISO 2022 IR 203")
LATIN_9_ESCAPE: Final = b"\x1b\x2d\x62"
"""Younger than pydicom's tables (PS3.3 Table C.12-2)."""
_TERM: Final = re.compile(r"(ISO[ _-]?2022[ _-]?)?(?:ISO[ _-]?)?IR[ _-]?(\d+)")
_ALIASES: Final = {
    "UTF-8": "utf-8",
    "UTF8": "utf-8",
    "ISO_IR_192": "utf-8",
    "ISO-8859-1": "latin-1",
    "ISO8859-1": "latin-1",
    "ISO-8859-6": "iso8859-6",
    "ISO8859-6": "iso8859-6",
    "WINDOWS-1256": "cp1256",
    "CP1256": "cp1256",
}


@dataclass(frozen=True, slots=True)
class CharacterSet:
    """The codecs that a Specific Character Set names."""

    first: str | None
    """Codec of text before any escape sequence; None: none is named, text beyond ASCII is guessed."""
    marks: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    """Codecs of the terms after the first, which escape sequences choose."""


DEFAULT: Final = CharacterSet(None)


@lru_cache(maxsize=256)
def character_set(value: bytes) -> CharacterSet:
    """The character set named by the value of (0008,0005); unknown terms are marked and leave text to the guess."""
    terms = [term.strip(" \0").upper() for term in value.decode("latin-1").split("\\")]
    marks: tuple[str, ...] = ()
    codecs = []
    for term in terms:
        codec, defined = _codec(term)
        if not defined:
            marks = ("unknown-charset",)
        codecs.append(codec)
    if len(terms) > 1 and terms[0] in STAND_ALONE_ENCODINGS:
        marks = ("unknown-charset",)
    return CharacterSet(codecs[0], marks, tuple(c for c in codecs[1:] if c))


def decode(raw: bytes, charset: CharacterSet, marks: set[str], *, name: bool = False) -> str:
    """`raw` as text; `name`: a person name, whose components end a designation too. Marks what was guessed."""
    if _ESC in raw:
        return "".join(_fragment(part, charset, marks, name) for part in _FRAGMENT.findall(raw))
    return _plain(raw, charset, marks)


def _codec(term: str) -> tuple[str | None, bool]:
    """Codec of one term, and whether the standard defines the term as it is written."""
    if term in ("", "ISO_IR 6", "ISO 2022 IR 6"):
        return None, True
    if term in LATIN_9:
        return "iso8859-15", True
    if term in python_encoding:
        return python_encoding[term], True
    if term in _ALIASES:
        return _ALIASES[term], False
    if match := _TERM.fullmatch(term):
        # ISO-IR 100, ISO 2022-IR 87, IR 100: the same number, another spelling
        if match[2] == "6":
            return None, False
        return python_encoding.get(f"ISO{' 2022 ' if match[1] else '_'}IR {match[2]}"), False
    return None, False


def _plain(raw: bytes, charset: CharacterSet, marks: set[str]) -> str:
    """Text without escape sequences."""
    codec = charset.first
    if codec is None:
        if raw.isascii():
            return raw.decode("ascii")
        marks.add("guessed-charset")
        for other in charset.others:
            # Some writers leave the escape sequence out where one other set is named (pydicom with GB 2312).
            try:
                return raw.decode(other)
            except UnicodeDecodeError:
                continue
        return _guess(raw)
    try:
        text = raw.decode(codec)
    except UnicodeDecodeError:
        marks.add("wrong-charset")
        return _guess(raw)
    if codec == "latin_1" and not raw.isascii():
        # Every byte is Latin-1, so it never fails; and it is what devices name whose clerks type Arabic.
        better = _guess(raw, word_min=3)
        if better != text:
            marks.add("wrong-charset")
            return better
    return text


def _fragment(part: bytes, charset: CharacterSet, marks: set[str], name: bool) -> str:
    """Text up to the next escape sequence; `part` may begin with one (PS3.5 §6.1.2.5)."""
    if part[0] != _ESC:
        return _plain(part, charset, marks)
    escape = part[:4] if part[1:3] in (b"$(", b"$)") else part[:3]
    codec = "iso8859-15" if escape == LATIN_9_ESCAPE else CODES_TO_ENCODINGS.get(escape)
    if codec is None:
        marks.add("wrong-charset")
        return _plain(part, charset, marks)
    try:
        if codec in _STATEFUL:
            return part.decode(codec)
        text = part[len(escape) :]
        end = (_NAME_ENDS if name else _TEXT_ENDS).search(text)
        if end is None:
            return text.decode(codec)
        return text[: end.start()].decode(codec) + _plain(text[end.start() :], charset, marks)
    except UnicodeDecodeError:
        marks.add("wrong-charset")
        return _guess(part)


# ------------------------------------------------------------------------------------------------ guessing

_WORD: Final = re.compile(r"[^\W\d_]+")
_ARABIC: Final = re.compile(r"[\u0621-\u0652\u067e\u0686\u0698\u06a9\u06af\u0679\u0688\u0691\u06ba\u06be\u06c1\u06d2]")


def _guess(raw: bytes, word_min: int = 2) -> str:
    """Text in the most plausible encoding; `word_min`: letters of the longest Arabic word that make it plausible."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        pass
    for codec in ("cp1256", "iso8859-6"):
        try:
            text = raw.decode(codec)
        except UnicodeDecodeError:
            continue
        if _reads_as_arabic(text, word_min):
            return text
    return raw.decode("latin-1")


def _reads_as_arabic(text: str, word_min: int) -> bool:
    """Whether the letters make Arabic words: no word mixes alphabets, and one has `word_min` Arabic letters or more.

    In the wrong one of the two Arabic code pages, or for Latin text, words come out mixed: `J\u0646ger` for Jäger.
    """
    longest = 0
    for word in _WORD.findall(text):
        arabic = len(_ARABIC.findall(word))
        if 0 < arabic < len(word):
            return False
        longest = max(longest, arabic)
    return longest >= word_min
