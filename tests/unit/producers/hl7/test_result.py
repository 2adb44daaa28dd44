"""ORU^R01 → report: texts, forms, numbers, states; and the document made of it."""

from __future__ import annotations

import base64
from zoneinfo import ZoneInfo

import msgspec
import pytest

from producers.hl7.result import INSTEAD, STATUS, Result, results
from producers.hl7.result_document import document, report_id_of
from producers.report_document import parse as parse_report
from schemas.errors import Invalid
from schemas.hl7 import parse, segment
from schemas.lifecycle import REPORT_TRANSITIONS
from schemas.report_content import content_of
from tests.unit.producers.hl7.samples import oru

CAIRO = ZoneInfo("Africa/Cairo")
PDF = base64.b64encode(b"%PDF-1.4 x").decode()


def read(text: str) -> Result:
    (found,) = results(parse(text), CAIRO)
    return found


def test_what_a_report_says() -> None:
    more = (
        segment("OBX", "2", "TX", ["19005-8", "Impression", "LN"], "", "لا نزف"),
        "OBX|3|FT|CTH&REC^Recommendation^L||Follow up\\.br\\in a week ~next line",
        segment("OBX", "4", "TX", ["55111-9", "Technique", "LN"], "", "Without contrast"),
        f"OBX|5|ED|PDF^Report^L||^application^pdf^Base64^{PDF}",
        "OBX|6|ST|113014^DICOM Study^DCM||1.2.3.4",
        segment("OBX", "7", "NM", ["X", "Size"], "", "12", "mm", "", "AA"),
        "NTE|1||A note",
    )
    found = read(oru("نص\nسطر", more=more))
    assert found.findings == "نص\nسطر\n12 mm\nA note"
    assert found.impression == "لا نزف\nFollow up\nin a week\nnext line"
    assert (found.technique, found.question, found.study_uids) == ("Without contrast", "headache", ("1.2.3.4",))
    assert [(p.content_type, p.data, p.title) for p in found.presented] == [
        ("application/pdf", b"%PDF-1.4 x", "Report")
    ]
    assert (found.number, found.accessions, found.status) == ("F1", ("A1", "F1", "PL1"), "final")
    assert (found.procedure.text, found.procedure.code, found.procedure.system) == ("CT head", "CTH", "")
    assert (found.issued, found.critical, found.referring) == ("2026-01-02T09:00:00.000000Z", True, "علي^منى")


def test_the_document_says_it_and_is_a_report_of_the_archive() -> None:
    found = read(
        oru(more=(segment("OBX", "2", "TX", ["X&IMP"], "", "x"), segment("OBX", "3", "TX", "19005-8", "", "لا")))
    )
    made = document(found, "final", ["1.2.3"], site="H1", source="urn:uuid:x")
    report = parse_report(made)
    content = content_of(msgspec.json.decode(made))
    assert (report.status, report.study_uids) == ("final", ("1.2.3",))
    assert content.findings == "لا يوجد نزف داخل القحف\nx"  # an escaped & is a letter, no suffix
    assert (content.impression, content.question, content.issued) == ("لا", "headache", found.issued)
    assert msgspec.json.decode(made)["identifier"] == [{"system": "urn:sijil:ris-report:H1", "value": "F1"}]
    assert "منى علي" in made.decode()
    assert report_id_of("H1", "F1") == report_id_of("H1", "F1") != report_id_of("H2", "F1")


@pytest.mark.parametrize(("stated", "status"), STATUS.items())
def test_every_state_of_the_table(stated: str, status: str) -> None:
    assert read(oru(status=stated)).status == status
    assert status in REPORT_TRANSITIONS


def test_what_stands_instead_may_follow() -> None:
    for status, instead in INSTEAD.items():
        assert any(instead in after and status not in after for after in REPORT_TRANSITIONS.values())


def test_posted_as_wrong_is_entered_in_error_and_what_is_deleted_is_not_read() -> None:
    wrong = oru("", more=("OBX|1|TX|X||a||||||W", "OBX|2|TX|X||b||||||W"))
    assert read(wrong).status == "entered-in-error"
    deleted = oru("kept", more=("OBX|1|TX|X||gone||||||D", "NTE|1||of it", "OBX|2|TX|X||b||||||F"))
    assert (read(deleted).findings, read(deleted).status) == ("kept\nb", "final")


def test_several_obr_are_several_reports() -> None:
    second = segment("OBR", "2", "", "F2", ["X", "Y"], *[""] * 13, "A2", *[""] * 6, "P")
    found = results(parse(oru() + f"{second}\rOBX|1|TX|X||two\r"), CAIRO)
    assert [(r.number, r.accessions, r.status) for r in found] == [
        ("F1", ("A1", "F1", "PL1"), "final"),
        ("F2", ("A2", "F2"), "preliminary"),
    ]


def test_the_study_is_named_by_zds_and_ipc() -> None:
    assert read(oru(more=("ZDS|1.2.3^^Application^DICOM",))).study_uids == ("1.2.3",)
    found = read(oru(accession="", number="a-number-longer-than-an-accession", more=("IPC|A9|RP|1.2.4|SPS",)))
    assert (found.study_uids, found.accessions) == (("1.2.4",), ("A9", "PL1"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("MSH|^~\\&|x\rPID|1\r", "hl7-obr-missing"),
        (oru(status="Z"), "hl7-result-status"),
        (oru(""), "hl7-text-missing"),
        (oru(more=("OBX|2|ED|P||^application^pdf^Base64^*",)), "hl7-form"),
        (oru(more=("ZDS|not a uid",)), "uid-invalid"),
        ("MSH|^~\\&|x\rOBR|1|||X||||||||||||||||||||||F\rOBX|1|TX|||x\r", "hl7-number-missing"),
        ("MSH|^~\\&|x\rOBR|1||F1||||||||||||||||||||||F\rOBX|1|TX|||x\r", "hl7-procedure-missing"),
        ("MSH|^~\\&|x\r" + "OBR|1||F1|X|||||||||||||||||||||S\r" * 65, "hl7-results-many"),
    ],
)
def test_what_is_missing_is_said(text: str, reason: str) -> None:
    with pytest.raises(Invalid) as refused:
        results(parse(text), CAIRO)
    assert refused.value.reason == reason
