"""WADO-RS, the doing half: from the rows of instances to the bytes of an answer, streamed.

What leaves as it is stored is cut out of range reads of its pack, neighbours by one request; what has to be written
again is made one instance at a time. A few pieces are begun ahead, so that the next one is there when the last is sent;
memory is bounded by them, never by the study. The length of the whole is known whenever nothing has to be rewritten.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass

import msgspec

from consumers.api.decoders import Decoders, decodable
from consumers.api.explicit import to_explicit, with_meta
from consumers.api.packs import Packs
from consumers.api.wado import (
    DICOM,
    EXPLICIT_LE,
    NATIVE,
    PART10_HEAD,
    Form,
    FrameForm,
    NotAcceptable,
    Run,
    Stored,
    Way,
    choose,
    closing,
    multipart_type,
    part_head,
    runs,
)
from infra import clock
from infra.ports import Row
from schemas.errors import Defect, Invalid, NotFound

Chunk = bytes | memoryview
Chunks = AsyncGenerator[Chunk, None]

AHEAD = 3
"""Pieces under way at once: the one that is being sent and those behind it."""
REWRITE_MAX = 256 << 20
"""Bytes of an instance that may be written again in memory."""
REWRITE_BUDGET = 512 << 20
"""Bytes of all instances that are being written again."""


@dataclass(frozen=True)
class Body:
    """An answer's content. `length` in bytes, None where it is only known at its end."""

    media_type: str
    pieces: Chunks
    length: int | None


@dataclass(frozen=True)
class Rewritten:
    """An instance that does not leave as it is stored."""

    row: Row
    transfer_syntax: str
    """The one it leaves in: its own, or Explicit VR Little Endian."""
    boundary: str
    """Of the part it becomes; empty: it is the whole answer."""
    location: str


class Retriever:
    """Makes the contents of answers."""

    def __init__(self, packs: Packs, decoders: Decoders) -> None:
        self._packs, self._decoders = packs, decoders
        self._budget = Budget(REWRITE_BUDGET)

    async def instances(self, rows: Sequence[Row], form: Form, url: str) -> Body:
        """Instances as a client takes them. `url` is that of their study.

        Raises NotAcceptable when one of them cannot leave so: nothing is left out silently.
        """
        ways = [choose(r["transfer_syntax"], form.wanted, decodable) for r in rows]
        if hindered := sum(way is None for way in ways):
            raise NotAcceptable(
                f"{hindered} of {len(rows)} instances cannot leave in a transfer syntax the client takes;"
                " transfer-syntax=* or …/original gives them as they are stored"
            )
        syntaxes = [_leaves_in(r, way) for r, way in zip(rows, ways, strict=True)]
        return await self._body(list(zip(rows, syntaxes, strict=True)), form.multipart, url)

    async def originals(self, rows: Sequence[Row], *, multipart: bool, url: str) -> Body:
        """Instances as they are stored."""
        return await self._body([(r, "") for r in rows], multipart, url)

    async def _body(self, chosen: Sequence[tuple[Row, str]], multipart: bool, url: str) -> Body:
        """`chosen`: rows with the transfer syntax they are written again in; empty: they leave as they are stored."""
        boundary = clock.uuid7().hex if multipart else ""
        steps: list[Stored | Rewritten] = []
        length: int | None = 0
        for row, syntax in chosen:
            where = f"{url}/series/{row['series_uid']}/instances/{row['sop_uid']}"
            if not syntax:
                head = part_head(boundary, DICOM, row["transfer_syntax"], row["length"], where) if multipart else b""
                steps.append(Stored(row["pack_id"], row["tar_offset"], row["length"], head))
                length = None if length is None else length + len(head) + row["length"]
            else:
                steps.append(Rewritten(row, syntax, boundary, where))
                length = None
        end = closing(boundary) if multipart else b""
        media_type = multipart_type(boundary, DICOM) if multipart else DICOM
        pieces = await begun(self._all(steps, end))
        return Body(media_type, pieces, None if length is None else length + len(end))

    async def _all(self, steps: Sequence[Stored | Rewritten], end: bytes) -> Chunks:
        work = [self._run(s) if isinstance(s, Run) else self._rewritten(s) for s in _grouped(steps)]
        async with aclosing(ahead(work)) as chunks:
            async for chunk in chunks:
                yield chunk
        if end:
            yield end

    async def _run(self, run: Run) -> Chunks:
        """The pieces of a range, cut out of its chunks as they come."""
        todo = deque(run.pieces)
        at, need = run.offset, todo[0].offset  # of the chunk, and of the next byte that is sent: offsets in the pack
        if todo[0].head:
            yield todo[0].head
        async for chunk in self._packs.stream(run.pack_id, run.offset, run.length):
            view, end = memoryview(chunk), at + len(chunk)
            while todo:
                stop = todo[0].offset + todo[0].length
                if need < min(stop, end):
                    yield view[need - at : min(stop, end) - at]
                    need = min(stop, end)
                if need < stop:
                    break
                todo.popleft()
                if todo:
                    need = todo[0].offset
                    if todo[0].head:
                        yield todo[0].head
            at = end
        if todo:
            raise Defect(f"pack {run.pack_id} gave fewer bytes than asked for")

    async def _rewritten(self, step: Rewritten) -> Chunks:
        size = step.row["length"]
        await self._budget.take(size)
        try:
            parts = await self._written(step.row, step.transfer_syntax)
            if step.boundary:
                length = sum(map(len, parts))
                yield part_head(step.boundary, DICOM, step.transfer_syntax, length, step.location)
            for part in parts:
                yield part
        finally:
            self._budget.give(size)

    async def _stored(self, row: Row) -> bytes:
        if row["length"] > REWRITE_MAX:
            raise NotAcceptable("this instance is too large to be written again: ask for …/original")
        return await self._packs.read(row["pack_id"], row["tar_offset"], row["length"])

    async def _written(self, row: Row, transfer_syntax: str = EXPLICIT_LE) -> list[Chunk]:
        """A Part 10 file in `transfer_syntax`, its own or Explicit VR Little Endian, in pieces."""
        data = await self._stored(row)
        stored, at = row["transfer_syntax"], row["dataset_offset"]
        view = memoryview(data)
        meta = with_meta(view, at, transfer_syntax, sop_class=row["sop_class"], sop_uid=row["sop_uid"])
        if stored == transfer_syntax:
            return [meta, view[at:]]
        if stored not in NATIVE:
            as_stored = with_meta(view, at, stored, sop_class=row["sop_class"], sop_uid=row["sop_uid"])
            return [await self._decoders.explicit(b"".join((as_stored, view[at:])))]
        try:
            return [meta, *await asyncio.to_thread(to_explicit, view[at:], stored)]
        except Invalid as e:
            raise NotAcceptable("a damaged dataset cannot be written again: ask for …/original") from e

    # -------------------------------------------------------------------------------------------- frames

    async def frames(self, row: Row, numbers: Sequence[int], form: FrameForm, url: str) -> Body:
        """Frames of one instance, numbered from 1. Raises NotFound for one that is not there."""
        spans = frame_spans(await self.frame_table(row))
        if not spans.count and form.decode:
            spans = Spans(1 if numbers == (1,) else 0)  # a decoder may know what the table does not
        if max(numbers) > spans.count:
            raise NotFound(f"this instance has {spans.count} frames")
        if form.decode:
            decoded = await self._decoded_frames(row, [n - 1 for n in numbers])
            parts = [[frame] for frame in decoded]
        elif spans.bits % 8:
            parts = [[await self._bit_frame(row, spans, n - 1)] for n in numbers]
        else:
            return await self._stored_frames(row, [spans.of(n - 1) for n in numbers], form, url)
        boundary = clock.uuid7().hex if form.multipart else ""
        pieces: list[Chunk] = []
        for number, part in zip(numbers, parts, strict=True):
            if boundary:
                size = sum(map(len, part))
                pieces.append(
                    part_head(boundary, form.media_type, form.transfer_syntax, size, f"{url}/frames/{number}")
                )
            pieces += part
        if boundary:
            pieces.append(closing(boundary))
        media_type = multipart_type(boundary, form.media_type) if boundary else form.media_type
        return Body(media_type, _each(pieces), sum(map(len, pieces)))

    async def _stored_frames(
        self, row: Row, spans: Sequence[Sequence[tuple[int, int]]], form: FrameForm, url: str
    ) -> Body:
        boundary = clock.uuid7().hex if form.multipart else ""
        base = row["tar_offset"] + row["dataset_offset"]
        steps: list[Stored | Rewritten] = []
        length = 0
        for fragments in spans:
            size = sum(n for _, n in fragments)
            head = part_head(boundary, form.media_type, form.transfer_syntax, size) if boundary else b""
            for offset, n in fragments:
                steps.append(Stored(row["pack_id"], base + offset, n, head))
                length += len(head) + n
                head = b""
        end = closing(boundary) if boundary else b""
        pieces = await begun(self._all(steps, end))
        media_type = multipart_type(boundary, form.media_type) if boundary else form.media_type
        return Body(media_type, pieces, length + len(end))

    async def _bit_frame(self, row: Row, spans: Spans, number: int) -> bytes:
        """A frame of single bits, which need not begin at a byte (PS3.5 §8.1.1)."""
        first, last = number * spans.bits, (number + 1) * spans.bits
        start, size = first // 8, (last + 7) // 8 - first // 8
        offset = row["tar_offset"] + row["dataset_offset"] + spans.pixel_offset + start
        packed = int.from_bytes(await self._packs.read(row["pack_id"], offset, size), "little")
        frame = packed >> first % 8 & (1 << spans.bits) - 1
        return frame.to_bytes((spans.bits + 7) // 8, "little")

    async def _decoded_frames(self, row: Row, numbers: Sequence[int]) -> list[bytes]:
        return await self._decoders.frames(await self._readable(row), numbers)

    async def _readable(self, row: Row) -> bytes:
        """A Part 10 file as it is stored, but native ones in Explicit VR Little Endian."""
        stored = row["transfer_syntax"]
        return b"".join(await self._written(row, EXPLICIT_LE if stored in NATIVE else stored))

    async def frame_table(self, row: Row) -> bytes:
        """Where the frames of an instance lie: of its row, or of its manifest where that was too large for the row."""
        if row["frames"]:
            return str(row["frames"]).encode()
        manifest = await self._packs.manifest(row["pack_id"])
        return bytes(manifest.instances[row["line"]].frames)

    # -------------------------------------------------------------------------------------------- bulk data

    async def bulk(self, row: Row, path: str) -> bytes:
        """The value of an element that the metadata refer to (PS3.18 §10.4.1.1.5). Raises NotAcceptable."""
        return await self._decoders.value(await self._readable(row), path)

    # -------------------------------------------------------------------------------------------- metadata

    async def metadata(self, rows: Sequence[Row], url: str) -> list[bytes]:
        """Headers as the manifests have them, their bulk data under `url`, the study's."""
        packs = list(dict.fromkeys(r["pack_id"] for r in rows))
        manifests = dict(zip(packs, await asyncio.gather(*map(self._packs.manifest, packs)), strict=True))
        found = []
        for row in rows:
            header = bytes(manifests[row["pack_id"]].instances[row["line"]].header)
            where = f'"BulkDataURI":"{url}/series/{row["series_uid"]}/instances/{row["sop_uid"]}/bulkdata/'
            found.append(header.replace(b'"BulkDataURI":"bulkdata/', where.encode()))
        return found


def _leaves_in(row: Row, way: Way | None) -> str:
    """The transfer syntax an instance is written again in; empty when it leaves as it is stored."""
    if way is Way.TO_EXPLICIT:
        return EXPLICIT_LE
    return row["transfer_syntax"] if row["dataset_offset"] < PART10_HEAD else ""


# ------------------------------------------------------------------------------------------------ frame tables


@dataclass(frozen=True)
class Spans:
    """The frames of an instance: native ones by arithmetic, encapsulated ones by their fragments."""

    count: int = 0
    pixel_offset: int = 0
    bits: int = 0
    """Of a native frame."""
    fragments: tuple[tuple[tuple[int, int], ...], ...] = ()

    def of(self, number: int) -> tuple[tuple[int, int], ...]:
        """(offset in the dataset, length) of a frame's pieces; `number` from 0."""
        if self.fragments:
            return self.fragments[number]
        size = self.bits // 8
        return ((self.pixel_offset + number * size, size),)


class _Table(msgspec.Struct):
    """As `frames` of a manifest's line: offsets count from the start of the dataset."""

    native: tuple[int, int, int] | None = None
    encapsulated: list[list[int]] | None = None


_table: msgspec.json.Decoder[_Table | None] = msgspec.json.Decoder(_Table | None)


def frame_spans(table: bytes) -> Spans:
    """The frames that a manifest's line knows."""
    found = _table.decode(table or b"null")
    if found is None:
        return Spans()
    if found.native is not None:
        offset, bits, count = found.native
        return Spans(count, offset, bits)
    frames = tuple(tuple(zip(f[::2], f[1::2], strict=True)) for f in found.encapsulated or ())
    return Spans(len(frames), fragments=frames)


# ------------------------------------------------------------------------------------------------ streams


def _grouped(steps: Iterable[Stored | Rewritten]) -> list[Run | Rewritten]:
    """Stored pieces joined to runs, in order."""
    found: list[Run | Rewritten] = []
    stored: list[Stored] = []
    for step in steps:
        if isinstance(step, Stored):
            stored.append(step)
            continue
        found += [*runs(stored), step]
        stored = []
    return [*found, *runs(stored)]


async def begun(pieces: Chunks) -> Chunks:
    """The same after its first piece was had: what goes wrong at once becomes a status and not a broken body."""
    first = await anext(pieces, b"")

    async def whole() -> Chunks:
        yield first
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece

    return whole()


async def ahead(work: Sequence[Chunks], depth: int = AHEAD) -> Chunks:
    """The iterators one behind the other, the next ones already begun."""
    started: deque[tuple[asyncio.Task[list[Chunk]], Chunks]] = deque()
    waiting = deque(work)
    try:
        while waiting or started:
            while waiting and len(started) < depth:
                pieces = waiting.popleft()
                started.append((asyncio.create_task(_first(pieces)), pieces))
            task, pieces = started[0]
            for piece in await task:
                yield piece
            async for piece in pieces:
                yield piece
            started.popleft()
    finally:
        for task, pieces in started:
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task
            await pieces.aclose()


async def _first(pieces: Chunks) -> list[Chunk]:
    """The head of a part, and what its source gives first."""
    found: list[Chunk] = []
    async for piece in pieces:
        found.append(piece)
        if len(found) == 2:
            break
    return found


async def _each(pieces: Iterable[Chunk]) -> Chunks:
    for piece in pieces:
        yield piece


class Budget:
    """A bound on the bytes in memory, given out in the order of asking, so that nobody waits for ever."""

    def __init__(self, size: int) -> None:
        self._left = self._size = size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def take(self, size: int) -> None:
        """Wait for `size` bytes; more than there are altogether count as all of them."""
        size = min(size, self._size)
        if not self._waiting and size <= self._left:
            self._left -= size
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give(size)
            raise

    def give(self, size: int) -> None:
        """Give back what was taken."""
        self._left += min(size, self._size)
        while self._waiting and (self._waiting[0][1].cancelled() or self._waiting[0][0] <= self._left):
            size, turn = self._waiting.popleft()
            if not turn.cancelled():
                self._left -= size
                turn.set_result(None)
