"""What is owed to the health record and other destinations, and "try now"."""

from __future__ import annotations

from starlette.responses import RedirectResponse, Response

from consumers.web.frame import Frame, View
from schemas.roles import Permission

SHOWN = "200"


def add(frame: Frame) -> None:
    """Register the pages."""
    frame.get("/web/deliveries", deliveries, Permission.DELIVERY_READ)
    frame.post("/web/deliveries", again, Permission.DELIVERY_WRITE)


async def deliveries(view: View) -> Response:
    """Everything open, the oldest first."""
    found = await view.get("/deliveries", limit=SHOWN)
    return view.render(
        "deliveries.html", rows=found["deliveries"], destinations=found["destinations"], more=found["more"]
    )


async def again(view: View) -> Response:
    """One report or study again, or all of a destination."""
    names = {n: value for n in ("report_id", "study_uid") if (value := view.field(n, 64))}
    await view.post(f"/deliveries/{view.field('destination', 64)}", names)
    return RedirectResponse("/web/deliveries", 303)
