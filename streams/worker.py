"""The worker: every event → read models, and what follows from arrivals → events.

The steps of a batch, of one topic:
1. decode; at a type this build does not know its partition stands still, loudly, and the others go on
2. project and write, idempotently; written means durable
3. what cannot be projected: payload, encrypted, into S3, then a dead letter acknowledged by Kafka
4. what arrivals decide (patients seen, studies completed and reopened), orders and studies that have found each
   other, and what numbers are called under a newer secret: published and acknowledged
5. positions are written, then the batch is acknowledged in order (streams.following)
A crash between any two repeats the batch: the same rows, and events with the same ids. A transient fault is tried again
for RETRY_S and then ends the process, which its supervisor starts again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from itertools import pairwise

from infra import clock, faults, telemetry
from infra.ports import Position, Select, Stored, Tables
from schemas.errors import Invalid
from schemas.events import DeadLetter, PackStored, StepEnded, StepStarted, UnknownEventType
from schemas.identity import derived_id
from schemas.topics import topic_of
from streams import expected
from streams.apply import Applied, Projector, fact_of
from streams.arrivals import Folded, decide
from streams.completeness import is_late
from streams.effects import Emit, aliased
from streams.expected import Step, waits_ms
from streams.facts import Fact
from streams.joining import Joining
from streams.retry import retrying
from streams.timers import Publish, Timers

log = telemetry.logger(__name__)

Keep = Callable[[Stored], tuple[str, str]]
"""Puts a record, encrypted, where it can be looked at again: (key, SHA-256). Putting it twice is putting it once."""

ARRIVALS = topic_of(PackStored)
RETRY_S = 60.0

EVENTS = telemetry.Counter("sijil_events_projected", "Events applied to the read models", ["topic"])
ROWS = telemetry.Counter("sijil_rows_written", "Rows written or deleted in the read models")
DEAD = telemetry.Counter("sijil_dead_letters", "Events that could not be processed", ["topic", "reason"])
SECONDS = telemetry.Histogram(
    "sijil_batch_seconds", "A batch from its records to its positions", ["topic"], buckets=(0.01, 0.05, 0.2, 1, 5, 20)
)


class Worker:
    """What to do with a batch. The following, the timers and the ports are handed in."""

    def __init__(
        self,
        tables: Tables,
        projector: Projector,
        timers: Timers,
        keep: Keep,
        publish: Publish,
        *,
        source: str,
        quiet_ms: int,
        open_ms: int = 0,
    ) -> None:
        self._tables, self._projector, self._timers = tables, projector, timers
        self._keep, self._publish = keep, publish
        self._source, self._quiet_ms, self._open_ms = source, quiet_ms, open_ms
        self._joining = Joining(tables)
        self.progress_at = clock.monotonic()
        """When a batch was last done."""

    async def handle(self, records: Sequence[Stored]) -> Collection[Position]:
        """Steps 1 to 5 of a batch. Returns the records at which partitions have to stand still."""
        started = clock.monotonic()
        # Step 1
        stops: dict[int, Position] = {}
        facts: list[Fact] = []
        broken: list[tuple[Stored, Invalid]] = []
        done: list[Stored] = []
        for record in records:
            place = record.position
            if place.partition in stops:
                continue
            try:
                facts.append(fact_of(record))
            except UnknownEventType as unknown:
                stops[place.partition] = place
                log.error(
                    "partition paused: event type is not known to this build",
                    event_type=unknown.event_type[:128],
                    topic=place.topic,
                    partition=place.partition,
                    offset=place.offset,
                )
                continue
            except Invalid as error:
                broken.append((record, error))
            done.append(record)
        if done:
            await self._do(facts, broken, done)
        self.progress_at = clock.monotonic()
        if done:
            topic = done[0].position.topic
            EVENTS.labels(topic).inc(len(done))
            SECONDS.labels(topic).observe(self.progress_at - started)
        return list(stops.values())

    async def _do(self, facts: list[Fact], broken: list[tuple[Stored, Invalid]], done: list[Stored]) -> None:
        last = {record.position.partition: record for record in done}
        if done[0].position.topic == ARRIVALS:
            for first in {r.position.partition: r for r in reversed(done)}.values():
                await retrying("before", partial(self._timers.before, first), RETRY_S)
        # Step 2
        applied = await retrying("apply", partial(self._projector.apply, facts), RETRY_S)
        ROWS.inc(applied.writes)
        faults.point("worker.written")
        # Step 3
        by_place = {record.position: record for record in done}
        broken += [(by_place[Position(f.topic, f.partition, f.offset)], error) for f, error in applied.failed]
        for record, error in broken:
            await retrying("bury", partial(self._bury, record, error), RETRY_S)
        # Step 4
        await retrying("publish", partial(self._decide, applied, facts), RETRY_S)
        faults.point("worker.published")
        # Step 5
        await retrying("advance", partial(self._projector.advance, last.values()), RETRY_S)
        self._note(applied, last.values())
        for fact in facts:
            if isinstance(fact.event, StepStarted | StepEnded):
                self._timers.nudge(fact.event.study_uids)
        faults.point("worker.before-ack")

    async def _decide(self, applied: Applied, facts: Iterable[Fact]) -> None:
        emits: list[Emit] = aliased(applied.aliases)
        for folded, known, waits in await self._known(applied.studies):
            emits += decide(folded, waits, known)
        emits += await self._joining.of_studies(applied.studies)
        emits += await self._joining.of_orders(facts)
        emits += await self._joining.of_expected(facts)
        await self._publish(emits)

    async def _known(self, studies: Iterable[Folded]) -> list[tuple[Folded, set[int], int]]:
        """Each study with the offsets at which it is known to have been completed, and its quiet time."""
        found = [(folded, set[int]()) for folded in studies]
        older = [(f, k) for f, k in found if len(f.arrivals[0].rows) > 1]
        queries = [
            Select("studies", {"study_uid": f.arrivals[0].row.study_uid}, ("completed_revision",)) for f, _ in older
        ]
        answers = await self._tables.select_many(queries) if queries else []
        for (folded, known), rows in zip(older, answers, strict=True):
            if rows and rows[0]["completed_revision"] is not None:
                known.add(rows[0]["completed_revision"] - 1)
            first = folded.arrivals[0]
            announced = self._timers.announced(first.fact.partition, first.row.study_uid)
            if announced is not None:
                known.add(announced)
        return [(folded, known, await self._waits_ms(folded)) for folded, known in found]

    async def _waits_ms(self, folded: Folded) -> int:
        """A study's quiet time; where that has passed between two arrivals, a step may have been open meanwhile."""
        rows = folded.arrivals[-1].rows
        if not any(is_late(before, row, self._quiet_ms) for before, row in pairwise(rows)):
            return self._quiet_ms
        query = Select(expected.TABLE, {"study_uid": rows[-1].study_uid}, expected.COLUMNS)
        return waits_ms([Step.read(row) for row in await self._tables.select(query)], self._quiet_ms, self._open_ms)

    def _note(self, applied: Applied, last: Iterable[Stored]) -> None:
        for folded in applied.studies:
            arrival = folded.arrivals[-1]
            row = arrival.row
            self._timers.arrived(arrival.fact.partition, row.study_uid, row.offset, row.arrival_ms)
        for record in last:
            if record.position.topic == ARRIVALS:
                self._timers.applied(record)

    async def _bury(self, record: Stored, error: Invalid) -> None:
        place = record.position
        # The payload first: a dead letter names an object that is there.
        key, sha256 = await asyncio.to_thread(self._keep, record)
        letter = DeadLetter(
            reason=error.reason,
            origin_topic=place.topic,
            origin_partition=place.partition,
            origin_offset=place.offset,
            origin_type=_type_of(record),
            payload_key=key,
            payload_sha256=sha256,
            consumer=self._source,
        )
        id = derived_id("dead-letter", self._source, place.topic, place.partition, place.offset)
        await self._publish([Emit(letter, id, letter.key())])
        DEAD.labels(place.topic, error.reason).inc()
        log.error(
            "dead letter",
            reason=error.reason,
            topic=place.topic,
            partition=place.partition,
            offset=place.offset,
        )


def _type_of(record: Stored) -> str:
    """`ce_type` as far as it can be told."""
    for name, text in record.headers:
        if name == "ce_type":
            return text.decode("ascii", "replace")[:128]
    return ""
