"""The counts of open access windows on disk, so that they outlive the process: a file of slots, one per window.

A slot is written when its window is first used and at each answer, by `pwrite` and without a sync: that outlives a
killed process, and a power cut costs the count, never the grant (which is in the journal). The next process finds what
was open and closes it. Whoever makes one holds the lock of the process's chain, so there is one per file.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import msgspec

from infra import telemetry
from infra.settings import Role, Settings
from schemas.events import AccessUsed

log = telemetry.logger(__name__)

SLOTS = 24_000
"""More than windows may be open (`consumers.api.audit.WINDOWS_MAX`): some wait for their event to be kept."""
SLOT_BYTES = 1024
_COUNTS = struct.Struct("<QQQ32s")
"""Uses, bytes, cut short, last used (RFC 3339, padded): rewritten at each answer."""
_FRAME = struct.Struct("<II")
"""Length and CRC-32 of the event that follows, whose own counts are those of the first use."""
EVENT_BYTES_MAX = SLOT_BYTES - _COUNTS.size - _FRAME.size

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(AccessUsed)


class WindowCounts:
    """The file of one process, open until that ends: events may be kept, and slots let go, behind everything else."""

    def __init__(self, path: Path, slots_max: int) -> None:
        """Opens it, or makes it. Raises OSError for a disk that takes nothing."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        there = os.fstat(self._file).st_size // SLOT_BYTES
        self._free: deque[int] = deque()
        self.left: list[tuple[int, AccessUsed]] = []
        """(slot, event) of the windows that the last process left open."""
        self.left.extend(self._read(there))
        taken = {slot for slot, _ in self.left}
        self._free.extend(n for n in range(max(slots_max, there)) if n not in taken)

    @classmethod
    def of(cls, settings: Settings, role: Role) -> WindowCounts:
        """Beside the chain of a process."""
        return cls(settings.chain(role) / settings.instance / "windows", SLOTS)

    def _read(self, count: int) -> Iterator[tuple[int, AccessUsed]]:
        for slot in range(count):
            data = os.pread(self._file, SLOT_BYTES, slot * SLOT_BYTES)
            if len(data) < SLOT_BYTES:
                return
            uses, size, cut_short, last_used = _COUNTS.unpack_from(data)
            length, crc = _FRAME.unpack_from(data, _COUNTS.size)
            start = _COUNTS.size + _FRAME.size
            said = data[start : start + length]
            if not uses or length > EVENT_BYTES_MAX or zlib.crc32(said) != crc:
                continue
            try:
                event = _decoder.decode(said)
            except msgspec.DecodeError:
                continue
            yield (
                slot,
                msgspec.structs.replace(
                    event,
                    uses=uses,
                    bytes=size,
                    cut_short=cut_short,
                    last_used=last_used.rstrip(b"\0").decode(),
                    recovered=True,
                ),
            )

    def begin(self, event: AccessUsed) -> int | None:
        """A slot for a window that was used the first time; None where there is no room: its count can be lost then."""
        said = _encoder.encode(event)
        if not self._free or len(said) > EVENT_BYTES_MAX:
            return None
        slot = self._free.popleft()
        counts = _COUNTS.pack(event.uses, event.bytes, event.cut_short, event.last_used.encode())
        data = counts + _FRAME.pack(len(said), zlib.crc32(said)) + said
        if not self._write(slot, data.ljust(SLOT_BYTES, b"\0")):
            self._free.append(slot)
            return None
        return slot

    def note(self, slot: int, uses: int, size: int, cut_short: int, last_used: str) -> None:
        """How often the window was used by now."""
        self._write(slot, _COUNTS.pack(uses, size, cut_short, last_used.encode()))

    def free(self, slot: int) -> None:
        """The window's access.used is kept. From any thread."""
        self._write(slot, bytes(_COUNTS.size))
        self._free.append(slot)

    def _write(self, slot: int, data: bytes) -> bool:
        try:
            return os.pwrite(self._file, data, slot * SLOT_BYTES) == len(data)
        except OSError as e:
            log.warning("the count of an access window is in memory alone", reason=os.strerror(e.errno or 0))
            return False
