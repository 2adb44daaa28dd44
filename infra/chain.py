"""The event chain of one process: what is published is kept first, then sent until the log has acknowledged it.

1. The event gets the next sequence and the hash of the record before it; the record is complete from here on.
2. It is written to the journal and synced, with all that wait (`infra.chain_journal`): `kept`.
3. It is sent; a failed send is repeated, byte for byte the same (`infra.chain_sender`).
4. The log acknowledges it: `acknowledged`.
5. The journal notes how far everything is acknowledged, and lets go of segments below.

A crash before 2 loses what nobody was told of. After it the record is in the journal, and the next start sends whatever
is not known to be acknowledged: a crash between 3 and 5 sends some records twice, which readers drop (`ce_id`) and
`verify-log` accepts, since they are identical. With the log away, records wait in the journal and not in memory.
"""

from __future__ import annotations

import fcntl
import os
import signal
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Protocol
from weakref import WeakValueDictionary

from infra import anchors as anchor_store
from infra import clock, faults, telemetry
from infra.anchors import Anchor
from infra.chain_journal import SEGMENT_BYTES, Head, Journal
from infra.chain_sender import Sender
from infra.ports import Log, Objects, Position
from infra.settings import Role, Settings
from schemas.envelope import Link, Record, decode, encode, record_hash
from schemas.errors import Defect, Invalid, Overloaded, Permanent, SijilError, Transient
from schemas.events import Event

RECORD_BYTES_MAX = 900_000
"""The log takes records up to 1 MiB; one that it refused would hold up the chain for ever."""
PENDING_MAX = 10_000
"""Records waiting for the disk."""
BATCH_MAX = 1_000
MARK_INTERVAL_S = 1.0
ANCHOR_JOIN_S = 2.0

BACKLOG = telemetry.Gauge("sijil_chain_backlog", "Events kept and not yet acknowledged by the log", ["source"])

_log = telemetry.logger(__name__)


class Publication:
    """One published event. Cancelling a future tells that nobody waits any more; the event is sent all the same."""

    def __init__(self, id: str, sequence: int, chain: ChainedLog) -> None:
        self.id = id
        self.kept: Future[None] = Future()
        """Resolves when the event is on this machine's disk. Fails with Overloaded when the disk is full."""
        self.sequence = sequence
        self.position: Position | None = None
        """Where it is in the log, once acknowledged."""
        self.refused: SijilError | None = None
        """Why it was not kept; another event has its sequence then."""
        self._chain = chain

    @property
    def acknowledged(self) -> Future[Position]:
        """Resolves when the log has acknowledged the event, be it in hours; fails when this process lets go before."""
        return self._chain.acknowledgement(self)


class Publishes(Protocol):
    """What takes events in: the chain of a process, or something in front of it."""

    def publish(self, event: Event, *, id: str = "", subject: str = "", traceparent: str = "") -> Publication:
        """See `ChainedLog.publish`."""


class _Pending:
    """A record on its way to the journal."""

    def __init__(self, hash: str, record: Record, publication: Publication) -> None:
        self.hash = hash
        self.record = record
        self.publication = publication


def end_process(error: BaseException) -> None:
    """What follows a failed sync: nothing this process says about its disk can be believed any more."""
    _log.error("chain.disk-failed", error=error)
    os.kill(os.getpid(), signal.SIGKILL)


class ChainedLog:
    """The chain of one source. `publish` may be called from any thread; it never waits for disk or network."""

    def __init__(
        self,
        log: Log,
        folder: Path,
        source: str,
        *,
        backlog_max: int,
        anchors: tuple[Objects, str] | None,
        anchor_interval_s: float = 120.0,
        mark_interval_s: float = MARK_INTERVAL_S,
        segment_bytes: int = SEGMENT_BYTES,
        fatal: Callable[[BaseException], None] = end_process,
    ) -> None:
        """Takes the source's lock and sends what is left.

        Raises Permanent when another process has it, Defect when the journal is damaged or lost, Transient when a
        first start cannot ask S3 whether it is one.
        """
        self.source = source
        self._backlog_max = backlog_max
        self._fatal = fatal
        self._mark_interval_s = mark_interval_s
        folder.mkdir(parents=True, exist_ok=True)
        self._lock_file = _locked(folder / "lock", source)
        try:
            if anchors is not None and not Journal.exists(folder):
                _refuse_second_life(source, *anchors)
            self._journal = Journal(folder, source, segment_bytes)
        except BaseException:
            os.close(self._lock_file)
            raise
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._closing = threading.Event()
        self._refusing: SijilError | None = None  # why nothing more is taken
        self._ended: SijilError | None = None  # why nothing more is acknowledged
        self._head = self._journal.head  # of everything published
        self._pending: deque[_Pending] = deque()
        self._told: WeakValueDictionary[int, Publication] = WeakValueDictionary()
        self._awaited: dict[int, Future[Position]] = {}
        self._left = self._left_by_the_last_life()
        self._sender = Sender(log, self._journal, source, acknowledged=self._acknowledged, broken=self._break)
        self._keeper = threading.Thread(target=self._keep_until_closed, name="chain-keep", daemon=True)
        self._keeper.start()
        self._anchoring: threading.Thread | None = None
        if anchors is not None:
            target = partial(self._anchor_until_closed, *anchors, anchor_interval_s)
            self._anchoring = threading.Thread(target=target, name="chain-anchor", daemon=True)
            self._anchoring.start()

    @classmethod
    def open(cls, settings: Settings, role: Role, log: Log, objects: Objects) -> ChainedLog:
        """The chain of a process of `role`: `/<role>/<site>/<instance>`."""
        return cls(
            log,
            settings.chain(role) / settings.instance,
            f"/{role}/{settings.site}/{settings.instance}",
            backlog_max=settings.chain_backlog_max,
            anchors=(objects, settings.bucket_anchors),
            anchor_interval_s=settings.anchor_interval_s,
        )

    def _left_by_the_last_life(self) -> dict[str, Publication]:
        """What is kept and not known to be acknowledged, by ids that their facts decide (UUIDv5)."""
        first = self._journal.acknowledged + 1
        left = {}
        for entry in self._journal.read(first) if first <= self._head.sequence else ():
            id = next((v.decode("ascii", "replace") for n, v in entry.record.headers if n == "ce_id"), "")
            if id[14:15] == "5":
                left[id] = self._told[entry.sequence] = Publication(id, entry.sequence, self)
                left[id].kept.set_result(None)
        return left

    @property
    def backlog(self) -> int:
        """Events published and not yet acknowledged."""
        return self._head.sequence - self._sender.count

    # ------------------------------------------------------------------------------------------------ publishing

    def publish(self, event: Event, *, id: str = "", subject: str = "", traceparent: str = "") -> Publication:
        """Raises Overloaded when too much is waiting, Invalid for an event that its own schema refuses.

        `id` is for events whose id is decided by what decided them; a new one is made otherwise. One that a process
        before this has published under such an id, and that still waits for the log, is not published again.
        """
        if id in self._left:
            return self._left[id]
        id = id or str(clock.uuid7())
        time = clock.rfc3339(clock.now())
        make = partial(encode, event, id=id, source=self.source, time=time, subject=subject, traceparent=traceparent)
        _check(make())
        with self._lock:
            if self._refusing is not None:
                raise self._refusing
            if self.backlog >= self._backlog_max or len(self._pending) >= PENDING_MAX:
                raise Overloaded(f"{self.source}: {self.backlog} events wait for the log")
            sequence = self._head.sequence + 1
            record = make(link=Link(sequence, self._head.hash))  # Step 1
            publication = Publication(id, sequence, self)
            self._head = Head(sequence, record_hash(record))
            self._pending.append(_Pending(self._head.hash, record, publication))
            self._told[sequence] = publication
            self._changed.notify()
        return publication

    def acknowledgement(self, publication: Publication) -> Future[Position]:
        """`Publication.acknowledged`: a future is made only for who asks, for with the log away there are many."""
        sequence = publication.sequence
        future: Future[Position] = Future()
        with self._lock:
            refused = publication.refused or self._ended
            if publication.position is not None:
                future.set_result(publication.position)
            elif refused is not None:
                future.set_exception(refused)
            else:
                future = self._awaited.setdefault(sequence, future)
        future.add_done_callback(partial(self._given_up, sequence))
        return future

    def _given_up(self, sequence: int, future: Future[Position]) -> None:
        if future.cancelled():
            with self._lock:
                if self._awaited.get(sequence) is future:
                    del self._awaited[sequence]

    def _acknowledged(self, sequence: int, position: Position) -> None:
        with self._lock:
            publication = self._told.pop(sequence, None)
            if publication is not None:
                publication.position = position
            awaited = self._awaited.pop(sequence, None)
        if awaited is not None:
            with suppress(InvalidStateError):  # nobody waits any more
                awaited.set_result(position)  # Step 4

    # ------------------------------------------------------------------------------------------------ keeping

    def _keep_until_closed(self) -> None:
        noted = clock.monotonic()
        batch: list[_Pending] = []
        try:
            while True:
                with self._lock:
                    if not self._pending:
                        if self._closing.is_set():
                            return
                        self._changed.wait(self._mark_interval_s)
                    batch = [self._pending.popleft() for _ in range(min(len(self._pending), BATCH_MAX))]
                if batch:
                    self._keep(batch)
                    batch = []  # or the publications would live on until the next
                if clock.monotonic() - noted > self._mark_interval_s:
                    noted = clock.monotonic()
                    self._note()
        except Exception as e:  # noqa: BLE001 - whatever it is, the chain cannot go on
            self._break(e, batch)

    def _keep(self, batch: list[_Pending]) -> None:
        records = [(p.publication.sequence, p.hash, p.record) for p in batch]
        try:
            self._journal.keep(records)  # Step 2
        except Overloaded as e:
            self._take_back(batch, e)
            return
        faults.point("chain.after-fsync")
        self._sender.offer(records)
        for p in batch:
            with suppress(InvalidStateError):  # nobody waits any more
                p.publication.kept.set_result(None)

    def _take_back(self, batch: list[_Pending], error: Overloaded) -> None:
        """Nothing of the batch is kept, nor of what follows it: their sequences are given out again."""
        with self._lock:
            batch += self._pending
            self._pending.clear()
            self._head = self._journal.head
            self._sender.reread()
            for p in batch:
                p.publication.refused = error
                self._told.pop(p.publication.sequence, None)
            awaited = [self._awaited.pop(p.publication.sequence, None) for p in batch]
        for p, future in zip(batch, awaited, strict=True):
            _fail(p.publication.kept, error)
            _fail(future, error)

    def _note(self) -> None:
        BACKLOG.labels(self.source).set(self.backlog)
        low = self._sender.head.sequence
        if low > self._journal.acknowledged:
            self._journal.acknowledge(low)  # Step 5

    def _break(self, error: Exception, batch: list[_Pending] | None = None) -> None:
        """The disk or the journal is not to be believed: fail who waits, take nothing more, end."""
        told = error if isinstance(error, SijilError) else Defect(f"{self.source}: the journal failed")
        with self._lock:
            self._refusing = self._ended = told
            pending = [*(batch or ()), *self._pending]
            self._pending.clear()
            awaited = list(self._awaited.values())
            self._awaited.clear()
        for p in pending:
            _fail(p.publication.kept, told)
        for future in awaited:
            _fail(future, told)
        self._fatal(error)

    # ------------------------------------------------------------------------------------------------ anchors

    def _anchor_until_closed(self, objects: Objects, bucket: str, interval_s: float) -> None:
        anchored = 0
        while True:
            head = self._sender.head
            if head.sequence > anchored:
                now = clock.rfc3339(clock.now())
                anchor = Anchor(source=self.source, sequence=head.sequence, hash=head.hash, time=now)
                try:
                    anchor_store.write(objects, bucket, anchor)
                    anchored = head.sequence
                except SijilError as e:
                    _log.error("chain.not-anchored", error=e, source=self.source, sequence=head.sequence)
            if self._closing.wait(interval_s):
                return

    # ------------------------------------------------------------------------------------------------ closing

    def close(self, timeout_s: float) -> None:
        """Take nothing more; wait so long for acknowledgements. What is left is sent at the next start."""
        with self._lock:
            self._refusing = self._refusing or Transient(f"{self.source}: this process is ending")
            self._closing.set()
            self._changed.notify()
        self._keeper.join()
        if self._ended is None:
            self._sender.drain(self._journal.head.sequence, timeout_s)
        self._sender.stop()
        if self._anchoring is not None:
            self._anchoring.join(ANCHOR_JOIN_S)  # it may be waiting for S3, and ends with the process then
        with self._lock:
            self._ended = self._ended or self._refusing
            left = list(self._awaited.values())
            self._awaited.clear()
        for future in left:
            _fail(future, self._ended)
        self._note()
        self._journal.close()
        os.close(self._lock_file)


def _locked(path: Path, source: str) -> int:
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        raise Permanent(f"another process publishes as {source}: give this one a SIJIL_INSTANCE of its own") from None
    return file


def _refuse_second_life(source: str, objects: Objects, bucket: str) -> None:
    """A chain that begins again at 1 under a name that has been used would look like a forged one."""
    if next(iter(anchor_store.keys(objects, bucket, source)), None) is not None:
        raise Defect(f"the journal of {source} is lost: bring its folder back, or use a new SIJIL_INSTANCE")


def _check(record: Record) -> None:
    """What would only be found to be wrong when a reader gets it."""
    decode(record.topic, record.key, record.headers, record.value)
    size = len(record.key) + len(record.value) + sum(len(n) + len(v) for n, v in record.headers)
    if size > RECORD_BYTES_MAX:
        raise Invalid("record-too-large", f"an event of {size} bytes does not fit into the log")


def _fail(future: Future[None] | Future[Position] | None, error: SijilError | None) -> None:
    if future is not None:
        with suppress(InvalidStateError):  # nobody waits any more
            future.set_exception(error)
