"""Heads of event chains in S3, so that a lost tail of the log shows: without them a shorter chain looks whole."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import msgspec

from infra.ports import Objects
from schemas.errors import Defect, NotFound


class Anchor(msgspec.Struct, frozen=True, kw_only=True):
    """The log had acknowledged this record, and all before it, at this time."""

    source: str
    sequence: int
    hash: str
    time: str


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Anchor)


def prefix(source: str) -> str:
    """Where the anchors of a source are."""
    return source.replace("/", "_") + "/"


def key(source: str, sequence: int) -> str:
    """Keys sort by sequence."""
    return f"{prefix(source)}{sequence:020d}.json"


def write(objects: Objects, bucket: str, anchor: Anchor) -> None:
    """Put the anchor, unless that sequence has one. Raises Transient; Defect if it has one with another hash."""
    place = key(anchor.source, anchor.sequence)
    try:
        there = read(objects, bucket, place)
    except NotFound:
        body = _encoder.encode(anchor)
        sha256 = hashlib.sha256(body).hexdigest()
        objects.put(bucket, place, body, sha256=sha256, content_type="application/json")
        return
    if there.hash != anchor.hash:
        raise Defect(f"{bucket}/{place}: this chain has another record at sequence {anchor.sequence}")


def read(objects: Objects, bucket: str, place: str) -> Anchor:
    """An anchor by its key. Raises NotFound, Transient; Defect if it is none."""
    try:
        return _decoder.decode(objects.get(bucket, place))
    except msgspec.DecodeError as e:
        raise Defect(f"{bucket}/{place} is no anchor") from e


def keys(objects: Objects, bucket: str, source: str = "") -> Iterator[str]:
    """Keys of the anchors of one source, or of all. Raises Transient."""
    yield from objects.list(bucket, prefix(source) if source else "")
