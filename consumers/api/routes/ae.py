"""`GET /ae`: the AE table, as the door of devices and `sijil ae` keep it; `GET /ae/changes`: who changed what, also of
where notifications may go.
"""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any, Final

import msgspec
from fastapi import FastAPI
from starlette.responses import JSONResponse, Response

from consumers.api import queries
from consumers.api.room import Room
from infra import ae_table, clock
from infra.http_caller import needs
from infra.ports import Row
from schemas.errors import Invalid
from schemas.roles import Permission

PATH: Final = "/ae"
KINDS: Final = ("device", "endpoint")
LIMIT: Final = 100
LIMIT_MAX: Final = 1000
YEARS: Final = 10
_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{8,15}Z\Z")
NO_STORE = {"Cache-Control": "no-store"}
TAG = "Operation"


def add(app: FastAPI, room: Room) -> None:
    """Register the routes."""
    may = [needs(Permission.AE_READ)]

    @app.get(PATH, tags=[TAG], summary="The AE table", dependencies=may)
    async def listed() -> Response:
        rows = await ae_table.read(room.views.tables)
        return JSONResponse({"ae": [asdict(r) for r in rows]}, headers=NO_STORE)

    @app.get(
        f"{PATH}/changes",
        tags=[TAG],
        summary="What was decided of devices (`kind=device`) or of endpoints of subscriptions (`kind=endpoint`)",
        description=f"Newest first, of the last {YEARS} years: who, when, and the device before and after."
        f" `limit`: at most {LIMIT_MAX}; `before`: the `moment` of the last one of the page before.",
        dependencies=may,
    )
    async def changes(kind: str = KINDS[0], limit: str = str(LIMIT), before: str = "") -> Response:
        if kind not in KINDS:
            raise Invalid("option-kind", f"kind is one of {', '.join(KINDS)}")
        if not (limit.isascii() and limit.isdigit() and len(limit) < 5 and 0 < int(limit) <= LIMIT_MAX):
            raise Invalid("option-limit", f"limit must be a number from 1 to {LIMIT_MAX}")
        if before and not _MOMENT.match(before):
            raise Invalid("option-before", "before is the moment of a change")
        newest, rows = clock.now().year, list[Row]()
        for year in range(newest, newest - YEARS, -1):
            rows += await room.views.tables.select(
                queries.register_changes(kind, f"{year:04}", int(limit) - len(rows), before)
            )
            if len(rows) >= int(limit):
                break
        return JSONResponse({"changes": [_shown(r) for r in rows]}, headers=NO_STORE)


def _shown(row: Row) -> dict[str, Any]:
    told = {n: row[n] for n in ("moment", "subject", "what", "actor", "recorded")}
    return told | {n: msgspec.json.decode(row[n]) for n in ("before", "after") if row[n]}
