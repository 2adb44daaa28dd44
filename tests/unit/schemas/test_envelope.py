"""CloudEvents headers, decoding of what strangers send, and the hash over a record."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.envelope import GENESIS, Header, Link, Record, decode, encode, link_of, record_hash
from schemas.errors import Invalid
from schemas.events import BY_TYPE, Event, StudyReopened, UnknownEventType, decode_payload, encode_payload

EVENT = StudyReopened(study_uid="1.2.3", revision=4, pack_id="018f0000-0000-7000-8000-000000000001", offset=9)
RECORD = encode(
    EVENT, id="e-1", source="/worker/LOCAL/1", time="2026-11-23T01:02:03Z", subject="1.2.3", link=Link(1, GENESIS)
)


def with_header(record: Record, name: str, value: bytes | None) -> tuple[Header, ...]:
    rest = [h for h in record.headers if h[0] != name]
    return tuple(rest if value is None else [*rest, (name, value)])


def test_a_record_decodes_to_what_was_encoded() -> None:
    got = decode(RECORD.topic, RECORD.key, RECORD.headers, RECORD.value)
    assert (got.id, got.source, got.type, got.subject, got.event) == (
        "e-1",
        "/worker/LOCAL/1",
        "study.reopened.v1",
        "1.2.3",
        EVENT,
    )
    assert got.link == Link(1, GENESIS)
    assert RECORD.topic == "sijil.study.lifecycle"
    assert RECORD.key == b"1.2.3"


def test_an_external_producer_may_omit_the_chain() -> None:
    plain = encode(EVENT, id="e", source="/x", time="2026-11-23T01:02:03Z")
    assert decode(plain.topic, plain.key, plain.headers, plain.value).link is None
    assert link_of(plain.headers) == ("/x", None)


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ((), "no-headers"),
        (with_header(RECORD, "ce_type", None), "header-missing"),
        (with_header(RECORD, "ce_id", b""), "header-missing"),
        ((*RECORD.headers, ("ce_id", b"again")), "header-repeated"),
        (with_header(RECORD, "ce_source", b"\xff"), "header-text"),
        (with_header(RECORD, "ce_specversion", b"0.3"), "spec-version"),
        (with_header(RECORD, "ce_sequence", b"one"), "chain-headers"),
        (with_header(RECORD, "ce_prevhash", None), "chain-headers"),
        (tuple((f"h{i}", b"x") for i in range(99)), "too-many-headers"),
    ],
)
def test_wrong_headers_say_what_is_wrong(headers: tuple[Header, ...], reason: str) -> None:
    with pytest.raises(Invalid) as e:
        decode(RECORD.topic, RECORD.key, headers, RECORD.value)
    assert e.value.reason == reason


def test_wrong_topic_key_and_payload() -> None:
    for topic, key, value, reason in (
        ("sijil.reports", RECORD.key, RECORD.value, "wrong-topic"),
        (RECORD.topic, b"1.2.4", RECORD.value, "wrong-key"),
        (RECORD.topic, None, RECORD.value, "wrong-key"),
        (RECORD.topic, RECORD.key, None, "no-payload"),
        (RECORD.topic, RECORD.key, b"{", "schema-violation"),
        (RECORD.topic, RECORD.key, b'{"study_uid": "1.2.3"}', "schema-violation"),
    ):
        with pytest.raises(Invalid) as e:
            decode(topic, key, RECORD.headers, value)
        assert e.value.reason == reason


def test_an_unknown_type_is_not_merely_invalid() -> None:
    with pytest.raises(UnknownEventType) as e:
        decode(RECORD.topic, RECORD.key, with_header(RECORD, "ce_type", b"study.reopened.v2"), RECORD.value)
    assert e.value.event_type == "study.reopened.v2"


def test_errors_quote_no_value_of_the_payload() -> None:
    canary = "CANARY^NAME"
    with pytest.raises(Invalid) as e:
        decode_payload("study.reopened.v1", encode_payload(EVENT).replace(b"1.2.3", canary.encode()))
    assert canary not in str(e.value)
    assert "study_uid" in str(e.value)


def test_unknown_fields_of_a_newer_producer_are_ignored() -> None:
    newer = encode_payload(EVENT).replace(b"{", b'{"added_later": {"a": 1}, ', 1)
    assert decode_payload("study.reopened.v1", newer) == EVENT


@given(st.sampled_from(sorted(BY_TYPE)), st.binary(max_size=200))
def test_random_payloads_never_raise_anything_else(event_type: str, payload: bytes) -> None:
    with suppress(Invalid):
        assert isinstance(decode_payload(event_type, payload), Event)


def test_the_hash_covers_every_part_and_its_borders() -> None:
    base = record_hash(RECORD)
    changed = [
        Record("sijil.x", RECORD.key, RECORD.headers, RECORD.value),
        Record(RECORD.topic, b"1.2.4", RECORD.headers, RECORD.value),
        Record(RECORD.topic, RECORD.key, RECORD.headers[1:], RECORD.value),
        Record(RECORD.topic, RECORD.key, RECORD.headers[::-1], RECORD.value),
        Record(RECORD.topic, RECORD.key, RECORD.headers, RECORD.value + b" "),
    ]
    assert len({base, *map(record_hash, changed)}) == 6
    one, other = Record("t", b"ab", (), b"c"), Record("t", b"a", (), b"bc")
    assert record_hash(one) != record_hash(other)


def test_the_hash_is_pinned() -> None:
    # Published: other languages compute it. It may never change.
    assert (
        record_hash(Record("t", b"k", (("h", b"v"),), b"{}"))
        == "e87be93c9e9a3d93afd827b0cbae782b2617356f89edebb49285974bf1644ba0"
    )
