"""Streams of pieces: begun before they are needed, and bounded in memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress

Chunk = bytes | memoryview
Chunks = AsyncGenerator[Chunk, None]

AHEAD = 3
"""Pieces under way at once: the one that is being sent and those behind it."""


async def begun(pieces: Chunks) -> Chunks:
    """The same after its first piece was had: what goes wrong at once becomes a status and not a broken body."""
    first = await anext(pieces, b"")

    async def whole() -> Chunks:
        yield first
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece

    return whole()


async def ahead(work: Sequence[Chunks], depth: int = AHEAD) -> Chunks:
    """The iterators one behind the other, the next ones already begun."""
    started: deque[tuple[asyncio.Task[list[Chunk]], Chunks]] = deque()
    waiting = deque(work)
    try:
        while waiting or started:
            while waiting and len(started) < depth:
                pieces = waiting.popleft()
                started.append((asyncio.create_task(_first(pieces)), pieces))
            task, pieces = started[0]
            for piece in await task:
                yield piece
            async for piece in pieces:
                yield piece
            started.popleft()
    finally:
        for task, pieces in started:
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task
            await pieces.aclose()


async def _first(pieces: Chunks) -> list[Chunk]:
    """The head of a part, and what its source gives first."""
    found: list[Chunk] = []
    async for piece in pieces:
        found.append(piece)
        if len(found) == 2:
            break
    return found


async def once(piece: Chunk) -> Chunks:
    """One piece."""
    yield piece


class Budget:
    """A bound on the bytes in memory, given out in the order of asking, so that nobody waits for ever."""

    def __init__(self, size: int) -> None:
        self._left = self._size = size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def take(self, size: int) -> None:
        """Wait for `size` bytes; more than there are altogether count as all of them."""
        size = min(size, self._size)
        if not self._waiting and size <= self._left:
            self._left -= size
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give(size)
            raise

    def give(self, size: int) -> None:
        """Give back what was taken."""
        self._left += min(size, self._size)
        while self._waiting and (self._waiting[0][1].cancelled() or self._waiting[0][0] <= self._left):
            size, turn = self._waiting.popleft()
            if not turn.cancelled():
                self._left -= size
                turn.set_result(None)
