"""Whose files are one person's: what is proposed, decided by a form, and what was decided, to be undone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import RedirectResponse, Response

from consumers.web import show
from consumers.web.frame import Frame, View
from infra import clock
from schemas.identity import KEY_NATIONAL
from schemas.roles import Permission

ALIKE, DECIDED = "/web/identities", "/web/identities/decided"


def add(frame: Frame) -> None:
    """Register the pages."""
    frame.get(ALIKE, alike, Permission.CONFLICTS_READ)
    frame.get(DECIDED, decided, Permission.CONFLICTS_READ)
    frame.post(ALIKE, decide, Permission.PATIENT_LINK)


def tabs(view: View) -> list[tuple[str, str, str]]:
    """What stands above the lists of identities."""
    text = view.language.text
    return [
        ("studies", "/web/proposals", text("identities.studies")),
        ("alike", ALIKE, text("identities.alike")),
        ("decided", DECIDED, text("identities.decided")),
    ]


async def alike(view: View) -> Response:
    """Files that look like one person's, the likest first."""
    found = await view.get("/link-proposals", limit="50")
    rows = []
    for proposal in found["proposals"]:
        one, other = _stays(proposal["one"], proposal["other"])
        people = [_person(view, p) for p in (one, other)]
        rows.append({"score": proposal["score"], "why": proposal["why"], "people": people, "id": str(clock.uuid7())})
    return view.render("identities.html", rows=rows, more=found["more"], tabs=tabs(view), tab="alike")


async def decided(view: View) -> Response:
    """What was decided, newest first."""
    rows = [
        {**d, "people": [_person(view, p) for p in (d["one"], d["other"])]}
        for d in (await view.get("/link-decisions"))["decisions"]
    ]
    return view.render("identities_decided.html", rows=rows, tabs=tabs(view), tab="decided")


async def decide(view: View) -> Response:
    """A form's decision, sent to the doors that programs use. The same click twice is the same decision."""
    one, other, what = (view.field(n, 64) for n in ("one", "other", "what"))
    asked: Mapping[str, Any] = {"other_key": other, "reason": "proposal", "id": view.field("id", 36)}
    match what:
        case "join":
            await view.post(f"/patients/{one}/links", asked)
        case "apart":
            await view.post(f"/patients/{one}/apart", asked)
        case "undo-linked":
            await view.delete(f"/patients/{one}/links/{other}")
        case _:
            await view.delete(f"/patients/{one}/apart/{other}")
    return RedirectResponse(f"{DECIDED if what.startswith('undo') else ALIKE}?notice=saved", 303)


def _stays(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The file that stays stands first: one with a national ID, if one of them has it."""
    return (other, one) if one.get("basis") != KEY_NATIONAL == other.get("basis") else (one, other)


def _person(view: View, who: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "key": who["patient_key"],
        "name": show.person_text(who.get("patient_name") or "", view.language.code),
        "patient_id": who.get("patient_id") or "",
        "issuer": who.get("issuer") or "",
        "born": show.day(who.get("birth_date") or ""),
        "sex": who.get("sex") or "",
        "basis": who.get("basis") or "",
    }
