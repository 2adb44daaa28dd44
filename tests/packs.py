"""Packs as tests make and open them: by the real compressor, and by a reader that knows nothing of blocks."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

import cramjam

from infra.packed import Scratch
from schemas.blocks import Blocks


def compressed(tar: bytes, ends: Iterable[int] = ()) -> tuple[bytes, Blocks]:
    """The object of a tar whose members end at `ends`."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "tar"
        source.write_bytes(tar)
        packed = Scratch(Path(folder) / "scratch").pack(source, len(tar), ends)
        return packed.path.read_bytes(), packed.blocks


def tar_of(key: str, data: bytes) -> bytes:
    """The tar that an object holds."""
    return bytes(cramjam.zstd.decompress(data)) if key.endswith(".zst") else data
