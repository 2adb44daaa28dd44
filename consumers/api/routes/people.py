"""Staff: who works at a site, and somebody as FHIR R4 Practitioner and PractitionerRole.

Names and numbers are read from the documents in S3; the read models hold none.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlencode

import msgspec
from fastapi import FastAPI, Request
from starlette.responses import Response

from consumers.api import queries
from consumers.api.beside import person_at
from consumers.api.room import Room
from consumers.fhir.bundle import searchset
from infra.http_caller import needs
from infra.ports import Row
from schemas.errors import Invalid, NotFound
from schemas.people import ROLE_SYSTEM, Person, by_number, has_number, names, number_hash
from schemas.roles import Permission

JSON: Final = "application/json"
FHIR: Final = "application/fhir+json"
LIMIT, LIMIT_MAX = 50, 200
_SITE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")


def add(app: FastAPI, room: Room) -> None:
    """Register the routes."""
    may = [needs(Permission.PEOPLE_READ)]

    @app.get("/people", tags=["People"], summary="The staff of a site", dependencies=may)
    async def people(request: Request) -> Response:
        rows, more = await _of_site(room, _site(request.query_params.get("site", "")), request)
        persons = await people_of(room, rows)
        shown = [_shown(row, person) for row, person in zip(rows, persons, strict=True)]
        return _json({"people": shown, **({"next": more} if more else {})}, JSON)

    @app.get(
        "/fhir/Practitioner",
        tags=["People"],
        summary="Find somebody by `identifier=<system>|<number>`",
        dependencies=may,
    )
    async def find_practitioner(request: Request) -> Response:
        system, bar, value = request.query_params.get("identifier", "").partition("|")
        if not (system and bar and value):
            raise Invalid("option-identifier", "identifier is `<system>|<number>`; for a list: GET /people?site=")
        secret = bytes.fromhex(room.settings.search_secret)
        digest = number_hash(secret, system, value)
        keys = await asyncio.to_thread(
            lambda: list(room.objects.list(room.settings.bucket_documents, by_number(digest)))
        )
        found = await room.views.tables.select_many([queries.person(k.rpartition("/")[2]) for k in keys])
        rows = [rows[0] for rows in found if rows]
        persons = await people_of(room, rows)
        return _bundle(room, request, [practitioner(p) for p in persons if has_number(secret, p, digest)])

    @app.get("/fhir/Practitioner/{person}", tags=["People"], summary="Somebody (FHIR R4)", dependencies=may)
    async def get_practitioner(person: str) -> Response:
        row = await _row(room, person)
        return _json(practitioner((await people_of(room, [row]))[0]), FHIR, row)

    @app.get(
        "/fhir/PractitionerRole",
        tags=["People"],
        summary="What somebody does (`practitioner=Practitioner/<id>`), or who is at a site (`location=…`)",
        dependencies=may,
    )
    async def find_role(request: Request) -> Response:
        if named := request.query_params.get("practitioner"):
            rows = await room.views.tables.select(queries.person(_id(named.removeprefix("Practitioner/"))))
            return _bundle(room, request, [practitioner_role(r) for r in rows if r["roles"]])
        site = _site(request.query_params.get("location", "").removeprefix("Location/"))
        rows, more = await _of_site(room, site, request)
        return _bundle(room, request, [practitioner_role(r) for r in rows if r["roles"]], more)

    @app.get(
        "/fhir/PractitionerRole/{person}", tags=["People"], summary="What somebody does (FHIR R4)", dependencies=may
    )
    async def get_role(person: str) -> Response:
        row = await _row(room, person)
        if not row["roles"]:
            raise NotFound("no role of this person is known")
        return _json(practitioner_role(row), FHIR, row)


async def _of_site(room: Room, site: str, request: Request) -> tuple[list[Row], str]:
    """Those who are of a site now, and from where on there are more; empty: there are none."""
    text = request.query_params.get("limit", str(LIMIT))
    if not (text.isascii() and text.isdigit() and len(text) < 6 and 0 < int(text) <= LIMIT_MAX):
        raise Invalid("option-limit", f"limit must be a number from 1 to {LIMIT_MAX}")
    start = request.query_params.get("start", "")
    listed = await room.views.tables.select(queries.people_of(site, start and _id(start), int(text) + 1))
    ids = [r["person_id"] for r in listed]
    found = await room.views.tables.select_many([queries.person(i) for i in ids[: int(text)]])
    more = ids[int(text)] if len(ids) > int(text) else ""
    return [rows[0] for rows in found if rows and site in (rows[0]["sites"] or ())], more


async def _row(room: Room, person: str) -> Row:
    rows = await room.views.tables.select(queries.person(_id(person)))
    if not rows:
        raise NotFound("this person is not known, or not yet")
    return rows[0]


async def people_of(room: Room, rows: Sequence[Row]) -> list[Person]:
    """Who they are, as their documents say."""
    return list(await asyncio.gather(*(asyncio.to_thread(person_at, room.objects, r) for r in rows)))


def practitioner(person: Person) -> dict[str, Any]:
    """FHIR R4 Practitioner."""
    meta = {"versionId": str(person.version), "lastUpdated": person.recorded}
    return {**person.practitioner, "id": person.person_id, "meta": meta, "active": person.present}


def practitioner_role(row: Row) -> dict[str, Any]:
    """FHIR R4 PractitionerRole."""
    return {
        "resourceType": "PractitionerRole",
        "id": row["person_id"],
        "meta": {"versionId": str(row["version"]), "lastUpdated": row["recorded"]},
        "active": bool(row["active"]),
        "practitioner": {"reference": f"Practitioner/{row['person_id']}"},
        "code": [{"coding": [{"system": ROLE_SYSTEM, "code": r}]} for r in row["roles"] or ()],
        "location": [{"reference": f"Location/{s}"} for s in row["sites"] or ()],
        "specialty": [{"coding": [{"code": c}]} for c in row["subspecialties"] or ()],
    }


def _shown(row: Row, person: Person) -> dict[str, Any]:
    return {
        "person_id": row["person_id"],
        "names": names(person),
        "active": bool(row["active"]),
        "roles": list(row["roles"] or ()),
        "sites": list(row["sites"] or ()),
        "subspecialties": list(row["subspecialties"] or ()),
        "version": row["version"],
        "recorded": row["recorded"],
    }


def _bundle(room: Room, request: Request, resources: Sequence[dict[str, Any]], more: str = "") -> Response:
    origin = room.settings.http_public_url.rstrip("/") or str(request.base_url).rstrip("/")
    pairs = request.query_params.multi_items()
    here = f"{origin}{request.url.path}"
    next_url = f"{here}?{urlencode([*((n, v) for n, v in pairs if n != 'start'), ('start', more)])}" if more else ""
    self_url = f"{here}?{urlencode(pairs)}" if pairs else here
    return _json(searchset(resources, [], base=f"{origin}/fhir", here=self_url, next=next_url), FHIR)


def _json(document: Any, media_type: str, row: Row | None = None) -> Response:
    headers = {"Cache-Control": "no-store", **({"ETag": f'W/"{row["version"]}"'} if row else {})}
    return Response(msgspec.json.encode(document), headers=headers, media_type=media_type)


def _site(text: str) -> str:
    if not _SITE.match(text):
        raise Invalid("option-site", "say which site: /people?site=<site>, or location=Location/<site>")
    return text


def _id(text: str) -> str:
    if not _SITE.match(text):
        raise Invalid("person-id", "this is no person id")
    return text
