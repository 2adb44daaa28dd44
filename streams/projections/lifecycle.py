"""study.completed, .reopened → studies, timers; study.conflict-found, .duplicate-found → their lists.

The columns about completion carry the revision as their write timestamp, not the offset of their own record: so a
lower revision that comes later changes nothing, and the timer that falls away is exactly that of the arrival it names
(a delete wins over a write of the same timestamp).
"""

from __future__ import annotations

from schemas.events import ConflictFound, DuplicateFound, StudyCompleted, StudyReopened
from schemas.tables import Delete, Upsert, Write
from streams.completeness import timer_key
from streams.facts import Fact, milliseconds_of


def completed(fact: Fact, event: StudyCompleted) -> list[Write]:
    """The study's completion, and its timer gone."""
    columns = {
        "completed_revision": event.revision,
        "completed_basis": event.basis,
        "completed_time": fact.log_time,
        "completed_instances": event.instances,
    }
    arrival_ms = milliseconds_of(event.last_arrival)
    key = timer_key(event.as_of_partition, event.study_uid, event.as_of_offset, arrival_ms)
    return [
        Upsert("studies", {"study_uid": event.study_uid}, columns, event.revision),
        Delete("pending_studies", key, event.as_of_offset),
    ]


def reopened(fact: Fact, event: StudyReopened) -> list[Write]:
    """Which revision no longer holds."""
    columns = {"reopened_revision": event.revision}
    return [Upsert("studies", {"study_uid": event.study_uid}, columns, event.revision)]


def conflict_found(fact: Fact, event: ConflictFound) -> list[Write]:
    """The conflict, in the month it was found."""
    key = {
        "month": event.found[:4] + event.found[5:7],
        "found": event.found,
        "study_uid": event.study_uid,
        "sop_uid": event.sop_uid,
        "second_offset": event.second_offset,
    }
    columns = {
        "series_uid": event.series_uid,
        "first_pack_id": event.first_pack_id,
        "first_offset": event.first_offset,
        "first_sha256": event.first_sha256,
        "second_pack_id": event.second_pack_id,
        "second_sha256": event.second_sha256,
        "reason": event.reason,
    }
    return [Upsert("conflicts", key, columns, fact.offset)]


def duplicate_found(fact: Fact, event: DuplicateFound) -> list[Write]:
    """A note that content came again."""
    key = {
        "study_uid": event.study_uid,
        "record_offset": event.offset,
        "comparison": event.comparison,
        "event_id": fact.id,
    }
    columns = {"pack_id": event.pack_id, "instances": event.instances, "sop_uids": list(event.sop_uids)}
    return [Upsert("duplicates", key, columns, fact.offset)]
