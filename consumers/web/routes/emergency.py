"""Breaking the glass: a doctor without a relation states why, and is let in. The officer sees it at once."""

from __future__ import annotations

from starlette.responses import RedirectResponse, Response

from consumers.web.frame import Frame, View
from consumers.web.inner import Refused
from infra.identity.app import local_path
from schemas.roles import Permission

WORDS_MAX = 2000


def add(frame: Frame) -> None:
    """Register the form's address; the form itself stands on the page of the refusal (`consumers.web.faces`)."""
    frame.post("/web/emergency", state, Permission.ACCESS_EMERGENCY)


async def state(view: View) -> Response:
    """Send the words, and go back to what was refused."""
    about = {n: v for n in ("study_uid", "patient_key") if (v := view.field(n, 64))}
    said = {"reason": view.field("reason", 32), "words": view.field("words", WORDS_MAX)}
    back = local_path(view.field("back"))
    try:
        await view.post("/emergency", {**about, **said})
    except Refused as refused:
        if refused.told.status != 400:
            raise
        return view.render(
            "error.html",
            status=422,
            kind="denied",
            reason="",
            emergency={"about": about, "back": back, "words": said["words"], "fault": True},
            retry=back,
            number="",
        )
    path, _, query = back.partition("?")
    return RedirectResponse(f"{path}?{query + '&' if query else ''}notice=opened", 303)
