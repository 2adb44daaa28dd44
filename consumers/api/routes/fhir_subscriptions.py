"""`/fhir/Subscription`: who is notified of what happens (Subscriptions R5 Backport IG for R4).

A subscription is its owner's: whoever has not the whole archive sees and changes their own alone, and others' are not
there for them. The process `delivery` shakes hands and notifies.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final
from urllib.parse import urlencode
from uuid import UUID

import msgspec
from fastapi import FastAPI, Request
from starlette.responses import Response

from consumers.api.room import Room
from consumers.delivery.subscriptions.endpoint import approved, checked
from consumers.delivery.subscriptions.seal import Headers, Seal
from consumers.delivery.subscriptions.store import DELETED, OFF, ON, Progress, Store, Subscription, status
from consumers.fhir.bundle import searchset
from consumers.fhir.codes import MEDIA_TYPE, Resource
from consumers.fhir.notification import About, answer
from consumers.fhir.subscription import Asked, kept, read, resource
from infra import clock
from infra.http_caller import caller_of, needs
from infra.http_problems import problem
from schemas.caller import Caller
from schemas.errors import Invalid, NotFound
from schemas.roles import Permission, Scope, scope_of
from schemas.tables import STATE_KEYSPACE

MAX: Final = 100
"""Subscriptions that are told of something: each follows the log by itself."""
PARAMETERS: Final = frozenset({"_id", "status", "criteria", "_format"})
MEDIA_TYPES: Final = (MEDIA_TYPE, "application/json")
ADDRESS: Final = "/fhir/Subscription/{subscription}"


def add(app: FastAPI, room: Room) -> None:
    """Register the routes."""
    may_read, may_write = [needs(Permission.SUBSCRIPTION_READ)], [needs(Permission.SUBSCRIPTION_WRITE)]
    seal = Seal(room.settings)
    body = {"requestBody": {"required": True, "content": {MEDIA_TYPE: {"schema": {"type": "object"}}}}}

    def store() -> Store:
        return Store(room.views.tables.with_keyspace(STATE_KEYSPACE))

    async def own(request: Request, permission: Permission) -> Subscription:
        id = _id(request.path_params["subscription"])
        found = await store().one(id)
        if found is None or not _is_of(found, caller_of(request), permission):
            raise NotFound("there is no such subscription")
        return found

    def shown(of: Subscription, progress: Progress, prefixes: list[str]) -> Resource:
        code, error = status(of, progress, prefixes, clock.now())
        changed = clock.rfc3339(of.changed)
        return resource(_asked(of, seal), id=of.id, version=of.version, changed=changed, status=code, error=error)

    async def told(of: Subscription, http_status: int = 200) -> Response:
        (progress,) = await store().progress([of.id])
        headers = {"ETag": f'W/"{of.version}"', "Cache-Control": "no-store"}
        if http_status == 201:
            headers["Location"] = f"{room.settings.http_public_url.rstrip('/')}/fhir/Subscription/{of.id}"
        found = shown(of, progress, await store().prefixes())
        return Response(msgspec.json.encode(found), http_status, headers, media_type=MEDIA_TYPE)

    async def sent(request: Request) -> Asked:
        asked = read(await request.body())
        if asked.on and not approved(checked(asked.endpoint), await store().prefixes()):
            raise Invalid(
                "endpoint-not-approved",
                "notifications go only where an administrator has approved: ask one to add this endpoint to"
                " /subscription-endpoints",
            )
        if asked.on and asked.ends is not None and asked.ends <= clock.now():
            raise Invalid("subscription-end", "end is in the past")
        return asked

    @app.post(
        "/fhir/Subscription",
        tags=["FHIR"],
        summary="Subscribe to a topic (FHIR R4 Subscription by the R5 Backport IG)",
        status_code=201,
        dependencies=may_write,
        openapi_extra=body,
    )
    async def create(request: Request) -> Response:
        if not _is_json(request):
            return _unsupported()
        asked = await sent(request)
        now = clock.now()
        if sum(s.lives(now) for s in await store().all()) >= MAX:
            raise Invalid("subscription-too-many", f"there are {MAX} subscriptions: end one that nobody needs")
        sealed = seal.sealed(kept(asked.headers, ()))
        of = _subscription(asked, sealed, id=str(clock.uuid7()), version=1, owner=caller_of(request).actor)
        await store().put(of)
        return await told(of, 201)

    @app.put(
        ADDRESS,
        tags=["FHIR"],
        summary="Change a subscription, switch it off, or (requested) on again",
        dependencies=may_write,
        openapi_extra=body,
    )
    async def change(request: Request) -> Response:
        if not _is_json(request):
            return _unsupported()
        before = await own(request, Permission.SUBSCRIPTION_WRITE)
        if request.headers.get("if-match") not in (None, f'W/"{before.version}"', f'"{before.version}"'):
            return problem(412, "It has changed", f"the version is {before.version}", reason="subscription-version")
        asked = await sent(request)
        if asked.topic != before.topic:
            raise Invalid("subscription-topic", "a subscription keeps its topic: make another one")
        sealed = seal.sealed(kept(asked.headers, _headers(before, seal)))
        of = _subscription(asked, sealed, id=before.id, version=before.version + 1, owner=before.owner)
        if before.lives(of.changed):  # what happened meanwhile is told of, too
            of = replace(of, since=before.since)
        await store().put(of)
        return await told(of)

    @app.delete(ADDRESS, tags=["FHIR"], summary="End a subscription", status_code=204, dependencies=may_write)
    async def end(request: Request) -> Response:
        of = await own(request, Permission.SUBSCRIPTION_WRITE)
        gone = replace(of, wanted=DELETED, sealed="", version=of.version + 1, changed=clock.now())
        await store().put(gone)
        return Response(status_code=204)

    @app.get(ADDRESS, tags=["FHIR"], summary="A subscription and its status (FHIR R4)", dependencies=may_read)
    async def one(request: Request) -> Response:
        return await told(await own(request, Permission.SUBSCRIPTION_READ))

    @app.get("/fhir/Subscription", tags=["FHIR"], summary="Own subscriptions (FHIR R4)", dependencies=may_read)
    async def listed(request: Request) -> Response:
        asked = request.query_params
        if unknown := set(asked) - PARAMETERS:
            raise Invalid("option-unknown", f"not a parameter of this search: {', '.join(sorted(unknown))[:100]}")
        caller = caller_of(request)
        mine = [
            s
            for s in await store().all()
            if s.wanted != DELETED
            and _is_of(s, caller, Permission.SUBSCRIPTION_READ)
            and asked.get("_id", s.id) == s.id
            and asked.get("criteria", s.topic) == s.topic
        ]
        mine.sort(key=lambda s: s.id)
        prefixes, progress = await store().prefixes(), await store().progress([s.id for s in mine])
        found = [shown(s, p, prefixes) for s, p in zip(mine, progress, strict=True)]
        wanted = [r for r in found if r["status"] in asked.get("status", r["status"]).split(",")]
        base = f"{_base(room, request)}/fhir"
        here = f"{base}/Subscription" + (f"?{urlencode(asked.multi_items())}" if asked else "")
        page = searchset(wanted, [], base=base, here=here, total=len(wanted))
        return Response(msgspec.json.encode(page), headers={"Cache-Control": "no-store"}, media_type=MEDIA_TYPE)

    @app.get(
        f"{ADDRESS}/$status", tags=["FHIR"], summary="How a subscription stands, as Parameters", dependencies=may_read
    )
    async def stands(request: Request) -> Response:
        of = await own(request, Permission.SUBSCRIPTION_READ)
        (progress,) = await store().progress([of.id])
        code, error = status(of, progress, await store().prefixes(), clock.now())
        base = f"{_base(room, request)}/fhir"
        about = About(base, of.id, of.topic, code, progress.number, error)
        found = answer(about, f"{about.address}/$status")
        return Response(msgspec.json.encode(found), headers={"Cache-Control": "no-store"}, media_type=MEDIA_TYPE)


def _subscription(asked: Asked, sealed: str, *, id: str, version: int, owner: str) -> Subscription:
    now = clock.now()
    return Subscription(
        id,
        version,
        owner,
        ON if asked.on else OFF,
        asked.topic,
        asked.endpoint,
        asked.reason,
        sealed,
        asked.heartbeat_s,
        asked.timeout_s,
        asked.ends,
        since=now,
        changed=now,
    )


def _asked(of: Subscription, seal: Seal) -> Asked:
    headers = _headers(of, seal)
    return Asked(of.topic, of.endpoint, of.wanted == ON, of.reason, headers, of.heartbeat_s, of.timeout_s, of.ends)


def _headers(of: Subscription, seal: Seal) -> Headers:
    """Empty where they were sealed with another key: the status says so, and whoever owns it sends them again."""
    try:
        return seal.opened(of.sealed)
    except Invalid:
        return ()


def _is_of(of: Subscription, caller: Caller, permission: Permission) -> bool:
    return scope_of(caller.role, permission) is Scope.WHOLE or of.owner == caller.actor


def _id(text: str) -> str:
    try:
        return str(UUID(text))
    except ValueError as e:
        raise NotFound("there is no such subscription") from e


def _base(room: Room, request: Request) -> str:
    return room.settings.http_public_url.rstrip("/") or str(request.base_url).rstrip("/")


def _is_json(request: Request) -> bool:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() in MEDIA_TYPES


def _unsupported() -> Response:
    return problem(415, "This type is not taken", f"send {MEDIA_TYPE}", reason="media-type")
