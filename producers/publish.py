"""From the spool to the archive: what was acknowledged becomes a pack in S3 and an event in Kafka.

Each sealed pack goes these steps, in this order, again from the first after any fault and after any restart:

1. the tar is compressed, and the manifest made from tar and journal, durable in the spool (producers.packing)
2. the object is in S3 (its SHA-256 sent along, `If-None-Match: *`)
3. the manifest is in S3
4. the event `study.pack-stored` is acknowledged by Kafka; its id is derived from the pack's, so that a second one
   for the same pack is known as such
5. the pack is marked committed in its journal: cache from now on, evictable

Steps 2 to 4 are tried for ever while S3 or Kafka is away; the gateway goes on accepting. While Kafka is away steps 1
to 3 go on for other packs: an event waits in the chain's journal, which bounds how many (Overloaded). What no retry
repairs (an object is there with other bytes, a tar that the disk has damaged and of which nothing could be saved) is
logged, shown in `stuck`, and tried again now and then; it holds up no other pack.

At start, committed packs that are still in the spool are compared with S3 and Kafka: what these have lost is
published again.
"""

from __future__ import annotations

import queue
import random
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from pathlib import Path

from infra import clock, faults, process, telemetry
from infra.chain import ChainedLog
from infra.ports import Log, Objects, Position
from producers.journal import Committed
from producers.packing import Damaged, Packing, Ready
from producers.recovery import StoredPack, is_intact, manifest_path, salvage_sealed
from producers.shelf import Shelf
from schemas.errors import Defect, NotFound, SijilError, Transient
from schemas.events import PackStored
from schemas.identity import derived_id
from schemas.pack import IDENTITY, ZSTD, decode_pack_line, manifest_key, pack_key
from schemas.topics import topic_of

log = telemetry.logger(__name__)

PUBLISHED = telemetry.Counter("sijil_packs_published", "Packs in S3 and acknowledged by Kafka")
ATTEMPTS_FAILED = telemetry.Counter("sijil_publish_failed", "Attempts to publish that failed", ["error"])
STEP_SECONDS = telemetry.Histogram(
    "sijil_publish_seconds",
    "Steps of publishing a pack",
    ["step"],
    buckets=(0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60),
)

DELAY_S = (0.5, 15.0)
"""First and longest wait before S3 or Kafka is tried again."""
STUCK_S = 60.0
"""Wait before a pack is tried again that no retry repairs."""
TAKE_S = 1.0
PACK_TYPES = {IDENTITY: "application/x-tar", ZSTD: "application/zstd"}
MANIFEST_TYPE = "application/gzip"
NICE = 10
"""Senders first: a pack is compressed and sent with what they leave of the processor."""


class Publisher:
    """Threads that take sealed packs from the shelf. `stuck` names packs that no retry repairs, with the reason."""

    def __init__(
        self, shelf: Shelf, chain: ChainedLog, objects: Objects, kafka: Log, *, bucket: str, threads: int
    ) -> None:
        self._shelf, self._chain, self._objects, self._log = shelf, chain, objects, kafka
        self._bucket = bucket
        self._stop = threading.Event()
        self._acknowledged: queue.SimpleQueue[tuple[StoredPack, Future[Position]] | None] = queue.SimpleQueue()
        self.stuck: dict[str, str] = {}
        self._threads = [
            threading.Thread(target=self._upload, args=(n,), name=f"publish-{n}", daemon=True) for n in range(threads)
        ]
        self._committing = threading.Thread(target=self._commit, name="publish-commit", daemon=True)
        self._checking = threading.Thread(target=self._check_cache, name="publish-check", daemon=True)

    def start(self) -> None:
        """Begin; packs found in the spool come first."""
        for thread in (*self._threads, self._committing, self._checking):
            thread.start()

    def close(self, timeout_s: float) -> None:
        """Finish the packs under way, as far as the time goes; the rest is published at the next start."""
        self._stop.set()
        self._shelf.close()
        deadline = clock.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - clock.monotonic()))
        self._acknowledged.put(None)
        self._committing.join(max(0.0, deadline - clock.monotonic()))

    # -------------------------------------------------------------------------------------------- steps 1 to 4

    def _upload(self, number: int) -> None:
        process.give_way(NICE)
        scratch = self._shelf.folder.parent / "outgoing" / str(number)
        packing = Packing(self._shelf.folder, self._objects, self._bucket, scratch)
        delay = DELAY_S[0]
        while not self._stop.is_set():
            pack = self._shelf.take(TAKE_S)
            if pack is None:
                continue
            try:
                self._publish(pack, packing)
                delay = DELAY_S[0]
            except Transient as error:
                ATTEMPTS_FAILED.labels(type(error).__name__).inc()
                log.warning("publish: waiting", pack_id=pack.pack_id, reason=type(error).__name__, delay_s=delay)
                self._shelf.give_back(pack)
                self._stop.wait(delay * random.uniform(0.5, 1.0))  # noqa: S311 (spreads retries, guards nothing)
                delay = min(2 * delay, DELAY_S[1])
            except Exception as error:  # noqa: BLE001 (one pack must never stop the others)
                self._set_aside(pack, error)

    def _publish(self, pack: StoredPack, packing: Packing) -> None:
        faults.point("publish.after-seal")
        folder = self._shelf.folder
        if pack.recovered and not manifest_path(folder, pack.pack_id).exists() and not is_intact(folder, pack):
            self._save_what_is_good(pack)
            return
        # Step 1: object and manifest, the manifest durable in the spool
        try:
            with STEP_SECONDS.labels("pack").time():
                ready = packing.ready(pack)
        except Damaged:
            self._save_what_is_good(pack)
            return
        faults.point("publish.after-manifest")
        # Step 2: the object
        if ready.source is not None:
            with STEP_SECONDS.labels("put-pack").time():
                key = pack_key(pack.pack_id, ready.line.encoding)
                self._put(key, ready.source, ready.line.sha256, PACK_TYPES[ready.line.encoding])
            packing.trim()
        # Step 3: the manifest
        with STEP_SECONDS.labels("put-manifest").time():
            path = manifest_path(folder, pack.pack_id)
            self._put(manifest_key(pack.pack_id), path, ready.manifest_sha256, MANIFEST_TYPE)
        faults.point("publish.after-upload")
        # Step 4: the event; acknowledged later, see _commit
        publication = self._chain.publish(self._event(pack, ready), id=event_id(pack.pack_id))
        publication.acknowledged.add_done_callback(lambda future: self._acknowledged.put((pack, future)))
        faults.point("publish.after-event")
        self.stuck.pop(pack.pack_id, None)

    def _put(self, key: str, path: Path, digest: str, content_type: str) -> None:
        self._objects.put(self._bucket, key, path, sha256=digest, content_type=content_type)

    def _event(self, pack: StoredPack, ready: Ready) -> PackStored:
        return PackStored(
            pack_id=pack.pack_id,
            study_uid=pack.opened.study_uid,
            site=pack.opened.site,
            gateway=pack.opened.gateway,
            door=ready.door,
            bucket=self._bucket,
            pack_key=pack_key(pack.pack_id, ready.line.encoding),
            pack_size=ready.line.size,
            pack_sha256=ready.line.sha256,
            manifest_key=manifest_key(pack.pack_id),
            manifest_size=ready.manifest_size,
            manifest_sha256=ready.manifest_sha256,
            instances=pack.sealed.instances,
            repeats=pack.sealed.repeats,
            opened=pack.opened.opened,
            sealed=pack.sealed.sealed,
        )

    def _save_what_is_good(self, pack: StoredPack) -> None:
        """The disk has damaged a sealed pack of which nothing is in S3 yet: its good members become another."""
        log.error("publish: pack damaged in the spool", pack_id=pack.pack_id, instances=pack.sealed.instances)
        saved = salvage_sealed(self._shelf.folder, pack)
        if saved is None:
            raise Defect(f"nothing of pack {pack.pack_id} can be read")
        self._shelf.supersede(pack, saved)

    def _set_aside(self, pack: StoredPack, error: Exception) -> None:
        """No retry repairs it: a person has to look. Tried again after a while, in case somebody did."""
        ATTEMPTS_FAILED.labels(type(error).__name__).inc()
        self.stuck[pack.pack_id] = str(error) if isinstance(error, SijilError) else type(error).__name__
        log.error("publish: pack stuck", error=error, pack_id=pack.pack_id)
        timer = threading.Timer(STUCK_S, self._shelf.give_back, (pack,))
        timer.daemon = True
        timer.start()

    # -------------------------------------------------------------------------------------------- step 5

    def _commit(self) -> None:
        while (item := self._acknowledged.get()) is not None:
            pack, future = item
            error = future.exception()
            if error is not None:  # the chain gave up: it is closing
                self._shelf.give_back(pack)
                continue
            faults.point("publish.after-acknowledgement")
            # Step 5: committed
            try:
                self._shelf.commit(pack, _committed(pack, future.result()))
                PUBLISHED.inc()
            except OSError as failed:
                # Not durable: it stays uncommitted and is published again, which is harmless.
                self._set_aside(pack, failed)

    # -------------------------------------------------------------------------------------------- what was lost

    def _check_cache(self) -> None:
        """Compare committed packs with S3 and Kafka once; what is lost goes through the steps again."""
        packs = self._shelf.cached()
        delay = DELAY_S[0]
        while packs and not self._stop.is_set():
            try:
                lost = self._lost_events(packs)
                while packs and not self._stop.is_set():
                    pack = packs[-1]
                    if pack.pack_id in lost or self._lost_objects(pack):
                        log.warning("publish: lost by S3 or Kafka, published again", pack_id=pack.pack_id)
                        self._shelf.reopen(pack)
                    packs.pop()
            except Transient:
                self._stop.wait(delay)
                delay = min(2 * delay, DELAY_S[1])

    def _lost_objects(self, pack: StoredPack) -> bool:
        try:
            line = decode_pack_line(manifest_path(self._shelf.folder, pack.pack_id).read_bytes())
        except FileNotFoundError:  # evicted meanwhile, or made again with the rest
            return True
        try:
            found = self._objects.head(self._bucket, pack_key(pack.pack_id, line.encoding))
            self._objects.head(self._bucket, manifest_key(pack.pack_id))
        except NotFound:
            return True
        return found.size != line.size

    def _lost_events(self, packs: Iterable[StoredPack]) -> set[str]:
        """Packs whose event the log does not have any more."""
        topic = topic_of(PackStored)
        missing = {event_id(p.pack_id): p.pack_id for p in packs}
        start: dict[int, int] = {}
        for p in packs:
            if p.committed:
                start[p.committed.partition] = min(p.committed.offset, start.get(p.committed.partition, 1 << 62))
        ends = self._log.ends(topic)
        end = {n: ends.get(n, 0) for n, first in start.items() if ends.get(n, 0) > first}
        for record in self._log.read(topic, start, end):
            for name, value in record.headers:
                if name == "ce_id":
                    missing.pop(value.decode("ascii", "replace"), None)
        return set(missing.values())


def event_id(pack_id: str) -> str:
    """Id of the event that says a pack is stored."""
    return derived_id(PackStored.TYPE, pack_id)


def _committed(pack: StoredPack, position: Position) -> Committed:
    return Committed(
        event_id=event_id(pack.pack_id),
        partition=position.partition,
        offset=position.offset,
        committed=clock.rfc3339(clock.now()),
    )
