"""What is owed to the health record and other destinations: what is late, and to deliver again what a person asks for.

Rows hold ids and codes alone, so these are no reads of patient data.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from consumers.api import queries
from consumers.api.room import Room
from consumers.delivery import outbox
from consumers.delivery.dossier import event_of_report, event_of_study
from consumers.delivery.entry import PATIENT, REPORT, STUDY, SUBSCRIPTION, Entry, about
from consumers.delivery.outbox import HOURS, OPEN
from infra import clock
from infra.http_caller import caller_of, needs
from infra.ports import Row, Select, Tables
from schemas.errors import Invalid, NotFound
from schemas.events import decode_payload
from schemas.roles import Permission
from schemas.tables import STATE_KEYSPACE
from schemas.times import has_report

LATE_S: Final = 60.0
LIMIT, LIMIT_MAX = 100, 1000
STATES: Final = ("queued", "retrying", "waiting", "refused")


class Again(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be delivered again: one report or study; neither: whatever waits or was refused."""

    report_id: str = ""
    study_uid: str = ""


_again = msgspec.json.Decoder(Again)


def add(app: FastAPI, room: Room) -> None:
    """Register the routes."""
    read, write = [needs(Permission.DELIVERY_READ)], [needs(Permission.DELIVERY_WRITE)]

    @app.get(
        "/deliveries",
        tags=["Deliveries"],
        summary="What destinations have not got yet, oldest first; with late=1 only what they should have by now",
        dependencies=read,
    )
    async def deliveries(request: Request) -> Response:
        wanted, late = request.query_params.get("destination", ""), request.query_params.get("late", "") == "1"
        state = request.query_params.get("state", "")
        if state not in ("", *STATES):
            raise Invalid("option-state", f"state must be one of {', '.join(STATES)}")
        limit = _limit(request.query_params.get("limit", str(LIMIT)))
        found = await _open(_state(room))
        now = clock.now()
        shown = [
            told
            for row in sorted(found, key=lambda r: (r["recorded"], r["delivery_id"]))
            if wanted in ("", row["destination"])
            and ((told := _told(row, now))["late"] or not late)
            and state in ("", told["state"])
        ]
        answer = {"destinations": _summed(found, now), "deliveries": shown[:limit], "more": len(shown) > limit}
        return JSONResponse(answer, headers={"Cache-Control": "no-store"})

    @app.post(
        "/deliveries/{destination}",
        tags=["Deliveries"],
        summary="Deliver again: a report ({report_id}) or a study ({study_uid}) as it is now, or, with {}, try now"
        " whatever waits or was refused",
        dependencies=write,
    )
    async def again(request: Request, destination: str) -> Response:
        state = _state(room)
        if destination not in await _destinations(state):
            raise NotFound("there is no such destination, or it was never told anything")
        asked = _asked(await request.body())
        id, actor = str(clock.uuid7()), caller_of(request).actor
        if not has_report(destination) and (asked.report_id or asked.study_uid):
            raise Invalid(
                "delivery-request", "a subscription is told of what happens, once: {} tries now what it is owed"
            )
        entry = await _entry(room, asked, id, destination, actor)
        await state.apply([outbox.request(destination, id, entry, actor)])
        return JSONResponse({"request_id": id}, 202, {"Cache-Control": "no-store"})


def _state(room: Room) -> Tables:
    return room.views.tables.with_keyspace(STATE_KEYSPACE)


async def _destinations(state: Tables) -> list[str]:
    # A row for each partition of each topic of a handful of destinations: small, and there is no other list of them.
    return sorted({row["destination"] async for row in state.scan("delivery_cursors")})


async def _open(state: Tables) -> list[Row]:
    """Everything that is owed; what is about to come to deliveries of studies is not one yet."""
    names = await _destinations(state)
    hours = await state.select_many([Select(HOURS, {"destination": n}) for n in names]) if names else []
    where = [{"destination": r["destination"], "hour": r["hour"]} for rows in hours for r in rows]
    found = await state.select_many([Select(OPEN, w) for w in where]) if where else []
    return [row for rows in found for row in rows if row["subject"] and not row["subject"].startswith(PATIENT)]


def _summed(rows: Sequence[Row], now: datetime) -> list[dict[str, Any]]:
    """How each destination stands that something is owed to."""
    summed: dict[str, dict[str, Any]] = {}
    for row in rows:
        told = _told(row, now)
        of = summed.setdefault(
            row["destination"], {"destination": row["destination"], "open": 0, "late": 0, **dict.fromkeys(STATES, 0)}
        )
        of["open"] += 1
        of["late"] += told["late"]
        of[told["state"]] += 1
        of["oldest"] = min(of.get("oldest", told["recorded"]), told["recorded"])
    return [summed[name] for name in sorted(summed)]


def _told(row: Row, now: datetime) -> dict[str, Any]:
    event = decode_payload(row["event_type"], row["event"].encode())
    kind, _, id = (about(event) if row["subject"].startswith(SUBSCRIPTION) else row["subject"]).partition("/")
    told: dict[str, Any] = {
        "delivery_id": row["delivery_id"],
        "destination": row["destination"],
        "report_id" if kind + "/" == REPORT else "study_uid": id,
        "event": row["event_type"],
        "recorded": clock.rfc3339(row["recorded"]),
        "state": row["state"] or "queued",
        "attempts": row["attempts"] or 0,
        "late": (now - row["recorded"]).total_seconds() > LATE_S,
    }
    if kind + "/" == REPORT:
        told["version"] = getattr(event, "version", 1)
    if row["reason"]:
        told["reason"] = row["reason"]
    if row["next_attempt"] is not None:
        told["next_attempt"] = clock.rfc3339(row["next_attempt"])
    return told


def _asked(body: bytes) -> Again:
    try:
        asked = _again.decode(body or b"{}")
    except msgspec.DecodeError as e:
        raise Invalid("delivery-request", "say {report_id} or {study_uid}, or {} for whatever waits") from e
    if asked.report_id and asked.study_uid:
        raise Invalid("delivery-request", "either a report or a study")
    return asked


async def _entry(room: Room, asked: Again, id: str, destination: str, actor: str) -> Entry | None:
    """The delivery that is asked for; None for whatever waits. Raises NotFound."""
    tables = room.views.tables
    if asked.report_id:
        rows = await tables.select(queries.report(asked.report_id))
        if not rows:
            raise NotFound("this report is not in the archive, or not yet searchable")
        event = event_of_report(rows[0])
        return Entry(id, destination, REPORT + asked.report_id, event, clock.now(), asked_by=actor)
    if asked.study_uid:
        rows = await tables.select(queries.study_state(asked.study_uid))
        if not rows or rows[0]["completed_revision"] is None:
            raise NotFound("this study is not in the archive, or not complete yet")
        return Entry(id, destination, STUDY + asked.study_uid, event_of_study(rows[0]), clock.now(), asked_by=actor)
    return None


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6 and 0 < int(text) <= LIMIT_MAX):
        raise Invalid("option-limit", f"limit must be a number from 1 to {LIMIT_MAX}")
    return int(text)
