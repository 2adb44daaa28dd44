"""Critical results that nobody has read back, and the form by which somebody does."""

from __future__ import annotations

from typing import Any, Final

from starlette.responses import RedirectResponse, Response

from consumers.web.frame import Frame, View
from consumers.web.inner import Refused
from schemas.roles import Permission

CHANNELS: Final = ("page", "phone", "in-person")
LIST: Final = "/web/criticals"


def add(frame: Frame) -> None:
    """Register the pages."""
    frame.get(LIST, waiting, Permission.REPORT_READ)
    frame.post(LIST + "/{report}/{version}", read_back, Permission.CRITICAL_ACKNOWLEDGE)


async def waiting(view: View) -> Response:
    """The longest due first."""
    return await _listed(view, {}, 200)


async def read_back(view: View) -> Response:
    """Send what was said, and go back to the list."""
    report, version = view.part("report"), view.part("version")
    said: dict[str, str] = {"words": view.field("words"), "channel": view.field("channel", 16)}
    if clinician := view.field("clinician", 64):
        said["clinician"] = clinician
    try:
        await view.post(f"/reports/{report}/criticals/{version}/acknowledgement", said)
    except Refused as refused:
        if refused.told.status != 400:
            raise
        return await _listed(view, {"id": f"{report}/{version}", **said}, 422)
    return RedirectResponse(f"{LIST}?notice=read-back", 303)


async def _listed(view: View, fault: dict[str, Any], status: int) -> Response:
    state = "overdue" if view.option("state", 16) == "overdue" else "open"
    mine = "1" if view.option("mine", 1) else ""
    found = await view.get("/criticals", state=state, mine=mine, limit="200")
    caller = view.caller
    return view.render(
        "criticals.html",
        status=status,
        state=state,
        mine=mine,
        rows=[row | {"id": f"{row['report_id']}/{row['version']}"} for row in found["criticals"]],
        more=found["more"],
        fault=fault,
        channels=[(c, view.language.text(f"criticals.channel.{c}")) for c in CHANNELS],
        me=caller.person_id if caller else "",
    )
