"""Blocks: cut at members, found by any range of the tar, written and read again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.blocks import BLOCK_MAX, BLOCK_MIN, Blocks, cut
from schemas.errors import Invalid

SIZES = st.lists(st.integers(1, 3 * BLOCK_MAX), max_size=12)
PAIRS = st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), min_size=1, max_size=20)


@given(SIZES, st.integers(1, 4096))
def test_blocks_are_the_whole_tar_in_order_and_no_longer_than_they_may(sizes: list[int], rest: int) -> None:
    ends = [sum(sizes[: n + 1]) for n in range(len(sizes))]
    size = sum(sizes) + rest
    found = list(cut(ends, size))
    assert [start for start, _ in found] == [0, *(end for _, end in found[:-1])]
    assert found[-1][1] == size
    assert all(0 < end - start <= BLOCK_MAX for start, end in found)
    # One that is neither full nor the last ends with a member and is worth a frame.
    for start, end in found[:-1]:
        assert end - start == BLOCK_MAX or end in ends
    assert len(found) <= size // BLOCK_MIN + len(sizes) + 1


def test_a_slice_is_a_block_of_its_own_and_small_ones_share_one() -> None:
    slices = [n * 540_672 for n in range(1, 4)]
    assert list(cut(slices, slices[-1] + 1024)) == [
        (0, 540_672), (540_672, 1_081_344), (1_081_344, 1_622_016), (1_622_016, 1_623_040),
    ]  # fmt: skip
    small = [n * 4096 for n in range(1, 65)]
    assert list(cut(small, small[-1] + 1024)) == [(0, 262_144), (262_144, 263_168)]


def test_an_empty_list_of_members_is_one_block() -> None:
    assert list(cut([], 1024)) == [(0, 1024)]


@given(PAIRS, st.data())
def test_a_span_holds_just_the_bytes_of_its_range(pairs: list[tuple[int, int]], data: st.DataObject) -> None:
    blocks = Blocks(pairs)
    tar = bytes(n % 251 for n in range(blocks.tar_size))
    stored = b"".join(bytes([n % 256]) * length for n, (_, length) in enumerate(pairs))
    offset = data.draw(st.integers(0, blocks.tar_size))
    length = data.draw(st.integers(0, blocks.tar_size - offset))
    span = blocks.span(offset, length)
    assert span.length == sum(p.stored for p in span.parts)
    rest, found = stored[span.offset : span.offset + span.length], b""
    for part in span.parts:
        frame, rest = rest[: part.stored], rest[part.stored :]
        (n,) = set(frame)  # the bytes are those of one block
        begin = sum(plain for plain, _ in pairs[:n])
        assert part.start < part.stop <= part.plain == pairs[n][0]
        found += tar[begin + part.start : begin + part.stop]
    assert found == tar[offset : offset + length]


@given(PAIRS)
def test_what_is_written_is_read(pairs: list[tuple[int, int]]) -> None:
    blocks = Blocks.parse(Blocks(pairs).text())
    assert (blocks.pairs, blocks.size) == (tuple(pairs), sum(stored for _, stored in pairs))


@pytest.mark.parametrize("text", ["", "[]", "[[1]]", "[[0,1]]", "[[1,-1]]", '[["1",1]]', "{}", "[[1,1,1]]", "[[1,1]"])
def test_what_is_no_list_of_blocks_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="blocks-"):
        Blocks.parse(text)


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, 11), (10, 1), (0, -1), (11, 0)])
def test_a_range_that_the_tar_has_not(offset: int, length: int) -> None:
    with pytest.raises(Invalid, match="of a tar of 10"):
        Blocks([(4, 2), (6, 3)]).span(offset, length)
