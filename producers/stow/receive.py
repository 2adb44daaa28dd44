"""One STOW-RS request on its way in: pieces of parts become bodies, bodies become instances in the spool.

A part that is a DICOM file is submitted as it ends (`end`); metadata and bulk data are taken (`take`) by whoever makes
files of them (`producers.stow.assemble`), who submits those.

Pieces are collected on the event loop; what costs time (checksums, writes) runs on the door's threads. Memory is
bounded three times: a part beyond `part_max` bytes goes to a file, so does any part while the door's whole budget is
used, and a request waits while too much of it is on its way to the disk.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from infra import telemetry
from producers.body import Body, Filed, FileWriter, Held
from producers.gateway import Gateway, Origin
from producers.identify import Named, Refused, identify_file
from producers.refusals import OUT_OF_RESOURCES, PROCESSING_FAILURE, refusal
from producers.shelf import Room
from producers.spool import Feeder, Kept, Spool, SpoolFull
from producers.stow.answer import Failed, Outcome, Stored
from schemas.errors import Invalid, SijilError

log = telemetry.logger(__name__)

T = TypeVar("T")

UNDER_WAY_BYTES_MAX = 16 << 20
"""Bytes of one request that are collected but not durable; beyond, no more of it is read."""
UNDER_WAY_PARTS_MAX = 64
PARTS_MAX = 50_000
"""Instances of one request: its answer names each."""
FILE_CHUNK = 1 << 20
"""Bytes that are collected before a part's file is written to."""


class TooManyParts(Invalid):
    """More instances than one answer can name."""


@dataclass(frozen=True)
class Taken:
    """A part that is complete, and the memory that it holds; whoever has it gives both back."""

    body: Body
    reserved: int


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


def write_all(file: FileWriter, pieces: Iterable[bytes | memoryview], spool: Spool) -> None:
    """Append to a body's file. Raises SpoolFull."""
    if spool.room() is Room.FULL:
        raise SpoolFull("the spool is full")
    try:
        for piece in pieces:
            file.write(piece)
    except OSError as error:
        raise SpoolFull("the spool's disk refused a write") from error


def _writer(spool: Spool) -> FileWriter:
    try:
        return spool.writer()
    except OSError as error:
        raise SpoolFull("the spool's disk refused a file") from error


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
        self._retained = 0
        """Bytes in memory of parts that were taken."""
        self._parts = 0
        self.outcomes: list[Outcome | None] = []
        self._names: dict[str, str] = {}
        self.pack_ids: set[str] = set()
        """The packs of what was kept, for the read token."""
        self.error: SijilError | None = None
        """Why an instance could not be kept that was good."""

    def begin(self, *, refuse: str = "") -> None:
        """A part begins; with `refuse` its content is taken only to be refused for that reason."""
        self._parts += 1
        if self._parts > PARTS_MAX:
            raise TooManyParts("too-many-instances")
        self._refuse_part = refuse

    def wants_file(self, piece: int) -> bool:
        """Whether `add` of so many bytes has to go through `add_to_file`."""
        if self._file is not None:
            return True
        held = self._length + piece
        if held > self._door.part_max or self._retained + held > UNDER_WAY_BYTES_MAX:
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
        """The part is complete: a DICOM file, to be kept. Waits while too much of the request is under way."""
        content, reserved, length = await self._complete()
        await self._submit(content, reserved, length, self._refuse_part)

    async def take(self) -> Taken:
        """The part is complete: metadata or bulk data, the caller's from now on."""
        content, reserved, length = await self._complete()
        if isinstance(content, Filed):
            return Taken(content, 0)
        self._retained += length
        return Taken(_joined(content), reserved)

    async def submit(self, body: Body, *, refuse: str = "", named: Named | None = None) -> None:
        """Keep a file that was made, or refuse it for a reason. Waits as `end` does."""
        await self._submit(body, 0, body.length, refuse, named)

    def give_back(self, taken: Taken) -> None:
        """A part that was taken is used up."""
        taken.body.discard()
        if not isinstance(taken.body, Filed):
            self._retained -= taken.body.length
        self._door.budget.give(taken.reserved)

    @property
    def base(self) -> str:
        """URL of the HTTP door as clients see it; "" where they say it themselves."""
        return self._door.gateway.settings.http_public_url.rstrip("/")

    @property
    def part_max(self) -> int:
        """Bytes of a file that is made in memory."""
        return self._door.part_max

    async def on_thread(self, work: Callable[[], T]) -> T:
        """Do what costs time on the door's threads."""
        return await asyncio.get_running_loop().run_in_executor(self._door.threads, work)

    def writer(self) -> FileWriter:
        """A file for a body that is made. Raises SpoolFull."""
        return _writer(self._door.gateway.spool)

    async def _complete(self) -> tuple[list[memoryview] | Filed, int, int]:
        """Content, bytes of memory reserved for it, and its length."""
        content: list[memoryview] | Filed = self._pieces
        length = self._length
        if self._file is not None:
            await self._write()
            content = self._file.finish()
            length = content.length
            self._file = None
        reserved, self._reserved = self._reserved, 0
        self._pieces, self._length = [], 0
        return content, reserved, length

    async def _submit(
        self, content: list[memoryview] | Body, reserved: int, length: int, refuse: str, named: Named | None = None
    ) -> None:
        index = len(self.outcomes)
        self.outcomes.append(None)
        self._flight.began(length)
        self._door.threads.submit(partial(self._take, index, content, reserved, refuse, named or Named()))
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
            self._file = await loop.run_in_executor(self._door.threads, self.writer)
            self._door.budget.give(self._reserved)
            self._reserved = 0
        pieces, self._pieces, self._length = self._pieces, [], 0
        await loop.run_in_executor(self._door.threads, write_all, self._file, pieces, self._door.gateway.spool)

    # -------------------------------------------------------------------------------------------- on a thread

    def _take(self, index: int, content: list[memoryview] | Body, reserved: int, refuse: str, named: Named) -> None:
        """Identify and keep one file; the flight ends when it is durable, or refused."""
        body: Body = _joined(content) if isinstance(content, list) else content

        def landed(outcome: Outcome) -> None:
            self.outcomes[index] = outcome
            body.discard()
            self._door.budget.give(reserved)
            self._flight.ended(body.length)

        try:
            future, stored = self._keep(body, refuse, named)
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

    def _keep(self, body: Body, refuse: str, named: Named) -> tuple[Future[Kept], Stored]:
        if refuse:
            raise Refused(refuse, named)
        found = identify_file(body.view(), sender=self._origin.sender, study_uid=self._study_uid)
        # What thousands of instances have in common is one string of them all.
        common = (found.study_uid, found.series_uid, found.sop_class)
        study, series, sop_class = (self._names.setdefault(n, n) for n in common)
        stored = Stored(study, series, found.sop_uid, sop_class)
        return self._door.gateway.keep(self._feeder, found, body, self._origin), stored

    def _durable(self, future: Future[Kept], stored: Stored) -> Outcome:
        error = future.exception()
        if error is None:
            self.pack_ids.add(future.result().pack_id)
            return stored
        self.error = error if isinstance(error, SijilError) else None
        return Failed(Named(stored.study_uid, stored.sop_uid, stored.sop_class), PROCESSING_FAILURE)
