"""Reading back by FHIR, and one person's two files, on the real servers: found alike, joined, one timeline, parted."""

from __future__ import annotations

import time

import httpx
import pytest

from consumers.fhir.ids import patient_id
from tests.archive import Archive, wait_until
from tests.unit.consumers.archive import part10

pytestmark = pytest.mark.connected


def test_two_files_of_one_person_from_arrival_to_one_timeline_and_back(archive: Archive) -> None:
    seed = time.time_ns() // 1000 % 10**9
    born = f"19{50 + seed % 40}0{1 + seed % 9}1{seed % 9}"
    uids = [f"2.25.{seed}{n}" for n in (1, 2)]
    names = (f"Hassan^Mona Q{seed}=حسن^منى", f"Hasan^Mona Q{seed}")
    for uid, name, number in zip(uids, names, ("A", "B"), strict=True):
        about = {"PatientName": name, "PatientID": f"{number}{seed}", "PatientBirthDate": born}
        data = part10(f"{uid}.1.1", study=uid, series=f"{uid}.1", BodyPartExamined="CHEST", **about)  # type: ignore[arg-type]
        assert archive.stow([data]).status_code == 200
    for uid in uids:
        wait_until(lambda uid=uid: archive.instance_count(uid) == 1, 60, "the study is queryable")  # type: ignore[misc]
    keys = [archive.json(f"/studies/{u}")["patient_key"] for u in uids]
    found = archive.json(f"/fhir/Patient?identifier=A{seed}")
    assert [e["resource"]["id"] for e in found["entry"]] == [patient_id(keys[0])]
    studies = archive.json(
        f"/fhir/ImagingStudy?identifier=urn:dicom:uid|urn:oid:{uids[1]}&_include=ImagingStudy:patient"
    )
    assert [e["resource"]["resourceType"] for e in studies["entry"]] == ["ImagingStudy", "Patient"]
    report = {
        "resourceType": "DiagnosticReport",
        "status": "preliminary",
        "code": {"text": "CT"},
        "conclusion": "سليم",
        "imagingStudy": [{"identifier": {"system": "urn:dicom:uid", "value": f"urn:oid:{uids[0]}"}}],
    }
    assert archive.post_json("/reports", report).status_code == 201
    reports = wait_until(
        lambda: archive.json(f"/fhir/DiagnosticReport?patient={patient_id(keys[0])}").get("entry"), 20, "the report"
    )
    assert reports[0]["resource"]["conclusion"] == "سليم"

    def proposed() -> bool:
        listed = archive.json("/link-proposals?limit=1000")["proposals"]
        return any({p["one"]["patient_key"], p["other"]["patient_key"]} == set(keys) for p in listed)

    wait_until(proposed, 20, "the two files are found alike")
    asked = {"other_key": keys[1], "reason": "proposal"}
    assert httpx.post(f"{archive.base}/patients/{keys[0]}/links", json=asked, timeout=60).status_code == 201

    def shown() -> set[str]:
        entries = archive.json(f"/patients/{keys[1]}/timeline")["entries"]
        return {u for e in entries for u in e["study_uids"]}

    wait_until(lambda: shown() == set(uids), 20, "one timeline")
    assert not proposed()
    assert httpx.delete(f"{archive.base}/patients/{keys[0]}/links/{keys[1]}", timeout=60).status_code == 200
    wait_until(lambda: shown() == {uids[1]}, 20, "two files again")
