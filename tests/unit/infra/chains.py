"""Events and records for the tests of chain, journal and verify-log."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from schemas.envelope import GENESIS, Link, Record, encode, record_hash
from schemas.events import InstanceRejected

SOURCE = "/gateway/LOCAL/1"


def rejected(n: int, study_uid: str | None = None) -> InstanceRejected:
    """The n-th event: small, and valid."""
    return InstanceRejected(
        rejection_id=f"01920000-0000-7000-8000-{n:012d}",
        reason="not-dicom",
        site="LOCAL",
        gateway=SOURCE,
        door="stow",
        received="2025-03-01T08:15:00Z",
        size=n,
        study_uid=study_uid,
    )


def chained(
    count: int, source: str = SOURCE, prevhash: str = GENESIS, first: int = 1
) -> Iterator[tuple[int, str, Record]]:
    """(sequence, hash, record) of a chain."""
    for sequence in range(first, first + count):
        record = encode(
            rejected(sequence),
            id=f"{source}-{sequence}",
            source=source,
            time="2025-03-01T08:15:00Z",
            link=Link(sequence, prevhash),
        )
        prevhash = record_hash(record)
        yield sequence, prevhash, record


def in_batches(records: Iterable[tuple[int, str, Record]], sizes: Iterable[int]) -> list[list[tuple[int, str, Record]]]:
    """Cut into batches of these sizes."""
    source = iter(records)
    return [[next(source) for _ in range(size)] for size in sizes]
