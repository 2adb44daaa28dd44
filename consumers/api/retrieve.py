"""WADO-RS, the doing half: from the rows of instances to the bytes of an answer, streamed.

What leaves as it is stored is cut out of range reads of its pack, neighbours by one request; what has to be written
again is made one instance at a time, or, where only its header changes, streamed behind a new one. A few pieces are
begun ahead, so that the next one is there when the last is sent; memory is bounded by them, never by the study.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace

from consumers.api.decoders import Decoders, decodable
from consumers.api.explicit import PIXEL_DATA, pixel_head, to_explicit, with_meta
from consumers.api.frame_table import frame_spans
from consumers.api.overlay import EDITS, Edits
from consumers.api.packs import Packs
from consumers.api.patch import patched
from consumers.api.plan import Made, Plan, Step, boundary_of, etag, grouped, size_of
from consumers.api.sources import source
from consumers.api.streams import Budget, Chunk, Chunks, ahead, begun, once
from consumers.api.unpacking import unpacked
from consumers.api.wado import (
    DEFLATED_LE,
    DICOM,
    EXPLICIT_LE,
    IMPLICIT_LE,
    JPEG2000,
    NATIVE,
    OCTETS,
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
from infra.ports import Row
from schemas.errors import Defect, Invalid, NotFound

REWRITE_MAX = 256 << 20
"""Bytes of an instance that may be written again in memory."""
REWRITE_BUDGET = 512 << 20
"""Bytes of all instances that are being written again."""
STREAMED_MIN = 4 << 20
"""From so many bytes on, pixel data that do not change are streamed behind a new header."""
UNPACKED_MIN = 64 << 20
"""From so many bytes on, compressed pixel data are decoded frame by frame."""
CORRECTED_FIRST = 64 << 10
"""Bytes of a dataset in which what people correct is looked for first."""
META_AT = 144
"""Where File Meta Information goes on behind preamble, prefix and its length (PS3.10 §7.1)."""
HEADER_MAX = 64 << 20
"""Bytes of a header that is written again in memory, and of what follows the pixel data."""


PIXELS = f"{PIXEL_DATA:08X}"
PIXEL_TAG = bytes((0xE0, 0x7F, 0x10, 0x00))
"""In little endian."""


class Retriever:
    """Makes the contents of answers."""

    def __init__(self, packs: Packs, decoders: Decoders) -> None:
        self._packs, self._decoders = packs, decoders
        self._budget = Budget(REWRITE_BUDGET)

    def instances(self, rows: Sequence[Row], form: Form, url: str) -> Plan:
        """Instances as a client takes them. `url` is that of their study.

        Raises NotAcceptable when one of them cannot leave so: nothing is left out silently.
        """
        ways = [choose(r["transfer_syntax"], form.wanted, decodable) for r in rows]
        if hindered := sum(way is None for way in ways):
            raise NotAcceptable(
                f"{hindered} of {len(rows)} instances cannot leave in a transfer syntax the client takes;"
                " transfer-syntax=* or …/original gives them as they are stored"
            )
        syntaxes = [leaves_in(r, way) for r, way in zip(rows, ways, strict=True)]
        # That a transfer syntax has a decoder says nothing of a damaged file, which shows only when it is its turn.
        lenient = len(rows) > 1 and ("" in form.wanted or "*" in form.wanted)
        return _plan(list(zip(rows, syntaxes, strict=True)), form.multipart, url, or_stored=lenient)

    def originals(self, rows: Sequence[Row], *, multipart: bool, url: str) -> Plan:
        """Instances as they are stored."""
        return _plan([(r, "") for r in rows], multipart, url)

    def media(self, rows: Sequence[Row], wanted: Sequence[str]) -> list[tuple[Row, str]]:
        """Rows with the transfer syntax they are written again in for a medium; as stored where nothing else is had."""
        ways = [choose(r["transfer_syntax"], wanted, decodable) or Way.AS_STORED for r in rows]
        return [(r, leaves_in(r, way)) for r, way in zip(rows, ways, strict=True)]

    async def file(self, row: Row, transfer_syntax: str) -> Chunks:
        """One of them: a Part 10 file. Raises NotAcceptable where it cannot be written so."""
        return await self.open(_plan([(row, transfer_syntax)], False, ""))

    async def open(self, plan: Plan) -> Chunks:
        """The bytes of a plan. Its first piece is there: what goes wrong at once is raised here."""
        return await begun(self._all(plan.steps))

    async def _all(self, steps: Sequence[Step]) -> Chunks:
        async with aclosing(ahead([self._begin(step) for step in grouped(steps)])) as chunks:
            async for chunk in chunks:
                yield chunk

    def _begin(self, step: Run | Made | bytes) -> Chunks:
        match step:
            case bytes():
                return once(step)
            case Run():
                return self._run(step)
            case Made(or_stored=True):
                return self._made_or_stored(step)
            case _:
                return self._made(step)

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

    # -------------------------------------------------------------------------------------------- written again

    async def _made_or_stored(self, step: Made) -> Chunks:
        try:
            pieces = await begun(self._made(step))
        except NotAcceptable:
            plain = replace(step, transfer_syntax=leaves_in(step.row, Way.AS_STORED), or_stored=False)
            pieces = self._made(plain) if plain.transfer_syntax else self._run(runs([_stored(plain)])[0])
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece

    async def _made(self, step: Made) -> Chunks:
        row = step.row
        edits: Edits = row.get(EDITS, {})
        if edits and step.transfer_syntax == row["transfer_syntax"]:
            async with aclosing(self._behind_corrections(step, edits)) as chunks:
                async for chunk in chunks:
                    yield chunk
            return
        if (
            not edits
            and row["length"] >= STREAMED_MIN
            and row["transfer_syntax"] == IMPLICIT_LE
            and step.transfer_syntax == EXPLICIT_LE
        ):
            async with aclosing(self._behind_a_new_header(step)) as chunks:
                streamed = False
                async for chunk in chunks:
                    streamed = True
                    yield chunk
            if streamed:
                return
        if (
            not edits
            and row["length"] >= UNPACKED_MIN
            and row["transfer_syntax"] not in NATIVE
            and step.transfer_syntax == EXPLICIT_LE
        ):
            async with aclosing(unpacked(self._packs, self._decoders, step)) as chunks:
                streamed = False
                async for chunk in chunks:
                    streamed = True
                    yield chunk
            if streamed:
                return
        size = row["length"]
        await self._budget.take(size)
        try:
            parts = await self.written(row, step.transfer_syntax)
            if edits:
                parts = _corrected(parts, edits)
            if head := step.head(sum(map(len, parts))):
                yield head
            for part in parts:
                yield part
        finally:
            self._budget.give(size)

    async def _behind_a_new_header(self, step: Made) -> Chunks:
        """Native pixel data in Implicit VR, as they are, behind a header in Explicit VR.

        Nothing where their place is not known.
        """
        row = step.row
        at, spans = row["dataset_offset"], frame_spans(await self._packs.frame_table(row))
        if not spans.pixel_offset or spans.pixel_offset > HEADER_MAX:
            return
        before = memoryview(await self._packs.read(row["pack_id"], row["tar_offset"], at + spans.pixel_offset))
        element = before[-8:]
        tag = int.from_bytes(element[:2], "little") << 16 | int.from_bytes(element[2:4], "little")
        size = int.from_bytes(element[4:], "little")
        behind = row["length"] - at - spans.pixel_offset - size
        if tag != PIXEL_DATA or not 0 <= behind <= HEADER_MAX:
            return
        start = row["tar_offset"] + at + spans.pixel_offset
        tail = await self._packs.read(row["pack_id"], start + size, behind) if behind else b""
        meta = with_meta(before, at, step.transfer_syntax, sop_class=row["sop_class"], sop_uid=row["sop_uid"])
        try:
            header = await asyncio.to_thread(to_explicit, before[at:-8], IMPLICIT_LE)
            trailing = to_explicit(memoryview(tail), IMPLICIT_LE)
        except Invalid:
            return
        first = b"".join((meta, *header, pixel_head(size)))
        yield step.head(len(first) + size + sum(map(len, trailing))) + first
        async for chunk in self._packs.stream(row["pack_id"], start, size):
            yield chunk
        for piece in trailing:
            yield piece

    async def _behind_corrections(self, step: Made, edits: Edits) -> Chunks:
        """A corrected header, and what lies behind it as it is stored. Raises NotAcceptable."""
        row = step.row
        at, length, size = row["dataset_offset"], row["length"], CORRECTED_FIRST
        while True:
            read = min(at + size, length)
            before = memoryview(await self._packs.read(row["pack_id"], row["tar_offset"], read))
            if found := _patched(before[at:], edits, whole=read == length):
                break
            if read == length or size > HEADER_MAX:
                raise NotAcceptable("a damaged dataset cannot be corrected: ask for …/original")
            size *= 8
        header, used = found
        meta = with_meta(before, at, step.transfer_syntax, sop_class=row["sop_class"], sop_uid=row["sop_uid"])
        first, start = meta + header, at + used
        yield step.head(len(first) + length - start) + first
        yield before[start:]
        if read < length:
            async for chunk in self._packs.stream(row["pack_id"], row["tar_offset"] + read, length - read):
                yield chunk

    async def written(self, row: Row, transfer_syntax: str) -> list[Chunk]:
        """A Part 10 file in `transfer_syntax`: its own, Explicit VR Little Endian, or JPEG 2000; in pieces.

        Raises NotAcceptable.
        """
        if row["length"] > REWRITE_MAX:
            raise NotAcceptable("this instance is too large to be written again: ask for …/original")
        data = await self._packs.read(row["pack_id"], row["tar_offset"], row["length"])
        stored, at = row["transfer_syntax"], row["dataset_offset"]
        view = memoryview(data)

        def meta(syntax: str) -> bytes:
            return with_meta(view, at, syntax, sop_class=row["sop_class"], sop_uid=row["sop_uid"])

        if stored == transfer_syntax:
            return [meta(stored), view[at:]]
        if stored in NATIVE:
            try:
                parts = [meta(EXPLICIT_LE), *await asyncio.to_thread(to_explicit, view[at:], stored)]
            except Invalid as e:
                raise NotAcceptable("a damaged dataset cannot be written again: ask for …/original") from e
        else:
            parts = [meta(stored), view[at:]]
            if transfer_syntax == EXPLICIT_LE:
                return [await self._decoders.explicit(b"".join(parts))]
        return [await self._decoders.jpeg2000(b"".join(parts))] if transfer_syntax == JPEG2000 else parts

    # -------------------------------------------------------------------------------------------- frames

    async def frames(self, row: Row, numbers: Sequence[int], form: FrameForm, url: str) -> Plan:
        """Frames of one instance, numbered from 1. Raises NotFound for one that is not there."""
        spans = frame_spans(await self._packs.frame_table(row))
        count = spans.count
        if not count and form.decode:
            count = 1 if numbers == (1,) else 0  # a decoder may know what the table does not
        if max(numbers) > count:
            raise NotFound(f"this instance has {count} frames")
        tag = etag("frames", repr(form), url, repr(numbers), rows=[row])
        boundary = boundary_of(tag) if form.multipart else ""
        made: list[bytes] | None = None
        if form.decode:
            made = await self._decoded(row, numbers)
        elif spans.bits % 8:
            made = [spans.aligned(b"".join(await self._pieces(row, spans.of(n - 1))), n - 1) for n in numbers]
        steps: list[Step] = []
        base = row["tar_offset"] + row["dataset_offset"]
        for index, number in enumerate(numbers):
            pieces = spans.of(number - 1) if made is None else ()
            size = sum(n for _, n in pieces) if made is None else len(made[index])
            where = f"{url}/frames/{number}"
            head = part_head(boundary, form.media_type, form.transfer_syntax, size, where) if boundary else b""
            if made is not None:
                steps.append(head + made[index])
            for at, n in pieces:
                steps.append(Stored(row["pack_id"], base + at, n, head))
                head = b""
        if boundary:
            steps.append(closing(boundary))
        alone = f"{form.media_type}; transfer-syntax={form.transfer_syntax}"  # PS3.18 §8.7.3.3, as parts say it
        return Plan(multipart_type(boundary, form.media_type) if boundary else alone, tag, tuple(steps))

    async def _decoded(self, row: Row, numbers: Sequence[int]) -> list[bytes]:
        """Frames, from 1. Of a compressed instance only they are read, where it is known where they lie."""
        if row["transfer_syntax"] in NATIVE:
            return await self._decoders.frames(await self._readable(row), [n - 1 for n in numbers])
        found: list[bytes] = []
        for number in numbers:
            head, frame = await source(self._packs, row, number)
            if frame is None:
                return await self._decoders.frames(head, [n - 1 for n in numbers])
            found.append(await self._decoders.frame(head, frame))
        return found

    async def _pieces(self, row: Row, spans: Iterable[tuple[int, int]]) -> list[bytes]:
        base = row["tar_offset"] + row["dataset_offset"]
        return [await self._packs.read(row["pack_id"], base + at, n) for at, n in spans]

    async def _readable(self, row: Row) -> bytes:
        """A Part 10 file as it is stored, but native ones in Explicit VR Little Endian."""
        stored = row["transfer_syntax"]
        return b"".join(await self.written(row, EXPLICIT_LE if stored in NATIVE else stored))

    # -------------------------------------------------------------------------------------------- bulk data

    async def bulk(self, row: Row, path: str, tag: str, *, multipart: bool) -> Plan:
        """The value of an element that the metadata refer to (PS3.18 §10.4.1.1.5), under a tag. Raises NotAcceptable.

        Native pixel data leave as they lie in the pack, however large; other values are read in memory.
        """
        value = await self._native_pixels(row) if path == PIXELS else ()
        steps = value or (await self._decoders.value(await self._readable(row), path),)
        if not multipart:
            return Plan(OCTETS, tag, steps)
        boundary = boundary_of(tag)
        head = part_head(boundary, OCTETS, "", sum(size_of(s) or 0 for s in steps))
        return Plan(multipart_type(boundary, OCTETS), tag, (head, *steps, closing(boundary)))

    async def _native_pixels(self, row: Row) -> tuple[Step, ...]:
        """Pixel Data in little endian where they lie, as long as they are; nothing where that is not known.

        Their own length, not that of their frames: there may be more of them, or less, than the header tells.
        """
        spans = frame_spans(await self._packs.frame_table(row))
        if row["transfer_syntax"] not in (EXPLICIT_LE, IMPLICIT_LE) or not spans.pixel_offset or spans.fragments:
            return ()
        start = row["tar_offset"] + row["dataset_offset"] + spans.pixel_offset
        head = await self._packs.read(row["pack_id"], start - 12, 12)
        size = int.from_bytes(head[-4:], "little")
        tag = head[4:8] if row["transfer_syntax"] == IMPLICIT_LE else head[:4]
        left = row["length"] - row["dataset_offset"] - spans.pixel_offset
        if tag != PIXEL_TAG or not 0 < size <= left:
            return ()
        return (Stored(row["pack_id"], start, size), bytes(size & 1))

    async def compressed(self, row: Row, form: FrameForm, url: str) -> Plan:
        """Encapsulated Pixel Data as bulk data: decoded frames as one value, or a part for each frame as it is stored.

        Raises NotAcceptable.
        """
        spans = frame_spans(await self._packs.frame_table(row))
        if not form.decode:
            if not spans.count:
                raise NotAcceptable("the frames of this instance are not known: ask for transfer-syntax=*")
            if not form.multipart and spans.count > 1:
                raise NotAcceptable(f"{spans.count} frames leave as multipart/related")
            return await self.frames(row, range(1, spans.count + 1), form, url)
        tag = etag("pixels", repr(form), url, rows=[row])
        found = await self._decoded(row, range(1, spans.count + 1)) if spans.count else [await self._unknown(row)]
        size = sum(map(len, found))
        value = (*found, bytes(size & 1))
        alone = f"{form.media_type}; transfer-syntax={form.transfer_syntax}"
        if not form.multipart:
            return Plan(alone, tag, value)
        boundary = boundary_of(tag)
        head = part_head(boundary, form.media_type, form.transfer_syntax, size + (size & 1))
        return Plan(multipart_type(boundary, form.media_type), tag, (head, *value, closing(boundary)))

    async def _unknown(self, row: Row) -> bytes:
        """Decoded pixel data of an instance of whose frames nothing is known."""
        part10, _ = await source(self._packs, row, 1)
        return b"".join(await self._decoders.frames(part10, None))


def _corrected(parts: Sequence[Chunk], edits: Edits) -> list[Chunk]:
    """A Part 10 file of ours in an explicit encoding, with other values. Raises NotAcceptable."""
    data = memoryview(b"".join(parts))
    at = META_AT + int.from_bytes(data[META_AT - 4 : META_AT], "little")
    found = _patched(data[at:], edits, whole=True)
    if found is None:
        raise NotAcceptable("a damaged dataset cannot be corrected: ask for …/original")
    header, used = found
    return [data[:at], header, data[at + used :]]


def _patched(view: memoryview, edits: Edits, *, whole: bool) -> tuple[bytes, int] | None:
    try:
        return patched(view, edits, whole=whole)
    except Invalid as e:
        raise NotAcceptable("this dataset cannot be corrected: ask for …/original") from e


def _stored(step: Made) -> Stored:
    """Its bytes as they lie in the pack."""
    row = step.row
    head = replace(step, transfer_syntax=row["transfer_syntax"]).head(row["length"])
    return Stored(row["pack_id"], row["tar_offset"], row["length"], head)


def _plan(chosen: Sequence[tuple[Row, str]], multipart: bool, url: str, *, or_stored: bool = False) -> Plan:
    """`chosen`: rows with the transfer syntax they are written again in; empty: they leave as they are stored."""
    tag = etag("instances", str(multipart), url, *(syntax for _, syntax in chosen), rows=[r for r, _ in chosen])
    boundary = boundary_of(tag) if multipart else ""
    steps: list[Step] = []
    for row, syntax in chosen:
        where = f"{url}/series/{row['series_uid']}/instances/{row['sop_uid']}"
        if syntax:
            steps.append(Made(row, syntax, boundary, where, or_stored))
        else:
            steps.append(_stored(Made(row, "", boundary, where)))
    if multipart:
        steps.append(closing(boundary))
    return Plan(multipart_type(boundary, DICOM) if multipart else DICOM, tag, tuple(steps))


def leaves_in(row: Row, way: Way | None) -> str:
    """The transfer syntax an instance is written again in; empty when it leaves as it is stored."""
    if way is Way.TO_EXPLICIT or (EDITS in row and row["transfer_syntax"] == DEFLATED_LE):
        return EXPLICIT_LE
    if EDITS in row:
        return str(row["transfer_syntax"])
    if way is Way.TO_JPEG2000:
        return JPEG2000
    return row["transfer_syntax"] if row["dataset_offset"] < PART10_HEAD else ""
