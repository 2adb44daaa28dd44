"""Images for people: from the rows of instances to encoded pictures.

Of an instance only what a picture needs is read: its header up to the pixel data, and the frame. The rest, which may be
gigabytes, stays where it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from consumers.api.decoders import Decoders, decodable
from consumers.api.frame_table import frame_spans
from consumers.api.look import Look
from consumers.api.packs import Packs
from consumers.api.wado import DEFLATED_LE, NATIVE, NotAcceptable
from infra.ports import Row
from schemas.errors import NotFound

HEAD_MAX = 64 << 20
"""Bytes of a header that is read for a picture."""
WHOLE_MAX = 256 << 20
"""Bytes of an instance that is read whole, because where its frames lie is not known."""
FRAMES_MAX = 100
"""Of one answer."""


class Renderer:
    """Makes pictures of frames."""

    def __init__(self, packs: Packs, decoders: Decoders) -> None:
        self._packs, self._decoders = packs, decoders

    async def frame(self, row: Row, number: int, look: Look) -> bytes:
        """A picture of a frame, from 1. Raises NotFound, NotAcceptable for what is no image or cannot be decoded."""
        part10, frame = await self._source(row, number)
        return await self._decoders.rendered(part10, frame, number - 1, look)

    async def frame_count(self, row: Row) -> int:
        """Frames that can be shown; 1 where only a decoder knows."""
        return max(1, frame_spans(await self._packs.frame_table(row)).count)

    async def _source(self, row: Row, number: int) -> tuple[bytes, bytes | None]:
        """(a file or its beginning, the frame if that is only the beginning)."""
        syntax = row["transfer_syntax"]
        if syntax not in NATIVE and not decodable(syntax):
            raise NotAcceptable("no decoder for the transfer syntax of this instance: it leaves as it is stored alone")
        spans = frame_spans(await self._packs.frame_table(row))
        start, dataset = row["tar_offset"], row["tar_offset"] + row["dataset_offset"]
        if not spans.count or syntax == DEFLATED_LE or spans.first > HEAD_MAX or not row["dataset_offset"]:
            if row["length"] > WHOLE_MAX:
                raise NotAcceptable("this instance is too large to be shown")
            return await self._packs.read(row["pack_id"], start, row["length"]), None
        if number > spans.count:
            raise NotFound(f"this instance has {spans.count} frames")
        pieces = spans.of(number - 1)
        if pieces[0][0] == spans.first and len(pieces) == 1:
            # The first frame stands behind the header: one read gives both.
            size = row["dataset_offset"] + spans.first
            both = await self._packs.read(row["pack_id"], start, size + pieces[0][1])
            return both[:size], spans.aligned(both[size:], number - 1)
        head = await self._packs.read(row["pack_id"], start, row["dataset_offset"] + spans.first)
        frame = b"".join([await self._packs.read(row["pack_id"], dataset + at, n) for at, n in pieces])
        return head, spans.aligned(frame, number - 1)


def representative(rows: Sequence[Row]) -> Row:
    """The instance whose picture stands for a series or a study: the one in the middle of those with frames.

    Raises NotAcceptable when none has any.
    """
    seen = [
        r for r in rows if r["frames"] != "null" and (r["transfer_syntax"] in NATIVE or decodable(r["transfer_syntax"]))
    ]
    if not seen:
        raise NotAcceptable("there is no image in it")
    first = [r for r in seen if r["series_uid"] == seen[0]["series_uid"]]
    return first[len(first) // 2]
