"""Rows as FHIR R4 resources."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.fhir import codes, moments
from consumers.fhir.bundle import operation_outcome, searchset
from consumers.fhir.diagnostic_report import diagnostic_report, study_reference
from consumers.fhir.endpoint import REFERENCE, endpoint
from consumers.fhir.ids import patient_id, patient_key_of, patient_reference
from consumers.fhir.imaging_study import imaging_study
from consumers.fhir.patient import patient
from consumers.fhir.person_name import human_names, name_text
from consumers.fhir.service_request import service_request
from schemas.errors import Invalid
from schemas.identity import NATIONAL_ISSUER

KEY, OTHER = "k1:" + "aB-_" * 10 + "abc", "k1:" + "x" * 42 + "w"
CAIRO = ZoneInfo("Africa/Cairo")


def person(**more: Any) -> dict[str, Any]:
    row = {
        "patient_key": KEY,
        "basis": "national-id",
        "patient_name": "Hassan^Mona^A^Dr=حسن^منى",
        "patient_id": "28001011200024",
        "issuer": "LOCAL",
        "birth_date": "19800101",
        "sex": "F",
    }
    return row | more


def study(**more: Any) -> dict[str, Any]:
    row = {
        "study_uid": "1.2.3",
        "patient_key": KEY,
        "study_date": "20250228",
        "study_time": "101500",
        "accession": "A-1",
        "description": "CT chest",
        "referring": "Doctor^A",
        "modalities": frozenset({"SR", "CT"}),
        "series_count": 2,
        "instance_count": 3,
        "sites": frozenset({"CAI-1"}),
        "attributes": "{}",
        "last_arrival": datetime(2025, 3, 1, 8, tzinfo=UTC),
    }
    return row | more


def series(uid: str, number: int | None, modality: str = "CT") -> dict[str, Any]:
    return {
        "series_uid": uid,
        "series_number": number,
        "modality": modality,
        "description": " axial ",
        "body_part": "CHEST",
        "instance_count": 1,
    }


# ------------------------------------------------------------------------------------------------ ids


@given(st.binary(min_size=32, max_size=32), st.integers(1, 9999))
def test_a_patients_id_is_the_key_written_otherwise(digest: bytes, version: int) -> None:
    key = f"k{version}:{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"
    id = patient_id(key)
    assert len(id) <= 64
    assert id.replace("-", "").isalnum()
    assert patient_key_of(id) == key


@pytest.mark.parametrize("text", ["", "k1-short", "k1-" + "A" * 52, "1.2.3", "k1-" + "1" * 52])
def test_what_is_no_id_of_a_patient(text: str) -> None:
    with pytest.raises(Invalid, match="Patient"):
        patient_key_of(text)


# ------------------------------------------------------------------------------------------------ times


@pytest.mark.parametrize(
    ("date", "time", "expected"),
    [
        ("20250228", "101500", "2025-02-28T10:15:00+02:00"),
        ("20250728", "1015", "2025-07-28T10:15:00+03:00"),
        ("20250228", "101560.5", "2025-02-28T10:15:59.500+02:00"),
        ("20250228", "", "2025-02-28"),
        ("20250228", "2561", "2025-02-28"),
        ("20250230", "101500", ""),
        ("", "101500", ""),
    ],
)
def test_dates_and_times(date: str, time: str, expected: str) -> None:
    assert moments.date_time(date, time, CAIRO) == expected


def test_the_datasets_own_zone_counts() -> None:
    header = '{"00080201":{"vr":"SH","Value":["-0330"]}}'
    found = imaging_study(study(attributes=header), [], subject={}, endpoint={}, zone=CAIRO)
    assert found["started"] == "2025-02-28T10:15:00-03:30"
    assert moments.zone_of("+9900", CAIRO) is CAIRO


# ------------------------------------------------------------------------------------------------ names


def test_names_of_both_scripts() -> None:
    latin, arabic = human_names("Hassan^Mona^A^Dr=حسن^منى")
    assert (latin["family"], latin["given"], latin["prefix"]) == ("Hassan", ["Mona", "A"], ["Dr"])
    assert (arabic["text"], arabic["extension"][0]["valueCode"]) == ("منى حسن", "IDE")
    assert name_text("=حسن^منى") == "منى حسن"
    assert human_names("^^^=") == []


# ------------------------------------------------------------------------------------------------ resources


def test_a_patient_with_a_national_id() -> None:
    found = patient(person(), linked=[OTHER])
    national, key = found["identifier"]
    assert (national["system"], national["value"], key["value"]) == (NATIONAL_ISSUER, "28001011200024", KEY)
    assert (found["gender"], found["birthDate"], found["active"]) == ("female", "1980-01-01", True)
    assert found["link"] == [{"other": {"reference": patient_reference(OTHER)}, "type": "replaces"}]
    assert patient(person(), national_system="urn:ehr:nid")["identifier"][0]["system"] == "urn:ehr:nid"


def test_a_local_number_is_its_issuers_and_a_placeholder_is_none() -> None:
    local = patient(person(basis="local", patient_id="P 7", issuer="CAI/1"))["identifier"][0]
    assert (local["system"], local["value"]) == ("urn:sijil:patient:CAI%2F1", "P 7")
    unknown = patient(person(basis="study", patient_id="UNKNOWN", patient_name="", birth_date="", sex=""))
    assert [i["system"] for i in unknown["identifier"]] == [codes.PATIENT_KEY]
    assert not {"name", "birthDate", "gender", "link"} & unknown.keys()
    assert patient(person(), replaced_by=OTHER)["active"] is False


def test_a_study() -> None:
    rows = [series("1.2.3.2", None, ""), series("1.2.3.1", 1)]
    found = imaging_study(study(), rows, subject={"reference": "s"}, endpoint={"reference": REFERENCE}, zone=CAIRO)
    uid, accession = found["identifier"]
    assert (uid["value"], accession["system"]) == ("urn:oid:1.2.3", "urn:sijil:accession:CAI-1")
    assert [m["code"] for m in found["modality"]] == ["CT", "SR"]
    assert [(s["uid"], s["modality"]["code"], s.get("number")) for s in found["series"]] == [
        ("1.2.3.1", "CT", 1),
        ("1.2.3.2", "OT", None),
    ]
    assert (found["status"], found["numberOfInstances"], found["referrer"]) == ("available", 3, {"display": "A Doctor"})


def test_a_study_that_is_only_expected_has_no_endpoint() -> None:
    bare = study(instance_count=None, series_count=None, last_arrival=None, sites=frozenset({"A", "B"}))
    found = imaging_study(bare, [], subject={}, endpoint={"reference": REFERENCE}, zone=CAIRO)
    assert (found["status"], "endpoint" in found, "meta" in found) == ("registered", False, False)
    assert found["identifier"][1]["system"] == "urn:sijil:accession"


def test_a_report_names_the_archives_patient_and_studies() -> None:
    row = {"report_id": "r", "version": 2, "status": "amended", "issued": "2025-03-02T10:00:00Z"}
    document = {
        "resourceType": "DiagnosticReport",
        "meta": {"versionId": "2", "profile": ["urn:p"]},
        "subject": {"reference": "Patient/theirs"},
        "identifier": [{"system": "urn:ris", "value": "7"}],
        "code": {"text": "CT"},
        "conclusion": "لا توجد علامات حادة",
        "presentedForm": [{"contentType": "text/plain"}],
    }
    found = diagnostic_report(
        row, document, subject={"reference": "x"}, studies=[study_reference("1.2.3")], pdf=b"%PDF"
    )
    assert (found["subject"], found["conclusion"]) == ({"reference": "x"}, document["conclusion"])
    assert found["meta"] == {"profile": ["urn:p"], "versionId": "2"}
    assert [i["value"] for i in found["identifier"]] == ["urn:uuid:r", "7"]
    assert base64.b64decode(found["presentedForm"][0]["data"]) == b"%PDF"
    assert found["imagingStudy"][0]["identifier"]["value"] == "urn:oid:1.2.3"
    wrong = diagnostic_report(row, {}, subject=None, studies=[], status="entered-in-error")
    assert (wrong["status"], wrong["code"]["text"]) == ("entered-in-error", "Radiology report")
    assert "subject" not in wrong


def test_an_order_gets_the_archives_patient_when_there_is_one() -> None:
    document = {
        "resourceType": "ServiceRequest",
        "contained": [{"resourceType": "Patient", "id": "p"}, {"resourceType": "Practitioner", "id": "d"}],
        "subject": {"reference": "#p"},
        "requester": {"reference": "#d"},
    }
    known = service_request(document, id="o", version=3, subject={"reference": "Patient/x"})
    assert [c["id"] for c in known["contained"]] == ["d"]
    assert (known["subject"], known["meta"]) == ({"reference": "Patient/x"}, {"versionId": "3"})
    unknown = service_request(document, id="o", version=3, subject=None)
    assert ([c["id"] for c in unknown["contained"]], unknown["subject"]) == (["p", "d"], {"reference": "#p"})


# ------------------------------------------------------------------------------------------------ bundles


def test_a_page() -> None:
    found = searchset(
        [patient(person())], [endpoint("http://a")], base="http://a/fhir", here="h", next="n", notes=["cut"]
    )
    match, include, outcome = found["entry"]
    assert match["fullUrl"] == f"http://a/fhir/{patient_reference(KEY)}"
    assert [e["search"]["mode"] for e in (match, include, outcome)] == ["match", "include", "outcome"]
    assert [link["relation"] for link in found["link"]] == ["self", "next"]
    assert "entry" not in searchset([], [], base="b", here="h")


def test_what_went_wrong() -> None:
    (issue,) = operation_outcome(404, "There is no such thing", "no", "gone")["issue"]
    assert (issue["code"], issue["diagnostics"], issue["details"]["text"]) == (
        "not-found",
        "no",
        "There is no such thing",
    )
    assert operation_outcome(500, "fault")["issue"][0]["code"] == "exception"
