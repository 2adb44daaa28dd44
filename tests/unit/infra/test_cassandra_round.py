"""A round of statements: bounded, in order, one wake-up, and left alone by answers that come too late."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from infra import cassandra_round


class Future:
    """What the driver gives for a statement: pages, or an error, when it is told to."""

    def __init__(self, pages: list[list[int] | None], error: Exception | None = None) -> None:
        self._pages = pages
        self._error = error
        self._callbacks: tuple[Callable[[], None], Callable[[], None]] | None = None
        self._answered = False

    @property
    def has_more_pages(self) -> bool:
        return bool(self._pages)

    def add_callbacks(
        self,
        callback: Callable[..., None],
        errback: Callable[[Exception], None],
        callback_args: tuple[Any, ...] = (),
    ) -> None:
        self._callbacks = (
            lambda: callback(self._pages.pop(0), *callback_args),
            lambda: errback(self._error or AssertionError()),
        )
        if self._answered:
            self.answer()

    def answer(self) -> None:
        self._answered = True
        if self._callbacks is not None:
            self._callbacks[1 if self._error else 0]()

    def start_fetching_next_page(self) -> None:
        self.answer()


class Driver:
    """Answers on a thread of its own, or at once; knows how many were under way."""

    def __init__(self, *, at_once: bool = False) -> None:
        self.under_way = 0
        self.most = 0
        self.sent: list[int] = []
        self.held: list[Future] = []
        self.holding = False
        self._at_once = at_once
        self._lock = threading.Lock()

    def execute(self, statement: int) -> Future:
        if statement == 13:
            raise TypeError("a value that does not fit")
        with self._lock:
            self.sent.append(statement)
            self.under_way += 1
            self.most = max(self.most, self.under_way)
        error = ValueError("refused") if statement == 66 else None
        future = Future([[statement, statement], [statement]] if statement % 2 else [None], error)
        if self.holding:
            self.held.append(future)
        elif self._at_once:
            self._answer(future)
        else:
            threading.Timer(0.001, self._answer, (future,)).start()
        return future

    def _answer(self, future: Future) -> None:
        with self._lock:
            self.under_way -= 1
        future.answer()


def run(driver: Driver, statements: list[int], width: int = 4) -> list[list[int]]:
    async def wait() -> list[list[int]]:
        return await asyncio.wait_for(cassandra_round.run(driver.execute, iter(statements), width), 10)

    return asyncio.run(wait())


@pytest.mark.parametrize("at_once", [False, True])
def test_every_page_of_every_answer_in_order(at_once: bool) -> None:
    driver = Driver(at_once=at_once)
    assert run(driver, [1, 2, 3, 4, 5]) == [[1, 1, 1], [], [3, 3, 3], [], [5, 5, 5]]
    assert run(driver, []) == []


def test_no_more_than_the_width_are_under_way() -> None:
    driver = Driver()
    assert len(run(driver, list(range(100, 200)), width=5)) == 100
    assert 1 < driver.most <= 5


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize(("bad", "error"), [(66, ValueError), (13, TypeError)])
def test_the_first_error_ends_the_round(at_once: bool, bad: int, error: type[Exception]) -> None:
    driver = Driver(at_once=at_once)
    with pytest.raises(error):
        run(driver, [2, 4, bad, *range(100, 1000)], width=2)
    assert len(driver.sent) < 20


def test_statements_that_cannot_be_made_end_the_round() -> None:
    def statements() -> Iterator[int]:
        yield 2
        raise KeyError("no such column")

    driver = Driver()

    async def wait() -> None:
        await asyncio.wait_for(cassandra_round.run(driver.execute, statements(), 1), 10)

    with pytest.raises(KeyError):
        asyncio.run(wait())


def test_one_wake_up(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver()
    woken = 0

    async def wait() -> None:
        nonlocal woken
        loop = asyncio.get_running_loop()
        original = loop.call_soon_threadsafe

        def counted(*args: Any, **kwargs: Any) -> asyncio.Handle:
            nonlocal woken
            woken += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
        await cassandra_round.run(driver.execute, iter(range(200)[14:]), 8)

    with pytest.raises(ValueError, match="refused"):  # 66 is among them
        asyncio.run(wait())
    assert woken == 1


def test_answers_to_a_cancelled_round_are_dropped_and_nothing_more_is_sent() -> None:
    driver = Driver()
    driver.holding = True

    async def cancelled() -> None:
        task = asyncio.create_task(cassandra_round.run(driver.execute, iter(range(100, 200)), 3))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for future in list(driver.held):
            future.answer()
        await asyncio.sleep(0)

    asyncio.run(cancelled())
    assert driver.sent == [100, 101, 102]


def test_answers_after_the_loop_was_closed_are_dropped() -> None:
    driver = Driver()
    driver.holding = True

    async def left() -> None:
        asyncio.create_task(cassandra_round.run(driver.execute, iter([100]), 1)).cancel()
        _ = cassandra_round.pages(driver.execute, 100)
        await asyncio.sleep(0)
        the_round = cassandra_round._Round(driver.execute, iter([102]), asyncio.get_running_loop())
        the_round.start(1)

    asyncio.run(left())
    for future in driver.held:
        future.answer()


def test_pages_come_when_they_are_asked_for() -> None:
    async def collect(statement: int) -> list[list[int]]:
        return [page async for page in cassandra_round.pages(Driver().execute, statement)]

    assert asyncio.run(collect(3)) == [[3, 3], [3]]
    with pytest.raises(ValueError, match="refused"):
        asyncio.run(collect(66))
