"""What the answering half of the DICOM door shares: the read models, packs and the access trail, on one event loop.

Associations have threads, the query API has coroutines: a thread hands a coroutine over and waits for its result. One
loop serves all associations of the process. Every wait has an end.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from consumers.api.audit import Audit
from consumers.api.decoders import Decoders
from consumers.api.freshness import CORRECTIONS, Freshness
from consumers.api.packs import Packs
from consumers.api.retrieve import Retriever
from consumers.api.room import Room
from consumers.api.views import Views
from consumers.api.window_counts import WindowCounts
from infra.cassandra import CassandraTables
from infra.dicom_door import DicomDoor
from infra.dicom_services import Peer
from infra.spooled import Spooled
from schemas.caller import Caller
from schemas.errors import Defect, Transient

WAIT_S = 60.0
"""Longest wait for an answer of the read models, or for the next bytes of a pack."""
STOP_S = 5.0

T = TypeVar("T")


class Loop:
    """An event loop on a thread of its own."""

    def __init__(self) -> None:
        self._started: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="dicom-loop", daemon=True)

    def start(self) -> None:
        """Run from now on."""
        self._started = asyncio.new_event_loop()
        self._thread.start()

    @property
    def _loop(self) -> asyncio.AbstractEventLoop:
        if self._started is None:
            raise Transient("not started yet")
        return self._started

    def close(self) -> None:
        """End it; what still runs is cancelled."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(STOP_S)

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin `work`."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def call(self, work: Coroutine[Any, Any, T], timeout_s: float = WAIT_S) -> T:
        """Its result. Raises what it raises, Transient when it takes too long."""
        future = self.submit(work)
        try:
            return future.result(timeout_s)
        except FutureTimeout as error:
            future.cancel()
            raise Transient("the answer takes too long") from error

    def iterate(self, pieces: AsyncIterator[T]) -> Iterator[T]:
        """Its items, the next one asked for while the last is used: two are in memory."""
        following = self.submit(_next(pieces))
        try:
            while True:
                try:
                    found = following.result(WAIT_S)
                except FutureTimeout as error:
                    raise Transient("the next bytes take too long") from error
                if found is None:
                    return
                following = self.submit(_next(pieces))
                yield found[0]
        finally:
            following.cancel()
            self.submit(_close(pieces))

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()


async def _next(pieces: AsyncIterator[T]) -> tuple[T] | None:
    async for piece in pieces:
        return (piece,)
    return None


async def _close(pieces: Any) -> None:
    if close := getattr(pieces, "aclose", None):
        await close()


@dataclass
class DicomRoom:
    """The query room of the DICOM door."""

    loop: Loop
    room: Room
    audit: Audit
    packs: Packs


def who(peer: Peer) -> Caller:
    """Who asks by DICOM, as the AE table has it: every association of the door has somebody behind it."""
    if peer.caller is None:
        raise Defect("an association of nobody")
    return peer.caller


_rooms: WeakKeyDictionary[DicomDoor, DicomRoom] = WeakKeyDictionary()


def of(door: DicomDoor) -> DicomRoom:
    """The room of a door: made by whoever asks first, started and stopped with the door."""
    found = _rooms.get(door)
    if found is None:
        decoders = Decoders()
        door.on_stop(decoders.close)
        counts = WindowCounts.of(door.settings, "gateway")
        found = _rooms[door] = made(door, Views(lambda: CassandraTables.connect(door.settings)), decoders, counts)
        views = found.room.views
        door.readiness("cassandra", lambda: views.reachable)
    return found


def made(door: DicomDoor, views: Views, decoders: Decoders, counts: WindowCounts | None = None) -> DicomRoom:
    """The same over given read models, decoders and counts of access windows."""
    settings = door.settings
    loop = Loop()
    audit = Audit(
        door.chain,
        door.objects,
        bucket=settings.bucket_documents,
        search_secret=bytes.fromhex(settings.search_secret),
        window_s=settings.access_window_s,
        counts=counts,
    )
    packs = Packs(views, door.objects, Spooled(settings.spool(role) / "packs" for role in ("gateway", "api")))
    found = DicomRoom(loop, Room(settings, views, door.objects, Retriever(packs, decoders)), audit, packs)
    audit.whose = found.room.owners
    freshness = Freshness(door.log, views)
    freshness.watch(CORRECTIONS, found.room.forget)

    def start() -> None:
        loop.start()
        for part in (views, freshness, audit):
            loop.call(part.start())

    def stop() -> None:
        for part in (audit, freshness, views):
            loop.call(part.stop(), STOP_S)
        loop.call(door.objects.close_streams(), STOP_S)
        loop.close()

    door.on_start(start)
    door.on_stop(stop)
    return found
