"""Whether a chain is whole: pure, one pass in the order of the sequence, over as many records as there are.

A record removed leaves a gap. A record that was changed, or that stands where another should, does not have the hash
that the next one names. The last record has no next: only an anchor covers it, as it covers a tail that is gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from schemas.envelope import GENESIS


@dataclass(frozen=True)
class Links:
    """Of one record: the hash of its bytes, and the hash it names of the record before it."""

    hash: str
    prevhash: str


@dataclass(frozen=True)
class Fault:
    """Something that may not be. `code`: `gap`, `broken`, `differing`, `tail-lost`, `anchor-differs`."""

    code: str
    first: int
    last: int
    """Sequences concerned, inclusive."""

    def __str__(self) -> str:
        where = f"sequence {self.first}" if self.first == self.last else f"sequences {self.first} to {self.last}"
        return f"{where}: {_TEXTS[self.code]}"


_TEXTS: dict[str, str] = {
    "gap": "missing from the log",
    "broken": "is not the record that the next one was chained to",
    "differing": "is in the log with two contents",
    "tail-lost": "anchored, and missing from the end of the log",
    "anchor-differs": "is not the record that was anchored",
}


def follow(records: Iterable[Links | None], anchors: Mapping[int, str] | None = None) -> Iterator[Fault]:
    """Faults of a chain. `records` in the order of their sequence from 1 on, None where there is none.

    `anchors`: sequence → hash that was anchored.
    """
    anchors = anchors or {}
    missing_from = 0
    before: str | None = GENESIS  # None behind a gap: nothing to compare with
    sequence = 0
    for sequence, record in enumerate(records, 1):
        if record is None:
            missing_from = missing_from or sequence
            before = None
            continue
        if missing_from:
            yield Fault("gap", missing_from, sequence - 1)
            missing_from = 0
        if before is not None and record.prevhash != before:
            yield Fault("broken", max(sequence - 1, 1), max(sequence - 1, 1))
        if anchors.get(sequence, record.hash) != record.hash:
            yield Fault("anchor-differs", sequence, sequence)
        before = record.hash
    last = max(anchors, default=0)
    if missing_from:
        yield Fault("gap", missing_from, sequence)
    if last > sequence:
        yield Fault("tail-lost", sequence + 1, last)
