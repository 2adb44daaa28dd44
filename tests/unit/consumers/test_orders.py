"""Orders read: a site's day, one order, where it stands, and who sees it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from consumers.api import scope
from consumers.api.order_state import state
from schemas.caller import Caller
from schemas.events import AccessGranted
from schemas.lifecycle import ORDER_TRANSITIONS
from schemas.orders import resource
from schemas.roles import Role
from schemas.tables import Upsert
from tests.unit.consumers.archive import part10
from tests.unit.consumers.order_desk import Desk
from tests.unit.consumers.test_scope import staff
from tests.unit.schemas.test_orders import WHOLE

CAIRO = "CAI-01"
CLERK = staff(Role.CLERK, CAIRO, person="c-1")
DAY = "/orders?day=20261123"


class Orders(Desk):
    """What is asked of the API."""

    def ask(self, who: Caller, method: str, path: str, body: bytes = b"") -> httpx.Response:
        self.who = who
        return self.send(method, path, body)

    def place(self, who: Caller = CLERK, **changes: Any) -> dict[str, Any]:
        said = replace(WHOLE, **{"order_id": "", "study_uid": "", "accession": "", "site": "", **changes})
        answer = self.ask(who, "POST", "/fhir/ServiceRequest", json.dumps(resource(said)).encode())
        assert answer.status_code == 201, answer.text
        told: dict[str, Any] = answer.json()
        return told

    def get(self, who: Caller, path: str) -> Any:
        answer = self.ask(who, "GET", path)
        return answer.json() if answer.status_code == 200 else answer.status_code

    def shown(self) -> list[tuple[str, str]]:
        granted = self.archive.journal.events(AccessGranted)
        return [(s.study_uid, s.patient_key) for s in granted[-1].shown]


@pytest.fixture
def desk() -> Iterator[Orders]:
    it = Orders()
    yield it
    it.close()


def test_a_day_of_a_site(desk: Orders) -> None:
    told = desk.place()
    desk.place(replace(CLERK, sites=frozenset({"ALX-01"})))
    found = desk.get(CLERK, DAY)
    (order,) = found["orders"]
    assert (found["site"], order["order_id"], order["accession"]) == (CAIRO, told["id"], told["accession"])
    assert (order["state"], order["patient_name"], order["arrived"]) == ("waiting", WHOLE.patient_name, [])
    assert not {"bucket", "document_key", "stated_by"} & set(order)
    assert desk.shown() == [(told["study_uid"], order["patient_key"])], "whose orders were looked at is recorded"
    assert desk.get(CLERK, "/orders?day=20261124")["orders"] == []
    assert desk.get(CLERK, f"/orders?accession={told['accession']}")["orders"] == [order]
    assert desk.get(CLERK, "/orders?site=ALX-01&day=20261123")["orders"] == []
    assert len(desk.get(staff(Role.ADMINISTRATOR), "/orders?site=ALX-01&day=20261123")["orders"]) == 1
    assert desk.get(CLERK, "/orders?day=x") == 400


def test_an_order_with_its_document(desk: Orders) -> None:
    told = desk.place()
    found = desk.get(CLERK, f"/orders/{told['id']}")
    assert found["document"]["resourceType"] == "ServiceRequest"
    assert found["version"] == 1
    assert desk.get(replace(CLERK, sites=frozenset({"ALX-01"})), f"/orders/{told['id']}") == 404
    assert desk.get(CLERK, "/orders/x") == 400
    assert desk.ask(CLERK, "POST", f"/orders/{told['id']}/cancellation").status_code == 200
    again = desk.get(CLERK, f"/orders/{told['id']}")
    assert (again["version"], again["state"]) == (2, "cancelled")


def test_who_refers_sees_the_patient_from_the_order_on(desk: Orders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scope, "FACTS_S", 0.0)
    doctor = staff(Role.DOCTOR, person="dr-9")
    told = desk.place()
    assert desk.get(doctor, f"/orders/{told['id']}")["order_id"] == told["id"]
    assert desk.get(replace(doctor, person_id="dr-8", actor="person:dr-8"), f"/orders/{told['id']}") == 404
    image = part10(
        "1.2.3.1.1",
        study="1.2.3",
        PatientID=WHOLE.patient_id,
        PatientBirthDate=WHOLE.birth_date,
        PatientSex=WHOLE.sex,
    )
    desk.archive.store([image], site=CAIRO)
    assert desk.get(doctor, "/studies/1.2.3")["study_uid"] == "1.2.3"
    desk.ask(CLERK, "POST", f"/orders/{told['id']}/cancellation")
    assert desk.get(doctor, "/studies/1.2.3") == 403, "an order that was taken back refers nobody"


def test_it_stands_where_the_images_are(desk: Orders) -> None:
    told = desk.place()
    desk.archive.store([part10("1.2.3.1.1", study="1.2.3", AccessionNumber=told["accession"])], site=CAIRO)
    (order,) = desk.get(CLERK, DAY)["orders"]
    assert (order["state"], order["arrived"]) == ("arrived", ["1.2.3"]), "by the accession number"
    step = {"status": "in-progress", "started": "2026-11-23T08:10:00Z", "ended": ""}
    write = Upsert("steps_by_study", {"study_uid": told["study_uid"], "step_uid": "1.9"}, step, 1)
    asyncio.run(desk.archive.tables.apply([write]))
    (order,) = desk.get(CLERK, DAY)["orders"]
    assert (order["state"], order["started"]) == ("in-progress", "2026-11-23T08:10:00Z")


def test_images_of_another_site_do_not_hide_the_order(desk: Orders) -> None:
    told = desk.place()
    desk.archive.store([part10("1.9.1", study=told["study_uid"])], site="VAN-01")
    (order,) = desk.get(CLERK, DAY)["orders"]
    assert order["arrived"] == [told["study_uid"]]
    ((shown, key),) = desk.shown()
    assert shown != told["study_uid"]
    assert key == order["patient_key"]


@pytest.mark.parametrize(
    ("status", "steps", "studies", "expected"),
    [
        ("active", [], [], "waiting"),
        ("on-hold", [], [], "on-hold"),
        ("draft", [], [], "draft"),
        ("active", ["in-progress"], [], "in-progress"),
        ("active", ["completed"], [], "in-progress"),
        ("active", ["discontinued"], [], "discontinued"),
        ("active", ["discontinued", "completed"], ["open"], "arrived"),
        ("active", ["in-progress"], ["open"], "in-progress"),
        ("active", ["completed"], ["complete"], "done"),
        ("active", [], ["reopened"], "arrived"),
        ("completed", [], [], "done"),
        ("revoked", ["completed"], ["complete"], "cancelled"),
        ("entered-in-error", [], [], "cancelled"),
    ],
)
def test_states(status: str, steps: list[str], studies: list[str], expected: str) -> None:
    assert state(status, steps, studies) == expected


def test_every_status_has_a_state() -> None:
    found = {state(s, [], []) for s in ORDER_TRANSITIONS if s}
    assert found == {"draft", "waiting", "on-hold", "done", "cancelled"}
