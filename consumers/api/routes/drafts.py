"""`/studies/{study}/draft`: what the caller has written of a study's report and not signed. Nobody else is shown it."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from consumers.api.drafts import Changed, Drafts, Saved
from consumers.api.guard import Answer, Ask, Guard, OfStudy
from consumers.api.room import Room
from consumers.api.routes.lists import JSON
from infra.http_caller import caller_of, needs
from infra.http_problems import problem
from schemas.drafts import decode_draft
from schemas.errors import Invalid, NotFound
from schemas.identity import check_uid
from schemas.roles import Permission

PATH = "/studies/{study}/draft"


def add(app: FastAPI, guard: Guard, room: Room, drafts: Drafts) -> None:
    """Register the routes."""

    may = [needs(Permission.REPORT_DRAFT)]

    @app.put(
        PATH,
        tags=["Reading"],
        summary="Save the draft: If-Match names the save it goes on from, If-None-Match: * makes the first",
        dependencies=may,
    )
    async def save_draft(request: Request, study: str) -> Response:
        check_uid(study)
        after = _after(request)
        if after is None:
            return problem(428, 'If-Match: "<save>" or If-None-Match: * is needed', reason="draft-if-match")
        draft = decode_draft(await request.body())
        if not (await room.owners([study]))[0][1]:
            raise NotFound("this study is not in the archive, or not yet searchable")
        try:
            saved = await drafts.save(caller_of(request).actor, study, draft, after)
        except Changed as changed:
            return _changed(changed)
        answer = {"save_id": saved.save_id, "saved": saved.saved, "begun": saved.begun}
        return JSONResponse(answer, headers=_tag(saved.save_id))

    @app.delete(PATH, tags=["Reading"], summary="Forget the draft that If-Match names", dependencies=may)
    async def drop_draft(request: Request, study: str) -> Response:
        check_uid(study)
        after = _after(request)
        if not after:
            return problem(428, 'If-Match: "<save>" is needed', reason="draft-if-match")
        try:
            await drafts.drop(caller_of(request).actor, study, after)
        except Changed as changed:
            return _changed(changed)
        return Response(status_code=204)

    async def read_draft(ask: Ask) -> Answer:
        uid = ask.uid("study")
        found = await drafts.read(ask.caller.actor, uid)
        ((_, owner),) = await room.owners([uid])
        body = msgspec.json.encode(told(found, ask.caller.actor) if found else {"study_uid": uid, "draft": None})
        headers = _tag(found.save_id if found else "")
        return Answer(about=OfStudy(uid, owner), content=body, media_type=JSON, headers=headers)

    guard.get(
        PATH,
        read_draft,
        permission=Permission.REPORT_DRAFT,
        action="read-draft",
        summary="The caller's own draft of a report; null where there is none",
        tag="Reading",
    )


def told(saved: Saved, author: str) -> dict[str, Any]:
    """A draft as JSON."""
    return {
        "study_uid": saved.study_uid,
        "save_id": saved.save_id,
        "saved": saved.saved,
        "begun": saved.begun,
        "becomes": saved.report_id(author),
        "draft": saved.draft,
    }


def _after(request: Request) -> str | None:
    """The save that a request goes on from; empty for none, None if it does not say. Raises Invalid."""
    if request.headers.get("if-none-match", "").strip() == "*":
        return ""
    header = request.headers.get("if-match")
    if header is None:
        return None
    tag = header.strip().removeprefix("W/").strip('"')
    if not tag or tag == "*":
        raise Invalid("draft-if-match", 'If-Match is "<save>", as ETag gave it')
    return tag


def _changed(changed: Changed) -> Response:
    title = "The draft was saved elsewhere meanwhile"
    return problem(412, title, reason="draft-changed", headers=_tag(changed.save_id))


def _tag(save_id: str) -> dict[str, str]:
    return {"ETag": f'"{save_id}"'} if save_id else {}
