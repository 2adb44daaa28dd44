"""The people door: what is taken, what stands on the log, and a table of staff through it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.chain import ChainedLog
from infra.http_door import HttpDoor, compose
from infra.memory import MemoryLog, MemoryObjects
from infra.settings import Settings
from producers import people, people_import
from producers.people_import import Answer, Line, Summary, Wrong
from schemas.envelope import decode
from schemas.errors import Invalid
from schemas.events import PersonChanged, PersonLeft, PersonRegistered
from schemas.people import ROLE_SYSTEM, STAFF_NUMBER_SYSTEM, decode_person

NATIONAL = "29001011234567"
TOPIC = "sijil.people"
FHIR = {"Content-Type": "application/fhir+json"}


def practitioner(*numbers: str, national: str = "", **more: Any) -> dict[str, Any]:
    found = [{"system": STAFF_NUMBER_SYSTEM, "value": n} for n in numbers]
    if national:
        found.append({"system": "urn:sijil:eg:national-id", "value": national})
    names = [{"text": "منى حسن"}, {"family": "Hassan", "given": ["Mona"]}]
    return {"resourceType": "Practitioner", "identifier": found, "name": names, **more}


def role(person: str, *roles: str, sites: tuple[str, ...] = ("CAI-1",), **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "PractitionerRole",
        "practitioner": {"reference": f"Practitioner/{person}"},
        "code": [{"coding": [{"system": ROLE_SYSTEM, "code": r}]} for r in roles],
        "location": [{"reference": f"Location/{s}"} for s in sites],
        "specialty": [{"coding": [{"system": "http://snomed.info/sct", "code": "394914008"}]}],
        **more,
    }


class World:
    """The door over a log and a bucket in memory; whoever calls from this machine may."""

    def __init__(self, folder: Path) -> None:
        settings = replace(Settings(home=folder, loopback_role="local"), search_secret=bytes(range(32)).hex())
        self.log, self.objects = MemoryLog(), MemoryObjects()
        self.bucket = settings.bucket_documents
        self.chain = ChainedLog(self.log, folder / "chain", "/api/LOCAL/1", backlog_max=100, anchors=None)
        self.app = compose(HttpDoor(settings, log=self.log, chain=self.chain, objects=self.objects), [people.register])

    def ask(self, method: str, path: str, body: Any) -> httpx.Response:
        async def run() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                return await client.request(method, path, content=json.dumps(body), headers=FHIR)

        return asyncio.run(run())

    def events(self) -> list[Any]:
        stored = self.log.read(TOPIC, {}, self.log.ends(TOPIC))
        return [decode(TOPIC, s.key, s.headers, s.value).event for s in stored]

    def post(self, path: str, document: Mapping[str, Any]) -> Answer:
        answer = self.ask("POST", path, document)
        return Answer(answer.status_code, answer.json())


@pytest.fixture
def world(tmp_path: Path) -> Any:
    found = World(tmp_path)
    yield found
    found.chain.close(5)


def test_somebody_is_registered_changed_and_leaves_and_the_log_holds_no_name_and_no_number(world: World) -> None:
    first = world.ask("POST", "/fhir/Practitioner", practitioner("A-17", national=NATIONAL))
    assert first.status_code == 201, first.text
    id = first.json()["id"]
    assert first.headers["location"] == f"/fhir/Practitioner/{id}"
    assert world.ask("PUT", f"/fhir/PractitionerRole/{id}", role(id, "radiologist", "doctor")).status_code == 200
    assert world.ask("PUT", f"/fhir/Practitioner/{id}", practitioner("A-17", national=NATIONAL, active=False))
    registered, changed, left = world.events()
    assert [type(e) for e in (registered, changed, left)] == [PersonRegistered, PersonChanged, PersonLeft]
    assert (registered.roles, registered.active) == ([], True)
    assert (changed.roles, changed.sites, changed.subspecialties) == (
        ["radiologist", "doctor"],
        ["CAI-1"],
        ["394914008"],
    )
    assert (left.active, left.roles, left.version, left.key()) == (False, ["radiologist", "doctor"], 3, id)
    kept = decode_person(world.objects.get(left.bucket, left.document_key))
    assert kept.practitioner["name"][0] == {"text": "منى حسن"}
    on_the_log = b"".join(
        (s.key or b"") + (s.value or b"") + b"".join(v for _, v in s.headers)
        for s in world.log.read(TOPIC, {}, world.log.ends(TOPIC))
    ).decode()
    for secret in (NATIONAL, "A-17", "Hassan", "منى"):
        assert secret not in on_the_log
        assert not any(secret in key for key in world.objects.list(world.bucket, ""))


def test_the_same_again_is_no_change_whichever_number_finds_them(world: World) -> None:
    first = world.ask("POST", "/fhir/Practitioner", practitioner("A-17", national=NATIONAL)).json()
    again = world.ask("POST", "/fhir/Practitioner", practitioner("A-17", national=NATIONAL))
    assert (again.status_code, again.json()) == (200, first | {"changed": False})
    fewer = world.ask("POST", "/fhir/Practitioner", practitioner("٠", "a-17")).json()
    assert (fewer["id"], fewer["version"]) == (first["id"], 2)
    assert len(world.events()) == 2


def test_a_number_is_of_one_person_and_can_be_given_to_another(world: World) -> None:
    assert world.ask("PUT", "/fhir/Practitioner/dr-7", practitioner("A-17")).status_code == 201
    assert world.ask("PUT", "/fhir/Practitioner/dr-8", practitioner("A-18")).status_code == 201
    taken = world.ask("PUT", "/fhir/Practitioner/dr-8", practitioner("A-17"))
    assert (taken.status_code, taken.json()["reason"]) == (409, "person-number-taken")
    assert world.ask("PUT", "/fhir/Practitioner/dr-7", practitioner("A-19")).status_code == 200
    assert world.ask("PUT", "/fhir/Practitioner/dr-8", practitioner("A-17")).status_code == 200
    assert world.ask("POST", "/fhir/Practitioner", practitioner("A-17")).json()["id"] == "dr-8"


def test_an_id_made_of_a_number_that_was_taken_away_is_nobody_else_s(world: World) -> None:
    first = world.ask("POST", "/fhir/Practitioner", practitioner("A-17")).json()["id"]
    assert world.ask("PUT", f"/fhir/Practitioner/{first}", practitioner("A-18")).status_code == 200
    other = world.ask("POST", "/fhir/Practitioner", practitioner("A-17"))
    assert (other.status_code, other.json()["reason"]) == (409, "person-id-taken")
    assert decode_person(world.objects.get(world.bucket, world.events()[-1].document_key)).version == 2


def test_a_version_without_its_event_gets_it_with_what_is_sent_next(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(name: str) -> None:
        raise OSError("killed")

    with monkeypatch.context() as broken:
        broken.setattr("infra.faults.point", die)
        assert world.ask("PUT", "/fhir/Practitioner/dr-7", practitioner("A-17")).status_code == 500
    assert world.events() == []
    assert world.ask("PUT", "/fhir/Practitioner/dr-7", practitioner("A-17", active=False)).status_code == 200
    assert [(type(e), e.version) for e in world.events()] == [(PersonRegistered, 1), (PersonLeft, 2)]


@pytest.mark.parametrize(
    ("path", "body", "reason"),
    [
        ("/fhir/Practitioner", [], "person-json"),
        ("/fhir/Practitioner", {"resourceType": "Patient"}, "person-type"),
        ("/fhir/Practitioner", practitioner(), "person-identifier"),
        ("/fhir/Practitioner", practitioner("A-17", name=[]), "person-name"),
        ("/fhir/Practitioner", practitioner("A-17", active="no"), "person-active"),
        ("/fhir/Practitioner", practitioner("A-17", id="a b"), "person-id"),
        ("/fhir/Practitioner", practitioner(national="123"), "national-id-format"),
        ("/fhir/Practitioner", practitioner(*map(str, range(9))), "person-identifier"),
        ("/fhir/PractitionerRole", role("dr-7", "radiologist") | {"practitioner": {}}, "person-reference"),
        ("/fhir/PractitionerRole", role("dr-7"), "person-role"),
        ("/fhir/PractitionerRole", role("dr-7", "local"), "person-role"),
        ("/fhir/PractitionerRole", role("dr-7", "doctor", id="dr-8"), "person-id"),
        ("/fhir/PractitionerRole", role("dr-7", "doctor", sites=("a b",)), "person-site"),
        ("/fhir/PractitionerRole", role("dr-7", "doctor", specialty=[{"coding": [{"code": "ü"}]}]), "person-specialty"),
    ],
)
def test_what_says_too_little_is_refused_and_nothing_is_said(world: World, path: str, body: Any, reason: str) -> None:
    answer = world.ask("POST", path, body)
    assert (answer.status_code, answer.json()["reason"]) == (400, reason)
    assert "Hassan" not in answer.text
    assert world.events() == []


def test_a_role_of_nobody_and_another_media_type_are_refused(world: World) -> None:
    unknown = world.ask("POST", "/fhir/PractitionerRole", role("dr-7", "doctor"))
    assert (unknown.status_code, unknown.json()["reason"]) == (422, "person-unknown")
    wrong = {"Content-Type": "text/plain"}

    async def run() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(world.app), base_url="http://localhost") as client:
            return await client.put("/fhir/Practitioner/dr-7", content="{}", headers=wrong)

    assert asyncio.run(run()).status_code == 415


# ------------------------------------------------------------------------------------------------ the table

TABLE = (
    "staff_number,national_id,name,roles,sites,subspecialties,active\r\n"
    f"A-17,{NATIONAL},منى حسن|Mona Hassan,radiologist;doctor,CAI-1;ALX-1,394914008,yes\r\n"
    "A-18,,Omar Aly,technician,CAI-1,,\r\n"
    ",,Nobody,doctor,CAI-1,,\r\n"
    "A-19,12,Bad Number,doctor,CAI-1,,\r\n"
    "\r\n"
    "A-20,,Odd Role,surgeon,CAI-1,,\r\n"
    '"A-21",,"Gone, Already",doctor,CAI-1,,no\r\n'
    "A-22,,Perhaps,doctor,CAI-1,,maybe\r\n"
)


def imported(world: World, text: str) -> tuple[Summary, list[str]]:
    told: list[str] = []
    return people_import.run(people_import.lines(text.encode("utf-8-sig")), world.post, told.append), told


def test_good_lines_go_in_and_bad_ones_are_told_by_their_number(world: World) -> None:
    summary, told = imported(world, TABLE)
    assert (summary.changed, summary.same, summary.wrong) == (3, 0, 4)
    assert [t.partition(":")[0] for t in told] == ["line 4", "line 5", "line 7", "line 9"]
    assert not any(secret in line for secret in ("Bad Number", "Odd Role", "12") for line in told)
    last = {e.person_id: e for e in world.events()}
    held = sorted((e.active, tuple(e.roles), tuple(e.sites)) for e in last.values() if e.roles)
    assert held == [
        (False, ("doctor",), ("CAI-1",)),
        (True, ("radiologist", "doctor"), ("CAI-1", "ALX-1")),
        (True, ("technician",), ("CAI-1",)),
    ]


def test_run_twice_it_changes_nothing(world: World) -> None:
    imported(world, TABLE)
    before = len(world.events())
    summary, _ = imported(world, TABLE)
    assert (summary.changed, summary.same, summary.wrong) == (0, 3, 4)
    assert len(world.events()) == before


def test_fields_may_be_separated_by_semicolons_and_columns_in_any_order() -> None:
    (line,) = people_import.lines(b"roles;name;staff_number\ndoctor|technician;Mona;7")
    assert isinstance(line, Line)
    assert [c["coding"][0]["code"] for c in line.role["code"]] == ["doctor", "technician"]
    (long,) = people_import.lines(b"staff_number,name,roles\n7,Mona,doctor,more\n")
    assert isinstance(long, Wrong)


@pytest.mark.parametrize("data", [b"name,roles\nMona,doctor", b"staff_number,name,role\n", b"", "ü".encode("latin-1")])
def test_a_file_that_is_no_such_table_is_refused_whole(data: bytes) -> None:
    with pytest.raises(Invalid, match=r"columns|UTF-8"):
        list(people_import.lines(data))


def test_one_who_may_not_is_told_at_once_and_a_busy_archive_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("producers.people_import.time.sleep", slept.append)
    answers = [Answer(429, {}, "3"), Answer(201, {"id": "p", "changed": True}), Answer(200, {"changed": True})]
    table = b"staff_number,name,roles\n7,Mona,doctor\n"
    assert people_import.run(people_import.lines(table), lambda p, d: answers.pop(0), slept.append).changed == 1  # type: ignore[arg-type]
    assert slept == [3.0]
    with pytest.raises(Invalid, match="may not"):
        people_import.run(people_import.lines(table), lambda p, d: Answer(403, {"detail": "may not"}), print)
