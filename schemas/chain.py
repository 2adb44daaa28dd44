"""Whether a chain is whole: pure, one pass in the order of the sequence, over as many records as there are.

A record removed leaves a gap. A record that was changed, or that stands where another should, does not have the hash
that the next one names. The last record has no next: only an anchor covers it, as it covers a tail that is gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from schemas.envelope import GENESIS


@dataclass(frozen=True)
class Links:
    """Of one record: its place in its chain, the hash of its bytes, and the hash it names of the record before it."""

    sequence: int
    hash: str
    prevhash: str


@dataclass(frozen=True)
class Fault:
    """Something that may not be. `code` is one of TEXTS."""

    code: str
    first: int
    last: int
    """Sequences concerned, inclusive."""

    def __str__(self) -> str:
        where = f"sequence {self.first}" if self.first == self.last else f"sequences {self.first} to {self.last}"
        return f"{where}: {TEXTS[self.code]}"


TEXTS: dict[str, str] = {
    "gap": "missing from the log",
    "broken": "not the record that the next one was chained to",
    "not-first": "the chain does not begin there",
    "differing": "in the log with two contents",
    "impossible": "no chain has so many records",
    "tail-lost": "anchored, and missing from the end of the log",
    "anchor-differs": "not the record that was anchored",
}


def follow(
    records: Iterable[Links], anchors: Iterable[tuple[int, str]] = (), base: tuple[int, str] = (0, GENESIS)
) -> Iterator[Fault]:
    """Faults of a chain behind `base` (sequence, hash), in order: what is up to there is believed. `records` and
    `anchors` (sequence, hash) each come once, in order of sequence.
    """
    wanted = iter(anchors)
    anchor = next(wanted, None)
    sequence, before = base
    for record in records:
        if record.sequence > sequence + 1:
            yield Fault("gap", sequence + 1, record.sequence - 1)
        elif record.prevhash != before:
            yield Fault("broken", sequence, sequence) if sequence else Fault("not-first", 1, 1)
        while anchor is not None and anchor[0] <= record.sequence:
            # An anchor of a record that is missing is told as the gap it lies in.
            if anchor[0] == record.sequence and anchor[1] != record.hash:
                yield Fault("anchor-differs", *anchor[:1] * 2)
            anchor = next(wanted, None)
        sequence, before = record.sequence, record.hash
    last = max((a[0] for a in (anchor, *wanted) if a is not None), default=0)
    if last > sequence:
        yield Fault("tail-lost", sequence + 1, last)
