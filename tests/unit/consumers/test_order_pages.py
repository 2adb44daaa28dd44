"""The clerk's desk: from a scanned card to the slip, changed and cancelled, in both languages."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from html import unescape
from types import SimpleNamespace
from typing import cast
from zoneinfo import ZoneInfo

import httpx
import pytest

from consumers.api.room import Room
from consumers.api.routes import referrers
from consumers.web.routes import orders as pages
from infra import clock
from schemas.caller import Caller
from schemas.events import OrderCancelled, OrderChanged, OrderPlaced, PersonRegistered
from schemas.people import Person, encode_person
from schemas.roles import Role
from tests.unit.consumers.order_desk import CLERK, Desk
from tests.unit.consumers.test_order_form import FORM, NATIONAL
from tests.unit.consumers.test_pages import EVIL, Parsed

ID = "01890000-0000-7000-8000-0000000000ab"
AT = f"/web/orders/{ID}"
CAIRO = ZoneInfo("Africa/Cairo")


class Clerk(Desk):
    """A clerk's browser."""

    def ask(self, path: str, form: Mapping[str, str] | None = None, who: Caller = CLERK) -> httpx.Response:
        self.who = who
        if form is None:
            return self.send("GET", path)
        return self.submit(path, {"csrf": self.token, **form})

    @cached_property
    def token(self) -> str:
        """Of the session, as every form has it."""
        who, self.who = self.who, CLERK
        page = self.send("GET", "/web/orders/new").text
        self.who = who
        return field(page, "csrf")

    def place(self, **fields: str) -> httpx.Response:
        today = f"{clock.now().astimezone(CAIRO):%Y-%m-%d}"
        return self.ask("/web/orders/new", {**FORM, "date": today, "order_id": ID, "site": "CAI-01", **fields})


def field(page: str, name: str) -> str:
    found = re.search(rf'name="{name}"[^>]*? value="([^"]*)"', page)
    assert found, f"no field {name}"
    return unescape(found[1])


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clerk]:
    monkeypatch.setattr(pages, "LINK_S", 0.0)
    it = Clerk()
    yield it
    it.close()


def test_from_the_card_to_the_slip(desk: Clerk) -> None:
    empty = desk.ask("/web/orders/new")
    assert empty.status_code == 200
    assert re.fullmatch(r"[0-9a-f-]{36}", field(empty.text, "order_id"))
    piece = desk.ask("/web/orders/identity", {"national_id": f"IDEGY{NATIONAL}<<"})
    assert field(piece.text, "birth_date") == "1990-01-01"
    assert '<option value="F" selected>' in piece.text
    assert "<html" not in piece.text
    slip = desk.place(name=EVIL)
    assert slip.status_code == 200
    assert "<svg" in slip.text
    assert EVIL not in slip.text
    pin = re.search(r">([0-9]{3}) ([0-9]{3})<", slip.text)
    accession = re.search(r'class="big code">([0-9]{12})<', slip.text)
    assert pin
    assert accession
    (placed,) = desk.archive.journal.events(OrderPlaced)
    assert (placed.order_id, placed.site, placed.actor) == (ID, "CAI-01", "person:c-1")
    listed = desk.ask("/web/orders").text
    assert accession[1] in listed
    assert EVIL not in listed
    again = desk.place(name=EVIL)
    assert accession[1] in again.text, "sent twice it is one order, with a new slip"
    assert len({p.order_id for p in desk.archive.journal.events(OrderPlaced)}) == 1


@pytest.mark.parametrize("lang", ["ar", "en"])
def test_pages_are_whole(desk: Clerk, lang: str) -> None:
    desk.place(name=EVIL)
    for path in ("/web/orders", "/web/orders?accession=none", "/web/orders/new", AT):
        answer = desk.ask(f"{path}{'&' if '?' in path else '?'}lang={lang}")
        assert answer.status_code == 200, path
        assert f'lang="{lang}"' in answer.text
        assert EVIL not in answer.text
        parsed = Parsed(answer.text)
        assert (parsed.bad, parsed.open) == ([], [])
        assert parsed.inputs <= parsed.labelled


def test_what_was_typed_stays_with_what_is_wrong(desk: Clerk) -> None:
    answer = desk.place(phone="call me", name="منى علي", reason="headache <b>")
    assert answer.status_code == 422
    assert field(answer.text, "name") == "منى علي"
    assert field(answer.text, "order_id") == ID
    assert "headache &lt;b&gt;" in answer.text
    assert "telephone number cannot be" in answer.text
    assert desk.archive.journal.events(OrderPlaced) == []


def test_changed_and_cancelled(desk: Clerk) -> None:
    desk.place()
    page = desk.ask(AT).text
    names = ("national_id", "name", "birth_date", "phone", "date", "version", "local_id")
    form = {n: field(page, n) for n in names} | {"sex": "F", "exam": "MR-HEAD", "priority": "stat", "reason": "x"}
    assert desk.ask(f"{AT}/change", form).headers["location"] == f"{AT}?notice=saved"
    (changed,) = desk.archive.journal.events(OrderChanged)
    assert (changed.modality, changed.priority, changed.version) == ("MR", "stat", 2)
    late = desk.ask(f"{AT}/change", form | {"reason": "y"})
    assert late.status_code == 422
    assert "Somebody else has changed this order" in late.text
    wrong = desk.ask(f"{AT}/change", form | {"date": ""})
    assert "Date or time cannot be" in wrong.text
    assert desk.ask(f"{AT}/cancel", {"why": "wrong-patient"}).status_code == 303
    (cancelled,) = desk.archive.journal.events(OrderCancelled)
    assert (cancelled.status, cancelled.reason) == ("entered-in-error", "wrong-patient")
    page = desk.ask(AT).text
    assert "Cancelled" in page
    assert f"{AT}/change" not in page
    assert desk.ask(f"{AT}/cancel", {"why": "not-needed"}).status_code == 422


def test_a_slip_again_has_another_pin(desk: Clerk) -> None:
    desk.place()
    pins = {re.search(r">([0-9]{3} [0-9]{3})<", desk.ask(f"{AT}/slip", {}).text)[1] for _ in range(3)}  # type: ignore[index]
    assert len(pins) > 1


def test_whose_it_is_not(desk: Clerk) -> None:
    desk.place()
    other = Caller("person:c-2", Role.CLERK, "TREAT", frozenset({"ALX-01"}), "c-2")
    assert desk.ask(AT, who=other).status_code == 404
    assert desk.ask(f"{AT}/cancel", {"why": "not-needed"}, who=other).status_code == 403
    assert desk.ask("/web/orders", who=Caller("person:o", Role.OFFICER, "HCOMPL")).status_code == 403
    assert desk.ask("/web/orders/x").status_code == 400
    assert desk.ask("/web/orders/new", {"csrf": "wrong", **FORM, "order_id": ID}).status_code == 403


def doctor(desk: Clerk, id: str, *names: str, site: str = "CAI-01", role: str = "doctor") -> None:
    """Somebody on the staff."""
    person = Person(
        person_id=id,
        version=1,
        practitioner={"resourceType": "Practitioner", "name": [{"text": n} for n in names]},
        roles=[role],
        sites=[site],
        stated_by="person:1",
        recorded="2025-03-01T08:00:00Z",
    )
    data = encode_person(person)
    digest = hashlib.sha256(data).hexdigest()
    key = f"people/by-id/{id}/{digest}.json"
    desk.archive.objects.put("sijil-documents", key, data, sha256=digest)
    desk.archive.told(
        PersonRegistered(
            person_id=id, version=1, active=True, roles=[role], sites=[site], subspecialties=[], stated_by="person:1",
            recorded="2025-03-01T08:00:00Z", bucket="sijil-documents", document_key=key, document_size=len(data),
            document_sha256=digest,
        )
    )  # fmt: skip


def options(page: str) -> list[str]:
    """Doctors that are offered."""
    found = re.search(r'<select id="f-requester".*?</select>', page, re.DOTALL)
    return re.findall(r'<option value="([^"]+)"', found[0]) if found else []


@pytest.fixture
def staffed(desk: Clerk) -> Clerk:
    doctor(desk, "dr-1", "د. أحمد سامي", "Dr Ahmed Samy")
    doctor(desk, "dr-2", "Samy Nabil")
    doctor(desk, "dr-3", "Samy Elsewhere", site="ALX-1")
    doctor(desk, "tech-1", "Samy Technician", role="technician")
    return desk


def test_the_doctor_is_chosen_by_name(staffed: Clerk) -> None:
    piece = staffed.ask("/web/orders/referrers", {"referrer_name": "sam"})
    assert options(piece.text) == ["dr-2", "dr-1", "dr-3"], "those of other sites behind those of here"
    assert "<html" not in piece.text
    assert options(staffed.ask("/web/orders/referrers", {"referrer_name": "احمد"}).text) == ["dr-1"]
    for text, who in (
        ("samy ahmed", "dr-1"),
        ("ahmad s", "dr-1"),
        ("سامي أحمد", "dr-1"),
        ("Elsewhere Sam", "dr-3"),
        ("سامي نبيل", "dr-2"),
    ):
        assert options(staffed.ask("/web/orders/referrers", {"referrer_name": text}).text) == [who], text
    assert options(staffed.ask("/web/orders/referrers", {"referrer_name": "dr-3"}).text) == ["dr-3"], "by id, anywhere"
    nobody = staffed.ask("/web/orders/referrers", {"referrer_name": "Zaki"}).text
    assert options(nobody) == []
    assert "Nobody of this name" in nobody
    # Without JavaScript the same by a button, and nothing that was typed is lost
    page = staffed.place(referrer_name="sam", step="find", reason="headache", exam="")
    assert (page.status_code, options(page.text)) == (200, ["dr-2", "dr-1", "dr-3"])
    assert "headache" in page.text
    assert staffed.archive.journal.events(OrderPlaced) == []
    slip = staffed.place(referrer_name="sam", requester="dr-1")
    assert "<svg" in slip.text
    (placed,) = staffed.archive.journal.events(OrderPlaced)
    assert [(p.person_id, p.relation) for p in placed.people] == [("dr-1", "referring")]
    shown = staffed.ask(AT).text
    assert "Dr Ahmed Samy" in shown, "the registered name, not what was typed to find it"
    assert '<option value="dr-1" selected>' in shown


def test_whoever_is_called_otherwise_now_or_has_left_is_not_found(staffed: Clerk) -> None:
    doctor(staffed, "dr-3", "Nabil Elsewhere", site="ALX-1")
    doctor(staffed, "dr-2", "Samy Nabil", role="technician")
    found = staffed.ask("/web/orders/referrers", {"referrer_name": "sam"})
    assert options(found.text) == ["dr-1"], "rows of names that they had stay, and are looked at again"
    assert options(staffed.ask("/web/orders/referrers", {"referrer_name": "nabil"}).text) == ["dr-3"]


def test_a_name_that_too_many_have_is_told_by_its_other_words(staffed: Clerk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(referrers, "NAMED_MAX", 2)
    archive = staffed.archive
    room = SimpleNamespace(views=SimpleNamespace(tables=archive.tables), objects=archive.objects)
    staff = referrers.Staff(cast(Room, room))
    common, more = asyncio.run(staff.of_name("samy", ["CAI-01"]))
    assert more, "more have it than are looked at"
    assert len(common) <= 2
    (one,), more = asyncio.run(staff.of_name("samy elsewhere", ["CAI-01"]))
    assert (one.person_id, more) == ("dr-3", False)


def test_a_choice_of_another_name_is_said(staffed: Clerk) -> None:
    page = staffed.place(referrer_name="Nabil", requester="dr-1")
    assert page.status_code == 422
    assert "does not have this name" in page.text
    assert options(page.text) == ["dr-2"]
    assert "<svg" in staffed.place(referrer_name="Dr Nobody", requester="").text, "the name alone is an order too"


def test_a_scanner_that_ends_with_enter_fills_the_form(desk: Clerk) -> None:
    page = desk.ask("/web/orders/new").text
    first = re.search(r"<button[^>]*>", page[page.index('action="/web/orders/new"') :])
    assert first
    assert 'value="fill" formnovalidate' in first[0], "what Enter presses is the first button of a form"
    form = {"national_id": f"IDEGY{NATIONAL}<<<\r\n", "order_id": ID, "step": "fill", "phone": "0100"}
    filled = desk.ask("/web/orders/new", form)
    assert (filled.status_code, field(filled.text, "birth_date")) == (200, "1990-01-01")
    assert '<option value="F" selected>' in filled.text
    assert (field(filled.text, "phone"), field(filled.text, "order_id")) == ("0100", ID)
    assert desk.archive.journal.events(OrderPlaced) == []
