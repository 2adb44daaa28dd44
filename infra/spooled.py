"""Packs that still lie in a spool of this machine: read from there they cost neither the S3 service nor the network.

A sealed pack in a spool is the object in S3, byte for byte, until the spool evicts it. It is opened for each read, so
that an evicted one frees its disk at once. What is in the page cache is read on the event loop, without waiting
(RWF_NOWAIT); what is not, on a thread.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Iterable
from pathlib import Path

CHUNK_BYTES = 1 << 20
NOWAIT = getattr(os, "RWF_NOWAIT", 0)
"""Linux; elsewhere every read goes to a thread."""


class Spooled:
    """The packs under `folders`, each as `<pack_id>.tar`."""

    def __init__(self, folders: Iterable[Path]) -> None:
        self._folders = [os.fspath(f) for f in dict.fromkeys(folders)]

    def open(self, pack_id: str, size: int) -> int | None:
        """A file descriptor of the pack, to be closed by the caller; None if it is not here, or not with that size."""
        for folder in self._folders:
            try:
                found = os.open(f"{folder}/{pack_id}.tar", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                continue
            if os.fstat(found).st_size == size:
                return found
            os.close(found)
        return None


async def chunks(descriptor: int, offset: int, length: int) -> AsyncGenerator[memoryview, None]:
    """Bytes of an open file. Ends early where the file does; raises OSError."""
    end = offset + length
    while offset < end:
        buffer = bytearray(min(CHUNK_BYTES, end - offset))
        got = _now(descriptor, buffer, offset)
        if got < len(buffer):
            got += await asyncio.to_thread(os.preadv, descriptor, [memoryview(buffer)[got:]], offset + got)
        if not got:
            return
        yield memoryview(buffer)[:got]
        offset += got


def _now(descriptor: int, buffer: bytearray, offset: int) -> int:
    """What can be had without waiting."""
    if not NOWAIT:
        return 0
    try:
        return os.preadv(descriptor, [buffer], offset, NOWAIT)
    except OSError:  # not cached, or a file system that does not know
        return 0
