"""Event type → projection: a table, the only dispatch.

`study.pack-stored` and corrections are not in PROJECT: they are projected with their study (streams.arrivals,
streams.corrections). A projection that needs more
than the event names it in WANTED; the shell fetches it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from schemas.events import (
    AccessDenied,
    AccessEmergency,
    AccessGranted,
    AccessInvited,
    AccessUninvited,
    AccessUsed,
    ConflictFound,
    ConflictResolved,
    CriticalAcknowledged,
    CriticalEscalated,
    CriticalRaised,
    DeadLetter,
    DeviceChanged,
    DeviceRegistered,
    DeviceRemoved,
    DuplicateFound,
    EndpointApproved,
    EndpointWithdrawn,
    Event,
    InstanceRejected,
    OrderCancelled,
    OrderChanged,
    OrderPlaced,
    PackArchived,
    PackStored,
    PatientAliased,
    PatientKeptApart,
    PatientLinked,
    PatientSeen,
    PatientStated,
    PatientUnlinked,
    PersonChanged,
    PersonLeft,
    PersonRegistered,
    ReadingClaimed,
    ReadingReleased,
    ReportDelivered,
    ReportDeliveryFailed,
    ReportIssued,
    StepEnded,
    StepStarted,
    StudyCompleted,
    StudyCorrected,
    StudyDelivered,
    StudyDeliveryFailed,
    StudyExpected,
    StudyParted,
    StudyReassigned,
    StudyRejected,
    StudyReopened,
    StudyRestored,
    TreatingEnded,
    TreatingStated,
)
from schemas.patient_keys import Keys
from schemas.tables import Write
from schemas.topics import TOPICS, topic_of
from streams.facts import Fact
from streams.projections import (
    accesses,
    archive,
    deliveries,
    lifecycle,
    orders,
    patients,
    people,
    reading,
    registers,
    rejections,
    reports,
    steps,
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """An S3 object that a projection needs."""

    kind: str
    """`person`: patient and study as a pack's manifest has them (StudyPart); `shown`: an access list (list[Shown]);
    `correction`: what was decided (schemas.corrections.Document); `note`: the manifest of a rejection note (Manifest);
    `staff`: somebody on the staff (schemas.people.Person);
    `stated`: who a hospital says that a patient is (schemas.stated.Stated);
    `step`: what a device says of its examination (schemas.steps.StepDocument);
    `order`: what an order says and said (streams.projections.orders.OrderMaterial).
    """
    key: str
    bucket: str = ""
    """Empty: the bucket of documents."""
    sha256: str = ""
    """Empty: the event does not say."""
    before: str = ""
    """Of an order: key of the version before, in the same bucket; empty: there is none."""


# Projections with the two to four arguments (fact, its event, what was wanted, what makes patient keys).
Project = Callable[..., list[Write]]

PROJECT: Mapping[type[Event], Project] = {
    InstanceRejected: rejections.rejected,
    StudyExpected: orders.expected,
    StudyParted: orders.parted,
    StudyCompleted: lifecycle.completed,
    StudyReopened: lifecycle.reopened,
    ConflictFound: lifecycle.conflict_found,
    DuplicateFound: lifecycle.duplicate_found,
    PatientSeen: patients.seen,
    PatientStated: patients.stated,
    PatientLinked: patients.linked,
    PatientUnlinked: patients.unlinked,
    PatientKeptApart: patients.kept_apart,
    PatientAliased: patients.aliased,
    TreatingStated: patients.treating_stated,
    TreatingEnded: patients.treating_ended,
    PersonRegistered: people.stated,
    PersonChanged: people.stated,
    PersonLeft: people.stated,
    DeviceRegistered: registers.device,
    DeviceChanged: registers.device,
    DeviceRemoved: registers.device,
    EndpointApproved: registers.endpoint,
    EndpointWithdrawn: registers.endpoint,
    PackArchived: archive.archived,
    StepStarted: steps.started,
    StepEnded: steps.ended,
    OrderPlaced: orders.stated,
    OrderChanged: orders.stated,
    OrderCancelled: orders.stated,
    ReportIssued: reports.issued,
    CriticalRaised: reports.critical_raised,
    CriticalEscalated: reports.critical_escalated,
    CriticalAcknowledged: reports.critical_acknowledged,
    ReadingClaimed: reading.claimed,
    ReadingReleased: reading.released,
    ReportDelivered: deliveries.report_delivered,
    StudyDelivered: deliveries.study_delivered,
    AccessGranted: accesses.granted,
    AccessUsed: accesses.used,
    AccessDenied: accesses.denied,
    AccessEmergency: accesses.emergency,
    AccessInvited: accesses.invited,
    AccessUninvited: accesses.uninvited,
}
KEYED: frozenset[type[Event]] = frozenset({OrderPlaced, OrderChanged, OrderCancelled})
"""Projected with `Keys`: whose patient key they are follows from what their documents say."""
BY_STUDY: frozenset[type[Event]] = frozenset({PackStored})
CORRECTIONS: frozenset[type[Event]] = frozenset(
    {ConflictResolved, StudyCorrected, StudyReassigned, StudyRejected, StudyRestored}
)
"""Projected with all corrections of their study (streams.corrections)."""
NOT_PROJECTED: frozenset[type[Event]] = frozenset({DeadLetter, ReportDeliveryFailed, StudyDeliveryFailed})
"""Dead letters are read from the log itself by who looks after them. What is not delivered stands in its outbox, which
is state; the log keeps the attempts."""

TOPICS_FOLLOWED: tuple[str, ...] = tuple(t.name for t in TOPICS if t.name != topic_of(DeadLetter))
"""Also those that carry no event yet: a newer producer's facts must stop an older worker, not pass it by."""


def wanted(event: Event) -> Wanted | None:
    """What has to be fetched before `event` can be projected."""
    match event:
        case PatientSeen():
            return Wanted("person", event.manifest_key, event.bucket)
        case AccessGranted(shown_list=key, shown_list_sha256=sha256) if key:
            return Wanted("shown", key, sha256=sha256)
        case StudyRejected(manifest_key=str(key), manifest_sha256=str(sha256)):
            return Wanted("note", key, event.bucket, sha256)
        case ConflictResolved() | StudyCorrected() | StudyReassigned() | StudyRejected() | StudyRestored():
            return Wanted("correction", event.document_key or "", event.bucket, event.document_sha256 or "")
        case PersonRegistered() | PersonChanged():
            return Wanted("staff", event.document_key, event.bucket, event.document_sha256)
        case PatientStated():
            return Wanted("stated", event.document_key, event.bucket, event.document_sha256)
        case StepStarted() | StepEnded():
            return Wanted("step", event.document_key, event.bucket, event.document_sha256)
        case OrderPlaced() | OrderChanged() | OrderCancelled():
            return Wanted("order", event.document_key, event.bucket, event.document_sha256, event.previous_key)
        case _:
            return None


def project(fact: Fact, material: Any = None, keys: Keys | None = None) -> list[Write]:
    """Writes of a fact whose type is in PROJECT or NOT_PROJECTED (none). `material` is what `wanted` asked for."""
    if type(fact.event) in NOT_PROJECTED:
        return []
    extra: tuple[Any, ...] = () if material is None else (material,)
    extra += (keys,) if type(fact.event) in KEYED else ()
    return PROJECT[type(fact.event)](fact, fact.event, *extra)
