"""What C-MOVE and C-GET have in common: find, record who asked, send one after the other, tell how far it is.

1. the instances are found in the read models
2. for each study the access event is durable (design, rule 7)
3. then its instances leave; pending responses say how many are done
4. the last response has the status and the UIDs of what failed
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from pydicom import Dataset

from consumers.api import queries
from consumers.api.access import ALLOWED, refusal
from consumers.api.audit import Window
from consumers.api.current import current
from consumers.dicom.retrieval import (
    CANCELLED,
    CANNOT_COUNT,
    COUNT_MAX,
    IDENTIFIER_MISMATCH,
    IMAGE,
    NOT_AUTHORISED,
    PATIENT,
    PENDING,
    SERIES,
    UNABLE,
    Progress,
    Wanted,
    wanted,
)
from consumers.dicom.services import DicomRoom
from infra import clock, telemetry
from infra.dicom_exchange import Exchange, Gone
from infra.ports import Row
from schemas.caller import Caller
from schemas.errors import Invalid, NotFound, SijilError, Transient
from schemas.roles import Permission

log = telemetry.logger(__name__)

PENDING_EVERY_S = 0.5
IMAGES_ONE_BY_ONE = 8
"""So many instances are looked up singly; for more their series is read."""

RESPONSES = telemetry.Counter("sijil_dimse_retrievals", "C-MOVE and C-GET by their last status", ["service", "status"])
INSTANCES = telemetry.Counter("sijil_dimse_instances_sent", "Sub-operations by what became of them", ["outcome"])


@dataclass(frozen=True)
class Study:
    """A study of an answer."""

    study_uid: str
    owner: str
    """Patient key."""
    rows: list[Row]


async def find(room: DicomRoom, asked: Wanted) -> list[Study]:
    """Instances of the served copies. Raises Transient."""
    reads = room.room
    reads.forget()  # what people decide by HTTP is not told to this process
    studies = asked.studies
    if asked.patient_id:
        found = await reads.views.tables.select(queries.by_patient_id(asked.patient_id))
        now = await current(reads.views.tables, found)  # a study may have got another patient
        theirs = dict.fromkeys(r["study_uid"] for r in now if r.get("patient_id", asked.patient_id) == asked.patient_id)
        studies = tuple(theirs if asked.level == PATIENT else (s for s in studies if s in theirs))
    answer: list[Study] = []
    for study_uid in studies:
        rows: list[Row] = []
        owner = ""
        for series_uid, sop_uid in _parts(asked):
            with suppress(NotFound):
                owner, some = await reads.copies(study_uid, series_uid, sop_uid)
                rows += some
        if asked.level == IMAGE:
            rows = [r for r in rows if r["sop_uid"] in set(asked.sops)]
        if rows:
            answer.append(Study(study_uid, owner, rows))
    return answer


def _parts(asked: Wanted) -> list[tuple[str, str]]:
    """(series, instance) to read of each study; empty for all."""
    if asked.level == IMAGE and len(asked.sops) <= IMAGES_ONE_BY_ONE:
        return [(series, sop) for series in asked.series for sop in asked.sops]
    return [(series, "") for series in asked.series] if asked.level in (SERIES, IMAGE) else [("", "")]


async def _beyond(room: DicomRoom, asker: Caller, studies: Sequence[Study]) -> tuple[str, str] | None:
    """The first (study, patient) that is beyond what somebody may see."""
    scopes = room.room.scopes
    reach = await scopes.reach(asker, Permission.STUDY_READ)
    return await scopes.outside(reach, [s.study_uid for s in studies])


class Answers:
    """The responses of one request."""

    def __init__(self, exchange: Exchange, service: str, response: Callable[[], Any]) -> None:
        self._exchange, self._service, self._response = exchange, service, response
        self._next = 0.0

    def pending(self, progress: Progress) -> None:
        """Say how far it is, now and then."""
        if clock.monotonic() >= self._next:
            self._next = clock.monotonic() + PENDING_EVERY_S
            self._exchange.respond(self._told(PENDING, progress))

    def last(self, status: int, progress: Progress | None = None, comment: str = "") -> None:
        """The last response."""
        told = self._told(status, progress or Progress(0))
        if comment:
            told.ErrorComment = comment
        if progress is not None and progress.failed_uids:
            identifier = Dataset()
            identifier.FailedSOPInstanceUIDList = list(progress.failed_uids)
            told.Identifier = self._exchange.encoded(identifier)
        RESPONSES.labels(self._service, f"{status:04X}").inc()
        self._exchange.respond(told)

    def _told(self, status: int, progress: Progress) -> Any:
        told = self._response()
        told.AffectedSOPClassUID = self._exchange.request.AffectedSOPClassUID
        told.Status = status
        if status in (PENDING, CANCELLED):
            told.NumberOfRemainingSuboperations = min(progress.remaining, COUNT_MAX)
        told.NumberOfCompletedSuboperations = min(progress.completed, COUNT_MAX)
        told.NumberOfFailedSuboperations = min(progress.failed, COUNT_MAX)
        told.NumberOfWarningSuboperations = min(progress.warning, COUNT_MAX)
        return told


class Retrieval:
    """One request under way."""

    def __init__(
        self, room: DicomRoom, exchange: Exchange, answers: Answers, asker: Caller, action: str, destination: str = ""
    ) -> None:
        self.room, self.exchange, self.answers = room, exchange, answers
        self._asker, self._action, self._destination = asker, action, destination
        self._bytes = 0

    def studies(self, levels: tuple[str, ...]) -> list[Study] | None:
        """Step 1; None when the last response was given instead."""
        try:
            identifier = self.exchange.data_set(self.exchange.request.Identifier)
            asked = wanted({e.keyword: e.value for e in identifier if e.VR != "SQ"}, levels)
        except Invalid as error:
            log.info("retrieval refused", reason=error.reason, ae_title=self.exchange.peer.calling_ae)
            self.answers.last(IDENTIFIER_MISMATCH, comment=error.reason)
            return None
        try:
            if (reason := refusal(self._asker, Permission.STUDY_READ)) != ALLOWED:
                study = asked.studies[0] if asked.studies else ""
                self.room.loop.call(self.room.audit.denied(self._asker, self._action, reason, study))
                self.answers.last(NOT_AUTHORISED)
                return None
            found = self.room.loop.call(find(self.room, asked))
            if (beyond := self.room.loop.call(_beyond(self.room, self._asker, found))) is not None:
                self.room.loop.call(self.room.audit.denied(self._asker, self._action, "scope", *beyond))
                self.answers.last(NOT_AUTHORISED)
                return None
            return found
        except Transient as error:
            log.warning("retrieval not possible now", reason=type(error).__name__)
            self.answers.last(CANNOT_COUNT)
        except SijilError as error:
            log.error("retrieval failed", error=error)
            self.answers.last(UNABLE)
        return None

    @contextmanager
    def recorded(self, study: Study) -> Iterator[None]:
        """Step 2, before anything of a study leaves. Raises Transient, and nothing may leave."""
        loop, audit = self.room.loop, self.room.audit
        grant = audit.grant(self._asker, study.study_uid, study.owner, self._action, destination=self._destination)
        window = loop.call(grant)
        before = self._bytes
        loop.call(_opened(window))
        whole = False
        try:
            yield
            whole = not self.exchange.cancelled()
        finally:
            loop.submit(_closed(window, self._bytes - before, whole))

    def sent(self, count: int) -> None:
        """So many bytes left."""
        self._bytes += count

    def stopped(self) -> bool:
        """Whether to go no further. Raises Gone when there is nobody to answer to."""
        if self.exchange.gone():
            raise Gone
        return self.exchange.cancelled()


async def _opened(window: Window) -> None:
    window.use()
    window.began()


async def _closed(window: Window, count: int, whole: bool) -> None:
    window.bytes += count
    window.ended(whole)


def counted(progress: Progress, row: Row, status: int, reason: str = "") -> None:
    """A sub-operation has ended."""
    progress.done(row["sop_uid"], status)
    INSTANCES.labels("sent" if not status else "failed").inc()
    if status:
        log.warning("instance not sent", sop_uid=row["sop_uid"], status=f"{status:04X}", reason=reason)
