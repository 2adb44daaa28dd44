"""Hashes of all records of all chains, by sequence: on disk, because a log has more records than memory has room.

One sparse file per source with a slot of 64 bytes per sequence: hash and previous hash. Writing a record puts it where
it belongs, so that nothing is ever sorted: 10 million events take 640 MB of scratch disk and next to no memory.
"""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

from schemas.chain import Links

SLOT_BYTES = 64
SEQUENCE_MAX = 10**10
"""An event a second for 300 years. More is a forged header."""
FILES_OPEN_MAX = 256
READ_SLOTS = 16_384


class Slots:
    """The chains of one log, in a scratch folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: dict[str, int] = {}
        self._open: OrderedDict[str, int] = OrderedDict()

    @property
    def sources(self) -> list[str]:
        """Every source that has a record, in order."""
        return sorted(self._names)

    def put(self, source: str, links: Links) -> bool | None:
        """True: new; None: was there, identical; False: was there with another content, which stays."""
        file = self._file(source)
        data = bytes.fromhex(links.hash) + bytes.fromhex(links.prevhash)
        place = (links.sequence - 1) * SLOT_BYTES
        there = os.pread(file, SLOT_BYTES, place)
        if len(there) == SLOT_BYTES and any(there):
            return None if there == data else False
        os.pwrite(file, data, place)
        return True

    def records(self, source: str) -> Iterator[Links]:
        """What is there, in the order of the sequence. Holes are skipped, not read."""
        file = self._file(source)
        end = os.fstat(file).st_size
        place = 0
        while place < end:
            try:
                data_at = os.lseek(file, place, os.SEEK_DATA)
            except OSError as e:
                if e.errno == errno.ENXIO:  # a hole up to the end
                    return
                raise
            place = data_at - data_at % SLOT_BYTES if data_at > place else place
            chunk = os.pread(file, SLOT_BYTES * READ_SLOTS, place)
            for at in range(0, len(chunk), SLOT_BYTES):
                slot = chunk[at : at + SLOT_BYTES]
                if any(slot):
                    yield Links((place + at) // SLOT_BYTES + 1, slot[:32].hex(), slot[32:].hex())
            place += len(chunk)

    def _file(self, source: str) -> int:
        file = self._open.pop(source, None)
        if file is None:
            number = self._names.setdefault(source, len(self._names))
            file = os.open(self._folder / f"{number}.slots", os.O_RDWR | os.O_CREAT, 0o600)
        self._open[source] = file
        if len(self._open) > FILES_OPEN_MAX:
            os.close(self._open.popitem(last=False)[1])
        return file

    def close(self) -> None:
        """Close the files; the folder is the caller's."""
        while self._open:
            os.close(self._open.popitem()[1])
