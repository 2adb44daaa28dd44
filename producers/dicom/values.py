"""One value field to its DICOM JSON (PS3.18 §F.2): a function per value representation and byte order.

Each takes the bytes of a value field and the text context, and returns what stands behind `"vr":"XX"` in the attribute
object: `,"Value":[…]`, `,"InlineBinary":"…"`, or nothing for an empty value (§F.2.5). An empty value among several is
`null`. Bytes that cannot be of the VR raise NotOfThisVR, and the element is given as UN.

Padding is no part of a value (PS3.5 §6.2): trailing spaces and NULs go everywhere, leading spaces where the VR does
not count them. DS and IS are JSON numbers with the digits as they were written (`1.500` stays so, its precision is
meaning), or their text where it is no finite number (§F.2.3 allows a string). FL and FD have the strings NaN, Infinity
and -Infinity, which JSON has no number for; SV and UV are strings beyond 2^53, where JSON readers lose digits.
"""

import math
import re
from array import array
from binascii import b2a_base64
from collections.abc import Callable
from json.encoder import encode_basestring
from struct import Struct, unpack
from typing import Final, Literal

from producers.dicom.charsets import DEFAULT, CharacterSet, decode


class NotOfThisVR(ValueError):
    """The bytes cannot be a value of the VR they are said to have."""


class Text:
    """How the text of one dataset is read. `marks` is shared by all its levels."""

    __slots__ = ("charset", "marks")

    def __init__(self, marks: set[str], charset: CharacterSet = DEFAULT) -> None:
        self.charset = charset
        self.marks = marks


Encode = Callable[[bytes, Text], str]
Order = Literal["little", "big"]

_PADDING: Final = " \0"
_SAFE_INTEGER_MAX: Final = (1 << 53) - 1


def _text(raw: bytes, text: Text) -> str:
    if raw.isascii() and b"\x1b" not in raw:
        return raw.decode("ascii")
    return decode(raw, text.charset, text.marks)


# ------------------------------------------------------------------------------------------------ strings


def _strings(raw: bytes, text: Text) -> str:
    """Several values; spaces around each do not count: AE AS CS DA DT LO SH TM UI."""
    value = _text(raw, text).strip(_PADDING)
    if "\\" in value:
        parts = [part.strip(_PADDING) for part in value.split("\\")]
        return f',"Value":[{",".join([encode_basestring(part) if part else "null" for part in parts])}]'
    return f',"Value":[{encode_basestring(value)}]' if value else ""


def _unlimited(raw: bytes, text: Text) -> str:
    """Several values whose leading spaces count: UC."""
    value = _text(raw, text).rstrip(_PADDING)
    if not value:
        return ""
    parts = [part.rstrip(_PADDING) for part in value.split("\\")]
    return f',"Value":[{",".join([encode_basestring(part) if part else "null" for part in parts])}]'


def _paragraph(raw: bytes, text: Text) -> str:
    """One value, in which a backslash is a character: LT ST UR UT."""
    value = _text(raw, text).rstrip(_PADDING)
    return f',"Value":[{encode_basestring(value)}]' if value else ""


def _person_names(raw: bytes, text: Text) -> str:
    """PN: an object of the component groups that are not empty (PS3.18 §F.2.2, PS3.5 §6.2.1)."""
    if raw.isascii() and b"\x1b" not in raw:
        value = raw.decode("ascii")
    else:
        value = decode(raw, text.charset, text.marks, name=True)
    value = value.strip(_PADDING)
    if not value:
        return ""
    return f',"Value":[{",".join([_person_name(part) for part in value.split(chr(92))])}]'


_GROUPS: Final = ("Alphabetic", "Ideographic", "Phonetic")


def _person_name(value: str) -> str:
    # A fourth group is none of the standard's; it stays with the third rather than be lost.
    groups = [group.strip(_PADDING) for group in value.split("=", 2)]
    named = [f'"{name}":{encode_basestring(group)}' for name, group in zip(_GROUPS, groups, strict=False) if group]
    return f"{{{','.join(named)}}}" if named else "null"


# ------------------------------------------------------------------------------------------------ numbers in text

_JSON_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,20})?").fullmatch
_DECIMAL: Final = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?([eE][+-]?[0-9]+)?").fullmatch
_JSON_INTEGER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,14})").fullmatch
_INTEGER: Final = re.compile(r"([+-]?)([0-9]+)").fullmatch
_NUMBER_LENGTH_MAX: Final = 64


def _decimals(raw: bytes, text: Text) -> str:
    return _numbers(raw, text, _decimal)


def _integers(raw: bytes, text: Text) -> str:
    return _numbers(raw, text, _integer)


def _numbers(raw: bytes, text: Text, number: Callable[[str, Text], str]) -> str:
    value = _text(raw, text).strip(_PADDING)
    if "\\" in value:
        return f',"Value":[{",".join([number(part.strip(_PADDING), text) for part in value.split(chr(92))])}]'
    return f',"Value":[{number(value, text)}]' if value else ""


def _decimal(value: str, text: Text) -> str:
    """DS: a JSON number with the same digits, else its text."""
    if _JSON_NUMBER(value):
        return value
    match = _DECIMAL(value) if len(value) <= _NUMBER_LENGTH_MAX else None
    if match and (match[2] or match[3]) and math.isfinite(float(value)):
        sign = "-" if match[1] == "-" else ""
        fraction = f".{match[3]}" if match[3] else ""
        return f"{sign}{match[2].lstrip('0') or '0'}{fraction}{match[4] or ''}"
    return _no_number(value, text)


def _integer(value: str, text: Text) -> str:
    """IS: a JSON number, else its text."""
    if _JSON_INTEGER(value):
        return value
    match = _INTEGER(value) if len(value) <= _NUMBER_LENGTH_MAX else None
    if match and abs(number := int(value)) <= _SAFE_INTEGER_MAX:
        return str(number)
    return _no_number(value, text)


def _no_number(value: str, text: Text) -> str:
    if not value:
        return "null"
    text.marks.add("bad-number")
    return encode_basestring(value)


# ------------------------------------------------------------------------------------------------ binary numbers


def _binary_integers(code: str, order: Order) -> Encode:
    prefix = "<" if order == "little" else ">"
    size, signed = Struct(prefix + code).size, code.islower()
    from_bytes = int.from_bytes
    show: Callable[[int], str] = _safe_integer if size == 8 else str

    def encode(raw: bytes, _: Text) -> str:
        length = len(raw)
        if length == size:
            return f',"Value":[{show(from_bytes(raw, order, signed=signed))}]'
        if length % size:
            raise NotOfThisVR
        values = unpack(f"{prefix}{length // size}{code}", raw)
        return f',"Value":[{",".join(map(show, values))}]' if values else ""

    return encode


def _safe_integer(value: int) -> str:
    return str(value) if abs(value) <= _SAFE_INTEGER_MAX else f'"{value}"'


def _binary_floats(code: str, order: Order) -> Encode:
    prefix = "<" if order == "little" else ">"
    size = Struct(prefix + code).size

    def encode(raw: bytes, _: Text) -> str:
        count, rest = divmod(len(raw), size)
        if rest:
            raise NotOfThisVR
        values = unpack(f"{prefix}{count}{code}", raw)
        return f',"Value":[{",".join(map(_float, values))}]' if values else ""

    return encode


def _float(value: float) -> str:
    if math.isfinite(value):
        return repr(value)
    return '"NaN"' if value != value else '"Infinity"' if value > 0 else '"-Infinity"'


def _tags(order: Order) -> Encode:
    """AT: eight hexadecimal digits each (PS3.18 §F.2.3)."""
    prefix = "<" if order == "little" else ">"

    def encode(raw: bytes, _: Text) -> str:
        count, rest = divmod(len(raw), 4)
        if rest:
            raise NotOfThisVR
        values = unpack(f"{prefix}{2 * count}H", raw)
        tags = [f'"{values[at]:04X}{values[at + 1]:04X}"' for at in range(0, 2 * count, 2)]
        return f',"Value":[{",".join(tags)}]' if tags else ""

    return encode


# ------------------------------------------------------------------------------------------------ bytes


def _inline(raw: bytes, _: Text) -> str:
    return f',"InlineBinary":"{b2a_base64(raw, newline=False).decode("ascii")}"' if raw else ""


def _inline_swapped(code: str) -> Encode:
    """Words of a big endian dataset: on the web they are little endian (PS3.18 §F.2.7, §8.7.3)."""

    def encode(raw: bytes, text: Text) -> str:
        words = array(code)
        if len(raw) % words.itemsize:
            raise NotOfThisVR
        words.frombytes(raw)
        words.byteswap()
        return _inline(words.tobytes(), text)

    return encode


# ------------------------------------------------------------------------------------------------ the table


def _table(order: Order) -> dict[str, Encode]:
    table: dict[str, Encode] = dict.fromkeys(("AE", "AS", "CS", "DA", "DT", "LO", "SH", "TM", "UI"), _strings)
    table |= dict.fromkeys(("LT", "ST", "UR", "UT"), _paragraph)
    table |= {"UC": _unlimited, "PN": _person_names, "DS": _decimals, "IS": _integers, "AT": _tags(order)}
    for vr, code in (("US", "H"), ("SS", "h"), ("UL", "I"), ("SL", "i"), ("UV", "Q"), ("SV", "q")):
        table[vr] = _binary_integers(code, order)
    table |= {"FL": _binary_floats("f", order), "FD": _binary_floats("d", order)}
    for vr, code in (("OB", ""), ("UN", ""), ("OW", "H"), ("OL", "I"), ("OF", "I"), ("OD", "Q"), ("OV", "Q")):
        table[vr] = _inline_swapped(code) if code and order == "big" else _inline
    return table


LITTLE: Final = _table("little")
BIG: Final = _table("big")

BINARY_VRS: Final = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "UN"))
# What may be a BulkDataURI besides (PS3.18 §F.2.2).
BULK_VRS: Final = BINARY_VRS | frozenset(
    ("DS", "FD", "FL", "IS", "LT", "SL", "SS", "ST", "SV", "UC", "UL", "US", "UT", "UV")
)
