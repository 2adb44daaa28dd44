"""A doctor's inbox on an archive in memory: whose reports it shows, what is unread, reading back what cannot wait."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import httpx
import msgspec
import pytest

from consumers.web import app as web
from consumers.web.language import LANGUAGES
from infra import clock
from producers import report_door
from schemas.caller import Caller
from schemas.events import AccessGranted, AccessUsed, CriticalAcknowledged, CriticalRaised, ReportIssued
from schemas.report_content import Coded, Content, document_of
from schemas.roles import DEFAULT_PURPOSE, Role
from tests.unit.consumers.archive import MemoryArchive, part10
from tests.unit.consumers.test_pages import As, Parsed
from tests.unit.consumers.test_reading import NOW

PLAIN, CRITICAL, ANOTHERS = "1.2.3", "1.2.4", "1.2.5"
EVIL = "<script>alert(1)</script>\"'"
PROJECTED = (ReportIssued, CriticalRaised, CriticalAcknowledged, AccessGranted, AccessUsed)


def person(name: str, role: Role) -> Caller:
    return Caller(f"person:{name}", role, DEFAULT_PURPOSE[role], frozenset({"LOCAL"}), name)


DOCTOR, RADIOLOGIST = person("dr-1", Role.DOCTOR), person("r1", Role.RADIOLOGIST)
Ask = Callable[[httpx.AsyncClient], Awaitable[Any]]


class World:
    """An archive whose events are projected after every request."""

    def __init__(self) -> None:
        self.archive, self._told = MemoryArchive(), 0

    def ask(self, ask: Ask, who: Caller = DOCTOR) -> Any:
        async def run() -> Any:
            async with self.archive.client(web.register, report_door.register, authenticator=As(who)) as client:
                return await ask(client)

        answer = asyncio.run(run())
        for published in self.archive.journal.published[self._told :]:
            if isinstance(published.event, PROJECTED):
                self.archive.told(published.event)
        self._told = len(self.archive.journal.published)
        return answer

    def issue(self, study: str, *, referring: str = "dr-1", critical: bool = False, status: str = "final") -> str:
        """A report that a radiologist signs; its id."""
        content = Content(
            status=status,
            study_uids=(study,),
            procedure=Coded(text="CT"),
            impression=EVIL,
            critical=critical,
            referring=referring,
        )
        body, headers = msgspec.json.encode(document_of(content)), {"Content-Type": "application/fhir+json"}
        answer = self.ask(lambda c: c.post("/reports", content=body, headers=headers), RADIOLOGIST)
        assert answer.status_code == 201, answer.text
        found: str = answer.json()["report_id"]
        return found

    def inbox(self, who: Caller = DOCTOR) -> dict[str, Any]:
        """What it shows."""
        answer = self.ask(lambda c: c.get("/inbox"), who)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    ticks = itertools.count()
    monkeypatch.setattr(clock, "now", lambda: NOW + timedelta(seconds=next(ticks)))
    world = World()
    for study in (PLAIN, CRITICAL, ANOTHERS):
        world.archive.store([part10(f"{study}.1.1", study=study, series=f"{study}.1", PatientID=f"P-{study}")])
    return world


def test_what_cannot_wait_comes_first_and_only_of_own_patients(world: World) -> None:
    first = world.issue(CRITICAL, critical=True)
    second = world.issue(PLAIN)
    world.issue(ANOTHERS, referring="dr-2")
    told = world.inbox()
    assert [r["report_id"] for r in told["reports"]] == [first, second]
    assert (told["critical"], told["unread"]) == (1, 2)
    assert told["reports"][0]["critical"]["version"] == 1
    assert "impression" not in str(told)
    assert world.inbox(person("dr-9", Role.DOCTOR))["reports"] == []
    shown = next(e for e in world.archive.journal.events(AccessGranted) if e.action == "read-inbox")
    assert {s.study_uid for s in shown.shown} == {PLAIN, CRITICAL}

    async def wrong(client: httpx.AsyncClient) -> set[int]:
        options = ("months=0", "months=13", "month=x", "limit=0")
        return {(await client.get(f"/inbox?{option}")).status_code for option in options}

    assert world.ask(wrong) == {400}


def test_it_is_read_when_it_was_seen_and_unread_when_it_changes(world: World) -> None:
    report = world.issue(PLAIN)
    assert world.ask(lambda c: c.get(f"/reports/{report}"), RADIOLOGIST).status_code == 200
    assert world.inbox()["unread"] == 1, "another's look is not the doctor's"
    assert world.ask(lambda c: c.get(f"/reports/{report}")).status_code == 200
    told = world.inbox()
    assert (told["unread"], told["reports"][0]["unread"], bool(told["reports"][0]["read"])) == (0, False, True)
    content = Content(
        status="amended", study_uids=(PLAIN,), procedure=Coded(text="CT"), impression="x", referring="dr-1"
    )
    body = msgspec.json.encode(document_of(content))
    headers = {"Content-Type": "application/fhir+json", "If-Match": 'W/"1"'}
    assert world.ask(lambda c: c.put(f"/reports/{report}", content=body, headers=headers), RADIOLOGIST).is_success
    (row,) = world.inbox()["reports"]
    assert (row["unread"], row["version"], row["status"]) == (True, 2, "amended")


@pytest.mark.parametrize("language", LANGUAGES)
def test_reading_back_by_the_page(world: World, language: str) -> None:
    report = world.issue(CRITICAL, critical=True)
    page = world.ask(lambda c: c.get("/web/inbox", params={"lang": language}))
    one = world.ask(lambda c: c.get(f"/web/inbox/{report}", params={"lang": language}))
    for answer in (page, one):
        assert answer.status_code == 200, answer.text
        parsed = Parsed(answer.text)
        assert (parsed.bad, parsed.open) == ([], [])
        assert parsed.inputs <= parsed.labelled
        assert "<script>alert" not in answer.text
    assert f"/web/inbox/{report}" in page.text
    assert LANGUAGES[language].text("inbox.read-back") in one.text
    path = f"/web/inbox/{report}/acknowledge"
    assert world.ask(lambda c: c.post(path, data={"version": "1", "words": "x"})).status_code == 422
    assert world.ask(lambda c: c.post(path, data={"version": "?", "words": "understood"})).status_code == 400
    done = world.ask(lambda c: c.post(path, data={"version": "1", "words": "أُبلغت، ينقل للعناية"}))
    assert done.headers["location"] == f"/web/inbox/{report}?notice=read-back"
    (acknowledged,) = world.archive.journal.events(CriticalAcknowledged)
    assert (acknowledged.clinician, acknowledged.channel) == ("dr-1", "page")
    assert "أُبلغت، ينقل للعناية" in world.ask(lambda c: c.get(f"/web/inbox/{report}")).text
    told = world.inbox()
    assert (told["critical"], told["unread"]) == (0, 0), "the page that was shown was read"


def test_whose_patient_it_is_not_is_refused(world: World) -> None:
    report = world.issue(PLAIN, referring="dr-2")
    answer = world.ask(lambda c: c.get(f"/web/inbox/{report}"))
    assert answer.status_code == 403
    assert EVIL not in answer.text
