"""Where the bytes of refused instances are kept for a person to look at: one folder, bounded, oldest removed first.

A file is named by the `rejection_id` of its event, which says why it was refused. Best effort, for these bytes were
never acknowledged: they are not synced, and what does not fit is not kept.
"""

from __future__ import annotations

import os
from pathlib import Path

from infra import telemetry
from producers.body import Body

log = telemetry.logger(__name__)

REMOVED = telemetry.Counter("sijil_quarantine_removed", "Files removed from the quarantine, or never kept: no room")
SUFFIX = ".bin"


class Quarantine:
    """May be shared by the processes of an installation."""

    def __init__(self, folder: Path, bytes_max: int) -> None:
        self._folder, self._bytes_max = folder, bytes_max
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def keep(self, rejection_id: str, body: Body) -> bool:
        """Keep the bytes under that id; False if they are too many or the disk refuses them."""
        if body.length > self._bytes_max:
            REMOVED.inc()
            return False
        path = self._folder / (rejection_id + SUFFIX)
        try:
            self._make_room(body.length)
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb", buffering=0) as f:
                for chunk in body.chunks():
                    f.write(chunk)
        except OSError as error:
            log.warning("quarantine: bytes not kept", reason=os.strerror(error.errno or 0))
            path.unlink(missing_ok=True)
            REMOVED.inc()
            return False
        return True

    def _make_room(self, length: int) -> None:
        """Ids are UUIDv7: names in their order are ages in theirs."""
        sizes = {}
        for path in sorted(self._folder.glob("*" + SUFFIX)):
            try:
                sizes[path] = path.stat().st_size
            except FileNotFoundError:
                continue  # another process made room
        total = sum(sizes.values()) + length
        for path, size in sizes.items():
            if total <= self._bytes_max:
                return
            path.unlink(missing_ok=True)
            REMOVED.inc()
            total -= size
