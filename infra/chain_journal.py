"""The journal of a chain: every record a process ever sends, on disk before its first send.

A folder of segments, `<first sequence, 20 digits>.jsonl`: a Head line (sequence and hash of the record before), then a
line per record. A line is durable when `sync` returns. `acknowledged` holds the sequence up to which Kafka has
everything; it is written lazily, since sending again what was acknowledged is harmless. Segments that Kafka has in full
are deleted, except the last, which carries the head.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from schemas.envelope import GENESIS, Record, link_of, record_hash
from schemas.errors import Defect, Invalid

SEGMENT_BYTES = 16 << 20


class Head(msgspec.Struct, frozen=True, tag="head", tag_field="line"):
    """The end of a chain: the last record's sequence (0: none yet) and hash."""

    sequence: int = 0
    hash: str = GENESIS


class Entry(msgspec.Struct, frozen=True, tag="record", tag_field="line"):
    """One record and its place in the chain."""

    sequence: int
    hash: str
    record: Record


@dataclass(frozen=True, slots=True)
class Place:
    """Where an entry's line lies, so that it need not be held in memory."""

    segment: Path
    offset: int
    length: int


_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Head | Entry] = msgspec.json.Decoder(Head | Entry)


class Journal:
    """One thread writes and syncs, one marks. OSErrors come as they are: after one of fsync nothing is sure."""

    def __init__(self, folder: Path) -> None:
        """Recovers the folder: cuts a torn last line off, checks hash and order of every line.

        Raises Defect when a line that is not the last is damaged or out of order.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.head = Head()
        self.acknowledged = self._read_mark()
        self.unacknowledged: list[tuple[int, str, Place]] = []
        """(sequence, hash, place) of what an earlier process may not have delivered, in order."""
        self._segments = sorted(folder.glob("*.jsonl"))
        for path in self._segments:
            self._recover(path, last=path == self._segments[-1])
        if self._segments:
            self._fd = os.open(self._segments[-1], os.O_RDWR | os.O_CLOEXEC)
            self._size = os.fstat(self._fd).st_size
        else:
            self._fd, self._size = -1, 0
            self._rotate()
        self.acknowledged = min(self.acknowledged, self.head.sequence)

    # -------------------------------------------------------------------------------------------- writing

    def write(self, entries: list[Entry]) -> list[Place]:
        """Append lines; durable after `sync`."""
        if self._size > SEGMENT_BYTES:
            self._rotate()
        places, lines, at = [], [], self._size
        for entry in entries:
            line = _encoder.encode(entry) + b"\n"
            places.append(Place(self._segments[-1], at, len(line)))
            lines.append(line)
            at += len(line)
        data = b"".join(lines)
        if os.pwrite(self._fd, data, self._size) != len(data):
            raise OSError("short write to the journal of the chain")
        self._size = at
        self.head = Head(entries[-1].sequence, entries[-1].hash)
        return places

    def sync(self) -> None:
        """Make what was written durable."""
        os.fdatasync(self._fd)

    def mark(self, sequence: int) -> None:
        """Kafka has everything up to `sequence`: note it, and delete segments that are not needed any more."""
        self.acknowledged = sequence
        temporary = self.folder / "acknowledged.new"
        temporary.write_text(str(sequence))
        os.replace(temporary, self.folder / "acknowledged")
        while len(self._segments) > 1 and _first(self._segments[1]) <= sequence + 1:
            self._segments.pop(0).unlink()

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._fd)

    def _rotate(self) -> None:
        """Begin a segment; its head line makes the ones before dispensable."""
        path = self.folder / f"{self.head.sequence + 1:020d}.jsonl"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        line = _encoder.encode(self.head) + b"\n"
        os.pwrite(fd, line, 0)
        os.fdatasync(fd)
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        if self._fd >= 0:
            os.close(self._fd)  # every round was synced
        self._fd, self._size = fd, len(line)
        self._segments.append(path)

    # -------------------------------------------------------------------------------------------- reading

    @staticmethod
    def read(place: Place) -> Record:
        """The record at a place. Raises Defect when its line is not what was written."""
        with place.segment.open("rb") as f:
            f.seek(place.offset)
            line = _parse(f.read(place.length))
        if not isinstance(line, Entry):
            raise Defect(f"the chain's journal has no record at {place.segment.name}:{place.offset}")
        return line.record

    def _recover(self, path: Path, *, last: bool) -> None:
        data = path.read_bytes()
        good = 0
        for offset, raw in _lines(data):
            line = _parse(raw) if raw.endswith(b"\n") else None
            if line is None:
                if last and offset + len(raw) == len(data):
                    break  # torn by a crash before its fsync: never sent, never promised
                raise Defect(f"the chain's journal is damaged at {path.name}:{offset}")
            self._take(line, path, offset, len(raw))
            good = offset + len(raw)
        if good < len(data):
            with path.open("rb+") as f:
                f.truncate(good)
                os.fsync(f.fileno())
        if good == 0:  # not even its head line was written: as if it had never been begun
            path.unlink()
            self._segments.remove(path)

    def _take(self, line: Head | Entry, path: Path, offset: int, length: int) -> None:
        if isinstance(line, Head):
            if self.head.sequence and line != self.head:
                raise Defect(f"the chain's journal does not go on at {path.name}")
            self.head = line
            return
        try:
            _, link = link_of(line.record.headers)
        except Invalid as e:
            raise Defect(f"the chain's journal has no link at {path.name}:{offset}") from e
        follows = link is not None and (link.sequence, link.prevhash) == (self.head.sequence + 1, self.head.hash)
        if not follows or line.sequence != self.head.sequence + 1 or record_hash(line.record) != line.hash:
            raise Defect(f"the chain's journal does not hold together at {path.name}:{offset}")
        self.head = Head(line.sequence, line.hash)
        if line.sequence > self.acknowledged:
            self.unacknowledged.append((line.sequence, line.hash, Place(path, offset, length)))

    def _read_mark(self) -> int:
        try:
            return int((self.folder / "acknowledged").read_text())
        except (FileNotFoundError, ValueError):
            return 0


def _lines(data: bytes) -> Iterator[tuple[int, bytes]]:
    start = 0
    while start < len(data):
        end = data.find(b"\n", start) + 1 or len(data)
        yield start, data[start:end]
        start = end


def _parse(raw: bytes) -> Head | Entry | None:
    try:
        return _decoder.decode(raw)
    except msgspec.DecodeError:
        return None


def _first(segment: Path) -> int:
    return int(segment.stem)
