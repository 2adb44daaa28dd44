"""Publishing what was decided through this process's chain, and waiting until Kafka has it all."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from schemas.errors import Transient
from schemas.events import Event
from streams.effects import Emit

WAIT_S = 60.0
"""With Kafka away for longer there is nothing to follow either: the batch is given up and comes again."""


class _Publication(Protocol):
    @property
    def acknowledged(self) -> Future[Any]: ...


class Chain(Protocol):
    """What `infra.chain.ChainedLog` does here."""

    def publish(self, event: Event, *, id: str = "", subject: str = "") -> _Publication: ...


def publisher(chain: Chain) -> Callable[[Sequence[Emit]], Any]:
    """A function that publishes in order before its first await, and returns when Kafka has acknowledged all.

    It raises Transient, after which some may have been published: publishing them again sends the same ids.
    """

    async def publish(emits: Sequence[Emit]) -> None:
        futures = [chain.publish(e.event, id=e.id, subject=e.subject).acknowledged for e in emits]
        await acknowledged(futures)

    return publish


async def acknowledged(futures: Sequence[Future[Any]]) -> None:
    """Wait for futures of other threads with one wake-up of the loop for all. Raises Transient."""
    if not futures:
        return
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    lock = threading.Lock()
    left = len(futures)

    def count_down(_: Future[Any]) -> None:
        nonlocal left
        with lock:
            left -= 1
            last = left == 0
        if last:
            try:
                loop.call_soon_threadsafe(done.set)
            except RuntimeError:
                return  # the loop was closed meanwhile: nobody waits

    for future in futures:
        future.add_done_callback(count_down)
    try:
        async with asyncio.timeout(WAIT_S):
            await done.wait()
    except TimeoutError as error:
        raise Transient("Kafka has not acknowledged what was decided") from error
    for future in futures:
        future.result()
