"""Dead letters: sealed the same every time, opened only as what they are, sent again byte for byte."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.dead_letters import DeadLetters, letters, object_key, seal, send_again, unseal
from infra.memory import MemoryLog, MemoryObjects
from infra.ports import Position, Stored
from infra.settings import Settings, SettingsError
from schemas.envelope import Record, encode
from schemas.errors import Defect, NotFound, Permanent
from schemas.events import DeadLetter

KEY = bytes(range(32))
PLACE = Position("sijil.reports", 3, 41)
RECORD = Stored(PLACE, 1_740_783_600_000, b"k", (("ce_id", b"1"), ("odd", b"\xff\x00")), b'{"name": "AHMED"}')


def letter_of(record: Stored, key: str, sha256: str) -> DeadLetter:
    return DeadLetter(
        reason="schema-violation",
        origin_topic=record.position.topic,
        origin_partition=record.position.partition,
        origin_offset=record.position.offset,
        payload_key=key,
        payload_sha256=sha256,
        consumer="/worker/LOCAL/1",
    )


@given(
    key=st.none() | st.binary(max_size=50),
    headers=st.lists(st.tuples(st.text(max_size=10), st.binary(max_size=20)), max_size=4),
    value=st.none() | st.binary(max_size=300),
)
def test_any_record_comes_back(key: bytes | None, headers: list[tuple[str, bytes]], value: bytes | None) -> None:
    record = Stored(PLACE, 5, key, tuple(headers), value)
    assert unseal(seal(record, KEY), PLACE, KEY) == record


def test_sealing_hides_and_repeats() -> None:
    sealed = seal(RECORD, KEY)
    assert b"AHMED" not in sealed
    assert sealed == seal(RECORD, KEY)
    other = seal(replace(RECORD, value=b"{}"), KEY)
    assert other[4:16] != sealed[4:16], "two contents never share a nonce"
    assert seal(replace(RECORD, position=replace(PLACE, offset=42)), KEY)[4:16] != sealed[4:16]


def test_only_as_what_it_is() -> None:
    sealed = seal(RECORD, KEY)
    for data, place, key in (
        (sealed, PLACE, bytes(32)),
        (sealed, replace(PLACE, offset=42), KEY),
        (sealed[:-1] + b"!", PLACE, KEY),
        (sealed[:-1], PLACE, KEY),
        (sealed[:10], PLACE, KEY),
        (b"XXXX" + sealed[4:], PLACE, KEY),
        (b"", PLACE, KEY),
    ):
        with pytest.raises(Defect):
            unseal(data, place, key)


def test_keeping_twice_is_keeping_once() -> None:
    objects = MemoryObjects()
    store = DeadLetters(objects, "documents", KEY)
    key, sha256 = store.keep(RECORD)
    assert (key, sha256) == store.keep(RECORD)
    assert key == object_key(PLACE) == "dead-letters/sijil.reports/3/41.bin"
    assert hashlib.sha256(objects.get("documents", key)).hexdigest() == sha256
    assert store.read(letter_of(RECORD, key, sha256)) == RECORD
    with pytest.raises(Defect):
        store.read(letter_of(RECORD, key, "0" * 64))
    with pytest.raises(NotFound):
        store.read(letter_of(RECORD, "dead-letters/none", sha256))


@pytest.mark.parametrize("key", ["", "abc", "00" * 31, "zz" * 32])
def test_a_role_without_the_key_is_told(key: str) -> None:
    with pytest.raises(SettingsError, match="SIJIL_DEAD_LETTER_KEY"):
        DeadLetters.open(Settings(dead_letter_key=key), MemoryObjects())


def test_each_letter_once_and_nothing_else() -> None:
    log = MemoryLog()
    letter = letter_of(RECORD, "dead-letters/x", "0" * 64)
    record = encode(letter, id="1", source="/worker/LOCAL/1", time="2025-03-01T08:15:00Z")
    for sent in (record, record, Record(record.topic, b"x", record.headers, b"not JSON")):
        log.append(sent).result()
    assert [found for _, found in letters(log)] == [letter]


def test_sent_again_byte_for_byte() -> None:
    log = MemoryLog()
    place = send_again(log, RECORD)
    (found,) = log.read(place.topic, {place.partition: place.offset}, {place.partition: place.offset + 1})
    assert (found.key, found.headers, found.value) == (RECORD.key, RECORD.headers, RECORD.value)
    for dead in (replace(RECORD, key=None), replace(RECORD, value=None)):
        with pytest.raises(Permanent):
            send_again(log, dead)
