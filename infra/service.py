"""A long-running process without a door of its own: signals, deadline, exit status.

Stop is SIGTERM or SIGINT, then STOP_S to let go, then an end without ceremony: what was not finished comes again.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, NoReturn

from infra import telemetry
from infra.active_views import active_keyspace
from infra.ports import Tables
from schemas.errors import Transient

log = telemetry.logger(__name__)

STOPPED, FAILED, SWITCHED = 0, 1, 75
"""Exit statuses: told to stop; a fault; the active keyspace has changed (EX_TEMPFAIL: start again)."""
STOP_S = 10.0
WATCH_S = 1.0

Serve = Callable[[asyncio.Event], Awaitable[int]]


def run(part: str, serve: Serve, level: str) -> NoReturn:
    """Run `serve(stop)` until it returns an exit status, and end with that. Never returns."""
    telemetry.setup(part, level)
    status = FAILED
    try:
        status = asyncio.run(_run(serve))
    except Exception as error:  # noqa: BLE001 - the last frame of the process: logged, and told by the status
        log.error("process failed", error=error)
    finally:
        log.info("process ends", exit_status=status)
        # Threads of libraries may still wait for servers that are away.
        os._exit(status)


async def _run(serve: Serve) -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def told(number: int, _: object) -> None:
        # Not loop.add_signal_handler: it needs a free byte in the loop's self-pipe, which a busy driver can fill.
        loop.call_soon_threadsafe(stop.set)
        deadline = threading.Timer(STOP_S, os._exit, (STOPPED,))
        deadline.daemon = True
        deadline.start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, told)
    return await serve(stop)


async def until_stopped(stop: asyncio.Event, tasks: Iterable[Coroutine[Any, Any, int | None]]) -> int:
    """Run tasks that have no end until `stop`: STOPPED. One that returns a status ends all; one that raises, too."""
    waiting = asyncio.create_task(stop.wait())
    running = [asyncio.create_task(t) for t in tasks]
    try:
        await asyncio.wait([waiting, *running], return_when=asyncio.FIRST_COMPLETED)
        if waiting.done():
            return STOPPED
        ended = next(t for t in running if t.done())
        return ended.result() or FAILED
    finally:
        for task in (waiting, *running):
            task.cancel()
        await asyncio.gather(waiting, *running, return_exceptions=True)


async def watch_keyspace(tables: Tables) -> int:
    """SWITCHED as soon as another keyspace than that of `tables` answers."""
    while True:
        await asyncio.sleep(WATCH_S)
        try:
            keyspace = await active_keyspace(tables)
        except Transient as error:
            log.warning("active keyspace unknown", reason=str(error))
            continue
        if keyspace != tables.keyspace:
            log.info("read models switched", keyspace=keyspace)
            return SWITCHED
