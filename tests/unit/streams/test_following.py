"""How often the broker is asked for events."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.metadata import MetadataRequest

from infra import clock
from streams import following


def _fetch() -> Any:
    return FetchRequest(max_wait_time=1500, min_bytes=1, max_bytes=1, isolation_level=0, topics=[])


class Line:
    """A client's `send`, and a clock that only sleeping moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.sent: list[tuple[int, float]] = []
        monkeypatch.setattr(clock, "monotonic", lambda: self.now)
        monkeypatch.setattr(asyncio, "sleep", self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.now += seconds

    async def send(self, node_id: int, request: Any, *, group: str) -> str:
        assert group == "default"
        self.sent.append((node_id, round(self.now, 3)))
        return "answer"


def test_fetches_of_one_broker_keep_their_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line(monkeypatch)
    send = following.paced(line.send, 0.05)

    async def ask() -> None:
        for node in (1, 1, 2, 1):
            assert await send(node, _fetch(), group="default") == "answer"
        line.now += 3.0
        await send(1, _fetch(), group="default")

    asyncio.run(ask())
    assert line.sent == [(1, 100.0), (1, 100.05), (2, 100.05), (1, 100.1), (1, 103.1)]


def test_what_is_no_fetch_goes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line(monkeypatch)
    send = following.paced(line.send, 0.05)

    async def ask() -> None:
        await send(1, _fetch(), group="default")
        await send(1, MetadataRequest([]), group="default")

    asyncio.run(ask())
    assert line.sent == [(1, 100.0), (1, 100.0)]
