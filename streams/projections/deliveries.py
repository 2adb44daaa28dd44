"""report.delivered, study.delivered → who has what, and since when."""

from __future__ import annotations

from schemas.events import ReportDelivered, StudyDelivered
from schemas.tables import Upsert, Write
from streams.facts import Fact


def report_delivered(fact: Fact, event: ReportDelivered) -> list[Write]:
    """A delivery is one row, however often it is told."""
    key = {
        "report_id": event.report_id,
        "version": event.version,
        "destination": event.destination,
        "delivery_id": event.delivery_id,
    }
    return [Upsert("deliveries_by_report", key, _when(event), fact.offset)]


def study_delivered(fact: Fact, event: StudyDelivered) -> list[Write]:
    """The same for a study."""
    key = {"study_uid": event.study_uid, "destination": event.destination, "delivery_id": event.delivery_id}
    return [Upsert("deliveries_by_study", key, _when(event), fact.offset)]


def _when(event: ReportDelivered | StudyDelivered) -> dict[str, str | int]:
    return {"occurred": event.occurred, "attempt": event.attempt}
