"""Critical results whose time is over: whose turn it is next. Pure; a rebuild reads what was decided from the log.

A row is one of `criticals_open`. Deciding again gives the same event: its id is made of the result and the contact.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from schemas.events import CriticalEscalated
from schemas.identity import derived_id
from schemas.lifecycle import CRITICAL_TRANSITIONS
from streams.effects import Emit
from streams.facts import milliseconds, rfc3339_of

TABLE = "criticals_open"


def state(row: Mapping[str, Any]) -> str:
    """`raised`, `escalated` or, of a row that only an overtaken event has made, `acknowledged`."""
    if row.get("contacts") is None:
        return "acknowledged"
    return "escalated" if row["level"] else "raised"


def escalations(rows: Iterable[Mapping[str, Any]], now: datetime) -> list[Emit]:
    """Those that go to the next contact now. Past the last one a result stays with them, and overdue."""
    emits = []
    for row in rows:
        if "escalated" not in CRITICAL_TRANSITIONS[state(row)]:
            continue
        level = row["level"] + 1
        if datetime.fromisoformat(row["due"]) > now or level >= len(row["contacts"]):
            continue
        event = CriticalEscalated(
            critical_id=row["critical_id"],
            report_id=row["report_id"],
            version=row["version"],
            study_uids=list(row["study_uids"]),
            site=row["site"],
            level=level,
            contact=row["contacts"][level],
            due=rfc3339_of(milliseconds(now + timedelta(seconds=row["within_s"]))),
        )
        emits.append(Emit(event, derived_id(event.TYPE, event.critical_id, level), event.report_id))
    return emits
