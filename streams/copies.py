"""Copies of an instance: which ones of a new pack the archive had already, and what is to be compared. Pure.

The first copy in log order is served. A copy with the SHA-256 of an earlier one is a recorded no-op; one with another
is compared canonically with the distinct earlier ones, the first first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from schemas.events import ConflictFound, DuplicateFound
from schemas.identity import derived_id
from streams.effects import Emit
from streams.pack_rows import PackRow

COLUMNS = (
    "series_uid", "sop_uid", "record_offset", "line", "pack_id", "transfer_syntax", "tar_offset", "length",
    "dataset_offset", "sha256",
)  # fmt: skip
SOP_UIDS_MAX = 12
"""Per event, which stays about a kilobyte."""

DIFFERS, NOT_COMPARABLE = "content-differs", "not-comparable"


@dataclass(frozen=True, slots=True)
class Copy:
    """Where the bytes of one copy lie."""

    series_uid: str
    sop_uid: str
    offset: int
    line: int
    pack_id: str
    transfer_syntax: str
    tar_offset: int
    length: int
    dataset_offset: int
    sha256: str

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> Copy:
        """From a row of `instances` with COLUMNS."""
        return cls(*(row[c] for c in COLUMNS))


@dataclass(frozen=True)
class Found:
    """What comparing checksums gives for one pack."""

    same: int
    """Copies with the SHA-256 of an earlier one."""
    others: tuple[tuple[Copy, tuple[Copy, ...]], ...]
    """Copies with another, each with the distinct earlier ones, the served one first."""


def series_to_read(rows: Sequence[PackRow], instances: int) -> list[str]:
    """Series in which the last of `rows` (by offset) may have copies; `instances`: lines of its manifest."""
    row, earlier = rows[-1], rows[:-1]
    mine = {h: s.series_uid for s in row.summary.series for h in s.hashes()}
    if instances > len(mine):  # a UID came twice within the pack
        return sorted({s.series_uid for r in rows for s in r.summary.series})
    found = set()
    for part in (s for r in earlier for s in r.summary.series):
        for h in part.hashes() & mine.keys():
            found |= {part.series_uid, mine[h]}
    return sorted(found)


def compare(copies: Iterable[Copy], offset: int) -> Found:
    """Copies of the pack at `offset` against all before them in the log."""
    by_sop: dict[str, list[Copy]] = {}
    for copy in sorted(copies, key=lambda c: (c.offset, c.line)):
        if copy.offset <= offset:
            by_sop.setdefault(copy.sop_uid, []).append(copy)
    same = 0
    others = []
    for found in by_sop.values():
        for n, copy in enumerate(found):
            if n == 0 or copy.offset != offset:
                continue
            distinct = {c.sha256: c for c in reversed(found[:n])}
            if copy.sha256 in distinct:
                same += 1
            else:
                others.append((copy, tuple(sorted(distinct.values(), key=lambda c: (c.offset, c.line)))))
    return Found(same, tuple(others))


def duplicates_by_sha256(row: PackRow, count: int) -> list[Emit]:
    """One event per pack."""
    if not count:
        return []
    event = DuplicateFound(
        study_uid=row.study_uid, pack_id=row.pack_id, offset=row.offset, comparison="sha256", instances=count
    )
    return [Emit(event, derived_id("study.duplicate-found", row.study_uid, row.offset, "sha256"), row.study_uid)]


def duplicates_canonical(row: PackRow, sop_uids: Sequence[str]) -> list[Emit]:
    """As many events as their size allows."""
    emits = []
    for start in range(0, len(sop_uids), SOP_UIDS_MAX):
        part = list(sop_uids[start : start + SOP_UIDS_MAX])
        event = DuplicateFound(
            study_uid=row.study_uid,
            pack_id=row.pack_id,
            offset=row.offset,
            comparison="canonical",
            instances=len(part),
            sop_uids=part,
        )
        id = derived_id("study.duplicate-found", row.study_uid, row.offset, "canonical", part[0])
        emits.append(Emit(event, id, row.study_uid))
    return emits


def conflict(study_uid: str, first: Copy, second: Copy, found: str, reason: str) -> Emit:
    """`found` is the log time of the second's record, so that finding it again gives the same event."""
    event = ConflictFound(
        study_uid=study_uid,
        series_uid=second.series_uid,
        sop_uid=second.sop_uid,
        first_pack_id=first.pack_id,
        first_offset=first.offset,
        first_sha256=first.sha256,
        second_pack_id=second.pack_id,
        second_offset=second.offset,
        second_sha256=second.sha256,
        found=found,
        reason=reason,
    )
    id = derived_id("study.conflict-found", study_uid, second.sop_uid, second.offset, second.line)
    return Emit(event, id, study_uid)
