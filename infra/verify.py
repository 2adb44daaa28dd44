"""Whether the log is whole, and whether S3 has what the log says it has.

1. Every record of every topic is read: chained ones by their source and sequence (identical repetitions are accepted),
   the others counted as unchained.
2. Objects that events name are looked for: read and hashed, or with `fast` by the metadata S3 keeps.
3. A chain with a gap is given some time: another topic was read while it was written.
4. Each chain is followed from its first record, and compared with its anchors in S3.

Memory is bounded: hashes go to scratch files (`infra.chain_slots`), objects are hashed in pieces.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from infra import anchors as anchor_store
from infra.anchors import Anchor
from infra.chain_slots import SEQUENCE_MAX, Slots
from infra.ports import Log, Objects, Stored
from schemas.chain import Fault, Links, follow
from schemas.envelope import Record, decode, link_of, record_hash
from schemas.errors import Defect, Invalid, NotFound
from schemas.references import TYPES, Reference, references
from schemas.topics import TOPICS

OBJECT_THREADS = 4
OBJECTS_WAITING_MAX = 64
SETTLE_PASSES = 3
SETTLE_S = 1.0
FAULTS_SHOWN_MAX = 1_000

Progress = Callable[[int, int], None]
"""Records read, records there are."""


@dataclass
class TopicReport:
    """What was read of one topic."""

    records: int = 0
    unchained: int = 0
    repeated: int = 0
    unreadable: int = 0
    """Not CloudEvents, or payloads that break their schema: facts of the log, and dead letters of its readers."""


@dataclass
class SourceReport:
    """One chain."""

    records: int = 0
    last: int = 0
    anchors: int = 0
    anchored: int = 0
    """Newest anchored sequence: what follows is covered by the chain alone."""
    faults: list[str] = field(default_factory=list)


@dataclass
class ObjectReport:
    """Objects of one kind."""

    checked: int = 0
    bytes: int = 0
    faults: list[str] = field(default_factory=list)


@dataclass
class Report:
    """All that was checked."""

    fast: bool
    topics: dict[str, TopicReport] = field(default_factory=dict)
    chains: dict[str, SourceReport] = field(default_factory=dict)
    unchained: dict[str, int] = field(default_factory=dict)
    """Source → events outside any chain."""
    objects: dict[str, ObjectReport] = field(default_factory=dict)
    unreadable_anchors: set[str] = field(default_factory=set)
    """Objects among the anchors that are none, or no longer."""

    @property
    def faults(self) -> list[str]:
        """Each fault in one line, as many as fit on a page somebody reads."""
        found = [f"{source}: {fault}" for source, chain in self.chains.items() for fault in chain.faults]
        found += sorted(self.unreadable_anchors)
        found += [fault for kind in self.objects.values() for fault in kind.faults]
        return found[:FAULTS_SHOWN_MAX]


def verify(
    log: Log,
    objects: Objects,
    *,
    documents: str,
    anchors: str,
    fast: bool = False,
    progress: Progress = lambda done, total: None,
    scratch: Path | None = None,
) -> Report:
    """Check everything. `documents` and `anchors` name buckets. Raises Transient when a server is away."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(dir=scratch)))
        slots = Slots(folder)
        stack.callback(slots.close)
        checker = ObjectChecker(objects, documents, fast=fast)
        stack.callback(checker.stop)
        reader = _Reader(log, slots, checker, Report(fast), progress)
        reader.advance()
        for attempt in range(SETTLE_PASSES):
            reader.advance()
            chains = dict(_chains(reader, objects, anchors))
            if not any(f.code in ("gap", "tail-lost") for _, faults in chains.values() for f in faults):
                break
            if attempt < SETTLE_PASSES - 1:
                time.sleep(SETTLE_S)
        report = reader.report
        for source, (chain, faults) in chains.items():
            chain.faults = [str(f) for f in faults]
            report.chains[source] = chain
        report.objects = checker.finish()
    return report


class _Reader:
    """Reads every topic from where it was to where the log ends."""

    def __init__(self, log: Log, slots: Slots, checker: ObjectChecker, report: Report, progress: Progress) -> None:
        self.slots = slots
        self.report = report
        self.differing: dict[str, set[Fault]] = {}
        self.counts: Counter[str] = Counter()
        self._log = log
        self._checker = checker
        self._progress = progress
        self._read: dict[str, dict[int, int]] = {t.name: {} for t in TOPICS}
        self._done = 0

    def advance(self) -> None:
        """Read what came since the last time."""
        ends = {topic: self._log.ends(topic) for topic in self._read}
        total = sum(sum(e.values()) for e in ends.values())
        for topic, end in ends.items():
            counts = self.report.topics.setdefault(topic, TopicReport())
            for stored in self._log.read(topic, self._read[topic], end):
                self._take(stored, counts)
                self._done += 1
                if self._done % 1_000 == 0:
                    self._progress(self._done, total)
            self._read[topic] = end
        self._progress(self._done, total)

    def _take(self, stored: Stored, counts: TopicReport) -> None:
        counts.records += 1
        try:
            source, link = link_of(stored.headers)
        except Invalid:
            counts.unreadable += 1
            return
        if link is None:
            counts.unchained += 1
            self.report.unchained[source] = self.report.unchained.get(source, 0) + 1
        elif link.sequence > SEQUENCE_MAX or link.sequence < 1:
            self._fault(source, Fault("impossible", link.sequence, link.sequence))
        else:
            record = Record(stored.position.topic, stored.key or b"", stored.headers, stored.value or b"")
            new = self.slots.put(source, Links(link.sequence, record_hash(record), link.prevhash))
            if new is None:
                counts.repeated += 1
                return
            self.counts[source] += new
            if not new:
                self._fault(source, Fault("differing", link.sequence, link.sequence))
        if any(name == "ce_type" and value.decode("ascii", "replace") in TYPES for name, value in stored.headers):
            self._look_for(stored, counts)

    def _fault(self, source: str, fault: Fault) -> None:
        faults = self.differing.setdefault(source, set())
        if len(faults) < FAULTS_SHOWN_MAX:
            faults.add(fault)

    def _look_for(self, stored: Stored, counts: TopicReport) -> None:
        try:
            event = decode(stored.position.topic, stored.key, stored.headers, stored.value).event
        except Invalid:
            counts.unreadable += 1
            return
        for reference in references(event):
            self._checker.check(reference)


def _chains(reader: _Reader, objects: Objects, bucket: str) -> Iterator[tuple[str, tuple[SourceReport, list[Fault]]]]:
    """Each chain in the log or in the anchors: what it is, and what is wrong with it."""
    known = {*reader.slots.sources, *reader.differing}

    def anchored(keys: Iterator[str]) -> Iterator[Anchor]:
        for found in read_anchors(objects, bucket, keys):
            if isinstance(found, Anchor):
                yield found
            elif len(reader.report.unreadable_anchors) < FAULTS_SHOWN_MAX:
                reader.report.unreadable_anchors.add(str(found))

    for source in sorted(known):
        yield source, _chain(reader, source, anchored(anchor_store.keys(objects, bucket, source)))
    prefixes = {anchor_store.prefix(source) for source in known}
    for prefix, keys in groupby(anchor_store.keys(objects, bucket), key=lambda k: k.rpartition("/")[0] + "/"):
        if prefix in prefixes:
            continue
        # A chain of which the log has nothing at all.
        lost = list(anchored(keys))
        for source in sorted({a.source for a in lost} - known):
            yield source, _chain(reader, source, iter(lost))


def _chain(reader: _Reader, source: str, found: Iterator[Anchor]) -> tuple[SourceReport, list[Fault]]:
    report = SourceReport(records=reader.counts[source])

    def records() -> Iterator[Links]:
        for links in reader.slots.records(source) if source in reader.slots.sources else ():
            report.last = links.sequence
            yield links

    def anchors() -> Iterator[tuple[int, str]]:
        for anchor in found:
            if anchor.source == source:
                report.anchors += 1
                report.anchored = anchor.sequence
                yield anchor.sequence, anchor.hash

    faults = list(islice(follow(records(), anchors()), FAULTS_SHOWN_MAX))
    return report, sorted({*faults, *reader.differing.get(source, ())}, key=lambda f: (f.first, f.code))


def read_anchors(objects: Objects, bucket: str, keys: Iterator[str]) -> Iterator[Anchor | Defect]:
    """Anchors by their keys, in the order of the keys, some at a time; a Defect for what is none."""

    def read(key: str) -> Anchor | Defect:
        try:
            return anchor_store.read(objects, bucket, key)
        except Defect as e:
            return e

    with ThreadPoolExecutor(OBJECT_THREADS, thread_name_prefix="anchors") as pool:
        while some := list(islice(keys, OBJECTS_WAITING_MAX)):
            yield from pool.map(read, some)


class ObjectChecker:
    """Looks for objects on some threads while the log is read on."""

    def __init__(self, objects: Objects, documents: str, *, fast: bool) -> None:
        self._objects = objects
        self._documents = documents
        self._fast = fast
        self._reports: dict[str, ObjectReport] = {}
        self._lock = threading.Lock()
        self._room = threading.BoundedSemaphore(OBJECTS_WAITING_MAX)
        self._pool = ThreadPoolExecutor(OBJECT_THREADS, thread_name_prefix="objects")
        self._failure: BaseException | None = None

    def check(self, reference: Reference) -> None:
        """Look for it, by and by. Raises what an earlier one could not be looked for by: Transient."""
        if self._failure is not None:
            raise self._failure
        self._room.acquire()
        self._pool.submit(self._look, reference).add_done_callback(self._looked)

    def _looked(self, done: Future[Any]) -> None:
        self._room.release()
        if not done.cancelled():
            self._failure = self._failure or done.exception()

    def _look(self, reference: Reference) -> None:
        size, wrong = (self._by_metadata if self._fast else self._by_bytes)(reference)
        with self._lock:
            report = self._reports.setdefault(reference.kind, ObjectReport())
            report.checked += 1
            report.bytes += size
            if wrong and len(report.faults) < FAULTS_SHOWN_MAX:
                report.faults.append(f"{reference.kind} {self._bucket(reference)}/{reference.key}: {wrong}")

    def _bucket(self, reference: Reference) -> str:
        return reference.bucket or self._documents

    def _by_bytes(self, reference: Reference) -> tuple[int, str]:
        digest, size = hashlib.sha256(), 0
        try:
            chunks = self._objects.chunks(self._bucket(reference), reference.key, version_id=reference.version_id)
            for chunk in chunks:
                digest.update(chunk)
                size += len(chunk)
        except NotFound:
            return 0, "missing"
        return size, _wrong(reference, size, digest.hexdigest())

    def _by_metadata(self, reference: Reference) -> tuple[int, str]:
        try:
            info = self._objects.head(self._bucket(reference), reference.key, version_id=reference.version_id)
        except NotFound:
            return 0, "missing"
        return info.size, _wrong(reference, info.size, info.metadata.get("sha256", ""))

    def finish(self) -> dict[str, ObjectReport]:
        """Wait for all. Raises Transient if one could not be looked for."""
        self._pool.shutdown()
        if self._failure is not None:
            raise self._failure
        return dict(sorted(self._reports.items()))

    def stop(self) -> None:
        """Let go."""
        self._pool.shutdown(cancel_futures=True)


def _wrong(reference: Reference, size: int, sha256: str) -> str:
    if reference.size not in (None, size):
        return f"{size} bytes, the event says {reference.size}"
    return "" if sha256 == reference.sha256 else "another SHA-256 than the event's"
