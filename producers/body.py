"""The bytes of one Part 10 file on their way into a pack: in memory, or in a file of their own when they are many.

A body's file lies in the spool's `incoming` folder, behind a gap of `GAP` bytes in which the tar header goes when the
file becomes a pack of its own (a rename, no copy).
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from producers.tar import PAX_HEADER_LENGTH

GAP = PAX_HEADER_LENGTH
CHUNK = 1 << 20
"""Bytes read at once from a body's file."""


@dataclass(frozen=True, slots=True)
class Held:
    """A file in memory, in one or more pieces; the first `dataset_offset` bytes are in the first piece."""

    pieces: tuple[bytes | bytearray | memoryview, ...]

    @property
    def length(self) -> int:
        """Bytes of the file."""
        return sum(len(p) for p in self.pieces)

    def chunks(self, start: int = 0) -> Iterator[memoryview]:
        """The bytes from `start` on; `start` lies in the first piece or at its end."""
        first, *others = self.pieces
        yield memoryview(first)[start:]
        for piece in others:
            yield memoryview(piece)

    def head(self, length: int) -> bytes:
        """The first `length` bytes, which lie in the first piece."""
        return bytes(memoryview(self.pieces[0])[:length])

    def view(self) -> memoryview:
        """The whole file as one view; only of a body in one piece."""
        (piece,) = self.pieces
        return memoryview(piece)

    def discard(self) -> None:
        """Nothing to remove."""


@dataclass(frozen=True, slots=True)
class Filed:
    """A file on disk, or a part of one."""

    path: Path
    length: int
    offset: int = GAP
    """Where it begins."""

    def chunks(self, start: int = 0) -> Iterator[memoryview]:
        """The bytes from `start` on; a chunk is good until the next is asked for. Fewer come if the file is cut."""
        with open(self.path, "rb", buffering=0) as f:
            f.seek(self.offset + start)
            buffer, left = memoryview(bytearray(min(CHUNK, self.length) or 1)), self.length - start
            while left > 0 and (n := f.readinto(buffer[:left])):
                yield buffer[:n]
                left -= n

    def head(self, length: int) -> bytes:
        """The first `length` bytes."""
        with open(self.path, "rb", buffering=0) as f:
            f.seek(self.offset)
            return f.read(length)

    def view(self) -> memoryview:
        """The whole file, mapped: pages come and go as they are looked at. Unmapped when its last view is gone."""
        return mapped(self.path)[self.offset : self.offset + self.length]

    def discard(self) -> None:
        """Remove the file; it may have become a pack."""
        self.path.unlink(missing_ok=True)


Body = Held | Filed


def mapped(path: Path) -> memoryview:
    """A file of at least one byte, mapped into memory for as long as there is a view of it.

    It is not closed by hand: views live on in the frames of an exception, and closing under them is an error.
    """
    with open(path, "rb") as f:
        return memoryview(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ))


def dataset_sha256(body: Body, dataset_offset: int) -> str:
    """SHA-256 of the dataset, hex."""
    digest = sha256()
    for chunk in body.chunks(dataset_offset):
        digest.update(chunk)
    return digest.hexdigest()


class FileWriter:
    """Writes a body of unknown length to a file of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.length = 0
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """Append. Raises OSError, among them ENOSPC."""
        view = memoryview(chunk)
        while view:
            n = os.pwrite(self._fd, view, GAP + self.length)
            self.length += n
            view = view[n:]

    def finish(self) -> Filed:
        """The body. Not durable yet: it becomes so with the pack."""
        self._close()
        return Filed(self.path, self.length)

    def discard(self) -> None:
        """Give up and remove the file."""
        self._close()
        self.path.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
