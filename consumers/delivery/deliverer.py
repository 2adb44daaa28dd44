"""One destination's deliveries, from its queue to its door.

The steps of a delivery:
1. its row is in the outbox, and the read models have passed its event
2. the destination is called, with the row's id as idempotency key
3. how it ended is an event in this process's chain, fsynced
4. the row is gone, or says when it is tried again

A crash between 2 and 4 calls again, with the same id, which changes nothing there; the event of that attempt has the
same id too.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from dataclasses import replace
from datetime import timedelta
from typing import Any, Protocol

from consumers.delivery.attempts import ended
from consumers.delivery.destination import Destination
from consumers.delivery.entry import Away, Delivered, Instead, NotNeeded, Outcome, Refused, Waiting
from consumers.delivery.feed import Feed
from consumers.delivery.outbox import Outbox, Request
from consumers.delivery.positions import Positions
from consumers.delivery.queue import REFUSED, RETRYING, WAITING, Owed, Queue
from infra import clock, faults, telemetry
from schemas.errors import Overloaded, Transient
from schemas.events import Event
from schemas.identity import derived_id

log = telemetry.logger(__name__)

CALLS_MAX = 8
"""Calls of one destination under way at once."""
CALL_S = 60.0
BEHIND_S = 0.05
"""Until the read models are asked again whether they have passed an event."""
OURS_S = 2.0
"""Until something is tried again that failed on this side."""
REQUESTS_S = 1.0
TIDY_S = 600.0
KEPT_S = 10.0

DELIVERED = telemetry.Counter("sijil_deliveries", "Deliveries by how an attempt ended", ["destination", "ended"])
OPEN = telemetry.Gauge("sijil_deliveries_open", "Deliveries owed", ["destination"])


class _Publication(Protocol):
    @property
    def kept(self) -> Future[None]: ...


class Chain(Protocol):
    """What `infra.chain.ChainedLog` does here."""

    def publish(self, event: Event, *, id: str = "", subject: str = "") -> _Publication: ...


class Deliverer:
    """Delivers to one destination until cancelled."""

    def __init__(
        self, destination: Destination, outbox: Outbox, queue: Queue, feed: Feed, positions: Positions, chain: Chain
    ) -> None:
        self.destination, self.queue, self.feed = destination, queue, feed
        self._outbox, self._positions, self._chain = outbox, positions, chain
        self._calls: set[asyncio.Task[None]] = set()
        self.loaded = False

    async def run(self) -> None:
        """Load what is open, then follow the log and deliver."""
        for owed in await _trying("load", self._outbox.load):
            self.queue.add(owed)
        self.loaded = True
        tasks = (self.feed.run(), self._deliver(), self._requests(), self._tidy())
        running = [asyncio.create_task(t) for t in tasks]
        try:
            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in running:
                if task.done():
                    task.result()
        finally:
            for task in (*running, *self._calls):
                task.cancel()
            await asyncio.gather(*running, *self._calls, return_exceptions=True)
            await self.destination.close()

    async def _deliver(self) -> None:
        while True:
            self.feed.added.clear()
            now = clock.monotonic()
            for owed in self.queue.take(now, CALLS_MAX):
                self._start(self._one(owed))
            OPEN.labels(self.destination.name).set(len(self.queue))
            # What ends, what is new and what is due wake it.
            try:
                async with asyncio.timeout(self.queue.next_due(now) if len(self._calls) < CALLS_MAX else 60.0):
                    await self.feed.added.wait()
            except TimeoutError:
                continue

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._calls.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._calls.discard(task)
        self.feed.added.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("delivery failed", destination=self.destination.name, error=error)

    async def _one(self, owed: Owed) -> None:
        entry = owed.entry
        try:
            # Step 1
            if not await self._positions.passed(entry.topic, entry.partition, entry.offset):
                self.queue.postponed(owed, clock.monotonic(), BEHIND_S)
                return
            async with asyncio.timeout(CALL_S):
                outcome = await self.destination.deliver(entry)  # Step 2
            faults.point("delivery.called")
        except Away as away:
            await self._failed(owed, away.reason, away.retry_after_s)
        except TimeoutError:
            await self._failed(owed, "no-answer-in-time", 0.0)
        except Transient as error:
            log.warning(
                "delivery postponed", destination=self.destination.name, delivery_id=entry.id, reason=str(error)
            )
            self.queue.postponed(owed, clock.monotonic(), OURS_S)
        except Exception as error:  # noqa: BLE001 (whatever it stumbles over, what follows must not wait for it)
            # Something of ours is not as it was promised.
            log.error("delivery set aside", destination=self.destination.name, delivery_id=entry.id, error=error)
            await self._settle(owed, Refused("archive-fault"))
        else:
            await self._settle(owed, outcome)

    async def _settle(self, owed: Owed, outcome: Outcome) -> None:
        """Steps 3 and 4 of a delivery that was answered."""
        entry, name = owed.entry, self.destination.name
        match outcome:
            case Delivered(version=version):
                await self._publish(ended(entry, owed.attempts + 1, clock.rfc3339(clock.now()), version=version))
                faults.point("delivery.published")
                await _trying("done", lambda: self._outbox.done(entry))
                self.queue.delivered(owed)
                DELIVERED.labels(name, "delivered").inc()
            case NotNeeded():
                await _trying("done", lambda: self._outbox.done(entry))
                self.queue.delivered(owed)
            case Instead(subjects=subjects):
                parts = [replace(entry, id=derived_id("delivery", entry.id, s), subject=s) for s in subjects]
                await _trying("accept", lambda: self._outbox.accept(parts))
                await _trying("done", lambda: self._outbox.done(entry))
                self.queue.delivered(owed)
                for part in parts:
                    self.queue.add(Owed(part))
                self.queue.wake([o for o in self.queue if o.state == WAITING])
            case Refused(reason=reason):
                await self._publish(self._not(owed, reason, will_retry=False))
                owed.state, owed.reason, owed.attempts = REFUSED, reason, owed.attempts + 1
                await _trying("note", lambda: self._outbox.note(owed, None))
                self.queue.refused(owed)
                log.error("delivery refused", destination=name, delivery_id=entry.id, reason=reason)
                DELIVERED.labels(name, "refused").inc()
            case Waiting(reason=reason):
                if self.queue.waits(owed, reason, clock.monotonic()):
                    await _trying("note", lambda: self._outbox.note(owed, None))
                    DELIVERED.labels(name, "waiting").inc()

    async def _failed(self, owed: Owed, reason: str, least_s: float) -> None:
        """The same for a destination that is away."""
        attempt = self._not(owed, reason, will_retry=True)
        after_s = self.queue.failed(owed, reason, clock.monotonic(), least_s)
        await self._publish(attempt)
        await _trying("note", lambda: self._outbox.note(owed, clock.now() + timedelta(seconds=after_s)))
        log.warning(
            "delivery is tried again",
            destination=self.destination.name,
            delivery_id=owed.entry.id,
            reason=reason,
            attempt=owed.attempts,
            delay_s=round(after_s, 1),
        )
        DELIVERED.labels(self.destination.name, "failed").inc()

    def _not(self, owed: Owed, reason: str, *, will_retry: bool) -> tuple[Event, str]:
        now = clock.rfc3339(clock.now())
        return ended(owed.entry, owed.attempts + 1, now, reason=reason, will_retry=will_retry)

    async def _publish(self, attempt: tuple[Event, str]) -> None:
        """Step 3. With too much unacknowledged it waits: nothing is delivered faster than it is recorded."""
        event, id = attempt

        async def publish() -> None:
            async with asyncio.timeout(KEPT_S):
                await asyncio.wrap_future(self._chain.publish(event, id=id, subject=event.key()).kept)

        await _trying("publish", publish)

    # ---------------------------------------------------------------------------------------------- people

    async def _requests(self) -> None:
        while True:
            try:
                for request in await self._outbox.requests():
                    await self._asked(request)
                    await self._outbox.finished(request)
            except Transient as error:
                log.warning("requests unknown", destination=self.destination.name, reason=str(error))
            await asyncio.sleep(REQUESTS_S)

    async def _asked(self, request: Request) -> None:
        entry = request.entry
        if entry is None:
            self.queue.wake([o for o in self.queue if o.state in (WAITING, REFUSED, RETRYING)])
        elif open_now := [o for o in self.queue if o.entry.subject == entry.subject]:
            self.queue.wake(open_now)
        else:
            await self._outbox.accept([entry])
            self.queue.add(Owed(entry))
        self.feed.added.set()

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(TIDY_S)
            try:
                await self._outbox.tidy()
            except Transient as error:
                log.warning("outbox not tidied", destination=self.destination.name, reason=str(error))


def new_queue() -> Queue:
    """A queue with chance of its own."""
    return Queue(random.SystemRandom().random)


async def _trying(step: str, call: Callable[[], Awaitable[Any]]) -> Any:
    """`call()` until it succeeds: what must be noted is noted before anything else happens to that delivery."""
    delay_s = 0.1
    while True:
        try:
            return await call()
        except (Transient, TimeoutError) as error:
            wait_s = max(delay_s, error.retry_after_s) if isinstance(error, Overloaded) else delay_s
            log.warning("tried again", command=step, reason=str(error), delay_s=wait_s)
            await asyncio.sleep(wait_s)
            delay_s = min(delay_s * 2, 5.0)
