"""By construction: no route of the query API answers without the access trail, and when that fails nothing leaves."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute

from consumers.api.guard import LAG_HEADER, GuardedRoute
from consumers.fhir.ids import patient_id
from infra.chain import ChainedLog
from infra.http_door import HttpDoor, compose, installed
from infra.http_problems import ACCESS_HEADER
from infra.memory import MemoryLog, MemoryObjects
from producers import treating
from schemas.events import AccessDenied, AccessGranted, AccessUsed
from schemas.roles import Role
from schemas.tables import Upsert
from tests.callers import Anyone
from tests.permission_table import reason_of
from tests.unit.consumers.archive import MemoryArchive, part10
from tests.unit.consumers.test_fhir_doors import ORDER, ordered

STAFF = {
    "/people",
    "/referrers",
    "/colleagues",
    "/fhir/Practitioner",
    "/fhir/Practitioner/{person}",
    "/fhir/PractitionerRole",
    "/fhir/PractitionerRole/{person}",
}
DELIVERIES = {"/deliveries", "/deliveries/{destination}"}
"""They hold ids and codes alone."""
SUBSCRIPTIONS = {
    "/fhir/Subscription",
    "/fhir/Subscription/{subscription}",
    "/fhir/Subscription/{subscription}/$status",
    "/subscription-endpoints",
}
"""They hold topics, addresses and counts."""
DECISIONS = {"/emergency", "/results-waiting/{waiting}", "/invitations", "/invitations/{invitation}"}
"""They take something in."""
OF_THE_DOOR = {
    "/metrics",
    "/me",
    "/ae",
    "/ae/changes",
    *DECISIONS,
    *DELIVERIES,
    *SUBSCRIPTIONS,
    "/fhir/Endpoint",
    "/fhir/Endpoint/{endpoint}",
    *STAFF,
}
"""What is not open and has no patient data: figures, who one is, the AE table, what an emergency states, staff."""
PAGES = "consumers.web."
"""Their only source are the guarded routes (contract of import-linter: pages read through the API)."""
REPORT = "00000000-0000-4000-8000-000000000001"
CANARY = "Canary"
ACCESS = "019550b8-2400-7000-8000-000000000001"
"""Made at 08:00 on 1 March 2025."""
SEEN = {
    "outcome": "granted",
    "actor": "person:7",
    "role": "doctor",
    "purpose": "TREAT",
    "action": "retrieve",
    "occurred": "2025-03-01T08:00:00Z",
    "study_uid": "1.2.3",
}


@pytest.fixture
def archive() -> MemoryArchive:
    archive = MemoryArchive()
    archive.store([part10("1.2.3.1.1", PatientName=f"{CANARY}^Name")])
    seen = Upsert("accesses_by_hour", {"hour": "2025030108", "access_id": ACCESS}, SEEN, 1)
    looks = {"study_uid": "", "patient_key": "", "until": "2999-01-01T00:00:00Z"}
    stated = Upsert("emergencies_by_actor", {"actor": "http:192.0.2.7", "access_id": ACCESS}, looks, 1)
    asyncio.run(archive.tables.apply([seen, stated]))
    ordered(archive)
    archive.report(b'{"resourceType":"DiagnosticReport","conclusion":"Canary"}', ["1.2.3"], report_id=REPORT)
    return archive


def patient_key(archive: MemoryArchive) -> str:
    return str(archive.get("/studies/1.2.3").json()["patient_key"])


ENDLESS = {"/changes/events"}
"""Answers without an end: `test_changes` reads them."""


ASKED = {
    "/accesses": "?outcome=denied",
    "/emergency/patients": "?name=Canary",
    "/fhir/Patient": "?identifier=P-77",
    "/fhir/ServiceRequest": f"?_id={ORDER}",
}
"""What an address does not do without."""


def addresses(archive: MemoryArchive) -> list[str]:
    """Every guarded address, filled in."""
    app, _ = archive.app()
    values = {
        "{study}": "1.2.3",
        "{series}": "1.2.3.1",
        "{instance}": "1.2.3.1.1",
        "{frames}": "1",
        "{path:path}": "7FE00010",
        "{key}": patient_key(archive),
        "{patient}": patient_id(patient_key(archive)),
        "{order}": ORDER,
        "{report}": REPORT,
        "{version}": "1",
        "{access}": ACCESS,
    }
    found = []
    for route in app.routes:
        if isinstance(route, GuardedRoute) and route.path not in ENDLESS:
            path = route.path
            for name, value in values.items():
                path = path.replace(name, value)
            assert "{" not in path, f"{route.path} has a parameter this test does not know"
            found.append(path + ASKED.get(route.path, ""))
    return found


def test_every_route_is_guarded_or_known_to_be_open(archive: MemoryArchive) -> None:
    app, door = archive.app()
    paths = {getattr(r, "path", "?"): r for r in app.routes}
    unguarded = {p for p, r in paths.items() if not isinstance(r, GuardedRoute)}
    assert unguarded == door.gate.opened | OF_THE_DOOR
    assert len(paths) - len(unguarded) >= 25
    assert all(isinstance(r, APIRoute) for p, r in paths.items() if p not in door.gate.opened)


RECEIPTS = {"/dicom-web/commitment-requests/{transaction}"}
"""They answer a sender with the UIDs that it named itself."""


def test_no_other_room_reads_out_patient_data(tmp_path: Path) -> None:
    """With every installed room's routes: what is not guarded is the door's own, or takes something in."""
    settings = replace(MemoryArchive().settings, home=tmp_path)
    chain = ChainedLog(MemoryLog(), tmp_path / "chain", "/api/LOCAL/1", backlog_max=10, anchors=None)
    try:
        door = HttpDoor(settings, log=MemoryLog(), chain=chain, objects=MemoryObjects())
        app = compose(door, installed())
        for route in app.routes:
            path = getattr(route, "path", "")
            page = getattr(route, "endpoint", route).__module__.startswith(PAGES)
            known = page or path in door.gate.opened | OF_THE_DOOR | RECEIPTS
            if not isinstance(route, GuardedRoute) and not known:
                assert getattr(route, "methods", {"GET"}) <= {"POST", "PUT", "DELETE"}, route
    finally:
        chain.close(5)


def ask_all(archive: MemoryArchive, paths: list[str], **headers: str) -> list[httpx.Response]:
    async def run() -> list[httpx.Response]:
        async with archive.client() as client:
            return [await client.get(p, headers=headers) for p in paths]

    return asyncio.run(run())


def test_every_answer_has_its_access_event(archive: MemoryArchive) -> None:
    paths = addresses(archive)
    answers = ask_all(archive, paths)
    known = {e.access_id: e for e in archive.journal.events(AccessGranted)}
    for path, answer in zip(paths, answers, strict=True):
        assert answer.status_code == 200, path
        event = known[answer.headers[ACCESS_HEADER]]
        assert event.actor == "http:192.0.2.7"
        assert answer.headers["Cache-Control"].startswith("private, "), "in no cache that several people share"
        assert LAG_HEADER in answer.headers
        if CANARY.encode() in answer.content:
            assert event.shown, path
    assert "Canary" not in repr(archive.journal.published)


def test_what_leaves_is_counted(archive: MemoryArchive) -> None:
    path = "/dicom-web/studies/1.2.3/series/1.2.3.1/instances/1.2.3.1.1"
    answers = ask_all(archive, [path, path, f"{path}/metadata"])
    used = {e.action: e for e in archive.journal.events(AccessUsed)}
    assert (used["retrieve"].uses, used["retrieve"].bytes) == (2, len(answers[0].content) + len(answers[1].content))
    assert (used["read-metadata"].uses, used["read-metadata"].bytes) == (
        1,
        int(answers[2].headers["Content-Length"]),
    )


def test_a_full_chain_lets_nothing_out(archive: MemoryArchive) -> None:
    paths = addresses(archive)
    archive.journal.full = True
    for path, answer in zip(paths, ask_all(archive, paths), strict=True):
        assert answer.status_code == 503, path
        assert int(answer.headers["Retry-After"]) >= 1
        assert CANARY.encode() not in answer.content


def test_a_purpose_that_is_not_allowed_is_refused_and_recorded(archive: MemoryArchive) -> None:
    paths = addresses(archive)
    answers = ask_all(archive, paths, **{"Sijil-Purpose-Of-Use": "HRESCH"})
    denied: dict[str, Any] = {e.access_id: e for e in archive.journal.events(AccessDenied)}
    for path, answer in zip(paths, answers, strict=True):
        assert answer.status_code == 403, path
        fhir = path.startswith("/fhir/")
        assert answer.headers["Content-Type"] == "application/" + ("fhir+json" if fhir else "problem+json")
        assert reason_of(answer.json()) == "research-needs-deidentified-data"
        event = denied[answer.headers[ACCESS_HEADER]]
        of_study = "/1.2.3" in path or REPORT in path
        assert event.study_uid == ("1.2.3" if of_study else None)
        # It is told in the patient's trail, whether the address named them or what is theirs
        of_one = of_study or path.startswith(("/patients/", "/fhir/Patient/"))
        assert event.patient_key == (patient_key(archive) if of_one else ""), path
        assert CANARY.encode() not in answer.content


REFUSED = (
    ("/studies/1.2.3/shares", {"person_id": "dr-1", "until": "2099-01-01T00:00:00Z"}, "1.2.3"),
    ("/patients/{key}/treating", {"person_id": "dr-1"}, None),
    ("/studies/Canary/shares", {"person_id": "dr-1"}, None),
    ("/emergency", {"study_uid": "1.2.3", "words": "Found unconscious"}, None),
)
"""What changes something, a body, and the study that its address names."""


def test_what_changes_something_asks_for_the_purpose_too_and_refuses_in_the_trail(archive: MemoryArchive) -> None:
    key = patient_key(archive)

    async def run() -> None:
        for role, purpose, reason in (
            (Role.LOCAL, "HMARKT", "marketing"),
            (Role.LOCAL, "XYZ", "purpose-unknown"),
            (Role.OPERATOR, "HSYSADMIN", "role"),
        ):
            async with archive.client(treating.register, authenticator=Anyone(role)) as client:
                for path, body, study in REFUSED:
                    address, headers = path.replace("{key}", key), {"Sijil-Purpose-Of-Use": purpose}
                    answer = await client.post(address, json=body, headers=headers)
                    assert (answer.status_code, answer.json()["reason"]) == (403, reason), path
                    event = archive.journal.events(AccessDenied)[-1]
                    assert event.access_id == answer.headers[ACCESS_HEADER]
                    told = key if study or "{key}" in path else ""
                    assert (event.reason, event.study_uid, event.patient_key) == (reason, study, told), path

    asyncio.run(run())


def test_a_purpose_that_is_no_code_is_not_recorded_as_one(archive: MemoryArchive) -> None:
    answer = archive.get("/dicom-web/studies", **{"Sijil-Purpose-Of-Use": "because"})
    assert (answer.status_code, answer.json()["reason"]) == (400, "purpose-invalid")


def test_what_is_not_there_opens_no_window(archive: MemoryArchive) -> None:
    for path in ("/dicom-web/studies/1.2.9", "/studies/1.2.9", "/studies/1.2.9/accesses", f"/reports/{REPORT[:-1]}2"):
        answer = archive.get(path)
        assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/problem+json"), path
    assert archive.journal.events(AccessGranted) == []


def test_identifiers_are_checked(archive: MemoryArchive) -> None:
    for path in ("/dicom-web/studies/1.2.x", "/patients/me", "/reports/7", f"/reports/{REPORT}/versions/0"):
        assert archive.get(path).status_code == 400, path


def test_the_document_names_every_route(archive: MemoryArchive) -> None:
    app, _ = archive.app()
    document = app.openapi()
    for route in app.routes:
        if isinstance(route, GuardedRoute):
            operation = document["paths"][route.path.replace(":path", "")]["get"]
            assert operation["summary"]
            named = {p["name"] for p in operation["parameters"] if p["in"] == "path"}
            assert all(f"{{{n}}}" in route.path.replace(":path", "") for n in named)
            assert len(named) == route.path.count("{")
    page = archive.get("/docs").text
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    assert "<script" not in page
