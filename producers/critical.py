"""Critical results: who is told of what a report says, and that a named clinician has read it back.

Raised with the version with which a report becomes critical. Reading it back goes these steps:

1. the version is read from S3, and what is already known of its task
2. what was said is in S3 (`If-None-Match: *`: a result is read back once)
3. `report.critical-acknowledged` is in the chain's journal, and Kafka has acknowledged it or is given a little time to
4. the sender is told by whom it was read back

A crash between 2 and 3 leaves a document without its event; who sends again is told of it, and the event is published.
Passing it on after the deadline is the worker's (streams.critical).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Final

import msgspec

from infra import clock, faults
from infra.chain import ChainedLog
from infra.durable import durable
from infra.ports import Objects
from producers.report_document import Report
from schemas.errors import Defect, Invalid
from schemas.events import CriticalAcknowledged, CriticalRaised, PersonId, ReportIssued
from schemas.identity import derived_id

JSON: Final = "application/json"
TOLD_IN: Final = frozenset({"partial", "preliminary", "final", "amended", "corrected", "appended"})
"""States in which a report tells somebody something."""


@dataclass(frozen=True)
class Duty:
    """Who is told when those whom a report names do not answer, and how long each of them has."""

    contacts: tuple[str, ...] = ()
    """Person ids."""
    within_s: int = 3600


class ReadBack(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of an acknowledgement."""

    words: Annotated[str, msgspec.Meta(min_length=3, max_length=2000)]
    """What the clinician said they understood."""
    clinician: PersonId | None = None
    """Who read it back; missing: who sends this."""
    channel: Annotated[str, msgspec.Meta(pattern=r"^(page|phone|in-person)$")] = "page"


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """An acknowledgement in S3."""

    critical_id: str
    report_id: str
    version: int
    clinician: str
    recorded_by: str
    channel: str
    acknowledged: str
    words: str


@dataclass(frozen=True)
class Acknowledged:
    """What the sender is told."""

    critical_id: str
    clinician: str
    acknowledged: str
    new: bool


def critical_id(report_id: str, version: int) -> str:
    """Id of the task that a version raised."""
    return derived_id("critical", report_id, version)


def raised(issued: ReportIssued, report: Report, before: Report | None, duty: Duty) -> CriticalRaised | None:
    """The task of a version; None if it is not critical, or its predecessor was. Pure."""
    told = report.critical and report.status in TOLD_IN
    if not told or (before is not None and before.critical and before.status in TOLD_IN):
        return None
    contacts = list(dict.fromkeys((*report.contacts, *report.referring, *duty.contacts)))[:16]
    due = datetime.fromisoformat(report.recorded) + timedelta(seconds=duty.within_s if contacts else 0)
    return CriticalRaised(
        critical_id=critical_id(issued.report_id, issued.version),
        report_id=issued.report_id,
        version=issued.version,
        study_uids=issued.study_uids,
        site=issued.site,
        raised_by=issued.signed_by or issued.author,
        raised=report.recorded,
        contacts=contacts,
        within_s=duty.within_s,
        due=clock.rfc3339(due),
    )


def read_back(data: bytes) -> ReadBack:
    """Raises Invalid that quotes nothing."""
    try:
        return msgspec.json.decode(data, type=ReadBack)
    except msgspec.DecodeError as e:
        names = "words (what was understood), clinician (a person id), channel (page, phone, in-person)"
        raise Invalid("critical-read-back", f"the body is a JSON object of {names}") from e


class Criticals:
    """Takes in what was read back. Blocking; thread-safe."""

    def __init__(self, objects: Objects, chain: ChainedLog, *, bucket: str) -> None:
        self._objects, self._chain, self._bucket = objects, chain, bucket

    def acknowledge(
        self, report_id: str, version: int, report: Report, said: ReadBack, actor: str, person: str, site: str
    ) -> Acknowledged:
        """Steps 2 and 3. `person`: who sends it, "" for a service, which must name the clinician."""
        clinician = said.clinician or person
        if not clinician:
            raise Invalid("critical-clinician", "clinician: the person id of who read it back is needed")
        document = Document(
            critical_id=critical_id(report_id, version),
            report_id=report_id,
            version=version,
            clinician=clinician,
            recorded_by=actor,
            channel=said.channel,
            acknowledged=clock.rfc3339(clock.now()),
            words=said.words,
        )
        data, key = msgspec.json.encode(document), f"criticals/{report_id}/{version}.json"
        new = True
        try:
            self._objects.put(self._bucket, key, data, sha256=hashlib.sha256(data).hexdigest(), content_type=JSON)
        except Defect:
            # Read back before: that one counts
            data, new = self._objects.get(self._bucket, key), False
            document = msgspec.json.decode(data, type=Document)
        faults.point("critical.after-document")
        event = CriticalAcknowledged(
            critical_id=document.critical_id,
            report_id=report_id,
            version=version,
            study_uids=list(report.study_uids),
            site=site,
            clinician=document.clinician,
            recorded_by=document.recorded_by,
            channel=document.channel,
            acknowledged=document.acknowledged,
            bucket=self._bucket,
            document_key=key,
            document_size=len(data),
            document_sha256=hashlib.sha256(data).hexdigest(),
        )
        durable(self._chain, event, id=derived_id(event.TYPE, document.critical_id), subject=report_id)
        return Acknowledged(document.critical_id, document.clinician, document.acknowledged, new)
