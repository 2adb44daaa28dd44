"""The clerk's form: what is scanned and typed, what of it cannot be, and what a change leaves as it was."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from consumers.web.exams import EXAMS, MODALITIES
from consumers.web.order_form import Read, changed, identity, read, written
from producers.order_document import parse
from schemas.identity import NATIONAL_ISSUER, national_id_check_digit
from schemas.orders import Order, resource, revised
from schemas.orders import read as read_order
from tests.unit.schemas.test_orders import WHOLE

CAIRO = ZoneInfo("Africa/Cairo")
ID = "01890000-0000-7000-8000-0000000000ab"
NATIONAL = "2900101123456"
NATIONAL += national_id_check_digit(NATIONAL)
FORM = {
    "national_id": NATIONAL,
    "name": "منى علي",
    "phone": "٠١٠٠ ١٢٣ ٤٥٦٧",
    "exam": "CT-HEAD",
    "priority": "urgent",
    "date": "2026-11-23",
    "language": "ar",
}


def typed(**fields: str) -> Read:
    return read({**FORM, **fields}, order_id=ID, site="CAI-01", zone=CAIRO, today=date(2026, 11, 23))


def test_a_card_and_an_examination_are_an_order() -> None:
    found = typed()
    assert found.faults == ()
    order = found.order
    assert (order.patient_id, order.issuer, order.birth_date, order.sex) == (NATIONAL, NATIONAL_ISSUER, "19900101", "F")
    assert (order.modality, order.body_part, order.procedure_code) == ("CT", "HEAD", "CT-HEAD")
    assert (order.phone, order.priority, order.scheduled) == ("01001234567", "urgent", "2026-11-23")
    assert parse(json.dumps(resource(order)).encode()).order == order
    assert typed(time="09:30").order.scheduled == "2026-11-23T09:30:00+02:00"


@pytest.mark.parametrize(
    "scan",
    [NATIONAL, f" {NATIONAL}\r\n", f"IDEGY{NATIONAL}<<<", f"منى علي#{NATIONAL}#1990/01/01", " ".join(NATIONAL)],
)
def test_what_a_scanner_sends_is_found(scan: str) -> None:
    found = identity(scan)
    assert (found.value, found.birth_date, found.sex, found.fault) == (NATIONAL, "1990-01-01", "F", "")


def test_a_slip_of_the_hand_is_said() -> None:
    wrong = NATIONAL[:-1] + str((int(NATIONAL[-1]) + 1) % 10)
    assert identity(wrong).fault == "check-digit"
    assert typed(national_id=wrong).faults == (), "the digit's formula was never published: a person decides"
    assert identity(NATIONAL[:-1]).fault == "national-id"
    assert identity("").value == ""


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"national_id": "123"}, "national-id"),
        ({"birth_date": "2020-01-01"}, "identity-differs"),
        ({"sex": "M"}, "identity-differs"),
        ({"national_id": "", "local_id": "7", "birth_date": "2030-01-01"}, "birth-date"),
        ({"name": " "}, "name"),
        ({"phone": "call me"}, "phone"),
        ({"phone": "0100 123 456"}, "phone"),
        ({"phone": "01301234567"}, "phone"),
        ({"phone": "+20 100 123 45678"}, "phone"),
        ({"phone": "02 2345 678"}, "phone"),
        ({"phone": "3571234"}, "phone"),
        ({"exam": ""}, "exam"),
        ({"exam": "other", "procedure": "fistulography"}, "exam"),
        ({"requester": "dr 9"}, "requester"),
        ({"date": ""}, "date"),
        ({"time": "25:00"}, "date"),
    ],
)
def test_what_cannot_be(fields: dict[str, str], fault: str) -> None:
    assert typed(**fields).faults == (fault,)


@pytest.mark.parametrize(
    ("phone", "kept"),
    [
        ("٠١٢٢ ٣٤٥ ٦٧٨٩", "01223456789"),
        ("(011) 1234-5678", "01112345678"),
        ("+20 15 1234 5678", "+201512345678"),
        ("0020 10 0123 4567", "00201001234567"),
        ("1001234567", "+201001234567"),
        ("201001234567", "+201001234567"),
        ("02 2345 6789", "0223456789"),
        ("03 4871234", "034871234"),
        ("050/2212345", "0502212345"),
        ("+966 50 123 4567", "+966501234567"),
        ("", ""),
    ],
)
def test_telephone_numbers_as_egypt_writes_them(phone: str, kept: str) -> None:
    found = typed(phone=phone)
    assert (found.faults, found.order.phone) == ((), kept)


def test_who_has_no_number_gets_one_and_no_stranger_has_it() -> None:
    order = typed(national_id="").order
    assert (order.patient_id, order.issuer) == ("TMP-0000000000AB", "CAI-01")
    assert typed(national_id="", local_id="H-7").order.patient_id == "H-7"


def test_another_examination() -> None:
    order = typed(exam="other", procedure="fistulography", modality="RF", body_part="ab domen").order
    assert (order.procedure_text, order.procedure_code, order.modality, order.body_part) == (
        *("fistulography", "", "RF"),
        "ABDOMEN",
    )


def again(order: Order, **fields: str) -> Read:
    form = {**written(order, CAIRO), "language": "ar", **fields}
    return read(form, order_id=ID, site="CAI-01", zone=CAIRO, today=date(2026, 11, 23))


@pytest.mark.parametrize(
    "whole", [WHOLE, replace(WHOLE, patient_id="H-7", issuer="urn:oid:1.2.3", scheduled="2026-11-24")]
)
def test_a_form_sent_back_as_it_is_changes_nothing(whole: Order) -> None:
    document: dict[str, Any] = resource(whole) | {"note": [{"text": "x"}]}
    document["contained"][0]["maritalStatus"] = {"text": "y"}
    found = again(whole)
    assert found.faults == ()
    assert revised(document, changed(found.order, whole)) == document


def test_a_change_keeps_what_the_form_does_not_ask() -> None:
    document: dict[str, Any] = resource(WHOLE) | {"note": [{"text": "x"}]}
    document["contained"][0]["maritalStatus"] = {"text": "y"}
    found = again(WHOLE, exam="MR-HEAD", phone="01111111111", date="2026-12-01", time="", reason="")
    said = revised(document, changed(found.order, WHOLE))
    order = read_order(said)
    assert (order.modality, order.phone, order.scheduled, order.reason) == ("MR", "01111111111", "2026-12-01", "")
    assert (order.accession, order.study_uid, order.station_ae) == (WHOLE.accession, WHOLE.study_uid, WHOLE.station_ae)
    assert said["note"] == [{"text": "x"}]
    assert said["contained"][0]["maritalStatus"] == {"text": "y"}


def test_a_national_id_found_later_keeps_the_hospital_number_beside_it() -> None:
    local = replace(WHOLE, patient_id="H-7", issuer="CAI-01")
    said = revised(resource(local), replace(local, patient_id=NATIONAL, issuer=NATIONAL_ISSUER))
    numbers = [i["value"] for i in said["contained"][0]["identifier"]]
    assert numbers == [NATIONAL, "H-7"]
    wrong = revised(resource(WHOLE), replace(WHOLE, patient_id="29001011234599"))
    assert [i["value"] for i in wrong["contained"][0]["identifier"]] == ["29001011234599"]


def test_the_catalogue() -> None:
    assert len(EXAMS) > 20
    for exam in EXAMS.values():
        assert exam.modality in MODALITIES
        assert exam.text("ar") != exam.text("en")
        assert len(exam.body_part) <= 16
