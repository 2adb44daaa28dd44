"""Transactions for a health record (hl7.org/fhir/R4/http.html#transaction). Pure.

What is filed under a patient is a resource of its own, found again by an identifier made of what it is and whose it
is: a repeat updates it to what it was, and what was filed under a wrong patient stays there, entered in error. The
patient is a conditional reference: an archive creates no people in a national record unless it is told to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import Any, Final
from urllib.parse import quote

from consumers.fhir.codes import Resource, compact
from consumers.fhir.diagnostic_report import RADIOLOGY, UNKNOWN_CODE, diagnostic_report
from consumers.fhir.endpoint import endpoint
from consumers.fhir.imaging_study import imaging_study
from consumers.fhir.patient import patient
from schemas.identity import KEY_NATIONAL, derived_id

FILED: Final = "urn:sijil:filed"
"""System of the identifiers under which the archive finds again what it filed."""
REFERENCED: Final = "urn:sijil:reference:"
"""Systems of what a document refers to in the system it was written in: `urn:sijil:reference:Practitioner`, …"""
ENDPOINT: Final = "dicomweb"
ERROR: Final = "entered-in-error"


@dataclass(frozen=True)
class Subject:
    """A patient as the record knows them."""

    patient_key: str
    system: str
    value: str
    create: Mapping[str, Any] | None = None
    """A row about the patient, where the archive may create who is not there."""

    @property
    def search(self) -> str:
        """`Patient?identifier=…`: who it is, in the record."""
        return f"Patient?identifier={quote(self.system, safe=':/.')}|{quote(self.value)}"

    @property
    def reference(self) -> Resource:
        """To use in a transaction."""
        return {"reference": _url("patient", self.patient_key) if self.create is not None else self.search}


def filed_id(kind: str, id: str, patient_key: str) -> str:
    """Identifier of what is filed of a `study` or a `report` under a patient."""
    return derived_id(f"filed-{kind}", id, patient_key)


def transaction(entries: Sequence[Resource]) -> Resource:
    """A Bundle that is done whole or not at all."""
    return {"resourceType": "Bundle", "type": "transaction", "entry": list(entries)}


def patient_entries(subject: Subject) -> list[Resource]:
    """The patient, where the archive may create them: only if there is none."""
    if subject.create is None:
        return []
    row = {**subject.create, "basis": KEY_NATIONAL}
    resource = patient(row, national_system=subject.system)
    resource.pop("id")
    request = {"method": "POST", "url": "Patient", "ifNoneExist": subject.search.partition("?")[2]}
    return [{"fullUrl": _url("patient", subject.patient_key), "resource": resource, "request": request}]


def study_entry(
    row: Mapping[str, Any], series: Sequence[Mapping[str, Any]], subject: Subject, *, dicomweb: str, zone: tzinfo
) -> Resource:
    """A study, with where its images are. Of a row of `studies` and those of `series`, as they are now."""
    place = {"reference": f"#{ENDPOINT}"}
    resource = imaging_study(row, series, subject=subject.reference, endpoint=place, zone=zone)
    if resource.get("endpoint"):
        resource["contained"] = [{**endpoint(dicomweb), "id": ENDPOINT}]
    return _update(resource, "study", row["study_uid"], subject.patient_key)


def report_entry(
    row: Mapping[str, Any], document: Mapping[str, Any], studies: Sequence[str], subject: Subject, pdf: bytes
) -> Resource:
    """A version of a report, its studies in the same transaction."""
    resource = diagnostic_report(
        row,
        foreign(document),
        subject=subject.reference,
        studies=[{"reference": _url("study", uid, subject.patient_key)} for uid in studies],
        pdf=pdf,
    )
    return _update(resource, "report", row["report_id"], subject.patient_key)


def withdrawn_study(study_uid: str, subject: Subject) -> Resource:
    """A study that is not this patient's, or nobody's: nothing is said of it any more."""
    resource = {"resourceType": "ImagingStudy", "status": ERROR, "subject": {"reference": subject.search}}
    return _update(resource, "study", study_uid, subject.patient_key)


def withdrawn_report(report_id: str, subject: Subject) -> Resource:
    """The same for a report: its text was another's, so it does not stay."""
    resource = {
        "resourceType": "DiagnosticReport",
        "status": ERROR,
        "category": [RADIOLOGY],
        "code": UNKNOWN_CODE,
        "subject": {"reference": subject.search},
    }
    return _update(resource, "report", report_id, subject.patient_key)


def _update(resource: Resource, kind: str, id: str, patient_key: str) -> Resource:
    """A conditional update (hl7.org/fhir/R4/http.html#cond-update)."""
    filed = {"use": "secondary", "system": FILED, "value": filed_id(kind, id, patient_key)}
    kept = {n: v for n, v in resource.items() if n not in ("id", "meta")}
    kept["identifier"] = [*resource.get("identifier", ()), filed]
    url = f"{resource['resourceType']}?identifier={FILED}|{filed['value']}"
    return {"fullUrl": _url(kind, id, patient_key), "resource": kept, "request": {"method": "PUT", "url": url}}


def _url(*parts: str) -> str:
    return "urn:uuid:" + derived_id("bundle", *parts)


def foreign(value: Any) -> Any:
    """A document with references that mean nothing at another server made into identifiers: `Practitioner/7` is
    somebody else there.
    """
    if isinstance(value, dict):
        reference = value.get("reference")
        if isinstance(reference, str) and reference and not reference.startswith(("#", "http://", "https://", "urn:")):
            kind, _, id = reference.partition("/")
            named = value.get("identifier") or {"system": REFERENCED + kind, "value": id or kind}
            rest = {n: v for n, v in value.items() if n not in ("reference", "identifier")}
            return compact({"type": kind if id else "", "identifier": named, **rest})
        return {n: foreign(v) for n, v in value.items()}
    if isinstance(value, list):
        return [foreign(v) for v in value]
    return value
