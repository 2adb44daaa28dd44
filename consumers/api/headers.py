"""`/metadata` from manifests: headers are copied as they lie there, neither parsed nor encoded again unless people
have corrected them.

Whole answers are kept by their tag, within a bound of bytes: who opens a study asks for the same ones as who did
before, and a gzipped one is compressed once.
"""

from __future__ import annotations

import asyncio
import zlib
from collections import OrderedDict
from collections.abc import Sequence

from prometheus_client import Counter

from consumers.api.dicomjson import xml_parts
from consumers.api.overlay import EDITS, edited
from consumers.api.packs import Packs
from consumers.api.streams import Chunks
from consumers.api.wado import closing
from infra.ports import Row

ANSWERS_BYTES_MAX = 128 << 20
DOCUMENTS_AT_ONCE = 50
"""Headers that are written as XML in one piece."""
GZIP_LEVEL = 1
"""Headers repeat themselves: a higher level saves a tenth and costs four times as much."""

ANSWERS = Counter("sijil_metadata_answers", "Answers of /metadata by where they came from", ["from"])


class Headers:
    """Makes the bodies of `/metadata`."""

    def __init__(self, packs: Packs, *, bytes_max: int = ANSWERS_BYTES_MAX) -> None:
        self._packs = packs
        self._answers: OrderedDict[str, bytes] = OrderedDict()
        self._bytes, self._bytes_max = 0, bytes_max

    async def whole(self, rows: Sequence[Row], url: str, tag: str, *, compressed: bool) -> bytes:
        """A JSON array of the headers; `tag` names exactly these bytes. `url` is that of the study."""
        known = self._answers.get(tag)
        if known is not None:
            self._answers.move_to_end(tag)
            ANSWERS.labels("memory").inc()
            return known
        ANSWERS.labels("manifests").inc()
        body = b"[%b]" % b",".join(await self._headers(rows, url))
        if compressed:
            body = await asyncio.to_thread(_gzip, body)
        if len(body) <= self._bytes_max // 8:
            self._answers[tag] = body
            self._bytes += len(body)
            while self._bytes > self._bytes_max:
                self._bytes -= len(self._answers.popitem(last=False)[1])
        return body

    async def portions(self, rows: Sequence[Row], url: str, size: int) -> Chunks:
        """The same in portions of so many headers."""
        for at in range(0, len(rows), size):
            found = await self._headers(rows[at : at + size], url)
            yield (b"," if at else b"[") + b",".join(found)
        yield b"]"

    async def documents(self, rows: Sequence[Row], url: str, boundary: str) -> Chunks:
        """The same as XML, a part each (PS3.19 §A.1)."""
        for at in range(0, len(rows), DOCUMENTS_AT_ONCE):
            found = await self._headers(rows[at : at + DOCUMENTS_AT_ONCE], url)
            yield await asyncio.to_thread(xml_parts, found, boundary)
        yield closing(boundary)

    async def _headers(self, rows: Sequence[Row], url: str) -> list[bytes]:
        """Their bulk data under `url`."""
        packs = list(dict.fromkeys(r["pack_id"] for r in rows))
        manifests = dict(zip(packs, await asyncio.gather(*map(self._packs.manifest, packs)), strict=True))
        found = []
        for row in rows:
            header = edited(bytes(manifests[row["pack_id"]].instances[row["line"]].header), row.get(EDITS))
            where = f'"BulkDataURI":"{url}/series/{row["series_uid"]}/instances/{row["sop_uid"]}/bulkdata/'
            found.append(header.replace(b'"BulkDataURI":"bulkdata/', where.encode()))
        return found


def _gzip(body: bytes) -> bytes:
    packer = zlib.compressobj(GZIP_LEVEL, wbits=31)
    return packer.compress(body) + packer.flush()
