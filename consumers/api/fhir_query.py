"""FHIR searches, the asking half (hl7.org/fhir/R4/search.html): parameters become what is looked for. Pure.

What a resource can be searched by is a table here, which the CapabilityStatement is made from too. A parameter that is
not in it is refused, unless the client wants it left out (`Prefer: handling=lenient`, search.html#errors): without a
filter more is shown than was asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Final, TypeVar

from consumers.api.audit_event import Span, span_of
from consumers.fhir.ids import patient_key_of
from schemas.errors import Invalid

T = TypeVar("T")
COUNT, COUNT_MAX = 20, 100
COUNTED_MAX: Final = 1000
"""Most matches that are counted, or sorted, of what no index counts or sorts."""
FIRST: Final = datetime(1900, 1, 1, tzinfo=UTC)
LAST: Final = datetime(2200, 1, 1, tzinfo=UTC)
FORMAT: Final = frozenset({"_format", "_pretty"})
"""What any search may say and nothing follows from: there is JSON alone."""

PARAMETERS: Final[Mapping[str, Mapping[str, tuple[str, str]]]] = {
    "Patient": {
        "_id": ("token", "id of the Patient"),
        "identifier": ("token", "national ID, an issuer's number, or the patient key"),
        "name": ("string", "words of the name in Arabic or Latin letters, whatever the spelling; `*` and `?`"),
        "birthdate": ("date", "date of birth"),
    },
    "ImagingStudy": {
        "_id": ("token", "Study Instance UID"),
        "identifier": ("token", "urn:dicom:uid|urn:oid:<UID>, or an accession number"),
        "patient": ("reference", "Patient/<id>, or patient:identifier=<system>|<number>"),
        "subject": ("reference", "the same"),
        "started": ("date", "when the study was made"),
        "modality": ("token", "of one of its series"),
        "status": ("token", "available or registered"),
        "_lastUpdated": ("date", "when something of it last arrived"),
    },
    "DiagnosticReport": {
        "_id": ("token", "id of the report"),
        "identifier": ("token", "urn:uuid:<id>"),
        "patient": ("reference", "Patient/<id>, or patient:identifier=<system>|<number>"),
        "subject": ("reference", "the same"),
        "study": ("reference", "ImagingStudy/<UID>"),
        "issued": ("date", "when the version was issued"),
        "status": ("token", "of the current version; several separated by commas"),
        "_lastUpdated": ("date", "when the version reached the archive"),
    },
    "ServiceRequest": {
        "_id": ("token", "id of the order"),
        "identifier": ("token", "accession number: urn:sijil:accession:<site>|<number>"),
        "patient": ("reference", "Patient/<id>, or patient:identifier=<system>|<number>"),
        "subject": ("reference", "the same"),
        "status": ("token", "of the order; several separated by commas"),
        "authored": ("date", "when it was placed"),
        "_lastUpdated": ("date", "when the version was recorded"),
    },
    "Endpoint": {"_id": ("token", "id of the endpoint")},
}
"""Resource → parameter → (type, what it is)."""

INCLUDES: Final[Mapping[str, Mapping[str, str]]] = {
    "Patient": {},
    "ImagingStudy": {"patient": "Patient", "subject": "Patient", "endpoint": "Endpoint", "basedon": "ServiceRequest"},
    "DiagnosticReport": {"patient": "Patient", "subject": "Patient", "study": "ImagingStudy"},
    "ServiceRequest": {"patient": "Patient", "subject": "Patient"},
    "Endpoint": {},
}
"""Resource → `_include` by parameter → the resource that it brings."""

REVINCLUDES: Final[Mapping[str, Mapping[str, str]]] = {
    "ImagingStudy": {"DiagnosticReport:study": "DiagnosticReport"},
    "ServiceRequest": {"ImagingStudy:basedon": "ImagingStudy"},
}
"""Resource → `_revinclude` → the resource that it brings."""

SORTS: Final[Mapping[str, tuple[str, ...]]] = {
    "Patient": ("birthdate",),
    "ImagingStudy": ("started", "_lastUpdated"),
    "DiagnosticReport": ("issued", "_lastUpdated"),
    "ServiceRequest": ("authored", "_lastUpdated"),
    "Endpoint": (),
}
"""Resource → by what a result that is known whole can be sorted, either way."""

NATURAL: Final[Mapping[str, str]] = {"ImagingStudy": "-started", "DiagnosticReport": "-_lastUpdated"}
"""Resource → the order of a list that is read by pages, which can have no other without being read whole."""

NAMES: Final = frozenset({"_id", "identifier", "patient"})
WHOLE: Final[Mapping[str, frozenset[str]]] = {
    "ImagingStudy": NAMES | {"_lastUpdated"},
    "DiagnosticReport": NAMES | {"study"},
}
"""Resource of NATURAL → parameters one of which makes a result small enough to be read whole."""


@dataclass(frozen=True)
class Asked:
    """A search as asked."""

    resource: str
    values: Mapping[str, tuple[str, ...]]
    """Parameter → its values; `patient` also where `subject` was said."""
    include: frozenset[str]
    """Resources to bring along."""
    count: int
    page: str
    left_out: frozenset[tuple[str, str]] = frozenset()
    """Parameters and values that are not known, and that the client wants left out."""
    revinclude: frozenset[str] = frozenset()
    """Resources that refer to the matches, to bring along."""
    sort: str = ""
    """By what, with `-` the other way round; empty: not said."""
    counted: bool = False
    """How many there are is asked for, and nothing else (`_summary=count`)."""
    elements: frozenset[str] = frozenset()
    """What the matches shall hold; empty: everything."""

    def one(self, name: str) -> str:
        """The one value of a parameter; empty if it is not there. Raises Invalid for several."""
        values = self.values.get(name, ())
        if len(values) > 1:
            raise Invalid("search-repeated", f"{name} is there twice: say it once")
        return values[0] if values else ""

    def any_of(self, name: str) -> frozenset[str]:
        """The codes of a token parameter that is a list, without their systems; empty: any."""
        return frozenset(code(v) for v in self.one(name).split(",") if v)

    def span(self, name: str) -> Span | None:
        """What a date parameter leaves; None if it is not there. Raises Invalid(`date-invalid`)."""
        return span_of(self.values[name], FIRST, LAST) if name in self.values else None


def is_lenient(prefer: str) -> bool:
    """What the header Prefer (RFC 7240) says of parameters that are not known."""
    said = [p.partition(";")[0].replace(" ", "").replace('"', "").lower() for p in prefer.split(",")]
    return "handling=lenient" in said and "handling=strict" not in said


def parse(resource: str, pairs: Iterable[tuple[str, str]], *, lenient: bool = False) -> Asked:
    """Of a query string. Raises Invalid: `search-parameter`, `search-include`, `search-sort`, `search-summary`,
    `option-count`, `patient-id`.
    """
    known = PARAMETERS[resource]
    values: dict[str, list[str]] = {}
    include: set[str] = set()
    revinclude: set[str] = set()
    elements: set[str] = set()
    left_out: set[tuple[str, str]] = set()
    count, page, sort, counted = COUNT, "", "", False
    for name, value in pairs:
        if not value:
            continue
        if name == "_include":
            if (brought := _included(resource, value)) is not None:
                include.add(brought)
            elif lenient:
                left_out.add((name, value))
            else:
                names = ", ".join(f"{resource}:{n}" for n in INCLUDES[resource])
                raise Invalid("search-include", f"_include is one of {names}" if names else "nothing can be included")
        elif name == "_revinclude":
            if (refers := REVINCLUDES.get(resource, {}).get(value)) is not None:
                revinclude.add(refers)
            elif lenient:
                left_out.add((name, value))
            else:
                raise Invalid("search-include", f"_revinclude of {resource}: {_listed(REVINCLUDES.get(resource, ()))}")
        elif name == "_sort":
            if value.removeprefix("-") in SORTS[resource] and not sort:
                sort = value
            elif lenient:
                left_out.add((name, value))
            else:
                told = _listed(n for by in SORTS[resource] for n in (by, f"-{by}"))
                raise Invalid("search-sort", f"_sort of {resource} is one of: {told}")
        elif name == "_summary":
            if value in ("count", "false"):
                counted = value == "count"
            elif lenient:
                left_out.add((name, value))
            else:
                raise Invalid("search-summary", "_summary is count or false; some elements: _elements")
        elif name == "_elements":
            elements |= {e.strip() for e in value.split(",") if e.strip()}
        elif name == "_count":
            count = _count(value)
        elif name == "_page":
            page = value
        elif name in FORMAT:
            continue
        else:
            base, _, modifier = name.replace(".identifier", ":identifier").partition(":")
            if base not in known or modifier not in ("", "identifier") or (modifier and base not in _PATIENT):
                if not lenient:
                    raise Invalid("search-parameter", f"{resource} is searched by {', '.join(known)}")
                left_out.add((name, value))
                continue
            if base in _PATIENT:
                base, value = "patient", value if modifier else f"{KEY}{_key(value)}"
            values.setdefault(base, []).append(value)
    if sort and sort != NATURAL.get(resource, sort) and not WHOLE[resource] & values.keys():
        if not lenient:
            others = _listed(sorted(WHOLE[resource]))
            raise Invalid("search-sort", f"without one of {others} the one order is _sort={NATURAL[resource]}")
        left_out.add(("_sort", sort))
        sort = ""
    found = {n: tuple(v) for n, v in values.items()}
    return Asked(
        resource,
        found,
        frozenset(include),
        count,
        page,
        frozenset(left_out),
        frozenset(revinclude),
        sort,
        counted,
        frozenset(elements),
    )


NO_PAGE: Final = "_page is what the link `next` of a page before has"
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
_PATIENT: Final = ("patient", "subject")
KEY: Final = "key:"
"""Before a patient key, in a value of `patient`; an identifier else."""


def token(text: str) -> tuple[str, str]:
    """(system, value) of a token; an empty system: any."""
    system, bar, value = text.rpartition("|")
    return (system, value) if bar else ("", text)


def code(text: str) -> str:
    """The code of a token."""
    return text.rpartition("|")[2]


def oid(text: str) -> str:
    """A UID however it is written."""
    return code(text).removeprefix("urn:oid:")


def local_days(span: Span, zone: tzinfo) -> tuple[str, str]:
    """The days, YYYYMMDD, on which a span may lie anywhere in Egypt's zone and UTC: first and last; open ends empty."""
    first = min(span.first.date(), span.first.astimezone(zone).date()) if span.first > FIRST else None
    last = span.end - timedelta(microseconds=1)
    end = max(last.date(), last.astimezone(zone).date()) if span.end < LAST else None
    return (first.strftime("%Y%m%d") if first else "", end.strftime("%Y%m%d") if end else "")


def within(span: Span | None, moment: str, zone: tzinfo) -> bool:
    """Whether a FHIR date or dateTime may lie in a span; a day alone does where a part of it does, there or in UTC, in
    which a day without a zone is asked for.
    """
    if span is None:
        return True
    if not moment:
        return False
    if len(moment) > 10:
        return span.holds(moment)
    day = date.fromisoformat(moment)
    starts = (datetime.combine(day, time(), UTC), datetime.combine(day, time(), zone))
    return any(start < span.end and start + timedelta(days=1) > span.first for start in starts)


def patients_of(values: Sequence[str]) -> tuple[str, str]:
    """(patient key, "") or ("", identifier as a token) of `patient`. Raises Invalid for several."""
    if len(values) != 1:
        raise Invalid("search-repeated", "patient is there twice: say it once")
    value = values[0]
    return (value.removeprefix(KEY), "") if value.startswith(KEY) else ("", value)


def _key(reference: str) -> str:
    return patient_key_of(reference.rpartition("/")[2])


def _included(resource: str, value: str) -> str | None:
    source, _, name = value.partition(":")
    return INCLUDES[resource].get(name.partition(":")[0]) if source == resource else None


def uuid_of(text: str, what: str) -> str:
    """The id of a `what` (report, order). Raises Invalid(`…-id`)."""
    if not _UUID.match(text):
        raise Invalid(f"{what}-id", f"the id of a {what} is a UUID")
    return text


def sliced(asked: Asked, found: Sequence[T]) -> tuple[Sequence[T], str]:
    """The page of a result that is known whole, and where the next one begins; empty: nowhere. Raises
    Invalid(`option-page`).
    """
    text = asked.page
    if text and not (text.isascii() and text.isdigit() and len(text) < 5):
        raise Invalid("option-page", NO_PAGE)
    end = int(text or 0) + asked.count
    return found[end - asked.count : end], str(end) if len(found) > end else ""


def ordered(asked: Asked, found: Sequence[T], by: Callable[[T], tuple[str, str]]) -> list[T]:
    """A result that is known whole as `_sort` wants it. `by`: what it is sorted by, and an id; what has nothing to be
    sorted by comes last (search.html#sort leaves it open).
    """
    some, none = [f for f in found if by(f)[0]], [f for f in found if not by(f)[0]]
    return [*sorted(some, key=by, reverse=asked.sort.startswith("-")), *none]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "nothing"


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text) > 0):
        raise Invalid("option-count", f"_count is a number from 1 to {COUNT_MAX}")
    return min(int(text), COUNT_MAX)
