"""How an attempt ended, as an event. Pure."""

from __future__ import annotations

from typing import Any

from consumers.delivery.entry import REPORT, STUDY, Entry
from schemas.errors import Defect
from schemas.events import Event, ReportDelivered, ReportDeliveryFailed, StudyDelivered, StudyDeliveryFailed
from schemas.identity import derived_id


def ended(
    entry: Entry, attempt: int, occurred: str, *, version: int = 0, reason: str = "", will_retry: bool = False
) -> tuple[Event, str]:
    """(event, its id). Without a reason it was delivered. `version`: of the report, if another than the event's."""
    told: dict[str, Any] = {
        "delivery_id": entry.id,
        "destination": entry.destination,
        "attempt": attempt,
        "occurred": occurred,
    }
    if reason:
        told |= {"reason": reason, "will_retry": will_retry}
    event: Event
    if entry.about.startswith(REPORT):
        told["report_id"] = entry.about.removeprefix(REPORT)
        told["version"] = version or getattr(entry.event, "version", 0) or 1
        event = ReportDeliveryFailed(**told) if reason else ReportDelivered(**told)
    elif entry.about.startswith(STUDY):
        told["study_uid"] = entry.about.removeprefix(STUDY)
        event = StudyDeliveryFailed(**told) if reason else StudyDelivered(**told)
    else:
        raise Defect("a delivery is of a study or of a report")
    return event, derived_id(event.TYPE, entry.id, attempt)
