"""One producing process's chain of events, which is also its outbox.

A publication goes these steps, in this order:

1. the record is numbered, linked to the one before by its SHA-256 and written to the journal
2. the journal is fsynced, together with everybody else's who waits: `kept` resolves
3. the record is sent to Kafka; what fails is sent again, byte for byte, until it is acknowledged
4. Kafka has acknowledged it: `acknowledged` resolves with its position
5. the mark in the journal moves on, lazily; from time to time the head is anchored in S3

A crash after 2 sends again at the next start. A record may therefore be in the log twice, with identical bytes; it is
never missing and never changed. With Kafka away for hours, records wait in the journal; in memory is only their place.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec

from infra import clock, faults, telemetry
from infra.chain_journal import Entry, Head, Journal, Place
from infra.ports import Log, Objects, Position
from infra.settings import Role, Settings
from schemas.envelope import Link, Record, encode, record_hash
from schemas.errors import Defect, Overloaded, Permanent, Transient
from schemas.events import Event

log = telemetry.logger(__name__)

PUBLISHED = telemetry.Counter("sijil_events_published", "Events fsynced in the chain's journal", ["type"])
ACKNOWLEDGED = telemetry.Counter("sijil_events_acknowledged", "Events acknowledged by Kafka")
SEND_FAILED = telemetry.Counter("sijil_event_sends_failed", "Sends that Kafka did not acknowledge; they are repeated")

IN_FLIGHT_MAX = 2_000
"""Records handed to Kafka and not yet acknowledged; the rest waits in the journal."""
ROUND_MAX = 1_000
"""Records of one write to the journal."""
RETRY_S = (0.1, 5.0)
"""First and longest wait before a failed record is sent again."""
MARK_S = 1.0
EXIT_STATUS = 74
"""EX_IOERR: the disk did not keep what it was given."""


class ChainBroken(Transient):
    """The journal's disk failed: nothing is promised any more and the process ends."""


@dataclass(slots=True)
class Publication:
    """An event on its way. `kept`: it is fsynced and will reach Kafka whatever happens. `acknowledged`: it has."""

    id: str
    kept: Future[None] = field(default_factory=Future)
    acknowledged: Future[Position] = field(default_factory=Future)


@dataclass(slots=True)
class _Waiting:
    """A record between journal and acknowledgement."""

    sequence: int
    hash: str
    place: Place
    record: Record | None
    publication: Publication | None
    """None for what an earlier process left."""


def end_process(error: BaseException) -> None:
    """An fsync error is never retried: what the kernel dropped cannot be known (design, Spool)."""
    log.error("chain.broken", error=error)
    os._exit(EXIT_STATUS)


class ChainedLog:
    """Thread-safe. One per process, guarded by a lock file."""

    def __init__(
        self,
        log: Log,
        folder: Path,
        source: str,
        *,
        backlog_max: int,
        anchors: tuple[Objects, str] | None = None,
        anchor_interval_s: float = 120.0,
        fatal: Callable[[BaseException], None] = end_process,
    ) -> None:
        """Takes the folder, recovers it and sends again what is left. `anchors`: (objects, bucket).

        Raises Permanent when another process has the folder, Defect when the journal is damaged or behind its anchors.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._lock_fd = _lock_folder(folder)
        self._log, self.source, self._fatal = log, source, fatal
        self._backlog_max = backlog_max
        self._journal = Journal(folder)
        self._head = self._journal.head
        self._changed = threading.Condition()
        self._new: list[tuple[Entry, Publication]] = []
        self._unsent: deque[_Waiting] = deque(_Waiting(n, h, p, None, None) for n, h, p in self._journal.unacknowledged)
        self._in_flight: dict[int, _Waiting] = {}
        self._done: dict[int, str] = {}
        """Acknowledged out of order: sequence → hash, until the mark reaches them."""
        self._mark = self._first_mark()
        self._broken: ChainBroken | None = None
        self._closing = False
        self._retry_s = RETRY_S[0]
        self._retry_at = 0.0
        self._anchors = _Anchors(*anchors, source) if anchors else None
        if self._anchors:
            self._anchors.compare(self._head)
        self._anchor_interval_s = anchor_interval_s
        self._threads = [
            threading.Thread(target=self._write_rounds, name="chain-journal", daemon=True),
            threading.Thread(target=self._send_rounds, name="chain-sender", daemon=True),
            threading.Thread(target=self._keep_marks, name="chain-marks", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @classmethod
    def open(cls, settings: Settings, role: Role, log: Log, objects: Objects) -> ChainedLog:
        """The chain of this process, `/<role>/<site>/<instance>`."""
        return cls(
            log,
            settings.chain(role),
            f"/{role}/{settings.site}/{settings.instance}",
            backlog_max=settings.chain_backlog_max,
            anchors=(objects, settings.bucket_anchors),
            anchor_interval_s=settings.anchor_interval_s,
        )

    @property
    def backlog(self) -> int:
        """Records that Kafka has not acknowledged."""
        with self._changed:
            return self._backlog()

    def publish(self, event: Event, *, id: str = "", subject: str = "", traceparent: str = "") -> Publication:
        """Put an event on its way. Raises Overloaded when too many wait for Kafka, ChainBroken when the disk failed."""
        publication = Publication(id or str(clock.uuid7()))
        with self._changed:
            if self._broken or self._closing:
                raise self._broken or Transient("the chain is closing")
            if self._backlog() >= self._backlog_max:
                raise Overloaded(f"{self._backlog_max} events wait for Kafka", 10.0)
            # Step 1: numbered and linked; written by the journal's thread in this order
            link = Link(self._head.sequence + 1, self._head.hash)
            record = encode(
                event,
                id=publication.id,
                source=self.source,
                time=clock.rfc3339(clock.now()),
                subject=subject,
                link=link,
                traceparent=traceparent,
            )
            self._head = Head(link.sequence, record_hash(record))
            self._new.append((Entry(link.sequence, self._head.hash, record), publication))
            self._changed.notify_all()
        PUBLISHED.labels(event.TYPE).inc()
        return publication

    def close(self, timeout_s: float) -> None:
        """Wait for Kafka as long as given; what is left is sent at the next start and its futures fail."""
        deadline = clock.monotonic() + timeout_s
        with self._changed:
            while self._backlog() and (left := deadline - clock.monotonic()) > 0:
                self._changed.wait(left)
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        with self._changed:
            left_over = [*self._in_flight.values(), *self._unsent]
        for waiting in left_over:
            if waiting.publication:
                _fail(waiting.publication.acknowledged, Transient("not acknowledged yet; sent at the next start"))
        self._save_mark()
        self._journal.close()
        os.close(self._lock_fd)

    # -------------------------------------------------------------------------------------------- step 2: the journal

    def _write_rounds(self) -> None:
        while True:
            with self._changed:
                while not self._new and not self._closing:
                    self._changed.wait()
                round_, self._new = self._new[:ROUND_MAX], self._new[ROUND_MAX:]
            if not round_:
                return
            try:
                # Step 2: durable, all that wait at once
                places = self._journal.write([entry for entry, _ in round_])
                self._journal.sync()
            except OSError as error:
                self._break(error, [p for _, p in round_])
                return
            faults.point("chain.after-fsync")
            waiting = [
                _Waiting(entry.sequence, entry.hash, place, entry.record, publication)
                for (entry, publication), place in zip(round_, places, strict=True)
            ]
            for w in waiting:
                if w.publication:
                    w.publication.kept.set_result(None)
            with self._changed:
                for w in waiting[max(0, IN_FLIGHT_MAX - len(self._unsent)) :]:
                    w.record = None  # far from being sent: its place is enough
                self._unsent.extend(waiting)
                self._changed.notify_all()

    def _break(self, error: OSError, waiting: list[Publication]) -> None:
        with self._changed:
            self._broken = ChainBroken("the journal of the chain cannot be written")
            waiting += [p for _, p in self._new]
            self._new = []
        for publication in waiting:
            _fail(publication.kept, self._broken)
            _fail(publication.acknowledged, self._broken)
        self._fatal(error)

    # -------------------------------------------------------------------------------------------- steps 3 and 4: Kafka

    def _send_rounds(self) -> None:
        while (waiting := self._next()) is not None:
            try:
                record = waiting.record or Journal.read(waiting.place)
                # Step 3: sent; again and again until acknowledged
                future = self._log.append(record)
            except Transient:
                self._not_sent(waiting)
                continue
            except Defect as error:
                self._break(OSError(str(error)), [])
                return
            faults.point("chain.after-send")
            future.add_done_callback(partial(self._answered, waiting))

    def _next(self) -> _Waiting | None:
        """The next to send, moved into flight; None at the end."""
        with self._changed:
            while not self._closing:
                wait_s = self._retry_at - clock.monotonic()
                if self._unsent and len(self._in_flight) < IN_FLIGHT_MAX and wait_s <= 0:
                    waiting = self._unsent.popleft()
                    self._in_flight[waiting.sequence] = waiting
                    return waiting
                self._changed.wait(wait_s if self._unsent and wait_s > 0 else None)
            return None

    def _answered(self, waiting: _Waiting, future: Future[Position]) -> None:
        if future.cancelled() or future.exception() is not None:
            self._not_sent(waiting)
            return
        faults.point("chain.after-acknowledgement")
        with self._changed:
            # Step 4: acknowledged
            self._in_flight.pop(waiting.sequence, None)
            self._done[waiting.sequence] = waiting.hash
            while (following := self._done.pop(self._mark.sequence + 1, None)) is not None:
                self._mark = Head(self._mark.sequence + 1, following)
            self._retry_s = RETRY_S[0]
            self._changed.notify_all()
        ACKNOWLEDGED.inc()
        if waiting.publication and not waiting.publication.acknowledged.done():
            waiting.publication.acknowledged.set_result(future.result())

    def _not_sent(self, waiting: _Waiting) -> None:
        SEND_FAILED.inc()
        with self._changed:
            self._in_flight.pop(waiting.sequence, None)
            # Back in front of all that came later: within a partition the order of sending is that of the chain.
            at = next((n for n, w in enumerate(self._unsent) if w.sequence > waiting.sequence), len(self._unsent))
            self._unsent.insert(at, waiting)
            if clock.monotonic() >= self._retry_at:
                self._retry_at = clock.monotonic() + self._retry_s
                self._retry_s = min(2 * self._retry_s, RETRY_S[1])
            self._changed.notify_all()

    # -------------------------------------------------------------------------------------------- step 5: marks

    def _keep_marks(self) -> None:
        anchor_at = 0.0
        while True:
            with self._changed:
                if self._closing:
                    return
                self._changed.wait_for(lambda: self._closing, MARK_S)
            self._save_mark()
            if self._anchors and clock.monotonic() >= anchor_at:
                self._anchors.put(self._mark)
                anchor_at = clock.monotonic() + self._anchor_interval_s

    def _save_mark(self) -> None:
        with self._changed:
            mark = self._mark.sequence
        if mark > self._journal.acknowledged:
            try:
                self._journal.mark(mark)
            except OSError as error:  # lazy on purpose: without it more is sent again, nothing is lost
                log.warning("chain.mark-not-written", error=type(error).__name__)

    def _first_mark(self) -> Head:
        """The last record known to be acknowledged, as the journal tells it."""
        left = self._journal.unacknowledged
        if not left:
            return self._head
        first = Journal.read(left[0][2])
        prevhash = dict(first.headers)["ce_prevhash"].decode()
        return Head(left[0][0] - 1, prevhash)

    def _backlog(self) -> int:
        return self._head.sequence - self._mark.sequence - len(self._done)


class _Anchors:
    """Heads of one chain in S3: what Kafka has acknowledged up to there cannot get lost unseen."""

    def __init__(self, objects: Objects, bucket: str, source: str) -> None:
        self._objects, self._bucket, self._source = objects, bucket, source
        self._prefix = source.replace("/", "_") + "/"
        self._last = -1

    def compare(self, head: Head) -> None:
        """Refuse to go on with a journal that is behind what was anchored: it would number records twice."""
        try:
            newest = max(self._objects.list(self._bucket, self._prefix), default="")
        except Transient:
            log.warning("chain.anchors-not-compared", source=self._source)
            return
        anchored = int(newest.rpartition("/")[2].partition(".")[0]) if newest else 0
        if anchored > head.sequence:
            raise Defect(
                f"the journal of {self._source} ends at {head.sequence}, but {anchored} was anchored: restore its"
                " folder, or give this process another SIJIL_INSTANCE"
            )
        self._last = anchored

    def put(self, head: Head) -> None:
        """Anchor a head, if it is new. S3 away: at the next time."""
        if head.sequence <= max(self._last, 0):
            return
        anchor = {
            "source": self._source,
            "sequence": head.sequence,
            "hash": head.hash,
            "time": clock.rfc3339(clock.now()),
        }
        body = msgspec.json.encode(anchor)
        digest = hashlib.sha256(body).hexdigest()
        try:
            key = f"{self._prefix}{head.sequence:020d}.json"
            self._objects.put(self._bucket, key, body, sha256=digest, content_type="application/json")
        except (Transient, Defect) as error:  # Defect: anchored already, at another time
            log.warning("chain.not-anchored", source=self._source, sequence=head.sequence, error=type(error).__name__)
            if isinstance(error, Transient):
                return
        self._last = head.sequence


def _fail(future: Future[None] | Future[Position], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


def _lock_folder(folder: Path) -> int:
    fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise Permanent(f"the chain in {folder.name} belongs to another process") from error
    return fd
