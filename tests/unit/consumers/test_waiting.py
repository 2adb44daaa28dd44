"""Results that wait: listed as a recorded read, decided by a person; the page in both languages."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from consumers.web import app as web
from infra import clock
from infra.results_waiting import Queue, Waiting
from schemas.events import AccessGranted
from schemas.identity import derived_id
from schemas.roles import Role
from schemas.tables import STATE_KEYSPACE
from tests.callers import Anyone
from tests.unit.consumers.archive import MemoryArchive, part10

STUDY = "1.2.3"
ONE, TWO = (derived_id("waiting", n) for n in (1, 2))
Work = Callable[[httpx.AsyncClient, MemoryArchive, Queue], Awaitable[Any]]


def entry(id: str, site: str, received: str) -> Waiting:
    return Waiting(
        waiting_id=id,
        received=received,
        site=site,
        actor="hl7:H1@127.0.0.1",
        reason="patient-number",
        number="F1",
        accessions=["A1"],
        study_uids=[],
        status="final",
        procedure="<b>CT</b>",
        patient_numbers=["P1"],
        patient_name="سامي^ليلى",
        birth_date="19900101",
        sex="F",
        message_id=ONE,
        message_key="hl7/x",
        place=0,
    )


def asked(work: Work, role: Role = Role.LOCAL) -> Any:
    """Some requests to an archive in which two results wait."""
    archive = MemoryArchive()
    archive.store([part10("1.2.3.1.1", study=STUDY)])

    async def run() -> Any:
        queue = Queue(archive.tables.with_keyspace(STATE_KEYSPACE))
        await queue.put(entry(TWO, "S2", "2026-01-02T10:00:00Z"))
        await queue.put(entry(ONE, "S1", "2026-01-02T09:00:00Z"))
        async with archive.client(web.register, authenticator=Anyone(role)) as client:
            return await work(client, archive, queue)

    return asyncio.run(run())


def test_what_waits_is_listed_and_the_look_is_recorded() -> None:
    async def work(client: httpx.AsyncClient, archive: MemoryArchive, queue: Queue) -> None:
        every = (await client.get("/results-waiting")).json()
        assert [r["waiting_id"] for r in every["results"]] == [ONE, TWO]
        assert every["results"][0]["patient_name"] == "سامي^ليلى"
        assert "message_key" not in every["results"][0]
        (one,) = (await client.get("/results-waiting?site=S2")).json()["results"]
        assert one["waiting_id"] == TWO
        looks = archive.journal.events(AccessGranted)
        assert [e.action for e in looks] == ["read-results-waiting"] * 2

    asked(work)


def test_a_person_decides_once_the_study_is_there() -> None:
    async def work(client: httpx.AsyncClient, archive: MemoryArchive, queue: Queue) -> None:
        file = {"decision": "file", "study_uid": STUDY}
        assert (await client.post(f"/results-waiting/{ONE}", json=file)).status_code == 202
        answer = await client.post(f"/results-waiting/{TWO}", json={"decision": "dismiss", "reason": "duplicate"})
        assert answer.status_code == 202
        one, two = await queue.waiting()
        assert (one.decision, one.decided_study) == ("file", STUDY)
        assert one.decided_by
        assert (two.decision, two.decided_reason) == ("dismiss", "duplicate")
        await queue.done(one)
        month = f"{clock.now():%Y%m}"
        ended = (await client.get(f"/results-waiting?ended={month}")).json()["results"]
        assert [r["decided_study"] for r in ended] == [STUDY]

    asked(work)


@pytest.mark.parametrize(
    ("id", "body", "status"),
    [
        (ONE, {"decision": "file"}, 400),
        (ONE, {"decision": "file", "study_uid": "x"}, 400),
        (ONE, {"decision": "file", "study_uid": "9.9"}, 404),
        (ONE, {"decision": "dismiss"}, 400),
        (ONE, {"decision": "keep"}, 400),
        ("x", {"decision": "dismiss", "reason": "duplicate"}, 400),
        (derived_id("waiting", 3), {"decision": "dismiss", "reason": "duplicate"}, 404),
    ],
)
def test_what_cannot_be_decided_is_told(id: str, body: dict[str, str], status: int) -> None:
    async def work(client: httpx.AsyncClient, archive: MemoryArchive, queue: Queue) -> int:
        return (await client.post(f"/results-waiting/{id}", json=body)).status_code

    assert asked(work) == status


@pytest.mark.parametrize("language", ["ar", "en"])
def test_the_page_lists_and_decides(language: str) -> None:
    async def work(client: httpx.AsyncClient, archive: MemoryArchive, queue: Queue) -> None:
        client.cookies.set("lang", language)
        page = await client.get("/web/results-waiting", headers={"Accept-Language": language})
        assert page.status_code == 200
        assert "&lt;b&gt;CT" in page.text
        assert "ليلى" in page.text
        token = page.text.split('name="csrf" value="', 1)[1].split('"', 1)[0]
        form = {"csrf": token, "waiting_id": ONE, "decision": "file", "study_uid": "9.9"}
        assert (await client.post("/web/results-waiting", data=form)).status_code == 422
        assert (await client.post("/web/results-waiting", data=form | {"study_uid": STUDY})).status_code == 303
        one, _ = await queue.waiting()
        assert one.decided_study == STUDY

    asked(work)


@pytest.mark.parametrize("role", [Role.DOCTOR, Role.OFFICER, Role.OPERATOR])
def test_only_who_keeps_the_archive_right_decides(role: Role) -> None:
    async def work(client: httpx.AsyncClient, archive: MemoryArchive, queue: Queue) -> list[int]:
        file = {"decision": "file", "study_uid": STUDY}
        answers = [await client.get("/results-waiting"), await client.post(f"/results-waiting/{ONE}", json=file)]
        return [a.status_code for a in answers]

    assert asked(work, role) == [403, 403]
