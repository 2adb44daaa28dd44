"""The health record as a destination, on read models in memory and a record that does as FHIR servers do."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from consumers.api import queries
from consumers.delivery.dossier import Dossiers
from consumers.delivery.ehr import bundle
from consumers.delivery.ehr.bundle import Subject, foreign
from consumers.delivery.ehr.client import Unsuitable
from consumers.delivery.ehr.destination import Ehr
from consumers.delivery.entry import Away, Delivered, Entry, Instead, NotNeeded, Refused, Waiting
from consumers.fhir.codes import Resource
from consumers.report_pdf.sheet import Sheet
from infra import clock
from infra.memory import MemoryTables
from schemas.events import Event, PatientLinked, PatientUnlinked, ReportIssued, StudyReassigned
from schemas.identity import derived_id, national_id_check_digit, patient_key
from schemas.overlay import Overlay
from schemas.tables import STATE_KEYSPACE, Upsert
from tests.unit.consumers.archive import SECRET, MemoryArchive, part10

SYSTEM = "urn:sijil:eg:national-id"
REPORT = derived_id("report", "ehr")
_offsets = itertools.count(10_000)


def national_id(number: int) -> str:
    """Of a woman born on 1980-01-01, as in the datasets."""
    first = f"280010101{number:03d}2"
    return first + national_id_check_digit(first)


HERS, ANOTHERS = national_id(1), national_id(2)


class Record:
    """A FHIR server: conditional updates by the identifier asked for, transactions done whole or not at all."""

    def __init__(self, *people: str) -> None:
        self.people = list(people)
        self.has: dict[str, Resource] = {}
        self.versions: dict[str, list[str]] = {}
        self.keys: list[str] = []
        self.order: list[tuple[str, str]] = []
        self.away = False
        self.refuses = 0

    async def transact(self, asked: Resource, key: str) -> None:
        if self.away:
            raise Away("not-reachable")
        if self.refuses:
            raise Unsuitable(self.refuses)
        self.keys.append(key)
        people = list(self.people)
        for entry in asked["entry"]:
            if entry["request"]["method"] == "POST":
                people.append(entry["resource"]["identifier"][0]["value"])
        for entry in asked["entry"]:
            reference = entry["resource"].get("subject", {}).get("reference", "")
            if reference.startswith("Patient?") and people.count(reference.rpartition("|")[2]) != 1:
                raise Unsuitable(404)
        self.people = people
        for entry in asked["entry"]:
            if entry["request"]["method"] == "PUT":
                url = entry["request"]["url"]
                content = msgspec.json.encode(entry["resource"]).decode()
                self.has[url] = entry["resource"]
                history = self.versions.setdefault(url, [])
                if not history or history[-1] != content:
                    history.append(content)
                self.order.append((entry["resource"]["status"], _value(entry["resource"])))

    async def count(self, search: str) -> int:
        return self.people.count(search.rpartition("|")[2])

    async def close(self) -> None:
        """Nothing to let go."""

    def of(self, kind: str, national_id: str) -> list[Resource]:
        """What stands under somebody."""
        return [r for r in self.has.values() if r["resourceType"] == kind and _value(r) == national_id]


def _value(resource: Resource) -> str:
    return str(resource["subject"]["reference"].rpartition("|")[2])


async def printed(sheet: Sheet) -> bytes:
    """What stands for a PDF."""
    return f"%PDF {sheet.title}".encode()


class Hospital:
    """An archive with a report, and what delivers from it."""

    def __init__(self, record: Record, *, create: bool = False, patient_id: str = HERS) -> None:
        self.archive, self.record = MemoryArchive(), record
        self.archive.store([part10("1.2.9.1.1.1", study="1.2.9.1", PatientID=patient_id)])
        self.state = MemoryTables(STATE_KEYSPACE)
        dossiers = Dossiers(self.archive.settings, lambda: self.archive.tables, self.archive.objects, printed)
        client: Any = record
        self.ehr = Ehr(client, dossiers, self.state, system=SYSTEM, create=create)
        self.documents: dict[int, ReportIssued] = {}

    def reported(self, version: int, text: str, studies: Sequence[str] = ("1.2.9.1",)) -> ReportIssued:
        document = {
            "resourceType": "DiagnosticReport",
            "status": "final",
            "code": {"text": "CT chest"},
            "imagingStudy": [{"reference": f"urn:oid:{u}"} for u in studies],
            "performer": [{"reference": "Practitioner/7", "display": "د. سلمى"}],
            "conclusion": text,
        }
        self.archive.report(json.dumps(document).encode(), list(studies), report_id=REPORT, version=version)
        row = asyncio.run(self.ehr._dossiers.versions(REPORT))[0]
        return ReportIssued(**{n: row[n] for n in ReportIssued.__struct_fields__ if n in row})

    def owes(self, event: Event, subject: str = f"report/{REPORT}") -> Any:
        return asyncio.run(
            self.ehr.deliver(Entry(derived_id("d", subject, repr(event)), "ehr", subject, event, clock.now()))
        )

    def belongs_to(self, national_id: str) -> StudyReassigned:
        """The study is another patient's from now on."""
        key = patient_key(
            SECRET, patient_id=national_id, issuer="LOCAL", birth_date="19800101", sex="F", study_uid="1.2.9.1"
        ).value
        offset = next(_offsets)
        laid = Overlay(revision=offset, study={"00100020": national_id}, patient_key=key)
        upsert = Upsert("studies", {"study_uid": "1.2.9.1"}, {"overlay": msgspec.json.encode(laid).decode()}, offset)
        asyncio.run(self.archive.tables.apply([upsert]))
        return StudyReassigned(
            correction_id=derived_id("c", national_id),
            study_uid="1.2.9.1",
            actor="person:7",
            reason="wrong-patient",
            recorded="2026-11-23T08:00:00Z",
            bucket="sijil-documents",
            document_key="corrections/1",
            document_size=1,
            document_sha256="0" * 64,
        )

    def joined(self, *, holds: bool) -> PatientLinked | PatientUnlinked:
        """The file of study 1.2.9.1 is one with that of 1.2.9.2, which stays; or no more."""

        async def keys() -> list[str]:
            found = [await self.archive.tables.select(queries.study_state(f"1.2.9.{n}")) for n in (2, 1)]
            return [rows[0]["patient_key"] for rows in found]

        stays, goes = asyncio.run(keys())
        event = (PatientLinked if holds else PatientUnlinked)(
            link_id=derived_id("link", "1"),
            patient_key=stays,
            other_key=goes,
            reason="administrator",
            stated_by="person:7",
            recorded="2026-11-23T08:00:00Z",
        )
        self.archive.told(event)
        return event


def test_a_report_and_its_study_under_the_patient() -> None:
    hospital = Hospital(record := Record(HERS))
    event = hospital.reported(1, "لا يوجد نزف")
    assert hospital.owes(event) == Delivered()
    (report,) = record.of("DiagnosticReport", HERS)
    (study,) = record.of("ImagingStudy", HERS)
    assert report["conclusion"] == "لا يوجد نزف"
    assert report["presentedForm"][0]["contentType"] == "application/pdf"
    assert report["performer"] == [
        {
            "type": "Practitioner",
            "identifier": {"system": "urn:sijil:reference:Practitioner", "value": "7"},
            "display": "د. سلمى",
        }
    ], "a person of this archive is nobody there"
    assert study["contained"][0]["address"].endswith("/dicom-web")
    assert "id" not in report
    # Again, as after a crash: the same key, and nothing changes.
    assert hospital.owes(event) == Delivered()
    assert len(set(record.keys)) == 1
    assert {len(v) for v in record.versions.values()} == {1}
    assert hospital.owes(hospital.reported(2, "يوجد نزف")) == Delivered()
    assert [r["conclusion"] for r in record.of("DiagnosticReport", HERS)] == ["يوجد نزف"]
    assert hospital.owes(event) == NotNeeded(), "one that was set aside does not undo a later one"


def test_an_unknown_patient_waits_and_is_created_only_by_a_setting() -> None:
    hospital = Hospital(record := Record())
    event = hospital.reported(1, "x")
    assert hospital.owes(event) == Waiting("patient-unknown")
    record.people.append(HERS)
    assert hospital.owes(event) == Delivered()
    record.people.append(HERS)
    assert hospital.owes(event) == Waiting("patient-ambiguous")
    creating = Hospital(other := Record(), create=True)
    assert creating.owes(creating.reported(1, "x")) == Delivered()
    assert other.people == [HERS]


@pytest.mark.parametrize("patient_id", ["P-77", "28001010100114", ""])
def test_without_a_national_id_that_is_theirs_it_waits(patient_id: str) -> None:
    hospital = Hospital(record := Record(HERS, "P-77", "28001010100114"), patient_id=patient_id)
    assert hospital.owes(hospital.reported(1, "x")) == Waiting("no-national-id")
    assert not record.has


def test_a_study_that_is_not_there_yet() -> None:
    hospital = Hospital(record := Record(HERS))
    assert hospital.owes(hospital.reported(1, "x", ("1.2.9.1", "1.2.9.2"))) == Waiting("study-unknown")
    hospital.archive.store([part10("1.2.9.2.1.1", study="1.2.9.2", PatientID=ANOTHERS)])
    assert hospital.owes(hospital.reported(1, "x", ("1.2.9.1", "1.2.9.2"))) == Waiting("patients-differ")
    assert not record.has


def test_a_reassigned_study_leaves_the_wrong_patient_first() -> None:
    hospital = Hospital(record := Record(HERS, ANOTHERS))
    event = hospital.reported(1, "x")
    hospital.owes(event)
    moved = hospital.belongs_to(ANOTHERS)
    record.order.clear()
    assert hospital.owes(moved, "study/1.2.9.1") == Delivered()
    assert [s for s, whose in record.order if whose == HERS] == ["entered-in-error"] * 2
    assert record.order.index(("entered-in-error", HERS)) < record.order.index(("final", ANOTHERS))
    (wrong,), (right,) = record.of("DiagnosticReport", HERS), record.of("DiagnosticReport", ANOTHERS)
    assert wrong["status"] == "entered-in-error"
    assert "conclusion" not in wrong, "what it said was of somebody else"
    assert (right["status"], right["conclusion"]) == ("final", "x")
    # And back.
    assert hospital.owes(hospital.belongs_to(HERS), "study/1.2.9.1") == Delivered()
    assert [r["status"] for r in record.of("DiagnosticReport", HERS)] == ["final"]
    assert [r["status"] for r in record.of("DiagnosticReport", ANOTHERS)] == ["entered-in-error"]


def test_joined_files_are_one_patient_and_apart_again_two() -> None:
    hospital = Hospital(record := Record(ANOTHERS), patient_id="P-77")
    event = hospital.reported(1, "x")
    assert hospital.owes(event) == Waiting("no-national-id")
    hospital.archive.store([part10("1.2.9.2.1.1", study="1.2.9.2", PatientID=ANOTHERS)])
    linked = hospital.joined(holds=True)
    subject = f"patient/{linked.patient_key}"
    assert hospital.owes(linked, subject) == Instead(("study/1.2.9.2", "study/1.2.9.1"))
    assert hospital.owes(event) == Delivered(), "now it is known who it is"
    assert [r["status"] for r in record.of("DiagnosticReport", ANOTHERS)] == ["final"]
    assert hospital.owes(linked, "study/1.2.9.1") == NotNeeded(), "it is there already"
    ended = hospital.joined(holds=False)
    record.order.clear()
    assert hospital.owes(ended, "study/1.2.9.1") == Waiting("no-national-id")
    assert record.order == [("entered-in-error", ANOTHERS)] * 2, "study and report"
    # Under a national ID of its own it moves, too, and back.
    other = Hospital(kept := Record(HERS, ANOTHERS))
    assert other.owes(other.reported(1, "y")) == Delivered()
    other.archive.store([part10("1.2.9.2.1.1", study="1.2.9.2", PatientID=ANOTHERS)])
    assert other.owes(other.joined(holds=True), "study/1.2.9.1") == Delivered()
    assert [r["status"] for r in kept.of("DiagnosticReport", HERS)] == ["entered-in-error"]
    assert [r["conclusion"] for r in kept.of("DiagnosticReport", ANOTHERS)] == ["y"]
    assert other.owes(other.joined(holds=False), "study/1.2.9.1") == Delivered()
    assert [r["status"] for r in kept.of("DiagnosticReport", ANOTHERS)] == ["entered-in-error"]
    assert [r["conclusion"] for r in kept.of("DiagnosticReport", HERS)] == ["y"]


def test_the_wrong_patient_is_cleared_also_when_the_right_one_is_unknown() -> None:
    hospital = Hospital(record := Record(HERS))
    hospital.owes(hospital.reported(1, "x"))
    moved = hospital.belongs_to(ANOTHERS)
    assert hospital.owes(moved, "study/1.2.9.1") == Waiting("patient-unknown")
    assert [r["status"] for r in record.of("DiagnosticReport", HERS)] == ["entered-in-error"]
    record.people.append(ANOTHERS)
    assert hospital.owes(moved, "study/1.2.9.1") == Delivered()
    assert [r["status"] for r in record.of("ImagingStudy", ANOTHERS)] == ["available"]


def test_one_that_waited_under_an_unknown_patient_is_not_held_up_by_that() -> None:
    hospital = Hospital(Record(ANOTHERS))
    event = hospital.reported(1, "x")
    assert hospital.owes(event) == Waiting("patient-unknown")
    hospital.belongs_to(ANOTHERS)
    assert hospital.owes(event) == Delivered()


def test_what_nobody_waits_for_is_not_told() -> None:
    hospital = Hospital(record := Record(HERS))
    assert hospital.owes(hospital.belongs_to(HERS), "study/1.2.9.1") == NotNeeded(), "it is not complete yet"
    assert not record.has


def test_a_record_that_is_away_or_refuses() -> None:
    hospital = Hospital(record := Record(HERS))
    event = hospital.reported(1, "x")
    record.refuses = 422
    assert hospital.owes(event) == Refused("http-422")
    record.refuses, record.away = 0, True
    with pytest.raises(Away, match="not-reachable"):
        hospital.owes(event)
    record.away = False
    assert hospital.owes(event) == Delivered()


def test_references_of_another_server_become_identifiers() -> None:
    given: dict[str, Any] = {
        "a": {"reference": "Practitioner/7"},
        "b": [{"reference": "#order"}, {"reference": "urn:oid:1.2"}, {"reference": "https://x/y"}],
        "c": {"reference": "Organization/1", "identifier": {"value": "MOH"}},
        "d": {"reference": ""},
    }
    assert foreign(given) == {
        **given,
        "a": {"type": "Practitioner", "identifier": {"system": "urn:sijil:reference:Practitioner", "value": "7"}},
        "c": {"type": "Organization", "identifier": {"value": "MOH"}},
    }


def test_what_is_searched_for_is_quoted() -> None:
    assert Subject("k", "http://eg.gov/nid", "1&2").search == "Patient?identifier=http://eg.gov/nid|1%262"
    assert bundle.filed_id("study", "1.2", "a") != bundle.filed_id("study", "1.2", "b")
