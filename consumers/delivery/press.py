"""Reports printed for delivery: in processes of their own, and each but once for all destinations and attempts.

A sheet that was printed lately is not printed again. One that cannot be printed now is tried again; one that never can
is a defect, and what waits behind it goes on.
"""

from __future__ import annotations

import asyncio
import hashlib
import pickle
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from consumers.report_pdf.sheet import Sheet

KEPT_BYTES: int = 8 << 20
"""Of files: some 200 reports."""

Print = Callable[[Sheet], Awaitable[bytes]]
"""A sheet as PDF. Raises Transient."""


class Press:
    """Prints by `made`, which is asked once at a time for a sheet."""

    def __init__(self, made: Print, kept_bytes: int = KEPT_BYTES) -> None:
        self._made, self._kept_bytes = made, kept_bytes
        self._printed: OrderedDict[bytes, asyncio.Future[bytes]] = OrderedDict()
        self._bytes = 0

    async def printed(self, sheet: Sheet) -> bytes:
        """The file. Raises Transient."""
        key = hashlib.sha256(pickle.dumps(sheet)).digest()
        known = self._printed.get(key)
        if known is None:
            known = self._printed[key] = asyncio.ensure_future(self._made(sheet))
            known.add_done_callback(lambda done: self._ended(key, done))
        else:
            self._printed.move_to_end(key)
        # Who waits may give up; others may wait for the same.
        return await asyncio.shield(known)

    def _ended(self, key: bytes, done: asyncio.Future[bytes]) -> None:
        if done.cancelled() or done.exception() is not None:
            self._printed.pop(key, None)
            return
        self._bytes += len(done.result())
        while self._bytes > self._kept_bytes:
            oldest = next(k for k, f in self._printed.items() if f.done())
            self._bytes -= len(self._printed.pop(oldest).result())
