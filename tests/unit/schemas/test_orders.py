"""An order as ServiceRequest: said, read back, and read from what others write."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from schemas.identity import NATIONAL_ISSUER
from schemas.orders import Order, person_name, read, resource

WHOLE = Order(
    order_id="01890000-0000-7000-8000-000000000001",
    site="CAI-01",
    accession="261123000001",
    study_uid="2.25.7",
    placer="P-1",
    modality="CT",
    station_ae="CT1",
    body_part="HEAD",
    procedure_code="24725-4",
    procedure_scheme="http://loinc.org",
    procedure_text="CT head",
    reason="headache",
    scheduled="2026-11-23T10:00:00+02:00",
    authored="2026-11-23T09:00:00+02:00",
    requester="dr-9",
    referrer_name="د. سامي",
    patient_name="Ali^Mohamed Samir=علي^محمد سمير",
    patient_id="29001011234567",
    issuer=NATIONAL_ISSUER,
    birth_date="19900101",
    sex="F",
    phone="01001234567",
)


def test_what_is_said_is_read_back() -> None:
    assert read(resource(WHOLE)) == WHOLE
    assert read(resource(replace(WHOLE, issuer="CAI-01", patient_id="H-17"))).issuer == "CAI-01"
    assert read(resource(replace(WHOLE, issuer="urn:oid:1.2.3"))).issuer == "urn:oid:1.2.3"
    bare = Order(site="CAI-01", procedure_text="X-ray", patient_name="سمير", patient_id="7", issuer="CAI-01")
    assert read(resource(bare)) == bare


def test_a_national_id_fills_birth_date_and_sex() -> None:
    sent = resource(replace(WHOLE, birth_date="", sex="", patient_id="٢٩٠٠١٠١١٢٣٤٥٦٧"))
    order = read(sent)
    assert (order.patient_id, order.birth_date, order.sex) == ("29001011234567", "19900101", "F")
    assert read(resource(replace(WHOLE, birth_date="19851231", sex="M"))).birth_date == "19851231"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([{"family": "Ali", "given": ["Mona", "S."]}], "Ali^Mona S."),
        ([{"text": "منى علي"}, {"text": "Mona Ali"}], "Mona Ali=منى علي"),
        ([{"text": "a=b\\c"}], "a b c"),
        ([{"text": "Mona"}, {"text": "Muna"}], "Mona"),
        ([{"given": ["Mona"]}], "^Mona"),
        ([None, {"family": 7}], ""),
    ],
)
def test_names_become_pn(names: list[Any], expected: str) -> None:
    assert person_name(names) == expected


@pytest.mark.parametrize(
    "broken", [{}, {"contained": 7, "subject": "x", "identifier": [None], "code": [], "orderDetail": [{}]}]
)
def test_what_is_no_order_is_empty(broken: dict[str, Any]) -> None:
    assert read(broken) == Order(status="", priority="routine")


def test_the_patient_is_the_one_that_subject_names() -> None:
    sent = resource(WHOLE)
    other = {"resourceType": "Patient", "id": "mother", "name": [{"text": "Mother"}]}
    sent["contained"] = [other, *sent["contained"]]
    assert read(sent).patient_name == WHOLE.patient_name
    sent["subject"] = {"reference": "#nobody"}
    assert read(sent).patient_name == ""
