"""`/subscription-endpoints`: where notifications may go. An administrator says so, and takes it back."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec
from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from consumers.api.room import Room
from consumers.delivery.subscriptions.endpoint import checked
from consumers.delivery.subscriptions.store import Store
from infra import clock
from infra.chain import Publishes
from infra.durable import durable
from infra.http_caller import caller_of, needs
from schemas.errors import Invalid, NotFound
from schemas.events import EndpointApproved, EndpointWithdrawn
from schemas.roles import Permission
from schemas.tables import STATE_KEYSPACE

PATH: Final = "/subscription-endpoints"
MAX: Final = 200


class Prefix(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What addresses of endpoints begin with: scheme, host, port, and a path or its beginning."""

    prefix: str


def add(app: FastAPI, room: Room, chain: Publishes) -> None:
    """Register the routes. What is decided is an event, durable before it holds; what holds already is no decision."""
    may = [needs(Permission.SUBSCRIPTION_APPROVE)]
    schema = {"requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}}

    def store() -> Store:
        return Store(room.views.tables.with_keyspace(STATE_KEYSPACE))

    async def say(kind: type[EndpointApproved | EndpointWithdrawn], prefix: str, actor: str) -> None:
        event = kind(prefix=prefix, actor=actor, recorded=clock.rfc3339(clock.now()))
        await asyncio.to_thread(durable, chain, event)

    @app.get(PATH, tags=["Subscriptions"], summary="Where notifications may go", dependencies=may)
    async def listed() -> Response:
        found = [
            {"prefix": r["prefix"], "approved_by": r["approved_by"] or "", "approved": clock.rfc3339(r["approved"])}
            for r in await store().endpoints()
        ]
        return JSONResponse({"endpoints": found}, headers={"Cache-Control": "no-store"})

    @app.post(
        PATH,
        tags=["Subscriptions"],
        summary="Approve the endpoints whose address begins with {prefix}",
        status_code=201,
        dependencies=may,
        openapi_extra=schema,
    )
    async def approve(request: Request) -> Response:
        prefix, actor = _prefix(await request.body()), caller_of(request).actor
        there = await store().prefixes()
        if prefix not in there:
            if len(there) >= MAX:
                raise Invalid("endpoint-too-many", f"there are {MAX}: take one back that nobody needs")
            await say(EndpointApproved, prefix, actor)
            await store().approve(prefix, actor)
        return JSONResponse({"prefix": prefix, "approved_by": actor}, 201, {"Cache-Control": "no-store"})

    @app.delete(
        PATH,
        tags=["Subscriptions"],
        summary="Take the approval of `prefix` back: within seconds nothing goes there any more",
        status_code=204,
        dependencies=may,
    )
    async def withdraw(request: Request, prefix: str = "") -> Response:
        found = checked(prefix, prefix=True)
        if found not in await store().prefixes():
            raise NotFound("this was not approved")
        await say(EndpointWithdrawn, found, caller_of(request).actor)
        await store().withdraw(found)
        return Response(status_code=204)


def _prefix(body: bytes) -> str:
    try:
        return checked(msgspec.json.decode(body, type=Prefix).prefix, prefix=True)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise Invalid("endpoint-body", 'the body is {"prefix": "https://host/path"}') from e
