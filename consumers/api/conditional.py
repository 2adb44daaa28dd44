"""Conditional and range requests (RFC 9110 §13, §14), and how long an answer may be kept. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from schemas.errors import Permanent

_TAG = re.compile(r'(?:W/)?("[^"]*")')
_RANGE = re.compile(r"bytes\s*=\s*(\d*)-(\d*)\s*", re.IGNORECASE)

REVALIDATED = "private, no-cache"
"""Cache-Control of what grows or is corrected: it may be kept, and is asked about each time."""


def kept_for(seconds: float) -> str:
    """Cache-Control of an instance's content: as long as the grant for it covers, a client need not ask again; then it
    asks, and that is recorded. Never in a cache that several people share.
    """
    return f"private, max-age={int(seconds)}, immutable"


class NotSatisfiable(Permanent):
    """No byte of the range is there: 416."""

    def __init__(self, size: int) -> None:
        super().__init__(f"there are {size} bytes")
        self.size = size


@dataclass(frozen=True)
class Part:
    """Bytes `start` to `stop` of `size`."""

    start: int
    stop: int
    size: int

    @property
    def content_range(self) -> str:
        """RFC 9110 §14.4."""
        return f"bytes {self.start}-{self.stop - 1}/{self.size}"


def unchanged(if_none_match: str, etag: str) -> bool:
    """Whether the client has it already. The weak comparison, as §13.1.2 wants it."""
    return if_none_match.strip() == "*" or etag in _TAG.findall(if_none_match)


def part(range_: str, if_range: str, etag: str, size: int) -> Part | None:
    """The part asked for; None: the whole. Several ranges, or one that cannot be read, are as none.

    Raises NotSatisfiable.
    """
    found = _RANGE.fullmatch(range_.strip())
    if found is None or (if_range and if_range.strip() != etag):
        return None
    first, last = found.groups()
    if not first and not last:
        return None
    if not first:
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < start:
            return None
    if start >= stop:
        raise NotSatisfiable(size)
    return Part(start, stop, size)
