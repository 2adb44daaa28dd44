"""reading.claimed, .released → who is at the report of a study."""

from __future__ import annotations

from schemas.events import ReadingClaimed, ReadingReleased
from schemas.tables import Upsert, Write
from streams.facts import Fact


def claimed(fact: Fact, event: ReadingClaimed) -> list[Write]:
    """The last one in the order of the log."""
    columns = {"claimed_by": event.actor, "since": event.recorded}
    return [Upsert("reading", {"study_uid": event.study_uid}, columns, fact.offset)]


def released(fact: Fact, event: ReadingReleased) -> list[Write]:
    """Nobody, whoever it was."""
    columns = {"claimed_by": "", "since": event.recorded}
    return [Upsert("reading", {"study_uid": event.study_uid}, columns, fact.offset)]
