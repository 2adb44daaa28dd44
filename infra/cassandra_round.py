"""Statements to Cassandra from an event loop: bounded concurrency, and one wake-up of the loop for a whole round.

The driver answers on threads of its own. A `call_soon_threadsafe` per statement fills the loop's self-pipe, and once it
did, the wake-up byte of a SIGTERM was lost: a worker under load could not be stopped. So the driver's threads send the
next statement and count down themselves, and only the last answer, or the first failure, wakes the loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

Rows = list[Any]
Statement = Any
ResponseFuture = Any
Execute = Callable[[Statement], ResponseFuture]


async def run(execute: Execute, statements: Iterator[Statement], width: int) -> list[Rows]:
    """Execute all, at most `width` at a time; every page of each answer, in the order of the statements.

    Raises the driver's first error; what is under way then is left to itself, and no more is sent.
    """
    the_round = _Round(execute, statements, asyncio.get_running_loop())
    the_round.start(width)
    try:
        return await the_round.done
    finally:
        the_round.stopped = True


class _Round:
    """One call of `run`. Everything but `start` and `_finish` happens on the driver's threads."""

    def __init__(self, execute: Execute, statements: Iterator[Statement], loop: asyncio.AbstractEventLoop) -> None:
        self.done: asyncio.Future[list[Rows]] = loop.create_future()
        self.stopped = False
        self._execute = execute
        self._statements = statements
        self._loop = loop
        self._lock = threading.Lock()
        self._answers: list[Rows] = []
        self._open = 1  # statements under way, and one for start() itself, so that a quick answer cannot end the round

    def start(self, width: int) -> None:
        for _ in range(width):
            if not self._send():
                break
        self._count_down()

    def _send(self) -> bool:
        """Send the next statement; False if there is none.

        An answer that is there before its callback is added is handled on this stack and sends the next: as deep as
        answers overtake us in a row, which the network keeps small.
        """
        try:
            with self._lock:
                statement = None if self.stopped else next(self._statements, None)
                if statement is None:
                    return False
                rows: Rows = []
                self._answers.append(rows)
                self._open += 1
            future = self._execute(statement)
            future.add_callbacks(callback=self._page, callback_args=(rows, future), errback=self._fail)
        except Exception as e:  # noqa: BLE001 - from a driver's thread it would reach nobody: it ends the round
            self._fail(e)
            return False
        return True

    def _page(self, page: Rows | None, rows: Rows, future: ResponseFuture) -> None:
        rows.extend(page or ())  # a write has none
        if future.has_more_pages:
            future.start_fetching_next_page()
            return
        self._send()
        self._count_down()

    def _count_down(self) -> None:
        with self._lock:
            self._open -= 1
            last = self._open == 0 and not self.stopped
        if last:
            self._wake(None)

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            first, self.stopped = not self.stopped, True
        if first:
            self._wake(error)

    def _wake(self, error: BaseException | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self._finish, error)
        except RuntimeError:
            return  # the loop was closed meanwhile: nobody waits

    def _finish(self, error: BaseException | None) -> None:
        if self.done.done():
            return  # the caller was cancelled meanwhile
        if error is None:
            self.done.set_result(self._answers)
        else:
            self.done.set_exception(error)


async def pages(execute: Execute, statement: Statement) -> AsyncIterator[Rows]:
    """Pages of one statement; the next is asked for when the caller wants it."""
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[tuple[Rows, BaseException | None]] = asyncio.Queue()

    def hand_over(rows: Rows, error: BaseException | None = None) -> None:
        try:
            loop.call_soon_threadsafe(arrived.put_nowait, (rows, error))
        except RuntimeError:
            return  # the loop was closed meanwhile: nobody waits

    future = execute(statement)
    future.add_callbacks(callback=hand_over, errback=lambda error: hand_over([], error))
    while True:
        rows, error = await arrived.get()
        if error is not None:
            raise error
        yield rows
        if not future.has_more_pages:
            return
        future.start_fetching_next_page()
