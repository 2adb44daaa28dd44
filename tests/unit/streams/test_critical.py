"""Critical results from event to row, from contact to contact, until they are read back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import pytest

from infra import clock
from infra.memory import MemoryTables
from infra.ports import Row, Select
from schemas.events import CriticalAcknowledged, CriticalEscalated, CriticalRaised, Event
from streams.critical import escalations, state
from streams.critical_timers import CriticalTimers
from streams.dispatch import project
from streams.effects import Emit
from tests.unit.streams.samples import fact, pack_id, sha

NOW = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)
OF: dict[str, Any] = {
    "critical_id": pack_id(7),
    "report_id": pack_id(8),
    "version": 2,
    "study_uids": ["1.2.3"],
    "site": "CAI-1",
}
RAISED = CriticalRaised(
    **OF, raised_by="person:1", raised="2026-03-01T08:00:00Z", contacts=["a", "b", "c"], within_s=1800,
    due="2026-03-01T08:30:00Z",
)  # fmt: skip
READ = CriticalAcknowledged(
    **OF, clinician="b", recorded_by="person:b", channel="page", acknowledged="2026-03-01T09:10:00Z", bucket="docs",
    document_key="criticals/x/2.json", document_size=1, document_sha256=sha("x"),
)  # fmt: skip


def passed_on(level: int, contact: str) -> CriticalEscalated:
    return CriticalEscalated(**OF, level=level, contact=contact, due=f"2026-03-01T0{8 + level}:30:00Z")


async def rows_of(tables: MemoryTables) -> tuple[list[Row], list[Row]]:
    waiting = await tables.select(Select("criticals_open", {"reports_partition": 0}))
    return await tables.select(Select("criticals", {"report_id": pack_id(8)})), waiting


def after(story: Sequence[tuple[int, Event]]) -> tuple[list[Row], list[Row]]:
    tables = MemoryTables()

    async def run() -> tuple[list[Row], list[Row]]:
        for offset, event in story:
            await tables.apply(project(fact(event, offset)))
        return await rows_of(tables)

    return asyncio.run(run())


def test_the_story_in_any_order_and_told_twice() -> None:
    story = list(enumerate((RAISED, passed_on(1, "b"), READ)))
    expected = after(story)
    (row,), waiting = expected
    assert (row["level"], row["contact"], row["clinician"], row["contacts"]) == (1, "b", "b", ["a", "b", "c"])
    assert waiting == []
    for order in permutations(story):
        assert after(order + order) == expected


def test_one_that_was_passed_on_behind_its_reading_back_waits_for_nobody() -> None:
    (row,), (left,) = after([(0, RAISED), (1, READ), (2, passed_on(1, "b"))])
    assert row["acknowledged"]
    assert state(left) == "acknowledged"
    assert escalations([left], NOW + timedelta(days=1)) == []


def test_contact_by_contact_and_no_further_than_the_last() -> None:
    tables = MemoryTables()
    now = NOW
    told = []

    async def run() -> None:
        nonlocal now
        await tables.apply(project(fact(RAISED, 0)))
        for offset in range(1, 5):
            _, waiting = await rows_of(tables)
            emits = escalations(waiting, now)
            assert [e.id for e in escalations(waiting, now)] == [e.id for e in emits]
            for emit in emits:
                assert isinstance(emit.event, CriticalEscalated)
                told.append((emit.event.level, emit.event.contact, emit.event.due))
                await tables.apply(project(fact(emit.event, offset)))
            _, waiting = await rows_of(tables)
            assert escalations(waiting, now) == []  # who was told just now has time
            now += timedelta(minutes=30)

    asyncio.run(run())
    assert told == [(1, "b", "2026-03-01T09:30:00.000Z"), (2, "c", "2026-03-01T10:00:00.000Z")]


@pytest.mark.parametrize("contacts", [[], ["a"]])
def test_nobody_else_is_there(contacts: list[str]) -> None:
    alone = CriticalRaised(
        **OF, raised_by="", raised="2026-03-01T08:00:00Z", contacts=contacts, within_s=1, due="2026-03-01T08:00:00Z"
    )
    _, waiting = after([(0, alone)])
    assert state(waiting[0]) == "raised"
    assert escalations(waiting, NOW) == []


def test_the_timer_looks_at_its_partitions_and_tells_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "now", lambda: NOW)
    tables = MemoryTables()
    published: list[Emit] = []

    async def publish(emits: Sequence[Emit]) -> None:
        published.extend(emits)

    async def run() -> list[int]:
        timers = CriticalTimers(tables, publish)
        await tables.apply(project(fact(RAISED, 0)))
        counts = [await timers.tick()]
        timers.assigned([0, 1])
        counts += [await timers.tick(), await timers.tick()]  # its event is not projected yet
        timers.revoked([0])
        counts.append(await timers.tick())
        other = CriticalTimers(tables, publish)  # a worker that takes over tells the same event
        other.assigned([0])
        counts.append(await other.tick())
        return counts

    assert asyncio.run(run()) == [0, 1, 0, 0, 1]
    assert len({e.id for e in published}) == 1
