"""Every kind of resource that the door gives passes an independent validator."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from consumers.fhir.ids import patient_id
from consumers.fhir.notification import HANDSHAKE, HEARTBEAT, NOTIFICATION, About, Happened, answer, bundle
from consumers.fhir.subscription import REPORT_ISSUED, Asked, resource
from schemas.events import PatientLinked
from schemas.tables import Upsert
from tests.fhir.validator import faults
from tests.unit.consumers.archive import MemoryArchive, part10
from tests.unit.consumers.test_fhir_doors import ORDER, asked, key_of, linked, ordered

REPORT = "00000000-0000-4000-8000-000000000001"
DOCUMENT: dict[str, Any] = {
    "resourceType": "DiagnosticReport",
    "status": "final",
    "code": {"coding": [{"system": "http://loinc.org", "code": "24627-2"}], "text": "CT chest"},
    "performer": [{"reference": "Practitioner/dr-7", "display": "Dr Samir"}],
    "effectiveDateTime": "2025-02-28T10:15:00+02:00",
    "conclusion": "لا توجد علامات حادة",
    "presentedForm": [{"contentType": "text/plain", "language": "ar", "data": "2KfZhNiz2YTYp9mF"}],
}
ACCESS = "019550b8-2400-7000-8000-000000000001"
NATIONAL: dict[str, Any] = {"PatientID": "28001010100047", "PatientSex": "F", "PatientBirthDate": "19800101"}


def resources() -> list[dict[str, Any]]:
    """One of every kind and of every odd shape, as the door answers them."""
    archive = MemoryArchive()
    archive.store([part10("1.2.3.1.1"), part10("1.2.3.2.1", series="1.2.3.2", Modality="", SeriesNumber=None)])
    archive.store([part10("1.2.4.1.1", study="1.2.4", series="1.2.4.1", **NATIONAL)])
    bare: dict[str, Any] = {
        "PatientID": "",
        "PatientName": "",
        "PatientBirthDate": "",
        "PatientSex": "",
        "StudyDate": "",
    }
    bare |= {"StudyTime": "", "AccessionNumber": "", "ReferringPhysicianName": "", "StudyDescription": ""}
    archive.store([part10("1.2.6.1.1", study="1.2.6", series="1.2.6.1", **bare)])
    archive.report(json.dumps(DOCUMENT).encode(), ["1.2.3"], report_id=REPORT)
    archive.told(linked(PatientLinked, 1))
    ordered(archive)
    seen = {"outcome": "granted", "actor": "person:7", "role": "doctor", "purpose": "TREAT", "action": "retrieve"}
    seen |= {"occurred": "2025-03-01T08:00:00Z", "study_uid": "1.2.3"}
    access = {"hour": "2025030108", "access_id": ACCESS}
    asyncio.run(archive.tables.apply([Upsert("accesses_by_hour", access, seen, 1)]))
    paths = [
        "/fhir/metadata",
        "/fhir/ImagingStudy?_include=ImagingStudy:patient&_include=ImagingStudy:endpoint",
        "/fhir/DiagnosticReport?study=1.2.3&_include=DiagnosticReport:study&_include=DiagnosticReport:patient",
        f"/fhir/ServiceRequest?_id={ORDER}&_include=ServiceRequest:patient",
        "/fhir/ImagingStudy?_id=1.2.3,1.2.4&_sort=_lastUpdated&_elements=started&_revinclude=DiagnosticReport:study",
        "/fhir/DiagnosticReport?study=1.2.3&_summary=count",
        f"/fhir/Patient/{patient_id(key_of('P-77'))}",
        "/fhir/Patient/7",
        "/fhir/Endpoint/dicomweb",
        f"/fhir/AuditEvent/{ACCESS}",
        "/fhir/AuditEvent?patient=" + key_of("P-77"),
    ]
    return [a.json() for a in asked(archive, paths)] + notified()


def notified() -> list[dict[str, Any]]:
    """A subscription, its status, and what its endpoint is sent."""
    about = About("http://sijil.test/fhir", ACCESS, REPORT_ISSUED, "active", 3)
    wanted = Asked(REPORT_ISSUED, "https://his.test/hook", True, "reports", (("Authorization", "Bearer 1"),), 60)
    moment = "2025-03-01T08:00:00Z"
    event = Happened(3, moment, f"DiagnosticReport/{REPORT}", new=False)
    return [
        resource(wanted, id=ACCESS, version=2, changed=moment, status="error", error="not-reachable"),
        answer(replace(about, error="not-reachable"), f"{about.address}/$status"),
        bundle(about, HANDSHAKE, id=REPORT, moment=moment),
        bundle(about, HEARTBEAT, id=REPORT, moment=moment),
        bundle(about, NOTIFICATION, id=REPORT, moment=moment, event=event),
        bundle(about, NOTIFICATION, id=REPORT, moment=moment, event=replace(event, new=True)),
    ]


@pytest.mark.slow
def test_what_the_door_gives_is_fhir_r4() -> None:
    found = resources()
    kinds = {e["resource"]["resourceType"] for r in found for e in r.get("entry", ()) if "resource" in e}
    assert {"Patient", "ImagingStudy", "DiagnosticReport", "ServiceRequest", "Endpoint"} <= kinds
    wrong = {"resourceType": "ImagingStudy", "id": "x", "status": "seen", "subject": {"reference": "Patient/1"}}
    told = faults([*found, wrong])
    assert any(number == len(found) for number, _, _ in told), "the validator is one"
    assert [t for t in told if t[0] < len(found)] == []
