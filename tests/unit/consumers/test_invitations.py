"""Links to patients: who may give them, what opens them, how often one may try, and what the trail says."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx
import pytest

from consumers.api import invitations as links
from consumers.api import queries
from consumers.web import app as web
from infra import clock
from schemas.caller import Caller
from schemas.events import AccessDenied, AccessGranted, AccessInvited, AccessUninvited
from schemas.identity import patient_key
from schemas.pin import hashed
from schemas.roles import DEFAULT_PURPOSE, Role
from schemas.slips import Slip, encode_slip, slip_key
from schemas.tables import Upsert
from tests.unit.consumers.archive import SECRET, MemoryArchive, part10
from tests.unit.consumers.test_pages import As, Parsed

STUDY, OTHER = "1.2.3", "1.2.4"
KEY = patient_key(SECRET, patient_id="P-77", issuer="LOCAL", birth_date="19800101", sex="F", study_uid=STUDY).value
ORDER = "019550b8-2400-7000-8000-000000000009"
REPORT = "00000000-0000-4000-8000-000000000001"
PIN = "048213"
PHONE = "+201001234567"
REPORTED = (
    '{"resourceType":"DiagnosticReport","code":{"text":"CT"},"conclusion":"لا توجد علامات حادة",'
    '"contained":[{"resourceType":"Observation","code":{"coding":[{"system":"http://loinc.org","code":"59776-5"}]},'
    '"valueString":"كيس <b>12 × 9 mm</b>"}]}'
)


@pytest.fixture
def archive(tmp_path: Any) -> MemoryArchive:
    archive = MemoryArchive()
    archive.settings = archive.settings.__class__(
        home=tmp_path, search_secret=archive.settings.search_secret, session_secret="ab" * 32, query_deadline_s=30.0
    )
    archive.store([part10("1.2.3.1.1"), part10("1.2.3.1.2", InstanceNumber=2)])
    archive.store([part10("1.2.4.1.1", study=OTHER, series="1.2.4.1", PatientID="P-78", PatientName="Other^One")])
    archive.report(REPORTED.encode(), [STUDY], report_id=REPORT)
    order = {"patient_key": KEY, "site": "LOCAL", "phone": "0100 123 4567", "status": "active"}
    asyncio.run(archive.tables.apply([Upsert("orders", {"order_id": ORDER, "version": 1}, order, 1)]))
    # Of two slips the last holds
    for number, pin in ((1, "111111"), (2, PIN)):
        slip = Slip(
            order_id=ORDER,
            number=number,
            pin=hashed(pin, bytes(16)),
            issued="2026-01-01T00:00:00Z",
            issued_by="person:clerk",
        )
        data = encode_slip(slip)
        digest = hashlib.sha256(data).hexdigest()
        archive.objects.put("sijil-documents", slip_key(ORDER, number), data, sha256=digest)
    return archive


CLERK = Caller("person:clerk", Role.CLERK, DEFAULT_PURPOSE[Role.CLERK], frozenset({"LOCAL"}), "clerk")


@dataclass
class Hand:
    """A browser or a program, with its cookies."""

    client: httpx.AsyncClient
    who: list[Caller | None] = field(default_factory=list)

    async def invite(self, **body: Any) -> Any:
        """As the clerk."""
        self.who[0] = CLERK
        answer = await self.client.post("/invitations", json=body)
        self.who[0] = None
        assert answer.status_code == 201, answer.text
        return answer.json()

    async def open(self, token: str, secret: str) -> httpx.Response:
        """With both."""
        return await self.client.post("/invitations/open", json={"token": token, "secret": secret})


@dataclass
class Whoever:
    """An authenticator that takes every request for whom the test says."""

    who: list[Caller | None]

    async def caller(self, scope: Any) -> Caller | None:
        """Nobody without one."""
        return await As(self.who[0], "staff" if self.who[0] else "").caller(scope)


def run(archive: MemoryArchive, act: Callable[[Hand], Awaitable[None]]) -> None:
    who: list[Caller | None] = [None]

    async def whole() -> None:
        async with archive.client(web.register, authenticator=Whoever(who)) as client:
            await act(Hand(client, who))

    asyncio.run(whole())


def token_of(told: Any) -> str:
    return str(told["url"].rpartition("/p/")[2])


def code_of(archive: MemoryArchive) -> str:
    """In the newest message of the outbox."""
    files = sorted((archive.settings.home / "outbox" / "sms").iterdir(), key=lambda p: p.stat().st_mtime_ns)
    found = re.search(r"\b(\d{6})\b", files[-1].read_text(encoding="utf-8"))
    assert found
    return found[1]


def denied(archive: MemoryArchive) -> list[tuple[str, str]]:
    return [(e.reason, e.patient_key) for e in archive.journal.events(AccessDenied)]


def test_the_pin_of_the_slip_opens_the_own_file_and_no_other(archive: MemoryArchive) -> None:
    async def act(hand: Hand) -> None:
        told = await hand.invite(order_id=ORDER, factor="pin", once=False)
        assert told["phone"] == "…567"
        token = token_of(told)
        assert (await hand.client.get(f"/patients/{KEY}")).status_code == 401
        assert (await hand.open(token, "111111")).status_code == 403
        answer = await hand.open(token, "٠٤٨٢١٣")
        assert answer.status_code == 200
        assert "HttpOnly" in answer.headers["set-cookie"]
        assert (await hand.client.get(f"/patients/{KEY}/studies")).json()["studies"][0]["study_uid"] == STUDY
        assert (await hand.client.get(f"/studies/{OTHER}")).status_code == 403
        assert (await hand.client.get("/me")).json()["role"] == "patient"
        page = await hand.client.get("/web/own?lang=ar")
        assert "CT chest" in page.text
        # Again with the same slip, and out again
        assert (await hand.open(token, PIN)).status_code == 200
        left = await hand.client.post("/invitations/close")
        assert left.status_code == 204
        assert (await hand.client.get(f"/patients/{KEY}")).status_code == 401

    run(archive, act)
    (invited,) = archive.journal.events(AccessInvited)
    assert (invited.patient_key, invited.order_id, invited.factor, invited.once) == (KEY, ORDER, "pin", False)
    opened = [e for e in archive.journal.events(AccessGranted) if e.action == "open-link"]
    assert [(e.actor, e.patient_key) for e in opened] == [(f"patient:{KEY}", KEY)] * 2


def csrf_of(page: str) -> str:
    found = re.search(r'name="csrf" value="(\w+)"', page)
    assert found, "a session has a way to end it"
    return found[1]


def test_a_code_goes_to_the_phone_and_opens_once(archive: MemoryArchive) -> None:
    async def act(hand: Hand) -> None:
        told = await hand.invite(patient_key=KEY, factor="otp", phone="٠١٠٠١٢٣٤٥٦٧", send=True)
        token = token_of(told)
        state = (await hand.client.post("/invitations/state", json={"token": token})).json()
        assert state == {"state": "open", "factor": "otp", "phone": "…567"}
        assert (await hand.open(token, "000000")).json()["reason"] == "link-secret"
        assert (await hand.client.post("/invitations/code", json={"token": token})).json() == {"phone": "…567"}
        first = code_of(archive)
        assert (await hand.client.post("/invitations/code", json={"token": token})).status_code == 200
        second = code_of(archive)
        if first != second:
            assert (await hand.open(token, first)).status_code == 403, "a new code takes the place of the old"
        assert (await hand.open(token, second)).status_code == 200
        assert (await hand.open(token, second)).json()["reason"] == "link-used"

    run(archive, act)
    texts = [p.read_text(encoding="utf-8") for p in (archive.settings.home / "outbox" / "sms").iterdir()]
    assert all(PHONE in t for t in texts)
    texts = [re.sub(r"/p/[\w-]+", "/p/", t) for t in texts]  # a random token may spell anything
    for hidden in ("منى", "Hassan", "CT", KEY, STUDY):
        assert not any(hidden in t for t in texts), "a message says that there is something, never what"
    assert ("link-used", KEY) in denied(archive)


def test_few_may_be_tried_however_many_come_at_once(archive: MemoryArchive) -> None:
    async def act(hand: Hand) -> None:
        token = token_of(await hand.invite(order_id=ORDER, factor="pin", once=False))
        answers = await asyncio.gather(*(hand.open(token, f"{n:06}") for n in range(9)))
        reasons = [a.json().get("reason") for a in answers]
        assert reasons.count("link-secret") <= links.TRIES_MAX_HOUR
        assert set(reasons) <= {"link-secret", "link-locked"}
        assert (await hand.open(token, PIN)).json()["reason"] == "link-locked", "the right one too"

    run(archive, act)
    assert len(denied(archive)) == 10
    assert {key for _, key in denied(archive)} == {KEY}


def test_a_link_that_is_taken_back_ends_its_sessions(archive: MemoryArchive) -> None:
    async def act(hand: Hand) -> None:
        told = await hand.invite(order_id=ORDER, factor="pin", once=False)
        assert (await hand.open(token_of(told), PIN)).status_code == 200
        assert (await hand.client.get(f"/patients/{KEY}")).status_code == 200
        hand.who[0] = CLERK
        listed = (await hand.client.get(f"/patients/{KEY}/invitations")).json()["invitations"]
        assert [(i["invitation_id"], i["state"]) for i in listed] == [(told["invitation_id"], "open")]
        for _ in range(2):
            assert (await hand.client.delete(f"/invitations/{told['invitation_id']}")).status_code == 200
        hand.who[0] = None
        assert (await hand.client.get(f"/patients/{KEY}")).status_code == 401
        assert (await hand.open(token_of(told), PIN)).json()["reason"] == "link-revoked"

    run(archive, act)
    assert len(archive.journal.events(AccessUninvited)) == 1


def test_what_is_no_link(archive: MemoryArchive, monkeypatch: pytest.MonkeyPatch) -> None:
    async def act(hand: Hand) -> None:
        token = token_of(await hand.invite(order_id=ORDER, factor="pin"))
        for bad in (
            "",
            "x",
            "é",
            token[:-2],
            token[:5] + ("A" if token[5] != "A" else "B") + token[6:],
            token + "AAAA",
        ):
            assert (await hand.client.post("/invitations/state", json={"token": bad})).json()["state"] == "unknown"
            assert (await hand.open(bad, PIN)).json()["reason"] == "link-unknown"
        later = clock.now() + timedelta(hours=73)
        monkeypatch.setattr(clock, "now", lambda: later)
        assert (await hand.open(token, PIN)).json()["reason"] == "link-expired"

    run(archive, act)
    assert denied(archive) == [("link-expired", KEY)]


def test_who_may_give_one_and_what_is_needed(archive: MemoryArchive) -> None:
    async def act(hand: Hand) -> None:
        hand.who[0] = CLERK
        for body, reason in (
            ({}, "invitation-about"),
            ({"order_id": ORDER, "patient_key": KEY}, "invitation-about"),
            ({"patient_key": "x"}, "patient-key"),
            ({"patient_key": KEY}, "invitation-phone"),
            ({"patient_key": KEY, "phone": "12"}, "phone"),
            ({"patient_key": KEY, "factor": "pin"}, "invitation-order"),
            ({"order_id": ORDER, "hours": 100_000}, "invitation-hours"),
            ({"order_id": ORDER, "factor": "birth-date"}, "invitation-body"),
        ):
            answer = await hand.client.post("/invitations", json=body)
            assert (answer.status_code, answer.json()["reason"]) == (400, reason)
        hand.who[0] = Caller("person:c2", Role.CLERK, "TREAT", frozenset({"ELSEWHERE"}), "c2")
        assert (await hand.client.post("/invitations", json={"order_id": ORDER})).status_code == 403
        assert (await hand.client.post("/invitations", json={"patient_key": KEY, "phone": PHONE})).status_code == 403
        hand.who[0] = Caller("person:d", Role.DOCTOR, "TREAT", frozenset(), "d")
        assert (await hand.client.post("/invitations", json={"order_id": ORDER})).status_code == 403

    run(archive, act)
    assert archive.journal.events(AccessInvited) == []


# ------------------------------------------------------------------------------------------------ pages


def test_the_way_of_a_patient_by_pages(archive: MemoryArchive) -> None:
    async def act(hand: Hand) -> None:
        client = hand.client
        told = await hand.invite(patient_key=KEY, factor="otp", phone=PHONE)
        path = "/p/" + token_of(told)
        pages = [await client.get(f"{path}?lang={lang}") for lang in ("en", "ar")]
        assert "…567" in pages[0].text
        sent = await client.post(path, data={"do": "code"})
        assert 'name="secret"' in sent.text
        wrong = await client.post(path, data={"do": "open", "secret": "1"})
        assert (wrong.status_code, "الرقم غير صحيح" in wrong.text) == (422, True)
        opened = await client.post(path, data={"do": "open", "secret": code_of(archive)})
        assert (opened.status_code, opened.headers["location"]) == (303, "/web/own")
        used = await client.get(path)
        assert "استُخدم هذا الرابط من قبل" in used.text
        for lang in ("en", "ar"):
            for where in ("", f"/studies/{STUDY}", f"/studies/{STUDY}/images", "/accesses"):
                pages.append(await client.get(f"/web/own{where}?lang={lang}"))
                assert pages[-1].status_code == 200, (where, pages[-1].text)
        study = next(p.text for p in pages if f"/studies/{STUDY}?lang=ar" in str(p.url))
        assert "لا توجد علامات حادة" in study
        assert "\u2066&lt;b&gt;12\u00a0×\u00a09\u00a0mm\u2069" in study
        assert f"/reports/{REPORT}/pdf?lang=ar" in study
        images = next(p.text for p in pages if "images?lang=en" in str(p.url))
        images = images.replace("\u2068", "").replace("\u2069", "")
        assert "Image 1 of 2" in images
        source = re.search(r'<img src="([^"]+)"', images[images.index("<figure") :])
        assert source
        picture = await client.get(source[1].replace("&amp;", "&"))
        assert (picture.status_code, picture.headers["content-type"]) == (200, "image/jpeg")
        saved = await client.get(f"/dicom-web/studies/{STUDY}?accept=application%2Fzip")
        assert (saved.status_code, saved.content[:2]) == (200, b"PK")
        assert (await client.get(f"/web/own/studies/{OTHER}")).status_code == 403
        for page in (*pages, sent, wrong, used):
            parsed = Parsed(page.text)
            assert (parsed.bad, parsed.open, parsed.inputs - parsed.labelled) == ([], [], set())
        left = await client.post("/p/logout", data={"csrf": csrf_of(pages[-1].text)})
        assert (left.status_code, left.headers["location"]) == (303, "/p/closed")
        assert (await client.get("/p/closed")).status_code == 200
        assert (await client.get("/web/own")).headers["location"].startswith("/login")

    run(archive, act)


def test_staff_send_a_link_by_a_page_and_take_it_back(archive: MemoryArchive) -> None:
    async def act(hand: Hand) -> None:
        hand.who[0] = CLERK
        path = f"/web/patients/{KEY}/links"
        empty = await hand.client.get(f"{path}?lang=en")
        assert "No link has been given" in empty.text
        csrf = csrf_of(empty.text)
        assert (await hand.client.post(path, data={"csrf": csrf, "phone": "12"})).status_code == 422
        assert (await hand.client.post(path, data={"phone": PHONE})).status_code == 403, "a form of another's session"
        given = await hand.client.post(path, data={"csrf": csrf, "phone": PHONE})
        assert re.search(r"/p/[\w-]{40,}", given.text)
        id = re.search(r'name="revoke" value="([^"]+)"', given.text)
        assert id
        back = await hand.client.post(path, data={"csrf": csrf, "revoke": id[1]})
        assert (back.status_code, back.headers["location"]) == (303, f"{path}?notice=revoked")
        assert "taken back" in (await hand.client.get(f"{path}?lang=en")).text

    run(archive, act)
    (file,) = (archive.settings.home / "outbox" / "sms").iterdir()
    assert "/p/" in file.read_text(encoding="utf-8")


def test_a_report_that_nobody_signed_is_not_shown_to_the_patient(archive: MemoryArchive) -> None:
    row = {"report_id": REPORT, "version": 2, "study_uid": STUDY}
    digest = asyncio.run(archive.tables.select(_reports()))[0]
    columns = {n: digest[n] for n in ("site", "issued", "bucket", "document_key", "document_size", "document_sha256")}
    asyncio.run(archive.tables.apply([Upsert("reports_by_study", row, columns | {"status": "preliminary"}, 99)]))

    async def act(hand: Hand) -> None:
        token = token_of(await hand.invite(order_id=ORDER, factor="pin"))
        assert (await hand.open(token, PIN)).status_code == 200
        page = await hand.client.get(f"/web/own/studies/{STUDY}?lang=en")
        assert "The report is being written" in page.text
        assert "لا توجد علامات حادة" not in page.text

    run(archive, act)


def _reports() -> Any:
    return queries.reports_of(STUDY)
