"""Which subscriptions there are, and a destination for each: begun when it is asked for, ended when it no longer is.

What is off or deleted is owed nothing: its outbox is emptied. Each has its own tasks, so an endpoint that does not
answer holds up no other, and no other destination.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from consumers.delivery.deliverer import Deliverer
from consumers.delivery.destination import Destination
from consumers.delivery.outbox import Outbox
from consumers.delivery.subscriptions.receiver import Receiver
from consumers.delivery.subscriptions.seal import Seal
from consumers.delivery.subscriptions.store import DELETED, Store, Subscription
from consumers.delivery.subscriptions.subscriber import Subscriber
from infra import clock, telemetry
from infra.ports import Tables
from schemas.errors import Transient

log = telemetry.logger(__name__)

LOOK_S = 1.0
"""Between two looks at what subscriptions there are, and at what is due beside events."""

Begin = Callable[[Destination, int], Deliverer]
"""(destination, milliseconds since the epoch from when on it is told) → its deliverer."""


@dataclass
class _Running:
    subscriber: Subscriber
    deliverer: Deliverer
    task: asyncio.Task[None]


class Keeper:
    """The subscriptions of a delivery process."""

    def __init__(self, state: Tables, seal: Seal, receiver: Callable[[], Receiver], begin: Begin, base: str) -> None:
        """`state`: `sijil_state`; `receiver` makes one for each; `base`: URL of the FHIR door."""
        self._state, self._store = state, Store(state)
        self._seal, self._receiver, self._begin, self._base = seal, receiver, begin, base
        self._running: dict[str, _Running] = {}
        self._quiet: set[str] = set()

    def __iter__(self) -> Iterator[Deliverer]:
        return iter([r.deliverer for r in self._running.values()])

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                try:
                    await self.look()
                except Transient as error:
                    log.warning("subscriptions unknown", reason=str(error))
                await asyncio.sleep(LOOK_S)
        finally:
            await asyncio.gather(*(self._end(id) for id in list(self._running)), return_exceptions=True)

    async def look(self) -> None:
        """Begin and end what is to be. Raises Transient."""
        prefixes, now = await self._store.prefixes(), clock.now()
        there = {s.id: s for s in await self._store.all()}
        for id in [i for i in self._running if i not in there or not there[i].lives(now)]:
            await self._end(id)
        for of in there.values():
            if not of.lives(now):
                await self._clear(of)
                continue
            self._quiet.discard(of.id)
            running = self._running.get(of.id)
            if running is not None and running.task.done():
                await self._end(of.id)
                running = None
            if running is None:
                subscriber = Subscriber(of, prefixes, self._store, self._receiver(), self._seal, self._base)
                deliverer = self._begin(subscriber, int(of.since.timestamp() * 1000))
                task = asyncio.create_task(_all(deliverer, subscriber))
                self._running[of.id] = _Running(subscriber, deliverer, task)
                log.info("subscription begins", destination=of.destination)
            elif running.subscriber.now_is(of, prefixes):
                _wake(running.deliverer)

    async def _end(self, id: str) -> None:
        running = self._running.pop(id)
        running.task.cancel()
        (ended,) = await asyncio.gather(running.task, return_exceptions=True)
        if isinstance(ended, Exception):
            log.error("subscription failed", destination=running.subscriber.name, error=ended)
        log.info("subscription ends", destination=running.subscriber.name)

    async def _clear(self, of: Subscription) -> None:
        if of.id not in self._quiet:
            await Outbox(self._state, of.destination).forget()
            if of.wanted == DELETED:
                await self._store.clear(of.id)
            self._quiet.add(of.id)


async def _all(deliverer: Deliverer, subscriber: Subscriber) -> None:
    """Deliver, and beat between; ends only by a fault."""
    async with asyncio.TaskGroup() as group:
        group.create_task(deliverer.run())
        group.create_task(_beats(deliverer, subscriber))


def _wake(deliverer: Deliverer) -> None:
    """What waited is tried now."""
    deliverer.queue.wake(list(deliverer.queue))
    deliverer.feed.added.set()


async def _beats(deliverer: Deliverer, subscriber: Subscriber) -> None:
    while True:
        try:
            if await subscriber.beat():
                _wake(deliverer)
        except Transient as error:
            log.warning("subscription not looked after", destination=subscriber.name, reason=str(error))
        await asyncio.sleep(LOOK_S)
