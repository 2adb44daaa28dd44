"""`/ae`: the AE table, as `sijil ae` keeps it. What opens the archive to whoever calls (the title `*`, the role `any`)
is the operator's alone, by the command.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Final

import msgspec
from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from consumers.api.room import Room
from infra import ae_table, telemetry
from infra.ae_table import ANY, GIVEN, Ae
from infra.http_caller import needs
from schemas.errors import Invalid, NotFound
from schemas.roles import Permission

log = telemetry.logger(__name__)

PATH: Final = "/ae"
NO_STORE = {"Cache-Control": "no-store"}
TAG = "Operation"


def add(app: FastAPI, room: Room) -> None:
    """Register the routes."""
    may = [needs(Permission.AE_WRITE)]
    schema = {"requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}}

    @app.get(PATH, tags=[TAG], summary="The AE table", dependencies=[needs(Permission.AE_READ)])
    async def listed() -> Response:
        rows = await ae_table.read(room.views.tables)
        return JSONResponse({"ae": [asdict(r) for r in rows]}, headers=NO_STORE)

    @app.post(
        PATH,
        tags=[TAG],
        summary="Add a DICOM application entity, or replace the one of its title",
        description="`ae_title`, `host` (address, name or network), `port` (0: nothing is sent to it), `role` (one of"
        f" {', '.join(GIVEN)}), `site`, `issuer`, `certificate` (SHA-256), `tls`. The doors know it within seconds.",
        status_code=201,
        dependencies=may,
        openapi_extra=schema,
    )
    async def put(request: Request) -> Response:
        ae = _entity(await request.body())
        await ae_table.add(room.views.tables, ae)
        log.info("ae changed", ae_title=ae.ae_title, role=ae.role)
        return JSONResponse(asdict(ae), 201, NO_STORE)

    @app.delete(
        PATH, tags=[TAG], summary="Remove the AE of a `title`: it may call no more", status_code=204, dependencies=may
    )
    async def remove(title: str = "") -> Response:
        tables = room.views.tables
        found = next((a for a in await ae_table.read(tables) if a.ae_title == title), None)
        if found is None:
            raise NotFound("no AE of this title is in the table")
        _not_the_operator_s(found)
        await ae_table.remove(tables, title)
        log.info("ae removed", ae_title=title)
        return Response(status_code=204)


def _entity(body: bytes) -> Ae:
    """Raises Invalid(`ae-…`)."""
    try:
        given = msgspec.json.decode(body, type=Ae)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise Invalid(
            "ae-body", "ae_title, host and port are needed, and of role, site, issuer, certificate, tls"
        ) from e
    ae = ae_table.checked(replace(given, certificate=given.certificate.lower().replace(":", "")))
    _not_the_operator_s(ae)
    return ae


def _not_the_operator_s(ae: Ae) -> None:
    if ae.ae_title == ANY or ae.role not in GIVEN:
        raise Invalid(
            "ae-operator", f"the title {ANY} and other roles than {', '.join(GIVEN)}: `sijil ae`, by the operator"
        )
