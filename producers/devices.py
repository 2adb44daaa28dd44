"""Devices: `POST /ae` and `DELETE /ae` change the AE table, as `sijil ae` does. A decision about it is an event.

1. What is wrong is refused, and nothing is said; what is there already is no change.
2. The event is durable (`infra.durable`): who decided, when, what was and what is.
3. The table, which the doors read, holds it.
A crash between 2 and 3 leaves a decision on the log that the table does not hold; who decided has no answer, asks
again, and the log says so again. What opens the archive to whoever calls (the title `*`, the role `any`) is the
operator's alone, by the command.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict, replace
from typing import Final

import msgspec
from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from infra import ae_table, clock
from infra.ae_table import ANY, GIVEN, Ae
from infra.chain import Publishes
from infra.durable import ACKNOWLEDGED_S, durable
from infra.http_caller import caller_of, needs
from infra.http_door import HttpDoor
from infra.ports import Tables
from schemas.errors import Invalid, NotFound
from schemas.events import Device, DeviceChanged, DeviceRegistered, DeviceRemoved, Event
from schemas.roles import Permission

PATH: Final = "/ae"
TAG: Final = "Operation"


class Devices:
    """Changes the AE table, one change after the other. Raises Transient, Overloaded."""

    def __init__(self, chain: Publishes, *, acknowledged_s: float = ACKNOWLEDGED_S) -> None:
        self._chain, self._acknowledged_s = chain, acknowledged_s
        self._one = asyncio.Lock()

    async def put(self, tables: Tables, ae: Ae, actor: str) -> bool:
        """Add it, or replace the one of its title; False: it is as it was. Raises Invalid."""
        ae_table.checked(ae)
        async with self._one:
            found = await _found(tables, ae.ae_title)
            if found == ae:
                return False
            said = {"ae_title": ae.ae_title, "actor": actor, "recorded": clock.rfc3339(clock.now())}
            if found is None:
                await self._say(DeviceRegistered(**said, after=_device(ae)))
            else:
                await self._say(DeviceChanged(**said, before=_device(found), after=_device(ae)))
            await ae_table.add(tables, ae)
        return True

    async def remove(self, tables: Tables, title: str, actor: str, *, operator: bool = False) -> None:
        """Take the one of a title away. Raises NotFound; Invalid for what is the operator's."""
        async with self._one:
            found = await _found(tables, title)
            if found is None:
                raise NotFound("no AE of this title is in the table")
            if not operator:
                _not_the_operator_s(found)
            now = clock.rfc3339(clock.now())
            await self._say(DeviceRemoved(ae_title=title, actor=actor, recorded=now, before=_device(found)))
            await ae_table.remove(tables, title)

    async def _say(self, event: Event) -> None:
        await asyncio.to_thread(durable, self._chain, event, acknowledged_s=self._acknowledged_s)


async def _found(tables: Tables, title: str) -> Ae | None:
    return next((a for a in await ae_table.read(tables) if a.ae_title == title), None)


def _device(ae: Ae) -> Device:
    return Device(**{name: value for name, value in asdict(ae).items() if name != "ae_title"})


def register(app: FastAPI, http: HttpDoor) -> None:
    """Add the doors."""
    devices = Devices(http.chain)
    may = [needs(Permission.AE_WRITE)]
    schema = {"requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}}

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
        await devices.put(http.identity.tables(), ae, caller_of(request).actor)
        return JSONResponse(asdict(ae), 201, {"Cache-Control": "no-store"})

    @app.delete(
        PATH, tags=[TAG], summary="Remove the AE of a `title`: it may call no more", status_code=204, dependencies=may
    )
    async def remove(request: Request, title: str = "") -> Response:
        await devices.remove(http.identity.tables(), title, caller_of(request).actor)
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
