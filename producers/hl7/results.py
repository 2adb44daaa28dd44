"""Results that come in become versions of reports, or wait where people see them.

1. whose it is and of which studies (producers.hl7.matching)
2. filed: its document and its event (producers.reports), acknowledged by Kafka; or its row among those that wait
3. the sender is told

A crash between 2 and 3: the message is sent again, the same document and event are there, nothing is new.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, tzinfo
from functools import partial

import msgspec

from infra import clock, faults, telemetry
from infra.chain import Publishes
from infra.known_studies import KnownStudies
from infra.patient_keys import PatientKeys
from infra.ports import Objects
from infra.results_waiting import Queue, Waiting
from producers.critical import Duty
from producers.hl7.charset import decode
from producers.hl7.incoming import Acknowledging, Incoming
from producers.hl7.matching import Found, Waits, match
from producers.hl7.person import Person, files, patient
from producers.hl7.result import INSTEAD, Result, results
from producers.hl7.result_document import document, report_id_of
from producers.reports import Conflict, Reports, Told, Writer
from schemas.errors import Defect, Invalid, SijilError, Transient
from schemas.hl7 import parse
from schemas.identity import derived_id

log = telemetry.logger(__name__)

ATTEMPTS = 4
"""How often a version is tried anew when another writer was faster."""
LOOK_S = 2.0
"""Between two looks at what waits."""
PAUSE_SHARE, PAUSE_S_MAX = 0.1, 600.0
"""A result that has waited for so long is looked at again after this share of that, at most so much later."""

FILED = telemetry.Counter("sijil_hl7_results", "Results of HL7 v2 by what became of them", ["outcome"])
WAITING = telemetry.Gauge("sijil_hl7_results_waiting", "Results that wait for their study or for a person")


class Results:
    """Takes in ORU. Runs on one event loop; the domain's blocking work runs in threads."""

    def __init__(
        self,
        *,
        objects: Objects,
        chain: Publishes,
        bucket: str,
        duty: Duty,
        studies: Callable[[], KnownStudies | None],
        queue: Queue,
        zone: tzinfo,
        keys: PatientKeys | None = None,
    ) -> None:
        """`zone`: of times that a message gives without one. `keys`: of patients; without them a person's numbers
        are compared alone, and not the files that people joined.
        """
        self._objects, self._chain, self._bucket, self._duty = objects, chain, bucket, duty
        self._known, self._queue, self._zone, self._keys = studies, queue, zone, keys
        self._next: dict[str, float] = {}
        """When what waits is looked at again, by the monotonic clock."""
        self.count = 0
        """Of those that wait, as last seen."""

    async def take(self, incoming: Incoming) -> None:
        """All results of a message. See `producers.hl7.incoming.Take`."""
        person = patient(incoming.message)
        refused: Conflict | None = None
        for place, result in enumerate(results(incoming.message, self._zone)):
            # Step 1
            found = await self._match(person, incoming.site, incoming.issuer, result.accessions, result.study_uids)
            # Step 2
            if isinstance(found, Waits):
                await self._queue.put(_waiting(incoming, place, result, person, found.reason))
                self.count += 1
                FILED.labels("waits").inc()
                log.info("result waits", reason=found.reason, event_id=incoming.message_id)
                continue
            try:
                await self.file(result, found.study_uids, incoming.site, incoming.actor, incoming.source)
            except Conflict as conflict:
                refused = conflict  # the others of the message are filed all the same
        if refused is not None:
            raise Invalid(refused.reason, str(refused))

    async def file(self, result: Result, study_uids: Sequence[str], site: str, actor: str, source: str) -> Told:
        """The version of the report, its event acknowledged. Raises Conflict, Transient."""
        for _ in range(ATTEMPTS):
            try:
                told = await asyncio.to_thread(self._file, result, study_uids, site, actor, source)
            except Conflict as conflict:
                if conflict.status != 412:
                    raise
                continue  # another writer had the version: look again
            FILED.labels("filed" if told.new else "repeated").inc()
            return told
        raise Transient("others are writing this report")

    def _file(self, result: Result, study_uids: Sequence[str], site: str, actor: str, source: str) -> Told:
        chain = Acknowledging(self._chain)
        reports = Reports(self._objects, chain, self._bucket, site, self._duty)
        writer = Writer(actor, may_sign=True)  # a RIS says F of what was signed there
        id, status = report_id_of(site, result.number), result.status
        while True:
            made = document(result, status, study_uids, site=site, source=source)
            try:
                told = reports.add(made, id, writer)
                break
            except Conflict as conflict:
                if conflict.reason != "report-transition" or status not in INSTEAD:
                    raise
                status = INSTEAD[status]
        chain.wait()
        faults.point("hl7.after-event")
        return told

    async def _match(
        self, person: Person, site: str, issuer: str, accessions: Sequence[str], named: Sequence[str]
    ) -> Found | Waits:
        own: list[str] = []
        if self._keys is not None:
            own, _ = await self._keys.made(partial(files, person, issuer=issuer))
        by_uid = await self._studies().by_uid(named) if named else ()
        found: Found | Waits = Waits("study-unknown")
        for accession in accessions or ("",):
            by_accession = await self._studies().by_accession(accession) if accession else ()
            found = match(person, site, by_accession, by_uid, named, own)
            if found != Waits("study-unknown"):
                break
        return found

    def _studies(self) -> KnownStudies:
        studies = self._known()
        if studies is None:
            raise Transient("no room says what is known of studies")
        return studies

    # -------------------------------------------------------------------------------------------- what waits

    async def run(self) -> None:
        """Look at what waits, again and again; it never ends by itself."""
        while True:
            try:
                await self.look()
            except Transient as error:
                log.warning("waiting results not looked at", reason=str(error))
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Once at everything that waits and whose time has come. Raises Transient."""
        entries = await self._queue.waiting()
        self.count = len(entries)
        WAITING.set(self.count)
        self._next = {e.waiting_id: self._next[e.waiting_id] for e in entries if e.waiting_id in self._next}
        for entry in entries:
            now = clock.monotonic()
            if not entry.decision and self._next.get(entry.waiting_id, 0.0) > now:
                continue
            waited_s = clock.now_ms() / 1000 - _seconds(entry.received)
            self._next[entry.waiting_id] = now + min(waited_s * PAUSE_SHARE, PAUSE_S_MAX)
            try:
                await self._again(entry)
            except Transient:
                raise
            except SijilError as error:
                log.error("waiting result not filed", event_id=entry.waiting_id, error=error)

    async def _again(self, entry: Waiting) -> None:
        if entry.decision == "dismiss":
            await self._end(entry, "dismissed")
            return
        if entry.decision == "file":
            there = await self._studies().by_uid([entry.decided_study])
            found: Found | Waits = Found((entry.decided_study,)) if there else Waits("study-unknown")
        else:
            person = Person(locals=tuple(entry.patient_numbers), birth_date=entry.birth_date, sex=entry.sex)
            issuer = entry.issuer or entry.site
            found = await self._match(person, entry.site, issuer, entry.accessions, entry.study_uids)
        if isinstance(found, Waits):
            if found.reason != entry.reason:
                await self._queue.put(msgspec.structs.replace(entry, reason=found.reason))
            return
        text, _ = decode(await asyncio.to_thread(self._objects.get, self._bucket, entry.message_key))
        every = results(parse(text), self._zone)
        if entry.place >= len(every):
            raise Defect(f"{entry.message_key} is not the message that waits")
        source = f"urn:uuid:{entry.message_id}"
        try:
            told = await self.file(every[entry.place], found.study_uids, entry.site, entry.actor, source)
        except Conflict as conflict:
            log.info("waiting result overtaken", event_id=entry.waiting_id, reason=conflict.reason)
            await self._end(entry, "overtaken")
            return
        await self._end(entry, "filed", told.report_id)

    async def _end(self, entry: Waiting, outcome: str, report_id: str = "") -> None:
        FILED.labels(outcome).inc()
        await self._queue.done(msgspec.structs.replace(entry, outcome=outcome, report_id=report_id))


def _waiting(incoming: Incoming, place: int, result: Result, person: Person, reason: str) -> Waiting:
    return Waiting(
        waiting_id=derived_id("hl7-waiting", incoming.message_id, place),
        received=clock.rfc3339(clock.now()),
        site=incoming.site,
        issuer=incoming.issuer,
        actor=incoming.actor,
        reason=reason,
        number=result.number,
        accessions=list(result.accessions),
        study_uids=list(result.study_uids),
        status=result.status,
        procedure=result.procedure.text,
        patient_numbers=[n for n in (person.national, *person.locals) if n],
        patient_name=person.name,
        birth_date=person.birth_date,
        sex=person.sex,
        message_id=incoming.message_id,
        message_key=incoming.key,
        place=place,
    )


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
