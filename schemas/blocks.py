"""Where the bytes of a tar lie in its compressed object: a row of zstd frames (RFC 8878), each a block of the tar.

Any zstd opens the whole, for frames one behind the other are a zstd file; a reader of one instance fetches the blocks
that it lies in and no other. Offsets are those of the tar everywhere: only who fetches bytes looks at blocks. Pure.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate

import msgspec

from schemas.errors import Invalid

BLOCK_MIN = 256 << 10
"""A block ends with a member, once it has this many bytes: a CT slice is a block of its own, small ones share one."""
BLOCK_MAX = 1 << 20
"""Longest block of a tar, bytes: what a range of a large instance costs at most in bytes that nobody asked for."""

Pairs = tuple[tuple[int, int], ...]
"""Bytes of the tar and bytes of the object, block by block."""

_decoder = msgspec.json.Decoder(Pairs)


@dataclass(frozen=True, slots=True)
class Part:
    """One block of a range: how long its frame is, how many bytes it holds, and which of them are of the range."""

    stored: int
    plain: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Span:
    """Where the object has a range of the tar: bytes from `offset`, block behind block."""

    offset: int
    length: int
    parts: tuple[Part, ...]


class Blocks:
    """The blocks of one object, in order."""

    __slots__ = ("_plain", "_stored", "pairs")

    def __init__(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Raises Invalid(`blocks-empty`) for a block without bytes."""
        self.pairs: Pairs = tuple(pairs)
        if not self.pairs or min(min(pair) for pair in self.pairs) < 1:
            raise Invalid("blocks-empty")
        self._plain = [0, *accumulate(plain for plain, _ in self.pairs)]
        self._stored = [0, *accumulate(stored for _, stored in self.pairs)]

    @classmethod
    def parse(cls, text: str | bytes) -> Blocks:
        """What `text` wrote. Raises Invalid."""
        try:
            return cls(_decoder.decode(text))
        except msgspec.DecodeError as e:
            raise Invalid("blocks-damaged") from e

    def text(self) -> str:
        """As JSON: `[[bytes of the tar, bytes of the object], ...]`."""
        return msgspec.json.encode(self.pairs).decode()

    @property
    def tar_size(self) -> int:
        """Bytes of the tar."""
        return self._plain[-1]

    @property
    def size(self) -> int:
        """Bytes of the object."""
        return self._stored[-1]

    def span(self, offset: int, length: int) -> Span:
        """Where the object has `length` bytes of the tar from `offset`. Raises Invalid(`blocks-range`)."""
        end = offset + length
        if offset < 0 or length < 0 or end > self.tar_size:
            raise Invalid("blocks-range", f"bytes {offset} to {end} of a tar of {self.tar_size}")
        if not length:
            return Span(0, 0, ())
        first = bisect_right(self._plain, offset) - 1
        parts, n = [], first
        while self._plain[n] < end:
            (plain, stored), begin = self.pairs[n], self._plain[n]
            parts.append(Part(stored, plain, max(0, offset - begin), min(plain, end - begin)))
            n += 1
        return Span(self._stored[first], self._stored[n] - self._stored[first], tuple(parts))


def cut(ends: Iterable[int], size: int) -> Iterator[tuple[int, int]]:
    """Start and end of each block of a tar of `size` bytes whose members end at `ends` (ascending)."""
    start = 0
    for end in (*(e for e in ends if e < size), size):
        if end < size and end - start < BLOCK_MIN:
            continue
        while end - start > BLOCK_MAX:
            yield start, start + BLOCK_MAX
            start += BLOCK_MAX
        if end > start:
            yield start, end
            start = end
