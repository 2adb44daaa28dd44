"""A delivery that is owed, and how an attempt at it can end. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from schemas.errors import Transient
from schemas.events import Event, ReportIssued

STUDY, REPORT, PATIENT, SUBSCRIPTION = "study/", "report/", "patient/", "subscription/"
"""How subjects begin: `study/<StudyInstanceUID>`, `report/<report id>`, `patient/<patient key>` (comes to deliveries
of studies), `subscription/<id>` (all in one order).
"""


def about(event: Event) -> str:
    """The study or report that an event is of, as a subject."""
    if isinstance(event, ReportIssued):
        return REPORT + event.report_id
    return STUDY + event.key()


@dataclass(frozen=True)
class Entry:
    """One delivery that is owed."""

    id: str
    """UUID, the same at every attempt, after every restart: the idempotency key of whoever is called."""
    destination: str
    subject: str
    event: Event
    """Why: what happened. For a delivery that a person asked for again, what had happened."""
    recorded: datetime
    """When the log took the event, or when it was asked for again: deliveries of a subject go in this order."""
    topic: str = ""
    partition: int = 0
    offset: int = 0
    asked_by: str = ""
    """Who asked for it again; empty: the log did."""

    @property
    def order(self) -> tuple[datetime, int, str]:
        """Before which entries of its subject it goes: a subject's events are in one partition, or are rare."""
        return self.recorded, self.offset, self.id

    @property
    def about(self) -> str:
        """The study or report that it is about, as `study/…` or `report/…`."""
        if not self.subject.startswith(SUBSCRIPTION):
            return self.subject
        return about(self.event)


@dataclass(frozen=True)
class Delivered:
    """The destination has it, and has said so."""

    version: int = 0
    """Of the report, where that is another than the event's."""


@dataclass(frozen=True)
class Waiting:
    """It cannot be delivered yet, and that is not the destination's fault: it does not know the patient, or the archive
    has no study for the report. Asked again, and shown.
    """

    reason: str


@dataclass(frozen=True)
class Refused:
    """The destination will not take this, however often: set aside until a person looks. What follows goes on."""

    reason: str


class Away(Transient):
    """The destination is away or busy, or has failed: tried again with back-off, and counted for its circuit."""

    def __init__(self, reason: str, retry_after_s: float = 0.0) -> None:
        """`reason`: a short code, for rows and events. `retry_after_s`: what the destination asked for."""
        super().__init__(f"the destination has not taken it: {reason}")
        self.reason, self.retry_after_s = reason, retry_after_s


@dataclass(frozen=True)
class NotNeeded:
    """There is nothing to hand over: what happened does not show at this destination."""


@dataclass(frozen=True)
class Instead:
    """It comes to deliveries of these subjects, for the same event; and what waits may be known now."""

    subjects: tuple[str, ...]


Outcome = Delivered | NotNeeded | Waiting | Refused | Instead
