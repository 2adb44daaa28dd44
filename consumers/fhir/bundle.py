"""Pages of searches as FHIR R4 Bundle (hl7.org/fhir/R4/search.html#Paging), and what went wrong as OperationOutcome.
Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from consumers.fhir.codes import Resource, compact

ISSUES: Final[Mapping[int, str]] = {
    400: "invalid",
    401: "login",
    403: "forbidden",
    404: "not-found",
    405: "not-supported",
    406: "not-supported",
    409: "conflict",
    410: "deleted",
    412: "conflict",
    413: "too-long",
    415: "not-supported",
    422: "processing",
    428: "required",
    429: "throttled",
    503: "transient",
}
"""HTTP status → IssueType (hl7.org/fhir/R4/valueset-issue-type.html)."""
OTHER_ISSUE: Final = "exception"


def searchset(
    matches: Sequence[Resource],
    included: Sequence[Resource],
    *,
    base: str,
    here: str,
    next: str = "",
    total: int | None = None,
    notes: Sequence[str] = (),
) -> Resource:
    """A page: what matched, what was asked for beside it, and in words what the page does not show. `total` where it is
    known without reading all.
    """
    links = [{"relation": "self", "url": here}, *([{"relation": "next", "url": next}] if next else [])]
    entries = [_entry(r, base, "match") for r in matches] + [_entry(r, base, "include") for r in included]
    if notes:
        told = [{"severity": "warning", "code": "incomplete", "diagnostics": n} for n in notes]
        entries.append({"resource": {"resourceType": "OperationOutcome", "issue": told}, "search": {"mode": "outcome"}})
    return compact({"resourceType": "Bundle", "type": "searchset", "total": total, "link": links, "entry": entries})


MANDATORY: Final = {
    "ImagingStudy": frozenset({"status", "subject"}),
    "DiagnosticReport": frozenset({"status", "code"}),
    "ServiceRequest": frozenset({"status", "intent", "subject"}),
    "Endpoint": frozenset({"status", "connectionType", "payloadType", "address"}),
}
"""What a resource must have, also where only some elements are asked for."""
SUBSETTED: Final = {
    "system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue",
    "code": "SUBSETTED",
    "display": "subsetted",
}


def subset(resource: Resource, elements: frozenset[str]) -> Resource:
    """Of a resource the top-level `elements` and what it must have, marked as a part (search.html#elements)."""
    kept = elements | MANDATORY.get(resource["resourceType"], frozenset()) | {"resourceType", "id", "meta"}
    meta = resource.get("meta", {})
    return {n: v for n, v in resource.items() if n in kept} | {
        "meta": {**meta, "tag": [*meta.get("tag", ()), SUBSETTED]}
    }


def _entry(resource: Resource, base: str, mode: str) -> Resource:
    url = f"{base}/{resource['resourceType']}/{resource['id']}"
    return {"fullUrl": url, "resource": resource, "search": {"mode": mode}}


def operation_outcome(status: int, title: str, detail: str = "", reason: str = "") -> Resource:
    """What a problem (RFC 9457) says, as FHIR has it (hl7.org/fhir/R4/operationoutcome.html)."""
    issue = {
        "severity": "error",
        "code": ISSUES.get(status, OTHER_ISSUE),
        "details": compact(
            {"coding": [{"system": "urn:sijil:reason", "code": reason}] if reason else [], "text": title}
        ),
        "diagnostics": detail,
    }
    return {"resourceType": "OperationOutcome", "issue": [compact(issue)]}
