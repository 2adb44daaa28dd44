"""A patient opens their link: the code to the phone or the PIN of the slip, then their own file."""

from __future__ import annotations

from urllib.parse import quote

from starlette.responses import RedirectResponse, Response

from consumers.web.frame import Frame, View
from consumers.web.inner import Refused

SECRET_MAX = 40
OWN = "/web/own"


def add(frame: Frame) -> None:
    """Register the pages. Nobody has proved anything here yet, so they need no permission."""
    frame.post("/p/logout", logout, None)
    frame.get("/p/closed", closed, None)
    frame.get("/p/{token}", link, None)
    frame.post("/p/{token}", send, None)


async def link(view: View) -> Response:
    """What the link is good for, and the form."""
    return await _form(view)


async def send(view: View) -> Response:
    """A code is asked for, or the secret is given."""
    token = view.part("token")
    try:
        if view.field("do", 8) == "code":
            asked = {"token": token, "lang": view.language.code}
            told = await view.post("/invitations/code", asked)
            return await _form(view, sent=told["phone"])
        body = {"token": token, "secret": view.field("secret", SECRET_MAX)}
        opened = await view.frame.inner.post(view.request, "/invitations/open", body)
    except Refused as refused:
        if refused.told.status not in (400, 403, 429, 503):
            raise
        fault = "busy" if refused.told.status in (429, 503) else refused.told.json().get("reason", "link-secret")
        return await _form(view, fault=fault, status=422)
    answer = RedirectResponse(OWN, 303, {"Cache-Control": "no-store"})
    answer.headers["Set-Cookie"] = opened.headers["set-cookie"]
    return answer


async def logout(view: View) -> Response:
    """The session is over."""
    closed = await view.frame.inner.call(view.request, "POST", "/invitations/close")
    answer = RedirectResponse("/p/closed", 303, {"Cache-Control": "no-store", "Clear-Site-Data": '"cache"'})
    answer.headers["Set-Cookie"] = closed.headers["set-cookie"]
    return answer


async def closed(view: View) -> Response:
    """What there is to see when it is over."""
    return view.render("link_closed.html")


async def _form(view: View, *, sent: str = "", fault: str = "", status: int = 200) -> Response:
    token = view.part("token")
    told = await view.post("/invitations/state", {"token": token[:128]})
    return view.render(
        "link.html",
        status=status if told["state"] == "open" else 200,
        state=told["state"],
        factor=told["factor"],
        phone=told.get("phone", ""),
        sent=sent,
        fault=fault,
        action=f"/p/{quote(token)}",
        switch_url="",
    )
