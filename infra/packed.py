"""The bytes of packs in S3: a tar is compressed on its way there, and read by ranges of the tar, however it lies there.

Level 1 of zstd takes 1.5 ms for a CT slice of 0.5 MB and leaves four tenths of it: less than the S3 service spends on
what it then need not store. A pack is compressed into a file that is used again for the next, for pages of a file that
are already in memory cost a fraction of fresh ones.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from zlib import crc32

import cramjam

from infra.ports import Objects
from schemas.blocks import BLOCK_MAX, Blocks, Part, Span, cut
from schemas.errors import Defect, Invalid

LEVEL = 1
SCRATCH_KEPT_MAX = 128 << 20
"""What the file that packs are compressed into keeps of the disk between two of them, bytes."""


@dataclass(frozen=True)
class Packed:
    """A compressed object in a file, and the tar that it was made of."""

    path: Path
    size: int
    sha256: str
    blocks: Blocks
    tar_crc: int
    """CRC-32 of the tar."""


class Scratch:
    """A file for compressed packs, one at a time: of one thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._plain = memoryview(bytearray(BLOCK_MAX))
        self._stored = memoryview(bytearray(_bound(BLOCK_MAX)))

    def pack(self, tar: Path, size: int, ends: Iterable[int]) -> Packed:
        """Compress a tar of `size` bytes whose members end at `ends`. Good until the next call.

        Raises OSError, among them ENOSPC. A tar shorter than `size` has another checksum than it should, and no more.
        """
        checksum, stored = 0, sha256()
        pairs: list[tuple[int, int]] = []
        written = 0
        self._path.parent.mkdir(parents=True, exist_ok=True)
        source = os.open(tar, os.O_RDONLY | os.O_CLOEXEC)
        target = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            for start, end in cut(ends, size):
                block = self._plain[: _read(source, self._plain[: end - start], start)]
                if not block:
                    break
                checksum = crc32(block, checksum)
                frame = self._stored[: cramjam.zstd.compress_into(block, self._stored, level=LEVEL)]
                stored.update(frame)
                _write(target, frame, written)
                written += len(frame)
                pairs.append((len(block), len(frame)))
            os.ftruncate(target, written)
        except OSError:
            os.ftruncate(target, 0)  # a full disk gets back what was taken of it
            raise
        finally:
            os.close(source)
            os.close(target)
        return Packed(self._path, written, stored.hexdigest(), Blocks(pairs), checksum)

    def trim(self) -> None:
        """Give the disk back what an uncommonly large pack took."""
        if self._path.exists() and self._path.stat().st_size > SCRATCH_KEPT_MAX:
            os.truncate(self._path, SCRATCH_KEPT_MAX)


async def stream(
    objects: Objects, bucket: str, key: str, blocks: Blocks | None, offset: int, length: int, *, version_id: str = ""
) -> AsyncIterator[bytes | memoryview]:
    """`length` bytes of a pack's tar from `offset`, in chunks; without `blocks` the object is the tar.

    Raises NotFound before the first chunk, Transient, Defect.
    """
    if blocks is None:
        async for chunk in objects.stream(bucket, key, offset, length, version_id=version_id):
            yield chunk
        return
    span = _span(blocks, offset, length, key)
    parts = iter(span.parts)
    part, frame, have = next(parts, None), bytearray(), 0
    async for chunk in objects.stream(bucket, key, span.offset, span.length, version_id=version_id):
        rest = memoryview(chunk)
        while part is not None and rest:
            if not have:
                frame = bytearray(part.stored)
            n = min(part.stored - have, len(rest))
            frame[have : have + n] = rest[:n]
            have, rest = have + n, rest[n:]
            if have == part.stored:
                yield await asyncio.to_thread(_unpacked, part, memoryview(frame), key)
                part, have = next(parts, None), 0
    if part is not None:
        raise Defect(f"s3: {bucket}/{key} ends before the bytes that were asked for")


def read(objects: Objects, bucket: str, key: str, blocks: Blocks | None, offset: int, length: int) -> bytes:
    """The same at once, blocking."""
    if blocks is None:
        return objects.get_range(bucket, key, offset, length)
    span = _span(blocks, offset, length, key)
    data = memoryview(objects.get_range(bucket, key, span.offset, span.length))
    return b"".join(_frames(span.parts, data, key))


def blocks_of(row_text: str | None) -> Blocks | None:
    """Of the column `packs.blocks`. Raises Defect for what no projection writes."""
    try:
        return Blocks.parse(row_text) if row_text else None
    except Invalid as error:
        raise Defect(f"a row of packs: {error.reason}") from error


def _frames(parts: Iterable[Part], data: memoryview, key: str) -> Iterator[memoryview]:
    for part in parts:
        yield _unpacked(part, data[: part.stored], key)
        data = data[part.stored :]


def _unpacked(part: Part, frame: memoryview, key: str) -> memoryview:
    plain = bytearray(part.plain)
    try:
        if cramjam.zstd.decompress_into(frame, plain) != part.plain:
            raise Defect(f"{key}: a block holds less than its manifest says")
    except cramjam.DecompressionError as error:
        raise Defect(f"{key}: a block cannot be decompressed") from error
    return memoryview(plain)[part.start : part.stop]


def _span(blocks: Blocks, offset: int, length: int, key: str) -> Span:
    try:
        return blocks.span(offset, length)
    except Invalid as error:
        raise Defect(f"{key}: {error}") from error


def _bound(size: int) -> int:
    """Most that zstd makes of `size` bytes (ZSTD_COMPRESSBOUND, with room to spare)."""
    return size + (size >> 7) + 1024


def _read(descriptor: int, buffer: memoryview, offset: int) -> int:
    got = 0
    while got < len(buffer) and (n := os.preadv(descriptor, [buffer[got:]], offset + got)):
        got += n
    return got


def _write(descriptor: int, data: memoryview, offset: int) -> None:
    while data:
        n = os.pwrite(descriptor, data, offset)
        data, offset = data[n:], offset + n
