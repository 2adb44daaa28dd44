"""Sealed packs in the spool: those still to be published, those kept as cache, and how much room is left for more.

Watermarks look at the disk and at the spool's own limit, whichever leaves less. The cache gives way first: packs
older than their time go always, younger ones when room runs short, oldest first. What is not committed is never
evicted.
"""

from __future__ import annotations

import enum
import os
import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from infra import clock, telemetry
from producers.journal import Committed
from producers.recovery import StoredPack, append_line, remove

log = telemetry.logger(__name__)

EVICTED = telemetry.Counter("sijil_spool_packs_evicted", "Committed packs removed from the spool")
MB = 1 << 20


class Room(enum.IntEnum):
    """How much may come in."""

    ENOUGH = 0
    LOW = 1
    """First watermark: no new associations or requests; those open may go on."""
    FULL = 2
    """Second watermark: nothing more."""


@dataclass(frozen=True)
class Limits:
    """Bytes and hours, as in `Settings`."""

    low_free: int
    full_free: int
    spool_max: int
    cache_hours: float


@dataclass(frozen=True)
class Backlog:
    """What is accepted and not yet committed."""

    packs: int
    bytes: int
    oldest_s: float
    """Age of the oldest, seconds; 0 without any."""


class Shelf:
    """Sealed packs by their state. Thread-safe."""

    def __init__(self, folder: Path, limits: Limits, found: Iterable[StoredPack]) -> None:
        self.folder = folder
        self._limits = limits
        self._lock = threading.Condition()
        self._sealed: dict[str, StoredPack] = {}
        self._queue: deque[str] = deque()
        self._cached: dict[str, StoredPack] = {}
        self._bytes_sealed = 0
        self._bytes_cached = 0
        self._closed = False
        for pack in sorted(found, key=lambda p: p.committed.committed if p.committed else ""):
            if pack.committed:
                self._cached[pack.pack_id] = pack
                self._bytes_cached += pack.sealed.size
            else:
                self.put(pack)

    # -------------------------------------------------------------------------------------------- publishing

    def put(self, pack: StoredPack) -> None:
        """A pack is sealed and durable: it may be published."""
        with self._lock:
            self._sealed[pack.pack_id] = pack
            self._queue.append(pack.pack_id)
            self._bytes_sealed += pack.sealed.size
            self._lock.notify()

    def take(self, timeout_s: float) -> StoredPack | None:
        """The next pack to publish, None if there is none in time. The taker owns it until `commit` or `give_back`."""
        with self._lock:
            if not self._queue and not self._closed:
                self._lock.wait(timeout_s)
            return self._sealed[self._queue.popleft()] if self._queue and not self._closed else None

    def give_back(self, pack: StoredPack) -> None:
        """Not published: it waits behind the others."""
        with self._lock:
            self._queue.append(pack.pack_id)

    def commit(self, pack: StoredPack, committed: Committed) -> None:
        """The pack is in S3 and its event acknowledged: durable in its journal, from now on cache."""
        append_line(self.folder, pack.pack_id, committed)
        with self._lock:
            if self._sealed.pop(pack.pack_id, None) is not None:
                self._bytes_sealed -= pack.sealed.size
                self._bytes_cached += pack.sealed.size
            self._cached[pack.pack_id] = replace(pack, committed=committed)

    def reopen(self, pack: StoredPack) -> None:
        """S3 or Kafka has lost a committed pack: it is to be published again."""
        with self._lock:
            if self._cached.pop(pack.pack_id, None) is None:
                return
            self._bytes_cached -= pack.sealed.size
        self.put(replace(pack, committed=None, recovered=True))

    def supersede(self, old: StoredPack, new: StoredPack | None) -> None:
        """A damaged pack was replaced by what could be saved of it."""
        with self._lock:
            if self._sealed.pop(old.pack_id, None) is not None:
                self._bytes_sealed -= old.sealed.size
        if new is not None:
            self.put(new)

    def cached(self) -> list[StoredPack]:
        """Committed packs, oldest commit first."""
        with self._lock:
            return list(self._cached.values())

    def packs(self) -> tuple[list[str], list[str]]:
        """Ids of the packs that are not committed, and of those that are, oldest commit first."""
        with self._lock:
            return list(self._sealed), list(self._cached)

    def close(self) -> None:
        """Wake whoever waits in `take`."""
        with self._lock:
            self._closed = True
            self._lock.notify_all()

    # -------------------------------------------------------------------------------------------- room

    def backlog(self, open_bytes: int = 0) -> Backlog:
        """What waits for S3 and Kafka; `open_bytes` are in packs not sealed yet."""
        with self._lock:
            packs, total = len(self._sealed), self._bytes_sealed + open_bytes
            oldest = min((p.opened.opened for p in self._sealed.values()), default="")
        age = (clock.now() - datetime.fromisoformat(oldest)).total_seconds() if oldest else 0.0
        return Backlog(packs, total, max(0.0, age))

    def room(self, open_bytes: int) -> Room:
        """How much may come in. Cheap: asked for every instance."""
        free = min(self._disk_free(), self._limits.spool_max - self._bytes_sealed - open_bytes)
        if free >= self._limits.low_free:
            return Room.ENOUGH
        # What the cache holds is free for the asking, on a disk that has it and in a spool that may keep it.
        free = min(self._disk_free() + self._bytes_cached, self._limits.spool_max - self._bytes_sealed - open_bytes)
        if free >= self._limits.low_free:
            return Room.ENOUGH
        return Room.LOW if free >= self._limits.full_free else Room.FULL

    def evict(self, open_bytes: int) -> int:
        """Remove what the cache need not or cannot keep; how many packs that was."""
        before = clock.rfc3339(clock.now() - timedelta(hours=self._limits.cache_hours))
        gone = 0
        while True:
            with self._lock:
                pack = next(iter(self._cached.values()), None)
                if pack is None or pack.committed is None:
                    break
                used = self._bytes_sealed + self._bytes_cached + open_bytes
                short = self._disk_free() < self._limits.low_free or used > self._limits.spool_max
                if pack.committed.committed >= before and not short:
                    break
                del self._cached[pack.pack_id]
                self._bytes_cached -= pack.sealed.size
            remove(self.folder, pack.pack_id)
            gone += 1
        if gone:
            EVICTED.inc(gone)
            log.info("spool: cache evicted", packs=gone, free_mb=self._disk_free() // MB)
        return gone

    def _disk_free(self) -> int:
        stat = os.statvfs(self.folder)
        return stat.f_bavail * stat.f_frsize
