"""Results of hospitals that wait: for their study, or for a person to say of which study they are, if any.

What is decided is noted here and done within seconds by the HL7 door, which files results.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import msgspec
from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from consumers.api import queries
from consumers.api.guard import Answer, Ask, Guard, OfSearch
from consumers.api.room import Room
from consumers.api.routes.lists import JSON
from infra.http_caller import caller_of, needs
from infra.results_waiting import Queue, Waiting
from schemas.errors import Invalid, NotFound
from schemas.events import Code, Uid
from schemas.roles import Permission
from schemas.tables import STATE_KEYSPACE

TOPIC: Final = "sijil.reports"
SHOWN_MAX: Final = 500
_MONTH: Final = re.compile(r"[0-9]{6}\Z")
_OF_THE_DOOR: Final = ("message_key", "place", "actor")


class Decision(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of a decision."""

    decision: Literal["file", "dismiss"]
    study_uid: Uid | None = None
    """Of `file`: which study it is of."""
    reason: Annotated[Code, msgspec.Meta(min_length=1)] | None = None
    """Of `dismiss`."""


_decision = msgspec.json.Decoder(Decision)


def add(app: FastAPI, guard: Guard, room: Room) -> None:
    """Register the routes."""

    def queue() -> Queue:
        return Queue(room.views.tables.with_keyspace(STATE_KEYSPACE))

    async def waiting(ask: Ask) -> Answer:
        site, month = ask.option("site"), ask.option("ended")
        if month and not _MONTH.match(month):
            raise Invalid("option-ended", "ended is a month, YYYYMM")
        found = await (queue().ended(month) if month else queue().waiting())
        of_site = [e for e in found if site in ("", e.site)]
        body = {"results": [_told(e) for e in of_site[:SHOWN_MAX]], "more": len(of_site) > SHOWN_MAX}
        criteria = {"ended" if month else "waiting": (month or "now",), **({"site": (site,)} if site else {})}
        shown = [(e.decided_study, "") for e in of_site[:SHOWN_MAX] if e.outcome == "filed" and e.decided_study]
        return Answer(about=OfSearch(criteria, shown), content=msgspec.json.encode(body), media_type=JSON)

    guard.get(
        "/results-waiting",
        waiting,
        permission=Permission.RESULT_READ,
        action="read-results-waiting",
        summary="Results that came in by HL7 v2 and are of no study yet, oldest first, and why",
        tag="Reports",
        parameters={"site": "of this site alone", "ended": "YYYYMM: what became of those of that month instead"},
        source=TOPIC,
    )

    @app.post(
        "/results-waiting/{waiting}",
        tags=["Reports"],
        summary='Decide: {"decision": "file", "study_uid"}: it is of this study; {"decision": "dismiss", "reason"}',
        status_code=202,
        dependencies=[needs(Permission.RESULT_WRITE)],
    )
    async def decide(request: Request, waiting: str) -> Response:
        asked, id = _asked(await request.body()), _id(waiting)
        if await queue().get(id) is None:
            raise NotFound("this result does not wait, or no longer")
        if asked.decision == "file":
            rows = await room.views.tables.select(queries.study_owner(asked.study_uid or ""))
            if not rows:
                raise NotFound("this study is not in the archive, or not yet searchable")
        await queue().decide(
            id,
            decision=asked.decision,
            study_uid=asked.study_uid or "",
            by=caller_of(request).actor,
            reason=asked.reason or "",
        )
        return JSONResponse({"waiting_id": id}, 202, {"Cache-Control": "no-store"})


def _told(entry: Waiting) -> dict[str, Any]:
    return {n: v for n, v in msgspec.structs.asdict(entry).items() if n not in _OF_THE_DOOR}


def _asked(body: bytes) -> Decision:
    wrong = 'say {"decision": "file", "study_uid"} or {"decision": "dismiss", "reason"}'
    try:
        asked = _decision.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise Invalid("result-decision", wrong) from e
    if (asked.decision == "file") != bool(asked.study_uid) or (asked.decision == "dismiss") != bool(asked.reason):
        raise Invalid("result-decision", wrong)
    return asked


def _id(text: str) -> str:
    try:
        return str(UUID(text))
    except ValueError as e:
        raise Invalid("waiting-id", "the id of a result that waits is a UUID") from e
