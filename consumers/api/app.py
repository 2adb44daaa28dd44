"""The query API: what `sijil.http` composes into the HTTP door."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from fastapi import FastAPI, Request
from starlette.responses import Response

from consumers.api.access import refusal
from consumers.api.audit import Audit
from consumers.api.conditional import NotSatisfiable
from consumers.api.decoders import Decoders
from consumers.api.drafts import Drafts
from consumers.api.feed import Feed
from consumers.api.freshness import CORRECTIONS, Freshness
from consumers.api.guard import Guard
from consumers.api.headers import Headers
from consumers.api.invitations import Invitations
from consumers.api.packs import Packs
from consumers.api.read_after import ReadAfter
from consumers.api.rendering import Renderer
from consumers.api.retrieve import Retriever
from consumers.api.room import Room
from consumers.api.routes import (
    accesses,
    administration,
    ae,
    arrivals,
    audit_events,
    changes,
    corrections,
    criticals,
    deliveries,
    drafts,
    emergency,
    emergency_search,
    fhir_metadata,
    fhir_orders,
    fhir_patients,
    fhir_reports,
    fhir_studies,
    fhir_subscriptions,
    inbox,
    invitations,
    linking,
    orders,
    papers,
    people,
    printed,
    reading,
    referrers,
    rendered,
    retrieve,
    search,
    subscription_endpoints,
    timeline,
    times,
    waiting,
)
from consumers.api.slips import SlipPins
from consumers.api.standing import Standing
from consumers.api.views import Views
from consumers.api.wado import NotAcceptable
from consumers.api.window_counts import WindowCounts
from consumers.committed import OnLoop, ReadModels
from infra import messages
from infra.cassandra import CassandraTables
from infra.http_door import HttpDoor, problem
from infra.spooled import Spooled
from schemas.caller import Caller
from schemas.roles import Permission


def register(app: FastAPI, door: HttpDoor) -> None:
    """Add the query API to the door."""
    decoders = Decoders()

    async def end_decoders() -> None:
        await asyncio.to_thread(decoders.close)

    door.on_stop(end_decoders)
    counts = WindowCounts.of(door.settings, "api")
    add(app, door, Views(lambda: CassandraTables.connect(door.settings)), decoders, counts)


def add(app: FastAPI, door: HttpDoor, views: Views, decoders: Decoders, counts: WindowCounts | None = None) -> None:
    """The same on given read models, with given decoders and counts of access windows."""
    settings = door.settings
    freshness = Freshness(door.log, views)
    audit = Audit(
        door.chain,
        door.objects,
        bucket=settings.bucket_documents,
        search_secret=bytes.fromhex(settings.search_secret),
        window_s=settings.access_window_s,
        counts=counts,
    )
    packs = Packs(views, door.objects, Spooled(settings.spool(role) / "packs" for role in ("api", "gateway")))
    room = Room(settings, views, door.objects, Retriever(packs, decoders))
    door.identity.tables = lambda: views.tables
    audit.whose = room.owners

    async def denied(caller: Caller, permission: str, reason: str, study_uid: str, patient_key: str) -> str:
        return await audit.denied(caller, permission.replace(".", "-"), reason, study_uid, patient_key)

    async def within(caller: Caller, permission: Permission, study_uids: Sequence[str], key: str) -> str:
        if permission is Permission.STUDY_STORE:  # whoever sends is told nothing of what is there
            return ""
        reach = await room.scopes.reach(caller, permission)
        outside = study_uids and await room.scopes.outside(reach, study_uids)
        return "scope" if outside or (key and await room.scopes.keeps_out(reach, key)) else ""

    standing = Standing(lambda: views.tables)
    door.gate.denied, door.gate.within, door.gate.refusal = denied, within, refusal
    door.gate.standing, door.gate.narrowed = standing.why_not, standing.narrowed
    emergency.add(app, room, audit)
    guard = Guard(app, audit, freshness, ReadAfter(views, settings.read_wait_s), room.scopes, standing)
    emergency_search.add(guard, room)
    search.add(guard, room)
    retrieve.add(guard, room, Headers(packs), packs)
    rendered.add(guard, room, Renderer(packs, decoders))
    papers.add(guard, room)
    printed.add(app, guard, room, decoders)
    accesses.add(guard, room)
    audit_events.add(guard, room)
    corrections.add(guard, room)
    criticals.add(guard, room)
    times.add(guard, room)
    arrivals.add(guard, room)
    administration.add(guard, room)
    ae.add(app, room)
    people.add(app, room)
    referrers.add(app, room)
    deliveries.add(app, room)
    waiting.add(app, guard, room)
    orders.add(guard, room)
    written = Drafts(lambda: views.tables)
    drafts.add(app, guard, room, written)
    reading.add(guard, room, written, packs)
    inbox.add(guard, room)
    fhir_metadata.add(app, door, room)
    fhir_patients.add(guard, room)
    fhir_studies.add(app, guard, room)
    fhir_reports.add(guard, room)
    fhir_orders.add(guard, room)
    fhir_subscriptions.add(app, room)
    subscription_endpoints.add(app, room, door.chain)
    timeline.add(guard, room)
    linking.add(guard, room)
    messenger = messages.messenger(settings)
    links = Invitations(
        settings, lambda: views.tables, audit, messenger, SlipPins(door.objects, settings.bucket_documents)
    )
    door.gate.authenticators.append(invitations.PatientCookie(links.sessions))
    invitations.add(app, guard, room, links, messenger)
    freshness.watch(CORRECTIONS, room.forget)
    changes.add(guard, room, Feed(door.log), lambda: door.stopping)

    async def not_acceptable(request: Request, error: Exception) -> Response:
        return problem(406, "This cannot be answered in a form the client takes", str(error))

    async def not_satisfiable(request: Request, error: Exception) -> Response:
        size = error.size if isinstance(error, NotSatisfiable) else 0
        return problem(416, "No byte of the range is there", headers={"Content-Range": f"bytes */{size}"})

    app.add_exception_handler(NotAcceptable, not_acceptable)
    app.add_exception_handler(NotSatisfiable, not_satisfiable)
    on_loop = OnLoop()
    door.committed = ReadModels(on_loop.call, views, door.log)
    door.on_start(on_loop.start)
    for part in (views, freshness, audit):
        door.on_start(part.start)
        door.on_stop(part.stop)
    door.readiness("cassandra", lambda: views.reachable)
    door.backlog("lag", freshness.events)
