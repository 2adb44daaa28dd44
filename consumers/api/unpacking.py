"""A large compressed instance as Explicit VR Little Endian, decoded frame by frame: no more than some are in memory.

Its length is known after the first frame, for native frames are all as long. What follows the pixel data (PS3.5 §A.4)
is kept.
"""

from __future__ import annotations

import asyncio
from collections import deque

from consumers.api.decoders import Decoders
from consumers.api.explicit import pixel_head
from consumers.api.frame_table import Spans, frame_spans
from consumers.api.packs import Packs
from consumers.api.plan import Made
from consumers.api.sources import source
from consumers.api.streams import Chunks
from consumers.api.wado import NotAcceptable
from infra.ports import Row
from schemas.errors import Defect

AHEAD = 2
"""Frames that are decoded while one is sent."""
LENGTH_MAX = 0xFFFFFFFE
TAIL_MAX = 16 << 20
SEQUENCE_END = b"\xfe\xff\xdd\xe0\0\0\0\0"


async def unpacked(packs: Packs, decoders: Decoders, step: Made) -> Chunks:
    """The instance in pieces; nothing where its frames are not known. Raises NotAcceptable."""
    row = step.row
    spans = frame_spans(await packs.frame_table(row))
    if not spans.fragments:
        return
    head, stored = await source(packs, row, 1)
    tail = await _tail(packs, row, spans)
    if stored is None or tail is None:
        return
    begin, vr, first = await decoders.beginning(head, stored)
    size = len(first) * spans.count
    if size > LENGTH_MAX:
        raise NotAcceptable("decoded, this instance is too large for a file: ask for transfer-syntax=*")
    begin += pixel_head(size + (size & 1), vr)
    yield step.head(len(begin) + size + (size & 1) + len(tail)) + begin
    yield first

    async def frame(number: int) -> bytes:
        head, stored = await source(packs, row, number)
        return await decoders.frame(head, stored or b"")

    coming: deque[asyncio.Task[bytes]] = deque()
    numbers = iter(range(2, spans.count + 1))
    try:
        while True:
            while len(coming) < AHEAD and (number := next(numbers, 0)):
                coming.append(asyncio.create_task(frame(number)))
            if not coming:
                break
            found = await coming[0]
            coming.popleft()
            if len(found) != len(first):
                raise Defect("frames of one instance differ in length")
            yield found
    finally:
        for task in coming:
            task.cancel()
    yield bytes(size & 1) + tail


async def _tail(packs: Packs, row: Row, spans: Spans) -> bytes | None:
    """What follows the pixel data; None where that cannot be told."""
    end = max(at + n for frame in spans.fragments for at, n in frame)
    left = row["length"] - row["dataset_offset"] - end
    if not 0 <= left <= TAIL_MAX:
        return None
    rest = await packs.read(row["pack_id"], row["tar_offset"] + row["dataset_offset"] + end, left) if left else b""
    for skip in (0, 1):  # a fragment of odd length may have its padding behind it
        if rest[skip : skip + len(SEQUENCE_END)] == SEQUENCE_END:
            return rest[skip + len(SEQUENCE_END) :]
    return None if rest else b""
