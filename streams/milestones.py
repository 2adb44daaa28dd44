"""Steps of a report's way, from facts: when a study was ordered, opened, reported, delivered and read. Pure.

A row is one time that a step was taken; the first one counts. So no row is ever overwritten, whatever order topics come
in. Arrival and completion stand in `studies`, deliveries in `deliveries_by_report`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from schemas.events import AccessGranted, OrderCancelled, OrderChanged, OrderPlaced, ReportIssued, Shown
from schemas.lifecycle import SIGNED
from schemas.roles import Role
from schemas.tables import Upsert, Write
from streams.facts import Fact

TABLE: Final = "milestones"
ORDERED, OPENED, PRELIMINARY, FINAL, READ = "ordered", "opened", "preliminary", "final", "read"
OPENERS: Final = frozenset({Role.RADIOLOGIST, Role.RESIDENT})
OPENING: Final = frozenset({"retrieve", "retrieve-frames", "retrieve-rendered", "dicom-get", "dicom-move"})
"""Actions of looking at images."""
READERS: Final = frozenset({Role.DOCTOR, Role.PATIENT})
READING: Final = "read-report"


def milestone(fact: Fact, study_uid: str, step: str, of: str, kind: str = "") -> Upsert:
    """A step that a study took when `fact` came into the log. `of`: report, version of an order, or role; `kind`: more
    on it.
    """
    key = {"study_uid": study_uid, "step": step, "at": fact.log_ms, "of": of}
    return Upsert(TABLE, key, {"kind": kind}, fact.offset)


def of_order(fact: Fact, event: OrderPlaced | OrderChanged | OrderCancelled) -> list[Write]:
    """Each version, with its priority: the first one is when it was ordered, the last one how urgent it is."""
    return [milestone(fact, event.study_uid, ORDERED, f"{event.version:06d}/{event.order_id}", event.priority)]


def of_report(fact: Fact, event: ReportIssued) -> list[Write]:
    """A report is preliminary, or signed."""
    step = FINAL if event.status in SIGNED else PRELIMINARY if event.status == PRELIMINARY else ""
    return [milestone(fact, uid, step, event.report_id) for uid in dict.fromkeys(event.study_uids)] if step else []


def of_access(fact: Fact, event: AccessGranted, listed: Iterable[Shown] = ()) -> list[Write]:
    """A radiologist opens the images; a doctor or the patient reads the report."""
    step = ""
    if event.role in OPENERS and event.action in OPENING:
        step = OPENED
    elif event.role in READERS and event.action == READING:
        step = READ
    if not step:
        return []
    shown = {s.study_uid for s in (*event.shown, *listed)} | {event.study_uid or ""}
    return [milestone(fact, uid, step, event.role) for uid in sorted(shown - {""})]
