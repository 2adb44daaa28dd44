"""One open pack: a tar that grows, the journal beside it, and what must be known of both until it is sealed.

Nothing here is durable by itself: the committer syncs. A write that fails leaves tar and journal as they were.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from zlib import crc32

from producers import tar
from producers.body import CHUNK, Body, Filed, Held
from producers.journal import Again, Line, Member, Opened, Sealed, encode
from schemas.errors import Defect
from schemas.pack import Sender

IOV_MAX = 512
"""Pieces written by one call; the kernel takes 1024."""


def tar_path(folder: Path, pack_id: str) -> Path:
    """The tar of a pack."""
    return folder / f"{pack_id}.tar"


def journal_path(folder: Path, pack_id: str) -> Path:
    """The journal of a pack."""
    return folder / f"{pack_id}.journal"


@dataclass(frozen=True, slots=True)
class Instance:
    """An instance that may be stored: what it is and who sent it. UIDs are checked."""

    study_uid: str
    series_uid: str
    sop_uid: str
    sop_class: str
    transfer_syntax: str
    dataset_offset: int
    """From the start of the file to its dataset."""
    sender: Sender
    marks: tuple[str, ...] = ()


class OpenPack:
    """Written by one thread at a time, under `lock`; `feeders` and times are the spool's, under its own lock."""

    def __init__(self, folder: Path, opened: Opened, adopt: Filed | None = None) -> None:
        """Creates the two files; with `adopt`, that body's file becomes the tar."""
        self.opened = opened
        self.pack_id = opened.pack_id
        self.lock = threading.Lock()
        self.size = 0
        self.instances = 0
        self.repeats = 0
        self.fresh = True
        """Its folder has not been synced since the files were made."""
        self.closed = False
        """Sealed, or given up: takes nothing more."""
        self.feeders = 0
        self.fed_at = 0.0
        self.released_at = 0.0
        self._crc = 0
        self._journal_size = 0
        self._contents: dict[str, set[str]] = {}
        path = self._path = tar_path(folder, self.pack_id)
        if adopt is not None:
            os.rename(adopt.path, path)
        flags = os.O_RDWR | os.O_CLOEXEC | (0 if adopt else os.O_CREAT | os.O_EXCL)
        self.tar_fd = os.open(path, flags, 0o600)
        try:
            self.journal_fd = os.open(
                journal_path(folder, self.pack_id), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
            )
        except OSError:
            os.close(self.tar_fd)
            raise
        try:
            self._append(opened)
        except OSError:
            self.close()
            raise

    def has(self, sop_uid: str, digest: str) -> bool:
        """Whether this very instance is in the pack."""
        return digest in self._contents.get(sop_uid, ())

    def has_any(self, sop_uids: Collection[str]) -> bool:
        """Whether a copy of one of these instances is in the pack."""
        return not self._contents.keys().isdisjoint(sop_uids)

    def add(self, instance: Instance, body: Body, digest: str, *, received: str) -> bool:
        """Write an instance, or only a line when the pack has it already (False). Caller holds `lock`.

        `digest` is the SHA-256 of the dataset. Raises OSError; the pack is then as before, or closed if even that
        failed.
        """
        if self.closed:
            raise Defect(f"pack {self.pack_id} is closed")
        if self.has(instance.sop_uid, digest):
            self.repeat(Again(sop_uid=instance.sop_uid, sha256=digest, received=received, sender=instance.sender))
            return False
        others = self._contents.get(instance.sop_uid)
        name = f"{instance.sop_uid}.{digest[:8]}.dcm" if others else f"{instance.sop_uid}.dcm"
        self._undoably(lambda: self._write(instance, body, digest, name, received))
        self._contents.setdefault(instance.sop_uid, set()).add(digest)
        self.instances += 1
        return True

    def repeat(self, again: Again) -> None:
        """Record that an instance of the pack came again. Caller holds `lock`; raises OSError as `add` does."""
        self._undoably(lambda: self._append(again))
        self.repeats += 1

    def add_own(self, instance: Instance, body: Filed, digest: str, *, received: str) -> None:
        """The adopted body as the only member: only header, padding and journal are written. Caller holds `lock`."""
        name = f"{instance.sop_uid}.dcm"
        body = Filed(self._path, body.length)
        head = tar.pax_header(name, body.length, _seconds(received))
        os.pwrite(self.tar_fd, head, 0)
        os.pwrite(self.tar_fd, tar.padding(body.length), len(head) + body.length)
        self.size = len(head) + body.length + len(tar.padding(body.length))
        for chunk in self._read(0, self.size):
            self._crc = crc32(chunk, self._crc)
        self._append(self._member(instance, body, digest, name, received, head, entry=0))
        self.instances = 1

    def seal(self, sealed: str) -> Sealed:
        """End the archive and say so in the journal. Caller holds `lock`."""
        self.closed = True
        self._put(self.size, [memoryview(tar.END)])
        self._crc = crc32(tar.END, self._crc)
        self.size += len(tar.END)
        line = Sealed(
            size=self.size,
            crc=self._crc,
            instances=self.instances,
            repeats=self.repeats,
            sealed=sealed,
        )
        self._append(line)
        self._contents = {}
        return line

    def close(self) -> None:
        """Let go of the files. Nothing may be waiting for a sync of them."""
        os.close(self.tar_fd)
        os.close(self.journal_fd)

    # -------------------------------------------------------------------------------------------- writing

    def _write(self, instance: Instance, body: Body, digest: str, name: str, received: str) -> None:
        head = tar.header(name, body.length, _seconds(received))
        entry, pad = self.size, tar.padding(body.length)
        running = self._crc
        end = entry
        for group in _groups(head, body, pad):
            for piece in group:
                running = crc32(piece, running)
            end += self._put(end, group)
        self._append(self._member(instance, body, digest, name, received, head, entry))
        self.size, self._crc = end, running

    def _member(
        self, instance: Instance, body: Body, digest: str, name: str, received: str, head: bytes, entry: int
    ) -> Member:
        return Member(
            name=name,
            entry=entry,
            offset=entry + len(head),
            length=body.length,
            dataset_offset=instance.dataset_offset,
            sha256=digest,
            crc=crc32(body.head(instance.dataset_offset), crc32(head)),
            study_uid=instance.study_uid,
            series_uid=instance.series_uid,
            sop_uid=instance.sop_uid,
            sop_class=instance.sop_class,
            transfer_syntax=instance.transfer_syntax,
            received=received,
            sender=instance.sender,
            marks=instance.marks,
        )

    def _put(self, offset: int, pieces: list[memoryview]) -> int:
        """Write all pieces at `offset`; how many bytes that was."""
        total = sum(len(p) for p in pieces)
        done = os.pwritev(self.tar_fd, pieces, offset)
        while done < total:  # a short write: rare enough to be slow
            rest = memoryview(b"".join(pieces))[done:]
            done += os.pwrite(self.tar_fd, rest, offset + done)
        return total

    def _append(self, line: Line) -> None:
        data = encode(line)
        if os.pwrite(self.journal_fd, data, self._journal_size) != len(data):
            raise OSError(f"short write to the journal of pack {self.pack_id}")
        self._journal_size += len(data)

    def _undoably(self, write: Callable[[], None]) -> None:
        """Run `write`; on OSError cut both files back to what they were."""
        journal_size = self._journal_size
        try:
            write()
        except OSError:
            self.closed = True  # until it is known to be as before
            os.ftruncate(self.tar_fd, self.size)
            os.ftruncate(self.journal_fd, journal_size)
            self._journal_size = journal_size
            self.closed = False
            raise

    def _read(self, start: int, end: int) -> Iterator[memoryview]:
        buffer = memoryview(bytearray(CHUNK))
        while start < end:
            n = os.preadv(self.tar_fd, [buffer[: end - start]], start)
            if n == 0:
                raise Defect(f"the tar of pack {self.pack_id} is shorter than it should be")
            yield buffer[:n]
            start += n


def _seconds(received: str) -> int:
    return int(datetime.fromisoformat(received).timestamp())


def _groups(head: bytes, body: Body, pad: bytes) -> Iterator[list[memoryview]]:
    """Header, file and padding in groups small enough for one write each."""
    if isinstance(body, Held):
        pieces = [memoryview(head), *body.chunks(), memoryview(pad)]
        for i in range(0, len(pieces), IOV_MAX):
            yield pieces[i : i + IOV_MAX]
    else:
        yield [memoryview(head)]
        for chunk in body.chunks():
            yield [chunk]
        yield [memoryview(pad)]
