"""Acknowledgements: whom they go to, which message they answer, codes and reasons."""

from __future__ import annotations

import pytest

from producers.hl7.answer import ERRORS, REASONS, Told, acknowledgement
from schemas.hl7 import parse
from tests.unit.producers.hl7.samples import oru


def answered(told: Told, version: str = "2.5", modes: str = "") -> list[str]:
    text = oru(version=version)
    if modes:
        text = text.replace(f"|P|{version}\r", f"|P|{version}|||{modes}\r")
    ack = acknowledgement(parse(text), told, control_id="7", now="20260102")
    return ack.decode().strip("\r").split("\r")


def test_an_acknowledgement_goes_back() -> None:
    assert answered(Told()) == ["MSH|^~\\&|SIJIL|MOH|RIS|H1|20260102||ACK^R01^ACK|7|P|2.5", "MSA|AA|M1"]
    assert answered(Told(), "2.3")[0].split("|")[8] == "ACK"


def test_reasons_are_told_as_each_version_does() -> None:
    told = Told("hl7-text-missing", "a report needs text")
    assert answered(told)[1:] == [
        "MSA|AE|M1|hl7-text-missing: a report needs text",
        "ERR|||101^Required field missing^HL70357|E|hl7-text-missing|||hl7-text-missing: a report needs text",
    ]
    assert answered(told, "2.3.1")[2] == "ERR|^^^101&Required field missing&HL70357"


@pytest.mark.parametrize(("modes", "code"), [("AL|NE", "CA"), ("AL", "CA"), ("AL|AL", "AA"), ("NE|AL", "AA")])
def test_who_asks_for_a_commit_alone_gets_one(modes: str, code: str) -> None:
    assert answered(Told(), modes=modes)[1].split("|")[1] == code


def test_what_could_not_be_read_is_answered_all_the_same() -> None:
    ack = parse(acknowledgement(None, Told("hl7-header", "no MSH"), control_id="7", now="20260102").decode())
    assert (ack.first("MSA").text(1), ack.first("ERR").text(3)) == ("AE", "102")


def test_every_reason_has_a_code_of_the_table() -> None:
    assert set(REASONS.values()) <= set(ERRORS)
    assert {code for code, _ in ERRORS.values()} == {"AE", "AR"}
