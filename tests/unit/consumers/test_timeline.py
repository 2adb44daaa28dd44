"""A patient's timeline: all that happened, at all hospitals, in all joined files, priors first."""

from __future__ import annotations

import asyncio
from typing import Any

from schemas.events import PatientLinked
from schemas.roles import Role
from schemas.tables import Upsert
from tests.unit.consumers.archive import MemoryArchive
from tests.unit.consumers.test_fhir_doors import MONA, MUNA, REPORTS, archive_of, asked, linked, ordered

DAY = "2025-03-02T00:00:00Z"


def filled() -> MemoryArchive:
    archive = archive_of()
    order = {"patient_key": MONA, "order_id": REPORTS[3]}
    said: dict[str, Any] = {"authored": "2025-02-27T09:00:00+02:00", "site": "CAI-1", "status": "active"}
    said |= {"modality": "CT", "body_part": "CHEST", "procedure_text": "CT chest", "study_uid": "1.2.3"}
    told = {"destination": "ehr", "delivery_id": REPORTS[0]}
    writes = [
        Upsert("orders_by_patient", order, {**said, "recorded": DAY, "priority": "stat", "accession": "A-1"}, 1),
        Upsert("deliveries_by_report", {"report_id": REPORTS[0], "version": 2, **told}, {"occurred": DAY}, 1),
        Upsert("deliveries_by_study", {"study_uid": "1.2.4", **told}, {"occurred": "2025-03-03T00:00:00Z"}, 1),
        Upsert("series", {"study_uid": "1.2.4", "series_uid": "1.2.4.1"}, {"body_part": "Chest"}, 1 << 40),
    ]
    asyncio.run(archive.tables.apply(writes))
    return archive


def lines(found: dict[str, Any]) -> list[tuple[str, str]]:
    return [(e["kind"], e["study_uids"][0]) for e in found["entries"]]


def test_everything_in_the_order_of_time() -> None:
    (answer,) = asked(filled(), [f"/patients/{MONA}/timeline"])
    found = answer.json()
    assert [e["when"] for e in found["entries"]] == sorted((e["when"] for e in found["entries"]), reverse=True)
    assert lines(found) == [
        ("delivery", "1.2.4"),
        ("report", "1.2.3"),
        ("delivery", "1.2.3"),
        ("report", "1.2.4"),
        ("study", "1.2.3"),
        ("order", "1.2.3"),
        ("study", "1.2.4"),
    ]
    study = next(e for e in found["entries"] if e["kind"] == "study")
    assert (study["thumbnail"], study["instances"]) == ("/dicom-web/studies/1.2.3/thumbnail", 2)
    report = next(e for e in found["entries"] if e["kind"] == "report")
    assert (report["version"], report["report_id"]) == (2, REPORTS[0])


def test_priors_of_a_part_come_first() -> None:
    (answer,) = asked(filled(), [f"/patients/{MONA}/timeline?body_part=chest&limit=5"])
    found = answer.json()
    assert [(e["kind"], e["prior"]) for e in found["entries"]] == [
        ("delivery", True),
        ("report", True),
        ("order", True),
        ("study", True),
        ("report", False),
    ]
    assert found["more"]


def test_joined_files_are_one_timeline() -> None:
    archive = filled()
    archive.told(linked(PatientLinked, 1))
    (answer,) = asked(archive, [f"/patients/{MUNA}/timeline"])
    found = answer.json()
    assert found["files"] == [MONA, MUNA]
    assert {u for e in found["entries"] for u in e["study_uids"]} == {"1.2.3", "1.2.4", "1.2.5"}


def test_who_may_not_see_it_does_not() -> None:
    archive = filled()
    answers = asked(archive, [f"/patients/{MONA}/timeline", "/patients/nonsense/timeline"], Role.OPERATOR)
    assert [a.status_code for a in answers] == [403, 403]
    (unknown,) = asked(archive, [f"/patients/k1:{'x' * 43}/timeline"])
    assert unknown.json()["entries"] == []


def test_an_order_alone_is_a_timeline() -> None:
    archive = MemoryArchive()
    ordered(archive)
    (listed,) = asked(archive, ["/fhir/ServiceRequest?_id=01890000-0000-7000-8000-000000000001"])
    key = listed.json()["entry"][0]["resource"]["subject"]["reference"]
    (patient,) = asked(archive, [f"/fhir/{key}"])
    (answer,) = asked(archive, [f"/patients/{patient.json()['identifier'][-1]['value']}/timeline"])
    assert lines(answer.json()) == [("order", "2.25.7")]
