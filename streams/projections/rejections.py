"""study.instance-rejected → the list of what the doors refused, by the day they refused it."""

from __future__ import annotations

from schemas.events import InstanceRejected
from schemas.tables import Upsert, Write
from streams.facts import Fact


def rejected(fact: Fact, event: InstanceRejected) -> list[Write]:
    """The day is the gateway's: a record that comes twice is the same row."""
    day = event.received[:10].replace("-", "")
    columns = {
        "reason": event.reason,
        "site": event.site,
        "gateway": event.gateway,
        "door": event.door,
        "received": event.received,
        "size": event.size,
        "sha256": event.sha256 or "",
        "study_uid": event.study_uid or "",
        "sop_uid": event.sop_uid or "",
        "sop_class": event.sop_class or "",
        "calling_ae": event.calling_ae,
    }
    return [Upsert("rejections", {"day": day, "rejection_id": event.rejection_id}, columns, fact.offset)]
