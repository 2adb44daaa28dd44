"""device.*, endpoint.* → what people decided of the AE table and of where notifications may go, newest first.

The history alone: what holds is state (`ae_titles`, `subscription_endpoints`), which the doors read.
"""

from __future__ import annotations

import msgspec

from schemas.events import (
    Device,
    DeviceChanged,
    DeviceRegistered,
    DeviceRemoved,
    EndpointApproved,
    EndpointWithdrawn,
)
from schemas.tables import Upsert, Write
from streams.facts import Fact


def device(fact: Fact, event: DeviceRegistered | DeviceChanged | DeviceRemoved) -> list[Write]:
    """A row for each decision, with the device as JSON before and after it."""
    before = "" if isinstance(event, DeviceRegistered) else _json(event.before)
    after = "" if isinstance(event, DeviceRemoved) else _json(event.after)
    return [_row(fact, "device", event, event.ae_title, before, after)]


def endpoint(fact: Fact, event: EndpointApproved | EndpointWithdrawn) -> list[Write]:
    """The same; an address has nothing that could be another."""
    return [_row(fact, "endpoint", event, event.prefix, "", "")]


def _json(device: Device) -> str:
    return msgspec.json.encode(device).decode()


def _row(
    fact: Fact,
    kind: str,
    event: DeviceRegistered | DeviceChanged | DeviceRemoved | EndpointApproved | EndpointWithdrawn,
    subject: str,
    before: str,
    after: str,
) -> Upsert:
    key = {"kind": kind, "year": fact.day[:4], "moment": fact.log_time, "event_id": fact.id}
    columns = {
        "subject": subject,
        "what": event.TYPE.split(".")[1],
        "before": before,
        "after": after,
        "actor": event.actor,
        "recorded": event.recorded,
    }
    return Upsert("register_changes", key, columns, fact.offset)
