"""Whether a printed report holds: where the code on the paper leads, for whoever holds it."""

from __future__ import annotations

from starlette.responses import Response

from consumers.web.frame import Frame, View


def add(frame: Frame) -> None:
    """Register the page."""
    frame.get("/verify/{report}/{version}/{mark}", verify, None)


async def verify(view: View) -> Response:
    """What the archive says of that version."""
    report, version, mark = (view.part(n)[:64] for n in ("report", "version", "mark"))
    told = await view.get(f"/reports/{report}/versions/{version}/verification", mark=mark)
    if not told["matches"]:
        kind = "unknown"
    elif told["current_status"] in ("cancelled", "entered-in-error"):
        kind = "withdrawn"
    elif not told["current"]:
        kind = "old"
    else:
        kind = "current"
    return view.render("verify.html", kind=kind, told=told, mark=mark)
