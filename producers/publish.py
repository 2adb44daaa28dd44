"""From the spool to the archive: what was acknowledged becomes a pack in S3 and an event in Kafka.

Each sealed pack goes these steps, in this order, again from the first after any fault and after any restart:

1. the manifest is made from tar and journal, durable in the spool: from now on the same bytes, whatever happens
2. the tar is in S3 (its SHA-256 sent along, `If-None-Match: *`)
3. the manifest is in S3
4. the event `study.pack-stored` is acknowledged by Kafka; its id is derived from the pack's, so that a second one for
the
   same pack is known as such
5. the pack is marked committed in its journal: cache from now on, evictable

Steps 2 to 4 are tried for ever while S3 or Kafka is away; the gateway goes on accepting. While Kafka is away steps 1
to 3 go on for other packs: an event waits in the chain's journal, which bounds how many (Overloaded). What no retry
repairs (an object is there with other bytes, a tar that the disk has damaged and of which nothing could be saved) is
logged, shown in `stuck`, and tried again now and then; it holds up no other pack.

At start, committed packs that are still in the spool are compared with S3 and Kafka: what these have lost is
published again.
"""

from __future__ import annotations

import os
import queue
import random
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from infra import clock, faults, telemetry
from infra.chain import ChainedLog
from infra.ports import Log, Objects, Position
from producers.body import mapped
from producers.journal import Committed, scan
from producers.manifest import first_sender, manifest
from producers.open_pack import journal_path, tar_path
from producers.recovery import StoredPack, is_intact, manifest_path, salvage_sealed, sync_folder
from producers.shelf import Shelf
from schemas.errors import Defect, NotFound, SijilError, Transient
from schemas.events import PackStored
from schemas.identity import derived_id
from schemas.pack import manifest_key, pack_key
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
TAR_TYPE, MANIFEST_TYPE = "application/x-tar", "application/gzip"


@dataclass(frozen=True)
class Built:
    """A manifest in the spool."""

    size: int
    sha256: str
    door: str
    """Of the pack's first sender."""


Build = Callable[[Path, StoredPack], Built]


def build(folder: Path, pack: StoredPack) -> Built:
    """Step 1, unless it is done: the manifest beside the tar, durable."""
    path = manifest_path(folder, pack.pack_id)
    lines = [r.line for r in scan(journal_path(folder, pack.pack_id).read_bytes()) if r.line is not None]
    if not path.exists():
        data = manifest(pack.opened, pack.sealed, lines, mapped(tar_path(folder, pack.pack_id)))
        temporary = path.with_suffix(".new")
        with open(temporary, "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        os.rename(temporary, path)
        sync_folder(folder)
    data = path.read_bytes()
    return Built(len(data), sha256(data).hexdigest(), first_sender(lines).door)


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
            threading.Thread(target=self._upload, name=f"publish-{n}", daemon=True) for n in range(threads)
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

    def _upload(self) -> None:
        delay = DELAY_S[0]
        while not self._stop.is_set():
            pack = self._shelf.take(TAKE_S)
            if pack is None:
                continue
            try:
                self._publish(pack)
                delay = DELAY_S[0]
            except Transient as error:
                ATTEMPTS_FAILED.labels(type(error).__name__).inc()
                log.warning("publish: waiting", pack_id=pack.pack_id, reason=type(error).__name__, delay_s=delay)
                self._shelf.give_back(pack)
                self._stop.wait(delay * random.uniform(0.5, 1.0))  # noqa: S311 (spreads retries, guards nothing)
                delay = min(2 * delay, DELAY_S[1])
            except Exception as error:  # noqa: BLE001 (one pack must never stop the others)
                self._set_aside(pack, error)

    def _publish(self, pack: StoredPack) -> None:
        faults.point("publish.after-seal")
        folder = self._shelf.folder
        if pack.recovered and not manifest_path(folder, pack.pack_id).exists() and not is_intact(folder, pack):
            self._save_what_is_good(pack)
            return
        # Step 1: the manifest, durable in the spool
        with STEP_SECONDS.labels("manifest").time():
            built = build(self._shelf.folder, pack)
        # Step 2: the tar
        with STEP_SECONDS.labels("tar").time():
            self._put(pack_key(pack.pack_id), tar_path(self._shelf.folder, pack.pack_id), pack.sealed.sha256, TAR_TYPE)
        # Step 3: the manifest
        with STEP_SECONDS.labels("put-manifest").time():
            path = manifest_path(self._shelf.folder, pack.pack_id)
            self._put(manifest_key(pack.pack_id), path, built.sha256, MANIFEST_TYPE)
        faults.point("publish.after-upload")
        # Step 4: the event; acknowledged later, see _commit
        publication = self._chain.publish(self._event(pack, built), id=event_id(pack.pack_id))
        publication.acknowledged.add_done_callback(lambda future: self._acknowledged.put((pack, future)))
        faults.point("publish.after-event")
        self.stuck.pop(pack.pack_id, None)

    def _put(self, key: str, path: Path, digest: str, content_type: str) -> None:
        self._objects.put(self._bucket, key, path, sha256=digest, content_type=content_type)

    def _event(self, pack: StoredPack, built: Built) -> PackStored:
        return PackStored(
            pack_id=pack.pack_id,
            study_uid=pack.opened.study_uid,
            site=pack.opened.site,
            gateway=pack.opened.gateway,
            door=built.door,
            bucket=self._bucket,
            pack_key=pack_key(pack.pack_id),
            pack_size=pack.sealed.size,
            pack_sha256=pack.sealed.sha256,
            manifest_key=manifest_key(pack.pack_id),
            manifest_size=built.size,
            manifest_sha256=built.sha256,
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
            tar = self._objects.head(self._bucket, pack_key(pack.pack_id))
            self._objects.head(self._bucket, manifest_key(pack.pack_id))
        except NotFound:
            return True
        return tar.size != pack.sealed.size

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
