"""Canonical digests in a process of their own: decoders are C code that has seen the world's DICOM, and a crash or a
hang of one must not stop the archiver.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import warnings
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from infra.process import die_with_parent
from schemas.errors import Invalid
from streams.canonical import canonical

DATASET_MAX = 256 << 20
"""Bytes of a dataset that may be compared canonically."""
TIMEOUT_S = 120.0


def _begin() -> None:
    die_with_parent()
    # pydicom says what it finds in a dataset, values included.
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")


def _digest(dataset: bytes, transfer_syntax: str) -> str:
    try:
        return canonical(dataset, transfer_syntax)
    except Invalid:
        return ""


class Comparing:
    """One process, begun with the first digest and ended by `close`."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None

    async def digest(self, dataset: bytes, transfer_syntax: str) -> str:
        """The canonical digest; "" for what cannot be compared."""
        if len(dataset) > DATASET_MAX:
            return ""
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(1, mp_context=context, initializer=_begin)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._pool, _digest, dataset, transfer_syntax)
        except (BrokenProcessPool, TimeoutError):
            self.close()
            return ""

    def close(self) -> None:
        """End the process, also one that hangs."""
        pool, self._pool = self._pool, None
        if pool is not None:
            for process in list((pool._processes or {}).values()):
                process.kill()
            pool.shutdown(wait=False, cancel_futures=True)
