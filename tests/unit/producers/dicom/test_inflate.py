"""Deflated datasets: whole, damaged, and bombs."""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.dicom.inflate import inflate
from schemas.errors import Invalid


def raw_deflate(data: bytes) -> bytes:
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return deflater.compress(data) + deflater.flush()


@given(st.binary(max_size=2000), st.sampled_from([b"", b"\0"]))
def test_raw_streams_come_back(data: bytes, padding: bytes) -> None:
    marks: set[str] = set()
    assert inflate(memoryview(raw_deflate(data) + padding), marks) == data
    assert not marks


@given(st.binary(max_size=2000))
def test_zlib_streams_come_back_marked(data: bytes) -> None:
    marks: set[str] = set()
    assert inflate(memoryview(zlib.compress(data)), marks) == data
    assert marks == {"zlib-deflate"}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "truncated"),
        (raw_deflate(bytes(range(200)))[:-5], "truncated"),
        (zlib.compress(bytes(range(200)))[:-5], "truncated"),
        (b"\xff" * 20, "damaged-deflate"),
        (raw_deflate(bytes(1 << 20)), "inflates-too-large"),
    ],
)
def test_what_does_not_inflate_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(Invalid) as refusal:
        inflate(memoryview(data), set(), bytes_max=1 << 16)
    assert refusal.value.reason == reason
