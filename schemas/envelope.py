"""CloudEvents 1.0 in Kafka's binary mode, and the hash chain.

Attributes are headers (`ce_id`, `ce_source`, `ce_type`, `ce_time`, `ce_subject`, `ce_specversion`, `traceparent`), the
payload is JSON. A chained producer adds `ce_sequence` (decimal, from 1) and `ce_prevhash` (`record_hash` of its last
record, 64 zeros for the first).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from schemas.errors import Invalid
from schemas.events import Event, decode_payload, encode_payload
from schemas.topics import BY_NAME, topic_of

Header = tuple[str, bytes]
GENESIS = "0" * 64
"""`ce_prevhash` of the first record of a source."""
HEADERS_MAX = 32

_HEX64 = re.compile(r"[0-9a-f]{64}\Z")


class Record(msgspec.Struct, frozen=True):
    """What is sent to, or was read from, a topic: exactly these bytes."""

    topic: str
    key: bytes
    headers: tuple[Header, ...]
    value: bytes


@dataclass(frozen=True)
class Link:
    """A record's place in the chain of its source."""

    sequence: int
    prevhash: str


@dataclass(frozen=True)
class Envelope:
    """A decoded record. `link` is None for an external producer outside any chain."""

    id: str
    source: str
    type: str
    time: str
    subject: str
    link: Link | None
    event: Event
    traceparent: str = ""


def encode(
    event: Event, *, id: str, source: str, time: str, subject: str = "", link: Link | None = None, traceparent: str = ""
) -> Record:
    """The record of an event. `time` is RFC 3339 in UTC."""
    headers: list[Header] = [
        ("ce_specversion", b"1.0"),
        ("ce_id", id.encode()),
        ("ce_source", source.encode()),
        ("ce_type", event.TYPE.encode()),
        ("ce_time", time.encode()),
        ("content-type", b"application/json"),
    ]
    if subject:
        headers.append(("ce_subject", subject.encode()))
    if traceparent:
        headers.append(("traceparent", traceparent.encode()))
    if link is not None:
        headers.append(("ce_sequence", str(link.sequence).encode()))
        headers.append(("ce_prevhash", link.prevhash.encode()))
    return Record(topic_of(event), event.key().encode(), tuple(headers), encode_payload(event))


def decode(topic: str, key: bytes | None, headers: Iterable[Header] | None, value: bytes | None) -> Envelope:
    """Decode and check a record. Raises UnknownEventType, or Invalid with one of the reasons

    `no-payload`, `no-headers`, `header-missing`, `header-repeated`, `header-text`, `too-many-headers`, `spec-version`,
    `wrong-topic`, `wrong-key`, `chain-headers`, `schema-violation`.
    """
    if value is None:
        raise Invalid("no-payload")
    attributes = _attributes(headers)
    event_type = _need(attributes, "ce_type")
    id, source, time = (_need(attributes, n) for n in ("ce_id", "ce_source", "ce_time"))
    if attributes.get("ce_specversion", "1.0") != "1.0":
        raise Invalid("spec-version")
    event = decode_payload(event_type, value)
    if topic in BY_NAME and topic_of(event) != topic:
        raise Invalid("wrong-topic", f"{event_type} does not belong into {topic}")
    if key is None or key != event.key().encode():
        # A wrong key is a wrong partition: the order of that study would be lost.
        raise Invalid("wrong-key", f"key of {event_type} is not the one its payload says")
    return Envelope(
        id=id,
        source=source,
        type=event_type,
        time=time,
        subject=attributes.get("ce_subject", ""),
        link=_link(attributes),
        event=event,
        traceparent=attributes.get("traceparent", ""),
    )


def link_of(headers: Sequence[Header] | None) -> tuple[str, Link | None]:
    """(source, link) of a record whose payload need not be readable. Raises Invalid."""
    attributes = _attributes(headers)
    return _need(attributes, "ce_source"), _link(attributes)


def record_hash(record: Record) -> str:
    """SHA-256 over topic, key, headers in order and value, each with its length (4 bytes, big endian) in front."""
    h = hashlib.sha256()
    parts = [record.topic.encode(), record.key]
    for name, text in record.headers:
        parts += (name.encode(), text)
    parts.append(record.value)
    for p in parts:
        h.update(len(p).to_bytes(4, "big"))
        h.update(p)
    return h.hexdigest()


def _attributes(headers: Iterable[Header] | None) -> dict[str, str]:
    found: dict[str, str] = {}
    for n, (name, text) in enumerate(headers or ()):
        if n >= HEADERS_MAX:
            raise Invalid("too-many-headers")
        if name in found:
            raise Invalid("header-repeated", f"header {name[:32]!r} is there twice")
        try:
            found[name] = (text or b"").decode()
        except UnicodeDecodeError as e:
            raise Invalid("header-text") from e
    if not found:
        raise Invalid("no-headers", "a CloudEvent in binary mode has its attributes in headers")
    return found


def _need(attributes: dict[str, str], name: str) -> str:
    text = attributes.get(name, "")
    if not text:
        raise Invalid("header-missing", f"header {name} is missing")
    return text


def _link(attributes: dict[str, str]) -> Link | None:
    sequence, prevhash = attributes.get("ce_sequence"), attributes.get("ce_prevhash")
    if sequence is None and prevhash is None:
        return None
    if sequence is None or prevhash is None or not sequence.isdecimal() or not _HEX64.match(prevhash):
        raise Invalid("chain-headers")
    return Link(int(sequence), prevhash)
