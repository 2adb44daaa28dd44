"""`GET /fhir/ServiceRequest`: orders as they are now. They are placed and changed by the same addresses elsewhere."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import unquote

from consumers.api import queries
from consumers.api.current import current
from consumers.api.fhir_files import Files
from consumers.api.fhir_query import Asked, ordered, patients_of, sliced, token, uuid_of, within
from consumers.api.guard import Answer, Ask, Guard, OfSearch
from consumers.api.room import Room
from consumers.api.routes.fhir_page import (
    asked_of,
    base_of,
    counted,
    criteria,
    fhir,
    included,
    page,
    parameters,
    referring,
)
from consumers.fhir.codes import MEDIA_TYPE
from infra.ports import Row, Select
from schemas.errors import Invalid, NotFound
from schemas.orders import ACCESSION_SYSTEM
from schemas.roles import Permission

ORDERS_MAX = 1000
"""Orders of a patient that are looked at."""

_SITE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")


def add(guard: Guard, room: Room) -> None:
    """Register the routes."""
    files = Files(room)

    async def find_orders(ask: Ask) -> Answer:
        asked = asked_of(ask, "ServiceRequest")
        statuses, span, updated = asked.any_of("status"), asked.span("authored"), asked.span("_lastUpdated")
        rows = [
            row
            for row in await _rows(room, files, asked)
            if _within_reach(ask, row)
            and (not statuses or row["status"] in statuses)
            and within(span, row["authored"], files.zone)
            and within(updated, row["recorded"], files.zone)
        ]
        if asked.counted:
            return counted(ask, base_of(room, ask), asked, len(rows))
        by = "recorded" if asked.sort.endswith("_lastUpdated") else "authored"
        sort = asked if asked.sort else replace(asked, sort="-authored")
        rows = ordered(sort, rows, lambda r: (r[by] or "", r["order_id"]))
        shown, more = sliced(asked, rows)
        pairs = list(dict.fromkeys((r["study_uid"], r["patient_key"]) for r in shown if r["study_uid"]))
        keys = [r["patient_key"] for r in shown if r["patient_key"]]
        beside, notes = await included(files, room, ask, asked, patients=keys)
        below, seen, left_out = await referring(files, room, ask, asked, orders=shown)
        about = OfSearch(criteria(asked), list(dict.fromkeys([*pairs, *seen])))
        found, told = await files.orders(shown), [*notes, *left_out]
        base, total = base_of(room, ask), len(rows)
        return page(ask, base, asked, found, about, beside=[*beside, *below], next=more, notes=told, total=total)

    async def order(ask: Ask) -> Answer:
        rows = await room.views.tables.select(queries.newest_order(uuid_of(ask.part("order"), "order")))
        if not rows or not _within_reach(ask, rows[0]):
            raise NotFound("this order is not known, not yet, or beyond what you see")
        row = rows[0]
        (found,) = await files.orders(rows)
        pairs = [(row["study_uid"], row["patient_key"])] if row["study_uid"] else []
        return fhir(OfSearch({"order_id": (row["order_id"],)}, pairs, row["patient_key"]), found, row["version"])

    guard.get(
        "/fhir/ServiceRequest",
        find_orders,
        permission=Permission.ORDER_READ,
        action="read-order",
        summary="Orders as FHIR R4, newest first: by _id, identifier or patient",
        tag="FHIR",
        media_types=(MEDIA_TYPE,),
        parameters=parameters("ServiceRequest"),
        source="sijil.orders",
    )
    guard.get(
        "/fhir/ServiceRequest/{order}",
        order,
        permission=Permission.ORDER_READ,
        action="read-order",
        summary="An order as FHIR R4",
        tag="FHIR",
        media_types=(MEDIA_TYPE,),
        source="sijil.orders",
    )


async def _rows(room: Room, files: Files, asked: Asked) -> list[Row]:
    """Orders that may fit. Raises Invalid(`search-too-wide`)."""
    keys = await _keys(room, files, asked)
    if ids := [uuid_of(i, "order") for i in asked.one("_id").split(",") if i]:
        rows = await _all(room, [queries.newest_order(i) for i in dict.fromkeys(ids)])
        return [r for r in rows if keys is None or r["patient_key"] in keys]
    if identifier := asked.one("identifier"):
        system, value = token(identifier)
        site = unquote(system.removeprefix(ACCESSION_SYSTEM)) if system.startswith(ACCESSION_SYSTEM) else ""
        if not _SITE.match(site):
            raise Invalid("search-identifier", f"an accession number is a site's: {ACCESSION_SYSTEM}<site>|<number>")
        rows = await _all(room, [queries.orders_by_accession(site, value)])
        return [r for r in rows if keys is None or r["patient_key"] in keys]
    if keys is None:
        raise Invalid("search-too-wide", "say whose or which: patient, identifier or _id")
    return await _all(room, [queries.orders_of_patient(k, ORDERS_MAX) for k in keys])


async def _keys(room: Room, files: Files, asked: Asked) -> Sequence[str] | None:
    """Keys of the patient whose orders are asked for; None: whosever."""
    if "patient" not in asked.values:
        return None
    key, number = patients_of(asked.values["patient"])
    return (await files.group(key)).keys if key else await _numbered(room, token(number)[1])


async def _numbered(room: Room, patient_id: str) -> list[str]:
    """Patient keys of the studies under a PatientID."""
    listed = await room.views.tables.select(queries.by_patient_id(patient_id))
    return list(dict.fromkeys(r["patient_key"] for r in await current(room.views.tables, listed) if r["patient_key"]))


async def _all(room: Room, selects: list[Select]) -> list[Row]:
    return [row for rows in await room.views.tables.select_many(selects) for row in rows] if selects else []


def _within_reach(ask: Ask, row: Row) -> bool:
    """An order is seen by its site, and by who sees its patient or its study."""
    return ask.reach.shows(row["study_uid"], row["patient_key"], (row["site"],))
