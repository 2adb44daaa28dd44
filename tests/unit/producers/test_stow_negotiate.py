"""What a STOW-RS request is, how its answer is wanted, and how its codings are undone."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from producers.stow.inflating import FREE_BYTES, PIECE_BYTES, Inflater, InflatesTooLarge
from producers.stow.negotiate import DICOM, DICOM_JSON, DICOM_XML, Kind, answer_type, kind
from schemas.errors import Invalid


@pytest.mark.parametrize(
    ("content_type", "coding", "expected"),
    [
        ("application/dicom", "", Kind(DICOM, False, "", "")),
        ("application/dicom+json; charset=utf-8", "identity", Kind(DICOM_JSON, False, "", "")),
        ('multipart/related; type="application/dicom"; boundary=b', "GZIP", Kind(DICOM, True, "b", "gzip")),
        ("multipart/related; boundary=b", "deflate", Kind(DICOM, True, "b", "deflate")),
        ("multipart/related; type=application/dicom+json", "", Kind(DICOM_JSON, True, "", "")),
        ("multipart/related; type=application/dicom+xml; boundary=b", "", Kind(DICOM_XML, True, "b", "")),
        (
            'multipart/related; type="application/dicom; transfer-syntax=1.2.840.10008.1.2.1"; boundary=b',
            "",
            Kind(DICOM, True, "b", ""),
        ),
    ],
)
def test_kind(content_type: str, coding: str, expected: Kind) -> None:
    assert kind(content_type, coding) == expected


@pytest.mark.parametrize(
    ("content_type", "coding"),
    [
        ("", ""),
        ("text/html", ""),
        ("multipart/related; type=image/jpeg; boundary=b", ""),
        ("application/dicom", "br"),
        ("application/dicom", "gzip, gzip"),
    ],
)
def test_not_stored_here(content_type: str, coding: str) -> None:
    with pytest.raises(Invalid):
        kind(content_type, coding)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", DICOM_JSON),
        ("*/*", DICOM_JSON),
        ("application/dicom+xml", DICOM_XML),
        ("application/dicom+xml, application/dicom+json", DICOM_XML),
        ("application/dicom+xml;q=0.5, application/dicom+json", DICOM_JSON),
        ("application/json;q=0.1, text/html", DICOM_JSON),
        ("application/dicom+json;q=0", ""),
        ("application/dicom+json;q=x", ""),
        ("text/html", ""),
    ],
)
def test_answer_type(accept: str, expected: str) -> None:
    assert answer_type(accept) == expected


def raw(data: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflater.compress(data) + deflater.flush()


@settings(deadline=None)
@example(data=b"", sizes=[1], how=("deflate", raw))
@given(
    data=st.binary(max_size=5000),
    sizes=st.lists(st.integers(1, 900), min_size=1, max_size=5),
    how=st.sampled_from([("gzip", gzip.compress), ("deflate", zlib.compress), ("deflate", raw)]),
)
def test_any_cut_gives_the_same(data: bytes, sizes: list[int], how: tuple[str, object]) -> None:
    coding, encode = how
    encoded: bytes = encode(data)  # type: ignore[operator]
    inflater, found, at = Inflater(coding), b"", 0
    for n in range(len(encoded)):
        if at >= len(encoded):
            break
        size = sizes[n % len(sizes)]
        found += b"".join(inflater.feed(encoded[at : at + size]))
        at += size
    inflater.close()
    assert found == data


def test_members_of_a_gzip_file_and_its_padding() -> None:
    inflater = Inflater("gzip")
    assert b"".join(inflater.feed(gzip.compress(b"one ") + gzip.compress(b"two") + bytes(9))) == b"one two"
    inflater.close()


def test_pieces_are_small_and_a_bomb_ends() -> None:
    sizes: list[int] = []
    pieces = Inflater("gzip").feed(gzip.compress(bytes(FREE_BYTES + (8 << 20))))
    with pytest.raises(InflatesTooLarge):
        sizes.extend(len(piece) for piece in pieces)
    assert max(sizes) <= PIECE_BYTES
    assert sum(sizes) <= FREE_BYTES


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_damage(coding: str) -> None:
    with pytest.raises(Invalid, match="what its Content-Encoding says"):
        list(Inflater(coding).feed(b"\xff\xff\xffnothing of the kind"))
    whole = gzip.compress(b"x" * 1000) if coding == "gzip" else zlib.compress(b"x" * 1000)
    inflater = Inflater(coding)
    list(inflater.feed(whole[:-5]))
    with pytest.raises(Invalid, match="ends before"):
        inflater.close()
    with pytest.raises(Invalid, match="what its"):
        list(Inflater(coding).feed(whole[:4] + b"\xff" * 20 + whole[4:]))
