"""Records that could not be processed: kept encrypted in S3, read back, sent again.

The payload of a dead letter may be anything, patient data included, so it is sealed with AES-256-GCM under a key of its
own. The nonce is an HMAC over place and content: sealing a record twice gives the same bytes, and putting them twice is
putting them once; two contents never share a nonce.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from infra.ports import Log, Objects, Position, Stored
from infra.settings import Settings, SettingsError
from schemas.envelope import Record, decode
from schemas.errors import Defect, Invalid, Permanent
from schemas.events import DeadLetter
from schemas.topics import topic_of

MAGIC = b"SDL1"
NONCE_BYTES = 12
KEY_BYTES = 32


class _Sealed(msgspec.Struct, frozen=True):
    """What is encrypted: the whole record, as it was read."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    value: bytes | None


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Sealed)


def object_key(place: Position) -> str:
    """Where a dead record is kept."""
    return f"dead-letters/{place.topic}/{place.partition}/{place.offset}.bin"


def seal(record: Stored, key: bytes) -> bytes:
    """The record, encrypted and bound to its place in the log: the same every time."""
    p = record.position
    plain = _encoder.encode(
        _Sealed(p.topic, p.partition, p.offset, record.timestamp_ms, record.key, record.headers, record.value)
    )
    nonce = hmac.digest(key, _bound(p) + hashlib.sha256(plain).digest(), "sha256")[:NONCE_BYTES]
    return MAGIC + nonce + AESGCM(key).encrypt(nonce, plain, _bound(p))


def unseal(data: bytes, place: Position, key: bytes) -> Stored:
    """The record of a place. Raises Defect for anything that was not sealed for it under this key."""
    nonce, sealed = data[len(MAGIC) : len(MAGIC) + NONCE_BYTES], data[len(MAGIC) + NONCE_BYTES :]
    try:
        if not data.startswith(MAGIC):
            raise InvalidTag
        found = _decoder.decode(AESGCM(key).decrypt(nonce, sealed, _bound(place)))
    except (InvalidTag, ValueError, msgspec.DecodeError) as e:
        raise Defect(f"{object_key(place)} was not sealed for this place under this key") from e
    position = Position(found.topic, found.partition, found.offset)
    return Stored(position, found.timestamp_ms, found.key, found.headers, found.value)


def _bound(place: Position) -> bytes:
    return f"{place.topic}/{place.partition}/{place.offset}".encode()


class DeadLetters:
    """The store of dead records of one archive."""

    def __init__(self, objects: Objects, bucket: str, key: bytes) -> None:
        self._objects = objects
        self._bucket = bucket
        self._key = key

    @classmethod
    def open(cls, settings: Settings, objects: Objects) -> DeadLetters:
        """By the settings. Raises SettingsError without a usable key."""
        try:
            key = bytes.fromhex(settings.dead_letter_key)
        except ValueError:
            key = b""
        if len(key) != KEY_BYTES:
            raise SettingsError(
                "SIJIL_DEAD_LETTER_KEY must be 32 bytes in hex: this role has no access to dead letters"
            )
        return cls(objects, settings.bucket_documents, key)

    def keep(self, record: Stored) -> tuple[str, str]:
        """(object key, SHA-256) of the sealed record, durable in S3 now; twice is once. Raises Transient."""
        sealed = seal(record, self._key)
        sha256 = hashlib.sha256(sealed).hexdigest()
        key = object_key(record.position)
        self._objects.put(self._bucket, key, sealed, sha256=sha256, content_type="application/octet-stream")
        return key, sha256

    def read(self, letter: DeadLetter) -> Stored:
        """The record of a dead letter. Raises NotFound, Transient; Defect if it is not the one that was kept."""
        data = self._objects.get(self._bucket, letter.payload_key)
        if hashlib.sha256(data).hexdigest() != letter.payload_sha256:
            raise Defect(f"{letter.payload_key} has not the checksum that its dead letter names")
        place = Position(letter.origin_topic, letter.origin_partition, letter.origin_offset)
        return unseal(data, place, self._key)


def letters(log: Log) -> Iterator[tuple[Stored, DeadLetter]]:
    """Every dead letter once, in the order of their partitions. Raises Transient."""
    topic = topic_of(DeadLetter)
    seen: set[str] = set()
    for stored in log.read(topic, {}, log.ends(topic)):
        try:
            envelope = decode(topic, stored.key, stored.headers, stored.value)
        except Invalid:
            continue  # nobody's dead letter: not written by a consumer of ours
        if isinstance(envelope.event, DeadLetter) and envelope.id not in seen:
            seen.add(envelope.id)
            yield stored, envelope.event


def send_again(log: Log, record: Stored, timeout_s: float = 60.0) -> Position:
    """Append a dead record to its topic once more, byte for byte, headers included.

    So it has the `ce_id` it had, and readers that have seen it drop it; and it is an identical repetition of a link of
    its producer's chain, which `verify-log` accepts. Raises Permanent for a record without key or payload, which would
    only die again, Transient.
    """
    if record.key is None or record.value is None:
        raise Permanent(f"{object_key(record.position)} has no key or no payload: it would be refused again")
    future = log.append(Record(record.position.topic, record.key, record.headers, record.value))
    return future.result(timeout_s)
