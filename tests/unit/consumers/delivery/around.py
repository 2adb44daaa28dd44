"""A delivery process on ports in memory, and destinations that do as they are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Any

from consumers.delivery.deliverer import Deliverer
from consumers.delivery.entry import Delivered, Entry, Outcome
from consumers.delivery.feed import Ends, Feed
from consumers.delivery.outbox import Outbox
from consumers.delivery.positions import VIEWS, Positions
from consumers.delivery.queue import Queue
from infra import clock
from infra.memory import MemoryLog, MemoryTables
from infra.ports import Position
from schemas.envelope import encode
from schemas.events import Event, ReportIssued
from schemas.identity import derived_id
from schemas.tables import STATE_KEYSPACE, TABLES, Upsert
from schemas.topics import topic_of

REPORTS = topic_of(ReportIssued)
STUDY = "1.2.826.0.1.3680043.8.498.1"


def issued(report: int | str, version: int = 1, status: str = "final", study: str = STUDY) -> ReportIssued:
    """A version of a report."""
    id = derived_id("report", report) if isinstance(report, int) else report
    return ReportIssued(
        report_id=id,
        version=version,
        status=status,
        study_uids=[study],
        site="ALEX",
        issued="2026-11-23T08:00:00.000000Z",
        bucket="sijil-documents",
        document_key=f"reports/{id}/{version}.json",
        document_size=2,
        document_sha256="0" * 64,
    )


class Told:
    """A destination that remembers what it was told. `answer` decides how a delivery ends; it may raise."""

    def __init__(self, name: str = "told", answer: Callable[[Entry], Outcome] = lambda entry: Delivered()) -> None:
        self.name = name
        self.topics: Sequence[str] = (REPORTS,)
        self.answer = answer
        self.calls: list[Entry] = []
        self.took: list[tuple[str, int]] = []
        self.hold = asyncio.Event()
        self.hold.set()
        self.closed = False

    def subjects(self, event: Event) -> Sequence[str]:
        return (f"report/{event.report_id}",) if isinstance(event, ReportIssued) else ()

    async def deliver(self, entry: Entry) -> Outcome:
        self.calls.append(entry)
        await self.hold.wait()
        outcome = self.answer(entry)
        if isinstance(outcome, Delivered) and isinstance(entry.event, ReportIssued):
            self.took.append((entry.event.report_id, entry.event.version))
        return outcome

    async def close(self) -> None:
        self.closed = True


class Kept:
    """A chain that keeps in memory."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Event]] = []

    def publish(self, event: Event, *, id: str = "", subject: str = "") -> Any:
        self.events.append((id, event))
        publication = Publication()
        publication.kept.set_result(None)
        return publication


class Publication:
    """What `Kept` gives."""

    def __init__(self) -> None:
        self.kept: Future[None] = Future()


class World:
    """Kafka, Cassandra and a chain."""

    def __init__(self) -> None:
        self.log = MemoryLog()
        self.views = MemoryTables(definitions=TABLES)
        self.state = MemoryTables(STATE_KEYSPACE)
        self.chain = Kept()

    async def happens(self, *events: Event, projected: bool = True) -> None:
        """On the log, and in the read models."""
        now = clock.rfc3339(clock.now())
        places = []
        for event in events:
            record = encode(event, id=derived_id("test", *map(str, _parts(event))), source="/test/T/1", time=now)
            places.append(self.log.append(record).result())
        if projected:
            await self.project(places)

    async def project(self, places: Sequence[Position]) -> None:
        await self.views.apply(
            [
                Upsert(
                    "projection_positions",
                    {"projection": VIEWS, "topic": p.topic, "partition": p.partition},
                    {"next_offset": p.offset + 1},
                    p.offset,
                )
                for p in places
            ]
        )

    def deliverer(self, to: Any, random: Callable[[], float] = lambda: 0.0) -> Deliverer:
        outbox, queue = Outbox(self.state, to.name), Queue(random)
        feed = Feed(self.log, Ends(self.log), to, outbox, queue, since_ms=0)
        return Deliverer(to, outbox, queue, feed, Positions(lambda: self.views), self.chain)

    @asynccontextmanager
    async def running(self, *deliverers: Deliverer) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(d.run()) for d in deliverers]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def open_rows(self) -> list[dict[str, Any]]:
        return [row async for row in self.state.scan("deliveries_open")]


def _parts(event: Event) -> tuple[object, ...]:
    return (event.TYPE, event.key(), getattr(event, "version", 0))


async def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait for it."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 (what is waited for tells nobody)
            await asyncio.sleep(0.005)
