"""The archive's API as the pages ask it: the same routes, in this process, for the same caller.

A page has no other source. What it shows has left the API through a guarded route, which has decided by the caller's
role and scope and made the access event durable; what it changes goes in by the door that everybody uses. The call
begins behind the edge (limits, sessions): those are of the request that the page came in by.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from fastapi import FastAPI
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from schemas.caller import Caller

_PASSED_ON = (b"host", b"user-agent")


@dataclass
class Told:
    """An answer of the API."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    def json(self) -> Any:
        """The parsed body; None for none."""
        return msgspec.json.decode(self.body) if self.body else None


class Refused(Exception):
    """The API gave no answer, but a problem: `told` holds it."""

    def __init__(self, told: Told) -> None:
        super().__init__(str(told.status))
        self.told = told


class Inner:
    """The API behind the edge of one application."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._behind: ASGIApp | None = None

    def _stack(self) -> ASGIApp:
        """The router with the application's handlers of errors, made at the first call: all have registered by then."""
        if self._behind is None:
            handlers = self._app.exception_handlers
            self._behind = ExceptionMiddleware(AsyncExitStackMiddleware(self._app.router), handlers=handlers)
        return self._behind

    async def get(self, request: Request, path: str, **options: str) -> Any:
        """Parsed JSON of a GET. Empty options are left out. Raises Refused."""
        told = await self.call(request, "GET", path, options={n: v for n, v in options.items() if v})
        return told.json()

    async def all(self, request: Request, *paths: str) -> list[Any]:
        """The same of several addresses at once; the first refusal counts."""
        return list(await asyncio.gather(*(self.get(request, p) for p in paths)))

    async def post(
        self,
        request: Request,
        path: str,
        document: object,
        *,
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
    ) -> Told:
        """Send JSON. Raises Refused."""
        return await self.call(request, method, path, body=msgspec.json.encode(document), headers=headers)

    async def call(
        self,
        request: Request,
        method: str,
        path: str,
        *,
        options: Mapping[str, str] | None = None,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Told:
        """One request. Raises Refused for a status from 400 on, and whatever nobody caught."""
        told = Told()
        pending = [body]

        async def receive() -> Message:
            if pending:
                return {"type": "http.request", "body": pending.pop(), "more_body": False}
            await asyncio.Event().wait()  # the page's client has not gone: its own connection would tell
            raise AssertionError

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                told.status = message["status"]
                told.headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in message["headers"]}
            elif message["type"] == "http.response.body":
                told.body += message.get("body", b"")

        await self._run(_scope(request, method, path, options or {}, body, headers or {}), receive, send)
        if told.status >= 400:
            raise Refused(told)
        return told

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self._app
        await self._stack()(scope, receive, send)


def _scope(
    request: Request, method: str, path: str, options: Mapping[str, str], body: bytes, more: Mapping[str, str]
) -> Scope:
    raw_path = quote(path, safe="/:@!$&'()*+,;=~-._")
    headers = [(k, v) for k, v in request.scope["headers"] if k in _PASSED_ON]
    headers.append((b"accept", b"application/json, application/dicom+json, application/fhir+json"))
    headers += [(n.lower().encode(), v.encode()) for n, v in more.items()]
    if body:
        headers += [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    return {
        "type": "http",
        "asgi": request.scope.get("asgi", {"version": "3.0"}),
        "http_version": request.scope.get("http_version", "1.1"),
        "method": method,
        "scheme": request.scope.get("scheme", "http"),
        "path": path,
        "raw_path": raw_path.encode(),
        "root_path": "",
        "query_string": urlencode(options).encode(),
        "headers": headers,
        "client": request.scope.get("client"),
        "server": request.scope.get("server"),
        "state": _state(request.scope.get("state", {})),
        "extensions": {},
    }


def _state(state: Mapping[str, Any]) -> dict[str, Any]:
    """The request's own, and that it is a page through which its caller asks."""
    caller: Caller | None = state.get("caller")
    return {**state, "caller": replace(caller, via="page") if caller else None}
