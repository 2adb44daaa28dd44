"""The durable outbox of a destination, in `sijil_state`: what it has not got yet, how far it has followed the log.

Rows are in partitions of an hour of the log, so what was deleted burdens no later read; `delivery_hours` says which
hours may have any. A row is written before the cursor moves past its record, and read again at the next start.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from consumers.delivery.entry import Entry
from consumers.delivery.queue import QUEUED, REFUSED, Owed
from infra import clock
from infra.ports import Row, Select, Tables
from schemas.events import decode_payload, encode_payload
from schemas.tables import Delete, Upsert, Write

OPEN, HOURS, CURSORS, REQUESTS = "deliveries_open", "delivery_hours", "delivery_cursors", "delivery_requests"
Offsets = dict[int, int]


def hour_of(moment: datetime) -> str:
    """`YYYYMMDDHH`, UTC."""
    return f"{moment:%Y%m%d%H}"


@dataclass(frozen=True)
class Request:
    """What a person asked for: one delivery again, or (entry None) everything that waits or was refused, now."""

    id: str
    subject: str
    entry: Entry | None


class Outbox:
    """One destination's rows. Every call raises Transient."""

    def __init__(self, state: Tables, destination: str) -> None:
        """`state`: the keyspace `sijil_state`."""
        self._state, self._destination = state, destination
        self._hours: set[str] = set()
        self._lock = asyncio.Lock()

    async def load(self) -> list[Owed]:
        """What is open and was followed. What waited or was retried is due at once.

        Rows that a crash left beyond the cursors are not among it: the log is read again from there, and would bring
        them a second time, also when they are delivered by then.
        """
        cursors = await self.cursors()
        return [
            o
            for o in await self._open()
            if not (e := o.entry).topic or e.offset < cursors.get(e.topic, {}).get(e.partition, 0)
        ]

    async def _open(self) -> list[Owed]:
        listed = await self._state.select(Select(HOURS, {"destination": self._destination}, ("hour",)))
        self._hours = {r["hour"] for r in listed}
        where = [{"destination": self._destination, "hour": h} for h in sorted(self._hours)]
        answers = await self._state.select_many([Select(OPEN, w) for w in where]) if where else []
        return [_owed(row) for rows in answers for row in rows]

    async def cursors(self) -> dict[str, Offsets]:
        """Topic → partition → next offset, of what was ever followed."""
        found: dict[str, Offsets] = defaultdict(dict)
        for row in await self._state.select(Select(CURSORS, {"destination": self._destination})):
            found[row["topic"]][row["partition"]] = row["next_offset"]
        return dict(found)

    async def move(self, topic: str, offsets: Mapping[int, int]) -> None:
        """Everything before these offsets has its rows."""
        now = _micros()
        await self._state.apply(
            [
                Upsert(
                    CURSORS,
                    {"destination": self._destination, "topic": topic, "partition": p},
                    {"next_offset": o},
                    now,
                )
                for p, o in offsets.items()
            ]
        )

    async def accept(self, entries: Sequence[Entry]) -> None:
        """Rows of new deliveries. Twice is once, and what was noted of them stays."""
        async with self._lock:
            fresh = {hour_of(e.recorded) for e in entries} - self._hours
            now = _micros()
            hours = [Upsert(HOURS, {"destination": self._destination, "hour": h}, {}, now) for h in fresh]
            if hours:
                await self._state.apply(hours)
                self._hours |= fresh
            await self._state.apply([self._row(e) for e in entries])

    def _row(self, entry: Entry) -> Write:
        columns = {
            "subject": entry.subject,
            "event_type": entry.event.TYPE,
            "event": encode_payload(entry.event).decode(),
            "recorded": entry.recorded,
            "topic": entry.topic,
            "partition": entry.partition,
            "offset": entry.offset,
            "asked_by": entry.asked_by,
        }
        return Upsert(OPEN, self._key(entry), columns, int(entry.recorded.timestamp() * 1e6))

    def _key(self, entry: Entry) -> dict[str, str]:
        return {"destination": self._destination, "hour": hour_of(entry.recorded), "delivery_id": entry.id}

    async def note(self, owed: Owed, next_attempt: datetime | None) -> None:
        """How a delivery stands."""
        columns = {
            "state": owed.state,
            "attempts": owed.attempts,
            "next_attempt": next_attempt,
            "reason": owed.reason,
        }
        await self._state.apply([Upsert(OPEN, self._key(owed.entry), columns, _micros())])

    async def done(self, entry: Entry) -> None:
        """It is delivered."""
        # Behind the row's own write time, whatever the broker's clock said.
        timestamp = max(_micros(), int(entry.recorded.timestamp() * 1e6) + 1)
        await self._state.apply([Delete(OPEN, self._key(entry), timestamp)])

    async def tidy(self) -> None:
        """Forget hours that have nothing open."""
        async with self._lock:
            current = hour_of(clock.now())
            for hour in sorted(self._hours):
                where = {"destination": self._destination, "hour": hour}
                if hour < current and not await self._state.select(Select(OPEN, where, ("delivery_id",), limit=1)):
                    await self._state.apply([Delete(HOURS, where, _micros())])
                    self._hours.discard(hour)

    async def forget(self) -> None:
        """Nothing is owed any more, and nothing of the log was followed. Only while nobody delivers."""
        now = _micros()
        gone: list[Write] = []
        for owed in await self._open():
            gone.append(Delete(OPEN, self._key(owed.entry), max(now, int(owed.entry.recorded.timestamp() * 1e6) + 1)))
        mine = {"destination": self._destination}
        gone += [Delete(HOURS, {**mine, "hour": h}, now) for h in self._hours]
        for topic, offsets in (await self.cursors()).items():
            gone += [Delete(CURSORS, {**mine, "topic": topic, "partition": p}, now) for p in offsets]
        gone += [Delete(REQUESTS, {**mine, "request_id": r.id}, now) for r in await self.requests()]
        if gone:
            await self._state.apply(gone)
        self._hours.clear()

    async def requests(self) -> list[Request]:
        """What people have asked for and was not done yet, oldest first."""
        rows = await self._state.select(Select(REQUESTS, {"destination": self._destination}))
        return [Request(r["request_id"], r["subject"] or "", _asked(r) if r["event"] else None) for r in rows]

    async def finished(self, request: Request) -> None:
        """It is done."""
        key = {"destination": self._destination, "request_id": request.id}
        await self._state.apply([Delete(REQUESTS, key, _micros())])


def request(destination: str, id: str, entry: Entry | None, asked_by: str) -> Write:
    """The row of a request; `entry` None: everything that waits or was refused."""
    columns = {"subject": "", "event_type": "", "event": "", "asked_by": asked_by}
    if entry is not None:
        columns |= {
            "subject": entry.subject,
            "event_type": entry.event.TYPE,
            "event": encode_payload(entry.event).decode(),
        }
    return Upsert(REQUESTS, {"destination": destination, "request_id": id}, columns, _micros())


def _asked(row: Row) -> Entry:
    return Entry(
        row["request_id"],
        row["destination"],
        row["subject"],
        decode_payload(row["event_type"], row["event"].encode()),
        clock.now(),
        asked_by=row["asked_by"] or "",
    )


def _owed(row: Row) -> Owed:
    entry = Entry(
        row["delivery_id"],
        row["destination"],
        row["subject"],
        decode_payload(row["event_type"], row["event"].encode()),
        row["recorded"],
        row["topic"] or "",
        row["partition"] or 0,
        row["offset"] or 0,
        row["asked_by"] or "",
    )
    state = REFUSED if row["state"] == REFUSED else QUEUED
    return Owed(entry, state, row["attempts"] or 0, reason=row["reason"] or "")


def _micros() -> int:
    return int(clock.now().timestamp() * 1e6)
