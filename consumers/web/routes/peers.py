"""The AE table: who may connect by DICOM. Whoever may change it adds, changes and removes devices here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any
from urllib.parse import urlencode

from starlette.responses import RedirectResponse, Response

from consumers.web.frame import Frame, View
from consumers.web.inner import Refused
from infra.ae_table import ANY, GIVEN, Ae
from schemas.errors import NotFound
from schemas.roles import Permission

CHANGES = 20
SHOWN = ("host", "port", "site", "role", "issuer", "certificate", "tls")


def add(frame: Frame) -> None:
    """Register the pages."""
    frame.get("/web/peers", peers, Permission.AE_READ)
    frame.get("/web/peers/one", one, Permission.AE_WRITE)
    frame.post("/web/peers/one", save, Permission.AE_WRITE)
    frame.post("/web/peers/removed", remove, Permission.AE_WRITE)


async def peers(view: View) -> Response:
    """The whole table, and what was decided of it and of where notifications may go."""
    decided = [
        {**c, "kind": kind, "differs": differs(c.get("before"), c.get("after"))}
        for kind in ("device", "endpoint")
        for c in (await view.get("/ae/changes", kind=kind, limit=str(CHANGES)))["changes"]
    ]
    decided.sort(key=lambda c: str(c["moment"]), reverse=True)
    rows = (await view.get("/ae"))["ae"]
    return view.render("peers.html", rows=rows, any_title=ANY, decided=decided[:CHANGES])


def differs(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> list[tuple[str, str, str]]:
    """(what, as it was, as it is) of a device that was changed: what is another; empty: none, or no."""
    if before is None or after is None:
        return []
    pairs = ((name, _said(before.get(name)), _said(after.get(name))) for name in SHOWN)
    return [(name, old, new) for name, old, new in pairs if old != new]


def _said(value: object) -> str:
    return "✓" if value is True else str(value or "")


async def one(view: View) -> Response:
    """The form of a device; without a title an empty one."""
    title = view.option("title", 16)
    if not title:
        return _form(view, asdict(Ae("", "", 0)), known=False)
    rows = (await view.get("/ae"))["ae"]
    found = next((r for r in rows if r["ae_title"] == title and title != ANY), None)
    if found is None:
        raise NotFound("no such device is registered")
    return _form(view, found, known=True)


async def save(view: View) -> Response:
    """Add or replace; a fault is shown above the form as it was filled in."""
    asked = filled(view)
    try:
        await view.post("/ae", asked)
    except Refused as refused:
        if refused.told.status != 400:
            raise
        known = asked["ae_title"] in {r["ae_title"] for r in (await view.get("/ae"))["ae"]}
        return _form(view, asked, known=known, fault=refused.told.json().get("reason", "value"))
    return RedirectResponse("/web/peers?notice=saved", 303)


async def remove(view: View) -> Response:
    """It may connect no more."""
    await view.frame.inner.call(view.request, "DELETE", "/ae", options={"title": view.field("title", 16)})
    return RedirectResponse(f"/web/peers?{urlencode({'notice': 'saved'})}", 303)


def filled(view: View) -> dict[str, Any]:
    """What the form was sent with. A port that is no number is one that nothing can have."""
    port = view.field("port", 8)
    texts = {n: view.field(n, 200) for n in ("host", "site", "role", "issuer", "certificate")}
    number = int(port) if port.isascii() and port.isdigit() else -1 if port else 0
    return {"ae_title": view.field("title", 16), **texts, "port": number, "tls": bool(view.field("tls", 8))}


def _form(view: View, ae: Mapping[str, Any], *, known: bool, fault: str = "") -> Response:
    roles = [(r, view.language.or_code("ae-role", r)) for r in GIVEN]
    return view.render("peer.html", status=422 if fault else 200, ae=ae, known=known, fault=fault, roles=roles)
