"""What is late, and "deliver again": the API and the page in both languages, on rows as the process leaves them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest

from consumers.delivery.entry import Entry
from consumers.delivery.outbox import Outbox
from consumers.delivery.queue import REFUSED, WAITING, Owed
from consumers.web import app as web
from infra import clock
from schemas.identity import derived_id
from schemas.tables import STATE_KEYSPACE
from tests.callers import Anyone
from tests.unit.consumers.archive import MemoryArchive, part10
from tests.unit.consumers.delivery.around import issued

REPORT = derived_id("report", 1)
STUDY = "1.2.3"


def asked(work: Callable[[httpx.AsyncClient, MemoryArchive], Awaitable[Any]]) -> Any:
    """Some requests to an archive that owes four deliveries."""
    archive = MemoryArchive()
    archive.store([part10("1.2.3.1.1", study=STUDY)])
    archive.report(b'{"resourceType":"DiagnosticReport"}', [STUDY], report_id=REPORT, version=2)

    async def run() -> Any:
        state = archive.tables.with_keyspace(STATE_KEYSPACE)
        outbox, now = Outbox(state, "ehr"), clock.now()
        await outbox.move("sijil.reports", {0: 7})
        owed = [
            Owed(
                Entry(derived_id("e", n), "ehr", f"report/{derived_id('report', n)}", issued(n, 1), now - age),
                state,
                n,
                reason=reason,
            )
            for n, age, state, reason in (
                (1, timedelta(days=2), WAITING, "patient-unknown"),
                (2, timedelta(hours=3), REFUSED, "http-422"),
                (3, timedelta(seconds=1), "queued", ""),
            )
        ]
        await outbox.accept([o.entry for o in owed])
        for one in owed[:2]:
            await outbox.note(one, None)
        async with archive.client(web.register, authenticator=Anyone()) as client:
            return await work(client, archive)

    return asyncio.run(run())


def test_what_is_owed_oldest_first() -> None:
    async def work(client: httpx.AsyncClient, _: MemoryArchive) -> Any:
        answers = [
            await client.get("/deliveries" + q) for q in ("", "?late=1", "?state=refused", "?limit=1", "?state=x")
        ]
        return [(a.status_code, a.json()) for a in answers]

    everything, late, refused, one, wrong = asked(work)
    assert everything[0] == 200
    rows = everything[1]["deliveries"]
    assert [(r["report_id"], r["state"], r["late"]) for r in rows] == [
        (derived_id("report", 1), "waiting", True),
        (derived_id("report", 2), "refused", True),
        (derived_id("report", 3), "queued", False),
    ]
    assert (rows[0]["reason"], rows[0]["version"], rows[1]["attempts"]) == ("patient-unknown", 1, 2)
    (summed,) = everything[1]["destinations"]
    assert {n: summed[n] for n in ("open", "late", "queued", "waiting", "refused", "retrying")} == {
        "open": 3,
        "late": 2,
        "queued": 1,
        "waiting": 1,
        "refused": 1,
        "retrying": 0,
    }
    assert [r["state"] for r in late[1]["deliveries"]] == ["waiting", "refused"]
    assert [r["state"] for r in refused[1]["deliveries"]] == ["refused"]
    assert (len(one[1]["deliveries"]), one[1]["more"]) == (1, True)
    assert wrong[0] == 400


@pytest.mark.parametrize(
    ("destination", "body", "status", "subject"),
    [
        ("ehr", {}, 202, ""),
        ("ehr", {"report_id": REPORT}, 202, f"report/{REPORT}"),
        ("ehr", {"report_id": derived_id("report", "nobody")}, 404, None),
        ("ehr", {"study_uid": STUDY}, 404, None),  # not complete yet
        ("ehr", {"report_id": REPORT, "study_uid": STUDY}, 400, None),
        ("ehr", {"other": 1}, 400, None),
        ("nobody", {}, 404, None),
    ],
)
def test_deliver_again(destination: str, body: dict[str, str], status: int, subject: str | None) -> None:
    async def work(client: httpx.AsyncClient, archive: MemoryArchive) -> Any:
        answer = await client.post(f"/deliveries/{destination}", json=body)
        outbox = Outbox(archive.tables.with_keyspace(STATE_KEYSPACE), destination)
        return answer, await outbox.requests()

    answer, requests = asked(work)
    assert answer.status_code == status, answer.text
    assert [r.subject for r in requests] == ([] if subject is None else [subject])
    if subject:
        assert requests[0].id == answer.json()["request_id"]
        assert requests[0].entry.event.version == 2, "the current version"
        assert requests[0].entry.asked_by


@pytest.mark.parametrize("language", ["en", "ar"])
def test_the_page(language: str) -> None:
    async def work(client: httpx.AsyncClient, _: MemoryArchive) -> Any:
        return await client.get("/web/deliveries", headers={"Accept-Language": language})

    page = asked(work)
    assert page.status_code == 200, page.text
    assert derived_id("report", 2) in page.text
    known = {"en": "The record does not know the patient.", "ar": "السجل لا يعرف المريض."}
    assert known[language] in page.text
    assert "http-422" in page.text, "a code without words is shown as it is"
