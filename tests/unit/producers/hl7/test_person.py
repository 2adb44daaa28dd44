"""Patients of messages, values, and whether a study is of the same person."""

from __future__ import annotations

from dataclasses import replace
from zoneinfo import ZoneInfo

import pytest

from producers.hl7 import values
from producers.hl7.matching import Found, Waits, match
from producers.hl7.person import Person, disagreement, merged, patient
from schemas.hl7 import Message, parse
from schemas.identity import NATIONAL_ISSUER, national_id_check_digit
from schemas.known_study import KnownStudy

FIRST = "2900101120012"
NATIONAL = FIRST + national_id_check_digit(FIRST)
CAIRO = ZoneInfo("Africa/Cairo")


def message(*lines: str) -> Message:
    return parse("\r".join(["MSH|^~\\&|RIS|H1", *lines]))


def test_who_a_patient_is() -> None:
    found = patient(
        message(
            f"PID|1||123^^^H1^MR~{NATIONAL}^^^EG^NI||Sami^Layla^^^Dr~سامي^ليلى||19900101|F|||||+20 101 234 5678^PRN^CP"
        )
    )
    assert found == Person(
        national=NATIONAL,
        locals=("123",),
        name="Sami^Layla^^Dr=سامي^ليلى",
        birth_date="19900101",
        sex="F",
        phone="+201012345678",
    )
    assert found.best == (NATIONAL, NATIONAL_ISSUER)


def test_a_national_id_says_birth_date_and_sex_where_the_message_does_not() -> None:
    found = patient(message("PID|1||P7^^^H1^MR||x" + "|" * 14 + NATIONAL))
    assert (found.national, found.birth_date, found.sex, found.locals) == (NATIONAL, "19900101", "F", ("P7",))


def test_placeholders_are_no_numbers() -> None:
    assert patient(message("PID|1|0000|UNKNOWN^^^H1^MR||x")).best == ("", "")
    assert merged(message("PID|1||P2", "MRG|p1^^^H1^MR")).locals == ("P1",)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("20260102110000+0200", "2026-01-02T09:00:00.000000Z"),
        ("202601021100", "2026-01-02T09:00:00.000000Z"),
        ("20260102110000.1234", "2026-01-02T09:00:00.123400Z"),
        ("20260702110000", "2026-07-02T08:00:00.000000Z"),
        ("٢٠٢٦٠١٠٢١١", "2026-01-02T09:00:00.000000Z"),
        ("20260102", ""),
        ("20261302110000", ""),
        ("yesterday", ""),
    ],
)
def test_moments(text: str, meant: str) -> None:
    assert values.moment(text, CAIRO) == meant


def test_days() -> None:
    assert [values.day(t) for t in ("199001011200", "19900230", "1990", "")] == ["19900101", "", "", ""]


WHO = Person(national=NATIONAL, locals=("P1",), birth_date="19900101", sex="M")


@pytest.mark.parametrize(
    ("patient_id", "born", "sex", "reason"),
    [
        ("P1", "19900101", "M", ""),
        (" p1 ", "", "", ""),
        (NATIONAL, "19900101", "O", ""),
        ("P2", "19900101", "M", "patient-number"),
        ("P1", "19900102", "M", "patient-birth-date"),
        ("P1", "19900101", "F", "patient-sex"),
        ("0", "19900101", "M", "patient-unknown"),
        ("", "", "", "patient-unknown"),
    ],
)
def test_a_number_must_agree_and_nothing_contradict(patient_id: str, born: str, sex: str, reason: str) -> None:
    of = KnownStudy(study_uid="1.1", sites=frozenset({"H1"}), patient_id=patient_id, birth_date=born, sex=sex)
    assert disagreement(WHO, of) == reason


def test_without_a_number_nobody_is_anybody() -> None:
    assert disagreement(Person(name="x"), study("1.1")) == "patient-missing"


@pytest.mark.parametrize("number", ["TMP-1", "0"])
def test_a_file_that_was_joined_is_the_persons(number: str) -> None:
    of = replace(study("1.1", patient_id=number), files=frozenset({"k1:tmp", "k1:p1"}))
    assert disagreement(WHO, of, ["k1:p1"]) == ""
    assert disagreement(WHO, of, ["k1:p2"]) in ("patient-number", "patient-unknown")
    assert disagreement(WHO, of) in ("patient-number", "patient-unknown")
    assert disagreement(WHO, replace(of, birth_date="19910101"), ["k1:p1"]) == "patient-birth-date", (
        "nothing may differ"
    )


def study(uid: str, site: str = "H1", patient_id: str = "P1") -> KnownStudy:
    return KnownStudy(study_uid=uid, sites=frozenset({site}), patient_id=patient_id, birth_date="19900101", sex="M")


ONE, TWO, ELSEWHERE, OTHER = study("1.1"), study("1.2"), study("1.3", "H2"), study("1.4", "H1", "P9")


@pytest.mark.parametrize(
    ("by_accession", "by_uid", "named", "expected"),
    [
        ([ONE], [], [], Found(("1.1",))),
        ([ONE, TWO], [], [], Found(("1.1", "1.2"))),
        ([ELSEWHERE], [], [], Waits("study-unknown")),
        ([ELSEWHERE, ONE], [], [], Found(("1.1",))),
        ([ONE], [], ["1.9"], Found(("1.1",))),
        ([ONE], [TWO], ["1.2"], Waits("studies-disagree")),
        ([], [ELSEWHERE], ["1.3"], Found(("1.3",))),
        ([], [ONE], ["1.1", "1.2"], Waits("study-unknown")),
        ([], [], [], Waits("study-unknown")),
        ([ONE, OTHER], [], [], Waits("patient-number")),
        ([study(f"1.{n}") for n in range(17)], [], [], Waits("studies-many")),
    ],
)
def test_a_result_is_filed_where_everything_agrees(
    by_accession: list[KnownStudy], by_uid: list[KnownStudy], named: list[str], expected: Found | Waits
) -> None:
    assert match(WHO, "H1", by_accession, by_uid, named) == expected
