"""A report into its document and back; what others' documents say as far as it can be read."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from schemas.report_content import (
    EXTENSIONS,
    Coded,
    Content,
    Dose,
    Presented,
    Signature,
    attributed,
    author_of,
    content_of,
    document_of,
    person_of,
    signature_of,
    with_status,
)

FULL = Content(
    status="preliminary",
    study_uids=("1.2.3", "1.2.4"),
    procedure=Coded(text="CT abdomen", system="http://loinc.org", code="30620-7"),
    body_part=Coded(text="البطن", system="http://snomed.info/sct", code="818983003"),
    technique="With contrast.",
    findings="كبد طبيعي 12 سم",
    impression="لا شيء حاد",
    conclusions=(Coded(system="http://hl7.org/fhir/sid/icd-10", code="K80.2"), Coded(text="gallstones")),
    category=Coded(text="4A", system="urn:x:bi-rads", code="4A"),
    critical=True,
    contacts=("dr-7", "dr-8"),
    comparisons=("1.2.9",),
    dose=(Dose(code="113813", meaning="CT Dose Length Product Total", value=Decimal("512.30"), unit="mGy.cm"),),
    referring="dr-9",
    question="ألم بالبطن",
    language="ar",
    issued="2026-01-01T08:00:00Z",
    presented=(Presented(content_type="application/pdf", data=b"%PDF", title="Report"),),
    interpreters=("dr-2",),
)


def test_all_of_it_and_back() -> None:
    # a code alone has its text from nowhere: what was written is what is read
    assert content_of(document_of(FULL)) == FULL
    bare = Content(status="final", study_uids=("1.2",))
    read = content_of(document_of(bare))
    assert replace(read, procedure=Coded()) == bare
    assert read.procedure.code == "18748-4"


def test_what_it_contains_follows_the_status() -> None:
    signed = with_status(document_of(FULL), "appended")
    assert signed["status"] == "appended"
    assert {c["status"] for c in signed["contained"] if c["resourceType"] == "Observation"} == {"amended"}
    assert content_of(signed) == replace(FULL, status="appended")


def test_author_and_signature_are_set_once_and_replaced() -> None:
    signed = attributed(document_of(FULL), "person:7", Signature(who="person:8", when="2026-01-01T09:00:00Z"))
    assert author_of(signed) == "person:7"
    assert signature_of(signed) == Signature(who="person:8", when="2026-01-01T09:00:00Z")
    assert content_of(signed) == FULL
    taken = attributed(signed, "person:7", None)
    assert (author_of(taken), signature_of(taken)) == ("person:7", None)
    assert [e["url"] for e in attributed(taken, "", None)["extension"]] == [
        e["url"] for e in document_of(FULL)["extension"]
    ]
    assert (person_of("person:7"), person_of("service:ris"), person_of("")) == ("7", "", "")


def test_every_extension_is_tabled() -> None:
    signed = attributed(document_of(FULL), "person:7", Signature(who="person:8", when="2026-01-01T09:00:00Z"))
    assert {e["url"] for e in signed["extension"]} == set(EXTENSIONS)
    for extension in signed["extension"]:
        assert EXTENSIONS[extension["url"]][0] in extension


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"contained": "x", "extension": {"url": 5}, "code": [], "result": None},
        {"contained": [None, 5, {"resourceType": "Observation", "code": {"coding": [None]}}]},
        {"extension": [None, {"url": "urn:sijil:report-signature"}, {"url": "urn:sijil:report-critical"}]},
        {"extension": [{"url": "urn:sijil:report-signature", "extension": [None, {"url": "who"}]}]},
        {"presentedForm": [{"data": "not base64"}, {"url": "http://x"}], "imagingStudy": [None, {}]},
        {
            "contained": [
                {
                    "resourceType": "Observation",
                    "code": {"coding": [{"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "113813"}]},
                    "valueQuantity": {"value": "many"},
                }
            ]
        },
    ],
)
def test_any_shape_is_read_without_a_fault(document: dict[str, Any]) -> None:
    found = content_of(document)
    assert (found.findings, found.critical, found.dose, found.presented) == ("", False, (), ())
    assert author_of(document) == ""
    signature = signature_of(document)
    assert signature is None or signature.who == ""
