"""The journal of an event chain: complete records on disk, fsynced before anything else happens to them.

A folder of segments `<sequence of its first record>.journal`. The first line of a segment says where the chain stood
before it, each further line holds one record with its sequence, its hash and the first sequence of the batch that was
written and synced with it.

Only the last batch can be torn by a crash, since a batch is synced before the next is written. So damage inside the
last batch is cut off: nobody was told that those records are kept. Damage anywhere before it, or of what is known to be
acknowledged, is a Defect: the chain is evidence, and what was kept has changed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import msgspec

from infra import faults
from schemas.envelope import GENESIS, Link, Record, link_of, record_hash
from schemas.errors import Defect, Invalid, Overloaded

SEGMENT_BYTES = 16 * 1024 * 1024
_SUFFIX = ".journal"
_MARK = "acknowledged"


@dataclass(frozen=True)
class Head:
    """Where a chain stands: the last sequence, and the hash of its record (the next record's `ce_prevhash`)."""

    sequence: int
    hash: str


class Base(msgspec.Struct, frozen=True):
    """First line of a segment."""

    source: str
    sequence: int
    hash: str


class Entry(msgspec.Struct, frozen=True):
    """A kept record."""

    sequence: int
    hash: str
    batch: int
    record: Record


_encoder = msgspec.json.Encoder()
_bases = msgspec.json.Decoder(Base)
_entries = msgspec.json.Decoder(Entry)


class Journal:
    """The journal of one source. One thread appends, one reads; the owner holds the source's lock."""

    def __init__(self, folder: Path, source: str, segment_bytes: int = SEGMENT_BYTES) -> None:
        """Opens and recovers. Raises Defect when what was kept is damaged or belongs to another source."""
        self._folder = folder
        self._source = source
        self._segment_bytes = segment_bytes
        folder.mkdir(parents=True, exist_ok=True)
        self.head = self._recover()
        numbers = self._segments()
        self.oldest = numbers[0] - 1 if numbers else 0
        """Everything up to here was acknowledged and is no longer in the journal."""
        self._file = os.open(self._path(numbers[-1]), os.O_WRONLY | os.O_APPEND) if numbers else self._create()
        self._size = os.fstat(self._file).st_size
        self._mark = os.open(folder / _MARK, os.O_RDWR | os.O_CREAT, 0o600)
        if self.acknowledged > self.head.sequence:
            raise Defect(f"{folder} ends at {self.head.sequence}, and {self.acknowledged} was acknowledged")

    @staticmethod
    def exists(folder: Path) -> bool:
        """Whether there is a journal in a folder: not at a first start, nor after a disk was lost."""
        return any(folder.glob(f"*{_SUFFIX}"))

    # ------------------------------------------------------------------------------------------------ recovery

    def _segments(self) -> list[int]:
        return sorted(int(p.stem) for p in self._folder.glob(f"*{_SUFFIX}"))

    def _path(self, first: int) -> Path:
        return self._folder / f"{first:020d}{_SUFFIX}"

    def _recover(self) -> Head:
        """The head, after a torn end was cut off."""
        numbers = self._segments()
        head = Head(0, GENESIS)
        for number in numbers:
            path = self._path(number)
            last = number == numbers[-1]
            base = self._base(path)
            if base is None:
                if not last or path.stat().st_size > self._torn_base_max():
                    raise Defect(f"{path}: the first line is damaged")
                path.unlink()  # it was being made when the process ended: no record was in it
                break
            if base.source != self._source:
                raise Defect(f"{path} belongs to {base.source}, this is {self._source}")
            expected = head if number != numbers[0] else Head(number - 1, base.hash)
            if (base.sequence, base.hash) != (expected.sequence, expected.hash):
                raise Defect(f"{path} does not follow the segment before it")
            head = self._check(path, expected, last)
        return head

    def _torn_base_max(self) -> int:
        """Bytes of the longest first line: what can be torn of a segment that holds no record."""
        return len(_encoder.encode(Base(self._source, 2**63, GENESIS))) + 1

    def _base(self, path: Path) -> Base | None:
        with path.open("rb") as file:
            line = file.readline()
        try:
            return _bases.decode(line) if line.endswith(b"\n") else None
        except msgspec.DecodeError:
            return None

    def _check(self, path: Path, head: Head, last: bool) -> Head:
        """The head after a segment. Cuts a torn end off the last one."""
        with path.open("r+b") as file:
            offset = len(file.readline())
            for line in file:
                entry = _following(line, head)
                if entry is None:
                    if not last or not _within_last_batch(file, head.sequence + 1):
                        raise Defect(f"{path}: damaged behind sequence {head.sequence}")
                    file.truncate(offset)
                    os.fsync(file.fileno())
                    break
                head = Head(entry.sequence, entry.hash)
                offset += len(line)
        return head

    # ------------------------------------------------------------------------------------------------ writing

    def keep(self, batch: Sequence[tuple[int, str, Record]]) -> None:
        """Write (sequence, hash, record) of each and sync once.

        Raises Overloaded when the disk is full: nothing of the batch is kept then. Raises Defect when the sync failed:
        nobody knows what is on the disk, and the process has to end, for fsync is never tried again.
        """
        first = batch[0][0]
        lines = b"".join(_encoder.encode(Entry(s, h, first, r)) + b"\n" for s, h, r in batch)
        if self._size > self._segment_bytes and not self._path(first).exists():
            full, self._file = self._file, self._create()
            os.close(full)
            self._size = os.fstat(self._file).st_size
        try:
            _write(self._file, lines)
        except OSError as e:
            os.ftruncate(self._file, self._size)
            _sync(self._file)
            raise Overloaded(f"the journal of {self._source} cannot grow: {os.strerror(e.errno or 0)}") from e
        faults.point("chain.before-fsync")
        _sync(self._file)
        self._size += len(lines)
        self.head = Head(batch[-1][0], batch[-1][1])

    def _create(self) -> int:
        """A new segment behind the head, durable with its name before a record is in it. Raises as `keep`."""
        path = self._path(self.head.sequence + 1)
        try:
            file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                _write(file, _encoder.encode(Base(self._source, self.head.sequence, self.head.hash)) + b"\n")
            except OSError:
                os.close(file)
                path.unlink()
                raise
        except OSError as e:
            raise Overloaded(f"the journal of {self._source} cannot grow: {os.strerror(e.errno or 0)}") from e
        _sync(file)
        folder = os.open(self._folder, os.O_RDONLY)
        _sync(folder)
        os.close(folder)
        return file

    # ------------------------------------------------------------------------------------------------ reading

    def read(self, first: int) -> Iterator[Entry]:
        """Kept records from a sequence on, to the last that is whole now. Raises Defect when one has changed."""
        numbers = self._segments()
        start = max((n for n in numbers if n <= first), default=None)
        if start is None:
            raise Defect(f"{self._source}: sequence {first} is not in the journal")
        for number in (n for n in numbers if n >= start):
            path = self._path(number)
            base = self._base(path)
            if base is None:
                raise Defect(f"{path} has changed since it was opened")
            head = Head(base.sequence, base.hash)
            with path.open("rb") as file:
                file.readline()
                for line in file:
                    entry = _following(line, head)
                    if entry is None:
                        if line.endswith(b"\n"):
                            raise Defect(f"{path} has changed since it was opened")
                        return  # being written
                    head = Head(entry.sequence, entry.hash)
                    if entry.sequence >= first:
                        yield entry

    def hash_at(self, sequence: int) -> str:
        """Hash of the record with that sequence, or of the chain before the oldest segment."""
        if sequence == self.head.sequence:
            return self.head.hash
        if sequence == self.oldest:
            base = self._base(self._path(sequence + 1))
            return base.hash if base else GENESIS
        return next(self.read(sequence)).hash

    # ------------------------------------------------------------------------------------------------ forgetting

    @property
    def acknowledged(self) -> int:
        """Every record up to this sequence is known to be acknowledged. May lag behind the truth, never ahead."""
        text = os.pread(self._mark, 20, 0)
        return max(self.oldest, int(text) if len(text) == 20 and text.isdigit() else 0)

    def acknowledge(self, sequence: int) -> None:
        """Note that all up to here are acknowledged, and remove segments that hold nothing else.

        Not synced: losing the note means sending again what the log has, byte for byte the same.
        """
        os.pwrite(self._mark, b"%020d" % sequence, 0)
        faults.point("chain.before-forget")
        numbers = self._segments()
        for number, following in pairwise(numbers):
            if following <= sequence + 1:
                self._path(number).unlink()
                self.oldest = following - 1

    def close(self) -> None:
        """Let go of the files."""
        os.close(self._file)
        os.close(self._mark)


def _sync(file: int) -> None:
    try:
        os.fdatasync(file)  # with the file's size, without its times
    except OSError as e:
        raise Defect(f"fsync failed: {os.strerror(e.errno or 0)}") from e


def _write(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _decode(line: bytes) -> Entry | None:
    """The entry of a whole line whose record is the one that was hashed."""
    with suppress(msgspec.DecodeError):
        entry = _entries.decode(line)
        if line.endswith(b"\n") and record_hash(entry.record) == entry.hash:
            return entry
    return None


def _following(line: bytes, head: Head) -> Entry | None:
    """The entry of a line, if it is the one that has to come after `head`."""
    entry = _decode(line)
    if entry is None or entry.sequence != head.sequence + 1:
        return None
    try:
        _, link = link_of(entry.record.headers)
    except Invalid:
        return None
    return entry if link == Link(entry.sequence, head.hash) else None


def _within_last_batch(rest: Iterator[bytes], damaged: int) -> bool:
    """Whether no line behind the damaged one is of a batch begun after it: those were written when it was synced."""
    return all(entry is None or entry.batch <= damaged for entry in map(_decode, rest))
