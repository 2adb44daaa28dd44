"""The journal beside an open tar: a line per member and per change of the pack's state, each with its own checksum.

A line is eight hex digits of CRC-32, a space, a JSON object and a newline. Lines are independent: one that a torn
write has destroyed costs itself and never its neighbours. What the lines say of the tar's bytes is believed only
after these have been checked (`producers.recovery`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import msgspec

from schemas.pack import Sender


class _Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="line"):
    """Base of all lines."""


class Opened(_Line, frozen=True, kw_only=True, omit_defaults=True, tag="opened"):
    """First line: whose pack this is. Repeated in no other line, so a pack without it is named by its members."""

    pack_id: str
    study_uid: str
    site: str
    issuer: str
    gateway: str
    opened: str
    salvages: str = ""
    """The pack whose readable members were copied here; while that one exists, this one does not count."""


class Member(_Line, frozen=True, kw_only=True, omit_defaults=True, tag="member"):
    """An instance in the tar."""

    name: str
    entry: int
    """Offset of its tar header."""
    offset: int
    """Offset of the Part 10 file."""
    length: int
    """Of the Part 10 file."""
    dataset_offset: int
    """From the start of the file to its dataset."""
    sha256: str
    """Of the dataset, hex."""
    crc: int
    """CRC-32 of everything in front of the dataset: tar header, preamble and File Meta."""
    study_uid: str
    series_uid: str
    sop_uid: str
    sop_class: str
    transfer_syntax: str
    received: str
    sender: Sender
    marks: tuple[str, ...] = ()

    @property
    def end(self) -> int:
        """Offset behind its last block."""
        return self.offset + self.length + -self.length % 512


class Again(_Line, frozen=True, kw_only=True, omit_defaults=True, tag="again"):
    """An instance that the pack has came again with the same dataset: acknowledged, not stored again."""

    sop_uid: str
    sha256: str
    received: str
    sender: Sender


class Sealed(_Line, frozen=True, kw_only=True, omit_defaults=True, tag="sealed"):
    """Nothing comes behind this: the tar is complete."""

    size: int
    crc: int | None = None
    """CRC-32 of the tar: against damage by the disk. What says that nobody altered it are the members' SHA-256."""
    sha256: str = ""
    """Of the tar, hex, in its place: in lines of earlier versions."""
    instances: int
    repeats: int
    sealed: str


class Committed(_Line, frozen=True, kw_only=True, omit_defaults=True, tag="committed"):
    """The pack is in S3 and Kafka has acknowledged its event; a later line of the same kind counts more."""

    event_id: str
    partition: int
    offset: int
    committed: str


Line = Opened | Member | Again | Sealed | Committed

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(Line)


def encode(line: Line) -> bytes:
    """The line as it is written."""
    text = _encoder.encode(line)
    return b"%08x %s\n" % (crc32(text), text)


@dataclass(frozen=True, slots=True)
class Read:
    """A line as it was found: where it ends in the file, and what it says; None when it is damaged."""

    end: int
    line: Line | None


def scan(data: bytes) -> Iterator[Read]:
    """Every line of a journal in its order, damaged ones as None. A last line without its newline is damaged."""
    position = 0
    while position < len(data):
        newline = data.find(b"\n", position)
        end = len(data) if newline < 0 else newline + 1
        yield Read(end, _decode(data[position:newline]) if newline >= 0 else None)
        position = end


def _decode(raw: bytes) -> Line | None:
    checksum, _, text = raw.partition(b" ")
    try:
        line: Line | None = _decoder.decode(text) if checksum == b"%08x" % crc32(text) else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return line
