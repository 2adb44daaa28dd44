"""QIDO-RS, the asking half (PS3.18 §10.6.1): a query string becomes a Query. Pure.

What a value asks for follows from its VR (PS3.4 §C.2.2.2), here and for C-FIND alike: `condition_of`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from urllib.parse import parse_qsl

from consumers.api.attributes import Attribute, Level, find, tag_of
from schemas.errors import Invalid
from schemas.identity import check_uid

VALUE_LENGTH_MAX = 320
"""Characters of one value: a PN has at most 3 groups of 64, a date range 17."""
CONDITIONS_MAX = 32
UIDS_MAX = 256
EMPTY = '""'
"""A value that stands for an attribute without one (PS3.4 §C.2.2.2.7)."""


class Kind(Enum):
    """How a condition matches (PS3.4 §C.2.2.2)."""

    UIDS = "list of UIDs"
    ANY = "one of several codes"
    RANGE = "range of dates or times"
    NUMBER = "number"
    NAME = "person name"
    PATTERN = "text with wild cards"
    TEXT = "text"
    EMPTY = "without a value"


@dataclass(frozen=True)
class Condition:
    """One attribute and what it must be. A range has two values, inclusive; an empty one is open."""

    attribute: Attribute
    kind: Kind
    values: tuple[str, ...]


@dataclass(frozen=True)
class Query:
    """A search as asked."""

    level: Level
    conditions: tuple[Condition, ...] = ()
    limit: int | None = None
    offset: int = 0
    include: frozenset[str] = frozenset()
    """Tags asked for beyond the usual ones, those to match by among them, whatever they match (§10.6.3.3)."""
    include_all: bool = False
    fuzzy: bool = False
    """Names match by the beginnings of their words, in any order, too."""
    combined: bool = True
    """A range of dates and one of times mean the time between two moments (PS3.4 §C.2.2.2.5.3)."""
    cursor: tuple[str, str] = ("", "")
    """(moment, study UID) of the last study looked at by the search that this one continues."""

    def find(self, keyword: str) -> Condition | None:
        """The condition on an attribute."""
        return next((c for c in self.conditions if c.attribute.keyword == keyword), None)


# ------------------------------------------------------------------------------------------------ query string → Query

_INTEGER = re.compile(r"[0-9]{1,9}\Z")
_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,16}(?:\.[0-9]{0,16})?|\.[0-9]{1,16})(?:[Ee][+-]?[0-9]{1,3})?\Z")
_DATE = re.compile(r"(?:[0-9]{8})?\Z")
_TIME = re.compile(r"(?:[0-9]{2}(?:[0-9]{2}(?:[0-9]{2}(?:\.[0-9]{1,6})?)?)?)?\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_DATETIME = re.compile(r"(?:[0-9]{4}(?:[0-9]{2}){0,5}(?:\.[0-9]{1,6})?)?\Z")
_EAST = re.compile(r"\+[0-9]{4}(?=-|\Z)")
_WEST = re.compile(r"(?<=[0-9])-[0-9]{4}(?=-|\Z)")
"""A DT's offset from UTC. `2024-2025` is a range of years, `20240101-0500-` begins with an offset."""
_LIST = re.compile(r"[,\\]")
_CURSOR = re.compile(r"([0-9]{8}[0-9.]{0,16})_([0-9.]{1,64})\Z")
_OPTIONS = frozenset({"limit", "offset", "includefield", "fuzzymatching", "cursor"})
_IGNORED = frozenset({"accept"})
"""Query parameters of every DICOMweb request (PS3.18 §8.3.3), read elsewhere."""


def parse(query_string: bytes, level: Level, *, study_uid: str = "", series_uid: str = "") -> Query:
    """The Query of a request. `study_uid` and `series_uid` are those of its URL.

    Raises Invalid: `query-encoding`, `unknown-attribute`, `attribute-not-searchable`, `attribute-level`,
    `attribute-repeated`, `value-…`, `option-…`, `uid-…`.
    """
    conditions: dict[str, Condition] = {}
    options: dict[str, list[str]] = {}
    named: set[str] = set()
    for name, value in _pairs(query_string):
        if name in _OPTIONS:
            options.setdefault(name, []).append(value)
        elif name not in _IGNORED:
            attribute = find(name)
            named.add(attribute.top)
            _add(conditions, attribute, value, level)
    for keyword, uid in (("StudyInstanceUID", study_uid), ("SeriesInstanceUID", series_uid)):
        if uid:
            check_uid(uid)
            _narrow(conditions, find(keyword), uid)
    if len(conditions) > CONDITIONS_MAX:
        raise Invalid("value-count", "too many conditions")
    include, include_all = _include(options.get("includefield", []))
    return Query(
        level=level,
        conditions=tuple(conditions.values()),
        limit=_number("limit", options, least=1),
        offset=_number("offset", options, least=0) or 0,
        include=include | named,
        include_all=include_all,
        fuzzy=_flag("fuzzymatching", options),
        cursor=_cursor(options.get("cursor", [])),
    )


def _pairs(query_string: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(
            query_string.decode(), keep_blank_values=True, encoding="utf-8", errors="strict", max_num_fields=128
        )
    except ValueError as e:  # UnicodeDecodeError is one
        raise Invalid("query-encoding", "the query is not percent-encoded UTF-8") from e


def _add(conditions: dict[str, Condition], attribute: Attribute, text: str, level: Level) -> None:
    if attribute.level > level:
        raise Invalid("attribute-level", f"{attribute.keyword} is below the level of this search")
    condition = condition_of(attribute, text)
    if condition is None:
        return  # universal matching, PS3.4 §C.2.2.2.3
    before = conditions.get(attribute.tag)
    if before is None:
        conditions[attribute.tag] = condition
    elif condition.kind in (Kind.UIDS, Kind.ANY):
        conditions[attribute.tag] = Condition(attribute, condition.kind, before.values + condition.values)
    else:
        raise Invalid("attribute-repeated", f"{attribute.keyword} is there twice")


def _narrow(conditions: dict[str, Condition], attribute: Attribute, uid: str) -> None:
    """The URL's UID, and of a list in the query only that."""
    before = conditions.get(attribute.tag)
    values = (uid,) if before is None or uid in before.values else ()
    conditions[attribute.tag] = Condition(attribute, Kind.UIDS, values)


def condition_of(attribute: Attribute, text: str) -> Condition | None:
    """What a value asks for by its VR; None for an empty value. Raises Invalid(`value-…`)."""
    if len(text) > VALUE_LENGTH_MAX and attribute.vr != "UI":
        raise Invalid("value-length", f"the value of {attribute.keyword} is too long")
    if _CONTROL.search(text):
        raise Invalid("value-character", f"the value of {attribute.keyword} has a control character")
    text = text.strip()
    if not text or text.strip("*") == "":
        return None
    if text == EMPTY:
        return Condition(attribute, Kind.EMPTY, ())
    match attribute.vr:
        case "UI":
            return Condition(attribute, Kind.UIDS, _uids(text))
        case "DA":
            return Condition(attribute, Kind.RANGE, _range(attribute, text, _DATE))
        case "TM":
            return Condition(attribute, Kind.RANGE, _range(attribute, text, _TIME))
        case "DT":
            return Condition(attribute, Kind.RANGE, _moments(attribute, text))
        case "IS" | "US" | "SS" | "UL" | "SL" | "DS" | "FL" | "FD":
            if not _NUMBER.match(text):
                raise Invalid("value-number", f"the value of {attribute.keyword} is no number")
            return Condition(attribute, Kind.NUMBER, (text,))
        case "PN":
            return Condition(attribute, Kind.NAME, (text,))
    if "*" in text or "?" in text:
        return Condition(attribute, Kind.PATTERN, (text,))
    if attribute.vr == "CS":
        return Condition(attribute, Kind.ANY, tuple(v.strip() for v in _LIST.split(text) if v.strip()))
    return Condition(attribute, Kind.TEXT, (text,))


def _uids(text: str) -> tuple[str, ...]:
    uids = tuple(dict.fromkeys(u.strip() for u in _LIST.split(text) if u.strip()))
    if len(uids) > UIDS_MAX:
        raise Invalid("value-count", "too many UIDs in one list")
    for uid in uids:
        check_uid(uid)
    return uids


def _range(attribute: Attribute, text: str, form: re.Pattern[str]) -> tuple[str, str]:
    """(first, last), inclusive, of `a`, `a-b`, `a-`, `-b`."""
    first, dash, last = (p.strip() for p in text.partition("-"))
    if not form.match(first) or not form.match(last) or not (first or last):
        raise Invalid("value-range", f"the value of {attribute.keyword} is no date, time or range")
    return (first, last) if dash else (first, first)


def _moments(attribute: Attribute, text: str) -> tuple[str, str]:
    """The same of a DT. Offsets from UTC are not compared: equipment's clocks are local."""
    text = _EAST.sub("", text)
    return _range(attribute, _WEST.sub("", text) if text.count("-") > 1 else text, _DATETIME)


def _cursor(texts: Sequence[str]) -> tuple[str, str]:
    if not texts:
        return "", ""
    found = _CURSOR.match(texts[0]) if len(texts) == 1 else None
    if found is None:
        raise Invalid("option-cursor", "cursor must be what a search that was cut has given")
    return found[1], found[2]


def _include(values: Sequence[str]) -> tuple[frozenset[str], bool]:
    names = [n.strip() for v in values for n in v.split(",") if n.strip()]
    if len(names) > 256:
        raise Invalid("option-includefield", "too many attributes in includefield")
    # Of a path into a sequence the sequence is shown.
    return frozenset(tag_of(n.partition(".")[0]) for n in names if n != "all"), "all" in names


def _number(name: str, options: dict[str, list[str]], *, least: int) -> int | None:
    texts = options.get(name, [])
    if not texts:
        return None
    if len(texts) > 1 or not _INTEGER.match(texts[0]) or int(texts[0]) < least:
        raise Invalid(f"option-{name}", f"{name} must be one integer, at least {least}")
    return int(texts[0])


def _flag(name: str, options: dict[str, list[str]]) -> bool:
    texts = options.get(name, ["false"])
    if texts[-1].lower() not in ("true", "false"):
        raise Invalid(f"option-{name}", f"{name} must be true or false")
    return texts[-1].lower() == "true"
