"""The HTTP door's server on a real socket, in a thread, around an application of the test."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import uvicorn
from starlette.types import ASGIApp

from infra.chain import ChainedLog
from infra.http_door import HttpDoor, Register, compose, listen, server_config
from infra.memory import MemoryLog, MemoryObjects
from infra.settings import Settings


class Chain:
    """As much of a chain as the door itself asks for."""

    backlog = 0


@contextmanager
def serving(register: Register, settings: Settings | None = None, *, around: ASGIApp | None = None) -> Iterator[int]:
    """The port of a door with what `register` adds; `around` answers in its place."""
    given = settings or Settings()
    door = HttpDoor(given, log=MemoryLog(), chain=cast(ChainedLog, Chain()), objects=MemoryObjects())
    bound = listen("127.0.0.1", 0)
    server = uvicorn.Server(server_config(around or compose(door, [register]), given))
    thread = threading.Thread(target=server.run, args=([bound],))
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.005)
        yield bound.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(20)
        bound.close()
        assert not thread.is_alive()


def connect(port: int) -> socket.socket:
    """A connection that waits at most some seconds for anything."""
    return socket.create_connection(("127.0.0.1", port), 15)


def rest(connection: socket.socket) -> bytes:
    """All that comes until the server closes. Raises TimeoutError if it never does."""
    found = b""
    try:
        while piece := connection.recv(65536):
            found += piece
    except ConnectionResetError:
        pass
    return found


def status(answer: bytes) -> int:
    """Of the first answer in these bytes."""
    return int(answer.split(b" ", 2)[1])
