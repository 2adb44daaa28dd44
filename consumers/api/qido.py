"""QIDO-RS, the asking half (PS3.18 §10.6.1): a query string becomes a Query, a Query becomes a Plan. Pure.

The plan starts from the most selective read model and filters by the rest: StudyInstanceUID, AccessionNumber,
PatientID, a word of PatientName, else the days, newest first. Every condition is checked again on every row, so an
index only has to give enough, never exactly.
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
from schemas.names import pattern_words

VALUE_LENGTH_MAX = 320
"""Characters of one value: a PN has at most 3 groups of 64, a date range 17."""
CONDITIONS_MAX = 32
UIDS_MAX = 256
TOKEN_START_MIN = 2
"""Characters of a name's start below which the vocabulary is no help."""


class Kind(Enum):
    """How a condition matches (PS3.4 §C.2.2.2)."""

    UIDS = "list of UIDs"
    ANY = "one of several codes"
    RANGE = "range of dates or times"
    NUMBER = "number"
    NAME = "person name"
    PATTERN = "text with wild cards"
    TEXT = "text"


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
    """Tags asked for beyond the usual ones."""
    include_all: bool = False
    fuzzy: bool = False

    def find(self, keyword: str) -> Condition | None:
        """The condition on an attribute."""
        return next((c for c in self.conditions if c.attribute.keyword == keyword), None)


# ------------------------------------------------------------------------------------------------ query string → Query

_INTEGER = re.compile(r"[0-9]{1,9}\Z")
_DATE = re.compile(r"(?:[0-9]{8})?\Z")
_TIME = re.compile(r"(?:[0-9]{2}(?:[0-9]{2}(?:[0-9]{2}(?:\.[0-9]{1,6})?)?)?)?\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LIST = re.compile(r"[,\\]")
_OPTIONS = frozenset({"limit", "offset", "includefield", "fuzzymatching"})
_IGNORED = frozenset({"accept"})
"""Query parameters of every DICOMweb request (PS3.18 §8.3.3), read elsewhere."""


def parse(query_string: bytes, level: Level, *, study_uid: str = "", series_uid: str = "") -> Query:
    """The Query of a request. `study_uid` and `series_uid` are those of its URL.

    Raises Invalid: `query-encoding`, `unknown-attribute`, `attribute-not-searchable`, `attribute-level`,
    `attribute-repeated`, `value-…`, `option-…`, `uid-…`.
    """
    conditions: dict[str, Condition] = {}
    options: dict[str, list[str]] = {}
    for name, value in _pairs(query_string):
        if name in _OPTIONS:
            options.setdefault(name, []).append(value)
        elif name not in _IGNORED:
            _add(conditions, find(name), value, level)
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
        include=include,
        include_all=include_all,
        fuzzy=_flag("fuzzymatching", options),
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
    if not text or text == "*":
        return None
    match attribute.vr:
        case "UI":
            return Condition(attribute, Kind.UIDS, _uids(text))
        case "DA":
            return Condition(attribute, Kind.RANGE, _range(attribute, text, _DATE))
        case "TM":
            return Condition(attribute, Kind.RANGE, _range(attribute, text, _TIME))
        case "IS" | "US":
            if not _INTEGER.match(text.removeprefix("-")):
                raise Invalid("value-number", f"the value of {attribute.keyword} is no integer")
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


def _include(values: Sequence[str]) -> tuple[frozenset[str], bool]:
    names = [n.strip() for v in values for n in v.split(",") if n.strip()]
    if len(names) > 256:
        raise Invalid("option-includefield", "too many attributes in includefield")
    return frozenset(tag_of(n) for n in names if n != "all"), "all" in names


def _number(name: str, options: dict[str, list[str]], *, least: int) -> int | None:
    texts = options.get(name, [])
    if not texts:
        return None
    if len(texts) > 1 or not _INTEGER.match(texts[0]) or int(texts[0]) < least:
        raise Invalid(f"option-{name}", f"{name} must be one integer, at least {least}")
    return int(texts[0])


def _flag(name: str, options: dict[str, list[str]]) -> bool:
    texts = options.get(name, ["false"])
    if texts[-1] not in ("true", "false"):
        raise Invalid(f"option-{name}", f"{name} must be true or false")
    return texts[-1] == "true"


# ------------------------------------------------------------------------------------------------ Query → Plan


@dataclass(frozen=True)
class ByUid:
    """`studies`, a row for each UID."""

    study_uids: tuple[str, ...]


@dataclass(frozen=True)
class ByAccession:
    """`studies_by_accession`, one partition."""

    accession: str


@dataclass(frozen=True)
class ByPatientID:
    """`studies_by_patient_id`, one partition."""

    patient_id: str


@dataclass(frozen=True)
class ByNameToken:
    """`studies_by_name_token`, months newest first. `start`: all tokens of the vocabulary that begin so."""

    token: str
    start: bool


@dataclass(frozen=True)
class ByDay:
    """`studies_by_day`, newest first."""


Source = ByUid | ByAccession | ByPatientID | ByNameToken | ByDay


@dataclass(frozen=True)
class Plan:
    """Where to begin, and within which days. All conditions of the Query filter what comes."""

    source: Source
    first_day: str = ""
    """YYYYMMDD; empty: open."""
    last_day: str = ""


def plan(query: Query) -> Plan:
    """The most selective start for a query."""
    dates = query.find("StudyDate")
    first, last = dates.values if dates else ("", "")
    return Plan(_source(query), first, last)


def _source(query: Query) -> Source:
    if study := query.find("StudyInstanceUID"):
        return ByUid(study.values)
    if (accession := query.find("AccessionNumber")) and accession.kind is Kind.TEXT:
        return ByAccession(accession.values[0])
    if (patient := query.find("PatientID")) and patient.kind is Kind.TEXT:
        return ByPatientID(patient.values[0])
    if name := query.find("PatientName"):
        whole, starts = pattern_words(name.values[0])
        starts = tuple(s for s in starts if len(s) >= TOKEN_START_MIN)
        # The longest word is the rarest, as a rule; a whole one beats a beginning.
        if whole:
            return ByNameToken(max(whole, key=len), start=False)
        if starts:
            return ByNameToken(max(starts, key=len), start=True)
    return ByDay()
