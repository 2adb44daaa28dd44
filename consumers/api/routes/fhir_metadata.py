"""`GET /fhir/metadata`: what this FHIR door can do. Anybody may ask: it says nothing of anybody."""

from __future__ import annotations

from importlib.metadata import version
from typing import Final

import msgspec
from fastapi import FastAPI, Request
from starlette.responses import Response

from consumers.api.fhir_faces import FhirFaces
from consumers.api.fhir_query import INCLUDES, NATURAL, PARAMETERS, REVINCLUDES, SORTS
from consumers.api.room import Room
from consumers.fhir.capability import Ability, capability_statement
from consumers.fhir.codes import MEDIA_TYPE
from consumers.fhir.subscription import STATUS_OPERATION, TOPICS
from infra import clock
from infra.http_door import HttpDoor

WRITTEN: Final = {"DiagnosticReport": ("vread",), "ServiceRequest": ("create", "update")}
"""Beside reading and searching; reports are written at `/reports`."""
ELSEWHERE = (
    Ability(
        "AuditEvent",
        ("read", "search-type"),
        {
            "patient": ("reference", "whose data were seen"),
            "agent": ("reference", "who, as an actor"),
            "entity": ("reference", "ImagingStudy/<UID>: which study was seen"),
            "date": ("date", "when it was recorded"),
        },
        about="who saw what; one of patient, agent, entity and date",
    ),
    Ability(
        "Practitioner",
        ("read", "create", "update", "search-type"),
        {"identifier": ("token", "<system>|<number> of the person")},
    ),
    Ability(
        "PractitionerRole",
        ("read", "create", "update", "search-type"),
        {"practitioner": ("reference", "of whom"), "location": ("reference", "Location/<site>: who is there")},
    ),
    Ability(
        "Subscription",
        ("create", "read", "update", "delete", "search-type"),
        {
            "_id": ("token", "id of the subscription"),
            "status": ("token", "requested, active, error or off"),
            "criteria": ("uri", "canonical of a topic"),
        },
        about="With topics (Subscriptions R5 Backport): rest-hook, id-only, to endpoints that were approved. "
        + "; ".join(f"{topic}: {about}" for topic, about in TOPICS.items()),
        operations={"status": STATUS_OPERATION},
        topics=tuple(TOPICS),
    ),
)
"""What other routes of this door answer."""


def add(app: FastAPI, door: HttpDoor, room: Room) -> None:
    """Register the route, and make what goes wrong under /fhir an OperationOutcome."""
    app.add_middleware(FhirFaces)
    door.gate.open("/fhir/metadata")
    made = clock.rfc3339(clock.now())
    abilities = [_ability(resource) for resource in PARAMETERS] + list(ELSEWHERE)

    @app.get("/fhir/metadata", tags=["FHIR"], summary="CapabilityStatement (FHIR R4)")
    async def metadata(request: Request) -> Response:
        base = room.settings.http_public_url.rstrip("/") or str(request.base_url).rstrip("/")
        found = capability_statement(abilities, base=f"{base}/fhir", version=version("sijil"), date=made)
        return Response(msgspec.json.encode(found), media_type=MEDIA_TYPE)


def _ability(resource: str) -> Ability:
    includes = [f"{resource}:{name}" for name in INCLUDES[resource]]
    told = "_sort where the result is known whole: " + ", ".join(f"{n}, -{n}" for n in SORTS[resource])
    if resource in NATURAL:
        told += f"; of a list that is read by pages {NATURAL[resource]} alone"
    about = (f"{told}. " if SORTS[resource] else "") + "_count, _summary=count and _elements everywhere."
    interactions = ("read", *WRITTEN.get(resource, ()), "search-type")
    return Ability(resource, interactions, PARAMETERS[resource], includes, about, tuple(REVINCLUDES.get(resource, ())))
