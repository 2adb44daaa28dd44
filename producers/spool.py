"""The spool: the promise behind every acknowledgement.

An instance goes these steps, and the future of `append` resolves at their end:

1. its dataset's SHA-256 is made, and there must be room for it;
2. its bytes and a journal line are written to the open pack of its study;
3. both files are synced, together with everybody else's who waits (`producers.committer`).

Only then may the sender be told that it is stored. A pack is sealed at its size, some time after the last association
or request that fed it has ended, after a while without a new instance, or when somebody asks (`seal_instances`); then
it is `producers.publish`'s. At start, what an earlier process left is recovered, sealed and published like the rest.

Bounded: threads wait for their own futures, open packs for `OPEN_PACKS_MAX`, bytes for the watermarks of
`producers.shelf`.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Collection
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from infra import clock, telemetry
from infra.settings import Settings
from producers.body import Body, Filed, FileWriter, dataset_sha256
from producers.committer import Committer, SpoolBroken, end_process
from producers.journal import Opened
from producers.open_pack import Instance, OpenPack
from producers.recovery import StoredPack, recover, remove
from producers.shelf import MB, Backlog, Limits, Room, Shelf
from schemas.errors import Overloaded, Permanent

log = telemetry.logger(__name__)

INSTANCES = telemetry.Counter("sijil_spool_instances", "Instances made durable, by whether they were new", ["kind"])
BYTES = telemetry.Counter("sijil_spool_bytes", "Bytes of new instances made durable")
SEALED = telemetry.Counter("sijil_spool_packs_sealed", "Packs sealed, by reason", ["reason"])

OPEN_PACKS_MAX = 200
"""Packs open at once; beyond, the one that was fed longest ago is sealed. Two file descriptors each."""
PACK_INSTANCES_MAX = 5000
"""A pack is sealed at so many instances, however small: its manifest is made in memory."""
TICK_S = 0.05
"""How often deadlines of open packs are looked at while there are any."""
EVICT_S = 5.0
SEALING_S = 30.0
"""Longest wait for packs to be durable that somebody asked to be sealed."""
SEALING_TICK_S = 0.01
FULL_RETRY_S = 30.0


class SpoolFull(Overloaded):
    """The second watermark is reached, or the disk refused a write: nothing was kept of this instance."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of an acknowledged instance."""

    pack_id: str
    sha256: str
    repeated: bool
    """The open pack had it already."""


@dataclass(frozen=True)
class Rules:
    """When a pack is sealed: bytes and seconds, as in `Settings`."""

    seal_bytes: int
    own_bytes: int
    idle_s: float
    release_s: float

    @classmethod
    def of(cls, settings: Settings) -> Rules:
        """The rules of an installation."""
        return cls(settings.pack_seal_mb * MB, settings.pack_own_mb * MB, settings.pack_idle_s, settings.pack_release_s)


Key = tuple[str, str, str]
"""Study UID, site, issuer: a pack says the last two once for all its instances."""


class Feeder:
    """An association or a request: while it is open, what it fed is not sealed for having been left."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._packs: set[OpenPack] = set()

    def append(self, instance: Instance, body: Body, *, site: str, issuer: str) -> Future[Kept]:
        """See `Spool.append`."""
        return self._spool.append(instance, body, site=site, issuer=issuer, feeder=self)

    def close(self) -> None:
        """The association or request has ended."""
        self._spool.release(self._packs)

    def __enter__(self) -> Feeder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def feeds(self, pack: OpenPack) -> bool:
        """Note a pack; True the first time. Called under the spool's lock."""
        if pack in self._packs:
            return False
        if len(self._packs) >= OPEN_PACKS_MAX:
            self._packs = {p for p in self._packs if not p.closed}
        self._packs.add(pack)
        return True


class Spool:
    """One per process, guarded by a lock file. Thread-safe."""

    def __init__(
        self,
        folder: Path,
        rules: Rules,
        limits: Limits,
        *,
        site: str,
        gateway: str,
        fatal: Callable[[BaseException], None] = end_process,
    ) -> None:
        """Takes the folder and recovers what is in it. Raises Permanent when another process has it."""
        self.incoming = folder / "incoming"
        self.commitments = folder / "commitments"
        """Where storage commitments are kept that name what is in the spool."""
        self._rules, self._gateway = rules, gateway
        packs = folder / "packs"
        for path in (packs, self.incoming):
            path.mkdir(parents=True, exist_ok=True)
        self._lock_file = _lock_folder(folder)
        for path in self.incoming.iterdir():
            path.unlink()
        fallback = Opened(pack_id="", study_uid="", site=site, issuer=site, gateway=gateway, opened="")
        self.shelf = Shelf(packs, limits, recover(packs, fallback))
        self._folder = packs
        self._committer = Committer(packs, fatal)
        self._lock = threading.Lock()
        self._open: dict[Key, OpenPack] = {}
        self._sealing: set[OpenPack] = set()
        """Sealed and not durable yet, so on no shelf."""
        self._stop = threading.Event()
        self._some_open = threading.Event()
        self._sealer = threading.Thread(target=self._watch, name="spool-sealer", daemon=True)
        self._sealer.start()

    @classmethod
    def open(cls, settings: Settings, role: str, gateway: str) -> Spool:
        """The spool of this process."""
        limits = Limits(
            low_free=settings.spool_low_free_mb * MB,
            full_free=settings.spool_full_free_mb * MB,
            spool_max=settings.spool_max_mb * MB,
            cache_hours=settings.spool_cache_hours,
        )
        return cls(settings.spool(role), Rules.of(settings), limits, site=settings.site, gateway=gateway)

    # -------------------------------------------------------------------------------------------- taking in

    def feeder(self) -> Feeder:
        """For an association or a request; close it at its end."""
        return Feeder(self)

    def writer(self) -> FileWriter:
        """A file for a body that is too long, or may become too long, for memory."""
        return FileWriter(self.incoming / str(clock.uuid7()))

    def room(self) -> Room:
        """Whether more may come in."""
        return self.shelf.room(self._open_bytes())

    def append(self, instance: Instance, body: Body, *, site: str, issuer: str, feeder: Feeder) -> Future[Kept]:
        """Take an instance in; the future resolves when it is durable, or fails with SpoolBroken.

        The caller discards the body in any case. Raises SpoolFull, with nothing kept.
        """
        # Step 1: what it is, and whether there is room
        if self.room() is Room.FULL:
            raise SpoolFull("the spool is full", FULL_RETRY_S)
        digest = dataset_sha256(body, instance.dataset_offset)
        received = clock.rfc3339(clock.now())
        key = (instance.study_uid, site, issuer)
        try:
            # Step 2: bytes and journal line
            if isinstance(body, Filed) and body.length > self._rules.own_bytes:
                return self._append_own(key, instance, body, digest, received)
            pack, future = self._write(key, instance, body, digest, received, feeder)
        except OSError as error:
            raise SpoolFull("the spool's disk refused a write", FULL_RETRY_S) from error
        if pack.size >= self._rules.seal_bytes or pack.instances >= PACK_INSTANCES_MAX:
            self._seal(key, pack, "size")
        return future

    def _write(
        self, key: Key, instance: Instance, body: Body, digest: str, received: str, feeder: Feeder
    ) -> tuple[OpenPack, Future[Kept]]:
        while True:
            pack = self._pack_for(key, feeder, received)
            with pack.lock:
                if pack.closed:
                    continue  # it was sealed between finding and locking it
                try:
                    stored = pack.add(instance, body, digest, received=received)
                except OSError as error:
                    if pack.closed:  # not even cut back: only a new start can tell what is on the disk
                        self._committer.fail(error)
                    raise
                # Step 3: durable, with everybody else's. Still under the lock: a seal comes later, and closes the
                # files.
                return pack, self._submit(pack, body, digest, stored)

    def _submit(self, pack: OpenPack, body: Body, digest: str, stored: bool) -> Future[Kept]:
        future: Future[Kept] = self._committer.submit(pack, Kept(pack.pack_id, digest, not stored))
        INSTANCES.labels("new" if stored else "repeated").inc()
        if stored:
            BYTES.inc(body.length)
        return future

    def _append_own(self, key: Key, instance: Instance, body: Filed, digest: str, received: str) -> Future[Kept]:
        opened = self._opened(key, received)
        try:
            pack = OpenPack(self._folder, opened, adopt=body)
            with pack.lock:
                pack.add_own(instance, body, digest, received=received)
                future = self._submit(pack, body, digest, True)
        except OSError:
            remove(self._folder, opened.pack_id)
            raise
        self._seal(None, pack, "own")
        return future

    def _opened(self, key: Key, opened: str) -> Opened:
        study_uid, site, issuer = key
        return Opened(
            pack_id=str(clock.uuid7()),
            study_uid=study_uid,
            site=site,
            issuer=issuer,
            gateway=self._gateway,
            opened=opened,
        )

    def _pack_for(self, key: Key, feeder: Feeder, received: str) -> OpenPack:
        """The open pack of a key, made if there is none."""
        with self._lock:
            pack = self._open.get(key)
            if pack is None or pack.closed:
                pack = self._open[key] = OpenPack(self._folder, self._opened(key, received))
                self._some_open.set()
            pack.fed_at = clock.monotonic()
            if feeder.feeds(pack):
                pack.feeders += 1
            # Moved to the end: the first is the one that was fed longest ago.
            del self._open[key]
            self._open[key] = pack
            surplus = next(iter(self._open.items())) if len(self._open) > OPEN_PACKS_MAX else None
        if surplus:
            self._seal(*surplus, "too-many")
        return pack

    # -------------------------------------------------------------------------------------------- sealing

    def release(self, packs: set[OpenPack]) -> None:
        """A feeder has ended."""
        now = clock.monotonic()
        with self._lock:
            for pack in packs:
                pack.feeders -= 1
                pack.released_at = now

    def seal_instances(self, sop_uids: Collection[str]) -> None:
        """Seal the open packs that have a copy of one of these: a storage commitment names them.

        Returns when they, and what was being sealed already, are on the shelf or known to be broken.
        """
        for key, pack in self._open_packs():
            with pack.lock:
                named = pack.has_any(sop_uids)
            if named:
                self._seal(key, pack, "asked")
        deadline = clock.monotonic() + SEALING_S
        with self._lock:
            waiting = set(self._sealing)
        while waiting and clock.monotonic() < deadline:
            self._stop.wait(SEALING_TICK_S)
            with self._lock:
                waiting &= self._sealing
        if waiting:
            raise OSError("the spool's disk is too slow to seal a pack")

    def _seal(self, key: Key | None, pack: OpenPack, reason: str) -> None:
        """Seal a pack unless somebody else did. It goes to the shelf once that is durable."""
        with pack.lock:
            if pack.closed:
                return
            try:
                sealed = pack.seal(clock.rfc3339(clock.now()))
            except OSError as error:
                self._committer.fail(error)  # its members are safe: recovery seals it
                return
            with self._lock:
                self._sealing.add(pack)
                if key is not None and self._open.get(key) is pack:
                    del self._open[key]
            self._to_shelf(pack, StoredPack(pack.opened, sealed))
        SEALED.labels(reason).inc()

    def _to_shelf(self, pack: OpenPack, stored: StoredPack) -> None:
        def put(future: Future[StoredPack]) -> None:
            pack.close()
            if future.exception() is None:
                self.shelf.put(future.result())
            with self._lock:
                self._sealing.discard(pack)

        with suppress(SpoolBroken):  # the process ends; recovery seals it
            self._committer.submit(pack, stored).add_done_callback(put)

    def _watch(self) -> None:
        """The sealer: packs that were left or are idle, and the cache."""
        evict_at = clock.monotonic()
        while not self._stop.is_set():
            self._some_open.wait(EVICT_S)
            self._stop.wait(TICK_S)
            now = clock.monotonic()
            for key, pack in self._open_packs():
                if not pack.feeders and now - pack.released_at >= self._rules.release_s:
                    self._seal(key, pack, "left")
                elif now - pack.fed_at >= self._rules.idle_s:
                    self._seal(key, pack, "idle")
            if now >= evict_at:
                self.shelf.evict(self._open_bytes())
                evict_at = now + EVICT_S

    def _open_packs(self) -> list[tuple[Key, OpenPack]]:
        with self._lock:
            if not self._open:
                self._some_open.clear()
            return list(self._open.items())

    def _open_bytes(self) -> int:
        return sum(pack.size for pack in [*self._open.values(), *self._sealing])

    # -------------------------------------------------------------------------------------------- its state

    def backlog(self) -> Backlog:
        """What is accepted and not yet in S3 and Kafka; the packs still open count as packs."""
        with self._lock:
            ours = len(self._open) + len(self._sealing)
        waiting = self.shelf.backlog(self._open_bytes())
        return Backlog(waiting.packs + ours, waiting.bytes, waiting.oldest_s)

    def close(self) -> None:
        """Seal everything, make it durable and let go of the folder."""
        self._stop.set()
        self._some_open.set()
        self._sealer.join()
        for key, pack in self._open_packs():
            self._seal(key, pack, "stop")
        self._committer.close()
        self.shelf.close()
        os.close(self._lock_file)


def _lock_folder(folder: Path) -> int:
    fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise Permanent(f"the spool {folder} is in use by another process") from error
    return fd
