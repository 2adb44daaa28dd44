"""What a destination must be told, from the log into its outbox. Each destination follows the topics by itself.

1. records behind the destination's cursors are read and judged
2. the outbox has a row for each delivery
3. the cursors move past the records
4. the deliveries are in the queue

A crash between 2 and 3 reads the records again, which makes the same rows; until then nobody delivers them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from consumers.delivery.destination import Destination
from consumers.delivery.entry import Entry
from consumers.delivery.outbox import Offsets, Outbox
from consumers.delivery.queue import Owed, Queue
from infra import clock, faults, telemetry
from infra.ports import Log, Stored
from schemas.envelope import decode
from schemas.errors import Invalid, Transient
from schemas.events import UnknownEventType
from schemas.identity import derived_id

log = telemetry.logger(__name__)

POLL_S = 0.25
READ_MAX = 500
"""Records of a partition at once."""
OWED_MAX = 100_000
"""Deliveries of one destination in memory; above this the log is the queue."""


class Ends:
    """Where the topics end, asked for all destinations together."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._known: dict[str, tuple[float, Mapping[int, int]]] = {}
        self._lock = asyncio.Lock()

    async def of(self, topic: str) -> Mapping[int, int]:
        """Next offsets, as they were POLL_S ago at most. Raises Transient."""
        async with self._lock:
            known = self._known.get(topic)
            if known is None or clock.monotonic() - known[0] > POLL_S * 0.8:
                known = clock.monotonic(), await asyncio.to_thread(self._log.ends, topic)
                self._known[topic] = known
            return known[1]


class Feed:
    """From the log into one destination's outbox and queue."""

    def __init__(
        self, log: Log, ends: Ends, destination: Destination, outbox: Outbox, queue: Queue, *, since_ms: int
    ) -> None:
        """`since_ms`: where a destination begins that was never told anything; 0: at the first event."""
        self._log, self._ends, self._to = log, ends, destination
        self._outbox, self._queue, self._since_ms = outbox, queue, since_ms
        self._cursors: dict[str, Offsets] = {}
        self._stopped: set[tuple[str, int]] = set()
        self.added = asyncio.Event()

    @property
    def paused(self) -> int:
        """Partitions that stand still at an event this build does not know."""
        return len(self._stopped)

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            try:
                moved = await self.round()
            except Transient as error:
                log.warning("delivery cannot follow the log", destination=self._to.name, reason=str(error))
                await asyncio.sleep(1.0)
                continue
            if not moved:
                await asyncio.sleep(POLL_S)

    async def round(self) -> bool:
        """Take in what is new, up to a bound; whether there was any. Raises Transient."""
        if len(self._queue) >= OWED_MAX:
            return False
        moved = False
        for topic in self._to.topics:
            cursors = await self._cursors_of(topic)
            ends = await self._ends.of(topic)
            wanted = {
                p: min(end, cursors.get(p, 0) + READ_MAX)
                for p, end in ends.items()
                if cursors.get(p, 0) < end and (topic, p) not in self._stopped
            }
            if wanted:
                moved |= await self._take_in(topic, cursors, wanted)
        return moved

    async def _cursors_of(self, topic: str) -> Offsets:
        if not self._cursors:
            self._cursors = await self._outbox.cursors()
        if topic not in self._cursors:
            first = await asyncio.to_thread(self._log.since, topic, self._since_ms)
            await self._outbox.move(topic, first)
            self._cursors[topic] = first
        return self._cursors[topic]

    async def _take_in(self, topic: str, cursors: Offsets, wanted: Offsets) -> bool:
        # Step 1
        start = {p: cursors.get(p, 0) for p in wanted}
        records = await asyncio.to_thread(lambda: list(self._log.read(topic, start, wanted)))
        entries, reached = self._judged(topic, records, wanted)
        if entries:
            await self._outbox.accept(entries)  # Step 2
            faults.point("delivery.accepted")
        await self._outbox.move(topic, reached)  # Step 3
        if entries:
            faults.point("delivery.followed")
        cursors.update(reached)
        for entry in entries:  # Step 4
            self._queue.add(Owed(entry))
        if entries:
            self.added.set()
        return bool(records)

    def _judged(self, topic: str, records: Sequence[Stored], wanted: Offsets) -> tuple[list[Entry], Offsets]:
        """The deliveries of these records, and how far each partition was read."""
        entries: list[Entry] = []
        reached = dict(wanted)
        for stored in records:
            place = stored.position
            if (topic, place.partition) in self._stopped:
                continue
            try:
                record = decode(topic, stored.key, stored.headers, stored.value)
            except UnknownEventType as unknown:
                # A newer producer's fact: an older process must not pass it by.
                log.error("event type unknown, partition stands still", topic=topic, event_type=unknown.event_type)
                self._stopped.add((topic, place.partition))
                reached[place.partition] = place.offset
                continue
            except Invalid:
                continue  # the projectors put it with the dead letters
            recorded = datetime.fromtimestamp(stored.timestamp_ms / 1000, UTC)
            for subject in self._to.subjects(record.event):
                id = derived_id("delivery", self._to.name, subject, record.id)
                entries.append(
                    Entry(
                        id,
                        self._to.name,
                        subject,
                        record.event,
                        recorded,
                        topic,
                        place.partition,
                        place.offset,
                    )
                )
        return entries, reached
