"""`GET /referrers`, `GET /colleagues`: doctors of the whole archive by a part of their name or their staff number, for
whoever writes an order, shares a study, or names a contact or a signer.

The words of the names are a read model, folded and as they sound, so that أحمد is found by Ahmed; what is shown stands
in documents in S3. What was read is kept, since a document never changes.
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
from consumers.api.beside import person_at
from consumers.api.room import Room
from infra.http_caller import caller_of, needs
from infra.ports import Row
from schemas.caller import ALL_SITES, Caller
from schemas.errors import Invalid
from schemas.names import PREFIX_LENGTH, fold_tokens
from schemas.people import STAFF_NUMBER_SYSTEM, by_number, has_number, names, number_hash
from schemas.people import Person as Document
from schemas.roles import Permission, Role
from schemas.sounds import Asked, alike, asked, spoken

REFERRERS: Final = frozenset({Role.DOCTOR, Role.RADIOLOGIST, Role.RESIDENT})
NAME_MAX: Final = 64
NAMED_MAX: Final = 1000
"""Of a word, who have it; more, and the other words decide."""
LOOKED_AT: Final = 200
"""Of whom the documents are read."""
WORDS_MAX: Final = 8
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

    async def told(request: Request) -> Response:
        text = request.query_params.get("name", "").strip()
        if not text or len(text) > NAME_MAX:
            raise Invalid(
                "option-name", f"name is a part of a name, or a staff number, of at most {NAME_MAX} characters"
            )
        found, more = await staff.of_name(text, _sites(caller_of(request), room.settings.site))
        found += [r for r in await staff.of_number(text) if r not in found]
        body = {"referrers": found[:TOLD_MAX], "more": more or len(found) > TOLD_MAX}
        return Response(msgspec.json.encode(body), headers={"Cache-Control": "no-store"}, media_type="application/json")

    for path, permission, whom in (
        ("/referrers", Permission.ORDER_WRITE, "of an order"),
        ("/colleagues", Permission.REPORT_DRAFT, "to be told, to sign or to share with"),
    ):
        app.add_api_route(
            path,
            told,
            methods=["GET"],
            name=path[1:],
            tags=["People"],
            summary=f"Doctors {whom} by `name` (parts of it, in any order and script) or staff number, those of the"
            " caller's sites first",
            dependencies=[needs(permission)],
        )


def fits(wanted: Sequence[Asked], name: str) -> bool:
    """Whether each word that was typed begins a word of a name, however it is spelt, or sounds like it. Pure."""
    written, heard = fold_tokens(name), spoken(name)

    def there(word: Asked) -> bool:
        if all(any(w.startswith(piece) for w in written) for piece in word.heard.words):
            return True
        return any(alike(word.heard, s, begins=word.begins) for s in heard)

    return bool(wanted) and all(there(word) for word in wanted)


def words_of(text: str) -> tuple[Asked, ...]:
    """What was typed, each word the beginning of one of a name. Pure."""
    return asked(" ".join(f"{word}*" for word in fold_tokens(text)))


class Staff:
    """Who works here, by documents that are kept."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._kept: OrderedDict[str, Document] = OrderedDict()
        self._gate = asyncio.Semaphore(AT_ONCE)

    async def of_name(self, text: str, sites: Sequence[str]) -> tuple[list[Referrer], bool]:
        """Those whose name fits, who are of these sites first, by name; and whether not all were looked at."""
        wanted = words_of(text)
        ids, cut = await self._called(wanted)
        answers = await self._room.views.tables.select_many([queries.person(id) for id in ids]) if ids else []
        rows = sorted((r[0] for r in answers if r and _is_able(r[0])), key=lambda row: _elsewhere(row["sites"], sites))
        found = [r for r in await self._referrers(rows[:LOOKED_AT]) if any(fits(wanted, name) for name in r.names)]
        shown = sorted(found, key=lambda r: (_elsewhere(r.sites, sites), r.names))
        return shown, cut or len(rows) > LOOKED_AT

    async def _called(self, wanted: Sequence[Asked]) -> tuple[list[str], bool]:
        """Ids of those who may be called so, and whether there are more: of a word that too many have the others
        decide.
        """
        found: list[set[str]] = []
        cut: list[set[str]] = []
        for word in wanted[:WORDS_MAX]:
            pieces = sorted(set(word.heard.words))
            if any(len(piece) < PREFIX_LENGTH for piece in pieces):
                continue  # a letter alone is everybody's
            selects = [queries.staff_named(piece, NAMED_MAX) for piece in pieces]
            if word.token:
                selects.append(queries.staff_named(word.token, NAMED_MAX, whole=not word.begins))
            answers = await self._room.views.tables.select_many(selects)
            ids = {r["person_id"] for rows in answers for r in rows}
            (cut if any(len(rows) == NAMED_MAX for rows in answers) else found).append(ids)
        all_of_them = found or cut
        both = sorted(set.intersection(*all_of_them)) if all_of_them else []
        return both[:NAMED_MAX], (bool(cut) and not found) or len(both) > NAMED_MAX

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
        able = [r for r in rows if _is_able(r)]
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


def _is_able(row: Row) -> bool:
    return bool(row["active"]) and bool(REFERRERS & set(row["roles"] or ()))


def _elsewhere(theirs: Sequence[str] | None, sites: Sequence[str]) -> bool:
    return not set(sites) & set(theirs or ())


def _sites(caller: Caller, home: str) -> list[str]:
    return sorted(caller.sites - {ALL_SITES}) or [home]
