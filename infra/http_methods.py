"""HEAD and OPTIONS, for all routes alike: one ASGI middleware behind who calls and how often they may.

HEAD is wherever GET is (RFC 9110 §9.3.2): the route answers as it would a GET, its access event included, and nothing
of the body leaves. A route that makes a body piece by piece finds `HEAD_KEY` in its scope and need not begin.

OPTIONS below the DICOMweb base is the Retrieve Capabilities transaction (PS3.18 §8.9): it describes routes and shows
nothing of any patient, so anybody may ask, as for `/openapi.json`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from infra.capabilities import BASE, Capabilities, Operation, Parameter
from infra.http_problems import problem

HEAD_KEY: Final = "sijil.head"


def is_head(scope: Scope) -> bool:
    """Whether the head of the answer is all that is wanted."""
    return bool(scope.get(HEAD_KEY))


class Methods:
    """Wraps the routes. `capabilities` are made when they are first asked for: then all routes are there."""

    def __init__(self, app: ASGIApp, capabilities: Callable[[], Capabilities]) -> None:
        self.app, self._capabilities = app, capabilities

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "HEAD":
            await self._head(scope, receive, send)
        elif scope["type"] == "http" and scope["method"] == "OPTIONS" and _below_base(scope["path"]):
            await self._described(scope)(scope, receive, send)
        elif scope["type"] == "http":
            await self._other(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A 405 tells all methods of the address (RFC 9110 §15.5.6): a route knows only its own."""

        async def allowed(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 405:
                headers = [(k, v) for k, v in message.get("headers", ()) if k.lower() != b"allow"]
                told = b",".join(v for k, v in message.get("headers", ()) if k.lower() == b"allow").decode("latin-1")
                methods = {m.strip() for m in told.split(",")} - {""}
                if _below_base(scope["path"]):
                    methods.update(self._capabilities().allow(scope["path"]))
                if "GET" in methods:
                    methods.add("HEAD")
                message = {**message, "headers": [*headers, (b"allow", ", ".join(sorted(methods)).encode("latin-1"))]}
            await send(message)

        await self.app(scope, receive, allowed)

    async def _head(self, scope: Scope, receive: Receive, send: Send) -> None:
        inner: Scope = {**scope, "method": "GET", HEAD_KEY: True}
        ended = False

        async def without_body(message: Message) -> None:
            nonlocal ended
            if message["type"] == "http.response.start":
                await send(message)
            elif not ended:
                ended = True
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        try:
            await self.app(inner, receive, without_body)
        finally:
            if "route" in inner:
                scope["route"] = inner["route"]  # for the edge's figures

    def _described(self, scope: Scope) -> Response:
        accept = next((v.decode("latin-1") for k, v in scope["headers"] if k == b"accept"), "")
        host = next((v.decode("latin-1") for k, v in scope["headers"] if k == b"host"), "localhost")
        made = self._capabilities().answer(f"{scope['scheme']}://{host}", scope["path"], accept)
        if made is None:
            return problem(404, "There is no such resource")
        if not made.media_type:
            return problem(406, "Capabilities are described as application/vnd.sun.wadl+xml or application/json")
        headers = {"Allow": ", ".join(made.allow), "Vary": "Accept"}
        return Response(made.content, headers=headers, media_type=made.media_type)


def operations(app: FastAPI) -> list[Operation]:
    """What the routes below the DICOMweb base say of themselves."""
    found = []
    for route in app.routes:
        if isinstance(route, APIRoute) and route.path.startswith(BASE + "/"):
            said = route.openapi_extra or {}
            parameters = [
                Parameter(p["name"], p["description"], p["in"])
                for p in said.get("parameters", ())
                if p["in"] in ("query", "header")
            ]
            takes = tuple(said.get("requestBody", {}).get("content", ()))
            gives = tuple(route.responses.get(200, {}).get("content", ()))
            path = route.path.removeprefix(BASE)
            summary, methods = route.summary or "", sorted(route.methods or ())
            found += [Operation(m, path, summary, parameters, takes, gives) for m in methods]
    return found


def _below_base(path: str) -> bool:
    return path.rstrip("/") == BASE or path.startswith(BASE + "/")
