"""Works on storage commitments until each has its final answer, and that answer is where it belongs.

An accepted transaction goes these steps, again from wherever it was after a crash:

1. it is durable on this gateway's disk; only then its request is answered with success
2. the open packs that have its instances are sealed, and published like all others
3. when everything is final (`producers.commitment.judging`) the outcome is durable beside the request
4. the outcome is reported, again and again with longer waits between, until the requester has taken it or the days
   given to a transaction are over; one asked for by HTTP waits on disk for as long
5. the transaction is removed

Steps 2 and 3 belong to one thread. Reports (4) go out on a few threads, one at a time for each application entity, so
that one that does not listen holds up nobody else.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import msgspec

from infra import clock, faults, telemetry
from infra.committed import CommittedInstances, Mark
from producers.commitment.holdings import Holdings
from producers.commitment.judging import judge, wanted
from producers.commitment.queue import CommitmentQueue, key_of
from producers.commitment.transaction import Outcome, Reference, Transaction
from producers.spool import Spool
from schemas.errors import Invalid, Overloaded, SijilError, Transient

log = telemetry.logger(__name__)

OPEN_MAX = 10_000
"""Transactions on disk; above, new ones are refused for a while."""
LOOK_S = (0.1, 15.0)
"""First and longest wait before an undecided transaction is looked at again."""
REPORT_S = (2.0, 900.0)
"""First and longest wait before a report is tried again."""
REPORTERS = 4
IDLE_S = 5.0
LAST_TRIES_S = 3600.0
"""For so long a process tries what it found to be late when it started."""

REQUESTS = telemetry.Counter("sijil_commitments_requested", "Storage commitments accepted", ["door"])
DECIDED = telemetry.Counter("sijil_commitments_decided", "Storage commitments with their final answer", ["outcome"])
REPORTS = telemetry.Counter("sijil_commitment_reports", "Attempts to report an answer", ["result"])
OPEN = telemetry.Gauge("sijil_commitments_open", "Storage commitments not yet answered and reported")

Report = Callable[[str, Transaction, Outcome], bool]
"""(key, transaction, outcome) → whether the requester has taken it. Raises Transient to be asked again."""


class Duplicate(Invalid):
    """The Transaction UID is in use for other instances."""


@dataclass
class _Work:
    """A transaction under way."""

    transaction: Transaction
    due: float = 0.0
    """On the monotonic clock."""
    delay: float = LOOK_S[0]
    mark: Mark | None = None
    """Where the log ended when the grace for unknown instances was over."""
    reporting: bool = False
    since: float = field(default_factory=clock.monotonic)
    """When this process took it up."""


@dataclass(frozen=True)
class Times:
    """As in `Settings`."""

    grace_s: float
    days: float


class Commitments:
    """Thread-safe. `archive` gives the port to the read models, None while there is none."""

    def __init__(
        self,
        queue: CommitmentQueue,
        spool: Spool,
        archive: Callable[[], CommittedInstances | None],
        times: Times,
        report: Report | None = None,
    ) -> None:
        self._queue, self._archive, self._times, self._report = queue, archive, times, report
        self._holdings = Holdings(spool)
        self._wake = threading.Condition()
        self._stopping = False
        self._work: dict[str, _Work] = {key: _Work(t) for key, t in queue.load()}
        self._busy: set[str] = set()
        """AE titles to which a report is on its way."""
        self._reporters = ThreadPoolExecutor(REPORTERS, thread_name_prefix="commitment-report")
        self._thread = threading.Thread(target=self._run, name="commitments", daemon=True)
        OPEN.set_function(lambda: len(self._work))

    def start(self) -> None:
        """Go on with what an earlier process left, and with what comes."""
        self._thread.start()

    def close(self) -> None:
        """Stop; the rest is done after the next start."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join()
        self._reporters.shutdown(wait=False, cancel_futures=True)

    # -------------------------------------------------------------------------------------------- requests

    def request(
        self, transaction_uid: str, references: Sequence[Reference], *, ae_title: str = "", address: str = ""
    ) -> str:
        """Step 1: durable on return; the transaction's key. The same request again is the same transaction.

        Raises Duplicate, Overloaded, OSError. Nothing is reported before `go`.
        """
        key = key_of(ae_title, transaction_uid)
        transaction = Transaction(
            transaction_uid=transaction_uid,
            references=tuple(references),
            requested=clock.rfc3339(clock.now()),
            ae_title=ae_title,
            address=address,
        )
        with self._wake:
            known = self._work.get(key)
            if known is not None:
                if set(known.transaction.references) != set(references):
                    raise Duplicate("commitment-duplicate", "the Transaction UID is in use for other instances")
                return key
            if len(self._work) >= OPEN_MAX:
                raise Overloaded("too many storage commitments are open", 60.0)
            self._queue.put(key, transaction)
            self._work[key] = _Work(transaction, due=float("inf"))
        REQUESTS.labels("dimse" if ae_title else "web").inc()
        log.info("storage commitment requested", ae_title=ae_title, instances=len(references), key=key)
        return key

    def go(self, key: str) -> None:
        """The requester knows that its request was accepted: work may begin."""
        with self._wake:
            if work := self._work.get(key):
                work.due = 0.0
                self._wake.notify()

    def find(self, transaction_uid: str, ae_title: str = "") -> Transaction | None:
        """A transaction on disk."""
        with self._wake:
            work = self._work.get(key_of(ae_title, transaction_uid))
            return work.transaction if work else None

    def retry(self, ae_title: str) -> None:
        """An application entity can be reached again: its reports are tried now."""
        with self._wake:
            for work in self._work.values():
                if work.transaction.ae_title == ae_title and work.transaction.outcome and not work.reporting:
                    work.due = 0.0
            self._wake.notify()

    # -------------------------------------------------------------------------------------------- the thread

    def _run(self) -> None:
        while True:
            with self._wake:
                if self._stopping:
                    return
                now = clock.monotonic()
                ready = [key for key, w in self._work.items() if w.due <= now and not w.reporting]
                if not ready:
                    soonest = min((w.due for w in self._work.values() if not w.reporting), default=now + IDLE_S)
                    self._wake.wait(max(0.001, min(soonest - now, IDLE_S)))
                    continue
            for key in ready:
                if self._stopping:
                    return
                self._look(key)

    def _look(self, key: str) -> None:
        with self._wake:
            work = self._work.get(key)
        if work is None:
            return
        late = self._is_late(work)
        try:
            if work.transaction.outcome is None:
                # Steps 2 and 3
                self._decide(key, work, late)
            if work.transaction.outcome is not None:
                # Steps 4 and 5
                self._hand_out(key, work, late)
        except (SijilError, OSError) as error:
            log.warning("storage commitment waits", key=key, reason=type(error).__name__)
            self._later(work, LOOK_S)
        except Exception as error:  # noqa: BLE001 (one transaction must never stop the others)
            log.error("storage commitment failed", error=error, key=key)
            self._later(work, REPORT_S)

    def _is_late(self, work: _Work) -> bool:
        """Whether the days are over. Not at once after a start: the clock may have jumped, or all was down for long."""
        age = clock.now() - datetime.fromisoformat(work.transaction.requested)
        return age > timedelta(days=self._times.days) and clock.monotonic() - work.since > LAST_TRIES_S

    def _later(self, work: _Work, bounds: tuple[float, float]) -> None:
        with self._wake:
            work.delay = min(max(2 * work.delay, bounds[0]), bounds[1])
            work.due = clock.monotonic() + work.delay

    # -------------------------------------------------------------------------------------------- the answer

    def _decide(self, key: str, work: _Work, late: bool) -> None:
        transaction = work.transaction
        held = self._holdings.find([r.sop_uid for r in transaction.references])
        asked = wanted(transaction.references, held)
        if any(h.pending for h in held.values()) and not late:
            self._later(work, LOOK_S)
            return
        archive = self._archive()
        archived = {}
        final = not asked
        if asked and archive is not None:
            # The mark is older than the answer: what was in the log before it would be found.
            final = work.mark is not None and archive.has_passed(work.mark)
            archived = dict(archive.find(asked))
        judged = judge(transaction.references, held, archived, unknown_is_final=final, late=late)
        if judged.outcome is None:
            if judged.unknown and work.mark is None and archive is not None and self._grace_is_over(transaction):
                work.mark = archive.mark()
            self._later(work, LOOK_S)
            return
        decided = msgspec.structs.replace(transaction, outcome=judged.outcome)
        with self._wake:
            self._queue.put(key, decided)
            faults.point("commitment.after-outcome")
            work.transaction, work.delay, work.due = decided, 0.0, 0.0
        DECIDED.labels("failures" if judged.outcome.failed else "success").inc()
        log.info(
            "storage commitment decided",
            key=key,
            ae_title=transaction.ae_title,
            committed=len(judged.outcome.committed),
            failed=len(judged.outcome.failed),
        )

    def _grace_is_over(self, transaction: Transaction) -> bool:
        age = clock.now() - datetime.fromisoformat(transaction.requested)
        # A clock that was set back makes the age negative: the grace then counts as over.
        return not timedelta(0) <= age < timedelta(seconds=self._times.grace_s)

    # -------------------------------------------------------------------------------------------- the report

    def _hand_out(self, key: str, work: _Work, late: bool) -> None:
        if late:
            if work.transaction.ae_title:
                log.error("storage commitment never reported", key=key, ae_title=work.transaction.ae_title)
            self._remove(key)
            return
        ae_title = work.transaction.ae_title
        with self._wake:
            if not ae_title or self._report is None:
                work.due = clock.monotonic() + REPORT_S[1]
            elif ae_title in self._busy:
                work.due = clock.monotonic() + LOOK_S[0]
            else:
                self._busy.add(ae_title)
                work.reporting = True
                self._reporters.submit(self._report_one, key, work, self._report)

    def _report_one(self, key: str, work: _Work, report: Report) -> None:
        taken = False
        try:
            if work.transaction.outcome is not None:
                taken = report(key, work.transaction, work.transaction.outcome)
        except Transient as error:
            log.info("storage commitment not reported yet", key=key, reason=str(error))
        except Exception as error:  # noqa: BLE001 (whatever it is, it is tried again)
            log.error("storage commitment report failed", error=error, key=key)
        REPORTS.labels("taken" if taken else "failed").inc()
        if taken:
            faults.point("commitment.after-report")
            with suppress(OSError):
                self._remove(key)
            log.info("storage commitment reported", key=key, ae_title=work.transaction.ae_title)
        else:
            self._later(work, REPORT_S)
        with self._wake:
            work.reporting = False
            self._busy.discard(work.transaction.ae_title)
            self._wake.notify()

    def _remove(self, key: str) -> None:
        with self._wake:
            self._work.pop(key, None)
            self._queue.remove(key)
