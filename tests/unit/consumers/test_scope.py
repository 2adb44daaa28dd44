"""Who sees what: scopes from facts, break-glass, and searches that show no more than one may see."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from starlette.types import Scope as Asgi

from consumers.api.reach import WHOLE, Reach
from infra import clock
from schemas.caller import Caller
from schemas.events import AccessDenied, AccessEmergency, AccessGranted, Named, TreatingEnded, TreatingStated
from schemas.roles import DEFAULT_PURPOSE, Role
from schemas.tables import Upsert
from tests.unit.consumers.archive import MemoryArchive, part10

CAIRO, ALEX = "CAI-1", "ALX-1"
MONA, OMAR = "1.2.3", "1.2.4"
"""Studies: Mona's of Cairo, Omar's of Alexandria."""
MONA_ALEX = "1.2.5"
REPORT = "00000000-0000-4000-8000-000000000001"
DOCTOR = "dr-7"


@dataclass
class As:
    """An authenticator that takes every request for one caller."""

    who: Caller

    async def caller(self, scope: Asgi) -> Caller | None:
        """Whoever is played now."""
        return self.who


def staff(role: Role, *sites: str, person: str = DOCTOR) -> Caller:
    return Caller(f"person:{person}", role, DEFAULT_PURPOSE[role], sites=frozenset(sites), person_id=person)


def patient(key: str) -> Caller:
    return Caller("person:p-1", Role.PATIENT, "PATRQT", person_id="p-1", patient_key=key)


class World:
    """An archive of two sites and two patients."""

    def __init__(self) -> None:
        self.archive = MemoryArchive()
        mona = {"PatientID": "M1", "PatientName": "Mona^A"}
        self.store(MONA, CAIRO, mona)
        self.store(OMAR, ALEX, {"PatientID": "O1", "PatientName": "Omar^B"})
        self.store(MONA_ALEX, ALEX, mona | {"IssuerOfPatientID": CAIRO})
        self.mona, self.omar = (str(self.row(uid)["patient_key"]) for uid in (MONA, OMAR))
        assert self.row(MONA_ALEX)["patient_key"] == self.mona != self.omar

        self.everything = [found(a) for a in self.ask_all(staff(Role.ADMINISTRATOR), *SEARCHES)]
        """What there is to find by each of SEARCHES."""

    def store(self, uid: str, site: str, more: Mapping[str, Any]) -> None:
        file = part10(f"{uid}.1.1", study=uid, series=f"{uid}.1", **more)
        self.archive.store([file], site=site)

    def row(self, uid: str) -> Mapping[str, Any]:
        answer = self.ask(replace(staff(Role.ADMINISTRATOR)), f"/studies/{uid}")
        found: Mapping[str, Any] = answer.json()
        return found

    def ask_all(self, who: Caller, *asked: str | tuple[str, dict[str, Any]]) -> list[httpx.Response]:
        """One process, one request after the other: a path is a GET, with a body a POST."""

        async def run() -> list[httpx.Response]:
            async with self.archive.client(authenticator=As(who)) as client:
                return [
                    await client.get(a) if isinstance(a, str) else await client.post(a[0], json=a[1]) for a in asked
                ]

        return asyncio.run(run())

    def ask(self, who: Caller, asked: str | tuple[str, dict[str, Any]]) -> httpx.Response:
        return self.ask_all(who, asked)[0]


PATHS = (
    "/studies/{0}",
    "/dicom-web/studies/{0}",
    "/dicom-web/studies/{0}/metadata",
    "/dicom-web/studies/{0}/series",
    "/dicom-web/studies/{0}/series/{0}.1/instances/{0}.1.1",
)


@pytest.fixture
def world() -> World:
    return World()


QUERIES = (
    *("", "?PatientName=*", "?PatientName=Mona*", "?PatientName=Omar*", "?StudyDate=19000101-", "?PatientID=O1"),
    *(f"?StudyInstanceUID={u}" for u in (MONA, OMAR, MONA_ALEX)),
)
SEARCHES = (*(f"/dicom-web/studies{q}" for q in QUERIES), "/dicom-web/series", "/dicom-web/instances")


def found(answer: httpx.Response) -> set[str]:
    assert answer.status_code == 200
    return {s["0020000D"]["Value"][0] for s in answer.json()}


def narrowed(world: World, who: Caller, own: set[str]) -> None:
    """Whatever is searched for, nothing but one's own is found; and what is seen is the same."""
    reads = [p.format(u) for u in (MONA, OMAR, MONA_ALEX) for p in PATHS]
    answers = world.ask_all(who, *SEARCHES, *reads)
    for path, answer, everything in zip(SEARCHES, answers, world.everything, strict=False):
        assert found(answer) == own & everything, path
    for path, answer in zip(reads, answers[len(SEARCHES) :], strict=True):
        seen = any(path.startswith((f"/studies/{u}", f"/dicom-web/studies/{u}")) for u in own)
        assert answer.status_code == (200 if seen else 403), path


def test_staff_of_a_site_see_what_it_sent(world: World) -> None:
    for role in (Role.TECHNICIAN, Role.RADIOLOGIST):
        narrowed(world, staff(role, CAIRO), {MONA})
        narrowed(world, staff(role, ALEX), {OMAR, MONA_ALEX})
        narrowed(world, staff(role, CAIRO, ALEX), {MONA, OMAR, MONA_ALEX})
        narrowed(world, staff(role, "*"), {MONA, OMAR, MONA_ALEX})
        narrowed(world, staff(role), set())
    assert world.everything[0] == {MONA, OMAR, MONA_ALEX}


def test_patients_see_their_own_file(world: World) -> None:
    narrowed(world, patient(world.mona), {MONA, MONA_ALEX})
    narrowed(world, patient(""), set())
    own, others = world.ask_all(patient(world.mona), *(f"/patients/{k}/accesses" for k in (world.mona, world.omar)))
    assert (own.status_code, others.status_code) == (200, 403)


def stated(world: World, key: str, **more: Any) -> None:
    said = {"relation": "treating", "stated_by": "person:admin", "recorded": clock.rfc3339(clock.now())} | more
    world.archive.told(TreatingStated(patient_key=key, person_id=DOCTOR, **said))


def test_a_doctor_sees_those_whom_a_statement_names_until_it_ends(world: World) -> None:
    doctor = staff(Role.DOCTOR, ALEX)
    narrowed(world, doctor, set())
    stated(world, world.mona)
    narrowed(world, doctor, {MONA, MONA_ALEX})
    narrowed(world, staff(Role.DOCTOR, person="dr-8"), set())
    said = {"stated_by": "person:admin", "recorded": clock.rfc3339(clock.now())}
    world.archive.told(TreatingEnded(patient_key=world.mona, person_id=DOCTOR, **said))
    narrowed(world, doctor, set())


def test_a_statement_and_a_share_have_their_time(world: World) -> None:
    doctor = staff(Role.DOCTOR)
    past, future = (clock.rfc3339(clock.now() + timedelta(hours=h)) for h in (-1, 1))
    stated(world, world.mona, until=past)
    narrowed(world, doctor, set())
    stated(world, world.mona, study_uid=MONA_ALEX, relation="consulting", until=future)
    narrowed(world, doctor, {MONA_ALEX})
    narrowed(world, staff(Role.RADIOLOGIST, CAIRO), {MONA, MONA_ALEX})
    stated(world, world.mona, study_uid=MONA_ALEX, relation="consulting", until=past)
    narrowed(world, doctor, set())


def test_a_doctor_sees_those_whom_reports_name_them_for(world: World) -> None:
    people = [Named(person_id=DOCTOR, relation="referring")]
    world.archive.report(b'{"resourceType":"DiagnosticReport"}', [MONA], report_id=REPORT, people=people)
    doctor = staff(Role.DOCTOR)
    narrowed(world, doctor, {MONA, MONA_ALEX})
    assert world.ask(doctor, f"/reports/{REPORT}").status_code == 200
    other = world.ask(staff(Role.DOCTOR, person="dr-8"), f"/reports/{REPORT}")
    assert (other.status_code, other.json()["reason"]) == (403, "scope")


def test_what_is_not_theirs_is_refused_and_recorded_with_its_patient(world: World) -> None:
    answer = world.ask(staff(Role.DOCTOR), f"/dicom-web/studies/{MONA}")
    assert (answer.status_code, answer.json()["reason"]) == (403, "scope")
    assert "/emergency" in answer.json()["detail"]
    (event,) = world.archive.journal.events(AccessDenied)
    assert (event.access_id, event.reason) == (answer.headers["Sijil-Access-Id"], "scope")
    assert (event.study_uid, event.patient_key, event.actor) == (MONA, world.mona, f"person:{DOCTOR}")


def test_a_file_of_a_patient_shows_what_of_it_is_one_s_own(world: World) -> None:
    file = f"/patients/{world.mona}/studies"

    def listed(who: Caller) -> set[str] | int:
        answer = world.ask(who, file)
        return {s["study_uid"] for s in answer.json()["studies"]} if answer.status_code == 200 else answer.status_code

    assert listed(staff(Role.RADIOLOGIST, CAIRO)) == {MONA}
    assert listed(staff(Role.RADIOLOGIST, "ASW-1")) == 403
    assert listed(staff(Role.DOCTOR)) == 403
    assert listed(patient(world.omar)) == 403
    assert listed(patient(world.mona)) == {MONA, MONA_ALEX}


STATED = {"reason": "life-threatening", "words": "Unconscious in our emergency room", "study_uid": MONA}


def test_break_glass_opens_the_patient_s_file_at_once(world: World) -> None:
    doctor = staff(Role.DOCTOR)
    images = f"/dicom-web/studies/{MONA}"
    before, opened, after, other = world.ask_all(doctor, images, ("/emergency", STATED), images, f"/studies/{OMAR}")
    assert (before.status_code, opened.status_code, after.status_code, other.status_code) == (403, 201, 200, 403)
    (event,) = world.archive.journal.events(AccessEmergency)
    assert (event.access_id, event.until) == (opened.json()["access_id"], opened.json()["until"])
    assert (event.study_uid, event.patient_key, event.purpose) == (MONA, world.mona, "ETREAT")
    assert STATED["words"] not in repr(world.archive.journal.published)
    granted = world.archive.journal.events(AccessGranted)[-1]
    assert granted.study_uid == MONA
    narrowed(world, staff(Role.DOCTOR, person="dr-8"), set())
    world.archive.told(event)
    narrowed(world, doctor, {MONA, MONA_ALEX})  # another process knows it by the projection


LOOKS = {"reason": "unconscious", "words": "Unconscious after an accident", "search": True}


def test_in_an_emergency_somebody_is_found_by_name_and_then_opened(world: World) -> None:
    doctor = staff(Role.DOCTOR)
    who = "/emergency/patients?name=mona"
    before, stated, told, still = world.ask_all(doctor, who, ("/emergency", LOOKS), who, f"/studies/{MONA}")
    assert (before.status_code, before.json()["reason"]) == (400, "emergency-not-stated")
    assert (stated.status_code, told.status_code) == (201, 200)
    assert still.status_code == 403, "to be found opens nothing"
    (event,) = world.archive.journal.events(AccessEmergency)
    assert (event.study_uid, event.patient_key, event.reason) == (None, "", "unconscious")

    # what tells one from another, and not more
    (mona,) = told.json()["patients"]
    assert mona == {
        "patient_key": world.mona,
        "name": {"Alphabetic": "Mona^A"},
        "birth_date": "19800101",
        "sex": "F",
        "id_end": "",
        "last_examined": "20250228",
        "modalities": ["CT"],
    }
    granted = world.archive.journal.events(AccessGranted)[-1]
    assert (granted.action, granted.purpose, granted.access_id) == (
        "emergency-search",
        "ETREAT",
        told.headers["Sijil-Access-Id"],
    )
    assert [(s.study_uid, s.patient_key) for s in granted.shown] == [(MONA, world.mona)], "it is in her trail"
    assert "mona" not in repr(granted).lower(), "what was asked for is an HMAC"

    opens = {"patient_key": world.mona, "words": LOOKS["words"]}
    opened, file = world.ask_all(doctor, ("/emergency", opens), f"/patients/{world.mona}")
    assert (opened.status_code, file.status_code) == (201, 200)

    # another process knows the statement by its projection; it is of who stated it, and for half an hour
    assert world.ask(doctor, who).status_code == 400
    world.archive.told(event)
    by_id, other_day, nobody = world.ask_all(
        doctor,
        "/emergency/patients?id=O1&birth_date=1980-01-01",
        f"{who}&birth_date=1980-01-02",
        "/emergency/patients?name=nobody",
    )
    assert [p["patient_key"] for p in by_id.json()["patients"]] == [world.omar]
    assert other_day.json() == nobody.json() == {"patients": [], "more": False}
    assert world.ask(staff(Role.DOCTOR, person="dr-8"), who).status_code == 400
    assert clock.now() < datetime.fromisoformat(event.until) < clock.now() + timedelta(hours=0.6)


@pytest.mark.parametrize(
    "asked", ["", "?name=mo", "?name=m*a", "?id=*", "?birth_date=1980-01-01", "?name=mona&birth_date=x"]
)
def test_an_emergency_lists_nobody_who_is_not_asked_for(world: World, asked: str) -> None:
    stated, answer = world.ask_all(staff(Role.DOCTOR), ("/emergency", LOOKS), f"/emergency/patients{asked}")
    assert (stated.status_code, answer.status_code) == (201, 400)


def test_break_glass_is_over_when_its_time_is(world: World) -> None:
    world.archive.settings = replace(world.archive.settings, emergency_hours=0)
    doctor = staff(Role.DOCTOR)
    opened, after = world.ask_all(doctor, ("/emergency", STATED), f"/dicom-web/studies/{MONA}")
    assert (opened.status_code, after.status_code) == (201, 403)


def test_break_glass_lets_nobody_in_whom_the_log_does_not_know(world: World) -> None:
    world.archive.journal.full = True
    opened = world.ask(staff(Role.DOCTOR), ("/emergency", STATED))
    assert opened.status_code == 503
    world.archive.journal.full = False
    narrowed(world, staff(Role.DOCTOR), set())


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"words": "short"}, 400),
        ({"words": " " * 20}, 400),
        ({"words": "x" * 3000}, 400),
        ({"reason": "curiosity"}, 400),
        ({"study_uid": ""}, 400),
        ({"study_uid": "no uid"}, 400),
        ({"study_uid": "1.2.99"}, 404),
        ({"study_uid": "", "patient_key": "k1:" + "A" * 43}, 404),
        ({"more": 1}, 400),
        ({"search": True}, 400),
    ],
)
def test_an_emergency_is_stated_in_full(world: World, changed: dict[str, Any], status: int) -> None:
    assert world.ask(staff(Role.DOCTOR), ("/emergency", STATED | changed)).status_code == status


def test_who_may_not_break_the_glass(world: World) -> None:
    for role in Role:
        expected = 201 if role in (Role.DOCTOR, Role.RADIOLOGIST, Role.RESIDENT, Role.LOCAL) else 403
        assert world.ask(staff(role, CAIRO), ("/emergency", STATED)).status_code == expected, role


def test_lists_for_a_site_hold_what_is_of_it(world: World) -> None:
    for site, own in ((CAIRO, {MONA}), (ALEX, {OMAR, MONA_ALEX})):
        for asked in ("", f"&site={ALEX}", f"&site={CAIRO}"):
            answer = world.ask(
                staff(Role.TECHNICIAN, site), f"/arrivals?since=2025-02-27T00:00:00Z&until=2025-03-05T00:00:00Z{asked}"
            )
            assert answer.status_code == 200
            assert {r["study_uid"] for r in answer.json()["arrivals"]} <= own


def test_rejections_of_a_site_show_also_what_was_too_broken_to_name_its_study(world: World) -> None:
    of = {"instance": {"study_uid": MONA, "site": CAIRO}, "noise": {"study_uid": "", "site": CAIRO}}
    writes = [
        Upsert("rejections", {"day": "20251001", "rejection_id": n}, columns | {"reason": "not-dicom"}, 1)
        for n, columns in (of | {"elsewhere": {"study_uid": "", "site": ALEX}}).items()
    ]
    asyncio.run(world.archive.tables.apply(writes))
    answer = world.ask(staff(Role.TECHNICIAN, CAIRO), "/rejections?day=20251001")
    assert {r["rejection_id"] for r in answer.json()["rejections"]} == set(of)


def test_reach_is_a_value() -> None:
    assert WHOLE.shows("1", "", ())
    assert not Reach().shows("1", "", ("",))
    assert not Reach(patients=frozenset({""})).shows("1", "", ())
    assert Reach(sites=frozenset({CAIRO})).shows("1", "k", (ALEX, CAIRO))


def test_who_looked_at_a_study_that_was_filed_by_mistake_is_no_longer_told(world: World) -> None:
    """A look at it stays in the trail of the file in which it was then; it is another patient's now."""
    moment = clock.now()
    looks = [
        Upsert(
            "accesses_by_patient",
            {
                "patient_key": world.mona,
                "month": f"{moment:%Y%m}",
                "access_id": f"00000000-0000-4000-8000-00000000000{n}",
                "study_uid": uid,
            },
            {
                "occurred": clock.rfc3339(moment),
                "actor": "person:dr-7",
                "role": "doctor",
                "purpose": "TREAT",
                "action": "read",
                "outcome": "granted",
            },
            1,
        )
        for n, uid in enumerate((MONA, OMAR))
    ]
    asyncio.run(world.archive.tables.apply(looks))
    path = f"/patients/{world.mona}/accesses"
    own, officers = world.ask(patient(world.mona), path), world.ask(staff(Role.OFFICER), path)
    assert own.status_code == 200, own.text
    assert {a["study_uid"] for a in own.json()["accesses"]} == {MONA}
    assert {a["study_uid"] for a in officers.json()["accesses"]} == {MONA, OMAR}
