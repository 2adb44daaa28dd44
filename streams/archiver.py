"""The archiver: copies of instances are compared, packs are copied into the locked archive. Slow work, done aside.

The steps of a batch of study.arrivals:
1. wait until the read models have it: they say what the archive had before
2. copies: equal bytes, or equal canonically, are a recorded no-op; different ones are a conflict
3. those events are published and acknowledged
4. instances that are reports become reports (streams.instance_reports), published and acknowledged likewise
5. each pack and its manifest are copied, verified and locked, then pack.archived is published and acknowledged
6. the batch is acknowledged (streams.following)
A crash repeats the batch: events have the same ids, and a locked copy is taken as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial

from infra import clock, faults, packed, telemetry
from infra.ports import Objects, Position, Select, Stored, Tables
from schemas.errors import Defect, Invalid, NotFound
from schemas.events import DeadLetter, PackStored, UnknownEventType
from schemas.identity import derived_id
from streams import copies
from streams.apply import VIEWS, fact_of
from streams.comparing import Comparing
from streams.copies import Copy
from streams.effects import CopyPack, Emit
from streams.facts import Fact
from streams.instance_reports import InstanceReports
from streams.pack_rows import COLUMNS, TABLE, PackRow
from streams.retry import retrying
from streams.structured_report import CLASSES
from streams.tiering import Kept, archived, copy_of
from streams.timers import Publish

log = telemetry.logger(__name__)

RETRY_S = 60.0
LOOK_S = 0.25
YIELD_S = 20.0
"""Longest it steps aside for one pack: the archive copy is written soon, also under lasting load."""

COMPARED = telemetry.Counter("sijil_copies_compared", "Copies of instances compared", ["result"])
ARCHIVED = telemetry.Counter("sijil_packs_archived", "Packs copied, verified and locked")
ARCHIVED_BYTES = telemetry.Counter("sijil_bytes_archived", "Bytes of them")
DEAD = telemetry.Counter("sijil_archiver_dead_letters", "Packs that could not be archived", ["reason"])

Keep = Callable[[Stored], tuple[str, str]]


class Archiver:
    """What to do with a batch. The ports are handed in."""

    def __init__(
        self,
        tables: Tables,
        objects: Objects,
        publish: Publish,
        keep: Keep,
        busy: Callable[[], Awaitable[bool]],
        *,
        source: str,
        bucket: str,
        documents: str,
        least_years: int,
    ) -> None:
        """`tables`: the active read models. `busy`: whether others need the machine now. `bucket`: the archive's;
        `documents`: that of reports.
        """
        self._tables, self._objects, self._publish = tables, objects, publish
        self._keep, self._busy, self._source = keep, busy, source
        self._bucket, self._least_years = bucket, least_years
        self._reports = InstanceReports(objects, documents)
        self._comparing = Comparing()
        self.progress_at = clock.monotonic()

    async def handle(self, records: Sequence[Stored]) -> Collection[Position]:
        """Steps 1 to 5 of a batch. Returns the records at which partitions have to stand still."""
        stops: dict[int, Position] = {}
        packs: list[tuple[Stored, Fact, PackStored]] = []
        for record in records:
            if record.position.partition in stops:
                continue
            try:
                fact = fact_of(record)
            except UnknownEventType:
                stops[record.position.partition] = record.position
            except Invalid:
                continue  # the worker buries it
            else:
                if isinstance(fact.event, PackStored):
                    packs.append((record, fact, fact.event))
        # Step 1
        for record in {record.position.partition: record for record, _, _ in packs}.values():
            await self._projected(record.position)
        known = []
        for record, fact, event in packs:
            rows = await retrying("rows", partial(self._rows, event.study_uid, fact.offset), RETRY_S)
            # None of its own: a record that came twice, or one in the dead letters.
            if rows and rows[-1].offset == fact.offset:
                known.append((record, fact, event, rows))
        # Steps 2 and 3
        for _, fact, event, rows in known:
            emits = await retrying("compare", partial(self._compare, fact, event, rows), RETRY_S)
            await retrying("publish", partial(self._publish, emits), RETRY_S)
            faults.point("archiver.compared")
        self._comparing.close()
        # Step 4
        for _, fact, event, rows in known:
            if CLASSES.intersection(rows[-1].summary.sop_classes):
                emits = await retrying("reports", partial(self._reports.of_pack, fact, event), RETRY_S)
                await retrying("publish", partial(self._publish, emits), RETRY_S)
        # Step 5
        for record, fact, event, rows in known:
            await self._step_aside()
            kept = Kept(rows[0].summary.study.study_date, fact.log_ms)
            await self._archive(record, copy_of(event, kept, self._least_years))
            self.progress_at = clock.monotonic()
        self.progress_at = clock.monotonic()
        return list(stops.values())

    async def _projected(self, place: Position) -> None:
        """Wait until the read models have a record. Without a worker there is nothing to do here."""
        where = {"projection": VIEWS, "topic": place.topic, "partition": place.partition}
        query = Select("projection_positions", where, ("next_offset",))
        while True:
            rows = await retrying("position", lambda: self._tables.select(query), RETRY_S)
            if rows and rows[0]["next_offset"] > place.offset:
                return
            await asyncio.sleep(LOOK_S)

    async def _rows(self, study_uid: str, offset: int) -> list[PackRow]:
        query = Select(TABLE, {"study_uid": study_uid}, COLUMNS, upper=("record_offset", offset + 1))
        return [PackRow.read(row) for row in await self._tables.select(query)]

    # -------------------------------------------------------------------------------------------- copies

    async def _compare(self, fact: Fact, event: PackStored, rows: Sequence[PackRow]) -> list[Emit]:
        series = copies.series_to_read(rows, event.instances)
        if not series:
            return []
        queries = [
            Select("instances", {"study_uid": event.study_uid, "series_uid": uid}, copies.COLUMNS) for uid in series
        ]
        found = [Copy.read(row) for answer in await self._tables.select_many(queries) for row in answer]
        compared = copies.compare(found, fact.offset)
        emits = copies.duplicates_by_sha256(rows[-1], compared.same)
        COMPARED.labels("same").inc(compared.same)
        equal = []
        for copy, earlier in compared.others:
            verdict = await self._canonically(copy, earlier)
            COMPARED.labels(verdict or "canonical").inc()
            if verdict:
                emits.append(copies.conflict(event.study_uid, earlier[0], copy, fact.log_time, verdict))
            else:
                equal.append(copy.sop_uid)
        return emits + copies.duplicates_canonical(rows[-1], equal)

    async def _canonically(self, copy: Copy, earlier: Sequence[Copy]) -> str:
        """ "" if one of the earlier copies says the same, else why it is a conflict."""
        mine = await self._digest(copy)
        if not mine:
            return copies.NOT_COMPARABLE
        for other in earlier:
            if await self._digest(other) == mine:
                return ""
        return copies.DIFFERS

    async def _digest(self, copy: Copy) -> str:
        rows = await self._tables.select(Select("packs", {"pack_id": copy.pack_id}, ("bucket", "pack_key", "blocks")))
        if not rows or rows[0]["bucket"] is None:
            return ""
        length = copy.length - copy.dataset_offset
        start = copy.tar_offset + copy.dataset_offset
        try:
            dataset = await asyncio.to_thread(
                packed.read,
                self._objects,
                rows[0]["bucket"],
                rows[0]["pack_key"],
                packed.blocks_of(rows[0]["blocks"]),
                start,
                length,
            )
        except NotFound:
            return ""
        return await self._comparing.digest(dataset, copy.transfer_syntax)

    # -------------------------------------------------------------------------------------------- tiering

    async def _step_aside(self) -> None:
        """Ingest and queries first: a copy costs the S3 service as much as the pack did."""
        deadline = clock.monotonic() + YIELD_S
        while await retrying("busy", self._busy, RETRY_S):
            if clock.monotonic() > deadline:
                return
            await asyncio.sleep(4 * LOOK_S)

    async def _archive(self, record: Stored, copy: CopyPack) -> None:
        try:
            versions = await retrying("archive", partial(asyncio.to_thread, self._copy, copy), RETRY_S)
        except NotFound:
            await self._bury(record, "pack-missing")
        except Defect:
            # Its bytes are not those of its event, here or in the copy: nothing that trying again would mend.
            await self._bury(record, "pack-checksum")
        else:
            faults.point("archiver.copied")
            await retrying("publish", partial(self._publish, [archived(copy, self._bucket, *versions)]), RETRY_S)
            ARCHIVED.inc()
            ARCHIVED_BYTES.inc(copy.pack_size)

    def _copy(self, copy: CopyPack) -> tuple[str, str]:
        """Version ids of pack and manifest. Raises NotFound, Transient, Defect."""
        found = []
        for key, sha256 in ((copy.pack_key, copy.pack_sha256), (copy.manifest_key, copy.manifest_sha256)):
            info = self._objects.copy_locked(
                (copy.bucket, key), (self._bucket, key), sha256=sha256, retain_until=copy.retain_until
            )
            found.append(info.version_id)
        return found[0], found[1]

    async def _bury(self, record: Stored, reason: str) -> None:
        place = record.position
        log.error(
            "pack cannot be archived", reason=reason, topic=place.topic, partition=place.partition, offset=place.offset
        )
        key, sha256 = await retrying("bury", partial(asyncio.to_thread, self._keep, record), RETRY_S)
        letter = DeadLetter(
            reason=reason,
            origin_topic=place.topic,
            origin_partition=place.partition,
            origin_offset=place.offset,
            origin_type=PackStored.TYPE,
            payload_key=key,
            payload_sha256=sha256,
            consumer=self._source,
        )
        id = derived_id("dead-letter", self._source, place.topic, place.partition, place.offset)
        await retrying("publish", partial(self._publish, [Emit(letter, id, letter.key())]), RETRY_S)
        DEAD.labels(reason).inc()
