"""An answer of a retrieve before its bytes: pieces in their order, whose lengths are known or not, and its tag. Pure.

The same address, form and served copies give the same bytes, boundaries included, so the tag is a strong one (RFC 9110
§8.8.3) and a part of the bytes can be asked for (§14). A correction changes the tag.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from consumers.api.overlay import EDITS
from consumers.api.wado import DICOM, Run, Stored, part_head, runs

Row = dict[str, Any]


@dataclass(frozen=True)
class Made:
    """An instance that does not leave as it is stored."""

    row: Row
    transfer_syntax: str
    """The one it leaves in."""
    boundary: str
    """Of the part it becomes; empty: it is the whole answer."""
    location: str
    or_stored: bool = False
    """Where it cannot be made, it leaves as it is stored, and says so: one instance must not cut the answer of all."""

    def head(self, length: int) -> bytes:
        """What stands before a part of so many bytes; nothing where the instance is the whole answer."""
        return part_head(self.boundary, DICOM, self.transfer_syntax, length, self.location) if self.boundary else b""


Step = Stored | Made | bytes


@dataclass(frozen=True)
class Plan:
    """Content-Type, tag, and the steps that make the body."""

    media_type: str
    etag: str
    steps: tuple[Step, ...]

    @property
    def length(self) -> int | None:
        """Of the body in bytes; None where something has to be made for it."""
        sizes = [size_of(step) for step in self.steps]
        return None if None in sizes else sum(s for s in sizes if s is not None)

    def cut(self, start: int, stop: int) -> Plan:
        """The bytes from `start` to `stop` alone, of a body of known length."""
        found: list[Step] = []
        at = 0
        for step in self.steps:
            size = size_of(step)
            if size is None:
                raise ValueError("unknown length")
            first, last = max(0, start - at), min(size, stop - at)
            if first < last:
                found.append(_part(step, first, last))
            at += size
        return replace(self, steps=tuple(found))


def size_of(step: Step) -> int | None:
    """Bytes of a step; None where they are not known before it is done."""
    match step:
        case bytes():
            return len(step)
        case Stored():
            return len(step.head) + step.length
        case _:
            return None


def _part(step: Step, first: int, last: int) -> Step:
    if isinstance(step, bytes):
        return step[first:last]
    if isinstance(step, Stored):
        head = len(step.head)
        if last <= head:
            return step.head[first:last]
        skip = max(0, first - head)
        return Stored(step.pack_id, step.offset + skip, last - head - skip, step.head[first:last])
    raise ValueError("unknown length")


def grouped(steps: Iterable[Step]) -> list[Run | Made | bytes]:
    """Stored neighbours joined to runs, in order."""
    found: list[Run | Made | bytes] = []
    stored: list[Stored] = []
    for step in steps:
        if isinstance(step, Stored):
            stored.append(step)
            continue
        found += [*runs(stored), step]
        stored = []
    return [*found, *runs(stored)]


def etag(*parts: str, rows: Sequence[Row] = ()) -> str:
    """A strong tag of what decides the bytes: the form of the answer, and which copies are served."""
    digest = hashlib.sha256("\n".join(parts).encode())
    for row in rows:
        digest.update(f"\n{row['pack_id']}/{row['line']}{row.get(EDITS, '')}".encode())
    return f'"{digest.hexdigest()[:32]}"'


def boundary_of(tag: str) -> str:
    """Of a multipart body with that tag."""
    return tag.strip('"')
