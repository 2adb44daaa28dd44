"""A transient fault is tried again with bounded back-off and then raised: who started the process starts it again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from infra import clock, telemetry
from schemas.errors import Overloaded, Transient

T = TypeVar("T")
log = telemetry.logger(__name__)

FIRST_S, MOST_S = 0.1, 3.0


async def retrying(step: str, call: Callable[[], Awaitable[T]], for_s: float) -> T:
    """`call()` until it gives no Transient; raises the last one when `for_s` seconds have passed."""
    deadline = clock.monotonic() + for_s
    delay_s = FIRST_S
    attempt = 1
    while True:
        try:
            return await call()
        except Transient as error:
            wait_s = max(delay_s, error.retry_after_s) if isinstance(error, Overloaded) else delay_s
            if clock.monotonic() + wait_s > deadline:
                raise
            log.warning("tried again", command=step, attempt=attempt, reason=str(error), delay_s=wait_s)
            await asyncio.sleep(wait_s)
        delay_s = min(delay_s * 2, MOST_S)
        attempt += 1
