"""Who reports which study: `POST /studies/{study}/claim`, and `/release` when they do no longer.

A notice, no lock: it keeps two people from reading the same study by chance, and nobody from reading it. Answered when
the event is in the chain's journal and Kafka has acknowledged it or was given a little time to.
"""

from __future__ import annotations

import asyncio
from typing import Final

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from infra import clock
from infra.chain import ChainedLog
from infra.durable import durable
from infra.http_caller import caller_of, needs
from infra.http_door import HttpDoor
from schemas.errors import Invalid
from schemas.events import Event, ReadingClaimed, ReadingReleased
from schemas.identity import check_uid
from schemas.roles import Permission

REASONS: Final = ("given-back", "signed")


def register(app: FastAPI, http: HttpDoor) -> None:
    """Add the doors."""
    may = [needs(Permission.REPORT_DRAFT)]

    @app.post("/studies/{study}/claim", tags=["Reading"], summary="Say that one reports a study now", dependencies=may)
    async def claim(request: Request, study: str) -> Response:
        check_uid(study)
        event = ReadingClaimed(study_uid=study, actor=caller_of(request).actor, recorded=clock.rfc3339(clock.now()))
        return await _answer(http.chain, event)

    @app.post(
        "/studies/{study}/release",
        tags=["Reading"],
        summary="Say that one does no longer; `reason`: given-back (without it) or signed",
        dependencies=may,
    )
    async def release(request: Request, study: str, reason: str = REASONS[0]) -> Response:
        check_uid(study)
        if reason not in REASONS:
            raise Invalid("release-reason", f"reason is one of {', '.join(REASONS)}")
        actor, recorded = caller_of(request).actor, clock.rfc3339(clock.now())
        return await _answer(
            http.chain, ReadingReleased(study_uid=study, actor=actor, reason=reason, recorded=recorded)
        )


async def _answer(chain: ChainedLog, event: Event) -> Response:
    event_id = str(clock.uuid7())
    await asyncio.to_thread(durable, chain, event, id=event_id)
    return JSONResponse({"statement_id": event_id}, 201)
