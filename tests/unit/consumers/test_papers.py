"""Status, reports, access lists, patients, conflicts and rejections."""

from __future__ import annotations

import asyncio
import hashlib
import re
from typing import Any

import msgspec
import pypdfium2
import pytest

from consumers.api.status import State, state
from schemas.events import AccessGranted
from schemas.identity import patient_key
from schemas.people import Person, encode_person
from schemas.report_content import Content, Signature, attributed, document_of
from schemas.tables import Upsert
from tests.unit.consumers.archive import SECRET, MemoryArchive, part10

REPORT, OTHER = (f"00000000-0000-4000-8000-00000000000{n}" for n in (1, 2))
DOCUMENT = '{"resourceType":"DiagnosticReport","conclusion":"لا توجد علامات حادة"}'.encode()


def apply(archive: MemoryArchive, table: str, key: dict[str, Any], **columns: Any) -> None:
    asyncio.run(archive.tables.apply([Upsert(table, key, columns, 1 << 40)]))


@pytest.fixture
def archive() -> MemoryArchive:
    archive = MemoryArchive()
    archive.store([part10("1.2.3.1.1"), part10("1.2.3.1.2")])
    archive.store([part10("1.2.4.1.1", study="1.2.4", series="1.2.4.1", StudyDate="20240105")])
    return archive


# ------------------------------------------------------------------------------------------------ status


@pytest.mark.parametrize(
    ("completed", "last", "expected"),
    [
        (None, 5, State.OPEN),
        (6, 5, State.COMPLETE),
        (6, 7, State.REOPENED),
        (9, 7, State.COMPLETE),
        (6, 6, State.REOPENED),
        (6, None, State.COMPLETE),
    ],
)
def test_states(completed: int | None, last: int | None, expected: State) -> None:
    assert state({"completed_revision": completed, "last_offset": last}) is expected


def test_the_status_of_a_study(archive: MemoryArchive) -> None:
    found = archive.get("/studies/1.2.3").json()
    assert (found["state"], found["series"], found["instances"], found["packs"]) == ("open", 1, 2, 1)
    (pack,) = found["stored_in"]
    assert (pack["instances"], pack["archived"], pack["door"]) == (2, False, "stow")
    assert "completed" not in found
    apply(archive, "steps_by_study", {"study_uid": "1.2.3", "step_uid": "1.9"}, status="completed", instances=3)
    (step,) = archive.get("/studies/1.2.3").json()["steps"]
    assert (step["step_uid"], step["status"], step["instances"]) == ("1.9", "completed", 3), "one has not arrived"
    archive.archived(pack["pack_id"], "1.2.3")
    apply(archive, "studies", {"study_uid": "1.2.3"}, completed_revision=10, completed_basis="quiet")
    found = archive.get("/studies/1.2.3").json()
    assert (found["state"], found["completed"]["basis"]) == ("complete", "quiet")
    assert found["stored_in"][0]["archived"]
    archive.store([part10("1.2.3.1.3")])
    apply(archive, "studies", {"study_uid": "1.2.3"}, last_offset=10)
    assert archive.get("/studies/1.2.3").json()["state"] == "reopened"


# ------------------------------------------------------------------------------------------------ reports


def test_reports_of_a_study(archive: MemoryArchive) -> None:
    archive.report(b'{"version":"one"}', ["1.2.3"], report_id=REPORT)
    archive.report(DOCUMENT, ["1.2.3", "1.2.4"], report_id=REPORT, version=2)
    archive.report(b'{"other":true}', ["1.2.3"], report_id=OTHER, version=1)
    answer = archive.get("/studies/1.2.3/reports")
    found = answer.json()["reports"]
    assert [(r["report_id"], r["version"]) for r in found] == [(REPORT, 2), (OTHER, 1)]
    assert found[0]["document"]["conclusion"] == "لا توجد علامات حادة"
    assert [r["report_id"] for r in archive.get("/studies/1.2.4/reports").json()["reports"]] == [REPORT]


def test_a_report_and_its_versions(archive: MemoryArchive) -> None:
    archive.report(b'{"version":"one"}', ["1.2.3"], report_id=REPORT)
    archive.report(DOCUMENT, ["1.2.3", "1.2.4"], report_id=REPORT, version=2)
    current = archive.get(f"/reports/{REPORT}")
    assert (current.content, current.headers["Content-Type"]) == (DOCUMENT, "application/fhir+json")
    assert (current.headers["ETag"], current.headers["Sijil-Report-Status"]) == ('W/"2"', "final")
    assert archive.get(f"/reports/{REPORT}/versions/1").json() == {"version": "one"}
    assert archive.get(f"/reports/{REPORT}/versions/3").status_code == 404
    shown = [[s.study_uid for s in e.shown] for e in archive.journal.events(AccessGranted)]
    assert shown == [["1.2.3", "1.2.4"], ["1.2.3"]]


def test_a_report_that_was_changed_is_not_shown(archive: MemoryArchive) -> None:
    archive.report(DOCUMENT, ["1.2.3"], report_id=REPORT)
    archive.objects.damage("sijil-documents", f"reports/{REPORT}/1.json", b"{}")
    assert archive.get(f"/reports/{REPORT}").status_code == 500


# ------------------------------------------------------------------------------------------------ accesses


def access_id(n: int) -> str:
    return f"01900000-0000-7000-8000-{n:012}"


def test_who_saw_a_study_newest_first(archive: MemoryArchive) -> None:
    for n in range(5):
        apply(
            archive, "accesses_by_study", {"study_uid": "1.2.3", "access_id": access_id(n)}, actor=f"http:{n}", uses=n
        )
    found = archive.get("/studies/1.2.3/accesses?limit=3").json()["accesses"]
    assert [a["actor"] for a in found] == ["http:4", "http:3", "http:2"]
    assert "reason" not in found[0]


def test_who_saw_a_patients_file(archive: MemoryArchive) -> None:
    key = "k1:" + "x" * 43
    for n, month in ((1, "202509"), (2, "202510")):
        row = {"patient_key": key, "month": month, "access_id": access_id(n), "study_uid": "1.2.3"}
        apply(archive, "accesses_by_patient", row, actor=f"http:{n}")
    found = archive.get(f"/patients/{key}/accesses?month=202510").json()["accesses"]
    assert [a["actor"] for a in found] == ["http:2"]
    assert archive.get(f"/patients/{key}/accesses?month=2025").status_code == 400
    assert archive.get(f"/patients/{key}/accesses?limit=0").status_code == 400


# ------------------------------------------------------------------------------------------------ patients


def key_of() -> str:
    return patient_key(
        SECRET, patient_id="P-77", issuer="LOCAL", birth_date="19800101", sex="F", study_uid="1.2.3"
    ).value


def test_a_patients_file(archive: MemoryArchive) -> None:
    who = archive.get(f"/patients/{key_of()}").json()
    assert (who["patient_id"], who["patient_name"]) == ("P-77", "Hassan^Mona=منى حسن")
    found = archive.get(f"/patients/{key_of()}/studies").json()["studies"]
    assert [s["study_uid"] for s in found] == ["1.2.3", "1.2.4"]
    assert found[1]["url"] == "http://sijil.test/dicom-web/studies/1.2.4"
    assert [s["study_uid"] for s in archive.get(f"/patients/{key_of()}/studies?limit=1").json()["studies"]] == ["1.2.3"]
    assert archive.get(f"/patients/k1:{'x' * 43}").status_code == 404
    assert archive.get(f"/patients/k1:{'x' * 43}/studies").json()["studies"] == []


# ------------------------------------------------------------------------------------------------ faults


def test_conflicts_and_rejections(archive: MemoryArchive) -> None:
    month = archive.get("/conflicts").headers["Sijil-Access-Id"]
    assert month
    key = {"month": "202510", "found": "2025-10-01T00:00:00Z", "study_uid": "1.2.3", "sop_uid": "1.2.3.1.1"}
    apply(archive, "conflicts", {**key, "second_offset": 7}, first_sha256=hashlib.sha256(b"1").hexdigest())
    (conflict,) = archive.get("/conflicts?month=202510").json()["conflicts"]
    assert (conflict["study_uid"], conflict["second_offset"]) == ("1.2.3", 7)
    apply(archive, "rejections", {"day": "20251001", "rejection_id": access_id(1)}, reason="not-dicom")
    (rejection,) = archive.get("/rejections?day=20251001").json()["rejections"]
    assert rejection["reason"] == "not-dicom"
    assert archive.get("/rejections?day=today").status_code == 400
    assert archive.get("/rejections").json() == {"rejections": []}


# ------------------------------------------------------------------------------------------------ printed


def _verified(archive: MemoryArchive, version: int, mark: str) -> dict[str, Any]:
    found: dict[str, Any] = archive.get(f"/reports/{REPORT}/versions/{version}/verification?mark={mark}").json()
    return found


def test_a_report_as_pdf_with_an_access_event_before_it(archive: MemoryArchive) -> None:
    archive.report(b'{"conclusion":"one"}', ["1.2.3"], report_id=REPORT)
    archive.report(DOCUMENT, ["1.2.3"], report_id=REPORT, version=2)
    answer = archive.get(f"/reports/{REPORT}/pdf")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/pdf")
    page = pypdfium2.PdfDocument(answer.content)[0].get_textpage().get_text_bounded()
    assert "لا توجد علامات حادة" in page
    assert "منى حسن" in page
    assert f"http://sijil.test/verify/{REPORT}/2/{hashlib.sha256(DOCUMENT).hexdigest()[:16]}" in page
    (granted,) = archive.journal.events(AccessGranted)
    assert (granted.action, granted.study_uid) == ("read-report", "1.2.3")
    old = archive.get(f"/reports/{REPORT}/versions/1/pdf?lang=en")
    assert "This is an old version" in pypdfium2.PdfDocument(old.content)[0].get_textpage().get_text_bounded()
    assert archive.get(f"/reports/{OTHER}/pdf").status_code == 404
    assert archive.get(f"/reports/{REPORT}/versions/3/pdf").status_code == 404
    assert archive.get(f"/reports/{REPORT}/pdf?lang=fr").status_code == 400


def test_a_printed_report_is_verified_by_its_fingerprint(archive: MemoryArchive) -> None:
    one, two = b'{"conclusion":"one"}', DOCUMENT
    archive.report(one, ["1.2.3"], report_id=REPORT)
    archive.report(two, ["1.2.3"], report_id=REPORT, version=2)
    marks = {n: hashlib.sha256(d).hexdigest()[:16] for n, d in ((1, one), (2, two))}
    found = _verified(archive, 2, marks[2])
    assert (found["matches"], found["current"], found["status"], found["site"]) == (True, True, "final", "LOCAL")
    old = _verified(archive, 1, marks[1])
    assert (old["matches"], old["current"], old["current_version"]) == (True, False, 2)
    for version, mark in ((1, marks[2]), (3, marks[2]), (2, ""), (2, marks[2][:8]), (2, "%20" * 8)):
        assert _verified(archive, version, mark) == {"matches": False}
    nobody = f"/reports/{OTHER}/versions/1/verification?mark={marks[1]}"
    assert archive.get(nobody).json() == {"matches": False}


def test_a_printed_report_names_its_signer_and_what_it_was_compared_with(archive: MemoryArchive) -> None:
    person = Person(
        person_id="7",
        version=1,
        practitioner={"name": [{"text": "Dr Ahmed"}, {"text": "د. أحمد محمود"}]},
        stated_by="person:a",
        recorded="2026-01-01T00:00:00Z",
    )
    data = encode_person(person)
    digest = hashlib.sha256(data).hexdigest()
    archive.objects.put("sijil-documents", "people/7/1.json", data, sha256=digest)
    where = {"bucket": "sijil-documents", "document_key": "people/7/1.json", "document_sha256": digest}
    apply(archive, "people", {"person_id": "7"}, active=True, **where)
    content = Content(status="final", study_uids=("1.2.3",), impression="طبيعي", comparisons=("1.2.4", "9.9"))
    signed = attributed(document_of(content), "person:7", Signature(who="person:7", when="2026-01-02T10:39:00Z"))
    archive.report(msgspec.json.encode(signed), ["1.2.3"], report_id=REPORT)
    pages = [archive.get(f"/reports/{REPORT}/pdf?lang={lang}").content for lang in ("ar", "en")]
    texts = [pypdfium2.PdfDocument(p)[0].get_textpage().get_text_bounded() for p in pages]
    arabic, english = (re.sub("[\u2066\u2069]", "", t).replace("\u00a0", " ") for t in texts)
    assert "د. أحمد محمود" in arabic
    assert "Dr Ahmed · 2026-01-02 12:39" in english
    assert "2024-01-05 · CT · CT chest" in english
