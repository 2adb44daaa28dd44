"""The clerk's desk: the day's orders, a new one from a scanned card to the patient's slip, changing and cancelling."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from typing import Any
from uuid import UUID

import segno
from markupsafe import Markup
from starlette.responses import RedirectResponse, Response

from consumers.web import order_form, show
from consumers.web.exams import EXAMS, MODALITIES, PRIORITIES
from consumers.web.frame import Frame, View
from consumers.web.inner import Refused
from infra import clock
from schemas.caller import ALL_SITES
from schemas.errors import Invalid
from schemas.orders import Order, resource, revised
from schemas.orders import read as read_order
from schemas.roles import Permission

REASONS = ("not-needed", "patient-away", "examined-elsewhere", "wrong-examination", "wrong-patient")
"""Why an order is cancelled; the last: it should never have been."""
MISTAKE = "wrong-patient"
STATE_KINDS = {
    "waiting": "info",
    "in-progress": "warn",
    "arrived": "warn",
    "done": "good",
    "cancelled": "plain",
    "discontinued": "bad",
    "on-hold": "plain",
    "draft": "plain",
}
LINK_HOURS = 30 * 24
LINK_S, LINK_STEP_S = 3.0, 0.3
"""The patient's link needs the order in the read models: so long it is asked for again."""


def add(frame: Frame) -> None:
    """Register the pages."""
    frame.get("/web/orders", orders, Permission.ORDER_READ)
    frame.get("/web/orders/new", new, Permission.ORDER_WRITE)
    frame.post("/web/orders/new", place, Permission.ORDER_WRITE)
    frame.post("/web/orders/identity", identity, Permission.ORDER_WRITE)
    frame.post("/web/orders/referrers", referrers, Permission.ORDER_WRITE)
    frame.get("/web/orders/{order}", order, Permission.ORDER_READ)
    frame.post("/web/orders/{order}/change", change, Permission.ORDER_WRITE)
    frame.post("/web/orders/{order}/cancel", cancel, Permission.ORDER_WRITE)
    frame.post("/web/orders/{order}/slip", slip, Permission.ORDER_WRITE)


async def orders(view: View) -> Response:
    """Of a site's day, those without an hour first come first."""
    sites = own_sites(view)
    site = view.option("site", 64) or sites[0]
    day = _day(view.option("day", 10)) or today(view)
    accession = view.option("accession", 16)
    asked = {"accession": accession} if accession else {"day": day.strftime("%Y%m%d")}
    found = await view.get("/orders", site=site, **asked)
    rows = sorted((shown(view, r) for r in found["orders"]), key=lambda r: (r["time"], r["recorded"], r["order_id"]))
    counts = {s: sum(r["state"] == s for r in rows) for s in ("waiting", "in-progress", "arrived", "done")}
    return view.render(
        "orders.html",
        rows=rows,
        counts=counts,
        more=found["more"],
        site=site,
        sites=[(s, s) for s in sites],
        day_text=day.isoformat(),
        accession=accession,
        self_url=view.here(),
        kinds=STATE_KINDS,
    )


async def new(view: View) -> Response:
    """An empty form. Its order has its id from now on: sent twice it is one order."""
    blank = {"date": today(view).isoformat(), "priority": "routine", "exam": "", "site": own_sites(view)[0]}
    return form_page(view, blank, str(clock.uuid7()), ())


async def identity(view: View) -> Response:
    """Birth date and sex of the national ID that was just typed or scanned: a piece of the form."""
    found = order_form.identity(view.field("national_id", 500))
    values = {"birth_date": found.birth_date, "sex": found.sex}
    return view.render("order_identity.html", values=values, fault=found.fault, sexes=_sexes(view))


async def referrers(view: View) -> Response:
    """Doctors of the name that was just typed: a piece of the form."""
    found = await _found(view)
    return view.render("order_referrers.html", **_referrers(view, view.form, found))


async def place(view: View) -> Response:
    """Place it, and print the slip; what does not hold is said above the form, which keeps what was typed."""
    order_id = _id(view.field("order_id", 36))
    if view.field("step", 8) in STEPS:
        return form_page(view, _filled(view), order_id, (), await _found(view))
    site = view.field("site", 64)
    found = _read(view, order_id, site if site in own_sites(view) else own_sites(view)[0])
    found, offered = await _with_referrer(view, found, Order())
    if found.faults:
        return form_page(view, view.form, order_id, found.faults, offered)
    told = await view.post("/fhir/ServiceRequest", resource(found.order))
    said = {"accession": told["accession"], "study_uid": told["study_uid"], "site": told["site"]}
    return await _slip(view, order_id, {**_columns(found.order), **said})


async def order(view: View) -> Response:
    """One, with where it stands and what can be done about it."""
    return await _order(view, (), None)


STEPS = ("fill", "find")
"""Buttons of the form that place nothing: Enter, which also ends what a scanner sends; and looking for the doctor."""


async def change(view: View) -> Response:
    """Change it, if nobody else has meanwhile."""
    id = _id(view.part("order"))
    was = await view.get(f"/orders/{id}")
    before = read_order(was["document"])
    if view.field("step", 8) in STEPS:
        return await _order(view, (), _filled(view), await _found(view))
    found, offered = await _with_referrer(view, _read(view, id, before.site), before)
    if found.faults:
        return await _order(view, found.faults, view.form, offered)
    said = revised(was["document"], order_form.changed(found.order, before))
    try:
        headers = {"If-Match": f'W/"{view.field("version", 9)}"'}
        await view.frame.inner.post(view.request, f"/fhir/ServiceRequest/{id}", said, method="PUT", headers=headers)
    except Refused as refused:
        if refused.told.status not in (409, 412):
            raise
        return await _order(view, ("again",), view.form)
    return RedirectResponse(f"/web/orders/{id}?notice=saved", 303)


async def cancel(view: View) -> Response:
    """Cancel it."""
    id, reason = _id(view.part("order")), view.field("why", 32)
    asked = {"reason": reason if reason in REASONS else REASONS[0], "mistake": reason == MISTAKE}
    try:
        await view.post(f"/orders/{id}/cancellation", asked)
    except Refused as refused:
        if refused.told.status != 409:
            raise
        return await _order(view, ("again",), None)
    return RedirectResponse(f"/web/orders/{id}?notice=saved", 303)


async def slip(view: View) -> Response:
    """A new slip: the PIN of the one before opens nothing any more."""
    id = _id(view.part("order"))
    return await _slip(view, id, await view.get(f"/orders/{id}"))


# ------------------------------------------------------------------------------------------------ pieces


def form_page(
    view: View, values: Any, order_id: str, faults: tuple[str, ...], offered: Sequence[Any] | None = None
) -> Response:
    """The form with values in it; `offered`: doctors who were looked for."""
    status = 422 if faults else 200
    fields = _fields(view, values, offered)
    return view.render("order_new.html", status=status, order_id=order_id, faults=faults, **fields)


def _filled(view: View) -> dict[str, str]:
    """The form with what its national ID says."""
    said = order_form.identity(view.field("national_id", 500))
    return {**view.form, **({"birth_date": said.birth_date, "sex": said.sex} if said.birth_date else {})}


async def _found(view: View) -> list[Any]:
    """Doctors of the name in the form."""
    name = view.field("referrer_name", 64)
    found: list[Any] = (await view.get("/referrers", name=name))["referrers"] if name else []
    return found


async def _with_referrer(
    view: View, found: order_form.Read, before: Order
) -> tuple[order_form.Read, Sequence[Any] | None]:
    """An order with the name that the chosen doctor is registered by; a fault where the list that they were chosen from
    was that of another name. (order, doctors to choose from)
    """
    order = found.order
    if not order.requester or order.requester == before.requester:
        return found, None
    offered = await _found(view)
    chosen = next((r for r in offered if r["person_id"] == order.requester), None)
    if chosen is None:
        return replace(found, faults=(*found.faults, "requester")), offered
    named = replace(order, referrer_name=_name_of(view, chosen))
    return replace(found, order=named), offered


def _name_of(view: View, referrer: Any) -> str:
    """In the page's script where there is one."""
    wanted = [n for n in referrer["names"] if order_form.is_arabic(n) == (view.language.code == "ar")]
    return str(next(iter([*wanted, *referrer["names"]]), referrer["person_id"]))


def _referrers(view: View, values: Any, offered: Sequence[Any] | None) -> dict[str, Any]:
    """What the list of doctors shows. `offered`: None where none were looked for."""
    chosen = values.get("requester", "")
    rows = [(r["person_id"], " · ".join((_name_of(view, r), *r["sites"]))) for r in offered or ()]
    if offered is None and chosen:
        rows = [(chosen, values.get("referrer_name", "") or chosen)]
    named = bool(values.get("referrer_name", ""))
    return {"referrers": rows, "chosen": chosen, "nobody": named and offered is not None and not rows}


async def _order(view: View, faults: tuple[str, ...], typed: Any, offered: Sequence[Any] | None = None) -> Response:
    found = await view.get(f"/orders/{_id(view.part('order'))}")
    values = typed or order_form.written(read_order(found["document"]), view.frame.zone)
    text = view.language.text
    return view.render(
        "order.html",
        status=422 if faults else 200,
        r=shown(view, found),
        open=found["state"] in ("waiting", "on-hold", "draft", "in-progress", "discontinued"),
        faults=faults,
        kinds=STATE_KINDS,
        reasons=[(r, text(f"order.reason.{r}")) for r in REASONS],
        typed=typed is not None,
        **_fields(view, values, offered),
    )


async def _slip(view: View, order_id: str, row: Any) -> Response:
    printed = await view.post(f"/orders/{order_id}/slips", {})
    link = await _link(view, order_id)
    return view.render(
        "slip.html",
        r=shown(view, row),
        order_id=order_id,
        pin=printed["pin"],
        link=link,
        code=_picture(link or row["accession"]),
    )


async def _link(view: View, order_id: str) -> str:
    """Where the patient finds the examination, opened by the slip's PIN; empty where there is none to give."""
    deadline = clock.monotonic() + LINK_S
    while True:
        try:
            told = await view.post(
                "/invitations", {"order_id": order_id, "factor": "pin", "once": False, "hours": LINK_HOURS}
            )
        except Refused as refused:
            if refused.told.status != 404 or clock.monotonic() > deadline:
                return ""
            await asyncio.sleep(LINK_STEP_S)
        else:
            return str(told["url"])


def _picture(text: str) -> Markup:
    """A QR code. What segno makes of its matrix holds nothing of the text."""
    return Markup(segno.make(text, error="m").svg_inline(scale=4, border=2))  # noqa: S704


def shown(view: View, row: Any) -> dict[str, Any]:
    """An order as pages show it."""
    language = view.language.code
    exam = EXAMS.get(row.get("procedure_code", ""))
    at = row.get("scheduled", "")
    return {
        "version": 1,
        "status": "active",
        "state": "waiting",
        "recorded": "",
        "started": "",
        "arrived": [],
        "placer": "",
        **row,
        "name": show.person_text(row["patient_name"], language),
        "born": show.day(row["birth_date"]),
        "exam": exam.text(language) if exam else row["procedure_text"],
        "on": show.day(row.get("day", "")),
        "time": f"{at[8:10]}:{at[10:12]}" if len(at) == 14 else "",
    }


def _columns(found: Order) -> dict[str, Any]:
    """An order that was just placed, as the API will show it."""
    names = ("patient_name", "patient_id", "birth_date", "sex", "phone", "modality", "procedure_code", "procedure_text")
    at = found.scheduled
    moment = f"{at[:10]}{at[11:19]}".replace("-", "").replace(":", "") if len(at) > len("2026-01-01") else ""
    columns = {n: getattr(found, n) for n in names}
    return {**columns, "day": at[:10].replace("-", ""), "scheduled": moment, "referrer_name": found.referrer_name}


def _fields(view: View, values: Any, offered: Sequence[Any] | None = None) -> dict[str, Any]:
    text, language = view.language.text, view.language.code
    groups = [
        (m, text(f"modality.{m}"), [(e.code, e.text(language)) for e in EXAMS.values() if e.modality == m])
        for m in MODALITIES
    ]
    return {
        "values": {**dict.fromkeys(FIELDS, ""), **values},
        "sexes": _sexes(view),
        "sites": [(s, s) for s in own_sites(view)],
        "groups": [g for g in groups if g[2]],
        "modalities": [("", "—"), *((m, text(f"modality.{m}")) for m in MODALITIES)],
        "priorities": [(p, text(f"priority.{p}")) for p in PRIORITIES],
        **_referrers(view, values, offered),
    }


FIELDS = (
    *("national_id", "local_id", "name", "name_latin", "birth_date", "sex", "phone", "exam", "procedure", "modality"),
    *("body_part", "priority", "date", "time", "referrer_name", "requester", "reason", "site"),
)


def _sexes(view: View) -> list[tuple[str, str]]:
    return [("", "—"), *((s, view.language.text(f"sex.{s}")) for s in ("F", "M", "O"))]


def _read(view: View, order_id: str, site: str) -> order_form.Read:
    form = {**view.form, "language": view.language.code}
    country = view.frame.settings.phone_country
    return order_form.read(form, order_id=order_id, site=site, zone=view.frame.zone, today=today(view), country=country)


def own_sites(view: View) -> list[str]:
    """Sites that somebody orders for; at least the archive's own."""
    own = sorted((view.caller.sites if view.caller else frozenset()) - {ALL_SITES})
    return own or [view.frame.settings.site]


def today(view: View) -> date:
    """Where the archive is."""
    return clock.now().astimezone(view.frame.zone).date()


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def _id(text: str) -> str:
    try:
        return str(UUID(text))
    except ValueError as e:
        raise Invalid("order-id", "the id of an order is a UUID") from e
