"""Parts come out as they went in, however the bytes are cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from producers.stow.multipart import HEADERS_BYTES_MAX, Begin, End, Parser, media_type
from schemas.errors import Invalid

BOUNDARY = "b-7"
Part = tuple[dict[str, str], bytes]


def encode(parts: list[Part], preamble: bytes = b"", epilogue: bytes = b"\r\n", padding: bytes = b"") -> bytes:
    out = preamble + (b"\r\n" if preamble else b"")
    for headers, body in parts:
        out += b"--" + BOUNDARY.encode() + padding + b"\r\n"
        out += b"".join(f"{k}: {v}\r\n".encode() for k, v in headers.items()) + b"\r\n" + body + b"\r\n"
    return out + b"--" + BOUNDARY.encode() + b"--" + epilogue


def parse(data: bytes, cuts: list[int]) -> list[Part]:
    parser = Parser(BOUNDARY)
    parts: list[Part] = []
    open_ = False
    places = sorted({min(c, len(data)) for c in cuts} | {0, len(data)})
    for start, stop in pairwise(places):
        for event in parser.feed(data[start:stop]):
            if isinstance(event, Begin):
                assert not open_
                parts.append((dict(event.headers), b""))
                open_ = True
            elif isinstance(event, End):
                assert open_
                open_ = False
            else:
                assert open_
                parts[-1] = (parts[-1][0], parts[-1][1] + bytes(event))
    parser.close()
    assert not open_
    return parts


# Content full of what looks like a boundary.
ALMOST = [b"\r\n--b-", b"\r\n--b-8", b"\r", b"\n", b"\r\n", b"--b-7", b"-", b"\r\n--b-7x", b"abc", b"\0"]
BOUNDARIES = (b"\r\n--b-7\r\n", b"\r\n--b-7 ", b"\r\n--b-7\t", b"\r\n--b-7--")
TRICKY = st.lists(st.sampled_from(ALMOST), max_size=12).map(b"".join)
CONTENT = st.one_of(st.binary(max_size=300), TRICKY).filter(
    lambda content: not any(b in b"\r\n" + content + b"\r\n" for b in BOUNDARIES)
)
NAMES = st.sampled_from(["content-type", "content-location", "x"])
HEADERS = st.dictionaries(NAMES, st.sampled_from(["a/b", "", "c;d=e"]))


@given(
    st.lists(st.tuples(HEADERS, CONTENT), min_size=1, max_size=4),
    st.lists(st.integers(0, 2000), max_size=8),
    st.sampled_from([b"", b"preamble", b"--b-"]),
    st.sampled_from([b"", b"\r\n", b"\r\nepilogue --b-7"]),
    st.sampled_from([b"", b" ", b"\t  "]),
)
@example([({}, b"")], [], b"", b"", b"")
@example([({}, b"\r\n--b-7x")], list(range(60)), b"", b"", b"")
def test_round_trip(parts: list[Part], cuts: list[int], preamble: bytes, epilogue: bytes, padding: bytes) -> None:
    assert parse(encode(parts, preamble, epilogue, padding), cuts) == parts


@given(st.lists(st.tuples(HEADERS, CONTENT), min_size=1, max_size=3))
def test_byte_by_byte(parts: list[Part]) -> None:
    data = encode(parts)
    assert parse(data, list(range(len(data)))) == parts


@given(st.lists(st.tuples(HEADERS, CONTENT), min_size=1, max_size=3), st.data())
def test_a_cut_body_is_known_as_such(parts: list[Part], data: st.DataObject) -> None:
    whole = encode(parts, epilogue=b"")
    at = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(Invalid, match="multipart-truncated"):
        parse(whole[:at], [])


def test_content_is_not_copied() -> None:
    parser = Parser(BOUNDARY)
    list(parser.feed(b"--b-7\r\n\r\n"))
    chunk = bytes(100_000)
    (piece,) = parser.feed(chunk)
    assert isinstance(piece, memoryview)
    assert piece.obj is chunk
    assert len(piece) == len(chunk)


@pytest.mark.parametrize("head", [b"x" * (HEADERS_BYTES_MAX + 10), b"no colon\r\n\r\n"])
def test_headers_are_bounded_and_have_colons(head: bytes) -> None:
    parser = Parser(BOUNDARY)
    with pytest.raises(Invalid, match="multipart-headers"):
        list(parser.feed(b"--b-7\r\n" + head))


@pytest.mark.parametrize("boundary", ["", "x" * 71, "é"])
def test_boundaries_that_are_none(boundary: str) -> None:
    with pytest.raises(Invalid, match="multipart-boundary"):
        Parser(boundary)


@pytest.mark.parametrize(
    ("text", "kind", "parameters"),
    [
        ("application/dicom", "application/dicom", {}),
        (
            'Multipart/Related; type="application/dicom"; boundary=abc',
            "multipart/related",
            {"type": "application/dicom", "boundary": "abc"},
        ),
        (
            'multipart/related;boundary="a b\\"c" ; TYPE=application/dicom;',
            "multipart/related",
            {"boundary": 'a b"c', "type": "application/dicom"},
        ),
        ("a/b; x=1; x=2", "a/b", {"x": "1"}),
    ],
)
def test_media_types(text: str, kind: str, parameters: dict[str, str]) -> None:
    assert media_type(text) == (kind, parameters)


@pytest.mark.parametrize("text", ["", "text", "a/b; =", "a/b c", 'a/b; x="open', "/b"])
def test_what_is_no_media_type(text: str) -> None:
    with pytest.raises(Invalid, match="media-type"):
        media_type(text)
