"""The change feed's language: what a record of the log tells others, and where a reader stands. Pure.

A cursor is an offset for every partition of every topic, so no record can be skipped, whatever arrives meanwhile.
Records are given in the order of their time in the log, then topic, partition and offset; within a partition, so of one
study, always in the log's order. What is said holds UIDs and codes alone.
"""

from __future__ import annotations

import base64
import binascii
import heapq
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from schemas.errors import Invalid
from schemas.events import (
    ConflictResolved,
    Event,
    PackStored,
    ReportIssued,
    StudyCompleted,
    StudyCorrected,
    StudyReassigned,
    StudyRejected,
    StudyReopened,
    StudyRestored,
)

TOPICS = ("sijil.study.arrivals", "sijil.study.lifecycle", "sijil.study.corrections", "sijil.reports")
CURSOR_MAX = 8192
PARTITIONS_MAX = 4096

Offsets = Mapping[int, int]
"""Partition → next offset."""


@dataclass(frozen=True)
class Cursor:
    """Everything before these offsets was seen. A partition that is not named begins at 0."""

    offsets: Mapping[str, Offsets] = field(default_factory=dict)

    def of(self, topic: str, partition: int) -> int:
        """The next offset."""
        return self.offsets.get(topic, {}).get(partition, 0)

    def after(self, topic: str, partition: int, offset: int) -> Cursor:
        """The same with one record seen."""
        return Cursor({**self.offsets, topic: {**self.offsets.get(topic, {}), partition: offset + 1}})

    def encode(self) -> str:
        """Opaque text for addresses and headers."""
        plain = {t.removeprefix("sijil."): {str(p): o for p, o in sorted(of.items())} for t, of in self.offsets.items()}
        packed = zlib.compress(msgspec.json.encode(plain), 9)
        return base64.urlsafe_b64encode(packed).rstrip(b"=").decode("ascii")


def decode(text: str) -> Cursor:
    """Raises Invalid(`cursor`). Empty text is the beginning of the log."""
    if not text:
        return Cursor()
    try:
        if len(text) > CURSOR_MAX:
            raise ValueError("length")
        inflater = zlib.decompressobj()
        plain = inflater.decompress(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), 1 << 20)
        found = msgspec.json.decode(plain, type=dict[str, dict[int, int]])
    except (ValueError, binascii.Error, zlib.error, msgspec.DecodeError) as e:
        raise Invalid("cursor", "this is no cursor of the change feed") from e
    offsets = {f"sijil.{topic}": of for topic, of in found.items()}
    if not offsets.keys() <= set(TOPICS) or any(
        p < 0 or o < 0 or p >= PARTITIONS_MAX for of in offsets.values() for p, o in of.items()
    ):
        raise Invalid("cursor", "this is no cursor of the change feed")
    return Cursor(offsets)


@dataclass(frozen=True)
class Seen:
    """A record of the log, read; `event` is None where it could not be."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    event: Event | None


@dataclass(frozen=True)
class Change:
    """What is told of a record."""

    type: str
    time_ms: int
    studies: tuple[str, ...]
    more: Mapping[str, Any]
    cursor: Cursor
    """To go on from behind it."""


def said(event: Event | None) -> tuple[str, tuple[str, ...], dict[str, Any]] | None:
    """(type, studies, what else) of an event; None for one that is nothing to others."""
    match event:
        case PackStored():
            return "study.arrived", (event.study_uid,), {"instances": event.instances}
        case StudyCompleted():
            return "study.completed", (event.study_uid,), {"revision": event.revision, "basis": event.basis}
        case StudyReopened():
            return "study.reopened", (event.study_uid,), {}
        case ReportIssued():
            more = {"report_id": event.report_id, "version": event.version, "status": event.status}
            return "report.issued", tuple(event.study_uids), more
        case ConflictResolved() | StudyCorrected() | StudyReassigned() | StudyRejected() | StudyRestored():
            return event.TYPE.rpartition(".v")[0], (event.study_uid,), {"reason": event.reason}
        case _:
            return None


@dataclass(frozen=True)
class Read:
    """Records of one partition, in order; `whole` says that there are no more of it."""

    records: Sequence[Seen]
    whole: bool


def merged(cursor: Cursor, reads: Sequence[Read], limit: int) -> tuple[list[Change], Cursor]:
    """The first `limit` changes of these partitions in the feed's order, and the cursor behind what was looked at.

    Ends where a partition was not read to its end: what comes next in it might come before the others.
    """
    found: list[Change] = []
    for record, more_unread in _in_order(reads):
        cursor = cursor.after(record.topic, record.partition, record.offset)
        if (told := said(record.event)) is not None:
            kind, studies, more = told
            found.append(Change(kind, record.timestamp_ms, studies, more, cursor))
        if len(found) == limit or more_unread:
            break
    return found, cursor


def _in_order(reads: Sequence[Read]) -> Iterator[tuple[Seen, bool]]:
    """Records by (time, topic, partition), none before one that stands before it in its partition; each with whether
    its partition goes on unread behind it.
    """
    heap: list[tuple[int, str, int, int, int]] = []

    def push(number: int, index: int, not_before: int) -> None:
        if index < len(reads[number].records):
            r = reads[number].records[index]
            heapq.heappush(heap, (max(r.timestamp_ms, not_before), r.topic, r.partition, number, index))

    for number in range(len(reads)):
        push(number, 0, 0)
    while heap:
        time_ms, _, _, number, index = heapq.heappop(heap)
        read = reads[number]
        yield read.records[index], index + 1 == len(read.records) and not read.whole
        push(number, index + 1, time_ms)
