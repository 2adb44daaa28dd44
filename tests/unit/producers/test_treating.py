"""Statements of who treats whom: what is taken, and what stands on the log."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.chain import ChainedLog
from infra.http_door import HttpDoor, compose
from infra.memory import MemoryLog, MemoryObjects
from infra.settings import Settings
from producers import treating
from schemas.envelope import decode
from schemas.events import TreatingEnded, TreatingStated

KEY = "k1:" + "A" * 43
PATH = f"/patients/{KEY}/treating"
SHARES = "/studies/1.2.3/shares"


class World:
    """The door over a log in memory; whoever calls from this machine may."""

    def __init__(self, folder: Path) -> None:
        settings = Settings(home=folder, loopback_role="local")
        self.log = MemoryLog()
        self.chain = ChainedLog(self.log, folder / "chain", "/api/LOCAL/1", backlog_max=100, anchors=None)
        self.app = compose(
            HttpDoor(settings, log=self.log, chain=self.chain, objects=MemoryObjects()), [treating.register]
        )

    def ask(self, method: str, path: str, body: Any = None) -> httpx.Response:
        async def run() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                return await client.request(method, path, json=body)

        return asyncio.run(run())

    def events(self) -> list[Any]:
        topic = "sijil.patients"
        stored = self.log.read(topic, {}, self.log.ends(topic))
        return [decode(topic, s.key, s.headers, s.value).event for s in stored]


@pytest.fixture
def world(tmp_path: Path) -> Any:
    found = World(tmp_path)
    yield found
    found.chain.close(5)


def hence(**time: float) -> str:
    return (datetime.now(UTC) + timedelta(**time)).isoformat()


def test_a_statement_is_an_event_under_its_patient(world: World) -> None:
    answer = world.ask("POST", PATH, {"person_id": "dr-7", "relation": "referring", "until": hence(days=30)})
    assert answer.status_code == 201
    (event,) = world.events()
    assert isinstance(event, TreatingStated)
    assert (event.key(), event.person_id, event.relation, event.study_uid) == (KEY, "dr-7", "referring", None)
    assert event.stated_by == "http:127.0.0.1"
    assert world.ask("DELETE", f"{PATH}/dr-7").status_code == 200
    ended = world.events()[-1]
    assert isinstance(ended, TreatingEnded)
    assert (ended.key(), ended.person_id) == (KEY, "dr-7")


def test_a_share_is_of_one_study_and_has_an_end(world: World) -> None:
    share = {"person_id": "dr-7", "patient_key": KEY, "until": hence(days=7)}
    assert world.ask("POST", SHARES, share).status_code == 201
    (event,) = world.events()
    assert (event.study_uid, event.relation, event.until[:4]) == ("1.2.3", "consulting", share["until"][:4])
    assert world.ask("DELETE", f"{SHARES}/{KEY}/dr-7").status_code == 200
    assert world.events()[-1].study_uid == "1.2.3"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (PATH, {}),
        (PATH, []),
        (PATH, {"person_id": "a b"}),
        (PATH, {"person_id": "dr-7", "relation": "friend"}),
        (PATH, {"person_id": "dr-7", "relation": "consulting"}),
        (PATH, {"person_id": "dr-7", "until": hence(days=-1)}),
        (PATH, {"person_id": "dr-7", "until": "2099-01-01T00:00:00"}),
        (PATH, {"person_id": "dr-7", "more": 1}),
        ("/patients/MRN-1/treating", {"person_id": "dr-7"}),
        (SHARES, {"person_id": "dr-7", "patient_key": KEY}),
        (SHARES, {"person_id": "dr-7", "patient_key": "MRN-1", "until": hence(days=1)}),
        (SHARES, {"person_id": "dr-7", "patient_key": KEY, "until": hence(days=91)}),
        ("/studies/no.uid/shares", {"person_id": "dr-7", "patient_key": KEY, "until": hence(days=1)}),
    ],
)
def test_what_is_no_statement_is_refused_and_nothing_is_said(world: World, path: str, body: Any) -> None:
    assert world.ask("POST", path, body).status_code == 400
    assert world.events() == []
