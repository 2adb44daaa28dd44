"""The order doors by HTTP: who may place and change what, versions, cancelling, and slips with a PIN."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from infra.chain import ChainedLog
from infra.http_door import HttpDoor, compose
from infra.memory import MemoryLog, MemoryObjects
from infra.settings import Settings
from producers import order_door, orders
from schemas.caller import Caller
from schemas.orders import resource
from schemas.pin import matches
from schemas.roles import Role
from schemas.slips import decode_slip, slip_key
from tests.unit.schemas.test_orders import WHOLE

ID = WHOLE.order_id
CLERK = Caller("person:c-1", Role.CLERK, "TREAT", frozenset({"CAI-01"}), "c-1")
DOCTOR = Caller("person:dr-9", Role.DOCTOR, "TREAT", frozenset(), "dr-9")


class World:
    """An order door over the ports in memory, and who calls."""

    def __init__(self, folder: Path) -> None:
        self.objects, self.caller = MemoryObjects(), CLERK
        self.settings = Settings(home=folder, loopback_role="local")
        self.chain = ChainedLog(MemoryLog(), folder / "chain", "/api/LOCAL/1", backlog_max=100, anchors=None)
        self.denied: list[str] = []
        door = HttpDoor(self.settings, log=MemoryLog(), chain=self.chain, objects=self.objects)

        async def identify(scope: Any) -> Caller:
            return self.caller

        async def denied(caller: Caller, permission: str, reason: str, study_uid: str, patient_key: str) -> str:
            self.denied.append(reason)
            return "a-1"

        door.gate.identify = identify  # type: ignore[method-assign]
        door.gate.denied = denied
        self.app: FastAPI = compose(door, [order_door.register])

    def send(self, method: str, path: str, body: bytes = b"", **headers: str) -> httpx.Response:
        async def go() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://archive") as client:
                kind = {"Content-Type": "application/fhir+json"}
                named = {n.replace("_", "-"): v for n, v in headers.items()}
                return await client.request(method, path, content=body, headers=kind | named)

        return asyncio.run(go())


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(orders, "ACKNOWLEDGED_S", 0.0)
    it = World(tmp_path)
    yield it
    it.chain.close(0.1)


def document(**changes: Any) -> bytes:
    return json.dumps(
        resource(replace(WHOLE, **{"order_id": "", "study_uid": "", "accession": "", **changes}))
    ).encode()


def test_placed_changed_and_cancelled(world: World) -> None:
    placed = world.send("POST", "/fhir/ServiceRequest", document())
    assert placed.status_code == 201
    told = placed.json()
    assert set(told) == {"id", "version", "status", "site", "accession", "study_uid"}
    at = placed.headers["location"]
    assert at == f"/fhir/ServiceRequest/{told['id']}"
    assert world.send("POST", "/fhir/ServiceRequest", document()).status_code == 200
    later = document(scheduled="2026-12-01")
    assert world.send("PUT", at, later).status_code == 428
    assert world.send("PUT", at, later, If_Match='W/"7"').status_code == 412
    changed = world.send("PUT", at, later, If_Match=placed.headers["etag"])
    assert (changed.status_code, changed.headers["etag"]) == (200, 'W/"2"')
    assert changed.json()["accession"] == told["accession"]
    ended = world.send("POST", f"/orders/{told['id']}/cancellation", b'{"reason":"patient-away"}')
    assert (ended.status_code, ended.json()["status"], ended.json()["version"]) == (200, "revoked", 3)
    assert world.send("PUT", at, later, If_Match='W/"3"').status_code == 409


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "reason"),
    [
        ("POST", "/fhir/ServiceRequest", b"{", 400, "order-json"),
        ("PUT", "/fhir/ServiceRequest/x", document(), 400, "order-id"),
        ("PUT", f"/fhir/ServiceRequest/{ID}", document(order_id="other"), 400, "order-id"),
        ("PUT", f"/fhir/ServiceRequest/{ID}", document(accession="1" * 17), 400, "order-accession"),
        ("POST", f"/orders/{ID}/cancellation", b'{"why":1}', 400, "order-cancellation"),
        ("POST", f"/orders/{ID}/cancellation", b"", 404, None),
        ("POST", f"/orders/{ID}/slips", b"", 404, None),
    ],
)
def test_what_cannot_be_is_refused(
    world: World, method: str, path: str, body: bytes, status: int, reason: str | None
) -> None:
    answer = world.send(method, path, body)
    assert (answer.status_code, answer.json().get("reason")) == (status, reason)


def test_another_media_type(world: World) -> None:
    assert world.send("POST", "/fhir/ServiceRequest", document(), Content_Type="text/xml").status_code == 415


def test_a_clerk_orders_for_their_site_alone(world: World) -> None:
    told = world.send("POST", "/fhir/ServiceRequest", document(site="")).json()
    assert told["site"] == "CAI-01", "the only site of who orders"
    elsewhere = world.send("POST", "/fhir/ServiceRequest", document(site="ALX-01"))
    assert (elsewhere.status_code, elsewhere.json()["reason"]) == (403, "scope")
    world.caller = replace(CLERK, sites=frozenset({"ALX-01"}))
    moved = world.send("PUT", f"/fhir/ServiceRequest/{told['id']}", document(site="ALX-01"), If_Match='W/"1"')
    assert moved.status_code == 403, "what is another site's is not taken over"
    assert world.send("POST", f"/orders/{told['id']}/cancellation").status_code == 403
    assert world.send("POST", f"/orders/{told['id']}/slips").status_code == 403
    assert world.denied == ["scope"] * 4


def test_a_doctor_orders_in_their_own_name(world: World) -> None:
    world.caller = DOCTOR
    assert world.send("POST", "/fhir/ServiceRequest", document()).status_code == 201
    answer = world.send("POST", "/fhir/ServiceRequest", document(requester="dr-8", placer="P-2"))
    assert answer.status_code == 403
    assert "Practitioner/dr-9" in answer.json()["detail"]


def test_a_reader_may_not_order(world: World) -> None:
    world.caller = replace(CLERK, role=Role.RADIOLOGIST)
    assert world.send("POST", "/fhir/ServiceRequest", document()).status_code == 403


def test_a_slip_has_a_pin_that_nobody_keeps(world: World) -> None:
    id = world.send("POST", "/fhir/ServiceRequest", document()).json()["id"]
    first, second = (world.send("POST", f"/orders/{id}/slips") for _ in range(2))
    assert (first.status_code, first.headers["cache-control"]) == (201, "private, no-store")
    assert [a.json()["number"] for a in (first, second)] == [1, 2]
    pin = second.json()["pin"]
    assert len(pin) == 6
    assert pin.isdigit()
    data = world.objects.get(world.settings.bucket_documents, slip_key(id, 2))
    slip = decode_slip(data)
    assert (slip.order_id, slip.number, slip.issued_by) == (id, 2, "person:c-1")
    assert slip.pin.startswith("scrypt$")
    assert matches(pin, slip.pin)
    assert not matches(first.json()["pin"] if first.json()["pin"] != pin else "x", slip.pin)
