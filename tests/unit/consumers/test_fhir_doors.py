"""`GET /fhir/…`: reading back what the archive has, as health records do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from consumers.api.fhir_query import PARAMETERS, SORTS, local_days, parse, within
from consumers.fhir.ids import patient_id, patient_reference
from infra.chain import ChainedLog
from infra.http_door import HttpDoor, compose, installed
from producers.orders import Orders
from schemas.errors import Invalid
from schemas.events import AccessGranted, OrderPlaced, PatientLinked, PatientUnlinked
from schemas.identity import patient_key
from schemas.orders import read, resource
from schemas.roles import Role
from streams import dispatch
from streams.facts import Fact
from streams.projections.orders import OrderMaterial
from tests.callers import Anyone
from tests.unit.consumers.archive import KEYS, SECRET, T0, MemoryArchive, part10
from tests.unit.consumers.test_fhir_mappers import CAIRO
from tests.unit.schemas.test_orders import WHOLE

REPORTS = [f"00000000-0000-4000-8000-00000000000{n}" for n in range(1, 5)]
DOCUMENT = '{"resourceType":"DiagnosticReport","status":"final","code":{"text":"CT"},"conclusion":"سليم"}'.encode()


def key_of(number: str) -> str:
    return patient_key(
        SECRET, patient_id=number, issuer="LOCAL", birth_date="19800101", sex="F", study_uid="1.2.3"
    ).value


def archive_of() -> MemoryArchive:
    """Two patients: one with studies of two days, the other's name written otherwise."""
    archive = MemoryArchive()
    archive.store([part10("1.2.3.1.1"), part10("1.2.3.1.2")])
    archive.store([part10("1.2.4.1.1", study="1.2.4", series="1.2.4.1", StudyDate="20240105", Modality="MR")])
    other: dict[str, Any] = {"PatientID": "Q-8", "PatientName": "Hasan^Muna=منى حسن", "AccessionNumber": "A-9"}
    archive.store([part10("1.2.5.1.1", study="1.2.5", series="1.2.5.1", **other)])
    archive.report(DOCUMENT, ["1.2.3"], report_id=REPORTS[0])
    archive.report(DOCUMENT, ["1.2.3"], report_id=REPORTS[0], version=2)
    archive.report(DOCUMENT, ["1.2.4"], report_id=REPORTS[1])
    archive.report(DOCUMENT, ["1.2.5"], report_id=REPORTS[2])
    return archive


def asked(archive: MemoryArchive, paths: Sequence[str], role: Role = Role.LOCAL) -> list[httpx.Response]:
    async def run() -> list[httpx.Response]:
        async with archive.client(authenticator=Anyone(role)) as client:
            return [await client.get(p) for p in paths]

    return asyncio.run(run())


def ids(answer: httpx.Response, mode: str = "match") -> list[str]:
    assert answer.status_code == 200, answer.text
    found = [e for e in answer.json().get("entry", ()) if e["search"]["mode"] == mode]
    return [e["resource"]["id"] for e in found]


def next_of(answer: httpx.Response) -> str:
    return str(next((x["url"] for x in answer.json()["link"] if x["relation"] == "next"), ""))


MONA, MUNA = key_of("P-77"), key_of("Q-8")


def test_patients_by_identifier_name_and_id() -> None:
    archive = archive_of()
    one, other = patient_id(MONA), patient_id(MUNA)
    answers = asked(
        archive,
        [
            "/fhir/Patient?identifier=P-77",
            "/fhir/Patient?identifier=urn:sijil:patient:LOCAL|P-77&birthdate=1980",
            "/fhir/Patient?identifier=urn:sijil:patient:OTHER|P-77",
            f"/fhir/Patient?identifier=urn:sijil:patient-key|{MUNA}",
            "/fhir/Patient?name=منى",
            "/fhir/Patient?name=Muna",
            "/fhir/Patient?name=hassan*&birthdate=lt1980-01-01",
            f"/fhir/Patient?_id={one},{other}&_count=1",
        ],
    )
    assert [ids(a) for a in answers[:4]] == [[one], [one], [], [other]]
    assert set(ids(answers[4])) == {one, other}
    assert [set(ids(a)) for a in answers[5:7]] == [{one, other}, set()]
    assert ids(answers[7]) == [one]
    read, second, unknown, broken, wide = asked(
        archive,
        [
            f"/fhir/Patient/{one}",
            next_of(answers[7]),
            f"/fhir/Patient/{patient_id(key_of('none'))}",
            "/fhir/Patient/7",
            "/fhir/Patient?birthdate=1980",
        ],
    )
    assert (read.json()["birthDate"], read.json()["identifier"][0]["value"]) == ("1980-01-01", "P-77")
    assert ids(second) == [other]
    assert [a.status_code for a in (unknown, broken, wide)] == [404, 400, 400]
    assert unknown.json()["resourceType"] == "OperationOutcome"
    assert unknown.json()["issue"][0]["code"] == "not-found"
    assert unknown.headers["Content-Type"] == "application/fhir+json"


def test_studies_by_everything_they_are_searched_by() -> None:
    archive = archive_of()
    paths = {
        "_id=1.2.4": ["1.2.4"],
        "identifier=urn:dicom:uid|urn:oid:1.2.3": ["1.2.3"],
        "identifier=A-9": ["1.2.5"],
        f"patient={patient_reference(MONA)}": ["1.2.3", "1.2.4"],
        f"subject={patient_id(MONA)}&modality=MR": ["1.2.4"],
        "patient:identifier=Q-8": ["1.2.5"],
        "started=2024": ["1.2.4"],
        "started=ge2025-02-28T08:00:00Z&started=lt2025-02-28T09:00:00Z": ["1.2.3", "1.2.5"],
        "started=ge2025-02-28T09:00:00Z": [],
        "started=eb2025-01-01": ["1.2.4"],
        "started=sa2024-12-31": ["1.2.3", "1.2.5"],
        "status=registered": [],
        "status=available,registered&modality=http://dicom.nema.org/resources/ontology/DCM|CT": ["1.2.3", "1.2.5"],
    }
    answers = asked(archive, [f"/fhir/ImagingStudy?{p}" for p in paths])
    assert [sorted(ids(a)) for a in answers] == list(paths.values())


def test_a_search_by_pages_with_what_belongs_to_it() -> None:
    archive = archive_of()
    first = asked(archive, ["/fhir/ImagingStudy?_count=2&_include=ImagingStudy:patient&_include=ImagingStudy:endpoint"])
    page, seen = first[0], ids(first[0])
    assert set(ids(page, "include")) == {patient_id(MONA), patient_id(MUNA), "dicomweb"}
    while url := next_of(page):
        (page,) = asked(archive, [url])
        seen += ids(page)
    assert seen == ["1.2.3", "1.2.5", "1.2.4"]
    shown = [[s.study_uid for s in e.shown] for e in archive.journal.events(AccessGranted)]
    assert shown == [["1.2.3", "1.2.5"], ["1.2.4"]]


def test_a_study_and_where_its_images_are() -> None:
    study, endpoint, missing, listed = asked(
        archive_of(),
        ["/fhir/ImagingStudy/1.2.3", "/fhir/Endpoint/dicomweb", "/fhir/ImagingStudy/1.2.9", "/fhir/Endpoint"],
    )
    found = study.json()
    assert found["subject"] == {"reference": patient_reference(MONA), "display": "Mona Hassan"}
    assert (found["started"], found["numberOfInstances"]) == ("2025-02-28T10:15:00+02:00", 2)
    assert found["endpoint"] == [{"reference": "Endpoint/dicomweb"}]
    assert endpoint.json()["address"] == "http://sijil.test/dicom-web"
    assert missing.status_code == 404
    assert ids(listed) == ["dicomweb"]


def test_reports_by_everything_they_are_searched_by() -> None:
    archive = archive_of()
    paths = {
        f"_id={REPORTS[0]}": [REPORTS[0]],
        f"identifier=urn:ietf:rfc:3986|urn:uuid:{REPORTS[1]}": [REPORTS[1]],
        f"patient={patient_reference(MONA)}": [REPORTS[0], REPORTS[1]],
        "patient:identifier=Q-8&status=final,amended": [REPORTS[2]],
        "study=ImagingStudy/1.2.4": [REPORTS[1]],
        "study=urn:oid:1.2.4&status=preliminary": [],
        "_lastUpdated=2025-03-01": [REPORTS[2], REPORTS[1], REPORTS[0]],
        "_lastUpdated=2025-03-01&issued=2025-03-02": [REPORTS[0]],
        "_lastUpdated=lt2025-03-01": [],
    }
    answers = asked(archive, [f"/fhir/DiagnosticReport?{p}" for p in paths])
    assert [ids(a) for a in answers] == list(paths.values())


def test_reports_by_pages_and_versions() -> None:
    archive = archive_of()
    seen: list[str] = []
    url = "/fhir/DiagnosticReport?_lastUpdated=2025-03-01&_count=1&_include=DiagnosticReport:study"
    while url:
        (page,) = asked(archive, [url])
        seen += ids(page)
        assert len(ids(page, "include")) == 1
        url = next_of(page)
    assert seen == [REPORTS[2], REPORTS[1], REPORTS[0]]
    current, first, none = asked(
        archive, [f"/fhir/DiagnosticReport/{REPORTS[0]}{p}" for p in ("", "/_history/1", "/_history/3")]
    )
    assert (current.headers["ETag"], current.json()["conclusion"]) == ('W/"2"', "سليم")
    assert current.json()["subject"]["reference"] == patient_reference(MONA)
    assert (first.json()["meta"]["versionId"], none.status_code) == ("1", 404)


def linked(kind: type[PatientLinked | PatientUnlinked], n: int) -> PatientLinked | PatientUnlinked:
    said: dict[str, Any] = {"reason": "proposal", "stated_by": "person:1", "recorded": "2025-03-01T00:00:00Z"}
    link_id = f"01953fcb-9c00-7000-8000-00000000000{n}"
    return kind(link_id=link_id, patient_key=MONA, other_key=MUNA, **said)


def test_joined_files_are_one_person_and_apart_again_when_it_is_undone() -> None:
    archive = archive_of()
    archive.told(linked(PatientLinked, 1))
    paths = [
        f"/fhir/ImagingStudy?patient={patient_id(MUNA)}",
        f"/fhir/DiagnosticReport?patient={patient_id(MONA)}",
        f"/fhir/Patient/{patient_id(MONA)}",
        f"/fhir/Patient/{patient_id(MUNA)}",
        f"/patients/{MUNA}/studies",
        f"/patients/{MUNA}",
    ]
    studies, reports, one, other, file, who = asked(archive, paths)
    assert sorted(ids(studies)) == ["1.2.3", "1.2.4", "1.2.5"]
    subjects = {e["resource"]["subject"]["reference"] for e in studies.json()["entry"]}
    assert subjects == {patient_reference(MONA)}
    assert len(ids(reports)) == 3
    assert [x["type"] for x in one.json()["link"]] == ["replaces"]
    assert (other.json()["active"], other.json()["link"][0]["type"]) == (False, "replaced-by")
    assert len(file.json()["studies"]) == 3
    assert who.json()["replaced_by"] == MONA
    archive.told(linked(PatientUnlinked, 2))
    studies, _, one, other, file, who = asked(archive, paths)
    assert ids(studies) == ["1.2.5"]
    assert "link" not in one.json()
    assert other.json()["active"] is True
    assert [s["study_uid"] for s in file.json()["studies"]] == ["1.2.5"]


ORDER = WHOLE.order_id


def ordered(archive: MemoryArchive) -> None:
    """An order for somebody who was never here, by the domain and the projection."""
    chain = cast(ChainedLog, archive.journal)
    orders = Orders(archive.objects, chain, bucket="sijil-documents", site="LOCAL", zone="Africa/Cairo")
    said = replace(WHOLE, study_uid="2.25.7", patient_id="29001010101123")
    told = orders.place(json.dumps(resource(said)).encode(), actor="person:1")
    assert told.order_id == ORDER
    for event in archive.journal.events(OrderPlaced):
        now = read(json.loads(archive.objects.get(event.bucket, event.document_key)))
        fact = Fact("sijil.orders", 0, 1 << 30, T0, "order", event)
        asyncio.run(archive.tables.apply(dispatch.project(fact, OrderMaterial(now), KEYS)))


def test_orders_by_id_accession_and_patient() -> None:
    archive = MemoryArchive()
    ordered(archive)
    system = f"urn:sijil:accession:{WHOLE.site}"
    (one,) = asked(archive, [f"/fhir/ServiceRequest/{ORDER}"])
    patient = one.json()["subject"]["reference"]
    paths = {
        f"_id={ORDER}": [ORDER],
        f"identifier={system}|{WHOLE.accession}": [ORDER],
        f"patient={patient}": [ORDER],
        f"patient={patient}&status=revoked,completed": [],
        f"patient={patient}&authored=2026-11-23": [ORDER],
        f"patient={patient}&authored=lt2026-11-22": [],
    }
    answers = asked(archive, [f"/fhir/ServiceRequest?{p}" for p in paths])
    assert [ids(a) for a in answers] == list(paths.values())
    assert "contained" not in one.json()
    assert (one.headers["ETag"], one.json()["code"]["text"]) == ('W/"1"', "CT head")
    # Who was never here is known by the order
    who, loose, wide, missing = asked(
        archive,
        [
            f"/fhir/{patient}",
            f"/fhir/ServiceRequest?identifier={WHOLE.accession}",
            "/fhir/ServiceRequest?status=active",
            f"/fhir/ServiceRequest/{REPORTS[0]}",
        ],
    )
    assert who.json()["name"][0]["family"] == "Ali"
    assert [a.status_code for a in (loose, wide, missing)] == [400, 400, 404]


def test_what_the_door_can_do_is_told_to_anybody() -> None:
    archive = archive_of()
    (found,) = asked(archive, ["/fhir/metadata"])
    told = {r["type"]: r for r in found.json()["rest"][0]["resource"]}
    assert {"Patient", "ImagingStudy", "DiagnosticReport", "Endpoint"} <= told.keys()
    assert "ImagingStudy:patient" in told["ImagingStudy"]["searchInclude"]


def total(answer: httpx.Response) -> int:
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert "entry" not in found
    return int(found["total"])


def test_how_many_there_are() -> None:
    archive = archive_of()
    paths = {
        f"Patient?_id={patient_id(MONA)},{patient_id(MUNA)}": 2,
        "ImagingStudy?started=2025": 2,
        f"ImagingStudy?patient={patient_id(MONA)}": 2,
        "ImagingStudy?_id=1.2.9": 0,
        "DiagnosticReport?_lastUpdated=2025-03-01": 3,
        "DiagnosticReport?_lastUpdated=2025-03-01&status=preliminary": 0,
        f"DiagnosticReport?patient={patient_id(MONA)}&_count=1": 2,
        "Endpoint?_id=dicomweb": 1,
    }
    answers = asked(archive, [f"/fhir/{p}&_summary=count" for p in paths])
    assert [total(a) for a in answers] == list(paths.values())
    events = archive.journal.events(AccessGranted)
    assert len(events) == len(paths) - 1, "each that asks about somebody is recorded"
    assert [e.shown_count for e in events] == [0] * len(events), "and shows nobody"


def test_results_that_are_known_whole_are_sorted() -> None:
    archive = archive_of()
    mona = patient_id(MONA)
    paths = {
        f"ImagingStudy?patient={mona}&_sort=started": ["1.2.4", "1.2.3"],
        f"ImagingStudy?patient={mona}&_sort=-started": ["1.2.3", "1.2.4"],
        "ImagingStudy?_id=1.2.5,1.2.3,1.2.4&_sort=_lastUpdated": ["1.2.3", "1.2.4", "1.2.5"],
        "ImagingStudy?_id=1.2.5,1.2.3,1.2.4": ["1.2.5", "1.2.3", "1.2.4"],
        f"DiagnosticReport?patient={mona}&_sort=_lastUpdated": [REPORTS[0], REPORTS[1]],
        f"DiagnosticReport?patient={mona}&_sort=-_lastUpdated": [REPORTS[1], REPORTS[0]],
        "DiagnosticReport?_lastUpdated=2025-03-01&_sort=-_lastUpdated": [REPORTS[2], REPORTS[1], REPORTS[0]],
    }
    answers = asked(archive, [f"/fhir/{p}" for p in paths])
    assert [ids(a) for a in answers] == list(paths.values())
    seen: list[str] = []
    url = "/fhir/ImagingStudy?_id=1.2.5,1.2.3,1.2.4&_sort=started&_count=1"
    while url:
        (page,) = asked(archive, [url])
        assert page.json()["total"] == 3
        seen, url = seen + ids(page), next_of(page)
    assert seen == ["1.2.4", "1.2.3", "1.2.5"], "of one moment by their ids"


def test_what_was_updated_since() -> None:
    archive = archive_of()
    (whole,) = asked(archive, ["/fhir/ImagingStudy?_id=1.2.5"])
    at = whole.json()["entry"][0]["resource"]["meta"]["lastUpdated"]
    paths = {
        "ImagingStudy?_lastUpdated=2025-03-01": ["1.2.3", "1.2.4", "1.2.5"],
        f"ImagingStudy?_lastUpdated=ge{at}&_lastUpdated=lt2025-03-02": ["1.2.5"],
        "ImagingStudy?_lastUpdated=2025-03-01&modality=MR": ["1.2.4"],
        "ImagingStudy?_lastUpdated=2025-02-28": [],
        f"ImagingStudy?_lastUpdated=lt{at}&patient={patient_id(MUNA)}": [],
        f"ImagingStudy?_lastUpdated=ge{at}&patient={patient_id(MUNA)}": ["1.2.5"],
        f"DiagnosticReport?patient={patient_id(MONA)}&_lastUpdated=2025-03-01": REPORTS[:2],
        f"DiagnosticReport?patient={patient_id(MONA)}&_lastUpdated=lt2025-03-01": [],
        f"DiagnosticReport?_id={REPORTS[0]}&patient={patient_id(MUNA)}": [],
        f"DiagnosticReport?study=1.2.4&patient={patient_id(MONA)}": [REPORTS[1]],
        f"DiagnosticReport?study=1.2.4&patient={patient_id(MUNA)}": [],
    }
    answers = asked(archive, [f"/fhir/{p}" for p in paths])
    assert [sorted(ids(a)) for a in answers] == list(paths.values())
    refused = asked(archive, ["/fhir/ImagingStudy?_lastUpdated=gt2024", "/fhir/ImagingStudy?_lastUpdated=2024"])
    assert {a.json()["issue"][0]["details"]["coding"][0]["code"] for a in refused} == {"search-too-wide"}


def test_a_search_sent_as_a_form_is_the_same_search() -> None:
    archive = archive_of()
    form = {"_id": "1.2.3,1.2.4", "_count": "1", "_sort": "started"}

    async def run() -> list[httpx.Response]:
        async with archive.client(authenticator=Anyone(Role.LOCAL)) as client:
            return [
                await client.post("/fhir/ImagingStudy/_search", data=form),
                await client.post("/fhir/ImagingStudy/_search?_elements=started&modality=CT", data=form),
                await client.post("/fhir/ImagingStudy/_search", json=form),
                await client.post("/fhir/ImagingStudy/_search", data={"_id": "1" * 70_000}),
                await client.post("/fhir/Nothing/_search", data=form),
                await client.post("/fhir/ImagingStudy/1.2.3/_search", data=form),
            ]

    found, more, media, long, unknown, elsewhere = asyncio.run(run())
    assert ids(found) == ["1.2.4"]
    assert found.json()["link"][0]["url"].startswith("http://sijil.test/fhir/ImagingStudy?_id=1.2.3")
    assert ids(asked(archive, [next_of(found)])[0]) == ["1.2.3"]
    (only,) = (e["resource"] for e in more.json()["entry"])
    assert only.keys() == {"resourceType", "id", "meta", "status", "subject", "started"}
    assert only["meta"]["tag"][0]["code"] == "SUBSETTED"
    assert [a.status_code for a in (media, long, unknown, elsewhere)] == [415, 413, 404, 404]
    assert {a.json()["resourceType"] for a in (media, long, unknown)} == {"OperationOutcome"}
    assert len(archive.journal.events(AccessGranted)) == 3


def test_what_refers_to_the_matches_comes_along() -> None:
    archive = archive_of()
    archive.report(DOCUMENT, ["1.2.3", "1.2.5"], report_id=REPORTS[3])
    archive.journal.published.clear()
    path = "/fhir/ImagingStudy?_id=1.2.3&_revinclude=DiagnosticReport:study"
    (answer,) = asked(archive, [path])
    assert (ids(answer), sorted(ids(answer, "include"))) == (["1.2.3"], [REPORTS[0], REPORTS[3]])
    (event,) = archive.journal.events(AccessGranted)
    assert {s.study_uid for s in event.shown} == {"1.2.3", "1.2.5"}, "a report that is shown shows its other study"
    (told,) = asked(archive, [path], Role.TECHNICIAN)
    assert ids(told, "include") == [], "a technician may not read reports"
    notes = [e["resource"] for e in told.json()["entry"] if e["search"]["mode"] == "outcome"]
    assert "DiagnosticReport is not included" in notes[0]["issue"][0]["diagnostics"]


def test_the_door_does_what_it_says_it_does(tmp_path: Path) -> None:
    """The CapabilityStatement against the routes of all rooms, and each search in it asked."""
    archive = archive_of()
    (statement,) = asked(archive, ["/fhir/metadata"])
    told = {r["type"]: r for r in statement.json()["rest"][0]["resource"]}
    chain = ChainedLog(archive.log, tmp_path / "chain", "/api/LOCAL/1", backlog_max=10, anchors=None)
    try:
        settings = replace(archive.settings, home=tmp_path)
        door = HttpDoor(settings, log=archive.log, chain=chain, objects=archive.objects)
        document = compose(door, installed()).openapi()
    finally:
        chain.close(5)
    served: dict[str, set[str]] = {}
    for path, item in document["paths"].items():
        top, _, address = path.removeprefix("/").partition("/")
        resource, _, below = address.partition("/")
        if top != "fhir" or resource == "metadata":
            continue
        for method in item:
            name = INTERACTIONS.get((method, below.count("/") + bool(below)), "")
            if "$" in below:
                assert {o["name"] for o in told[resource]["operation"]} == {below.partition("$")[2]}
            else:
                served.setdefault(resource, set()).add("vread" if "_history" in below else name)
    assert served == {kind: {i["code"] for i in r["interaction"]} for kind, r in told.items()}
    for kind in PARAMETERS:
        operation = document["paths"][f"/fhir/{kind}"]["get"]
        described = {p["name"] for p in operation.get("parameters", ()) if p["in"] == "query"} - RESULT
        if kind != "Endpoint":  # it is no guarded route: nobody is shown
            assert {p["name"] for p in told[kind]["searchParam"]} == described, kind
    values = {"_id": "1.2.3", "identifier": f"urn:sijil:accession:LOCAL|{REPORTS[0]}", "study": "1.2.3"}
    values |= {"patient": patient_id(MONA), "subject": patient_id(MONA), "name": "Mona", "birthdate": "1980"}
    values |= {"started": "2025", "issued": "2025", "authored": "2025", "_lastUpdated": "2025-03-01"}
    values |= {"modality": "CT", "status": "available"}
    ways = []
    for kind in PARAMETERS:
        base = f"/fhir/{kind}?_id={OWN.get(kind, '1.2.3')}"
        for parameter in told[kind].get("searchParam", ()):
            if parameter["name"] == "_id":
                continue
            name = parameter["name"]
            value = REPORTS[0] if (kind, name) == ("DiagnosticReport", "identifier") else values[name]
            ways.append(f"{base}&{name}={value}")
        ways += [f"{base}&_include={i}" for i in told[kind].get("searchInclude", ())]
        ways += [f"{base}&_revinclude={i}" for i in told[kind].get("searchRevInclude", ())]
        ways += [f"{base}&_sort={s}{by}" for by in SORTS[kind] for s in ("", "-")]
        ways += [f"{base}&_summary=count", f"{base}&_elements=id"]
    assert [(w, a.status_code) for w, a in zip(ways, asked(archive, ways), strict=True) if a.status_code != 200] == []


INTERACTIONS = {
    ("get", 0): "search-type",
    ("post", 0): "create",
    ("get", 1): "read",
    ("put", 1): "update",
    ("delete", 1): "delete",
    ("get", 3): "vread",
}
"""(method, parts of the address below the type) → what it is (hl7.org/fhir/R4/http.html)."""
RESULT = {"_count", "_page", "_include", "_revinclude", "_sort", "_summary", "_elements"}
OWN = {"Patient": patient_id(MONA), "DiagnosticReport": REPORTS[0], "ServiceRequest": ORDER, "Endpoint": "dicomweb"}


def test_a_filter_that_is_not_understood_is_refused() -> None:
    refused = {
        "colour=blue": "search-parameter",
        "_include=ImagingStudy:performer": "search-include",
        "_include=Patient:link": "search-include",
        "_count=0": "option-count",
        "patient=7": "patient-id",
        "started=yesterday": "date-invalid",
        "started:identifier=1": "search-parameter",
        "_page=1": "option-page",
        "identifier=urn:dicom:uid|urn:oid:x": "uid-invalid",
        "_id=1.2&_id=1.3": "search-repeated",
        "_sort=started": "search-sort",
        "_sort=_lastUpdated,started&_id=1.2": "search-sort",
        "_sort=description&_id=1.2": "search-sort",
        "_summary=text": "search-summary",
        "_revinclude=Observation:subject": "search-include",
    }
    answers = asked(MemoryArchive(), [f"/fhir/ImagingStudy?{q}" for q in refused])
    assert {a.status_code for a in answers} == {400}
    assert [a.json()["issue"][0]["details"]["coding"][0]["code"] for a in answers] == list(refused.values())


def test_a_client_may_want_it_left_out_instead() -> None:
    archive = archive_of()
    prefer = {"Prefer": 'respond-async, handling="lenient"'}
    path = "/fhir/ImagingStudy?_count=1&_sort=started&_include=ImagingStudy:patient&_include=ImagingStudy:performer"

    async def run() -> list[httpx.Response]:
        async with archive.client(authenticator=Anyone(Role.LOCAL)) as client:
            return [await client.get(path, headers=h) for h in (prefer, {"Prefer": "handling=strict"}, {})]

    lenient, *strict = asyncio.run(run())
    assert [a.status_code for a in (lenient, *strict)] == [200, 400, 400]
    assert len(ids(lenient)) == len(ids(lenient, "include")) == 1
    told = [e["resource"] for e in lenient.json()["entry"] if e["search"]["mode"] == "outcome"]
    assert [i["diagnostics"] for i in told[0]["issue"]] == ["left out, for it is not known here: _include, _sort"]
    links = [link["url"] for link in lenient.json()["link"]]
    assert len(links) == 2
    assert all("_sort" not in url and "performer" not in url and "patient" in url for url in links)


def test_who_may_not_see_patients_is_not_brought_them() -> None:
    archive = archive_of()
    (answer,) = asked(archive, ["/fhir/ImagingStudy?_include=ImagingStudy:patient"], Role.EHR)
    assert len(ids(answer, "include")) == 2
    (refused,) = asked(archive, ["/fhir/ImagingStudy"], Role.OPERATOR)
    assert (refused.status_code, refused.json()["issue"][0]["code"]) == (403, "forbidden")


def test_days_and_moments() -> None:
    span = parse("ImagingStudy", [("started", "2025-02-28")]).span("started")
    assert span is not None
    assert local_days(span, CAIRO) == ("20250228", "20250301")
    assert within(span, "2025-02-28", CAIRO)
    assert within(span, "2025-03-01T01:59:00+02:00", CAIRO)
    assert not within(span, "2025-03-01T02:00:00+02:00", CAIRO)
    assert not within(span, "", CAIRO)
    with pytest.raises(Invalid, match="twice"):
        parse("Patient", [("identifier", "1"), ("identifier", "2")]).one("identifier")
