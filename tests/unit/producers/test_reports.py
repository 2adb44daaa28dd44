"""Versions of reports: document first, then the event; one writer of a version; the same again is no new one."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from infra.chain import ChainedLog
from infra.http_door import HttpDoor, compose
from infra.memory import MemoryLog, MemoryObjects
from infra.settings import Settings
from producers import report_door, reports
from producers.reports import event_id
from schemas.envelope import decode
from schemas.events import ReportIssued
from tests.unit.producers.test_report_document import UID, document

ID = "01890000-0000-7000-8000-000000000001"
TOPIC = "sijil.reports"


class World:
    """A report door over the ports in memory."""

    def __init__(self, folder: Path) -> None:
        self.log, self.objects = MemoryLog(), MemoryObjects()
        self.settings = Settings(home=folder, loopback_role="local")
        self.chain = ChainedLog(self.log, folder / "chain", "/api/LOCAL/1", backlog_max=100, anchors=None)
        door = HttpDoor(self.settings, log=self.log, chain=self.chain, objects=self.objects)
        self.app: FastAPI = compose(door, [report_door.register])

    def request(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://archive") as client:
                return await client.request(method, path, content=body, headers=headers)

        return asyncio.run(send())

    def post(self, body: bytes, **headers: str) -> httpx.Response:
        return self.request("POST", "/reports", body, {"Content-Type": "application/fhir+json", **headers})

    def put(self, id: str, body: bytes, **headers: str) -> httpx.Response:
        return self.request("PUT", f"/reports/{id}", body, {"Content-Type": "application/fhir+json", **headers})

    def events(self) -> list[tuple[str, ReportIssued]]:
        found = []
        for r in self.log.read(TOPIC, {}, self.log.ends(TOPIC)):
            envelope = decode(TOPIC, r.key, r.headers, r.value)
            assert isinstance(envelope.event, ReportIssued)
            assert b"CANARY" not in (r.value or b"")
            found.append((envelope.id, envelope.event))
        return found

    def document(self, id: str, version: int) -> bytes:
        return self.objects.get(self.settings.bucket_documents, f"reports/{id}/{version}.json")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(reports, "ACKNOWLEDGED_S", 0.2)
    it = World(tmp_path)
    yield it
    it.chain.close(0.1)


def told(answer: httpx.Response) -> tuple[int, str, int]:
    return answer.status_code, answer.json()["report_id"], answer.json()["version"]


def test_a_first_version(world: World) -> None:
    answer = world.post(document())
    status, id, version = told(answer)
    assert (status, version) == (201, 1)
    assert answer.headers["location"] == f"/reports/{id}"
    assert answer.headers["etag"] == 'W/"1"'
    assert "CANARY" not in answer.text
    ((found, event),) = world.events()
    data = world.document(id, 1)
    assert found == event_id(id, 1)
    assert (event.report_id, event.version, event.status, event.study_uids) == (id, 1, "final", [UID])
    assert (event.document_size, event.document_sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert event.document_key == f"reports/{id}/1.json"


def test_the_same_again_is_no_new_version(world: World) -> None:
    assert told(world.post(document(id=ID))) == (201, ID, 1)
    assert told(world.post(document(id=ID))) == (200, ID, 1)
    assert told(world.post(document(), **{"Report-Id": ID})) == (200, ID, 1)
    assert {i for i, _ in world.events()} == {event_id(ID, 1)}
    assert len({world.document(ID, 1) for _ in world.events()}) == 1


def test_the_next_version_by_post(world: World) -> None:
    world.post(document(id=ID, status="preliminary"))
    assert told(world.post(document(id=ID))) == (201, ID, 2)
    assert told(world.post(document(id=ID, status="amended", conclusion="b"))) == (201, ID, 3)
    # What was said before is known, whatever came since.
    assert told(world.post(document(id=ID, status="preliminary"))) == (200, ID, 1)
    assert [e.version for _, e in world.events()][:3] == [1, 2, 3]


def test_never_back(world: World) -> None:
    world.post(document(id=ID))
    answer = world.post(document(id=ID, status="preliminary"))
    assert answer.status_code == 409
    assert answer.json()["reason"] == "report-transition"
    assert len(world.events()) == 1
    assert world.post(document(status="entered-in-error")).status_code == 409


def test_put_replaces_what_the_sender_saw(world: World) -> None:
    assert told(world.put(ID, document(status="preliminary"))) == (201, ID, 1)
    assert world.put(ID, document()).status_code == 428
    assert told(world.put(ID, document(), **{"If-Match": 'W/"1"'})) == (201, ID, 2)
    stale = world.put(ID, document(status="amended", conclusion="b"), **{"If-Match": 'W/"1"'})
    assert stale.status_code == 412
    assert told(world.put(ID, document(status="amended", conclusion="b"), **{"If-Match": 'W/"2"'})) == (201, ID, 3)


def test_put_again_after_a_lost_answer(world: World) -> None:
    world.put(ID, document(status="preliminary"))
    assert told(world.put(ID, document(), **{"If-Match": 'W/"1"'})) == (201, ID, 2)
    assert told(world.put(ID, document(), **{"If-Match": 'W/"1"'})) == (200, ID, 2)


def test_two_writers_of_one_version(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.post(document(id=ID, status="preliminary"))
    put = world.objects.put

    def race(bucket: str, key: str, body: Any, **more: Any) -> Any:
        monkeypatch.setattr(world.objects, "put", put)
        assert told(world.post(document(id=ID, conclusion="the other writer's"))) == (201, ID, 2)
        return put(bucket, key, body, **more)

    monkeypatch.setattr(world.objects, "put", race)
    assert world.post(document(id=ID)).status_code == 412
    assert b"the other writer" in world.document(ID, 2)


def test_a_document_without_its_event_gets_one_when_it_is_sent_again(world: World) -> None:
    world.post(document(id=ID))
    lost = World(world.settings.home / "other")
    door = HttpDoor(lost.settings, log=lost.log, chain=lost.chain, objects=world.objects)
    lost.app = compose(door, [report_door.register])
    assert told(lost.post(document(id=ID))) == (200, ID, 1)
    ((id, event),) = lost.events()
    assert (id, event) == world.events()[0]
    lost.chain.close(0.1)


def test_kafka_away(world: World) -> None:
    world.log.away = True
    status, id, _ = told(world.post(document()))
    assert status == 201
    world.log.away = False
    deadline = time.monotonic() + 60
    while world.chain.backlog and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [i for i, _ in world.events()] == [event_id(id, 1)]


def test_s3_away(world: World) -> None:
    world.objects.away = True
    answer = world.post(document())
    assert answer.status_code == 503
    assert "retry-after" in answer.headers


@pytest.mark.parametrize("call", ["post", "put"])
def test_other_media_types(world: World, call: str) -> None:
    arguments = (document(),) if call == "post" else (ID, document())
    headers = {"Content-Type": "text/plain"}
    assert getattr(world, call)(*arguments, **headers).status_code == 415


def test_what_is_no_report(world: World) -> None:
    answer = world.post(document(status="unknown"))
    assert answer.status_code == 400
    assert answer.json()["reason"] == "report-status"
    assert world.put("not-a-uuid", document()).status_code == 400
    assert world.put(ID, document(), **{"If-Match": "x"}).status_code == 400


def test_too_long(world: World) -> None:
    assert world.post(bytes(report_door.BODY_BYTES_MAX + 1)).status_code == 413
