"""Orders read: a site's day, and one of them with where it stands."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec

from consumers.api import queries, status
from consumers.api.current import current
from consumers.api.guard import Answer, Ask, Guard, OfSearch
from consumers.api.order_state import told
from consumers.api.reach import Reach
from consumers.api.room import Room
from consumers.api.routes.lists import JSON, LIMIT_MAX
from infra import clock
from infra.ports import Row
from schemas.errors import Defect, Invalid, NotFound
from schemas.identity import derived_id
from schemas.roles import Permission

ORDERS: Final = "sijil.orders"
_DAY: Final = re.compile(r"[0-9]{8}\Z")
_SITE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")


def add(guard: Guard, room: Room) -> None:
    """Register the routes."""

    async def orders(ask: Ask) -> Answer:
        site = ask.option("site") or min(ask.reach.sites, default=room.settings.site)
        today = clock.now().astimezone(ZoneInfo(room.settings.time_zone)).strftime("%Y%m%d")
        day = ask.option("day") or today
        if not _SITE.match(site) or not _DAY.match(day):
            raise Invalid("option-day", "site is the id of a site, day is YYYYMMDD")
        if accession := ask.option("accession"):
            rows = await room.views.tables.select(queries.orders_by_accession(site, accession))
        else:
            rows = await room.views.tables.select(queries.orders_of_day(site, day, LIMIT_MAX + 1))
        kept = [r for r in rows[:LIMIT_MAX] if shows(ask.reach, r)]
        body = {"site": site, "day": day, "orders": await _stand(room, kept), "more": len(rows) > LIMIT_MAX}
        criteria: dict[str, Sequence[str]]
        criteria = {"site": (site,), "accession": (accession,)} if accession else {"site": (site,), "day": (day,)}
        return await _answer(room, ask, criteria, kept, body)

    async def order(ask: Ask) -> Answer:
        id = _id(ask.part("order"))
        rows = await room.views.tables.select(queries.order(id))
        if not rows or not shows(ask.reach, rows[0]):
            raise NotFound("this order is not in the archive, or not yet searchable, or not yours to see")
        row = rows[0]
        document = await asyncio.to_thread(room.objects.get, row["bucket"], row["document_key"])
        if hashlib.sha256(document).hexdigest() != row["document_sha256"]:
            raise Defect(f"order document {row['document_key']} has not the checksum of its event")
        (stands,) = await _stand(room, [row])
        body = {**stands, "document": msgspec.Raw(document)}
        return await _answer(room, ask, {"order_id": (id,)}, [row], body, {"ETag": f'W/"{row["version"]}"'})

    guard.get(
        "/orders",
        orders,
        permission=Permission.ORDER_READ,
        action="read-orders",
        summary="The orders of a site's day, or of an accession number, and where each stands",
        tag="Orders",
        parameters={
            "site": "where it is done; without it one of the caller's, or the archive's own",
            "day": "YYYYMMDD where the site is, of the appointment, else of the order; today without it",
            "accession": "an accession number of the site, of whatever day",
        },
        source=ORDERS,
    )
    guard.get(
        "/orders/{order}",
        order,
        permission=Permission.ORDER_READ,
        action="read-orders",
        summary="An order as it is now, with its document (FHIR R4 ServiceRequest)",
        tag="Orders",
        source=ORDERS,
    )


def shows(reach: Reach, row: Row) -> bool:
    """Whether an order is within a reach: of a site of theirs, or of a patient or study that is named."""
    return reach.shows(row["study_uid"], row["patient_key"], (row["site"],))


async def _stand(room: Room, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Each order with what the devices say and what has arrived under its Study UID or its accession number."""
    selects = [queries.steps_of(r["study_uid"]) for r in rows]
    selects += [queries.arrived_for(r["accession"], r["site"]) for r in rows]
    found = await room.views.tables.select_many(selects) if rows else []
    steps, others = found[: len(rows)], found[len(rows) :]
    named = [
        list(dict.fromkeys((r["study_uid"], *(s["study_uid"] for s in o)))) for r, o in zip(rows, others, strict=True)
    ]
    wanted = list(dict.fromkeys(u for uids in named for u in uids))
    answers = await room.views.tables.select_many([queries.study_state(u) for u in wanted]) if wanted else []
    studies = {
        r["study_uid"]: status.describe(r, [])["state"]
        for r in await current(room.views.tables, [a[0] for a in answers if a and a[0]["sites"]])
    }
    return [
        told(row, step, {u: studies[u] for u in uids if u in studies})
        for row, step, uids in zip(rows, steps, named, strict=True)
    ]


async def _answer(
    room: Room,
    ask: Ask,
    criteria: dict[str, Sequence[str]],
    rows: Sequence[Row],
    body: Any,
    headers: dict[str, str] | None = None,
) -> Answer:
    """What the patients' trails say of it. An order is its site's also where its study was sent by another one: that
    study is not named then, but the order by a UID of its own.
    """
    pairs = [(r["study_uid"], r["patient_key"]) for r in rows]
    within = {r["study_uid"] for r in await room.scopes.kept(ask.reach, rows)}
    known = await room.scopes.places(uid for uid, _ in pairs)
    shown = [
        (uid if uid in within or uid not in known else _uid_of(r["order_id"]), key)
        for r, (uid, key) in zip(rows, pairs, strict=True)
    ]
    content = msgspec.json.encode(body)
    return Answer(about=OfSearch(criteria, shown), content=content, media_type=JSON, headers=headers or {})


def _uid_of(order_id: str) -> str:
    return f"2.25.{UUID(derived_id('order-shown', order_id)).int}"


def _id(text: str) -> str:
    try:
        return str(UUID(text))
    except ValueError as e:
        raise Invalid("order-id", "the id of an order is a UUID") from e
