"""A receiver of HL7 v2 as a destination: each version of a report as ORU^R01, taken when it is acknowledged.

Where a report was sent for another patient, that is withdrawn first (OBX-11 `W`); that it is about to be sent for a
patient is noted before, as for the record by FHIR (`consumers.delivery.ehr`).
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence

from consumers.delivery.destination import Around, Destination
from consumers.delivery.dossier import Dossiers, Study, row_of
from consumers.delivery.ehr.bundle import Subject
from consumers.delivery.ehr.filed import Filed, Filing
from consumers.delivery.entry import (
    PATIENT,
    REPORT,
    STUDY,
    Away,
    Delivered,
    Entry,
    Instead,
    NotNeeded,
    Outcome,
    Refused,
    Waiting,
)
from consumers.delivery.oru.message import (
    ACCEPTED,
    NATIONAL,
    REJECTED,
    Numbered,
    Sent,
    acknowledged,
    control_id,
    result,
    withdrawal,
)
from consumers.delivery.turns import Turns
from infra import clock
from infra.mllp import MllpClient
from infra.ports import Row, Tables
from infra.settings import SettingsError
from schemas.errors import Invalid, Transient
from schemas.events import Event, PatientLinked, PatientUnlinked, ReportIssued, StudyReassigned
from schemas.identity import derived_id
from schemas.topics import topic_of

NAME = "oru"


def make(around: Around) -> Sequence[Destination]:
    """The receiver that the settings name; none without SIJIL_ORU_RECEIVER. Raises SettingsError."""
    settings = around.settings
    if not settings.oru_receiver:
        return ()
    host, _, port = settings.oru_receiver.rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise SettingsError("SIJIL_ORU_RECEIVER must be host:port")
    context: ssl.SSLContext | None = None
    if settings.oru_ca_file:
        context = ssl.create_default_context(cafile=settings.oru_ca_file)
    client = MllpClient(host.strip("[]"), int(port), tls=context, timeout_s=settings.oru_timeout_s)
    return (Oru(client, Dossiers(settings, around.tables, around.objects, around.printed), around.state()),)


class Oru:
    """Sends one message after the other over one connection."""

    name = NAME
    topics = (topic_of(ReportIssued), topic_of(StudyReassigned), topic_of(PatientLinked))

    def __init__(self, client: MllpClient, dossiers: Dossiers, state: Tables) -> None:
        self._client, self._dossiers = client, dossiers
        self._filing = Filing(state, self.name)
        self._turns = Turns()

    def subjects(self, event: Event) -> Sequence[str]:
        if isinstance(event, ReportIssued):
            return (REPORT + event.report_id,)
        if isinstance(event, PatientLinked | PatientUnlinked):
            return (PATIENT + event.patient_key,)
        return (STUDY + event.study_uid,) if isinstance(event, StudyReassigned) else ()

    async def deliver(self, entry: Entry) -> Outcome:
        if isinstance(entry.event, ReportIssued):
            async with self._turns.of((entry.event.report_id,)):
                return await self._report(entry, row_of(entry.event))
        if isinstance(entry.event, PatientLinked | PatientUnlinked) and entry.subject.startswith(PATIENT):
            files = (entry.event.patient_key, entry.event.other_key)
            return Instead(tuple(STUDY + uid for uid in await self._dossiers.studies_of(files)))
        reports = await self._dossiers.reports_of(entry.subject.removeprefix(STUDY))
        sent: Outcome = NotNeeded()
        async with self._turns.of(reports):
            for report_id in reports:
                filed = await self._filing.of([REPORT + report_id])
                rows = await self._dossiers.versions(report_id)
                last = max((f.version for f in filed), default=0)
                row = next((r for r in rows if r["version"] == last), None)
                if row is None:
                    continue  # what was never sent needs no withdrawal
                outcome = await self._report(entry, row)
                if not isinstance(outcome, Delivered | NotNeeded):
                    return outcome
                if isinstance(outcome, Delivered):
                    sent = Delivered()
        return sent

    async def close(self) -> None:
        await self._client.close()

    async def _report(self, entry: Entry, row: Row) -> Outcome:
        found = [await self._dossiers.study(uid) for uid in row["study_uids"]]
        studies = [s for s in found if s is not None]
        if len(studies) < len(found):
            return Waiting("study-unknown")
        if len({s.person.patient_key for s in studies}) > 1:
            return Waiting("patients-differ")
        patient = _numbered(studies[0])
        if not patient.value:
            return Waiting("no-patient-id")
        key, subject = studies[0].person.patient_key, REPORT + row["report_id"]
        filed = await self._filing.of([subject])
        named = [(s.uid, (s.row["accession"] or "").strip()) for s in studies]
        there = [f for f in filed if f.patient.patient_key == key]
        if isinstance(entry.event, PatientLinked | PatientUnlinked) and there == filed:
            return NotNeeded()
        for wrong in (f for f in filed if f.patient.patient_key != key):
            id = derived_id("withdrawal", entry.id, row["report_id"], wrong.patient.patient_key)
            about = _about(id, {**row, "status": "entered-in-error"})
            outcome = await self._send(
                about, withdrawal(about, Numbered(wrong.patient.system, wrong.patient.value), named)
            )
            if outcome is not None:
                return outcome
            await self._filing.forget([wrong])
        if any(f.version > row["version"] for f in there):
            return NotNeeded()  # one that was set aside, and a later version was sent
        version, status = row["version"], row["status"]
        await self._filing.note([Filed(subject, Subject(key, patient.authority, patient.value), version, status)])
        rows = await self._dossiers.versions(row["report_id"])
        newest = max([version, *(r["version"] for r in rows)])
        report = await self._dossiers.report(row, studies[0], newest)
        about = _about(derived_id("oru", entry.id, row["report_id"]), row)
        message = result(about, patient, studies[0].person.row, report.document, named, report.pdf)
        return await self._send(about, message) or Delivered(version)

    async def _send(self, about: Sent, message: bytes) -> Outcome | None:
        """None when it was taken."""
        try:
            code = acknowledged(await self._client.send(message), about.control_id)
        except Invalid as e:
            raise Away(e.reason) from e
        except Transient as e:
            raise Away("not-reachable") from e
        if code in ACCEPTED:
            return None
        if code in REJECTED:
            raise Away(f"ack-{code.lower()}")
        return Refused(f"ack-{code.lower()}")


def _numbered(study: Study) -> Numbered:
    person = study.person
    if person.national_id:
        return Numbered(NATIONAL, person.national_id)
    return Numbered(person.row["issuer"] or "", (person.row["patient_id"] or "").strip())


def _about(id: str, row: Row) -> Sent:
    return Sent(
        control_id(id),
        clock.rfc3339(clock.now()),
        row["report_id"],
        row["version"],
        row["status"],
        row["site"],
        row["issued"],
    )
