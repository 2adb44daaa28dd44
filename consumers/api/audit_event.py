"""Accesses as FHIR R4 AuditEvent (hl7.org/fhir/R4/auditevent.html), in the codes of DICOM PS3.15 §A.5. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any

from schemas.errors import Invalid

DCM = "http://dicom.nema.org/resources/ontology/DCM"
REASON = "http://terminology.hl7.org/CodeSystem/v3-ActReason"
ENTITY_TYPE = "http://terminology.hl7.org/CodeSystem/audit-entity-type"
ENTITY_ROLE = "http://terminology.hl7.org/CodeSystem/object-role"
ACTOR = "urn:sijil:actor"
ROLE = "urn:sijil:role"
PATIENT_KEY = "urn:sijil:patient-key"
ACTION = "urn:sijil:action"
DICOM_UID = "urn:dicom:uid"

QUERY = ("110112", "Query")
INSTANCES = ("110103", "DICOM Instances Accessed")
TRANSFER = ("110104", "DICOM Instances Transferred")
EXPORT = ("110106", "Export")
RECORD = ("110110", "Patient Record")
AUDIT_LOG = ("110101", "Audit Log Used")
OVERRIDE = ("110127", "Emergency Override Started")

TYPES: Mapping[str, tuple[str, str]] = {
    "search": QUERY,
    "query": QUERY,
    "worklist": QUERY,
    "read-accesses": AUDIT_LOG,
    "retrieve-original": EXPORT,
    "dicom-get": TRANSFER,
    "dicom-move": TRANSFER,
    "break-glass": OVERRIDE,
    "emergency-search": QUERY,
    "read-patient": RECORD,
    "read-order": RECORD,
    "read-report": RECORD,
    "read-criticals": RECORD,
    "read-times": RECORD,
}
"""Action → event id of PS3.16 CID 400; any other read: INSTANCES."""

SUCCESS, REFUSED = "0", "4"
"""Outcomes; 4: "not successful due to some kind of handled error (often equivalent to an HTTP 4xx response)"."""


def resources(rows: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Of rows of a list of accesses; neighbours of one access (a search that showed several studies) are one."""
    for _, group in groupby(rows, key=lambda r: r["access_id"]):
        yield resource(list(group))


def resource(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All rows of one access."""
    row = rows[0]
    code, display = TYPES.get(row["action"], INSTANCES)
    found: dict[str, Any] = {
        "resourceType": "AuditEvent",
        "id": row["access_id"],
        "type": {"system": DCM, "code": code, "display": display},
        "subtype": [{"system": ACTION, "code": row["action"]}],
        "action": "E" if (code, display) in (QUERY, OVERRIDE) else "R",
        "recorded": row["occurred"],
        "outcome": REFUSED if row["outcome"] == "denied" else SUCCESS,
        "purposeOfEvent": [{"coding": [{"system": REASON, "code": row["purpose"]}]}],
        "agent": _agents(row),
        "source": {"observer": {"display": "Sijil"}},
    }
    if row["last_used"]:
        found["period"] = {"start": row["occurred"], "end": row["last_used"]}
    if row["reason"]:
        found["outcomeDesc"] = row["reason"]
    if entities := _entities(rows):
        found["entity"] = entities
    return found


def _agents(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    asker: dict[str, Any] = {
        "who": {"identifier": {"system": ACTOR, "value": row["actor"]}},
        "requestor": True,
        "role": [{"coding": [{"system": ROLE, "code": row["role"]}]}],
    }
    if row["address"]:
        asker["network"] = {"address": row["address"], "type": "2"}
    if not row["destination"]:
        return [asker]
    destination = {
        "type": {"coding": [{"system": DCM, "code": "110152", "display": "Destination Role ID"}]},
        "who": {"identifier": {"system": ACTOR, "value": f"ae:{row['destination']}"}},
        "requestor": False,
    }
    return [asker, destination]


def _entities(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    patients = dict.fromkeys(row["patient_key"] for row in rows if row["patient_key"])
    found = [
        {
            "what": {"identifier": {"system": PATIENT_KEY, "value": key}},
            "type": {"system": ENTITY_TYPE, "code": "1", "display": "Person"},
            "role": {"system": ENTITY_ROLE, "code": "1", "display": "Patient"},
        }
        for key in patients
    ]
    for row in rows:
        if row["study_uid"]:
            study: dict[str, Any] = {
                "what": {"identifier": {"system": DICOM_UID, "value": f"urn:oid:{row['study_uid']}"}},
                "type": {"system": ENTITY_TYPE, "code": "2", "display": "System Object"},
                "role": {"system": ENTITY_ROLE, "code": "3", "display": "Report"},
            }
            if detail := _details(row, ("uses", "bytes", "cut_short")):
                study["detail"] = detail
            found.append(study)
    if len(rows) == 1 and not rows[0]["study_uid"] and (detail := _details(rows[0], ("shown_count",))):
        found.append(
            {
                "type": {"system": ENTITY_TYPE, "code": "2", "display": "System Object"},
                "role": {"system": ENTITY_ROLE, "code": "24", "display": "Query"},
                "detail": detail,
            }
        )
    return found


def _details(row: Mapping[str, Any], names: Sequence[str]) -> list[dict[str, str]]:
    return [
        {"type": name.replace("_", "-"), "valueString": str(row[name])} for name in names if row.get(name) is not None
    ]


def bundle(found: Sequence[Mapping[str, Any]], base: str, self_url: str, next_url: str) -> dict[str, Any]:
    """A page of a search (hl7.org/fhir/R4/search.html#2.21.1.3.2)."""
    links = [{"relation": "self", "url": self_url}]
    if next_url:
        links.append({"relation": "next", "url": next_url})
    entries = [{"fullUrl": f"{base}/AuditEvent/{r['id']}", "resource": r, "search": {"mode": "match"}} for r in found]
    page: dict[str, Any] = {"resourceType": "Bundle", "type": "searchset", "link": links}
    return {**page, "entry": entries} if entries else page  # FHIR knows no empty list


# ------------------------------------------------------------------------------------------------ what is asked for


@dataclass(frozen=True)
class Span:
    """A span of time, `first` in it, `end` not."""

    first: datetime
    end: datetime

    def holds(self, rfc3339: str) -> bool:
        """Whether a moment lies in it."""
        return self.first <= datetime.fromisoformat(rfc3339) < self.end


_DATE = re.compile(
    r"(eq|ge|gt|le|lt|sa|eb)?([0-9]{4})(?:-([0-9]{2})(?:-([0-9]{2})"
    r"(T[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?(?:Z|[+-][0-9]{2}:[0-9]{2}))?)?)?\Z"
)


def span_of(dates: Iterable[str], earliest: datetime, latest: datetime) -> Span:
    """What parameters `date` leave of [earliest, latest) (hl7.org/fhir/R4/search.html#date). Raises Invalid."""
    first, end = earliest, latest
    for text in dates:
        prefix, value = _date(text)
        if prefix in ("eq", "ge"):
            first = max(first, value.first)
        if prefix in ("eq", "le"):
            end = min(end, value.end)
        if prefix in ("gt", "sa"):
            first = max(first, value.end)
        if prefix in ("lt", "eb"):
            end = min(end, value.first)
    return Span(first, end)


def _date(text: str) -> tuple[str, Span]:
    found = _DATE.match(text.replace(" ", "+"))  # a plus sign that nobody escaped
    try:
        if not found:
            raise ValueError(text)
        prefix, year, month, day, time = found.groups()
        if time:
            at = datetime.fromisoformat(f"{year}-{month}-{day}{time}")
            at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
            if "." in time:
                precision = timedelta(microseconds=1)
            else:
                precision = timedelta(seconds=1) if time[:9].count(":") == 2 else timedelta(minutes=1)
            return prefix or "eq", Span(at, at + precision)
        first = datetime(int(year), int(month or 1), int(day or 1), tzinfo=UTC)
        if day:
            end = first + timedelta(days=1)
        elif month:
            end = (first + timedelta(days=31)).replace(day=1)
        else:
            end = first.replace(year=first.year + 1)
    except (ValueError, OverflowError) as e:
        raise Invalid("date-invalid", "date must be as FHIR has it, e.g. ge2026-11-01 or 2026-11-23T10:00:00Z") from e
    return prefix or "eq", Span(first, end)


def identifier_of(text: str) -> str:
    """The value of a token `system|value`, of a reference by identifier, or itself."""
    return text.rpartition("|")[2].removeprefix("urn:oid:")
