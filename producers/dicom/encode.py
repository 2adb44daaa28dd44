"""DICOM JSON (PS3.18 Annex F) to a dataset in Explicit VR Little Endian (PS3.5 §7.1.2). Pure.

The way back from `header.py`, for instances whose metadata and bulk data come apart (PS3.18 §10.5.1). The text of JSON
is UTF-8, so a dataset with text beyond ASCII says ISO_IR 192 whatever Specific Character Set it named. Sequences have
undefined lengths, so that a value can be put in later. No error holds a value.
"""

from __future__ import annotations

import binascii
import re
import struct
from base64 import b64decode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydicom.datadict import dictionary_has_tag, dictionary_VR

from producers.dicom.syntaxes import LONG_VRS
from schemas.errors import Invalid

DEPTH_MAX: Final = 64
UNDEFINED: Final = 0xFFFFFFFF
LENGTH_MAX: Final = UNDEFINED - 1

_TAG: Final = re.compile(r"[0-9A-Fa-f]{8}\Z")
_TEXT: Final = frozenset("AE AS CS DA DT LO LT SH ST TM UC UR UT".split())
_NUMBER: Final = {
    "US": "H", "SS": "h", "UL": "I", "SL": "i", "UV": "Q", "SV": "q", "FL": "f", "FD": "d",
}  # fmt: skip
_BINARY: Final = frozenset("OB OD OF OL OV OW UN".split())
_CHARACTER_SET: Final = "00080005"
_NOT_WRITTEN: Final = frozenset({"00083002"})
"""Available Transfer Syntax UID: of the metadata, not of the instance (PS3.18 §10.4.1.1.2)."""
_UTF_8: Final = "ISO_IR 192"
_ITEM: Final = struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED)
_ITEM_END: Final = struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
_SEQUENCE_END: Final = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


@dataclass(frozen=True, slots=True)
class Referred:
    """An element whose value is elsewhere, at `uri`."""

    tag: int
    vr: str
    uri: str
    depth: int
    """0: of the dataset itself, not of an item."""


Piece = bytes | Referred
Json = Mapping[str, Any]


def encode(dataset: Json) -> list[Piece]:
    """The dataset's bytes, with a Referred where a value is to be put in. Raises Invalid(`metadata-…`)."""
    utf8 = not _is_ascii(dataset, 0)
    if utf8:
        dataset = {**dataset, _CHARACTER_SET: {"vr": "CS", "Value": [_UTF_8]}}
    pieces: list[Piece] = []
    whole = bytearray()
    for piece in _dataset(dataset, utf8, 0):
        if isinstance(piece, bytes):
            whole += piece
        else:
            pieces += [bytes(whole), piece]
            whole = bytearray()
    return [*pieces, bytes(whole)]


def element(tag: int, vr: str, value: bytes) -> bytes:
    """One element; `value` is padded to even length with what its VR is padded with (PS3.5 §6.2)."""
    if len(value) & 1:
        value += pad_of(vr)
    return head(tag, vr, len(value)) + value


def pad_of(vr: str) -> bytes:
    """What pads a value to even length (PS3.5 §6.2)."""
    return b" " if vr in _TEXT or vr in ("PN", "IS", "DS") else b"\0"


def head(tag: int, vr: str, length: int) -> bytes:
    """What stands before a value of `length` bytes. Raises Invalid(`metadata-length`) for one its VR cannot have."""
    code = vr.encode("ascii")
    if code in LONG_VRS:
        if length > UNDEFINED:
            raise Invalid("metadata-length", "a value is longer than an element may be")
        return struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, code, 0, length)
    if length > 0xFFFF:
        raise Invalid("metadata-length", "a value is longer than its VR allows")
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, code, length)


def text_of(dataset: Json, tag: str) -> str:
    """The first value of an element of text; "" where there is none."""
    found = dataset.get(tag)
    values = found.get("Value") if isinstance(found, dict) else None
    return values[0] if isinstance(values, list) and values and isinstance(values[0], str) else ""


def _dataset(dataset: Json, utf8: bool, depth: int) -> Iterator[Piece]:
    if depth > DEPTH_MAX:
        raise Invalid("metadata-too-deep", "sequences are nested deeper than the bound")
    if not isinstance(dataset, dict) or not all(_TAG.match(t) for t in dataset):
        raise Invalid("metadata-json", "an object is no dataset in the DICOM JSON Model")
    for name in sorted(dataset, key=str.upper):
        tag = int(name, 16)
        # File Meta Information and group lengths are written anew or not at all.
        if tag >> 16 == 0x0002 or tag & 0xFFFF == 0 or name in _NOT_WRITTEN:
            continue
        if depth and utf8 and name == _CHARACTER_SET:
            continue
        yield from _element(tag, dataset[name], utf8, depth)


def _element(tag: int, found: Any, utf8: bool, depth: int) -> Iterator[Piece]:
    if not isinstance(found, dict):
        raise Invalid("metadata-json", "an element is no object")
    vr = found.get("vr") or (dictionary_VR(tag)[:2] if dictionary_has_tag(tag) else "UN")
    if vr == "SQ":
        items = found.get("Value") or ()
        if not isinstance(items, list | tuple):
            raise Invalid("metadata-json", "the value of a sequence is no list")
        yield head(tag, "SQ", UNDEFINED)
        for item in items:
            yield _ITEM
            yield from _dataset(item or {}, utf8, depth + 1)
            yield _ITEM_END
        yield _SEQUENCE_END
    elif "BulkDataURI" in found:
        if not isinstance(found["BulkDataURI"], str) or not (vr in _BINARY or vr in _TEXT or vr in _NUMBER):
            raise Invalid("metadata-json", "a BulkDataURI where none can be")
        yield Referred(tag, vr, found["BulkDataURI"], depth)
    else:
        yield element(tag, vr, _value(vr, found))


def _value(vr: str, found: Json) -> bytes:
    if "InlineBinary" in found:
        if vr not in _BINARY:
            raise Invalid("metadata-json", "an InlineBinary where none can be")
        try:
            return b64decode(found["InlineBinary"], validate=True)
        except (binascii.Error, TypeError, ValueError) as e:
            raise Invalid("metadata-json", "an InlineBinary is not in base64") from e
    values = found.get("Value", ())
    if not isinstance(values, list | tuple):
        raise Invalid("metadata-json", "a value is no list")
    try:
        return _values(vr, values)
    except (AttributeError, TypeError, ValueError, OverflowError, struct.error) as e:
        raise Invalid("metadata-value", "a value is none of its VR") from e


def _values(vr: str, values: list[Any] | tuple[Any, ...]) -> bytes:
    if vr in _TEXT:
        return "\\".join("" if v is None else _text(v) for v in values).encode()
    if vr == "UI":
        return "\\".join("" if v is None else _text(v) for v in values).encode("ascii")
    if vr == "PN":
        return "\\".join("" if v is None else _person_name(v) for v in values).encode()
    if vr in ("IS", "DS"):
        return "\\".join("" if v is None else _digits(v) for v in values).encode("ascii")
    if vr in _NUMBER:
        code = _NUMBER[vr]
        convert = float if code in "fd" else int
        return struct.pack(f"<{len(values)}{code}", *(convert(v) for v in values))
    if vr == "AT":
        return b"".join(struct.pack("<HH", int(v[:4], 16), int(v[4:], 16)) for v in values)
    if vr in _BINARY and not values:
        return b""
    raise ValueError(vr)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value


def _digits(value: Any) -> str:
    """A decimal or integer string (PS3.5 §6.2: at most 16 bytes); JSON has it as a number or as text."""
    text = value if isinstance(value, str) else repr(value) if isinstance(value, int | float) else _text(value)
    if isinstance(value, float) and len(text) > 16:
        # As many digits as there is room for.
        text = next(t for t in (f"{value:.{n}g}" for n in range(16, 0, -1)) if len(t) <= 16)
    return text


def _person_name(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "=".join(_text(value.get(g) or "") for g in ("Alphabetic", "Ideographic", "Phonetic")).rstrip("=")


def _is_ascii(value: Any, depth: int) -> bool:
    """Whether no text in a dataset goes beyond ASCII."""
    if depth > 4 * DEPTH_MAX:
        raise Invalid("metadata-too-deep", "sequences are nested deeper than the bound")
    if isinstance(value, str):
        return value.isascii()
    if isinstance(value, dict):
        return all(_is_ascii(v, depth + 1) for v in value.values())
    if isinstance(value, list):
        return all(_is_ascii(v, depth + 1) for v in value)
    return True
