"""A patient's links, for staff: send one whose code goes to the phone, see what became of each, take one back."""

from __future__ import annotations

from starlette.responses import RedirectResponse, Response

from consumers.web.frame import Frame, View
from consumers.web.inner import Refused
from schemas.roles import Permission


def add(frame: Frame) -> None:
    """Register the pages."""
    frame.get("/web/patients/{key}/links", links, Permission.PATIENT_INVITE)
    frame.post("/web/patients/{key}/links", change, Permission.PATIENT_INVITE)


async def links(view: View) -> Response:
    """The list, and the form."""
    return await _page(view)


async def change(view: View) -> Response:
    """Give a link, which is shown once, or take one back."""
    key = view.part("key")
    if id := view.field("revoke", 64):
        await view.frame.inner.call(view.request, "DELETE", f"/invitations/{id}")
        return RedirectResponse(f"/web/patients/{key}/links?notice=revoked", 303)
    phone = view.field("phone", 40)
    asked = {"patient_key": key, "factor": "otp", "phone": phone, "send": True, "lang": view.language.code}
    try:
        given = await view.post("/invitations", asked)
    except Refused as refused:
        if refused.told.status != 400:
            raise
        return await _page(view, fault=True, phone=phone, status=422)
    return await _page(view, url=given["url"])


async def _page(view: View, *, url: str = "", fault: bool = False, phone: str = "", status: int = 200) -> Response:
    key = view.part("key")
    found = (await view.get(f"/patients/{key}/invitations"))["invitations"]
    rows = [{"opened": "", **row} for row in found]
    return view.render(
        "links.html", status=status, key=key, rows=rows, url=url, fault=fault, phone=phone, switch_url=""
    )
