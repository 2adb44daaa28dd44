"""Notices to doctors and patients: to whom, about what, and nothing of what."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from consumers.delivery.destination import Around
from consumers.delivery.entry import Away, Delivered, Entry, NotNeeded, Outcome, Refused
from consumers.delivery.notices import MailDoctor, SmsPatient, make
from infra import clock
from infra.memory import MemoryObjects, MemoryTables
from infra.messages import Message, NotCarried
from infra.settings import Settings
from schemas.errors import Transient
from schemas.events import Named, ReportIssued
from schemas.people import Person, encode_person
from schemas.tables import STATE_KEYSPACE, Upsert
from tests.unit.consumers.delivery.around import STUDY, issued
from tests.unit.consumers.delivery.test_ehr import printed

MAIL, PHONE = "mona@hospital.example", "+201001234567"
PATIENT = "Hassan^Mona=منى حسن"
ORDER = "019550b8-2400-7000-8000-000000000009"


class Carrier:
    """Takes messages, unless told otherwise."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.error: Exception | None = None

    async def send(self, message: Message) -> str:
        if self.error is not None:
            raise self.error
        self.sent.append(message)
        return message.key


def around(tmp_path: Path) -> Around:
    tables, objects = MemoryTables(), MemoryObjects()
    person = Person(
        person_id="dr-7",
        version=1,
        practitioner={
            "name": [{"text": "د. علي"}],
            "telecom": [{"system": "phone"}, {"system": "email", "value": MAIL}],
        },
        stated_by="person:a",
        recorded="2026-01-01T00:00:00Z",
    )
    data = encode_person(person)
    digest = hashlib.sha256(data).hexdigest()
    objects.put("sijil-documents", "people/dr-7/1.json", data, sha256=digest)
    row = {"active": True, "bucket": "sijil-documents", "document_key": "people/dr-7/1.json", "document_sha256": digest}
    order = {"patient_name": PATIENT, "phone": "٠١٠٠ ١٢٣ ٤٥٦٧"}
    writes = [
        Upsert("people", {"person_id": "dr-7"}, row, 1),
        Upsert("people", {"person_id": "gone"}, row | {"active": False}, 1),
        Upsert("orders_by_study", {"study_uid": STUDY, "order_id": ORDER}, {"basis": "order"}, 1),
        Upsert("orders", {"order_id": ORDER, "version": 1}, order, 1),
    ]
    asyncio.run(tables.apply(writes))
    settings = Settings(home=tmp_path, http_public_url="https://sijil.example")
    return Around(settings, lambda: tables, lambda: tables.with_keyspace(STATE_KEYSPACE), objects, printed)


def report(status: str = "final", *people: str) -> ReportIssued:
    named = [Named(person_id=p, relation="referring") for p in people]
    return msgspec.structs.replace(issued(1, status=status), people=named)


def entry(event: ReportIssued, **changes: Any) -> Entry:
    made = Entry("11111111-0000-4000-8000-000000000001", "x", f"report/{event.report_id}", event, clock.now())
    return replace(made, **changes)


def delivered(to: MailDoctor | SmsPatient, owed: Entry) -> Outcome:
    return asyncio.run(to.deliver(owed))


def test_the_referring_doctor_gets_mail_without_clinical_content(tmp_path: Path) -> None:
    carrier = Carrier()
    mail = MailDoctor(around(tmp_path), carrier)
    owed = entry(report("final", "dr-7", "gone", "unknown", "dr-7"))
    assert mail.subjects(owed.event) == (owed.subject,)
    assert delivered(mail, owed) == Delivered()
    assert delivered(mail, owed) == Delivered()
    assert [m.to for m in carrier.sent] == [MAIL, MAIL]
    assert len({m.key for m in carrier.sent}) == 1, "a retry has the same key"
    text = carrier.sent[0].text + carrier.sent[0].subject
    assert "https://sijil.example/web/inbox" in text
    for hidden in ("Hassan", "منى", STUDY, owed.subject, "dr-7"):
        assert hidden not in text


def test_the_patient_gets_an_sms_at_the_phone_of_the_order(tmp_path: Path) -> None:
    carrier = Carrier()
    sms = SmsPatient(around(tmp_path), carrier)
    owed = entry(report())
    assert sms.subjects(owed.event) == (owed.subject,)
    assert delivered(sms, owed) == Delivered()
    (sent,) = carrier.sent
    assert (sent.channel, sent.to) == ("sms", PHONE)
    assert "Hassan" not in sent.text
    unknown = msgspec.structs.replace(report(), study_uids=["1.2.9"])
    assert delivered(sms, entry(unknown)) == NotNeeded()


@pytest.mark.parametrize("status", ["registered", "preliminary", "cancelled", "entered-in-error"])
def test_nobody_is_told_of_what_nobody_answers_for(status: str, tmp_path: Path) -> None:
    places = around(tmp_path)
    for to in (MailDoctor(places, Carrier()), SmsPatient(places, Carrier())):
        assert to.subjects(report(status, "dr-7")) == ()
    assert MailDoctor(places, Carrier()).subjects(report()) == (), "without a referrer"


def test_old_news_is_told_only_when_a_person_asks(tmp_path: Path) -> None:
    carrier = Carrier()
    mail, old = MailDoctor(around(tmp_path), carrier), clock.now() - timedelta(days=8)
    assert delivered(mail, entry(report("final", "dr-7"), recorded=old)) == NotNeeded()
    assert carrier.sent == []
    assert delivered(mail, entry(report("final", "dr-7"), recorded=old, asked_by="person:a")) == Delivered()


def test_a_provider_that_is_away_is_tried_again_and_one_that_refuses_is_not(tmp_path: Path) -> None:
    carrier = Carrier()
    sms = SmsPatient(around(tmp_path), carrier)
    carrier.error = Transient("away")
    with pytest.raises(Away):
        delivered(sms, entry(report()))
    carrier.error = NotCarried("no such number")
    assert delivered(sms, entry(report())) == Refused("address-refused")


def test_without_providers_both_write_into_the_outbox(tmp_path: Path) -> None:
    for to in make(around(tmp_path)):
        assert asyncio.run(to.deliver(entry(report("final", "dr-7")))) == Delivered()
    found = sorted(p.relative_to(tmp_path).parts[:2] for p in tmp_path.rglob("*.json"))
    assert found == [("outbox", "email"), ("outbox", "sms")]
