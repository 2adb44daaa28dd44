"""One connection of the HTTP door, with an end to everything a peer can do slowly or without measure.

uvicorn waits for a request's head as long as a peer likes, and counts no connections. Here:
- a head (request line and fields) is complete within `HEAD_S` or the connection is closed;
- what is read without becoming part of a body (head, trailer, chunk extensions) is at most `HEAD_BYTES_MAX`: 431;
- a body that goes on after its answer is read a little further, then the connection is closed;
- an answer that nobody takes is dropped `STUCK_S` after its last byte was taken;
- connections are counted, all together and by address: those above are told 503 and closed.
How slowly a body may come, and an answer be taken, is `infra.http_edge`'s.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from infra import telemetry
from infra.http_perimeter import ALWAYS, API_POLICY
from infra.http_problems import MEDIA_TYPE

HEAD_S = 15.0
"""From a connection's beginning, or the first byte of a further request, to the end of the request's head."""
HEAD_BYTES_MAX = 64 * 1024
"""The longest target and a browser's cookies fit several times."""
DISCARD_MAX = 1 << 20
"""Bytes of a body that are still read after its answer: the client then sees the answer rather than a reset."""
STUCK_S = 30.0

REFUSED = telemetry.Counter("sijil_http_connections_refused", "Connections closed before an answer, by reason", ["why"])


class Connections:
    """How many connections are open, all together and by address. Of one event loop."""

    def __init__(self, most: int, most_of_one: int) -> None:
        """0: as many as there are."""
        self.most, self.most_of_one = most, most_of_one
        self.open = 0
        self._of: Counter[str] = Counter()

    def enter(self, address: str) -> bool:
        """Count one more, unless it is one too many."""
        if self.most and self.open >= self.most:
            return False
        if self.most_of_one and self._of[address] >= self.most_of_one:
            return False
        self.open += 1
        self._of[address] += 1
        return True

    def leave(self, address: str) -> None:
        """One that had entered is gone. Who has none open is forgotten."""
        self.open -= 1
        self._of[address] -= 1
        if not self._of[address]:
            del self._of[address]


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol within the limits of this module. `bounded` makes one for a door's connections."""

    connections_of_door: Connections

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._address = ""
        self._entered = False
        self._deadline: asyncio.TimerHandle | None = None
        self._silent = 0
        """Bytes read since the last that belonged to a body."""
        self._discarded = 0
        self._unsent = 0
        self._trailing = False

    # Of the transport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._address = self.client[0] if self.client else ""
        self._entered = self.connections_of_door.enter(self._address)
        if self._entered:
            self._arm()
        else:
            self._refuse(503, "Too many connections", "connections", retry_after_s=5)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._silent += len(data)
        super().data_received(data)
        if self.parser is None or self.transport.is_closing():
            return
        if self._silent > HEAD_BYTES_MAX:
            self._refuse(431, "The head of the request is too large", "head-bytes")
        elif self._idle():
            self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        if self._entered:
            self._entered = False
            self.connections_of_door.leave(self._address)
        super().connection_lost(exc)

    # Of the parser

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._trailing = False
        self._arm()

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._trailing:  # fields of a trailer are not fields of the request
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._disarm()
        self._silent, self._discarded, self._trailing = 0, 0, True
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._silent = 0
        super().on_body(body)
        if self.cycle.response_complete:
            self._discarded += len(body)
            if self._discarded > DISCARD_MAX:
                self.transport.close()

    def on_message_complete(self) -> None:
        self._silent = 0
        super().on_message_complete()

    # Of the answers

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._watch_the_rest()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._watch_the_rest()

    def send_400_response(self, msg: str) -> None:
        REFUSED.labels("no-http").inc()
        self._answer(400, "This is no HTTP request")

    def _watch_the_rest(self) -> None:
        """A closed connection lives until its last byte is taken: see that some are, now and then."""
        self._unsent = self.transport.get_write_buffer_size()
        if self._unsent:
            self.loop.call_later(STUCK_S, self._stuck)

    def _stuck(self) -> None:
        if self.parser is None:  # the connection is gone
            return
        if self.transport.get_write_buffer_size() >= self._unsent:
            REFUSED.labels("answer-not-taken").inc()
            self.transport.abort()
        else:
            self._watch_the_rest()

    def _idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _arm(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_S, self._late)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late(self) -> None:
        self._deadline = None
        if not self._idle():
            self._arm()  # a further request came too early; the answer before it goes on
        elif not self.transport.is_closing():
            self._refuse(408, "The request took too long", "head-late")

    def _refuse(self, status: int, title: str, why: str, *, retry_after_s: int = 0) -> None:
        REFUSED.labels(why).inc()
        if self._idle():
            self._answer(status, title, retry_after_s)
        else:
            self.transport.abort()

    def _answer(self, status: int, title: str, retry_after_s: int = 0) -> None:
        """A problem (`infra.http_problems`) where no request has begun; then the connection ends."""
        body = msgspec.json.encode({"type": "about:blank", "status": status, "title": title})
        fields = {**ALWAYS, "Content-Security-Policy": API_POLICY, "Content-Type": MEDIA_TYPE, "Connection": "close"}
        fields |= {"Cache-Control": "no-store", "Content-Length": str(len(body))}
        if retry_after_s:
            fields["Retry-After"] = str(retry_after_s)
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.transport.write(f"HTTP/1.1 {status} {title}\r\n{head}\r\n".encode("ascii") + body)
        self.transport.close()
        self._watch_the_rest()


def bounded(connections: Connections) -> type[BoundedProtocol]:
    """The protocol of a door that has these connections: uvicorn is given a class."""
    return type("BoundedProtocol", (BoundedProtocol,), {"connections_of_door": connections})
