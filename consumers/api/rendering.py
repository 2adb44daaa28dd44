"""Images for people: from the rows of instances to encoded pictures."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing

from consumers.api.decoders import Decoders, decodable
from consumers.api.frame_table import frame_spans
from consumers.api.look import Look
from consumers.api.packs import Packs
from consumers.api.sources import source
from consumers.api.streams import Chunks, ahead
from consumers.api.wado import NATIVE, NotAcceptable, closing, part_head
from infra.http_problems import MEDIA_TYPE, problem
from infra.ports import Row
from schemas.errors import Invalid

FRAMES_MAX = 100
"""Of one answer."""


class Renderer:
    """Makes pictures of frames."""

    def __init__(self, packs: Packs, decoders: Decoders) -> None:
        self._packs, self._decoders = packs, decoders

    async def frame(self, row: Row, number: int, look: Look) -> bytes:
        """A picture of a frame, from 1. Raises NotFound, NotAcceptable for what is no image or cannot be decoded."""
        part10, frame = await source(self._packs, row, number)
        return await self._decoders.rendered(part10, frame, number - 1, look)

    async def frame_count(self, row: Row) -> int:
        """Frames that can be shown; 1 where only a decoder knows."""
        return max(1, frame_spans(await self._packs.frame_table(row)).count)

    async def first_frames(self, rows: Sequence[Row], look: Look, boundary: str) -> Chunks:
        """A part for each instance: its first frame, or why there is none. The next ones are made while one is sent."""

        async def part(row: Row) -> Chunks:
            media_type = look.media_type
            try:
                image = await self.frame(row, 1, look)
            except (NotAcceptable, Invalid) as e:
                if len(rows) == 1:
                    raise
                # Begun, an answer has no other way to say which image it lacks, and why.
                told = problem(406, "This image cannot be rendered", str(e))
                media_type, image = MEDIA_TYPE, bytes(told.body)
            yield part_head(boundary, media_type, "", len(image), f"#{row['sop_uid']}") + image

        async with aclosing(ahead([part(row) for row in rows])) as pieces:
            async for piece in pieces:
                yield piece
        yield closing(boundary)


def images(rows: Sequence[Row]) -> list[Row]:
    """Those with frames. Raises NotAcceptable when there are none, or no decoder for any of them."""
    seen = [r for r in rows if r["frames"] != "null"]
    if not any(_shown(r) for r in seen):
        raise NotAcceptable("there is no image in it that can be decoded" if seen else "there is no image in it")
    return seen


def representatives(rows: Sequence[Row]) -> list[Row]:
    """Instances whose picture stands for a series or a study: the one in the middle of those with frames, and others
    for where that one cannot be decoded after all. Raises NotAcceptable when none has any.
    """
    seen = [r for r in rows if r["frames"] != "null" and _shown(r)]
    if not seen:
        raise NotAcceptable("there is no image in it")
    first = [r for r in seen if r["series_uid"] == seen[0]["series_uid"]]
    others = [r for r in seen if r["series_uid"] != seen[0]["series_uid"]]
    chosen = [first[len(first) // 2], first[0], first[-1], *others[:1], *others[-1:]]
    return list({r["sop_uid"]: r for r in chosen}.values())


def _shown(row: Row) -> bool:
    return row["transfer_syntax"] in NATIVE or decodable(row["transfer_syntax"])
