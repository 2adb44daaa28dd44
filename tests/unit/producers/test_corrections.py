"""The door of corrections: a document first, then its event; the client's id once; numbers without a gap."""

from __future__ import annotations

import asyncio
import json
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
from producers import corrections
from schemas.corrections import decode_document
from schemas.envelope import Envelope, decode
from schemas.errors import Defect
from schemas.events import ConflictResolved, StudyCorrected, StudyReassigned, StudyRejected, StudyRestored
from schemas.references import references

STUDY = "1.2.3"
TOPIC = "sijil.study.corrections"
SHA = "0" * 64


def id_of(n: int) -> str:
    return f"00000000-0000-0000-0000-{n:012}"


class World:
    """The door over the ports in memory."""

    def __init__(self, folder: Path) -> None:
        self.log, self.objects = MemoryLog(), MemoryObjects()
        self.settings = Settings(home=folder, loopback_role="local")
        self.chain = ChainedLog(self.log, folder / "chain", "/api/LOCAL/1", backlog_max=100, anchors=None)
        door = HttpDoor(self.settings, log=self.log, chain=self.chain, objects=self.objects)
        self.app: FastAPI = compose(door, [corrections.register])

    def post(self, document: Any, study: str = STUDY, **headers: str) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://archive") as client:
                content = document if isinstance(document, bytes) else json.dumps(document).encode()
                given = {"Content-Type": "application/json", **headers}
                return await client.post(f"/studies/{study}/corrections", content=content, headers=given)

        return asyncio.run(send())

    def events(self) -> list[Envelope]:
        records = list(self.log.read(TOPIC, {}, self.log.ends(TOPIC)))
        assert all(b"CANARY" not in (r.value or b"") for r in records)
        return [decode(TOPIC, r.key, r.headers, r.value) for r in records]

    def document(self, number: int) -> Any:
        return decode_document(self.objects.get("sijil-documents", f"corrections/{STUDY}/{number:06}.json"))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    it = World(tmp_path)
    yield it
    it.chain.close(0.1)


CORRECT = {"type": "correct", "attributes": {"StudyDescription": "CANARY neck", "PatientName": "CANARY^منى"}}


def test_a_correction_is_a_document_and_an_event(world: World) -> None:
    answer = world.post({"id": id_of(1), **CORRECT, "comment": "CANARY said so", "reason": "wrong-worklist-entry"})
    assert (answer.status_code, answer.json()) == (201, {"correction_id": id_of(1), "number": 1})
    assert answer.headers["etag"] == 'W/"1"'
    (envelope,) = world.events()
    event = envelope.event
    assert isinstance(event, StudyCorrected)
    assert (event.tags, event.reason, event.actor) == (
        ["00081030", "00100010"],
        "wrong-worklist-entry",
        "http:127.0.0.1",
    )
    document = world.document(1)
    assert document.correction.attributes == {"00081030": "CANARY neck", "00100010": "CANARY^منى"}
    assert document.comment == "CANARY said so"
    (reference,) = references(event)
    assert (reference.kind, reference.key) == ("correction", f"corrections/{STUDY}/000001.json")


@pytest.mark.parametrize(
    ("asked", "kind"),
    [
        (CORRECT, StudyCorrected),
        ({"type": "correct", "series_uid": "1.2", "attributes": {"Laterality": "L"}}, StudyCorrected),
        ({"type": "reassign", "patient": {"PatientID": "P-1"}}, StudyReassigned),
        ({"type": "resolve", "sop_uid": "1.2", "serve": SHA, "second_offset": 5}, ConflictResolved),
        ({"type": "reject", "code": "113001"}, StudyRejected),
        ({"type": "reject", "code": "113037", "sop_uids": ["1.1", "1.2"]}, StudyRejected),
        ({"type": "restore"}, StudyRestored),
        ({"type": "restore", "rejection": id_of(7)}, StudyRestored),
    ],
)
def test_the_same_again_is_the_same(world: World, asked: dict[str, Any], kind: type) -> None:
    first, second = (world.post({"id": id_of(1), **asked}) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json() == second.json()
    one, two = world.events()
    assert isinstance(one.event, kind)
    assert (one.id, one.event) == (two.id, two.event)
    other = world.post({"id": id_of(1), "type": "reject", "code": "113039"})
    assert (other.status_code, other.json()["reason"]) == (409, "correction-id")


def test_if_match_keeps_two_from_correcting_at_once(world: World) -> None:
    assert world.post({"id": id_of(1), **CORRECT}, **{"If-Match": 'W/"0"'}).status_code == 201
    late = world.post({"id": id_of(2), **CORRECT}, **{"If-Match": 'W/"0"'})
    assert (late.status_code, late.json()["reason"]) == (412, "correction-number")
    assert world.post({"id": id_of(2), **CORRECT}, **{"If-Match": 'W/"1"'}).json()["number"] == 2
    # One whose answer was lost sends again with what it knew: it is told what became of it.
    assert world.post({"id": id_of(1), **CORRECT}, **{"If-Match": 'W/"0"'}).status_code == 200


def test_two_writers_of_one_number(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other writer's document is there between our look and our write."""
    put, other = world.objects.put, [True]

    def late(bucket: str, key: str, *args: Any, **more: Any) -> Any:
        if other.pop() if other else False:
            world.post({"id": id_of(9), **CORRECT})
            raise Defect("already there with another checksum")
        return put(bucket, key, *args, **more)

    monkeypatch.setattr(world.objects, "put", late)
    answer = world.post({"id": id_of(1), **CORRECT})
    assert (answer.status_code, answer.json()["number"]) == (201, 2)
    assert [world.document(n).id for n in (1, 2)] == [id_of(9), id_of(1)]


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (b"no json", "correction-json"),
        ({"type": "correct"}, "correction-json"),
        ({"type": "nothing"}, "correction-json"),
        ({"type": "correct", "attributes": {}}, "correction-json"),
        ({"type": "correct", "attributes": {"Rows": "5"}}, "correction-attribute"),
        ({"type": "correct", "attributes": {"StudyInstanceUID": "1.2"}}, "correction-attribute"),
        ({"type": "correct", "attributes": {"Laterality": "L"}}, "correction-attribute"),
        ({"type": "correct", "series_uid": "1.2", "attributes": {"PatientID": "x"}}, "correction-attribute"),
        ({"type": "correct", "attributes": {"StudyDate": "20240230"}}, "correction-value"),
        ({"type": "correct", "attributes": {"StudyDate": "CANARY"}}, "correction-value"),
        ({"type": "correct", "attributes": {"PatientName": "a=b=c=d"}}, "correction-value"),
        ({"type": "correct", "attributes": {"PatientName": "漢字"}}, "correction-value"),
        ({"type": "correct", "attributes": {"PatientID": "a\\b"}}, "correction-value"),
        ({"type": "correct", "attributes": {"AccessionNumber": "x" * 17}}, "correction-value"),
        ({"type": "correct", "series_uid": "1.2", "attributes": {"SeriesNumber": "one"}}, "correction-value"),
        ({"type": "reassign", "patient": {"PatientName": "CANARY"}}, "correction-patient"),
        ({"type": "reject", "code": "113002"}, "correction-code"),
        ({"type": "resolve", "sop_uid": "1.2", "serve": "x", "second_offset": 1}, "correction-json"),
    ],
)
def test_what_cannot_be_corrected(world: World, asked: Any, reason: str) -> None:
    answer = world.post(asked if isinstance(asked, bytes) else {"id": id_of(1), **asked})
    assert (answer.status_code, answer.json()["reason"]) == (400, reason)
    assert "CANARY" not in answer.text
    assert world.events() == []


def test_other_forms(world: World) -> None:
    assert world.post({"id": "mine", **CORRECT}).status_code == 400
    assert world.post({"id": id_of(1), **CORRECT}, study="abc").status_code == 400
    assert world.post({"id": id_of(1), **CORRECT}, **{"Content-Type": "text/html"}).status_code == 415
    assert world.post({"id": id_of(1), **CORRECT}, **{"If-Match": "x"}).status_code == 400
