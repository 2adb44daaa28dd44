"""Notices that a report is there: an e-mail to the doctor who referred the patient, an SMS to the patient.

A notice says that there is something and where, never about whom or what: mail and SMS are read by others on the way
and on locked screens. Only reports that somebody answers for are told of (final and what follows it), and none that is
older than a week when it is its turn: after a long outage, or on the first day, nobody wants a hundred of them.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from consumers.api import queries
from consumers.delivery.destination import Around, Destination
from consumers.delivery.entry import REPORT, Away, Delivered, Entry, NotNeeded, Outcome, Refused
from infra import clock
from infra.messages import Message, Messenger, NotCarried, messenger
from schemas.errors import Invalid, Transient
from schemas.events import Event, ReportIssued
from schemas.people import decode_person
from schemas.phone import e164
from schemas.topics import topic_of

TOLD_OF: Final = frozenset({"final", "amended", "corrected", "appended"})
OLD: Final = timedelta(days=7)
_ADDRESS: Final = re.compile(r"[^@\s<>,;:\"]{1,64}@[^@\s<>,;:\"]{1,190}\Z")

MAIL_SUBJECT: Final = "سجل: تقرير جديد لأحد مرضاك · Sijil: a report for a patient of yours"
MAIL: Final = """تقرير أشعة لأحد مرضاك متاح على سجل. سجّل الدخول لقراءته:
{inbox}

A radiology report for a patient of yours is in Sijil. Log in to read it:
{inbox}
"""
SMS: Final = (
    "تقرير الأشعة الخاص بك جاهز على سجل. افتحه بالرمز المطبوع على ورقتك."
    " Your radiology report is ready in Sijil: open it with the code printed on your slip."
)


def make(around: Around) -> Sequence[Destination]:
    """Both; without a mail server or an SMS gateway in the settings they write into the outbox folder."""
    carrier = messenger(around.settings)
    return MailDoctor(around, carrier), SmsPatient(around, carrier)


class _Notice:
    """What both do alike."""

    topics: Sequence[str] = (topic_of(ReportIssued),)

    def __init__(self, around: Around, carrier: Messenger) -> None:
        self._around, self._carrier = around, carrier

    async def deliver(self, entry: Entry) -> Outcome:
        """See Destination. Whoever was told of it is not told again by a retry: the key is the delivery's."""
        event = entry.event
        if not isinstance(event, ReportIssued) or (clock.now() - entry.recorded > OLD and not entry.asked_by):
            return NotNeeded()
        messages = await self._messages(entry, event)
        refused = 0
        for message in messages:
            try:
                await self._carrier.send(message)
            except NotCarried:
                refused += 1
            except Transient as e:
                raise Away(f"{message.channel}-away") from e
        if not messages:
            return NotNeeded()
        return Refused("address-refused") if refused == len(messages) else Delivered()

    async def _messages(self, entry: Entry, event: ReportIssued) -> list[Message]:
        raise NotImplementedError

    async def close(self) -> None:
        """Nothing is held open."""


class MailDoctor(_Notice):
    """Those whom the report names as referring, where their FHIR Practitioner has an e-mail address."""

    name = "mail-doctor"

    def subjects(self, event: Event) -> Sequence[str]:
        """See Destination."""
        if not isinstance(event, ReportIssued) or event.status not in TOLD_OF:
            return ()
        return (REPORT + event.report_id,) if any(p.relation == "referring" for p in event.people) else ()

    async def _messages(self, entry: Entry, event: ReportIssued) -> list[Message]:
        settings = self._around.settings
        base = settings.public_url
        inbox = f"{base}/web/inbox"
        referring = [p.person_id for p in event.people if p.relation == "referring"]
        return [
            Message(
                channel="email",
                to=address,
                subject=MAIL_SUBJECT,
                text=MAIL.format(inbox=inbox),
                key=f"{entry.id}-{person}",
            )
            for person in dict.fromkeys(referring)
            if (address := await self._address(person))
        ]

    async def _address(self, person_id: str) -> str:
        """Of somebody who works here; "" if there is none."""
        rows = await self._around.tables().select(queries.person(person_id))
        if not rows or not rows[0]["active"]:
            return ""
        data = await asyncio.to_thread(self._around.objects.get, rows[0]["bucket"], rows[0]["document_key"])
        for contact in decode_person(data).practitioner.get("telecom") or ():
            value = contact.get("value") if isinstance(contact, dict) and contact.get("system") == "email" else None
            if isinstance(value, str) and _ADDRESS.match(value):
                return value
        return ""


class SmsPatient(_Notice):
    """The phone number that stands in the order of a study that the report covers."""

    name = "sms-patient"

    def subjects(self, event: Event) -> Sequence[str]:
        """See Destination."""
        told = isinstance(event, ReportIssued) and event.status in TOLD_OF
        return (REPORT + event.report_id,) if told and isinstance(event, ReportIssued) else ()

    async def _messages(self, entry: Entry, event: ReportIssued) -> list[Message]:
        numbers = dict.fromkeys([n for uid in event.study_uids for n in await self._numbers(uid)])
        return [
            Message(channel="sms", to=number, text=SMS, key=f"{entry.id}-{place}")
            for place, number in enumerate(numbers)
        ]

    async def _numbers(self, study_uid: str) -> list[str]:
        tables, country = self._around.tables(), self._around.settings.phone_country
        listed = await tables.select(queries.orders_of_study(study_uid))
        orders = await tables.select_many([queries.order(r["order_id"]) for r in listed if r["order_id"]])
        found = []
        for rows in orders:
            try:
                found.append(e164((rows[0]["phone"] if rows else "") or "", country))
            except Invalid:
                continue  # the order has none that can be dialled
        return found
