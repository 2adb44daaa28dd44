"""What waits for a report, who is at it, and drafts that nothing loses; on an archive in memory."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from infra import clock
from producers import reading
from schemas.caller import Caller
from schemas.events import AccessGranted, ReadingClaimed, ReadingReleased
from schemas.people import Person, encode_person
from schemas.roles import DEFAULT_PURPOSE, Role
from schemas.tables import Upsert
from schemas.to_read import is_to_read, standing
from tests.unit.consumers.archive import MemoryArchive, part10
from tests.unit.consumers.test_pages import As

NOW = datetime(2025, 3, 2, 9, tzinfo=UTC)
STUDY, OTHER, ELSEWHERE, OLD, PAPER = "1.2.3", "1.2.4", "1.2.5", "1.2.6", "1.2.7"
REPORT = "00000000-0000-4000-8000-000000000001"
DRAFT = {"language": "ar", "title": "أشعة مقطعية على الصدر", "findings": "لا يوجد", "impression": "طبيعي"}


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch) -> MemoryArchive:
    monkeypatch.setattr(clock, "now", lambda: NOW)
    archive = MemoryArchive()
    for study in (STUDY, OTHER):
        archive.store([part10(f"{study}.1.1", study=study, series=f"{study}.1")])
    archive.store([part10("1.2.5.1.1", study=ELSEWHERE, series="1.2.5.1")], site="ASW-1")
    archive.store([part10("1.2.6.1.1", study=OLD, series="1.2.6.1", StudyDate="20190101")])
    archive.store([part10("1.2.7.1.1", study=PAPER, series="1.2.7.1", Modality="SR")])
    return archive


def radiologist(name: str = "r1", site: str = "LOCAL") -> Caller:
    return Caller(f"person:{name}", Role.RADIOLOGIST, DEFAULT_PURPOSE[Role.RADIOLOGIST], frozenset({site}), name)


def asked(archive: MemoryArchive, ask: Callable[[httpx.AsyncClient], Awaitable[Any]], who: Caller | None = None) -> Any:
    async def run() -> Any:
        async with archive.client(reading.register, authenticator=As(who or radiologist())) as client:
            return await ask(client)

    return asyncio.run(run())


def waiting(archive: MemoryArchive, options: str = "", who: Caller | None = None) -> list[dict[str, Any]]:
    answer = asked(archive, lambda c: c.get(f"/reading{options}"), who)
    assert answer.status_code == 200, answer.text
    rows: list[dict[str, Any]] = answer.json()["waiting"]
    return rows


def test_what_waits_is_of_the_own_sites_and_to_be_read(archive: MemoryArchive) -> None:
    assert [r["study_uid"] for r in waiting(archive)] == [STUDY, OTHER], "the longest waiting first"
    assert [r["study_uid"] for r in waiting(archive, who=radiologist("r2", "ASW-1"))] == [ELSEWHERE]
    assert waiting(archive, "?site=ASW-1") == [], "another's site"
    assert waiting(archive, "?modality=MR") == []
    assert len(waiting(archive, "?limit=1")) == 1
    shown = archive.journal.events(AccessGranted)[0]
    assert (shown.action, {s.study_uid for s in shown.shown}) == ("read-waiting", {STUDY, OTHER})

    async def wrong(client: httpx.AsyncClient) -> list[int]:
        options = ("priority=now", "after=x", "after=9_1_1.2")
        return [(await client.get(f"/reading?{o}")).status_code for o in options]

    assert asked(archive, wrong) == [400, 400, 400]


def test_a_signed_study_waits_no_longer_and_a_begun_one_does(archive: MemoryArchive) -> None:
    archive.report(b"{}", [STUDY], report_id=REPORT)
    assert [r["study_uid"] for r in waiting(archive)] == [OTHER]
    versions = [{"report_id": "a", "version": n, "status": s, "issued": "x"} for n, s in ((1, "final"), (2, "amended"))]
    assert standing(versions).signed
    taken = standing([*versions, {**versions[0], "version": 3, "status": "entered-in-error"}])
    assert (taken.signed, taken.taken_back) == (frozenset(), True)
    begun = standing([{"report_id": "b", "version": 1, "status": "preliminary", "issued": "x"}])
    assert (begun.signed, begun.begun, begun.status) == (frozenset(), "b", "preliminary")


def test_what_is_to_be_read() -> None:
    assert is_to_read({"CT", "SR"}, "", NOW), "without a date it is to be read"
    assert not is_to_read({"SR"}, "20250302", NOW)
    assert not is_to_read({"CT"}, "20240101", NOW), "it was imported"


def test_a_claim_is_seen_until_it_is_given_back(archive: MemoryArchive) -> None:
    assert asked(archive, lambda c: c.post(f"/studies/{STUDY}/claim")).status_code == 201
    (claimed,) = archive.journal.events(ReadingClaimed)
    archive.told(claimed)
    (row,) = [r for r in waiting(archive) if r["study_uid"] == STUDY]
    assert (row["claimed_by"], row["mine"]) == ("person:r1", True)
    assert [r["study_uid"] for r in waiting(archive, "?mine=1")] == [STUDY]
    assert waiting(archive, "?mine=1", radiologist("r2")) == []
    assert asked(archive, lambda c: c.post(f"/studies/{STUDY}/release?reason=bored")).status_code == 400
    assert asked(archive, lambda c: c.post(f"/studies/{STUDY}/release")).status_code == 201
    archive.told(archive.journal.events(ReadingReleased)[0])
    assert not any(r.get("claimed_by") for r in waiting(archive))
    assert asked(archive, lambda c: c.post(f"/studies/{ELSEWHERE}/claim")).status_code == 403


def test_pages_of_what_waits_and_what_is_new_to_a_report(archive: MemoryArchive) -> None:
    async def walk(client: httpx.AsyncClient) -> list[str]:
        found, after = [], ""
        while True:
            page = (await client.get(f"/reading?limit=1&after={after}")).json()
            found += [r["study_uid"] for r in page["waiting"]]
            if not (after := page["next"]):
                return found

    assert asked(archive, walk) == [STUDY, OTHER]
    archive.report(b"{}", [STUDY], report_id=REPORT)
    assert asked(archive, walk) == [OTHER]
    archive.store([part10(f"{STUDY}.1.2", study=STUDY, series=f"{STUDY}.1")])
    (row, _) = waiting(archive)
    assert (row["study_uid"], row["why"], row["priority"]) == (STUDY, "new-images", "routine")
    assert row["waits_since"] > row["arrived"]
    assert [r["study_uid"] for r in waiting(archive, "?priority=routine&modality=CT")] == [STUDY, OTHER]
    assert waiting(archive, "?priority=stat") == []


def test_a_claim_is_told_by_name(archive: MemoryArchive) -> None:
    practitioner = {"resourceType": "Practitioner", "name": [{"text": "Sara Adel"}, {"text": "سارة عادل"}]}
    data = encode_person(
        Person(person_id="r2", version=1, practitioner=practitioner, stated_by="x", recorded="2025-03-02T08:00:00Z")
    )
    digest = hashlib.sha256(data).hexdigest()
    archive.objects.put("sijil-documents", "people/r2/1.json", data, sha256=digest)
    columns = {"bucket": "sijil-documents", "document_key": "people/r2/1.json", "document_sha256": digest}
    asyncio.run(archive.wrote([Upsert("people", {"person_id": "r2"}, columns, 1)]))
    claim = ReadingClaimed(study_uid=STUDY, actor="person:r2", recorded="2025-03-02T08:00:00Z")
    archive.told(claim)
    (row,) = [r for r in waiting(archive) if r["study_uid"] == STUDY]
    assert (row["claimed_by"], row["claimed_names"], row["mine"]) == ("person:r2", ["Sara Adel", "سارة عادل"], False)
    assert waiting(archive, "?mine=1") == []
    archive.told(ReadingClaimed(study_uid=STUDY, actor="person:r1", recorded="2025-03-02T08:01:00Z"))
    assert [r["study_uid"] for r in waiting(archive, "?mine=1")] == [STUDY]
    assert waiting(archive, "?mine=1", radiologist("r2")) == [], "somebody has taken it over"


def test_a_draft_is_kept_and_another_tab_is_told(archive: MemoryArchive) -> None:
    path = f"/studies/{STUDY}/draft"

    async def two_tabs(client: httpx.AsyncClient) -> None:
        assert (await client.get(path)).json()["draft"] is None
        assert (await client.put(path, json=DRAFT)).status_code == 428
        first = await client.put(path, json=DRAFT, headers={"If-None-Match": "*"})
        assert first.status_code == 200
        again = await client.put(path, json=DRAFT, headers={"If-None-Match": "*"})
        assert again.json() == first.json(), "sent again, since the answer was lost"
        later = await client.put(path, json=DRAFT | {"findings": "أ"}, headers={"If-Match": first.headers["etag"]})
        other = await client.put(path, json=DRAFT | {"findings": "ب"}, headers={"If-Match": first.headers["etag"]})
        assert (other.status_code, other.headers["etag"]) == (412, later.headers["etag"])
        kept = await client.get(path)
        assert kept.json()["draft"]["findings"] == "أ"
        assert kept.headers["etag"] == later.headers["etag"]
        assert (await client.put(path, json={"x": 1}, headers={"If-Match": '"a"'})).status_code == 400
        assert (await client.put("/studies/9.9/draft", json=DRAFT, headers={"If-None-Match": "*"})).status_code == 404
        assert (await client.delete(path)).status_code == 428
        assert (await client.delete(path, headers={"If-Match": '"a"'})).status_code == 412
        becomes = kept.json()["becomes"]
        assert (await client.get(path)).json()["becomes"] == becomes
        listed = (await client.get("/reading?mine=1")).json()["waiting"]
        assert [(r["study_uid"], bool(r["draft"])) for r in listed] == [(STUDY, True)]
        assert (await client.delete(path, headers={"If-Match": kept.headers["etag"]})).status_code == 204
        assert (await client.delete(path, headers={"If-Match": kept.headers["etag"]})).status_code == 204
        assert (await client.get(path)).json()["draft"] is None

    asked(archive, two_tabs)


def test_a_draft_is_its_authors_alone(archive: MemoryArchive) -> None:
    path, first = f"/studies/{STUDY}/draft", {"If-None-Match": "*"}
    assert asked(archive, lambda c: c.put(path, json=DRAFT, headers=first)).status_code == 200
    assert asked(archive, lambda c: c.get(path), radiologist("r2")).json()["draft"] is None
    assert asked(archive, lambda c: c.put(path, json=DRAFT, headers=first), radiologist("r2")).status_code == 200
    assert asked(archive, lambda c: c.get(path), radiologist("r3", "ASW-1")).status_code == 403
    doctor = Caller("person:d", Role.DOCTOR, "TREAT", frozenset({"LOCAL"}), "d")
    assert asked(archive, lambda c: c.put(path, json=DRAFT, headers=first), doctor).status_code == 403


def test_saves_at_once_lose_nothing_unseen(archive: MemoryArchive) -> None:
    path = f"/studies/{STUDY}/draft"

    async def race(client: httpx.AsyncClient) -> None:
        texts = [DRAFT | {"findings": str(n)} for n in range(8)]
        answers = await asyncio.gather(*(client.put(path, json=t, headers={"If-None-Match": "*"}) for t in texts))
        assert sorted(a.status_code for a in answers) == [200] + [412] * 7
        (won,) = [t for t, a in zip(texts, answers, strict=True) if a.status_code == 200]
        assert (await client.get(path)).json()["draft"]["findings"] == won["findings"]

    asked(archive, race)
