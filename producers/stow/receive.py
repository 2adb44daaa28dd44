"""One STOW-RS request on its way in: pieces of parts become bodies, bodies become instances in the spool.

Pieces are collected on the event loop; what costs time (checksums, writes) runs on the door's threads. Memory is
bounded three times: a part beyond `part_max` bytes goes to a file, so does any part while the door's whole budget is
used, and a request waits while too much of it is on its way to the disk.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from functools import partial

from infra import telemetry
from producers.body import Body, Filed, FileWriter, Held
from producers.gateway import Gateway, Origin
from producers.identify import Named, Refused, identify_file
from producers.refusals import OUT_OF_RESOURCES, PROCESSING_FAILURE, refusal
from producers.spool import Feeder, Kept, SpoolFull
from producers.stow.answer import Failed, Outcome, Stored
from schemas.errors import Invalid, SijilError

log = telemetry.logger(__name__)

UNDER_WAY_BYTES_MAX = 32 << 20
"""Bytes of one request that are collected but not durable; beyond, no more of it is read."""
UNDER_WAY_PARTS_MAX = 64
PARTS_MAX = 50_000
"""Instances of one request: its answer names each."""
FILE_CHUNK = 1 << 20
"""Bytes that are collected before a part's file is written to."""


class TooManyParts(Invalid):
    """More instances than one answer can name."""


class Budget:
    """Bytes of memory that the parts of all requests may hold together. Thread-safe."""

    def __init__(self, bytes_max: int) -> None:
        self._left = bytes_max
        self._lock = threading.Lock()

    def take(self, count: int) -> bool:
        """Reserve, if there is so much left."""
        with self._lock:
            if count > self._left:
                return False
            self._left -= count
            return True

    def give(self, count: int) -> None:
        """What was reserved is free again."""
        with self._lock:
            self._left += count


@dataclass(frozen=True)
class Door:
    """What all requests share."""

    gateway: Gateway
    threads: Executor
    budget: Budget
    part_max: int
    """Bytes of a part that are held in memory."""


class _Flight:
    """Parts under way in one request; lets the request wait until they are few enough."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._parts = 0
        self._bytes = 0
        self._waiter: tuple[asyncio.Future[None], int, int] | None = None

    def began(self, length: int) -> None:
        with self._lock:
            self._parts += 1
            self._bytes += length

    def ended(self, length: int) -> None:
        """From any thread. The loop is woken once, and only when it waits for this."""
        with self._lock:
            self._parts -= 1
            self._bytes -= length
            if self._waiter is None or not self._below(*self._waiter[1:]):
                return
            waiter, self._waiter = self._waiter[0], None
        self._loop.call_soon_threadsafe(_resolve, waiter)

    async def below(self, parts: int, bytes_: int) -> None:
        with self._lock:
            if self._below(parts, bytes_):
                return
            waiter = self._loop.create_future()
            self._waiter = (waiter, parts, bytes_)
        await waiter

    def _below(self, parts: int, bytes_: int) -> bool:
        return self._parts <= parts and self._bytes <= bytes_


def _joined(pieces: list[memoryview]) -> Held:
    """The pieces as one: a reader of DICOM wants them in a row. One that came as one is not copied."""
    whole = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    pieces.clear()
    return Held((whole,))


def _write_all(file: FileWriter, pieces: list[memoryview]) -> None:
    for piece in pieces:
        file.write(piece)


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class Receiver:
    """Collects one request. `outcomes` has one for each part, in their order, once `finish` has returned."""

    def __init__(self, door: Door, feeder: Feeder, origin: Origin, study_uid: str) -> None:
        self._door, self._feeder, self._origin, self._study_uid = door, feeder, origin, study_uid
        self._flight = _Flight()
        self._pieces: list[memoryview] = []
        self._length = 0
        """Of the pieces."""
        self._reserved = 0
        self._file: FileWriter | None = None
        self._refuse_part = ""
        self.outcomes: list[Outcome | None] = []
        self.error: SijilError | None = None
        """Why an instance could not be kept that was good."""

    def begin(self, *, refuse: str = "") -> None:
        """A part begins; with `refuse` its content is taken only to be refused for that reason."""
        if len(self.outcomes) >= PARTS_MAX:
            raise TooManyParts("too-many-instances")
        self._refuse_part = refuse

    def wants_file(self, piece: int) -> bool:
        """Whether `add` of so many bytes has to go through `add_to_file`."""
        if self._file is not None:
            return True
        held = self._length + piece
        if held > self._door.part_max:
            return True
        if held <= self._reserved:
            return False
        grow = max(held - self._reserved, min(FILE_CHUNK, self._door.part_max))
        if not self._door.budget.take(grow):
            return True
        self._reserved += grow
        return False

    def add(self, piece: memoryview) -> None:
        """The next bytes of the part, held as they are."""
        self._pieces.append(piece)
        self._length += len(piece)

    async def add_to_file(self, piece: memoryview) -> None:
        """The next bytes of the part, into its file, some at a time."""
        self.add(piece)
        if self._file is None or self._length >= FILE_CHUNK:
            await self._write()

    async def end(self) -> None:
        """The part is complete. Waits while too much of the request is under way."""
        content: list[memoryview] | Filed = self._pieces
        length = self._length
        if self._file is not None:
            await self._write()
            content = self._file.finish()
            length = content.length
            self._file = None
        reserved, self._reserved = self._reserved, 0
        self._pieces, self._length = [], 0
        index = len(self.outcomes)
        self.outcomes.append(None)
        self._flight.began(length)
        self._door.threads.submit(partial(self._take, index, content, reserved, self._refuse_part))
        await self._flight.below(UNDER_WAY_PARTS_MAX, UNDER_WAY_BYTES_MAX)

    async def finish(self) -> list[Outcome]:
        """All parts are durable or refused."""
        await self._flight.below(0, 0)
        return [o or Failed(Named(), PROCESSING_FAILURE) for o in self.outcomes]

    def discard(self) -> None:
        """Let go of a part that was not completed."""
        if self._file is not None:
            self._file.discard()
            self._file = None
        self._door.budget.give(self._reserved)
        self._reserved, self._length = 0, 0
        self._pieces = []

    async def _write(self) -> None:
        """Move what is collected to the part's file."""
        loop = asyncio.get_running_loop()
        if self._file is None:
            self._file = await loop.run_in_executor(self._door.threads, self._door.gateway.spool.writer)
            self._door.budget.give(self._reserved)
            self._reserved = 0
        pieces, self._pieces, self._length = self._pieces, [], 0
        await loop.run_in_executor(self._door.threads, _write_all, self._file, pieces)

    # -------------------------------------------------------------------------------------------- on a thread

    def _take(self, index: int, content: list[memoryview] | Filed, reserved: int, refuse: str) -> None:
        """Identify and keep one part; the flight ends when it is durable, or refused."""
        body: Body = content if isinstance(content, Filed) else _joined(content)

        def landed(outcome: Outcome) -> None:
            self.outcomes[index] = outcome
            body.discard()
            self._door.budget.give(reserved)
            self._flight.ended(body.length)

        try:
            future, stored = self._keep(body, refuse)
        except Refused as refused:
            self._door.gateway.refuse(refused, body, self._origin)
            landed(Failed(refused.named, refusal(refused.reason).status))
        except SpoolFull as full:
            self.error = full
            landed(Failed(Named(), OUT_OF_RESOURCES))
        except Exception as error:  # noqa: BLE001 (the request must be answered, whatever it is)
            log.error("instance not stored", error=error)
            self.error = error if isinstance(error, SijilError) else None
            landed(Failed(Named(), PROCESSING_FAILURE))
        else:
            future.add_done_callback(lambda kept: landed(self._durable(kept, stored)))

    def _keep(self, body: Body, refuse: str) -> tuple[Future[Kept], Stored]:
        if refuse:
            raise Refused(refuse, Named())
        found = identify_file(body.view(), sender=self._origin.sender, study_uid=self._study_uid)
        stored = Stored(found.study_uid, found.series_uid, found.sop_uid, found.sop_class)
        return self._door.gateway.keep(self._feeder, found, body, self._origin), stored

    def _durable(self, future: Future[Kept], stored: Stored) -> Outcome:
        error = future.exception()
        if error is None:
            return stored
        self.error = error if isinstance(error, SijilError) else None
        return Failed(Named(stored.study_uid, stored.sop_uid, stored.sop_class), PROCESSING_FAILURE)
