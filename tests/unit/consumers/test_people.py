"""Staff at the query API: who is asked for, and who may no more."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import httpx
import pytest

from consumers.api import standing
from consumers.api.standing import Standing
from consumers.web import app as web
from infra import clock
from infra.ports import Tables
from producers import people as producers_people
from schemas.caller import ALL_SITES, Caller
from schemas.errors import Transient
from schemas.events import AccessDenied, PersonChanged, PersonLeft, PersonRegistered
from schemas.people import STAFF_NUMBER_SYSTEM, Person, by_number, encode_person, number_hash
from schemas.roles import Role
from tests.unit.consumers.archive import MemoryArchive, part10
from tests.unit.consumers.test_scope import As

BUCKET = "sijil-documents"
Kind = type[PersonRegistered | PersonChanged | PersonLeft]


class World:
    """An archive with staff."""

    def __init__(self) -> None:
        self.archive = MemoryArchive()
        self.versions: dict[str, int] = {}

    def said(self, id: str, *roles: str, kind: Kind = PersonChanged, sites: Sequence[str] = ("CAI-1",)) -> None:
        """A version of somebody, as the people door leaves it."""
        version = self.versions[id] = self.versions.get(id, 0) + 1
        number = {"system": STAFF_NUMBER_SYSTEM, "value": id}
        resource: dict[str, Any] = {
            "resourceType": "Practitioner",
            "identifier": [number],
            "name": [{"text": "منى <b>"}, {"given": ["Mona"], "family": "Hassan"}],
        }
        person = Person(
            person_id=id,
            version=version,
            practitioner=resource,
            present=kind is not PersonLeft,
            roles=list(roles),
            sites=list(sites),
            subspecialties=["394914008"],
            stated_by="person:1",
            recorded="2025-03-01T08:00:00Z",
        )
        data, key = encode_person(person), f"people/by-id/{id}/{version}.json"
        digest = hashlib.sha256(data).hexdigest()
        self.archive.objects.put(BUCKET, key, data, sha256=digest)
        secret = bytes.fromhex(self.archive.settings.search_secret)
        mark = by_number(number_hash(secret, STAFF_NUMBER_SYSTEM, id)) + id
        self.archive.objects.put(BUCKET, mark, b"", sha256=hashlib.sha256(b"").hexdigest())
        event = kind(
            person_id=id,
            version=version,
            active=person.active,
            roles=list(roles),
            sites=list(sites),
            subspecialties=["394914008"],
            stated_by="person:1",
            recorded=person.recorded,
            bucket=BUCKET,
            document_key=key,
            document_size=len(data),
            document_sha256=digest,
        )
        self.archive.told(event)

    def ask(self, who: Caller, *paths: str) -> list[httpx.Response]:
        async def run() -> list[httpx.Response]:
            async with self.archive.client(web.register, authenticator=As(who)) as client:
                return [await client.get(p) for p in paths]

        return asyncio.run(run())


@pytest.fixture
def world() -> World:
    return World()


def staff(role: Role, person: str = "dr-7") -> Caller:
    return Caller(f"person:{person}", role, "TREAT", frozenset({"CAI-1"}), person_id=person)


ADMINISTRATOR = Caller("person:admin", Role.ADMINISTRATOR, "HSYSADMIN")


def test_a_site_s_staff_is_listed_with_names_in_pages(world: World) -> None:
    for id in ("dr-1", "dr-2", "dr-3"):
        world.said(id, "doctor")
    world.said("dr-2", "doctor", sites=("ALX-1",))
    whole, first = (a.json() for a in world.ask(ADMINISTRATOR, "/people?site=CAI-1", "/people?site=CAI-1&limit=2"))
    assert [p["person_id"] for p in whole["people"]] == ["dr-1", "dr-3"]
    assert whole["people"][0]["names"] == ["منى <b>", "Mona Hassan"]
    assert "next" not in whole
    assert ([p["person_id"] for p in first["people"]], first["next"]) == (["dr-1"], "dr-3")
    (rest,) = world.ask(ADMINISTRATOR, f"/people?site=CAI-1&limit=2&start={first['next']}")
    assert [p["person_id"] for p in rest.json()["people"]] == ["dr-3"]


def test_a_page_shows_them_in_both_languages(world: World) -> None:
    world.said("dr-1", "doctor", "radiologist")
    world.said("dr-2", "technician", kind=PersonLeft)
    for n in range(60):
        world.said(f"t-{n:02}", sites=("ALX-1",))
    page, arabic, first = world.ask(
        ADMINISTRATOR,
        "/web/people?site=CAI-1&lang=en",
        "/web/people?site=CAI-1&lang=ar",
        "/web/people?site=ALX-1&lang=en",
    )
    assert page.status_code == 200
    for text in ("منى &lt;b&gt;", "Mona Hassan", "Radiologist", "Works here", "Has left", "394914008", "dr-2"):
        assert text in page.text, text
    assert "<b>" not in page.text
    assert "ترك العمل" in arabic.text
    assert [word in first.text for word in (">t-49<", ">t-50<", ">More<")] == [True, False, True]
    (rest,) = world.ask(ADMINISTRATOR, "/web/people?site=ALX-1&start=t-50&lang=en")
    assert [word in rest.text for word in (">t-50<", ">t-59<", ">More<")] == [True, True, False]
    assert "as their log-in says" in rest.text


def test_somebody_is_a_practitioner_with_a_role(world: World) -> None:
    world.said("dr-7", "doctor", "radiologist")
    found, role, roles, there, by_number = world.ask(
        ADMINISTRATOR,
        "/fhir/Practitioner/dr-7",
        "/fhir/PractitionerRole/dr-7",
        "/fhir/PractitionerRole?practitioner=Practitioner/dr-7",
        "/fhir/PractitionerRole?location=Location/CAI-1",
        f"/fhir/Practitioner?identifier={STAFF_NUMBER_SYSTEM}|DR-7",
    )
    assert found.headers["content-type"] == "application/fhir+json"
    resource = found.json()
    assert (resource["resourceType"], resource["id"], resource["active"]) == ("Practitioner", "dr-7", True)
    assert resource["name"][0] == {"text": "منى <b>"}
    assert [c["coding"][0]["code"] for c in role.json()["code"]] == ["doctor", "radiologist"]
    assert role.json()["location"] == [{"reference": "Location/CAI-1"}]
    assert roles.json()["entry"] == there.json()["entry"]
    assert by_number.json()["entry"][0]["resource"] == resource
    for path, status in (
        ("/people", 400),
        ("/people?site=CAI-1&limit=0", 400),
        ("/fhir/Practitioner", 400),
        ("/fhir/Practitioner/nobody", 404),
        ("/fhir/PractitionerRole/nobody", 404),
    ):
        assert world.ask(ADMINISTRATOR, path)[0].status_code == status, path


def test_one_who_left_is_let_in_nowhere_until_they_are_back(world: World) -> None:
    paths = "/dicom-web/studies", "/studies/1.2.3"
    assert {a.status_code for a in world.ask(staff(Role.DOCTOR), *paths)} == {200, 404}
    world.said("dr-7", "doctor", kind=PersonRegistered)
    assert {a.status_code for a in world.ask(staff(Role.DOCTOR), *paths)} == {200, 404}
    world.said("dr-7", "doctor", kind=PersonLeft)
    for answer in world.ask(staff(Role.DOCTOR), *paths):
        assert (answer.status_code, answer.json()["reason"]) == (403, "person-left")
        assert "register you again" in answer.json()["detail"]
        assert answer.headers["sijil-access-id"]
    assert {e.reason for e in world.archive.journal.events(AccessDenied)} == {"person-left"}
    world.said("dr-7", "doctor")
    assert {a.status_code for a in world.ask(staff(Role.DOCTOR), *paths)} == {200, 404}


def test_a_role_that_is_not_theirs_is_refused_at_every_kind_of_door(world: World) -> None:
    world.said("dr-7", "doctor")
    guarded, gated = world.ask(staff(Role.ADMINISTRATOR), "/dicom-web/studies", "/people?site=CAI-1")
    for answer in (guarded, gated):
        assert (answer.status_code, answer.json()["reason"]) == (403, "role-not-held")
    assert len(world.archive.journal.events(AccessDenied)) == 2


def test_whom_the_archive_does_not_know_and_patients_go_on_by_their_token(world: World) -> None:
    world.said("dr-7", kind=PersonRegistered)  # no role stated yet
    world.said("dr-8", "doctor", kind=PersonLeft)
    as_patient = Caller("person:dr-8", Role.PATIENT, "PATRQT", person_id="dr-8", patient_key="k1:" + "a" * 43)
    for who in (staff(Role.DOCTOR), staff(Role.DOCTOR, "dr-9"), as_patient):
        assert world.ask(who, "/dicom-web/studies")[0].status_code == 200


def test_what_is_known_is_believed_for_less_than_a_minute_and_longer_only_while_cassandra_is_away(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(clock, "monotonic", lambda: now[0])
    away = [False]

    def tables() -> Tables:
        if away[0]:
            raise Transient("away")
        return world.archive.tables

    known, doctor = Standing(tables), staff(Role.DOCTOR)

    def ask() -> str:
        return asyncio.run(known.why_not(doctor))

    world.said("dr-7", "doctor")
    assert ask() == ""
    world.said("dr-7", "doctor", kind=PersonLeft)
    assert ask() == ""
    now[0] += standing.STANDING_S
    assert standing.STANDING_S < 60
    assert ask() == "person-left"
    away[0] = True
    now[0] += 3600
    assert ask() == "person-left"
    assert asyncio.run(known.why_not(staff(Role.DOCTOR, "dr-9"))) == ""
    away[0] = False
    world.said("dr-7", "doctor")
    assert ask() == ""


def send(world: World, path: str, form: dict[str, str], who: Caller = ADMINISTRATOR) -> httpx.Response:
    """A form of the staff's pages; what it changed is projected."""

    async def run() -> httpx.Response:
        async with world.archive.client(web.register, producers_people.register, authenticator=As(who)) as client:
            return await client.post(path, data=form)

    known = {e.document_key for e in changes(world)}
    answer = asyncio.run(run())
    for event in changes(world):
        if event.document_key not in known:
            world.archive.told(event)
    return answer


def changes(world: World) -> list[PersonRegistered | PersonChanged | PersonLeft]:
    kinds = (PersonRegistered, PersonChanged, PersonLeft)
    return sorted((e for kind in kinds for e in world.archive.journal.events(kind)), key=lambda e: e.version)


FORM = {
    "name": "د. سعاد حسن",
    "latin": "Dr Soad Hassan",
    "staff-number": "T-4711",
    "role-radiologist": "yes",
    "sites": "CAI-1، ALX-1",
    "specialties": "394914008",
}


def test_somebody_is_registered_changed_and_leaves_by_the_page(world: World) -> None:
    empty, refused = world.ask(ADMINISTRATOR, "/web/people/new?lang=ar", "/web/people/nobody-here?lang=en")
    assert "الرقم القومي" in empty.text
    assert refused.status_code == 404
    made = send(world, "/web/people/new", FORM)
    assert (made.status_code, made.headers["location"]) == (303, "/web/people?site=CAI-1&notice=saved")
    first, second = changes(world)
    assert (type(first), second.roles, second.sites) == (PersonRegistered, ["radiologist"], ["CAI-1", "ALX-1"])
    id = first.person_id
    listed, shown = world.ask(ADMINISTRATOR, "/web/people?site=ALX-1", f"/web/people/{id}")
    assert "سعاد" in listed.text
    assert f'href="/web/people/{id}"' in listed.text
    for value in FORM.values():
        assert value == "yes" or value.replace("،", "") in shown.text
    changed = {**FORM, "role-doctor": "yes", "name": "د. سعاد حسن علي"}
    assert send(world, f"/web/people/{id}", changed).status_code == 303
    assert changes(world)[-1].roles == ["doctor", "radiologist"]
    assert send(world, f"/web/people/{id}", {**changed, "left": "yes"}).status_code == 303
    assert any(isinstance(e, PersonLeft) for e in changes(world))
    assert "Has left" in world.ask(ADMINISTRATOR, "/web/people?site=CAI-1&lang=en")[0].text


def test_a_form_that_cannot_be_saved_comes_back_with_what_it_said(world: World) -> None:
    for fault in ({"national-id": "123"}, {"staff-number": ""}, {"name": "", "latin": ""}):
        answer = send(world, "/web/people/new?lang=en", {**FORM, **fault})
        assert answer.status_code == 422
        assert "This cannot be saved" in answer.text
        assert "CAI-1، ALX-1" in answer.text
    assert changes(world) == []
    world.said("T-4711", "doctor")
    other = {**FORM, "national-id": "29001010100018"}
    world.said("dr-9", "doctor")
    assert "another person" in send(world, "/web/people/dr-9?lang=en", other).text
    assert send(world, "/web/people/new", FORM, staff(Role.RADIOLOGIST)).status_code == 403


def test_a_token_s_sites_are_those_that_are_somebody_s_own(world: World) -> None:
    known = Standing(lambda: world.archive.tables)

    def sites(person: str, *claimed: str) -> frozenset[str]:
        return asyncio.run(known.narrowed(replace(staff(Role.RADIOLOGIST, person), sites=frozenset(claimed)))).sites

    world.said("dr-7", "radiologist", sites=("CAI-1", "ALX-1"))
    world.said("dr-8", "radiologist", sites=())
    assert sites("dr-7", "CAI-1", "ASW-1") == {"CAI-1"}
    assert sites("dr-7", ALL_SITES) == {"CAI-1", "ALX-1"}
    assert sites("dr-7", "ASW-1") == frozenset()
    assert sites("dr-8", "ASW-1") == {"ASW-1"}
    assert sites("nobody-knows", "ASW-1") == {"ASW-1"}
    patient = Caller("person:p", Role.PATIENT, "PATRQT", frozenset({"X"}), person_id="dr-7", patient_key="k1:x")
    assert asyncio.run(known.narrowed(patient)).sites == {"X"}


def test_a_technician_sees_no_site_that_is_not_theirs(world: World) -> None:
    world.archive.store([part10("1.2.3.1.1")], site="ASW-1")
    claimed = replace(staff(Role.TECHNICIAN), sites=frozenset({"ASW-1"}))
    assert [a.status_code for a in world.ask(claimed, "/studies/1.2.3")] == [200]
    world.said("dr-7", "technician", sites=("CAI-1",))
    assert [a.status_code for a in world.ask(claimed, "/studies/1.2.3")] == [403]
