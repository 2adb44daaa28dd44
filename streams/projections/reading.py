"""reading.claimed, .released → who is at the report of a study."""

from __future__ import annotations

from schemas.events import ReadingClaimed, ReadingReleased
from schemas.tables import Delete, Upsert, Write
from streams.facts import Fact


def claimed(fact: Fact, event: ReadingClaimed) -> list[Write]:
    """The last one in the order of the log."""
    key = {"study_uid": event.study_uid}
    return [
        Upsert("reading", key, {"claimed_by": event.actor, "since": event.recorded}, fact.offset),
        Upsert("reading_by_person", {"actor": event.actor, **key}, {"since": event.recorded}, fact.offset),
    ]


def released(fact: Fact, event: ReadingReleased) -> list[Write]:
    """Nobody, whoever it was."""
    key = {"study_uid": event.study_uid}
    return [
        Upsert("reading", key, {"claimed_by": "", "since": event.recorded}, fact.offset),
        Delete("reading_by_person", {"actor": event.actor, **key}, fact.offset),
    ]
