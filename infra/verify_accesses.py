"""Whether an access event was removed, changed or slipped in since a time: from the log and the anchors alone.

The archive's own processes and tables are not asked. A chain holds all that its process has produced, so every topic is
read, but only from that time on:
1. Each chain's newest anchor before that time is where it is taken up: what the anchor covers is not looked at again.
2. Records behind it are read from a while before that time on: they may have reached the log before their anchor was
   written. Where some are missing, more and more of the log is read; what is still missing then was removed.
3. Each chain is followed from that anchor through all later ones, and must reach the newest.
4. Each access event must be in a chain, and the S3 list of a long search must be what its event says.

What is newer than a chain's newest anchor is covered by the chain alone: a tail that was cut off there would not show,
so it is told how far each chain is anchored.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain as joined
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from infra import anchors as anchor_store
from infra.anchors import Anchor
from infra.chain_slots import SEQUENCE_MAX, Slots
from infra.ports import Log, Objects, Stored
from infra.verify import (
    FAULTS_SHOWN_MAX,
    SETTLE_PASSES,
    SETTLE_S,
    ObjectChecker,
    ObjectReport,
    Progress,
    read_anchors,
)
from schemas.chain import Fault, Links, follow
from schemas.envelope import GENESIS, Record, decode, link_of, record_hash
from schemas.errors import Defect, Invalid
from schemas.references import references
from schemas.topics import PREFIX, TOPICS

ACCESSES = PREFIX + "accesses"
LOOK_BACK_MS = (600_000, 6 * 3_600_000, 7 * 86_400_000)
"""How long before `since` is read, one after the other; then everything."""


@dataclass
class ChainProof:
    """One chain behind the anchor it was taken up at."""

    base: int = 0
    """Sequence of that anchor; 0: its first record."""
    records: int = 0
    last: int = 0
    anchored: int = 0
    """Newest anchored sequence."""
    anchored_at: str = ""
    faults: list[str] = field(default_factory=list)

    @property
    def unanchored(self) -> int:
        """Records that the chain alone covers."""
        return max(0, self.last - self.anchored)


@dataclass
class Proof:
    """All that was checked."""

    since: str
    """RFC 3339; empty: from the beginning."""
    accesses: dict[str, int] = field(default_factory=dict)
    """Event type → how many since then."""
    repeated: int = 0
    chains: dict[str, ChainProof] = field(default_factory=dict)
    unchained: list[str] = field(default_factory=list)
    objects: dict[str, ObjectReport] = field(default_factory=dict)

    @property
    def faults(self) -> list[str]:
        """Each fault in one line."""
        found = [f"{source}: {fault}" for source, proof in self.chains.items() for fault in proof.faults]
        found += self.unchained
        found += [fault for kind in self.objects.values() for fault in kind.faults]
        return found[:FAULTS_SHOWN_MAX]


def prove(
    log: Log,
    objects: Objects,
    *,
    documents: str,
    anchors: str,
    since: datetime | None = None,
    progress: Progress = lambda done, total: None,
    scratch: Path | None = None,
) -> Proof:
    """Check every access since a time. `documents` and `anchors` name buckets. Raises Transient without a server."""
    since_ms = round(since.timestamp() * 1000) if since else 0
    spans = [max(0, since_ms - ms) for ms in LOOK_BACK_MS] if since_ms else []
    for start_ms in [*(s for s in spans if s), 0]:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(TemporaryDirectory(dir=scratch)))
            slots = Slots(folder)
            stack.callback(slots.close)
            checker = ObjectChecker(objects, documents, fast=False)
            stack.callback(checker.stop)
            held = _Anchors(objects, anchors, since)
            reader = _Reader(log, slots, checker, held, since_ms, start_ms, progress)
            proof = _settled(reader, held)
            if start_ms and reader.gaps:
                continue  # what is missing may have reached the log earlier
            proof.objects = checker.finish()
            proof.since = since.isoformat() if since else ""
            return proof
    raise AssertionError("the last span is everything")


def _settled(reader: _Reader, held: _Anchors) -> Proof:
    """The proof once no chain has a gap that another topic could still fill."""
    for attempt in range(SETTLE_PASSES):
        reader.advance()
        reader.follow()
        if not reader.gaps or attempt == SETTLE_PASSES - 1:
            break
        time.sleep(SETTLE_S)
        held.forget()
    return reader.proof


class _Anchors:
    """Anchors by source: the one a chain is taken up at, and those behind it."""

    def __init__(self, objects: Objects, bucket: str, since: datetime | None) -> None:
        self._objects, self._bucket, self._since = objects, bucket, since
        self._keys: dict[str, list[str]] = {}
        self._bases: dict[str, Anchor | None] = {}
        self.broken: set[str] = set()

    def forget(self) -> None:
        """Which there are: new ones may have come. Where a chain is taken up stays."""
        self._keys.clear()

    def sources(self) -> set[str]:
        """Every source that was ever anchored."""
        firsts = {k.rpartition("/")[0]: k for k in anchor_store.keys(self._objects, self._bucket)}
        return {a.source for a in map(self._read, firsts.values()) if a is not None}

    def base(self, source: str) -> tuple[int, str]:
        """(sequence, hash) that the chain is taken up behind."""
        if source not in self._bases:
            self._bases[source] = self._newest_before(source)
        found = self._bases[source]
        return (found.sequence, found.hash) if found else (0, GENESIS)

    def behind(self, source: str) -> Iterator[Anchor]:
        """Those behind the base, in order."""
        first = self.base(source)[0]
        keys = self._of(source)
        start = bisect_right(keys, anchor_store.key(source, first)) if first else 0
        for found in read_anchors(self._objects, self._bucket, iter(keys[start:])):
            if isinstance(found, Anchor):
                yield found
            else:
                self.broken.add(str(found))

    def _of(self, source: str) -> list[str]:
        if source not in self._keys:
            self._keys[source] = list(anchor_store.keys(self._objects, self._bucket, source))
        return self._keys[source]

    def _newest_before(self, source: str) -> Anchor | None:
        """By halves: keys are in the order of the sequence, so of the time."""
        if self._since is None:
            return None
        keys, low, found = self._of(source), 0, None
        high = len(keys)
        while low < high:
            middle = (low + high) // 2
            anchor = self._read(keys[middle])
            if anchor is not None and datetime.fromisoformat(anchor.time) <= self._since:
                found, low = anchor, middle + 1
            else:
                high = middle
        return found

    def _read(self, key: str) -> Anchor | None:
        try:
            return anchor_store.read(self._objects, self._bucket, key)
        except Defect as e:
            self.broken.add(str(e))
            return None


class _Reader:
    """Reads every topic from a time to where the log ends."""

    def __init__(
        self,
        log: Log,
        slots: Slots,
        checker: ObjectChecker,
        held: _Anchors,
        since_ms: int,
        start_ms: int,
        progress: Progress,
    ) -> None:
        self.proof = Proof("")
        self.gaps: list[tuple[str, Fault]] = []
        self._log, self._slots, self._checker, self._held = log, slots, checker, held
        self._since_ms, self._progress = since_ms, progress
        self._read: dict[str, Mapping[int, int]] = {t.name: log.since(t.name, start_ms) for t in TOPICS}
        self._differing: dict[str, set[Fault]] = {}
        self._counts: Counter[str] = Counter()
        self._done = 0
        self._anchored = held.sources()

    def advance(self) -> None:
        """Read what came since the last time."""
        ends = {topic: self._log.ends(topic) for topic in self._read}
        total = self._done + sum(
            end - self._read[topic].get(n, 0) for topic, found in ends.items() for n, end in found.items()
        )
        for topic, end in ends.items():
            for stored in self._log.read(topic, self._read[topic], end):
                self._take(stored)
                self._done += 1
                if self._done % 1_000 == 0:
                    self._progress(self._done, total)
            self._read[topic] = end
        self._progress(self._done, total)

    def _take(self, stored: Stored) -> None:
        of_accesses = stored.position.topic == ACCESSES
        try:
            source, link = link_of(stored.headers)
        except Invalid:
            source, link = "", None
        if link is None or not 1 <= link.sequence <= SEQUENCE_MAX:
            if of_accesses and stored.timestamp_ms >= self._since_ms:
                self._outside(stored, source)
            return
        if link.sequence <= self._held.base(source)[0]:
            return
        record = Record(stored.position.topic, stored.key or b"", stored.headers, stored.value or b"")
        new = self._slots.put(source, Links(link.sequence, record_hash(record), link.prevhash))
        if new is None:
            self.proof.repeated += of_accesses
            return
        self._counts[source] += new
        if not new:
            self._differing.setdefault(source, set()).add(Fault("differing", link.sequence, link.sequence))
        if of_accesses and stored.timestamp_ms >= self._since_ms:
            self._access(stored)

    def _access(self, stored: Stored) -> None:
        try:
            envelope = decode(stored.position.topic, stored.key, stored.headers, stored.value)
        except Invalid:
            self._outside(stored, "", "is no access event")
            return
        kind = type(envelope.event).TYPE
        self.proof.accesses[kind] = self.proof.accesses.get(kind, 0) + 1
        for reference in references(envelope.event):
            self._checker.check(reference)

    def _outside(self, stored: Stored, source: str, why: str = "is in no chain: nobody vouches for it") -> None:
        place = stored.position
        if len(self.proof.unchained) < FAULTS_SHOWN_MAX:
            said = f" ({source})" if source else ""
            self.proof.unchained.append(f"{place.topic}/{place.partition}/{place.offset}{said}: {why}")

    def follow(self) -> None:
        """Each chain from where it is taken up to its newest anchor."""
        self.gaps = []
        for source in sorted({*self._slots.sources, *self._differing, *self._anchored}):
            chain, faults = self._follow(source)
            self.gaps += [(source, f) for f in faults if f.code in ("gap", "tail-lost")]
            chain.faults = [str(f) for f in faults]
            if chain.records or chain.faults:
                self.proof.chains[source] = chain
            else:
                self.proof.chains.pop(source, None)
        for fault in sorted(self._held.broken):
            if fault not in self.proof.unchained:
                self.proof.unchained.append(fault)

    def _follow(self, source: str) -> tuple[ChainProof, list[Fault]]:
        base = self._held.base(source)
        chain = ChainProof(base=base[0], last=base[0], anchored=base[0], records=self._counts[source])

        def records() -> Iterator[Links]:
            for links in self._slots.records(source) if source in self._slots.sources else ():
                chain.last = links.sequence
                yield links

        def anchors() -> Iterator[tuple[int, str]]:
            for anchor in self._held.behind(source):
                if anchor.source == source:
                    chain.anchored, chain.anchored_at = anchor.sequence, anchor.time
                    yield anchor.sequence, anchor.hash

        faults = list(islice(follow(records(), anchors(), base), FAULTS_SHOWN_MAX))
        return chain, sorted({*joined(faults, self._differing.get(source, ()))}, key=lambda f: (f.first, f.code))
