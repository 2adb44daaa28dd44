"""Somebody of the staff: registering them, what they do and where, and that they have left."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from starlette.responses import RedirectResponse, Response

from consumers.web.frame import Frame, View
from consumers.web.inner import Refused
from schemas.caller import ALL_SITES
from schemas.identity import NATIONAL_ISSUER
from schemas.people import ROLE_SYSTEM, STAFF, STAFF_NUMBER_SYSTEM
from schemas.roles import Permission, Role

FAULTS: Mapping[int, str] = {400: "value", 409: "taken", 422: "value"}
ROLES = sorted(STAFF)


def add(frame: Frame) -> None:
    """Register the pages."""
    frame.get("/web/people/new", new, Permission.PEOPLE_WRITE)
    frame.post("/web/people/new", save, Permission.PEOPLE_WRITE)
    frame.get("/web/people/{person}", edit, Permission.PEOPLE_WRITE)
    frame.post("/web/people/{person}", save, Permission.PEOPLE_WRITE)


async def new(view: View) -> Response:
    """An empty form, at the caller's site."""
    own = sorted((view.caller.sites if view.caller else frozenset()) - {ALL_SITES})
    site = view.option("site", 64) or (own[0] if own else view.frame.settings.site)
    return _form(view, "", {"sites": site, "active": True}, "")


async def edit(view: View) -> Response:
    """The form with what is known."""
    id = view.part("person")
    practitioner, role = await view.all(f"/fhir/Practitioner/{id}", f"/fhir/PractitionerRole/{id}")
    return _form(view, id, known(practitioner, role), "")


async def save(view: View) -> Response:
    """First who somebody is, then what they do; a fault is shown above the form as it was filled in."""
    id = view.request.path_params.get("person", "")
    try:
        if not id:
            told = await view.post("/fhir/Practitioner", practitioner_of(view, {}))
            id = str(told["id"])
        else:
            before = await view.get(f"/fhir/Practitioner/{id}")
            await view.put(f"/fhir/Practitioner/{id}", practitioner_of(view, before))
        await view.put(f"/fhir/PractitionerRole/{id}", role_of(view, id))
    except Refused as refused:
        fault = FAULTS.get(refused.told.status)
        if fault is None:
            raise
        return _form(view, view.request.path_params.get("person", ""), filled(view), fault)
    site = next(iter(_list(view.field("sites"))), "")
    return RedirectResponse(f"/web/people?site={site}&notice=saved", 303)


def practitioner_of(view: View, before: Mapping[str, Any]) -> dict[str, Any]:
    """FHIR R4 Practitioner of the form; what the form does not ask for stays as it was."""
    numbers = {NATIONAL_ISSUER: view.field("national-id", 40), STAFF_NUMBER_SYSTEM: view.field("staff-number", 64)}
    others = [i for i in before.get("identifier", []) if i.get("system") not in numbers]
    names = [{"text": text} for field in ("name", "latin") if (text := view.field(field, 200))]
    return {
        **before,
        "resourceType": "Practitioner",
        "active": not view.field("left", 8),
        "identifier": [*({"system": s, "value": v} for s, v in numbers.items() if v), *others],
        "name": names,
    }


def role_of(view: View, id: str) -> dict[str, Any]:
    """FHIR R4 PractitionerRole of the form."""
    return {
        "resourceType": "PractitionerRole",
        "active": not view.field("left", 8),
        "practitioner": {"reference": f"Practitioner/{id}"},
        "code": [{"coding": [{"system": ROLE_SYSTEM, "code": r}]} for r in ROLES if view.field(f"role-{r}", 8)],
        "location": [{"reference": f"Location/{s}"} for s in _list(view.field("sites"))],
        "specialty": [{"coding": [{"code": c}]} for c in _list(view.field("specialties"))],
    }


def known(practitioner: Mapping[str, Any], role: Mapping[str, Any]) -> dict[str, Any]:
    """What the form shows of the two resources."""
    names = [n.get("text") or " ".join([*n.get("given", []), n.get("family", "")]) for n in practitioner["name"]]
    numbers = {i["system"]: i["value"] for i in practitioner["identifier"]}
    return {
        "name": next(iter(names), ""),
        "latin": next(iter(names[1:]), ""),
        "national_id": numbers.get(NATIONAL_ISSUER, ""),
        "staff_number": numbers.get(STAFF_NUMBER_SYSTEM, ""),
        "roles": [c["coding"][0]["code"] for c in role["code"]],
        "sites": " ".join(x["reference"].removeprefix("Location/") for x in role["location"]),
        "specialties": " ".join(c["coding"][0]["code"] for c in role["specialty"]),
        "active": practitioner["active"] and role["active"],
    }


def filled(view: View) -> dict[str, Any]:
    """What the form was sent with."""
    names = {"national_id": "national-id", "staff_number": "staff-number"}
    texts = {n: view.field(names.get(n, n)) for n in (*_TEXTS, *names)}
    return {**texts, "roles": [r for r in ROLES if view.field(f"role-{r}", 8)], "active": not view.field("left", 8)}


_TEXTS = ("name", "latin", "sites", "specialties")


def _form(view: View, id: str, shown: Mapping[str, Any], fault: str) -> Response:
    blank = {**dict.fromkeys((*_TEXTS, "national_id", "staff_number"), ""), "roles": []}
    return view.render(
        "person.html",
        status=422 if fault else 200,
        id=id,
        who={**blank, **shown},
        fault=fault,
        roles=[(str(r), view.language.or_code("role", str(r))) for r in ROLES if r is not Role.LOCAL],
    )


def _list(text: str) -> list[str]:
    """Words between blanks or commas, also Arabic ones."""
    return [w for w in re.split(r"[\s,،]+", text) if w]
