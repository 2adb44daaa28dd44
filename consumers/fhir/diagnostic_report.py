"""A report as FHIR R4 DiagnosticReport (hl7.org/fhir/R4/diagnosticreport.html). Pure.

The document is kept as its author sent it. What leaves here says the same, with the archive's own patient and studies
in the place of those that the author's system knows: a correction may have moved the study to another patient since.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any, Final

from consumers.fhir import codes
from consumers.fhir.codes import Resource, compact

RADIOLOGY: Final = {
    "coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0074", "code": "RAD", "display": "Radiology"}]
}
REPORT_ID: Final = "urn:ietf:rfc:3986"
"""System of identifiers that are URIs: a report's is `urn:uuid:<id>`."""
UNKNOWN_CODE: Final = {"text": "Radiology report"}


def diagnostic_report(
    row: Mapping[str, Any],
    document: Mapping[str, Any],
    *,
    subject: Resource | None,
    studies: Sequence[Resource],
    pdf: bytes = b"",
    status: str = "",
) -> Resource:
    """Of a row of `reports` (or `reports_by_study`) and the document it names. `subject` and `studies` are References;
    None: whose it is is not known yet. `pdf`: the printed report, first of `presentedForm`. `status`: another than the
    row's: `entered-in-error` for the patient whom it was taken from.
    """
    forms = [f for f in _list(document.get("presentedForm")) if isinstance(f, dict)]
    if pdf:
        title = {"title": "report.pdf"}
        forms = [{"contentType": "application/pdf", "data": b64encode(pdf).decode(), "size": len(pdf), **title}, *forms]
    own = [i for i in _list(document.get("identifier")) if isinstance(i, dict) and i.get("system") != REPORT_ID]
    return compact(
        {
            **document,
            "resourceType": "DiagnosticReport",
            "id": row["report_id"],
            "meta": compact(
                {**_meta(document), "versionId": str(row["version"]), "lastUpdated": row.get("moment") or ""}
            ),
            "identifier": [{"system": REPORT_ID, "value": f"urn:uuid:{row['report_id']}"}, *own],
            "status": status or row["status"],
            "category": _list(document.get("category")) or [RADIOLOGY],
            "code": document.get("code") or UNKNOWN_CODE,
            "subject": subject or None,
            "issued": row["issued"],
            "imagingStudy": list(studies),
            "presentedForm": forms,
        }
    )


def study_reference(study_uid: str) -> Resource:
    """A reference to a study of this archive that also holds elsewhere, by its UID."""
    return {
        "reference": f"ImagingStudy/{study_uid}",
        "type": "ImagingStudy",
        "identifier": {"system": codes.DICOM_UID, "value": codes.oid(study_uid)},
    }


def _meta(document: Mapping[str, Any]) -> Resource:
    """Profiles, tags and labels that the author gave; versions and times are the archive's."""
    meta = document.get("meta")
    kept = ("profile", "security", "tag", "source")
    return {n: v for n, v in meta.items() if n in kept} if isinstance(meta, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
