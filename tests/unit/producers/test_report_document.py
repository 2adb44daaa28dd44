"""What of a DiagnosticReport the archive understands."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest

from producers.report_document import parse, report_id, same_content, versioned
from schemas.errors import Invalid

UID = "1.2.840.1"
CODE = {"coding": [{"system": "http://loinc.org", "code": "18748-4"}]}


def document(**changes: Any) -> bytes:
    whole = {
        "resourceType": "DiagnosticReport",
        "status": "final",
        "code": CODE,
        "imagingStudy": [{"identifier": {"system": "urn:dicom:uid", "value": f"urn:oid:{UID}"}}],
        "conclusion": "CANARY",
        **changes,
    }
    return json.dumps({k: v for k, v in whole.items() if v is not None}).encode()


@pytest.mark.parametrize(
    "studies",
    [
        {"imagingStudy": [{"identifier": {"system": "urn:dicom:uid", "value": UID}}]},
        {"imagingStudy": [{"identifier": {"value": f"urn:oid:{UID}"}}]},
        {"imagingStudy": [{"reference": f"urn:oid:{UID}"}]},
        {"imagingStudy": None, "study": [{"identifier": {"system": "urn:dicom:uid", "value": f"urn:oid:{UID}"}}]},
        {"imagingStudy": [{"reference": f"urn:oid:{UID}"}] * 3},
    ],
)
def test_ways_to_name_a_study(studies: dict[str, Any]) -> None:
    assert parse(document(**studies)).study_uids == (UID,)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"resourceType": "Observation"}, "report-type"),
        ({"status": None}, "report-status"),
        ({"status": "unknown"}, "report-status"),
        ({"status": ["final"]}, "report-status"),
        ({"code": None}, "report-code"),
        ({"code": {"coding": [{}]}}, "report-code"),
        ({"imagingStudy": None}, "report-studies"),
        ({"imagingStudy": [{"display": "x"}]}, "report-studies"),
        ({"imagingStudy": [{"reference": "ImagingStudy/7"}]}, "report-studies"),
        ({"imagingStudy": [{"reference": "urn:oid:CANARY"}]}, "uid-invalid"),
        ({"imagingStudy": [{"reference": f"urn:oid:1.{n}"} for n in range(17)]}, "report-studies"),
        ({"issued": "2025-01-01"}, "report-issued"),
        ({"issued": "CANARY"}, "report-issued"),
        ({"issued": 5}, "report-issued"),
    ],
)
def test_what_is_refused_is_named_without_its_text(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse(document(**changes))
    assert refused.value.reason == reason
    assert "CANARY" not in str(refused.value)


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b'{"a":' * 100_000])
def test_what_is_no_json_object(data: bytes) -> None:
    with pytest.raises(Invalid, match="JSON"):
        parse(data)


def test_times_become_utc() -> None:
    assert parse(document(issued="2025-03-01T10:15:00+02:00")).issued == "2025-03-01T08:15:00.000000Z"
    assert parse(document(issued="2025-03-01T08:15:00.5Z")).issued == "2025-03-01T08:15:00.500000Z"
    assert parse(document()).issued == ""


def test_ids() -> None:
    own = "01890000-0000-7000-8000-000000000001"
    assert report_id(parse(document(id=own)), "", "S") == own
    assert report_id(parse(document(id="x")), own, "S") == own
    mapped = report_id(parse(document(id="ris-4711")), "", "S")
    assert mapped == report_id(parse(document()), "ris-4711", "S")
    assert UUID(mapped)
    by_number = document(identifier=[{}, {"system": "urn:ris", "value": "4711"}])
    assert report_id(parse(by_number), "", "S1") != report_id(parse(by_number), "", "S2")
    assert report_id(parse(document()), "", "S") == ""


def test_the_kept_document() -> None:
    sent = parse(document(meta={"source": "ris"}, result=1.50))
    data = versioned(sent, report_id="R", version=3, recorded="2025-01-01T00:00:00.000000Z")
    kept = json.loads(data)
    assert (kept["id"], kept["meta"]) == (
        "R",
        {"source": "ris", "versionId": "3", "lastUpdated": "2025-01-01T00:00:00.000000Z"},
    )
    assert kept["issued"] == "2025-01-01T00:00:00.000000Z"
    assert kept["conclusion"] == "CANARY"
    assert parse(data).study_uids == sent.study_uids


def test_numbers_keep_their_digits() -> None:
    data = document().replace(b'"CANARY"', b'"x", "value": 1.50, "big": 12345678901234567890.10')
    kept = versioned(parse(data), report_id="R", version=1, recorded="i")
    assert b"1.50" in kept
    assert b"12345678901234567890.10" in kept


def test_same_content() -> None:
    kept = parse(versioned(parse(document()), report_id="R", version=1, recorded="2025-01-01T00:00:00Z"))
    assert same_content(parse(document()), kept)
    assert same_content(parse(document(id="other", meta={"versionId": "9"})), kept)
    assert not same_content(parse(document(conclusion="another")), kept)
    assert not same_content(parse(document(issued="2025-01-02T00:00:00Z")), kept)
