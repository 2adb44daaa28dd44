"""Every role at every door, about what is theirs and what is another's: the table holds, on a door that runs."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from infra.http_caller import permission_of
from infra.http_door import HttpDoor
from producers import corrections, devices, links, people, report_door, treating
from producers.stow import app as stow
from schemas.caller import Caller
from schemas.events import AccessDenied, TreatingStated
from schemas.roles import DEFAULT_PURPOSE, TABLE, Permission, Role, Scope
from tests.permission_table import Target, cases, operations, reason_of
from tests.unit.consumers.archive import MemoryArchive, part10
from tests.unit.consumers.test_scope import As

OWN_SITE, OTHER_SITE = "CAI-1", "ALX-1"
REPORTS = ("00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002")
PERSON = "dr-7"


def archive_of(folder: Path) -> tuple[MemoryArchive, Target, Target]:
    """Two studies of two sites and patients, with a report each; the person treats the first patient."""
    archive = MemoryArchive()
    # How often one may ask is not what this is about: one person asks as every role
    archive.settings = replace(archive.settings, home=folder, rate_changes=0.0, rate_anonymous=0.0, rate_logins=0.0)
    targets = []
    for n, (site, report) in enumerate(zip((OWN_SITE, OTHER_SITE), REPORTS, strict=True), start=1):
        uid = f"1.2.{n}"
        archive.store([part10(f"{uid}.1.1", study=uid, series=f"{uid}.1", PatientID=f"P-{n}")], site=site)
        document = json.dumps({
            "resourceType": "DiagnosticReport", "status": "final", "code": {"text": "CT"},
            "imagingStudy": [{"identifier": {"system": "urn:dicom:uid", "value": f"urn:oid:{uid}"}}],
        }).encode()  # fmt: skip
        archive.report(document, [uid], report_id=report)
        targets.append(Target(uid, str(archive.get(f"/studies/{uid}").json()["patient_key"]), report))
    stated = {"relation": "treating", "stated_by": "person:1", "recorded": "2025-03-01T00:00:00Z"}
    archive.told(TreatingStated(patient_key=targets[0].key, person_id=PERSON, **stated))
    return archive, targets[0], targets[1]


def caller(role: Role, own: Target) -> Caller:
    """Somebody of the own site."""
    service = role in (Role.GATEWAY, Role.EHR)
    return Caller(
        f"service:{role}" if service else f"person:{PERSON}",
        role,
        DEFAULT_PURPOSE[role],
        sites=frozenset({OWN_SITE}),
        person_id="" if service else PERSON,
        patient_key=own.key if role is Role.PATIENT else "",
    )


ROOMS = (
    stow.register,
    report_door.register,
    corrections.register,
    treating.register,
    people.register,
    links.register,
    devices.register,
)


def test_the_table_holds_at_every_door(tmp_path: Path) -> None:
    archive, own, other = archive_of(tmp_path)
    who = As(caller(Role.DOCTOR, own))
    seen: Counter[str] = Counter()
    wrong: list[str] = []

    def keep(app: FastAPI, door: HttpDoor) -> None:
        kept.append((app, door))

    kept: list[tuple[FastAPI, HttpDoor]] = []

    async def run() -> None:
        async with archive.client(*ROOMS, keep, authenticator=who) as client:
            app, door = kept[0]
            for case in cases(app.openapi(), frozenset(door.gate.opened), own, other):
                who.who = caller(case.role, own)
                answer = await client.request(case.method, case.path, json=case.body, headers=_kind(case.body))
                reason = reason_of(answer.json()) if answer.status_code == 403 else ""
                let_in = answer.status_code not in (401, 403) and answer.status_code < 500
                if reason != case.reason or (not case.reason and not let_in):
                    wrong.append(f"{case.role} {case.method} {case.path} own={case.own}: {answer.status_code} {reason}")
                if case.reason:
                    seen["refused"] += 1
                    assert answer.headers.get("sijil-access-id"), f"{case.method} {case.path}: not recorded"
                seen[case.reason or "let in"] += 1

    asyncio.run(run())
    assert not wrong, "\n".join(wrong)
    assert seen["let in"] > 200
    assert seen["scope"] > 50
    assert seen["role"] > 400
    assert len(archive.journal.events(AccessDenied)) == seen["refused"]


def _kind(body: object) -> dict[str, str]:
    return {"Content-Type": "application/fhir+json"} if body is not None else {}


def test_nobody_gets_through_a_door_that_is_not_open(tmp_path: Path) -> None:
    archive, own, _ = archive_of(tmp_path)

    class Nobody:
        async def caller(self, scope: object) -> Caller | None:
            return None

    async def run() -> None:
        kept: list[tuple[FastAPI, HttpDoor]] = []
        async with archive.client(*ROOMS, lambda a, d: kept.append((a, d)), authenticator=Nobody()) as client:
            app, door = kept[0]
            for method, path, _ in operations(app.openapi(), frozenset(door.gate.opened)):
                answer = await client.request(method, own.fill(path))
                assert answer.status_code == 401, f"{method} {path}"
                assert "Bearer" in answer.headers["www-authenticate"]

    asyncio.run(run())


def test_every_route_stands_in_the_document_or_is_known(tmp_path: Path) -> None:
    archive, _, _ = archive_of(tmp_path)
    app, door = archive.app(*ROOMS)
    documented = {(m, p) for m, p, _ in operations(app.openapi(), frozenset(door.gate.opened))}
    for route in app.routes:
        if isinstance(route, APIRoute) and permission_of(route) is not None and route.include_in_schema:
            path = route.path_format
            assert any(p == path for _, p in documented) or path == "/changes/events", path


def test_an_operation_that_says_nothing_fails() -> None:
    document = {"paths": {"/new": {"get": {}}, "/ok": {"get": {"x-permission": "study.read"}}}}
    with pytest.raises(AssertionError, match="GET /new names no permission"):
        list(operations(document, frozenset()))
    with pytest.raises(AssertionError, match="does not know"):
        Target("1", "k1:" + "a" * 43, "r").fill("/x/{strange}")


def test_each_permission_is_somebody_s_and_each_role_sees_no_more_than_it_says() -> None:
    for permission in Permission:
        assert any(permission in TABLE[role] for role in Role if role is not Role.LOCAL), permission
    patient_data = {
        Permission.STUDY_SEARCH, Permission.STUDY_READ, Permission.STUDY_ORIGINAL, Permission.REPORT_READ,
        Permission.PATIENT_FILE,
    }  # fmt: skip
    for role in (Role.OPERATOR, Role.ANALYST, Role.MINISTRY, Role.OFFICER, Role.GATEWAY):
        assert not patient_data & TABLE[role].keys(), role
    assert Scope.NONE not in {s for row in TABLE.values() for s in row.values()}
