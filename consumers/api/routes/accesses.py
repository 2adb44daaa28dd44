"""Who looked at what: of a study, of a patient's file, by somebody, in an hour; who was refused; who broke the glass.

Reading one of these lists is itself an access, of every study that it names.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from consumers.api import queries
from consumers.api.guard import Answer, Ask, Guard, OfSearch, OfStudy
from consumers.api.plain_words import language_of, words
from consumers.api.room import Room
from consumers.api.routes.lists import JSON, MONTHS, PAGE, limit_of, months_of, patient_key_of
from consumers.api.trail import Cursor, Page, buckets, page
from infra import clock, telemetry
from infra.ports import Row, Select
from schemas.errors import Invalid, NotFound
from schemas.roles import Permission

log = telemetry.logger(__name__)

DAYS_BACK = 31
"""Days that a list without a day looks back."""
DOCUMENTS_AT_ONCE = 16
SOURCE = "sijil.accesses"
PAGES = PAGE | {
    "before": "where a page goes on: its address is `next` of the page before it",
    "lang": "ar or en: each access also in plain words; else as Accept-Language says",
}

_DAY = re.compile(r"[0-9]{4}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])\Z")
_HOUR = re.compile(r"[0-9]{4}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])(?:[01][0-9]|2[0-3])\Z")
_NOT_SHOWN = frozenset({"bucket", "document_key", "document_sha256", "month", "day", "hour"})


def add(guard: Guard, room: Room) -> None:
    """Register the routes."""

    async def study_accesses(ask: Ask) -> Answer:
        uid = ask.uid("study")
        found = await _page(ask, room, [[queries.accesses_of_study(uid)]])
        (owned,) = await room.owners([uid])
        if not owned[1] and not found.rows:
            raise NotFound("this study is not in the archive, and nobody asked for it")
        return _answer(ask, OfStudy(*owned), {"study_uid": uid}, found, "study_uid")

    async def patient_accesses(ask: Ask) -> Answer:
        key = patient_key_of(ask)
        keys = (await room.scopes.linked.group(key)).keys
        listed = await _page(ask, room, [[queries.accesses_of_patient(k, m) for k in keys] for m in months_of(ask)])
        # A study that was filed here by mistake, and is another's now, is not the patient's to know of
        found = replace(listed, rows=await room.scopes.still(ask.reach, listed.rows))
        shown = [(row["study_uid"], row["patient_key"]) for row in found.rows if row["study_uid"]]
        about = OfSearch({"patient_key": (key,)}, shown, key)
        return _answer(ask, about, {"patient_key": key}, found)

    async def accesses(ask: Ask) -> Answer:
        asked, selects = _asked(ask)
        found = await _page(ask, room, [[s] for s in selects])
        if asked.get("outcome") == "emergency":
            await _state(room, found.rows)
        shown = [(row["study_uid"], row["patient_key"] or "") for row in found.rows if row["study_uid"]]
        about = OfSearch({name: (value,) for name, value in asked.items()}, shown)
        return _answer(ask, about, {}, found)

    guard.get(
        "/studies/{study}/accesses",
        study_accesses,
        permission=Permission.ACCESS_READ_STUDY,
        action="read-accesses",
        summary="Who saw a study, when and why, newest first",
        tag="Accesses",
        parameters=PAGES,
        source=SOURCE,
    )
    guard.get(
        "/patients/{key}/accesses",
        patient_accesses,
        permission=Permission.ACCESS_READ_OWN,
        action="read-accesses",
        summary="Who saw a patient's file and all files joined to it, when and why, newest first",
        tag="Accesses",
        parameters=PAGES | MONTHS,
        source=SOURCE,
    )
    guard.get(
        "/accesses",
        accesses,
        permission=Permission.ACCESS_READ_ANY,
        action="read-accesses",
        summary="Accesses by somebody, of an hour, refusals or emergencies, newest first",
        description="One of `actor`, `hour` and `outcome` says which. An emergency has the reason as it was stated.",
        tag="Accesses",
        parameters=PAGES
        | {
            "actor": "what somebody saw, e.g. `person:<id>`, `ae:<title>@<address>`",
            "day": f"YYYYMMDD, UTC, of `actor` and of refusals; the last {DAYS_BACK} days without it",
            "hour": "YYYYMMDDHH, UTC: all accesses of an hour",
            "outcome": "`denied` or `emergency`",
            "month": f"{MONTHS['month']}, of emergencies",
        },
        source=SOURCE,
    )


def _asked(ask: Ask) -> tuple[dict[str, str], list[Select]]:
    """What was asked for, and the partitions that have it. Raises Invalid(`option-…`)."""
    given = {name: ask.option(name) for name in ("actor", "hour", "outcome") if ask.option(name)}
    if len(given) != 1:
        raise Invalid("option-one-of", "say one of actor, hour and outcome")
    ((name, value),) = given.items()
    if name == "hour":
        if not _HOUR.match(value):
            raise Invalid("option-hour", "hour must be YYYYMMDDHH, UTC")
        return given, [queries.accesses_of_hour(value)]
    if name == "actor":
        return given, [queries.accesses_of_actor(value, day) for day in _days(ask)]
    if value == "denied":
        return given, [queries.refusals(day) for day in _days(ask)]
    if value == "emergency":
        return given, [queries.emergencies(month) for month in months_of(ask)]
    raise Invalid("option-outcome", "outcome must be denied or emergency")


def _days(ask: Ask) -> list[str]:
    """The day asked for, else those to look back on, newest first."""
    day = ask.option("day")
    if day:
        if not _DAY.match(day):
            raise Invalid("option-day", "day must be YYYYMMDD, UTC")
        return [day]
    now = clock.now()
    return buckets(now - timedelta(days=DAYS_BACK - 1), now, "day")


async def _page(ask: Ask, room: Room, selects: Sequence[Sequence[Select]]) -> Page:
    return await page(room.views.tables, selects, Cursor.read(ask.option("before")), limit_of(ask))


async def _state(room: Room, rows: Sequence[Row]) -> None:
    """Add the reasons as they were stated."""
    at_once = asyncio.Semaphore(DOCUMENTS_AT_ONCE)

    async def state(row: Row) -> None:
        async with at_once:
            try:
                data = await asyncio.to_thread(room.objects.get, row["bucket"], row["document_key"])
            except NotFound:
                return  # its retention is over
        if hashlib.sha256(data).hexdigest() != row["document_sha256"]:
            log.error("the reason of an emergency has changed", access_id=row["access_id"])
            row["stated_changed"] = True
        row["stated"] = msgspec.json.decode(data)["words"]

    await asyncio.gather(*(state(row) for row in rows))


def _answer(ask: Ask, about: OfStudy | OfSearch, head: dict[str, Any], found: Page, *said: str) -> Answer:
    """`said`: columns that the address said."""
    language = language_of(ask.option("lang"), ask.header("accept-language"))
    hidden = _NOT_SHOWN.union(said)
    rows = []
    for row in found.rows:
        shown = {n: v for n, v in row.items() if n not in hidden and v not in (None, "")}
        rows.append(shown | {"words": words(row, language)} if language else shown)
    document = head | {"accesses": rows}
    if found.next is not None:
        options = ("actor", "hour", "outcome", "day", "month", "limit", "lang")
        query = {n: ask.option(n) for n in options if ask.option(n)} | {"before": str(found.next)}
        document["next"] = f"{quote(ask.path)}?{urlencode(query)}"
    headers = {"Content-Language": language} if language else {}
    return Answer(about=about, content=msgspec.json.encode(document), media_type=JSON, headers=headers)
