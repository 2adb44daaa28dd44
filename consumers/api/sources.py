"""What a decoder needs of an instance: its header up to the pixel data, and one frame.

The rest, which may be gigabytes, stays where it is.
"""

from __future__ import annotations

from consumers.api.decoders import decodable
from consumers.api.frame_table import frame_spans
from consumers.api.packs import Packs
from consumers.api.wado import DEFLATED_LE, NATIVE, NotAcceptable
from infra.ports import Row
from schemas.errors import NotFound

HEAD_MAX = 64 << 20
"""Bytes of a header that is read for a frame."""
WHOLE_MAX = 256 << 20
"""Bytes of an instance that is read whole, because where its frames lie is not known."""


async def source(packs: Packs, row: Row, number: int) -> tuple[bytes, bytes | None]:
    """(a file or its beginning, the frame of that number, from 1, if it is only the beginning).

    Raises NotFound, NotAcceptable for what no decoder takes or is too large.
    """
    syntax = row["transfer_syntax"]
    if syntax not in NATIVE and not decodable(syntax):
        raise NotAcceptable("no decoder for the transfer syntax of this instance: it leaves as it is stored alone")
    spans = frame_spans(await packs.frame_table(row))
    start, dataset = row["tar_offset"], row["tar_offset"] + row["dataset_offset"]
    if not spans.count or syntax == DEFLATED_LE or spans.first > HEAD_MAX or not row["dataset_offset"]:
        if row["length"] > WHOLE_MAX:
            raise NotAcceptable("this instance is too large to be decoded: ask for transfer-syntax=*")
        return await packs.read(row["pack_id"], start, row["length"]), None
    if number > spans.count:
        raise NotFound(f"this instance has {spans.count} frames")
    pieces = spans.of(number - 1)
    if pieces[0][0] == spans.first and len(pieces) == 1:
        # The first frame stands behind the header: one read gives both.
        size = row["dataset_offset"] + spans.first
        both = await packs.read(row["pack_id"], start, size + pieces[0][1])
        return both[:size], spans.aligned(both[size:], number - 1)
    head = await packs.read(row["pack_id"], start, row["dataset_offset"] + spans.first)
    frame = b"".join([await packs.read(row["pack_id"], dataset + at, n) for at, n in pieces])
    return head, spans.aligned(frame, number - 1)
