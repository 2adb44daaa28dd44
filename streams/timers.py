"""Completeness in time: which studies wait for their quiet time, and telling it when it is over. Shell of
`streams.completeness` and `streams.expected`.

The steps of a completion:
1. the study's last arrival is its quiet time ago, by the log's time, or by the clock once the log is known to have
   ended; or devices have ended their steps, which is looked up when that is heard, and now and then
2. its rows are read, and must still end with that arrival; with what devices and its order say they decide
3. study.completed is published and acknowledged by Kafka
4. the timer is forgotten here; its row goes when the event is projected
A crash before 3 finds the timer's row again; after 3, at worst the same event is published once more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from infra import clock, faults, telemetry
from infra.ports import Select, Stored, Tables
from schemas.tables import Upsert
from streams import expected
from streams.completeness import BUCKET_MS, MPPS, ORDER, QUIET, completed
from streams.effects import Emit
from streams.expected import Step, all_there, waits_ms
from streams.facts import milliseconds
from streams.pack_rows import COLUMNS, TABLE, PackRow

log = telemetry.logger(__name__)

COMPLETENESS = "completeness"
"""Name of its position in `projection_positions`: no arrival before it is pending."""
ANNOUNCED_MAX = 50_000
"""Completions remembered per partition; older ones are looked up in the read models."""
ROUND_MAX = 200
"""Studies told in one round."""
BUCKETS_AT_ONCE = 500
BUCKETS_SLACK = 10
"""Buckets read before the position's: a broker's clock may have been set back since."""
LOOK_MS, LOOK_MS_MAX = 1000, 60_000
"""First and longest pause between two looks at the steps of a study that waits."""
HELD_MS = 1000
"""A study held by an open step is looked at so often: the step may end unheard, where another worker follows orders."""
COMPLETED_ORDER = "completed"
"""FHIR request-status of an order that whoever keeps it has called done."""
SETTLE_S = 5.0
"""How often the position is written."""

PENDING = telemetry.Gauge("sijil_pending_studies", "Studies whose quiet time is not over")
COMPLETED = telemetry.Counter("sijil_studies_completed", "study.completed events published")

Ends = Callable[[Iterable[int]], Awaitable[Mapping[int, int]]]
"""Ends in the log of partitions of study.arrivals, asked now."""
Publish = Callable[[Sequence[Emit]], Awaitable[None]]
"""Publishes in order, before its first await; returns when all are acknowledged."""


@dataclass(frozen=True, slots=True)
class Timer:
    """A study's last arrival."""

    offset: int
    arrival_ms: int


@dataclass
class Waiting:
    """Timers of one partition."""

    pending: dict[str, Timer] = field(default_factory=dict)
    looks: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Study → (when its steps are looked up next, by the clock, and how long after that again), milliseconds."""
    held: dict[str, int] = field(default_factory=dict)
    """Study whose quiet time is over and which an open step holds → when it is looked at again, by the clock."""
    announced: dict[str, int] = field(default_factory=dict)
    """Study → offset of its last arrival at which it was completed."""
    applied_offset: int = 0
    """Next offset that the read models do not have."""
    applied_ms: int = 0
    """Log time of the record before it."""
    settled: tuple[int, int] | None = None
    """(offset, time) last written as position."""

    def put(self, study_uid: str, timer: Timer) -> None:
        """A study's newest arrival counts, unless it was completed at that one."""
        known = self.pending.get(study_uid)
        if self.announced.get(study_uid, -1) < timer.offset and (known is None or known.offset < timer.offset):
            self.pending[study_uid] = timer
            self.looks[study_uid] = (timer.arrival_ms + LOOK_MS, LOOK_MS)
            self.held.pop(study_uid, None)

    def forget(self, study_uid: str, timer: Timer) -> None:
        """It waits no more, unless something came meanwhile."""
        if self.pending.get(study_uid) == timer:
            del self.pending[study_uid]
            self.looks.pop(study_uid, None)
            self.held.pop(study_uid, None)

    def nudge(self, study_uid: str) -> None:
        """Something was heard of it: look at once."""
        if study_uid in self.pending:
            self.looks[study_uid] = (0, LOOK_MS)
            self.held.pop(study_uid, None)

    def to_look_at(self, now_ms: int) -> list[tuple[str, Timer]]:
        """Studies whose steps are to be looked up now, at most ROUND_MAX; the next time is twice as far away."""
        found = [uid for uid, (at_ms, _) in self.looks.items() if at_ms <= now_ms][:ROUND_MAX]
        for uid in found:
            pause_ms = min(2 * self.looks[uid][1], LOOK_MS_MAX)
            self.looks[uid] = (now_ms + pause_ms, pause_ms)
        return [(uid, self.pending[uid]) for uid in found]

    def announce(self, study_uid: str, offset: int) -> None:
        """The study is complete at `offset`."""
        self.announced[study_uid] = offset
        while len(self.announced) > ANNOUNCED_MAX:
            del self.announced[next(iter(self.announced))]

    def due(self, at_ms: int, quiet_ms: int, now_ms: int) -> list[tuple[str, Timer]]:
        """Timers whose quiet time is over at `at_ms`, at most ROUND_MAX; held ones when they are looked at again."""
        held = self.held
        found = [
            (uid, t)
            for uid, t in self.pending.items()
            if t.arrival_ms + quiet_ms <= at_ms and held.get(uid, 0) <= now_ms
        ]
        return sorted(found, key=lambda item: item[1].offset)[:ROUND_MAX]

    def position(self) -> tuple[int, int]:
        """(offset, log time) below which nothing is pending."""
        return lowest([(t.offset, t.arrival_ms) for t in self.pending.values()], (self.applied_offset, self.applied_ms))


class Timers:
    """The timers of the assigned partitions of study.arrivals. Used from one event loop."""

    def __init__(
        self, tables: Tables, topic: str, quiet_ms: int, publish: Publish, ends: Ends, *, open_ms: int = 0
    ) -> None:
        """`open_ms`: quiet time of a study of which a step is in progress; less than `quiet_ms` counts as that."""
        self._tables, self._topic, self._quiet_ms, self._open_ms = tables, topic, quiet_ms, open_ms
        self._publish, self._ends = publish, ends
        self._partitions: dict[int, Waiting] = {}

    # -------------------------------------------------------------------------------------------- rebalance

    async def assigned(self, partitions: Collection[int]) -> None:
        """Take over partitions: load what waits. Raises Transient."""
        self._partitions = {}
        for partition in partitions:
            self._partitions[partition] = await self._load(partition)
        PENDING.set(sum(len(w.pending) for w in self._partitions.values()))

    def revoked(self, partitions: Collection[int]) -> None:
        """Let partitions go: their timers are rows that the next owner loads."""
        for partition in partitions:
            self._partitions.pop(partition, None)

    async def _load(self, partition: int) -> Waiting:
        waiting = Waiting()
        views, settled = await self._tables.select_many(
            [_position_query(name, self._topic, partition) for name in ("views", COMPLETENESS)]
        )
        if not views:
            return waiting
        waiting.applied_offset = views[0]["next_offset"]
        waiting.applied_ms = milliseconds(views[0]["log_time"])
        if not settled:
            return waiting
        waiting.settled = (settled[0]["next_offset"], milliseconds(settled[0]["log_time"]))
        first, last = waiting.settled[1] // BUCKET_MS - BUCKETS_SLACK, waiting.applied_ms // BUCKET_MS
        for start in range(first, last + 1, BUCKETS_AT_ONCE):
            buckets = range(start, min(start + BUCKETS_AT_ONCE, last + 1))
            queries = [
                Select("pending_studies", {"arrivals_partition": partition, "bucket": bucket}) for bucket in buckets
            ]
            for rows in await self._tables.select_many(queries):
                for row in rows:
                    waiting.put(row["study_uid"], Timer(row["record_offset"], milliseconds(row["arrival"])))
        log.info("timers loaded", partition=partition, count=len(waiting.pending))
        return waiting

    # -------------------------------------------------------------------------------------------- arrivals

    async def before(self, first: Stored) -> None:
        """Before the first batch of a partition is written: from where on timers may be. Raises Transient."""
        place = first.position
        waiting = self._partitions.setdefault(place.partition, Waiting())
        if waiting.settled is None:
            await self._settle(place.partition, waiting, (place.offset, first.timestamp_ms))

    def arrived(self, partition: int, study_uid: str, offset: int, arrival_ms: int) -> None:
        """A study's arrival has been written."""
        self._partitions.setdefault(partition, Waiting()).put(study_uid, Timer(offset, arrival_ms))

    def applied(self, last: Stored) -> None:
        """The read models have every record of the partition up to `last`."""
        waiting = self._partitions.setdefault(last.position.partition, Waiting())
        if last.position.offset >= waiting.applied_offset:
            waiting.applied_offset, waiting.applied_ms = last.position.offset + 1, last.timestamp_ms
        PENDING.set(sum(len(w.pending) for w in self._partitions.values()))

    def announced(self, partition: int, study_uid: str) -> int | None:
        """Offset at which the study was last completed by this process."""
        waiting = self._partitions.get(partition)
        return waiting.announced.get(study_uid) if waiting else None

    # -------------------------------------------------------------------------------------------- quiet

    def nudge(self, study_uids: Iterable[str]) -> None:
        """Devices have said something of these studies."""
        for waiting in self._partitions.values():
            for uid in study_uids:
                waiting.nudge(uid)

    async def tick(self, now_ms: int) -> int:
        """Complete what is due; number of studies completed. Raises Transient, and nothing is forgotten."""
        told = 0
        for partition, waiting in list(self._partitions.items()):
            told += await self._complete(partition, waiting, waiting.to_look_at(now_ms), None, now_ms)
        # Step 1: by the clock only where the end, asked after `now_ms` was taken, is reached
        asked = [p for p, w in self._partitions.items() if w.due(now_ms, self._quiet_ms, now_ms)]
        ends = await self._ends(asked) if asked else {}
        for partition in asked:
            found = self._partitions.get(partition)
            if found is None:
                continue
            reached = found.applied_offset >= ends.get(partition, found.applied_offset + 1)
            at_ms = now_ms if reached else min(now_ms, found.applied_ms)
            due = found.due(at_ms, self._quiet_ms, now_ms)
            told += await self._complete(partition, found, due, at_ms, now_ms)
        return told

    async def _complete(
        self, partition: int, waiting: Waiting, due: Sequence[tuple[str, Timer]], at_ms: int | None, now_ms: int
    ) -> int:
        """`at_ms`: when the quiet time of all of them is over; None: it is not, only what devices list counts."""
        # Step 2
        steps = await self._steps([uid for uid, _ in due])
        asked = [(uid, timer) for uid, timer in due if at_ms is not None or steps[uid]]
        if not asked:
            return 0
        answers = await self._tables.select_many([Select(TABLE, {"study_uid": uid}, COLUMNS) for uid, _ in asked])
        ordered = await self._ordered([uid for uid, _ in asked]) if at_ms is not None else frozenset[str]()
        emits, told = [], []
        for (uid, timer), answer in zip(asked, answers, strict=True):
            rows = [PackRow.read(row) for row in answer]
            if waiting.pending.get(uid) != timer or not rows or rows[-1].offset != timer.offset:
                continue
            basis = MPPS if all_there(steps[uid], rows) else QUIET
            if basis == QUIET:
                if at_ms is None:
                    continue
                if timer.arrival_ms + waits_ms(steps[uid], self._quiet_ms, self._open_ms) > at_ms:
                    waiting.held[uid] = now_ms + HELD_MS
                    continue
                basis = ORDER if uid in ordered else QUIET
            emits.append(completed(partition, rows, basis))
            told.append((uid, timer))
            # Now, for an arrival may come while Kafka is waited for, and has to reopen.
            waiting.announce(uid, timer.offset)
        if not emits:
            return 0
        # Step 3
        faults.point("completeness.due")
        await self._publish(emits)
        faults.point("completeness.published")
        # Step 4
        for uid, timer in told:
            waiting.forget(uid, timer)
        COMPLETED.inc(len(emits))
        return len(emits)

    async def _steps(self, study_uids: Sequence[str]) -> dict[str, list[Step]]:
        queries = [Select(expected.TABLE, {"study_uid": uid}, expected.COLUMNS) for uid in study_uids]
        answers = await self._tables.select_many(queries) if queries else []
        return {uid: [Step.read(row) for row in rows] for uid, rows in zip(study_uids, answers, strict=True)}

    async def _ordered(self, study_uids: Sequence[str]) -> frozenset[str]:
        """Of these studies those whose orders have all been called completed."""
        known = await self._tables.select_many([Select("orders_by_study", {"study_uid": uid}) for uid in study_uids])
        pairs = [(uid, row["order_id"]) for uid, rows in zip(study_uids, known, strict=True) for row in rows]
        last = [Select("orders", {"order_id": order}, ("status",), limit=1) for _, order in pairs]
        answers = await self._tables.select_many(last) if last else []
        done = [
            (uid, rows[0]["status"] == COMPLETED_ORDER) for (uid, _), rows in zip(pairs, answers, strict=True) if rows
        ]
        return frozenset(uid for uid, _ in done) - {uid for uid, ended in done if not ended}

    async def settle(self) -> None:
        """Write how far each partition has nothing pending. Raises Transient."""
        for partition, waiting in list(self._partitions.items()):
            position = waiting.position()
            if waiting.settled is not None and position != waiting.settled:
                await self._settle(partition, waiting, position)

    async def _settle(self, partition: int, waiting: Waiting, position: tuple[int, int]) -> None:
        await self._tables.apply([settled(self._topic, partition, *position)])
        waiting.settled = position

    async def run(self) -> None:
        """Tick and settle until cancelled."""
        settle_at = 0.0
        while True:
            await asyncio.sleep(min(0.25, self._quiet_ms / 4000))
            await self.tick(clock.now_ms())
            if clock.monotonic() >= settle_at:
                await self.settle()
                settle_at = clock.monotonic() + SETTLE_S


def lowest(pending: Collection[tuple[int, int]], applied: tuple[int, int]) -> tuple[int, int]:
    """(offset, log time) below which nothing is pending; with nothing pending, where the read models are."""
    return (
        min((offset for offset, _ in pending), default=applied[0]),
        min((log_ms for _, log_ms in pending), default=applied[1]),
    )


def settled(topic: str, partition: int, offset: int, log_ms: int) -> Upsert:
    """The position: no arrival before `offset` is pending, and none that is came before `log_ms`."""
    key = {"projection": COMPLETENESS, "topic": topic, "partition": partition}
    return Upsert("projection_positions", key, {"next_offset": offset, "log_time": log_ms}, offset)


def _position_query(projection: str, topic: str, partition: int) -> Select:
    where = {"projection": projection, "topic": topic, "partition": partition}
    return Select("projection_positions", where, ("next_offset", "log_time"))
