"""An order on the real servers: placed, listed, moved to another day, on a slip, cancelled; no name on the log."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import httpx
import pytest

from infra.kafka import KafkaLog
from schemas.orders import resource
from tests.archive import wait_until
from tests.local_stack import LocalStack
from tests.stack.test_identity import Door
from tests.unit.schemas.test_orders import WHOLE

pytestmark = pytest.mark.connected

SITE, PLACER = "CAI-77", "P-900418"
NAME = "قناري الطلبات"


def test_from_the_desk_to_the_list_and_back(whole: LocalStack) -> None:
    door = Door(whole)
    clerk = door.token("clerk", "--site", SITE)
    said = replace(WHOLE, order_id="", study_uid="", accession="", site="", placer=PLACER, patient_name=NAME)

    def send(method: str, path: str, order: Any = None, **headers: str) -> Any:
        body = b"" if order is None else json.dumps(resource(order)).encode()
        kind = {"Content-Type": "application/fhir+json"}
        return httpx.request(method, door.base + path, content=body, headers=kind | clerk | headers, timeout=30)

    placed = send("POST", "/fhir/ServiceRequest", said)
    assert placed.status_code == 201, placed.text
    told = placed.json()
    assert send("POST", "/fhir/ServiceRequest", said).json() == told

    def day(on: str) -> Any:
        return door.ask(clerk, f"/orders?day={on}").json()["orders"]

    (order,) = wait_until(lambda: day("20261123"), 30, "the order is listed")
    assert (order["accession"], order["patient_name"], order["state"]) == (told["accession"], NAME, "waiting")
    moved = replace(said, scheduled="2026-11-24")
    changed = send("PUT", f"/fhir/ServiceRequest/{told['id']}", moved, **{"If-Match": 'W/"1"'})
    assert changed.json()["version"] == 2
    assert [o["version"] for o in wait_until(lambda: day("20261124"), 30, "it is listed on its new day")] == [2]
    assert day("20261123") == []
    slip = send("POST", f"/orders/{told['id']}/slips").json()
    assert len(slip["pin"]) == 6
    assert send("POST", f"/orders/{told['id']}/cancellation").json()["status"] == "revoked"
    wait_until(lambda: door.ask(clerk, f"/orders/{told['id']}").json()["state"] == "cancelled", 30, "it is cancelled")

    log = KafkaLog(whole.settings("operator"))
    try:
        records = [r for r in log.read("sijil.orders", {}, log.ends("sijil.orders")) if r.key == told["id"].encode()]
    finally:
        log.close()
    assert len({dict(r.headers)["ce_id"] for r in records}) == 3
    values = b"".join(r.value or b"" for r in records)
    for secret in (NAME, WHOLE.patient_id, told["accession"], WHOLE.phone):
        assert secret.encode() not in values
