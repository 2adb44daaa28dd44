"""The edge of the HTTP door: limits, deadlines and figures around every request, as one ASGI middleware.

A request is refused when its target is too long (414) or its body is larger than the limit of its path (413); it is
dropped when nothing comes or goes for `IDLE_S`, or when all of it takes longer than at `SLOWEST` bytes per second. An
error nobody caught becomes a 500 problem, or, when the answer has begun, a connection closed before its end, which a
client can tell from a complete one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from prometheus_client import Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from infra import clock, telemetry
from infra.http_problems import problem

log = telemetry.logger(__name__)

TARGET_MAX = 16 * 1024
"""Bytes of path and query: a list of 200 UIDs fits."""
BODY_MAX = 1 << 20
"""Bytes of a body where no other limit was set."""
IDLE_S = 60.0
"""Longest wait for the next piece of a request, or for a client to take the next piece of an answer."""
SLOWEST = 1024
"""Bytes per second, beyond IDLE_S: a body or an answer that drips slower is an attack, or of no use to anybody."""
DISCARD_MAX = 1 << 20
"""Bytes of a refused body that are still read, so that the client sees the answer rather than a reset."""

REQUESTS = Counter("sijil_http_requests", "Requests by route and status", ["method", "route", "status"])
SECONDS = Histogram(
    "sijil_http_seconds",
    "From the first byte of a request to the last of its answer",
    ["method", "route"],
    buckets=(0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
METHODS = frozenset("GET HEAD POST PUT PATCH DELETE OPTIONS".split())


class BodyTooLarge(Exception):
    """Raised into the application by `receive` at the byte above the limit; the edge answers it."""


class Edge:
    """Wraps an application. `limits` maps a path prefix to the most bytes of a body; None: as much as there is."""

    def __init__(self, app: ASGIApp, limits: Mapping[str, int | None]) -> None:
        self.app = app
        self.limits = limits

    def limit(self, path: str) -> int | None:
        """The limit of the longest prefix that fits."""
        fitting = [p for p in self.limits if path == p or path.startswith(p.rstrip("/") + "/")]
        return self.limits[max(fitting, key=len)] if fitting else BODY_MAX

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = clock.monotonic()
        request = _Request(self, scope, receive, send)
        try:
            await request.run()
        finally:
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if scope["method"] in METHODS else "other"
            REQUESTS.labels(method, route, str(request.status)).inc()
            SECONDS.labels(method, route).observe(clock.monotonic() - started)


class _Request:
    """One request on its way through the edge."""

    def __init__(self, edge: Edge, scope: Scope, receive: Receive, send: Send) -> None:
        self.edge, self.scope, self._receive, self._send = edge, scope, receive, send
        self.limit: int | None = None
        self.received = 0
        self.waited_s = 0.0
        """For the client, to send the body."""
        self.sent = 0
        self.sending_s = 0.0
        self.status = 0
        self.streaming = False

    async def run(self) -> None:
        scope = self.scope
        if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > TARGET_MAX:
            await problem(414, "The address is too long")(scope, self._receive, self.send)
            return
        receive = self._receive
        if scope["method"] not in ("GET", "HEAD"):
            self.limit = self.edge.limit(scope["path"])
            if self.limit is not None and _content_length(scope) > self.limit:
                await self.refuse()
                return
            receive = self.receive
        try:
            await self.edge.app(scope, receive, self.send)
        except BodyTooLarge:
            await self.refuse()
        except TimeoutError:
            if self.status:
                raise
            await problem(408, "The request took too long")(scope, self._receive, self.send)
        except Exception as error:
            if self.status:
                raise  # the server logs it and closes the connection
            log.error("request failed", error=error, status=500)
            await problem(500, "The archive found a fault of its own")(scope, self._receive, self.send)

    async def refuse(self) -> None:
        """413, after reading a little of what is still coming; of a body that is yet to be asked for, nothing."""
        discarded = 0 if self.received or not _expects(self.scope) else DISCARD_MAX
        try:
            async with asyncio.timeout(1.0):
                while discarded < DISCARD_MAX:
                    message = await self._receive()
                    discarded += len(message.get("body", b""))
                    if message["type"] == "http.disconnect" or not message.get("more_body"):
                        break
        except TimeoutError:
            pass  # it sends slowly: it gets its answer now
        answer = problem(413, "The request is too large", headers={"Connection": "close"}, limit_bytes=self.limit)
        await answer(self.scope, self._receive, self.send)

    async def receive(self) -> Message:
        started = clock.monotonic()
        async with asyncio.timeout(min(IDLE_S, IDLE_S + self.received / SLOWEST - self.waited_s)):
            message = await self._receive()
        self.waited_s += clock.monotonic() - started
        self.received += len(message.get("body", b""))
        if self.limit is not None and self.received > self.limit:
            raise BodyTooLarge
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        self.streaming = self.streaming or message.get("more_body", False)
        if not self.streaming:
            # A head and a body of one piece wait for nobody: the server takes them as they are.
            await self._send(message)
            return
        started = clock.monotonic()
        async with asyncio.timeout(min(IDLE_S, IDLE_S + self.sent / SLOWEST - self.sending_s)):
            await self._send(message)
        self.sending_s += clock.monotonic() - started
        self.sent += len(message.get("body", b""))


def _expects(scope: Scope) -> bool:
    """Whether the client waits to be told to go on (RFC 9110 §10.1.1): reading would tell it."""
    return any(k == b"expect" and v.lower() == b"100-continue" for k, v in scope["headers"])


def _content_length(scope: Scope) -> int:
    text = next((v for k, v in scope["headers"] if k == b"content-length"), b"0")
    return int(text) if text.isdigit() else 0
