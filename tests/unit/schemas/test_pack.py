"""The manifest: what goes in comes out, and nothing else passes for one."""

from __future__ import annotations

import gzip
import json
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import pack
from schemas.errors import Invalid
from schemas.pack import (
    IDENTITY,
    InstanceLine,
    Manifest,
    PackLine,
    Sender,
    decode_manifest,
    encode_manifest,
    manifest_key,
    pack_key,
)

PACK = PackLine(
    pack_id="018f0000-0000-7000-8000-0000000000ab",
    study_uid="1.2.3",
    site="LOCAL",
    issuer="LOCAL",
    gateway="/gateway/LOCAL/1",
    size=2048,
    sha256="0" * 64,
    instances=1,
    senders=(Sender(door="dimse", ae_title="CT1", address="127.0.0.1"),),
    opened="2026-11-23T00:00:00Z",
    sealed="2026-11-23T00:00:02Z",
)
INSTANCE = InstanceLine(
    sop_uid="1.2.3.4.5",
    series_uid="1.2.3.4",
    study_uid="1.2.3",
    sop_class="1.2.840.10008.5.1.4.1.1.2",
    transfer_syntax="1.2.840.10008.1.2.1",
    offset=512,
    length=1000,
    dataset_offset=300,
    sha256="1" * 64,
    header=msgspec.Raw('{"00100010":{"vr":"PN","Value":[{"Ideographic":"أحمد"}]}}'.encode()),
)


def test_round_trip_keeps_the_header_byte_for_byte() -> None:
    got = decode_manifest(encode_manifest(PACK, [INSTANCE]))
    assert got.pack == PACK
    assert bytes(got.instances[0].header) == bytes(INSTANCE.header)
    assert got.instances[0].sop_uid == INSTANCE.sop_uid


def test_the_same_input_gives_the_same_bytes() -> None:
    assert encode_manifest(PACK, [INSTANCE]) == encode_manifest(PACK, [INSTANCE])


def test_the_first_line_is_readable_by_any_tool() -> None:
    first = gzip.decompress(encode_manifest(PACK, [INSTANCE])).splitlines()[0]
    assert msgspec.json.decode(first)["line"] == "pack"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "manifest-gzip"),
        (b"no gzip", "manifest-gzip"),
        (encode_manifest(PACK, [INSTANCE])[:-9], "manifest-gzip"),
        (gzip.compress(b"", mtime=0), "manifest-no-pack-line"),
        (gzip.compress(b"{}\n", mtime=0), "manifest-line"),
        (gzip.compress(msgspec.json.encode(INSTANCE)), "manifest-no-pack-line"),
        (encode_manifest(PACK, []), "manifest-count"),
        (encode_manifest(PACK, [INSTANCE, INSTANCE]), "manifest-count"),
        (encode_manifest(msgspec.structs.replace(PACK, version=9), [INSTANCE]), "manifest-version"),
        (encode_manifest(msgspec.structs.replace(PACK, study_uid="9"), [INSTANCE]), "manifest-instance"),
    ],
)
def test_what_is_no_manifest_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(Invalid) as e:
        decode_manifest(data)
    assert e.value.reason == reason


@given(st.binary(max_size=300))
def test_random_bytes_never_pass_and_never_raise_anything_else(data: bytes) -> None:
    for attempt in (data, gzip.compress(data)):
        try:
            assert isinstance(decode_manifest(attempt), Manifest)
        except Invalid:
            continue


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.sampled_from([0, 1]),
    st.sampled_from(sorted({*PackLine.__struct_fields__, *InstanceLine.__struct_fields__})),
    JUNK,
)
def test_a_line_with_one_value_of_another_kind_is_refused_or_read(line: int, name: str, value: object) -> None:
    lines = [json.loads(text) for text in gzip.decompress(encode_manifest(PACK, [INSTANCE])).splitlines()]
    lines[line][name] = value
    data = gzip.compress("\n".join(json.dumps(text) for text in lines).encode())
    with suppress(Invalid):  # and nothing else is raised
        found = decode_manifest(data)
        assert found.pack.instances == len(found.instances) == 1


def test_a_manifest_that_inflates_to_more_than_it_may_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack, "MANIFEST_SIZE_MAX", 1 << 20)
    bomb = gzip.compress(b"\n" * ((1 << 20) + 1), compresslevel=9)
    assert len(bomb) < 5000
    with pytest.raises(Invalid, match="manifest-gzip"):
        decode_manifest(bomb)


def test_keys_lie_side_by_side() -> None:
    tar, manifest = pack_key(PACK.pack_id, IDENTITY), manifest_key(PACK.pack_id)
    assert tar.rpartition("/")[0] == manifest.rpartition("/")[0]
    assert tar != manifest
