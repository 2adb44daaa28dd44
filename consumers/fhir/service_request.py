"""An order as FHIR R4 ServiceRequest (hl7.org/fhir/R4/servicerequest.html). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from consumers.fhir.codes import Resource, compact


def service_request(
    document: Mapping[str, Any], *, id: str, version: int, subject: Resource | None, recorded: str = ""
) -> Resource:
    """Of the document of an order's version, which contains the patient as the order names them. `subject`: a Reference
    to the archive's own Patient, in whose place the contained one goes; None: nobody else knows the patient yet.
    `recorded`: when the version was, RFC 3339.
    """
    named = document.get("subject")
    local = named.get("reference", "") if isinstance(named, dict) else ""
    contained = [c for c in document.get("contained") or () if isinstance(c, dict)]
    if subject is not None:
        contained = [c for c in contained if not (c.get("resourceType") == "Patient" and f"#{c.get('id')}" == local)]
    meta = document.get("meta")
    return compact(
        {
            **document,
            "resourceType": "ServiceRequest",
            "id": id,
            "meta": compact(
                {**(meta if isinstance(meta, dict) else {}), "versionId": str(version), "lastUpdated": recorded}
            ),
            "contained": contained,
            "subject": subject or named,
        }
    )
