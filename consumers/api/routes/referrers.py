"""`GET /referrers`: doctors by a part of their name, for whoever writes an order.

Names stand in documents in S3 alone. So the staff of the sites that the caller orders for is gone through; what was
read is kept, since a document never changes. Somebody of another site is found by the number on their badge.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

import msgspec
from fastapi import FastAPI, Request
from starlette.responses import Response

from consumers.api import queries
from consumers.api.beside import names, person_at
from consumers.api.room import Room
from infra.http_caller import caller_of, needs
from infra.ports import Row
from schemas.caller import ALL_SITES, Caller
from schemas.errors import Invalid
from schemas.names import fold, fold_tokens
from schemas.people import STAFF_NUMBER_SYSTEM, by_number, has_number, number_hash
from schemas.people import Person as Document
from schemas.roles import Permission, Role

REFERRERS: Final = frozenset({Role.DOCTOR, Role.RADIOLOGIST, Role.RESIDENT})
NAME_MAX: Final = 64
STAFF_MAX: Final = 5000
"""Of a site, whom one question looks at; a university hospital has some two thousand doctors."""
TOLD_MAX: Final = 20
KEPT_MAX: Final = 20_000
AT_ONCE: Final = 16


class Referrer(msgspec.Struct, frozen=True):
    """A doctor as a form offers them."""

    person_id: str
    names: list[str]
    sites: list[str]


def add(app: FastAPI, room: Room) -> None:
    """Register the route."""
    staff = Staff(room)

    @app.get(
        "/referrers",
        tags=["Orders"],
        summary="Doctors by `name` (parts of it, in any order) or staff number, those of the caller's sites first",
        dependencies=[needs(Permission.ORDER_WRITE)],
    )
    async def referrers(request: Request) -> Response:
        text = request.query_params.get("name", "").strip()
        if not text or len(text) > NAME_MAX:
            raise Invalid(
                "option-name", f"name is a part of a name, or a staff number, of at most {NAME_MAX} characters"
            )
        found = await staff.of_name(text, _sites(caller_of(request), room.settings.site))
        found += [r for r in await staff.of_number(text) if r not in found]
        body = {"referrers": found[:TOLD_MAX], "more": len(found) > TOLD_MAX}
        return Response(msgspec.json.encode(body), headers={"Cache-Control": "no-store"}, media_type="application/json")


def fits(text: str, name: str) -> bool:
    """Whether each word that was typed begins a word of a name, however it is spelt. Pure."""
    words = fold_tokens(name)
    return all(any(word.startswith(piece) for word in words) for piece in fold_tokens(text)) and bool(fold(text))


class Staff:
    """Who works at a site, by documents that are kept."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._kept: OrderedDict[str, Document] = OrderedDict()
        self._gate = asyncio.Semaphore(AT_ONCE)

    async def of_name(self, text: str, sites: Sequence[str]) -> list[Referrer]:
        """Those of these sites whose name fits, by name."""
        tables = self._room.views.tables
        listed = await tables.select_many([queries.people_of(site, "", STAFF_MAX) for site in sites])
        ids = dict.fromkeys(row["person_id"] for rows in listed for row in rows)
        answers = await tables.select_many([queries.person(id) for id in ids]) if ids else []
        here = [rows[0] for rows in answers if rows and set(sites) & set(rows[0]["sites"] or ())]
        found = [r for r in await self._referrers(here) if any(fits(text, name) for name in r.names)]
        return sorted(found, key=lambda r: r.names)

    async def of_number(self, text: str) -> list[Referrer]:
        """Who has this person id or staff number, wherever they work."""
        settings, objects = self._room.settings, self._room.objects
        digest = number_hash(bytes.fromhex(settings.search_secret), STAFF_NUMBER_SYSTEM, text)
        keys = await asyncio.to_thread(lambda: list(objects.list(settings.bucket_documents, by_number(digest))))
        ids = dict.fromkeys((text, *(key.rpartition("/")[2] for key in keys)))
        answers = await self._room.views.tables.select_many([queries.person(id) for id in ids])
        rows = [rows[0] for rows in answers if rows]
        documents = await self._documents(rows)
        secret = bytes.fromhex(settings.search_secret)
        meant = [
            row
            for row, person in zip(rows, documents, strict=True)
            if row["person_id"] == text or has_number(secret, person, digest)
        ]
        return await self._referrers(meant)

    async def _referrers(self, rows: Sequence[Row]) -> list[Referrer]:
        able = [r for r in rows if r["active"] and REFERRERS & set(r["roles"] or ())]
        return [
            Referrer(row["person_id"], names(person), list(row["sites"] or ()))
            for row, person in zip(able, await self._documents(able), strict=True)
        ]

    async def _documents(self, rows: Sequence[Row]) -> list[Document]:
        async def one(row: Row) -> Document:
            key = row["document_key"]
            if key not in self._kept:
                async with self._gate:
                    self._kept[key] = await asyncio.to_thread(person_at, self._room.objects, row)
            self._kept.move_to_end(key)
            return self._kept[key]

        found = list(await asyncio.gather(*(one(r) for r in rows)))
        while len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)
        return found


def _sites(caller: Caller, home: str) -> list[str]:
    return sorted(caller.sites - {ALL_SITES}) or [home]
