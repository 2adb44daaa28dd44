"""Files joined and kept apart: what is taken, and what stands on the log."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.chain import ChainedLog
from infra.http_door import HttpDoor, compose
from infra.memory import MemoryLog, MemoryObjects
from infra.settings import Settings
from producers import links
from schemas.envelope import decode
from schemas.events import PatientKeptApart, PatientLinked, PatientUnlinked

A, B = "k1:" + "A" * 43, "k1:" + "B" * 43
ID = "01953fcb-9c00-7000-8000-000000000001"


class World:
    """The door over a log in memory; whoever calls from this machine may."""

    def __init__(self, folder: Path) -> None:
        settings = Settings(home=folder, loopback_role="local")
        self.log = MemoryLog()
        self.chain = ChainedLog(self.log, folder / "chain", "/api/LOCAL/1", backlog_max=100, anchors=None)
        self.app = compose(
            HttpDoor(settings, log=self.log, chain=self.chain, objects=MemoryObjects()), [links.register]
        )

    def ask(self, method: str, path: str, body: Any = None) -> httpx.Response:
        async def run() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                return await client.request(method, path, json=body)

        return asyncio.run(run())

    def envelopes(self) -> list[Any]:
        topic = "sijil.patients"
        stored = self.log.read(topic, {}, self.log.ends(topic))
        return [decode(topic, s.key, s.headers, s.value) for s in stored]


@pytest.fixture
def world(tmp_path: Path) -> Any:
    found = World(tmp_path)
    yield found
    found.chain.close(5)


def test_a_link_and_its_end_are_events_of_the_file_that_stays(world: World) -> None:
    answer = world.ask("POST", f"/patients/{A}/links", {"other_key": B, "reason": "proposal"})
    assert answer.status_code == 201
    assert world.ask("DELETE", f"/patients/{A}/links/{B}").status_code == 200
    linked, unlinked = (e.event for e in world.envelopes())
    assert isinstance(linked, PatientLinked)
    assert isinstance(unlinked, PatientUnlinked)
    assert (linked.key(), linked.other_key, linked.reason) == (A, B, "proposal")
    assert (linked.stated_by, linked.link_id) == ("http:127.0.0.1", answer.json()["link_id"])
    assert (unlinked.key(), unlinked.other_key, unlinked.apart) == (A, B, False)


def test_the_same_decision_sent_again_is_the_same_event(world: World) -> None:
    for _ in range(2):
        world.ask("POST", f"/patients/{A}/links", {"other_key": B, "id": ID})
    assert len({e.id for e in world.envelopes()}) == 1


def test_keeping_apart_has_no_direction(world: World) -> None:
    world.ask("POST", f"/patients/{B}/apart", {"other_key": A})
    world.ask("DELETE", f"/patients/{B}/apart/{A}")
    apart, reopened = (e.event for e in world.envelopes())
    assert isinstance(apart, PatientKeptApart)
    assert (apart.patient_key, apart.other_key) == (reopened.patient_key, reopened.other_key) == (A, B)
    assert reopened.apart


@pytest.mark.parametrize(
    ("path", "body", "reason"),
    [
        (f"/patients/{A}/links", {"other_key": A}, "link-self"),
        (f"/patients/{A}/links", {"other_key": "P-77"}, "patient-key"),
        ("/patients/P-77/links", {"other_key": A}, "patient-key"),
        (f"/patients/{A}/links", {"other_key": B, "reason": "He said so"}, "link-body"),
        (f"/patients/{A}/links", {"other_key": B, "x": 1}, "link-body"),
        (f"/patients/{A}/apart", [], "link-body"),
    ],
)
def test_what_is_not_taken(world: World, path: str, body: Any, reason: str) -> None:
    answer = world.ask("POST", path, body)
    assert (answer.status_code, answer.json()["reason"]) == (400, reason)
    assert world.envelopes() == []
