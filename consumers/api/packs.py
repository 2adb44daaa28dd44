"""Bytes and manifests of packs: from a spool of this machine, from the hot tier, from the archive where that is gone.

Packs never change, so what is known of one is kept: where it lies, and, within a bound of bytes, its manifest.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

from prometheus_client import Counter, Gauge

from consumers.api import queries
from consumers.api.views import Views
from infra import clock, packed, telemetry
from infra.ports import Objects, Row
from infra.spooled import Spooled, chunks
from schemas.blocks import Blocks
from schemas.errors import Defect, NotFound, Transient
from schemas.pack import Manifest, decode_manifest

Chunk = bytes | memoryview

PLACES_MAX = 20_000
MANIFESTS_BYTES_MAX = 256 << 20
"""Bytes of headers and frame tables of the manifests kept in memory."""
ROW_S, LOOK_S = 5.0, 0.05
"""Longest wait for the row of a pack that an instance names, and pause between two looks."""
LINE_BYTES = 600
"""What a line costs in memory besides them."""

log = telemetry.logger(__name__)

SPOOL_READS = Counter("sijil_spool_reads", "Reads answered by a pack that is still in a spool of this machine")
FALLBACKS = Counter("sijil_archive_reads", "Reads answered by the archive copy because the hot one was gone")
MANIFEST_READS = Counter("sijil_manifest_reads", "Manifests read", ["from"])
MANIFEST_BYTES = Gauge("sijil_manifest_cache_bytes", "Bytes of manifests in memory")


@dataclass(frozen=True)
class Copy:
    """One copy of an object; an empty `version_id` is the newest."""

    bucket: str
    key: str
    version_id: str = ""


@dataclass(frozen=True)
class Place:
    """Where a pack and its manifest lie, the quickest tier first."""

    tar_size: int
    """Bytes of the pack's tar: offsets are its."""
    blocks: Blocks | None
    """Where they lie in the object; None: it is the tar."""
    packs: tuple[Copy, ...]
    manifests: tuple[Copy, ...]
    manifest_sha256: str


class Packs:
    """Reads packs for one process."""

    def __init__(
        self,
        views: Views,
        objects: Objects,
        spooled: Spooled | None = None,
        *,
        manifests_bytes_max: int = MANIFESTS_BYTES_MAX,
    ) -> None:
        self._views, self._objects, self._spooled = views, objects, spooled
        self._places: OrderedDict[str, Place] = OrderedDict()
        self._manifests: OrderedDict[str, tuple[Manifest, int]] = OrderedDict()
        self._loading: dict[str, asyncio.Task[Manifest]] = {}
        self._bytes, self._bytes_max = 0, manifests_bytes_max

    # -------------------------------------------------------------------------------------------- places

    async def place(self, pack_id: str, *, again: bool = False) -> Place:
        """Where a pack lies. `again`: ask anew, it may have been archived meanwhile. Raises Defect, Transient."""
        place = None if again else self._places.get(pack_id)
        if place is None:
            row = await self._row(pack_id)
            packs = [Copy(row["bucket"], row["pack_key"])]
            manifests = [Copy(row["bucket"], row["manifest_key"])]
            if row["archive_version_id"]:
                packs.append(Copy(row["archive_bucket"], row["archive_key"], row["archive_version_id"]))
                manifests.append(
                    Copy(row["archive_bucket"], row["archive_manifest_key"], row["archive_manifest_version_id"])
                )
            blocks = packed.blocks_of(row["blocks"])
            place = self._places[pack_id] = Place(
                blocks.tar_size if blocks else row["size"],
                blocks,
                tuple(packs),
                tuple(manifests),
                row["manifest_sha256"],
            )
            if len(self._places) > PLACES_MAX:
                self._places.popitem(last=False)
        return place

    async def _row(self, pack_id: str) -> Row:
        """Its row, waited for: rows of one event come one by one, an instance's perhaps before its pack's."""
        deadline = clock.monotonic() + ROW_S
        while True:
            rows = await self._views.tables.select(queries.pack(pack_id))
            if rows and rows[0]["pack_key"]:
                return rows[0]
            if clock.monotonic() > deadline:
                raise Transient(f"pack {pack_id} is named by an instance and has no row yet")
            await asyncio.sleep(LOOK_S)

    # -------------------------------------------------------------------------------------------- bytes

    async def stream(self, pack_id: str, offset: int, length: int) -> AsyncIterator[Chunk]:
        """`length` bytes of a pack's tar from `offset`, in chunks. Raises Defect when no tier has them, Transient."""
        place = await self.place(pack_id)
        if self._spooled is not None and (descriptor := self._spooled.open(pack_id, place.tar_size)) is not None:
            end = offset + length
            try:
                async with aclosing(chunks(descriptor, offset, length)) as found:
                    async for piece in found:
                        offset += len(piece)
                        yield piece
            except OSError as error:
                log.warning("a pack in the spool cannot be read", pack_id=pack_id, error=type(error).__name__)
            finally:
                os.close(descriptor)
            SPOOL_READS.inc()
            length = end - offset  # what a broken disk kept back, the hot tier has
            if not length:
                return
        tried: set[Copy] = set()
        while left := [c for c in place.packs if c not in tried]:
            copy = left[0]
            tried.add(copy)
            begun = False
            try:
                async for chunk in packed.stream(
                    self._objects, copy.bucket, copy.key, place.blocks, offset, length, version_id=copy.version_id
                ):
                    begun = True
                    yield chunk
                return
            except NotFound:
                if begun:
                    raise
                FALLBACKS.inc()
                place = await self.place(pack_id, again=True)
        raise Defect(f"pack {pack_id} is in no tier")

    async def read(self, pack_id: str, offset: int, length: int) -> bytes:
        """The same at once."""
        found = [chunk async for chunk in self.stream(pack_id, offset, length)]
        return bytes(found[0]) if len(found) == 1 else b"".join(found)

    # -------------------------------------------------------------------------------------------- manifests

    async def manifest(self, pack_id: str) -> Manifest:
        """A pack's manifest; who asks at the same time waits for one reading. Raises Defect, Transient."""
        known = self._manifests.get(pack_id)
        if known is not None:
            self._manifests.move_to_end(pack_id)
            MANIFEST_READS.labels("memory").inc()
            return known[0]
        task = self._loading.get(pack_id)
        if task is None:
            task = self._loading[pack_id] = asyncio.create_task(self._load(pack_id))
            task.add_done_callback(lambda _: self._loading.pop(pack_id, None))
        return await asyncio.shield(task)

    async def frame_table(self, row: Row) -> bytes:
        """Where the frames of an instance lie: of its row, or of its manifest where that was too large for the row."""
        if row["frames"]:
            return str(row["frames"]).encode()
        manifest = await self.manifest(row["pack_id"])
        return bytes(manifest.instances[row["line"]].frames)

    async def _load(self, pack_id: str) -> Manifest:
        place = await self.place(pack_id)
        try:
            manifest = await asyncio.to_thread(self._get_manifest, place.manifests[0], place.manifest_sha256)
        except NotFound:
            FALLBACKS.inc()
            place = await self.place(pack_id, again=True)
            if len(place.manifests) == 1:
                raise Defect(f"manifest of pack {pack_id} is in no tier") from None
            manifest = await asyncio.to_thread(self._get_manifest, place.manifests[1], place.manifest_sha256)
        MANIFEST_READS.labels("object").inc()
        size = sum(len(i.header) + len(i.frames) + LINE_BYTES for i in manifest.instances)
        if size <= self._bytes_max // 4:
            self._manifests[pack_id] = (manifest, size)
            self._bytes += size
            while self._bytes > self._bytes_max:
                _, (_, dropped) = self._manifests.popitem(last=False)
                self._bytes -= dropped
            MANIFEST_BYTES.set(self._bytes)
        return manifest

    def _get_manifest(self, copy: Copy, sha256: str) -> Manifest:
        data = self._objects.get(copy.bucket, copy.key, version_id=copy.version_id)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise Defect(f"manifest {copy.key} has not the checksum of its event")
        return decode_manifest(data)
