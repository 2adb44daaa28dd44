"""A study or a series as a ZIP of interchange media (PS3.18 §8.7.3.1, PS3.12): files under names of 8.3, and DICOMDIR.

Nothing is held but the piece that is being sent: sizes and checksums follow each file, as the format allows. What
cannot be decoded leaves as it is stored; the directory, which tells each file's transfer syntax, stands behind them.
"""

from __future__ import annotations

import asyncio
import io
import zipfile
from collections.abc import Sequence
from contextlib import aclosing

from consumers.api.explicit import Buffer
from consumers.api.media import NAME, Member, dicomdir, file_id
from consumers.api.overlay import EDITS, edited
from consumers.api.packs import Packs
from consumers.api.retrieve import Retriever, leaves_in
from consumers.api.streams import Chunks
from consumers.api.wado import NotAcceptable, Way
from infra.ports import Row

MEDIA_TYPE = "application/zip"
LARGE = 1 << 31
"""Bytes of a file that needs the format's larger fields (a rewritten one may grow)."""
MADE = (2000, 1, 1, 0, 0, 0)
"""The time of every entry: the same content gives the same bytes."""


class _Out(io.RawIOBase):
    """What was written and not yet taken."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Buffer) -> int:  # type: ignore[override]
        self._pieces.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)


async def zipped(retriever: Retriever, packs: Packs, files: Sequence[tuple[Row, str]]) -> Chunks:
    """The ZIP, in pieces. `files`: rows with the transfer syntax they are written again in, as of `Retriever.media`."""
    out = _Out()
    numbers: dict[str, list[int]] = {}
    members: list[Member] = []
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for row, wanted in files:
            series = numbers.setdefault(row["series_uid"], [len(numbers) + 1, 0])
            series[1] += 1
            syntax, file = await _file(retriever, row, wanted)
            manifest = await packs.manifest(row["pack_id"])
            header = edited(bytes(manifest.instances[row["line"]].header), row.get(EDITS))
            member = Member(file_id(*series), row["sop_class"], syntax or row["transfer_syntax"], header)
            members.append(member)
            entry = zipfile.ZipInfo("/".join(member.file_id), MADE)
            async with aclosing(file) as chunks:
                with archive.open(entry, "w", force_zip64=row["length"] >= LARGE) as target:
                    async for chunk in chunks:
                        target.write(chunk)
                        yield out.take()
            yield out.take()
        archive.writestr(zipfile.ZipInfo(NAME, MADE), await asyncio.to_thread(dicomdir, members))
    yield out.take()


async def _file(retriever: Retriever, row: Row, syntax: str) -> tuple[str, Chunks]:
    """(transfer syntax it is written again in, the file), as stored where it cannot be had otherwise."""
    try:
        return syntax, await retriever.file(row, syntax)
    except NotAcceptable:
        stored = leaves_in(row, Way.AS_STORED)
        return stored, await retriever.file(row, stored)
