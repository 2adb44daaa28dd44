"""Event type → projection: a table, the only dispatch.

`study.pack-stored` is not in PROJECT: it is projected with its study (streams.arrivals). A projection that needs more
than the event names it in WANTED; the shell fetches it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from schemas.events import (
    AccessDenied,
    AccessGranted,
    AccessUsed,
    ConflictFound,
    DeadLetter,
    DuplicateFound,
    Event,
    InstanceRejected,
    PackArchived,
    PackStored,
    PatientSeen,
    ReportIssued,
    StudyCompleted,
    StudyReopened,
)
from schemas.tables import Write
from schemas.topics import TOPICS, topic_of
from streams.facts import Fact
from streams.projections import accesses, archive, lifecycle, patients, rejections, reports


@dataclass(frozen=True, slots=True)
class Wanted:
    """An S3 object that a projection needs."""

    kind: str
    """`person`: patient and study as a pack's manifest has them (StudyPart); `shown`: an access list (list[Shown])."""
    key: str
    bucket: str = ""
    """Empty: the bucket of documents."""


# Projections with the two or three arguments (fact, its event, what was wanted).
Project = Callable[..., list[Write]]

PROJECT: Mapping[type[Event], Project] = {
    InstanceRejected: rejections.rejected,
    StudyCompleted: lifecycle.completed,
    StudyReopened: lifecycle.reopened,
    ConflictFound: lifecycle.conflict_found,
    DuplicateFound: lifecycle.duplicate_found,
    PatientSeen: patients.seen,
    PackArchived: archive.archived,
    ReportIssued: reports.issued,
    AccessGranted: accesses.granted,
    AccessUsed: accesses.used,
    AccessDenied: accesses.denied,
}
BY_STUDY: frozenset[type[Event]] = frozenset({PackStored})
NOT_PROJECTED: frozenset[type[Event]] = frozenset({DeadLetter})
"""Read from the log itself by who looks after them."""

TOPICS_FOLLOWED: tuple[str, ...] = tuple(t.name for t in TOPICS if t.name != topic_of(DeadLetter))
"""Also those that carry no event yet: a newer producer's facts must stop an older worker, not pass it by."""


def wanted(event: Event) -> Wanted | None:
    """What has to be fetched before `event` can be projected."""
    match event:
        case PatientSeen():
            return Wanted("person", event.manifest_key, event.bucket)
        case AccessGranted(shown_list=key) if key:
            return Wanted("shown", key)
        case _:
            return None


def project(fact: Fact, material: Any = None) -> list[Write]:
    """Writes of a fact whose type is in PROJECT. `material` is what `wanted` asked for."""
    extra = () if material is None else (material,)
    return PROJECT[type(fact.event)](fact, fact.event, *extra)
