"""A header (DICOM JSON, PS3.18 Annex F) cut down to what one level of the read models shows.

Only the tags of `schemas.levels` are decoded; the rest of a header, most of its bytes, is skipped. The text of a kept
element goes into the rows as it stands in the manifest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from schemas.errors import Invalid
from schemas.levels import INSTANCE_TAGS, SERIES_TAGS, STUDY_TAGS

ELEMENT_BYTES_MAX = 8192
"""A larger element (a long sequence) is left to the manifest."""
TEXT_MAX = 1024
"""Characters kept of a value in a column of its own; the standard's longest is 64 for names and identifiers, a few
hundred for descriptions."""

_ABSENT = msgspec.Raw(b"")
_PADDING = " \0"
_INT32 = range(-(2**31), 2**31)
_INTEGER = re.compile(r"[+-]?[0-9]{1,10}\Z")


class _Element(msgspec.Struct):
    """PS3.18 §F.2.2."""

    Value: list[Any] = []


_element = msgspec.json.Decoder(_Element)


class Level:
    """The elements of one level of one header."""

    __slots__ = ("_raw",)

    def __init__(self, raw: dict[str, bytes]) -> None:
        self._raw = raw

    def json(self) -> str:
        """The elements as one DICOM JSON object. Raises Invalid(`manifest-header`) if they are no UTF-8."""
        try:
            body = b",".join(b'"%b":%b' % (tag.encode(), raw) for tag, raw in self._raw.items())
            return "{" + body.decode() + "}"
        except UnicodeDecodeError as e:
            raise Invalid("manifest-header") from e

    def text(self, tag: str) -> str:
        """First value as text without padding; "" if there is none."""
        value = self._first(tag)
        if isinstance(value, dict):
            value = value.get("Alphabetic", "")
        return "" if value is None else str(value).strip(_PADDING)[:TEXT_MAX]

    def person_name(self, tag: str) -> str:
        """First value of a PN as `alphabetic=ideographic=phonetic`, as in PS3.5 §6.2.1."""
        value = self._first(tag)
        if not isinstance(value, dict):
            return self.text(tag)
        groups = (str(value.get(g) or "").strip(_PADDING) for g in ("Alphabetic", "Ideographic", "Phonetic"))
        return "=".join(groups).rstrip("=")[:TEXT_MAX]

    def integer(self, tag: str) -> int | None:
        """First value of an IS that fits 32 bits; None for anything else."""
        text = self.text(tag)
        if not _INTEGER.match(text):
            return None
        number = int(text)
        return number if number in _INT32 else None

    def item_text(self, sequence: str, tag: str) -> str:
        """A value of the first item of a sequence."""
        item = self._first(sequence)
        if not isinstance(item, dict) or not isinstance(item.get(tag), dict):
            return ""
        values = item[tag].get("Value")
        return str(values[0]).strip(_PADDING)[:TEXT_MAX] if isinstance(values, list) and values else ""

    def _first(self, tag: str) -> Any:
        raw = self._raw.get(tag)
        if raw is None:
            return None
        try:
            values = _element.decode(raw).Value
        except (msgspec.DecodeError, UnicodeDecodeError) as e:
            raise Invalid("manifest-header") from e
        return values[0] if values else None


class LevelDecoder:
    """Cuts headers down to a set of tags."""

    def __init__(self, tags: Iterable[str]) -> None:
        fields = {f"t{t}": t for t in dict.fromkeys(tags)}
        struct = msgspec.defstruct(
            "Header", [(name, msgspec.Raw, _ABSENT) for name in fields], rename=fields, frozen=True, gc=False
        )
        self._fields = tuple(fields.items())
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(struct)

    def __call__(self, header: bytes | msgspec.Raw) -> Level:
        """Raises Invalid(`manifest-header`) if the header is no JSON object."""
        try:
            found = self._decoder.decode(header)
        except (msgspec.DecodeError, UnicodeDecodeError) as e:
            raise Invalid("manifest-header") from e
        elements = ((tag, bytes(getattr(found, name))) for name, tag in self._fields)
        return Level({tag: raw for tag, raw in elements if 0 < len(raw) <= ELEMENT_BYTES_MAX})


study_level = LevelDecoder(STUDY_TAGS)
series_level = LevelDecoder(SERIES_TAGS)
instance_level = LevelDecoder(INSTANCE_TAGS)


def date_of(text: str) -> str:
    """A DA value (also ACR-NEMA's `YYYY.MM.DD`) as YYYYMMDD; "" if it is no date of the Gregorian calendar."""
    digits = text.replace(".", "").replace("-", "")
    if len(digits) != 8 or not (digits.isascii() and digits.isdigit()):
        return ""
    year, month, day = int(digits[:4]), int(digits[4:6]), int(digits[6:])
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    longest = (31, 29 if leap else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
    return digits if year and 1 <= month <= 12 and 1 <= day <= longest[month - 1] else ""
