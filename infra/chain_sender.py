"""Sends what a chain has kept, in its order, until the log has acknowledged it.

In memory are at most `WINDOW` records under way and `RECENT_MAX` waiting; with the log away for hours the rest waits in
the journal and is read back from there. A failed send is repeated, byte for byte the same, when everything under way
has been answered and before anything new, so that a record overtakes another only if the log took it while it refused
the one before.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial

from infra import faults, telemetry
from infra.chain_journal import Entry, Head, Journal
from infra.ports import Log, Position
from schemas.envelope import Record
from schemas.errors import Defect, SijilError, Transient

WINDOW = 1_000
"""Records sent and not yet answered."""
RECENT_MAX = 2_000
"""Kept records in memory, so that they need not be read back from the journal."""
BACKOFF_S = 0.1
BACKOFF_MAX_S = 5.0
IDLE_S = 1.0

_log = telemetry.logger(__name__)

Kept = tuple[int, str, Record]
"""Sequence, hash, record."""


class Sender:
    """The sending side of one chain, on a thread of its own."""

    def __init__(
        self,
        log: Log,
        journal: Journal,
        source: str,
        *,
        acknowledged: Callable[[int, Position], None],
        broken: Callable[[Exception], None],
    ) -> None:
        """Begins with what the journal does not know to be acknowledged.

        `acknowledged(sequence, position)` is called once for each record, on a thread of the log's; `broken(error)`
        when the journal cannot be read, and nothing is sent any more.
        """
        self._log = log
        self._journal = journal
        self._source = source
        self._acknowledged = acknowledged
        self._broken = broken
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._stopped = threading.Event()
        low = journal.acknowledged
        self._low = Head(low, journal.hash_at(low))
        self._above: dict[int, str] = {}  # acknowledged above a gap: sequence → hash
        self._next = low + 1
        self._kept = journal.head.sequence
        self._recent: deque[Kept] = deque(maxlen=RECENT_MAX)
        self._reader: Iterator[Entry] = iter(())
        self._reader_since = self._taken_back = 0
        self._under_way: dict[int, tuple[str, Record]] = {}
        self._failed: set[int] = set()  # of those under way: answered with an error
        self._repeating = False  # nothing new is sent until what is repeated has been taken
        self._busy = False  # records are being handed to the log, in their order, on one thread
        self._thread = threading.Thread(target=self._run, name="chain-send", daemon=True)
        self._thread.start()

    @property
    def head(self) -> Head:
        """Everything up to here is acknowledged."""
        with self._lock:
            return self._low

    @property
    def count(self) -> int:
        """How many records of the chain are acknowledged."""
        with self._lock:
            return self._low.sequence + len(self._above)

    def offer(self, records: list[Kept]) -> None:
        """These are kept now, behind all that were. Sent on this thread if nothing is before them: a hop less."""
        with self._lock:
            self._kept = records[-1][0]
            at_once = self._next == records[0][0] and len(records) <= self._room()
            if at_once:
                self._take(records)
            else:
                self._recent.extend(records)
                self._changed.notify_all()
        if at_once:
            self._send([(s, record) for s, _, record in records])

    def reread(self) -> None:
        """The journal took back what it had not kept, and a reader may have read that ahead."""
        self._taken_back += 1

    def drain(self, sequence: int, timeout_s: float) -> bool:
        """Wait until everything up to a sequence is acknowledged."""
        with self._lock:
            return self._changed.wait_for(lambda: self._low.sequence >= sequence, timeout_s)

    def stop(self) -> None:
        """Send nothing more. What is under way may still be answered."""
        self._stopped.set()
        with self._lock:
            self._changed.notify_all()
        self._thread.join()

    # ------------------------------------------------------------------------------------------------ the thread

    def _run(self) -> None:
        try:
            self._send_until_stopped()
        except Exception as e:  # noqa: BLE001 - the journal cannot be read: nothing would ever be sent again
            self._broken(e)

    def _send_until_stopped(self) -> None:
        pause_s = BACKOFF_S
        while not self._stopped.is_set():
            with self._lock:
                failed = [] if self._busy or len(self._failed) < len(self._under_way) else sorted(self._failed)
                room = min(self._room(), self._kept + 1 - self._next)
                if not failed and room <= 0:
                    self._changed.wait(IDLE_S)
                    continue
                self._busy = True
            if failed:
                if self._stopped.wait(pause_s):
                    return
                pause_s = min(pause_s * 2, BACKOFF_MAX_S)
                self._send(self._again(failed))
            else:
                pause_s = BACKOFF_S
                self._send(self._following(room))

    def _room(self) -> int:
        """How many records may be sent now: none while something is sent, repeated or to be repeated."""
        self._repeating = self._repeating and bool(self._under_way)
        held_up = self._busy or self._failed or self._repeating
        return 0 if held_up else WINDOW - len(self._under_way)

    def _again(self, failed: list[int]) -> list[tuple[int, Record]]:
        with self._lock:
            self._failed.clear()
            self._repeating = True
            return [(s, self._under_way[s][1]) for s in failed]

    def _following(self, room: int) -> list[tuple[int, Record]]:
        """The next kept records, from memory or else from the journal."""
        with self._lock:
            first = self._next
            while self._recent and self._recent[0][0] < first:
                self._recent.popleft()
            if self._recent and self._recent[0][0] == first:
                found = [self._recent.popleft() for _ in range(min(room, len(self._recent)))]
            else:
                found = []
        found = found or [self._from_journal(s) for s in range(first, first + room)]
        with self._lock:
            self._take(found)
        return [(s, record) for s, _, record in found]

    def _take(self, records: list[Kept]) -> None:
        """They are under way from here on."""
        self._busy = True
        self._under_way.update((s, (hash, record)) for s, hash, record in records)
        self._next = records[-1][0] + 1

    def _from_journal(self, sequence: int) -> Kept:
        since = self._taken_back
        entry = next(self._reader, None) if self._reader_since == since else None
        if entry is None or entry.sequence != sequence:
            self._reader, self._reader_since = self._journal.read(sequence), since
            entry = next(self._reader, None)
        if entry is None or entry.sequence != sequence:
            raise Defect(f"{self._source}: sequence {sequence} was kept and is not in the journal")
        return entry.sequence, entry.hash, entry.record

    def _send(self, records: list[tuple[int, Record]]) -> None:
        for sequence, record in records:
            try:
                future = self._log.append(record)
            except SijilError as e:
                future = Future()
                future.set_exception(e)
            faults.point("chain.after-send")
            future.add_done_callback(partial(self._answered, sequence))
        with self._lock:
            self._busy = False
            self._changed.notify_all()

    def _answered(self, sequence: int, future: Future[Position]) -> None:
        """On a thread of the log's, or on ours if the answer was there first."""
        error = future.exception()
        if error is not None:
            if not isinstance(error, Transient):
                # Not skipped: what is kept is part of the chain. Somebody has to heal the log.
                _log.error("chain.refused", error=error, source=self._source, sequence=sequence)
            with self._lock:
                self._failed.add(sequence)
                self._changed.notify_all()
            return
        faults.point("chain.after-ack")
        self._acknowledged(sequence, future.result())
        with self._lock:
            self._above[sequence] = self._under_way.pop(sequence)[0]
            while (hash := self._above.pop(self._low.sequence + 1, None)) is not None:
                self._low = Head(self._low.sequence + 1, hash)
            self._changed.notify_all()
