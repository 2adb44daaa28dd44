"""Lines that stand for themselves, whatever happens to their neighbours."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from producers.journal import Again, Committed, Line, Opened, Sealed, encode, scan
from tests.unit.producers.samples import SENDER

LINES: list[Line] = [
    Opened(pack_id="p", study_uid="1.2", site="S", issuer="I", gateway="/gateway/S/1", opened="2025-01-01T00:00:00Z"),
    Again(sop_uid="1.2.3", sha256="a" * 64, received="2025-01-01T00:00:00Z", sender=SENDER),
    Sealed(size=1024, crc=7, instances=1, repeats=1, sealed="2025-01-01T00:00:01Z"),
    Sealed(size=1024, sha256="b" * 64, instances=1, repeats=1, sealed="2025-01-01T00:00:01Z"),
    Committed(event_id="e", partition=3, offset=7, committed="2025-01-01T00:00:02Z"),
]
JOURNAL = b"".join(map(encode, LINES))


def test_round_trip() -> None:
    assert [r.line for r in scan(JOURNAL)] == LINES
    assert [r.end for r in scan(JOURNAL)][-1] == len(JOURNAL)


@given(st.integers(0, len(JOURNAL)))
def test_cut(at: int) -> None:
    whole = [r.line for r in scan(JOURNAL) if r.end <= at]
    found = [r.line for r in scan(JOURNAL[:at])]
    assert found[: len(whole)] == whole
    assert all(line is None for line in found[len(whole) :])


@given(st.integers(0, len(JOURNAL) - 1), st.integers(1, 255))
def test_a_flipped_byte_costs_only_its_own_line_and_never_lies(at: int, mask: int) -> None:
    damaged = bytearray(JOURNAL)
    damaged[at] ^= mask
    found = [r.line for r in scan(bytes(damaged)) if r.line is not None]
    # A newline made or lost can cost the neighbour as well.
    assert len(found) >= len(LINES) - 2
    assert all(line in LINES for line in found)


@given(st.integers(0, len(JOURNAL)), st.integers(0, 600))
def test_zeros(start: int, length: int) -> None:
    damaged = bytearray(JOURNAL)
    damaged[start : start + length] = bytes(len(damaged[start : start + length]))
    assert all(r.line in LINES for r in scan(bytes(damaged)) if r.line is not None)


@given(st.binary(max_size=400))
def test_anything_is_no_journal(data: bytes) -> None:
    assert all(r.line is None for r in scan(data))
