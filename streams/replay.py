"""All read models anew from the log and the packs: the worker's own functions, from offset 0, into a fresh keyspace.

The steps of a rebuild:
1. a fresh keyspace with every table
2. the aliases of patients' keys, which say whose the numbers of all else are; then every topic from its beginning to
   an end that is fixed when its pass begins, in batches, as the worker would; again from there to the new ends until
   hardly anything is left
3. the consumer group of the new keyspace gets exactly the offsets where the rebuild stopped, and the completeness
   timers their position, so that the worker finds those that still wait
4. the pointer to the active keyspace is flipped; worker and API go over within seconds

It emits nothing: what an event decided is read from the log. The worker goes on with the old keyspace until step 4,
and then begins where step 3 said: no event is missed, none applied twice. A crash before step 4 changes nothing that
answers; the same rebuild can be run again into the same keyspace, since every write is idempotent.

Records that the worker put into the dead letters are passed over: a retry of one is a record of its own. One that
cannot be processed now and is not there is a loss since (an object that is gone): then step 4 is not done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

from infra import clock, faults, telemetry
from infra.dead_letters import letters
from infra.ports import Log, Position, Select, Stored, Tables
from schemas.errors import Invalid
from schemas.events import PackStored, PatientAliased, UnknownEventType
from schemas.topics import topic_of
from streams.apply import VIEWS, Projector, fact_of
from streams.dispatch import TOPICS_FOLLOWED
from streams.facts import Fact, milliseconds
from streams.retry import retrying
from streams.timers import lowest, settled

log = telemetry.logger(__name__)

BATCH = 500
CAUGHT_UP = 200
"""So few records left end step 2: the worker takes them in a blink."""
PASSES_MAX = 20
RETRY_S = 60.0
PATIENTS = topic_of(PatientAliased)

_ALIASED = ("ce_type", PatientAliased.TYPE.encode())

Ends = dict[str, dict[int, int]]
"""Topic → partition → next offset."""


@dataclass
class Replayed:
    """What a rebuild did."""

    ends: Ends = field(default_factory=dict)
    events: int = 0
    rows: int = 0
    passed_over: int = 0
    lost: list[Position] = field(default_factory=list)
    """Records that could be processed once, and cannot now."""
    seconds: float = 0.0


class Replay:
    """One rebuild. `advanced` is told how many records were done after each batch."""

    def __init__(
        self,
        kafka: Log,
        projector: Projector,
        advanced: Callable[[int], None] = lambda n: None,
        begin: Ends | None = None,
    ) -> None:
        """`begin`: where to; None: from the beginning, patients' aliases before all else."""
        self._log, self._projector, self._advanced = kafka, projector, advanced
        self._buried: frozenset[Position] = frozenset()
        self._aliases_first = begin is None
        self.done = Replayed(ends=begin or {})

    async def run(self, fixed: Ends | None = None) -> Replayed:
        """Step 2: up to `fixed`, or until caught up. Raises Transient when a server stays away, UnknownEventType when
        the log holds facts of a newer build.
        """
        started = clock.monotonic()
        if self._aliases_first:
            await self._aliases(await asyncio.to_thread(self._log.ends, PATIENTS) if fixed is None else fixed[PATIENTS])
        for _ in range(PASSES_MAX):
            self._buried = await asyncio.to_thread(buried, self._log)
            ends = await asyncio.to_thread(current_ends, self._log) if fixed is None else fixed
            for topic in TOPICS_FOLLOWED:
                await self._pass(topic, self.done.ends.get(topic, {}), ends[topic])
                self.done.ends[topic] = dict(ends[topic])
            if fixed is not None or left(self.done.ends, await asyncio.to_thread(current_ends, self._log)) < CAUGHT_UP:
                break
        if self.done.lost:  # the worker may have met and buried some of them meanwhile
            found = await asyncio.to_thread(buried, self._log)
            self.done.passed_over += sum(place in found for place in self.done.lost)
            self.done.lost = [place for place in self.done.lost if place not in found]
        self.done.seconds = clock.monotonic() - started
        return self.done

    async def _aliases(self, end: Mapping[int, int]) -> None:
        """Which number has which file, of all that follows. Raises Transient."""
        records = (r for r in self._log.read(PATIENTS, {}, end) if _ALIASED in r.headers)
        while batch := await asyncio.to_thread(take, records):
            await retrying("rebuild", partial(self._projector.apply, [fact_of(r) for r in batch]), RETRY_S)

    async def _pass(self, topic: str, start: Mapping[int, int], end: Mapping[int, int]) -> None:
        records = self._log.read(topic, start, end)
        while batch := await asyncio.to_thread(take, records):
            await self._batch(batch)
            self._advanced(len(batch))
            faults.point("rebuild.batch")

    async def _batch(self, records: Sequence[Stored]) -> None:
        facts: list[Fact] = []
        for record in records:
            if record.position in self._buried:
                self.done.passed_over += 1
                continue
            try:
                facts.append(fact_of(record))
            except UnknownEventType:
                raise
            except Invalid:  # not met by the worker yet, which will bury it
                self.done.passed_over += 1
        applied = await retrying("rebuild", lambda: self._projector.apply(facts), RETRY_S)
        last = {record.position.partition: record for record in records}
        await retrying("rebuild", lambda: self._projector.advance(last.values()), RETRY_S)
        self.done.events += len(records)
        self.done.rows += applied.writes
        self.done.lost += [Position(f.topic, f.partition, f.offset) for f, _ in applied.failed]


async def settle(tables: Tables) -> None:
    """Where the completeness timers of a filled keyspace begin, from its own rows: see `streams.timers`."""
    arrivals = topic_of(PackStored)
    positions = {
        row["partition"]: (row["next_offset"], milliseconds(row["log_time"]))
        for row in await tables.select(Select("projection_positions", {"projection": VIEWS, "topic": arrivals}))
    }
    pending: dict[int, list[tuple[int, int]]] = {}
    async for row in tables.scan("pending_studies"):
        timer = (row["record_offset"], milliseconds(row["arrival"]))
        pending.setdefault(row["arrivals_partition"], []).append(timer)
    await tables.apply(
        [settled(arrivals, p, *lowest(pending.get(p, ()), position)) for p, position in positions.items()]
    )


def buried(kafka: Log) -> frozenset[Position]:
    """Records that the worker could not process. Raises Transient."""
    found = (letter for _, letter in letters(kafka))
    return frozenset(
        Position(x.origin_topic, x.origin_partition, x.origin_offset)
        for x in found
        if x.consumer.startswith("/worker/")
    )


def take(records: Iterator[Stored]) -> list[Stored]:
    """The next batch; empty at the end."""
    return list(islice(records, BATCH))


def current_ends(kafka: Log) -> Ends:
    """Where every followed topic ends now. Raises Transient."""
    return {topic: kafka.ends(topic) for topic in TOPICS_FOLLOWED}


def left(done: Ends, ends: Ends) -> int:
    """Records between two ends."""
    return sum(n - done.get(topic, {}).get(p, 0) for topic, found in ends.items() for p, n in found.items())


def next_keyspace(active: str) -> str:
    """`sijil_views` → `sijil_views_2` → `sijil_views_3`."""
    base, _, number = active.rpartition("_")
    return f"{base}_{int(number) + 1}" if number.isdigit() else f"{active}_2"
