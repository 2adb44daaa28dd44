"""Who looked at what, as people and health records read it: lists by pages, plain words, AuditEvents."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.api import queries
from consumers.api.audit_event import Span, span_of
from consumers.api.guard import GuardedRoute
from consumers.api.plain_words import ACTIONS, LANGUAGES, PURPOSES, ROLES, language_of
from consumers.api.trail import Cursor, buckets, moment, page
from infra import clock
from schemas.errors import Invalid
from schemas.events import AccessDenied, AccessEmergency, AccessGranted, AccessUsed, Event, PatientLinked, Shown
from schemas.roles import DEFAULT_PURPOSE, Role
from streams.dispatch import project
from streams.facts import Fact, rfc3339_of
from tests.unit.consumers.archive import MemoryArchive

ONE, TWO = "k1:" + "a" * 43, "k1:" + "b" * 43
DOCTOR = "person:7"
HOUR_MS = 3_600_000


class Trail:
    """A memory archive that accesses are projected into."""

    def __init__(self) -> None:
        self.archive = MemoryArchive()
        self.count = 0

    def id(self, at_ms: int) -> str:
        """A UUIDv7 of that moment, above all before it."""
        self.count += 1
        return str(UUID(int=at_ms << 80 | 7 << 76 | 2 << 62 | self.count))

    def take(self, event: Event) -> None:
        """As the worker does."""
        fact = Fact("sijil.accesses", 0, self.count, clock.now_ms(), f"e{self.count}", event)
        asyncio.run(self.archive.tables.apply(project(fact)))

    def granted(self, at_ms: int, *shown: tuple[str, str], actor: str = DOCTOR, **more: Any) -> str:
        """Studies were shown; its id."""
        id = self.id(at_ms)
        pairs = [Shown(study_uid=s, patient_key=p) for s, p in shown]
        only = shown[0][0] if len(shown) == 1 else None
        event = AccessGranted(
            **who(id, at_ms, actor, **more), study_uid=only, shown=pairs, shown_count=len(pairs), window_s=60
        )
        self.take(event)
        return id

    def json(self, path: str, **headers: str) -> Any:
        """Of a 200."""
        answer = self.archive.get(path, **headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def pages(self, path: str) -> list[Any]:
        """The rows of all pages."""
        found: list[Any] = []
        following: str | None = path
        while following:
            some = self.json(following)
            found += some["accesses"]
            following = some.get("next")
            assert some["accesses"] or not following
        return found


def who(id: str, at_ms: int, actor: str = DOCTOR, **more: Any) -> dict[str, Any]:
    """The fields that every event has."""
    said = {"action": "retrieve", "role": "doctor", "purpose": "TREAT", "via": "http", "address": "192.0.2.7"}
    return {"access_id": id, "actor": actor, "occurred": rfc3339_of(at_ms), **said, **more}


@pytest.fixture
def trail() -> Trail:
    return Trail()


@pytest.fixture
def now() -> int:
    return clock.now_ms()


# ------------------------------------------------------------------------------------------------ pages


@settings(deadline=None)
@given(
    hours=st.lists(st.integers(0, 24 * 70), min_size=1, max_size=12),
    shows=st.lists(st.integers(1, 4), min_size=12, max_size=12),
    limit=st.integers(1, 5),
)
def test_pages_give_every_row_once_and_the_newest_first(hours: list[int], shows: list[int], limit: int) -> None:
    trail, now = Trail(), clock.now_ms()
    expected = []
    for hour, count in zip(hours, shows, strict=False):
        id = trail.granted(now - hour * HOUR_MS, *((f"1.{n}", (ONE, TWO)[n % 2]) for n in range(count)))
        expected += [(id, f"1.{n}") for n in range(count)]
    last = clock.now()
    months = [
        [queries.accesses_of_patient(k, m) for k in (ONE, TWO)]
        for m in buckets(last - timedelta(days=100), last, "month")
    ]
    found: list[tuple[str, str]] = []
    cursor = None
    for _ in range(len(expected) // limit + 1):
        some = asyncio.run(page(trail.archive.tables, months, cursor, limit))
        found += [(r["access_id"], r["study_uid"]) for r in some.rows]
        if some.next is None:
            break
        cursor = Cursor.read(str(some.next))
    assert found == sorted(expected, key=lambda e: (-UUID(e[0]).int, e[1]))


def test_the_lists_of_a_study_an_actor_and_an_hour(trail: Trail, now: int) -> None:
    old = trail.granted(now - 40 * 24 * HOUR_MS, ("1.2.3", ONE))
    seen = trail.granted(now, ("1.2.3", ONE))
    other = trail.granted(now, ("1.2.3", ONE), actor="person:8")
    search = trail.granted(now, ("1.2.3", ONE), ("1.2.4", TWO), action="search")
    assert [r["access_id"] for r in trail.pages("/studies/1.2.3/accesses?limit=1")] == [search, other, seen, old]
    mine = trail.pages(f"/accesses?actor={DOCTOR}&limit=1")
    assert [(r["access_id"], r["shown_count"]) for r in mine] == [(search, 2), (seen, 1)]
    assert mine[1]["study_uid"] == "1.2.3"
    assert "study_uid" not in mine[0]
    day = rfc3339_of(now - 40 * 24 * HOUR_MS)[:10].replace("-", "")
    assert [r["access_id"] for r in trail.pages(f"/accesses?actor={DOCTOR}&day={day}")] == [old]
    hour = "".join(c for c in rfc3339_of(now) if c.isdigit())[:10]
    assert {r["access_id"] for r in trail.pages(f"/accesses?hour={hour}&limit=2")} == {seen, other, search}


def test_refusals_and_emergencies_for_the_officer(trail: Trail, now: int) -> None:
    refused = trail.id(now)
    trail.take(AccessDenied(**who(refused, now), reason="no-relation", study_uid="1.2.3"))
    body = msgspec.json.encode({"access_id": "x", "words": "وقع من السلم"})
    digest = hashlib.sha256(body).hexdigest()
    opened = trail.id(now)
    trail.archive.objects.put("sijil-documents", "emergencies/x.json", body, sha256=digest)
    event = AccessEmergency(
        **who(opened, now, action="break-glass"),
        reason="no-relation",
        study_uid="1.2.3",
        patient_key=ONE,
        until=rfc3339_of(now + HOUR_MS),
        bucket="sijil-documents",
        document_key="emergencies/x.json",
        document_size=len(body),
        document_sha256=digest,
    )
    trail.take(event)
    (row,) = trail.pages("/accesses?outcome=denied")
    assert (row["access_id"], row["reason"], row["study_uid"]) == (refused, "no-relation", "1.2.3")
    (row,) = trail.pages("/accesses?outcome=emergency")
    assert (row["access_id"], row["stated"], row["patient_key"]) == (opened, "وقع من السلم", ONE)
    assert "document_key" not in row
    trail.archive.objects.damage("sijil-documents", "emergencies/x.json", body.replace("السلم".encode(), b"x"))
    (row,) = trail.pages("/accesses?outcome=emergency")
    assert row["stated_changed"] is True
    trail.archive.objects.delete("sijil-documents", "emergencies/x.json")
    (row,) = trail.pages("/accesses?outcome=emergency")
    assert "stated" not in row, "its retention is over, and the emergency is still listed"


def test_the_trail_of_a_file_is_that_of_all_files_joined_to_it(trail: Trail, now: int) -> None:
    joined = PatientLinked(
        link_id=trail.id(now),
        patient_key=ONE,
        other_key=TWO,
        reason="administrator",
        stated_by="person:1",
        recorded=rfc3339_of(now),
    )
    trail.archive.told(joined)
    first = trail.granted(now - 2, ("1.2.4", TWO))
    both = trail.granted(now - 1, ("1.2.3", ONE), ("1.2.4", TWO))
    last = trail.granted(now, ("1.2.3", ONE))
    expected = [(last, "1.2.3", ONE), (both, "1.2.3", ONE), (both, "1.2.4", TWO), (first, "1.2.4", TWO)]
    for key in (ONE, TWO):
        found = trail.pages(f"/patients/{key}/accesses?limit=1")
        assert [(r["access_id"], r["study_uid"], r["patient_key"]) for r in found] == expected
        told = trail.json(f"/fhir/AuditEvent?patient={key}")["entry"]
        assert [e["resource"]["id"] for e in told] == [last, both, first]


def test_reading_the_trail_is_in_the_trail(trail: Trail, now: int) -> None:
    trail.granted(now, ("1.2.3", ONE))
    for path in (f"/patients/{ONE}/accesses", f"/accesses?actor={DOCTOR}", f"/fhir/AuditEvent?patient={ONE}"):
        trail.json(path)
        event = trail.archive.journal.events(AccessGranted)[-1]
        assert (event.action, event.shown) == ("read-accesses", [Shown(study_uid="1.2.3", patient_key=ONE)])
    trail.json(f"/patients/{TWO}/accesses")
    assert trail.archive.journal.events(AccessGranted)[-1].patient_key == TWO
    assert DOCTOR not in repr([e.search for e in trail.archive.journal.events(AccessGranted)])


@pytest.mark.parametrize(
    "path",
    [
        "/accesses",
        "/accesses?actor=x&hour=2025010101",
        "/accesses?hour=2025",
        "/accesses?hour=2025010124",
        "/accesses?outcome=granted",
        "/accesses?actor=x&day=2025",
        "/accesses?outcome=emergency&month=x",
        "/accesses?actor=x&limit=0",
        "/accesses?actor=x&before=x",
        "/accesses?actor=x&lang=fr",
        "/patients/x/accesses",
        "/fhir/AuditEvent?patient=x",
        f"/fhir/AuditEvent?patient={ONE}&agent=x",
        "/fhir/AuditEvent?date=yesterday",
        "/fhir/AuditEvent?date=2025-02-30",
        "/fhir/AuditEvent?date=ge2025-01-01&date=le2025-03-01",
        "/fhir/AuditEvent?agent=x&_count=0",
        "/fhir/AuditEvent/x",
    ],
)
def test_what_cannot_be_meant_is_refused(trail: Trail, path: str) -> None:
    answer = trail.archive.get(path)
    assert answer.status_code == 400, answer.text


# ------------------------------------------------------------------------------------------------ plain words


def test_a_patient_reads_it_in_their_language(trail: Trail, now: int) -> None:
    id = trail.granted(now, ("1.2.3", ONE))
    counted = who(id, now) | {"study_uid": "1.2.3", "patient_key": ONE, "last_used": rfc3339_of(now)}
    trail.take(AccessUsed(**counted, uses=3))
    path = f"/patients/{ONE}/accesses"
    (english,) = trail.json(f"{path}?lang=en")["accesses"]
    assert english["words"]["text"] == (
        "A doctor looked at the images of the study for treatment, through a program, 3 times."
    )
    (arabic,) = trail.json(f"{path}?lang=ar")["accesses"]
    assert arabic["words"]["text"] == "طبيب: الاطّلاع على صور الفحص للعلاج، عبر برنامج متصل، عدد المرات: 3."
    answer = trail.archive.get(path, **{"Accept-Language": "ar-EG,en;q=0.5"})
    assert answer.headers["Content-Language"] == "ar"
    assert answer.json()["accesses"][0]["words"]["who"] == "طبيب"
    (plain,) = trail.json(path)["accesses"]
    assert "words" not in plain


def test_a_refusal_and_an_emergency_in_words(trail: Trail, now: int) -> None:
    trail.take(AccessDenied(**who(trail.id(now), now), reason="no-relation", patient_key=ONE))
    (row,) = trail.json(f"/patients/{ONE}/accesses?lang=en")["accesses"]
    assert row["words"]["text"] == "A doctor asked for treatment, through a program, and was refused."
    (row,) = trail.json(f"/patients/{ONE}/accesses?lang=ar")["accesses"]
    assert "رُفض الطلب" in row["words"]["text"]


def test_nothing_lacks_words() -> None:
    app, _ = MemoryArchive().app()
    assert {route.action for route in app.routes if isinstance(route, GuardedRoute)} <= set(ACTIONS)
    assert set(ROLES) == set(Role)
    assert set(DEFAULT_PURPOSE.values()) <= set(PURPOSES)
    for words in (*ROLES.values(), *ACTIONS.values(), *PURPOSES.values()):
        assert len(words) == len(LANGUAGES)
        assert all(words)


def test_languages() -> None:
    assert language_of("", "") == ""
    assert language_of("", "fr, en-GB;q=0.8, ar;q=0.5") == "en"
    assert language_of("ar", "en") == "ar"
    with pytest.raises(Invalid):
        language_of("de", "")


# ------------------------------------------------------------------------------------------------ AuditEvent


def test_an_access_as_audit_event(trail: Trail, now: int) -> None:
    id = trail.granted(now, ("1.2.3", ONE), action="dicom-move", via="dimse", destination="PACS2")
    found = trail.json(f"/fhir/AuditEvent/{id}")
    assert found["resourceType"] == "AuditEvent"
    assert (found["id"], found["type"]["code"], found["outcome"], found["action"]) == (id, "110104", "0", "R")
    asker, destination = found["agent"]
    assert asker["who"]["identifier"]["value"] == DOCTOR
    assert asker["network"] == {"address": "192.0.2.7", "type": "2"}
    assert (asker["requestor"], destination["requestor"]) == (True, False)
    assert destination["who"]["identifier"]["value"] == "ae:PACS2"
    assert found["purposeOfEvent"][0]["coding"][0]["code"] == "TREAT"
    patient, study = found["entity"]
    assert patient["what"]["identifier"]["value"] == ONE
    assert study["what"]["identifier"]["value"] == "urn:oid:1.2.3"
    assert trail.archive.get(f"/fhir/AuditEvent/{trail.id(now)}").status_code == 404


def test_a_refusal_is_no_success(trail: Trail, now: int) -> None:
    id = trail.id(now)
    trail.take(AccessDenied(**who(id, now), reason="no-relation", study_uid="1.2.3"))
    found = trail.json(f"/fhir/AuditEvent/{id}")
    assert (found["outcome"], found["outcomeDesc"]) == ("4", "no-relation")


def test_audit_events_by_patient_agent_entity_and_date(trail: Trail, now: int) -> None:
    old = trail.granted(now - 30 * HOUR_MS, ("1.2.3", ONE))
    new = trail.granted(now, ("1.2.3", ONE), ("1.2.4", ONE), ("1.2.5", TWO), action="search")

    def ids(query: str) -> list[str]:
        found = trail.json(f"/fhir/AuditEvent?{query}")
        assert (found["resourceType"], found["type"]) == ("Bundle", "searchset")
        return [e["resource"]["id"] for e in found.get("entry", ())]

    assert ids(f"patient={ONE}") == ids(f"patient:identifier=urn:sijil:patient-key|{ONE}") == [new, old]
    assert ids(f"agent={quote(DOCTOR)}") == [new, old]
    assert ids("entity=urn:oid:1.2.3") == [new, old]
    assert ids(f"date=ge{rfc3339_of(now - HOUR_MS)}") == [new]
    assert ids(f"patient={ONE}&date=lt{rfc3339_of(now - HOUR_MS)}") == [old]
    assert ids(f"patient={ONE}&date=gt2999") == []
    assert ids("") == [new, old]
    search = trail.json(f"/fhir/AuditEvent?patient={ONE}")["entry"][0]["resource"]
    assert [e["what"]["identifier"]["value"] for e in search["entity"]] == [ONE, "urn:oid:1.2.3", "urn:oid:1.2.4"]


def test_pages_of_audit_events(trail: Trail, now: int) -> None:
    expected = [trail.granted(now - n * 7 * HOUR_MS, ("1.2.3", ONE)) for n in range(7)]
    url, found = f"http://sijil.test/fhir/AuditEvent?patient={ONE}&_count=3", []
    for _ in range(3):
        bundle = trail.json(url)
        found += [e["resource"]["id"] for e in bundle.get("entry", ())]
        url = next((link["url"] for link in bundle["link"] if link["relation"] == "next"), "")
    assert found == expected
    assert not url


MIDNIGHT = datetime(2020, 1, 1)  # noqa: DTZ001 - Hypothesis takes its bounds without a zone
EARLIEST, LATEST = datetime(2020, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("dates", "first", "end"),
    [
        ([], EARLIEST, LATEST),
        (["2026-11-23"], at("2026-11-23"), at("2026-11-24")),
        (["2026-12"], at("2026-12-01"), LATEST),
        (["2025"], at("2025-01-01"), at("2026-01-01")),
        (["ge2026-11-01", "lt2026-11-23T10:00:00Z"], at("2026-11-01"), at("2026-11-23T10:00:00")),
        (["gt2026-11-01", "le2026-11-02"], at("2026-11-02"), at("2026-11-03")),
        (["2026-11-23T12:00+02:00"], at("2026-11-23T10:00"), at("2026-11-23T10:01")),
        (["2026-11-23T12:00:00 02:00"], at("2026-11-23T10:00"), at("2026-11-23T10:00:01")),
        (["2026-11-23T10:00:00.5Z"], at("2026-11-23T10:00:00.500000"), at("2026-11-23T10:00:00.500001")),
    ],
)
def test_dates_of_a_search(dates: list[str], first: datetime, end: datetime) -> None:
    assert span_of(dates, EARLIEST, LATEST) == Span(first, end)


@pytest.mark.parametrize(("column", "digits"), [("month", 6), ("day", 8), ("hour", 10)])
@given(moments=st.tuples(st.datetimes(MIDNIGHT, MIDNIGHT + timedelta(days=90)), st.integers(0, 2000)))
def test_a_span_has_all_its_partitions(column: str, digits: int, moments: tuple[datetime, int]) -> None:
    first = moments[0].replace(tzinfo=UTC)
    last = first + timedelta(hours=moments[1])
    expected = {moment(first + timedelta(hours=h), digits) for h in range(moments[1] + 1)}
    assert buckets(first, last, column) == sorted(expected, reverse=True)
