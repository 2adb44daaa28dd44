"""What a subscriber is sent: bundles of the Subscriptions R5 Backport IG for R4 (STU 1.1). Pure.

The first entry is the SubscriptionStatus as Parameters (backport-subscription-status-r4); what an event is about is
named by its address alone (`id-only`), and read by whoever may.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from consumers.fhir.codes import Resource
from consumers.fhir.subscription import IG

STATUS_PROFILE: Final = IG + "backport-subscription-status-r4"
BUNDLE_PROFILE: Final = IG + "backport-subscription-notification-r4"
ERRORS: Final = "urn:sijil:subscription-error"

HANDSHAKE, HEARTBEAT, NOTIFICATION, QUERY = "handshake", "heartbeat", "event-notification", "query-status"


@dataclass(frozen=True)
class About:
    """A subscription as its status tells of it."""

    base: str
    """URL of the FHIR door."""
    id: str
    topic: str
    status: str
    events: int
    """Since the subscription began."""
    error: str = ""

    @property
    def address(self) -> str:
        """Of the subscription."""
        return f"{self.base}/Subscription/{self.id}"


@dataclass(frozen=True)
class Happened:
    """An event. `focus`: `DiagnosticReport/<id>` or `ImagingStudy/<uid>`; `new`: made, not changed, by it."""

    number: int
    timestamp: str
    focus: str
    new: bool


def status(about: About, kind: str, event: Happened | None = None) -> Resource:
    """SubscriptionStatus (R5) as Parameters."""
    told: list[dict[str, Any]] = [
        {"name": "subscription", "valueReference": {"reference": about.address}},
        {"name": "topic", "valueCanonical": about.topic},
        {"name": "status", "valueCode": about.status},
        {"name": "type", "valueCode": kind},
        {"name": "events-since-subscription-start", "valueString": str(about.events)},
    ]
    if event is not None:
        parts = [
            {"name": "event-number", "valueString": str(event.number)},
            {"name": "timestamp", "valueInstant": event.timestamp},
            {"name": "focus", "valueReference": {"reference": f"{about.base}/{event.focus}"}},
        ]
        told.append({"name": "notification-event", "part": parts})
    if about.error:
        coded = {"coding": [{"system": ERRORS, "code": about.error}]}
        told.append({"name": "error", "valueCodeableConcept": coded})
    return {"resourceType": "Parameters", "meta": {"profile": [STATUS_PROFILE]}, "parameter": told}


def bundle(about: About, kind: str, *, id: str, moment: str, event: Happened | None = None) -> Resource:
    """A notification. `id`: a UUID, the same for every attempt at it; `moment`: FHIR instant."""
    told = {"id": id, **status(about, kind, event)}
    entries: list[Resource] = [
        {
            "fullUrl": f"urn:uuid:{id}",
            "resource": told,
            "request": {"method": "GET", "url": f"{about.address}/$status"},
            "response": {"status": "200"},
        }
    ]
    if event is not None:
        method, url = ("POST", event.focus.partition("/")[0]) if event.new else ("PUT", event.focus)
        entries.append(
            {
                "fullUrl": f"{about.base}/{event.focus}",
                "request": {"method": method, "url": url},
                "response": {"status": "201" if event.new else "200"},
            }
        )
    return {
        "resourceType": "Bundle",
        "id": id,
        "meta": {"profile": [BUNDLE_PROFILE]},
        "type": "history",
        "timestamp": moment,
        "entry": entries,
    }


def answer(about: About, here: str) -> Resource:
    """What `$status` answers."""
    told = {"id": about.id, **status(about, QUERY)}
    return {
        "resourceType": "Bundle",
        "type": "searchset",
        "total": 1,
        "link": [{"relation": "self", "url": here}],
        "entry": [{"fullUrl": f"urn:uuid:{about.id}", "resource": told, "search": {"mode": "match"}}],
    }
