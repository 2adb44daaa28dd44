"""What leaves how (PS3.18 §8.7, §10.4): tables, ranges, Accept headers."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.api.accept import Accepted, parse, single_part
from consumers.api.wado import (
    DEFLATED_LE,
    EXPLICIT_BE,
    EXPLICIT_LE,
    GAP_MAX,
    IMPLICIT_LE,
    RUN_MAX,
    NotAcceptable,
    Stored,
    Way,
    frame_form,
    frame_numbers,
    instance_form,
    runs,
    way,
)
from schemas.errors import Invalid

JPEG, J2K, JLS, MPEG = (f"1.2.840.10008.1.2.4.{n}" for n in (50, 90, 80, 102))
STORED, AGAIN = Way.AS_STORED, Way.TO_EXPLICIT

# Stored × wanted → way, with a decoder for JPEG and none for MPEG.
EXPECTED: dict[tuple[str, str], Way | None] = {
    (EXPLICIT_LE, ""): STORED,
    (EXPLICIT_LE, "*"): STORED,
    (EXPLICIT_LE, EXPLICIT_LE): STORED,
    (IMPLICIT_LE, ""): AGAIN,
    (IMPLICIT_LE, "*"): AGAIN,
    (IMPLICIT_LE, EXPLICIT_LE): AGAIN,
    (IMPLICIT_LE, IMPLICIT_LE): None,
    (EXPLICIT_BE, ""): AGAIN,
    (EXPLICIT_BE, "*"): AGAIN,
    (EXPLICIT_BE, EXPLICIT_LE): AGAIN,
    (EXPLICIT_BE, EXPLICIT_BE): None,
    (DEFLATED_LE, ""): AGAIN,
    (DEFLATED_LE, "*"): STORED,
    (DEFLATED_LE, EXPLICIT_LE): AGAIN,
    (DEFLATED_LE, DEFLATED_LE): STORED,
    (JPEG, ""): AGAIN,
    (JPEG, "*"): STORED,
    (JPEG, EXPLICIT_LE): AGAIN,
    (JPEG, JPEG): STORED,
    (MPEG, ""): None,
    (MPEG, "*"): STORED,
    (MPEG, EXPLICIT_LE): None,
    (MPEG, MPEG): STORED,
}
SYNTAXES = (EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE, DEFLATED_LE, JPEG, MPEG)


def decodable(syntax: str) -> bool:
    return syntax != MPEG


@pytest.mark.parametrize(("stored", "wanted"), list(itertools.product(SYNTAXES, ("", "*", *SYNTAXES))))
def test_the_rule_over_its_whole_product(stored: str, wanted: str) -> None:
    assert way(stored, wanted, decodable) is EXPECTED.get((stored, wanted))


# ------------------------------------------------------------------------------------------------ Accept


@pytest.mark.parametrize(
    ("header", "ranges"),
    [
        ("", [(False, "*/*", "")]),
        ("*/*", [(False, "*/*", "")]),
        ('multipart/related; type="application/dicom"', [(True, "application/dicom", "")]),
        ('multipart/related; type="application/dicom"; transfer-syntax=*', [(True, "application/dicom", "*")]),
        (
            "multipart/related; type=application/octet-stream; transfer-syntax=*",
            [(True, "application/octet-stream", "*")],
        ),
        ('multipart/related; type="*/*"', [(True, "*/*", "")]),
        ("multipart/related", [(True, "*/*", "")]),
        (
            'multipart/related; type="application/octet-stream; transfer-syntax=1.2"',
            [(True, "application/octet-stream", "1.2")],
        ),
        ("a/b;q=0.5, c/d", [(False, "c/d", ""), (False, "a/b", "")]),
        ("a/b;q=0, C/D", [(False, "c/d", "")]),
        ('multipart/related;type="a/b",image/*', [(True, "a/b", ""), (False, "image/*", "")]),
    ],
)
def test_accept_is_read(header: str, ranges: list[tuple[bool, str, str]]) -> None:
    assert parse(header) == tuple(Accepted(*r) for r in ranges)


@pytest.mark.parametrize("header", ["dicom", "a/b;;", "a/b c/d", "a/b;q=x", "a/" + "b" * 5000])
def test_accept_that_cannot_be_read(header: str) -> None:
    with pytest.raises(Invalid):
        parse(header)


def test_one_part_only() -> None:
    assert single_part(parse("application/json"), ("application/dicom+json", "application/json")) == "application/json"
    assert single_part(parse("application/*"), ("application/dicom+json",)) == "application/dicom+json"
    assert single_part(parse("multipart/related"), ("application/dicom+json",)) == ""


# ------------------------------------------------------------------------------------------------ forms


def test_instances_leave_as_multipart_unless_one_is_asked_for_bare() -> None:
    assert instance_form(parse(""), single=True).multipart
    assert instance_form(parse("*/*"), single=False).multipart
    assert not instance_form(parse("application/dicom"), single=True).multipart
    two = 'multipart/related; type="application/dicom"; transfer-syntax=1.2, multipart/related; type="*/*"'
    assert instance_form(parse(two), single=True).wanted == ("1.2", "")


@pytest.mark.parametrize(
    ("header", "single"),
    [("application/dicom", False), ("image/png", True), ('multipart/related; type="image/jpeg"', True)],
)
def test_instances_do_not_leave_as_anything(header: str, single: bool) -> None:
    with pytest.raises(NotAcceptable):
        instance_form(parse(header), single=single)


OCTETS = "application/octet-stream"


@pytest.mark.parametrize(
    ("stored", "header", "form"),
    [
        (EXPLICIT_LE, "", (True, OCTETS, EXPLICIT_LE, False)),
        (IMPLICIT_LE, "multipart/related; type=application/octet-stream", (True, OCTETS, EXPLICIT_LE, False)),
        (EXPLICIT_BE, "application/octet-stream", (False, OCTETS, EXPLICIT_LE, True)),
        (DEFLATED_LE, "*/*", (True, OCTETS, EXPLICIT_LE, True)),
        (JPEG, "", (True, "image/jpeg", JPEG, False)),
        (JPEG, 'multipart/related; type="application/octet-stream"', (True, OCTETS, EXPLICIT_LE, True)),
        (
            JPEG,
            "multipart/related; type=application/octet-stream; transfer-syntax=*",
            (True, OCTETS, JPEG, False),
        ),
        (J2K, 'multipart/related; type="image/jp2"', (True, "image/jp2", J2K, False)),
        (
            JLS,
            'multipart/related; type="image/jp2", multipart/related; type="image/jls"',
            (True, "image/jls", JLS, False),
        ),
        (MPEG, "*/*", (True, "video/mp4", MPEG, False)),
    ],
)
def test_how_frames_leave(stored: str, header: str, form: tuple[bool, str, str, bool]) -> None:
    found = frame_form(stored, parse(header), decodable, single=True)
    assert (found.multipart, found.media_type, found.transfer_syntax, found.decode) == form


@pytest.mark.parametrize(
    ("stored", "header"),
    [
        (EXPLICIT_LE, 'multipart/related; type="image/jpeg"'),
        (JPEG, 'multipart/related; type="image/jp2"'),
        (MPEG, "multipart/related; type=application/octet-stream"),
        (JPEG, f'multipart/related; type="image/jpeg"; transfer-syntax={J2K}'),
    ],
)
def test_frames_that_cannot_leave_so(stored: str, header: str) -> None:
    with pytest.raises(NotAcceptable):
        frame_form(stored, parse(header), decodable, single=True)


def test_frame_lists() -> None:
    assert frame_numbers("1,3,2") == (1, 3, 2)
    for text in ("", "0", "1,", "-1", "a", "1;2", "٣", "9" * 12):
        with pytest.raises(Invalid):
            frame_numbers(text)


# ------------------------------------------------------------------------------------------------ ranges


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.integers(0, 1 << 20), st.integers(0, 1 << 18)),
        max_size=30,
    )
)
def test_runs_hold_every_piece_in_order(pieces: list[tuple[str, int, int]]) -> None:
    stored = [Stored(p, o, n) for p, o, n in pieces]
    found = runs(stored)
    assert [piece for run in found for piece in run.pieces] == stored
    for run in found:
        assert run.offset == run.pieces[0].offset
        assert all(run.offset <= p.offset and p.offset + p.length <= run.offset + run.length for p in run.pieces)
        assert len(run.pieces) == 1 or run.length <= RUN_MAX
        for one, two in itertools.pairwise(run.pieces):
            assert 0 <= two.offset - one.offset - one.length <= GAP_MAX


def test_neighbours_of_a_tar_are_one_request() -> None:
    members = [Stored("p", 512 + n * (513 * 1024), 512 * 1024) for n in range(120)]
    assert len(runs(members)) == 1
