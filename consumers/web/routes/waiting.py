"""Results of hospitals that are of no study yet, and which study a person says they are of."""

from __future__ import annotations

from typing import Any

from starlette.responses import RedirectResponse, Response

from consumers.web.frame import Frame, View
from consumers.web.inner import Refused
from consumers.web.show import day, person_text
from schemas.roles import Permission

REASONS = ("duplicate", "not-ours", "test-message", "sent-again")
"""Why one is dismissed, as offered."""


def add(frame: Frame) -> None:
    """Register the pages."""
    frame.get("/web/results-waiting", waiting, Permission.RESULT_READ)
    frame.post("/web/results-waiting", decide, Permission.RESULT_WRITE)


async def waiting(view: View) -> Response:
    """Everything that waits, the oldest first."""
    return await _page(view)


async def decide(view: View) -> Response:
    """One of them is filed or dismissed; what was wrong is said beside the list."""
    decision = view.field("decision", 8)
    body = {"decision": decision}
    body |= {"study_uid": view.field("study_uid", 64)} if decision == "file" else {"reason": view.field("reason", 64)}
    try:
        await view.post(f"/results-waiting/{view.field('waiting_id', 36)}", body)
    except Refused as refused:
        if refused.told.status not in (400, 404):
            raise
        return await _page(view, fault="study" if decision == "file" else "gone")
    return RedirectResponse("/web/results-waiting", 303)


async def _page(view: View, fault: str = "") -> Response:
    found = await view.get("/results-waiting")
    rows: list[dict[str, Any]] = [
        {
            **row,
            "name": person_text(row.get("patient_name", ""), view.language.code),
            "born": day(row.get("birth_date")),
        }
        for row in found["results"]
    ]
    return view.render(
        "results_waiting.html",
        status=422 if fault else 200,
        rows=rows,
        more=found["more"],
        fault=fault,
        reasons=REASONS,
    )
