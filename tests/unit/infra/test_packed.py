"""A tar compressed and read by ranges: every byte as it was, whatever the pieces; damage is told, never served."""

from __future__ import annotations

import asyncio
import hashlib
import random
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from infra import packed
from infra.memory import MemoryObjects
from infra.packed import Scratch
from schemas.blocks import BLOCK_MAX, Blocks
from schemas.errors import Defect
from tests.packs import compressed, tar_of

KEY = "packs/ab/x.tar.zst"
DICE = random.Random(7)  # noqa: S311 (the same bytes every time)
TAR = b"".join(DICE.randbytes(n) + bytes(n) for n in (200_000, 300_000, 900_000, 10))
ENDS = [400_000, 1_000_000, 2_800_000]


def stored(data: bytes) -> MemoryObjects:
    objects = MemoryObjects()
    objects.put("b", KEY, data, sha256=hashlib.sha256(data).hexdigest())
    return objects


def streamed(objects: Any, blocks: Blocks | None, offset: int, length: int) -> bytes:
    async def run() -> bytes:
        return b"".join([bytes(c) async for c in packed.stream(objects, "b", KEY, blocks, offset, length)])

    return asyncio.run(run())


class InPieces:
    """An S3 that sends its bytes in pieces of its own choice."""

    def __init__(self, data: bytes, most: int) -> None:
        self._data, self._most = data, most

    async def stream(self, *where: Any, version_id: str = "") -> AsyncIterator[bytes]:
        _, _, offset, length = where
        data = self._data[offset : offset + length]
        while data:
            n = DICE.randint(1, self._most)
            yield data[:n]
            data = data[n:]


@pytest.mark.parametrize("most", [1000, 100_000, 10_000_000])
def test_any_range_in_any_pieces(most: int) -> None:
    data, blocks = compressed(TAR, ENDS)
    assert len(data) < len(TAR) * 0.6
    assert max(plain for plain, _ in blocks.pairs) <= BLOCK_MAX
    objects = stored(data)
    edges = [0, 1, 399_999, 400_000, 400_001, 1_000_000, len(TAR) - 1, len(TAR)]
    for start in edges:
        for end in (e for e in edges if e >= start):
            wanted = TAR[start:end]
            assert packed.read(objects, "b", KEY, blocks, start, end - start) == wanted
            assert streamed(InPieces(data, most), blocks, start, end - start) == wanted


def test_a_plain_pack_is_read_as_it_lies() -> None:
    assert streamed(stored(TAR), None, 5, 100) == packed.read(stored(TAR), "b", KEY, None, 5, 100) == TAR[5:105]


def test_an_instance_costs_its_own_block_and_no_other() -> None:
    _, blocks = compressed(TAR, ENDS)
    span = blocks.span(400_000, 600_000)
    assert (len(span.parts), span.length) == (1, blocks.pairs[1][1])


def test_any_zstd_opens_it(tmp_path: Path) -> None:
    data, _ = compressed(TAR, ENDS)
    assert tar_of(KEY, data) == TAR
    if program := shutil.which("zstd"):
        assert subprocess.run([program, "-dc"], input=data, capture_output=True, check=True).stdout == TAR


def test_the_file_is_used_again_and_a_large_one_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = Scratch(tmp_path / "scratch")
    monkeypatch.setattr(packed, "SCRATCH_KEPT_MAX", 100_000)
    for tar in (TAR, TAR[:70_000], TAR[:500_000]):
        (tmp_path / "tar").write_bytes(tar)
        found = scratch.pack(tmp_path / "tar", len(tar), [])
        data = found.path.read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (found.size, found.sha256)
        assert (tar_of(KEY, data), crc32(tar)) == (tar, found.tar_crc)
        scratch.trim()
        assert found.path.stat().st_size <= 100_000


def test_a_tar_that_is_cut_short_has_another_checksum(tmp_path: Path) -> None:
    (tmp_path / "tar").write_bytes(TAR[:600_000])
    found = Scratch(tmp_path / "scratch").pack(tmp_path / "tar", len(TAR), ENDS)
    assert found.tar_crc == crc32(TAR[:600_000]) != crc32(TAR)


def test_damage_is_told() -> None:
    data, blocks = compressed(TAR, ENDS)
    first = blocks.pairs[0][1]
    for other in (
        bytes(10) + data[10:],
        data[: first - 5] + bytes(5) + data[first:],
        data[first:] + data[:first],
    ):
        with pytest.raises(Defect):
            packed.read(stored(other), "b", KEY, blocks, 0, 1000)
        with pytest.raises(Defect):
            streamed(stored(other), blocks, 0, 1000)
    lying = Blocks([(blocks.pairs[0][0] + 1, first), *blocks.pairs[1:]])
    with pytest.raises(Defect, match="less than its manifest says"):
        packed.read(stored(data), "b", KEY, lying, 0, 1000)
    with pytest.raises(Defect, match="of a tar of"):
        packed.read(stored(data), "b", KEY, blocks, len(TAR), 1)
    with pytest.raises(Defect, match="ends before"):
        streamed(InPieces(data[: first + 10], 1000), blocks, 0, 500_000)
    for text in ("[]", "nothing"):
        with pytest.raises(Defect, match="blocks-"):
            packed.blocks_of(text)
