"""Decoders in processes of their own, with limits.

A crash or a hang of a decoder must cost one answer, not the door. Work that waits is bounded; what is too large to
decode in memory is not decoded. When a process ends, all that were at work lose it: each is tried again alone, one
after the other, so that only the file that ends a process is refused, and others never notice.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar, cast

from prometheus_client import Counter, Gauge

from consumers.api import decoding
from consumers.api.look import Look, OutsideImage
from consumers.api.wado import NotAcceptable
from consumers.report_pdf.sheet import Sheet
from schemas.errors import Invalid, NotFound, Overloaded, Transient

WORKERS = 2
WAITING_MAX = 64
INPUT_MAX = 256 << 20
"""Bytes of a file that may be decoded."""
TIMEOUT_S = 60.0
TASKS_PER_WORKER = 500
"""Then a worker is replaced: what a decoder leaks goes with it."""

_PIXELS = "1 1.99 2 4.50 4.51 4.57 4.70 4.80 4.81 4.90 4.91 4.201 4.202 4.203 5"
DECODABLE = frozenset({"1.2.840.10008.1.2", *(f"1.2.840.10008.1.2.{n}" for n in _PIXELS.split())})
"""Transfer syntaxes. Not asked of pydicom: where this process runs, no decoder is loaded (`infra.unloaded`)."""

WAITING = Gauge("sijil_decoder_waiting", "Instances that are decoded, encoded or rendered, or wait for it")
ENDED = Counter("sijil_decoder_ended", "Works that ended with their process", ["how"])

CLOSE_S = 2.0
"""How long the end of killed processes is waited for."""

T = TypeVar("T")


def decodable(transfer_syntax: str) -> bool:
    """Whether the processes have a decoder for pixel data of it."""
    return transfer_syntax in DECODABLE


class Decoders:
    """Two pools of processes, begun with the first work: one for all, one of a single process for what is doubtful."""

    def __init__(self, workers: int = WORKERS, *, timeout_s: float = TIMEOUT_S) -> None:
        self._pool, self._alone = _Pool(workers, timeout_s), _Pool(1, timeout_s)
        self._waiting = 0

    async def explicit(self, part10: bytes) -> bytes:
        """A Part 10 file with compressed pixel data as Explicit VR Little Endian.

        Raises NotAcceptable when it cannot be decoded, Overloaded when too many wait, Transient when it takes too long.
        """
        return await self._run(decoding.explicit, part10)

    async def jpeg2000(self, part10: bytes) -> bytes:
        """A Part 10 file as JPEG 2000 lossless. Raises as `explicit`."""
        return await self._run(decoding.jpeg2000, part10)

    async def frames(self, part10: bytes, numbers: Sequence[int] | None) -> list[bytes]:
        """Frames, from 0, of a Part 10 file, decoded; None: all. Raises as `explicit`."""
        return await self._run(decoding.frames, part10, None if numbers is None else tuple(numbers))

    async def frame(self, head: bytes, stored: bytes) -> bytes:
        """A stored frame behind the beginning of its file, decoded. Raises as `explicit`."""
        return await self._run(decoding.frame, head, stored)

    async def beginning(self, head: bytes, stored: bytes) -> tuple[bytes, str, bytes]:
        """As `decoding.beginning`. Raises as `explicit`."""
        return await self._run(decoding.beginning, head, stored)

    async def value(self, part10: bytes, path: str) -> bytes:
        """The value of an element by its path (`00540016/1/00181072`). Raises NotFound, and as `explicit`."""
        return await self._run(decoding.value, part10, path)

    async def rendered(self, part10: bytes, frame: bytes | None, number: int, look: Look) -> bytes:
        """An image of a frame, from 0, as `image.render` takes it. Raises Invalid(`viewport`), and as `explicit`."""
        return await self._run(decoding.rendered, part10, frame, number, look)

    async def printed(self, sheet: Sheet) -> bytes:
        """A report's PDF: fractions of a second of work that the door's own loop is spared.

        Raises Overloaded when too much waits, Transient when it cannot be made now.
        """
        if self._waiting >= WAITING_MAX:
            raise Overloaded("too much waits to be decoded or printed", 2.0)
        self._waiting += 1
        try:
            return await self._pool.run(decoding.printed, sheet)
        except (BrokenProcessPool, TimeoutError) as e:
            raise Transient("the report could not be printed now") from e
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """End the processes."""
        self._pool.closed = self._alone.closed = True  # both first: what one lost would be tried again by the other
        self._pool.close()
        self._alone.close()
        gc.collect()  # semaphores go with the queues, which know each other

    async def _run(self, work: Callable[..., T], part10: bytes, *args: Any) -> T:
        if len(part10) > INPUT_MAX:
            raise NotAcceptable("this instance is too large to be decoded: ask for transfer-syntax=*")
        if self._waiting >= WAITING_MAX:
            raise Overloaded("too many instances wait to be decoded", 2.0)
        self._waiting += 1
        WAITING.set(self._waiting)
        try:
            try:
                return await self._pool.run(work, part10, *args)
            except BrokenProcessPool:
                return await self._alone.run(work, part10, *args)
        except BrokenProcessPool as e:
            raise NotAcceptable("the stored pixel data ends the decoder: ask for transfer-syntax=*") from e
        except TimeoutError as e:
            raise Transient("decoding took too long") from e
        except decoding.Absent as e:
            raise NotFound("this instance has no such value") from e
        except OutsideImage as e:
            raise Invalid("viewport", "the region of the viewport lies outside the image") from e
        except decoding.Undecodable as e:
            raise NotAcceptable(f"the stored pixel data cannot be decoded ({e}): ask for transfer-syntax=*") from e
        finally:
            self._waiting -= 1
            WAITING.set(self._waiting)


class _Pool:
    """Processes that are replaced when one of them ends or hangs. Who waits for one waits here, without a deadline."""

    def __init__(self, workers: int, timeout_s: float) -> None:
        self._workers, self._timeout_s = workers, timeout_s
        self._turns = asyncio.Semaphore(workers)
        self._executor: ProcessPoolExecutor | None = None
        self.closed = False

    async def run(self, work: Callable[..., T], *args: Any) -> T:
        """Raises BrokenProcessPool when a process ended, TimeoutError when the work took too long, Transient when all
        have been ended.
        """
        async with self._turns:
            if self.closed:
                raise Transient("the decoders have been ended")
            if self._executor is None:
                self._executor = ProcessPoolExecutor(
                    self._workers,
                    mp_context=multiprocessing.get_context("spawn"),
                    initializer=decoding.begin,
                    max_tasks_per_child=TASKS_PER_WORKER,
                )
            executor = self._executor
            try:
                async with asyncio.timeout(self._timeout_s):
                    return await asyncio.get_running_loop().run_in_executor(executor, work, *args)
            except (BrokenProcessPool, TimeoutError) as e:
                ENDED.labels(type(e).__name__).inc()
                self._end(executor)
                raise

    def _end(self, executor: ProcessPoolExecutor) -> None:
        """A worker that hangs does not end by itself."""
        if self._executor is executor:
            self._executor = None
        for process in list((executor._processes or {}).values()):
            process.kill()
        executor.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """End them, whatever they work on, and give back what they share with this process: the pool's thread does
        that, and who ends by `os._exit` would not wait for it.
        """
        executor, self._executor = self._executor, None
        # typeshed names another type
        thread = cast("threading.Thread | None", executor and executor._executor_manager_thread)
        if executor is None or thread is None:
            return
        processes = list((executor._processes or {}).values())
        executor.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.kill()
        thread.join(CLOSE_S)
