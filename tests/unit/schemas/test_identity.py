"""UIDs, the national ID and the rules of patient keys (design §Patients)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import Invalid
from schemas.identity import (
    MARK_LEADING_ZERO,
    NationalID,
    check_uid,
    derived_id,
    is_placeholder,
    national_id_check_digit,
    patient_key,
)

SECRET = b"s" * 32


def key(**over: Any) -> Any:
    fields: dict[str, Any] = {
        "patient_id": "4711",
        "issuer": "SITE-A",
        "birth_date": "19900101",
        "sex": "M",
        "study_uid": "1.2.3",
    }
    return patient_key(SECRET, **{**fields, **over})


def national(first13: str) -> str:
    return first13 + national_id_check_digit(first13)


MOTHER = national("2900101010004")  # born 1990-01-01 in Cairo, serial even: female


@pytest.mark.parametrize("uid", ["1.2.840.10008.1.2", "0.1", "1", "2.25." + "9" * 59])
def test_a_valid_uid_has_no_marks(uid: str) -> None:
    assert check_uid(uid) == ()


@pytest.mark.parametrize("uid", ["1.02.3", "01.2", "1.2.00"])
def test_a_leading_zero_is_stored_and_marked(uid: str) -> None:
    assert check_uid(uid) == (MARK_LEADING_ZERO,)


@pytest.mark.parametrize(
    "uid", ["1..2", "1.2.", ".1", "1.2a", "../1", "1.2\n", "1.2 ", "١.٢", "2.25." + "9" * 60, "1.2\x00"]
)
def test_a_wrong_uid_is_refused(uid: str) -> None:
    with pytest.raises(Invalid) as e:
        check_uid(uid)
    assert e.value.reason == "uid-invalid"


def test_a_missing_uid_has_its_own_reason() -> None:
    with pytest.raises(Invalid) as e:
        check_uid("")
    assert e.value.reason == "uid-missing"


@given(st.text(max_size=70))
def test_whatever_passes_is_safe_as_a_name(text: str) -> None:
    try:
        check_uid(text)
    except Invalid:
        return
    assert set(text) <= set("0123456789.")
    assert 1 <= len(text) <= 64
    assert ".." not in text


def test_a_national_id_tells_birth_date_sex_and_governorate() -> None:
    parsed = NationalID.parse(MOTHER)
    assert (parsed.birth_date.isoformat(), parsed.sex, parsed.governorate_code) == ("1990-01-01", "F", "01")
    assert parsed.check_agrees
    assert NationalID.parse(national("3050228880013")).birth_date.isoformat() == "2005-02-28"


def test_arabic_digits_are_the_same_number() -> None:
    arabic = MOTHER.translate(str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩"))
    assert NationalID.parse(arabic).value == MOTHER


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("2900101", "national-id-format"),
        ("19001010100046", "national-id-century"),
        ("29013010100046", "national-id-birth-date"),
        ("29001015500046", "national-id-governorate"),
        ("2900101010004x", "national-id-format"),
    ],
)
def test_what_is_no_national_id_says_why(text: str, reason: str) -> None:
    with pytest.raises(Invalid) as e:
        NationalID.parse(text)
    assert e.value.reason == reason


@pytest.mark.parametrize(
    "text", ["", "   ", "0", "0000", "UNKNOWN", "unknown", "Test", "N/A", "مجهول", "9999", "XXX", "---"]
)
def test_placeholders(text: str) -> None:
    assert is_placeholder(text)


@pytest.mark.parametrize("text", ["4711", "123456", "A-1", "7", "98-3321", "10"])
def test_real_local_numbers_are_no_placeholders(text: str) -> None:
    assert not is_placeholder(text)


def test_an_empty_or_placeholder_id_makes_a_key_of_that_study_alone() -> None:
    for text in ("", "0", "UNKNOWN"):
        one, other = key(patient_id=text, study_uid="1.2.3"), key(patient_id=text, study_uid="1.2.4")
        assert one.basis == "study"
        assert one.value != other.value
        assert one == key(patient_id=text, study_uid="1.2.3", issuer="SITE-B")


def test_the_same_local_number_at_two_sites_is_two_patients() -> None:
    assert key(issuer="SITE-A").value != key(issuer="SITE-B").value
    assert key(issuer="SITE-A").value == key(issuer="SITE-A", study_uid="9.9").value


def test_a_national_id_joins_sites() -> None:
    a = key(patient_id=MOTHER, sex="F", issuer="SITE-A")
    b = key(patient_id=MOTHER, sex="F", issuer="SITE-B", study_uid="9.9")
    assert a.basis == "national-id"
    assert a.value == b.value
    assert a.proposal == ""


@pytest.mark.parametrize(
    "over", [{"birth_date": "20200505", "sex": "F"}, {"sex": "M"}, {"sex": ""}, {"birth_date": ""}]
)
def test_a_mothers_id_for_her_child_is_not_her_key(over: dict[str, str]) -> None:
    mother = key(patient_id=MOTHER, sex="F")
    child = key(patient_id=MOTHER, **{"sex": "F", **over})
    assert child.basis == "local"
    assert child.value != mother.value
    assert child.proposal == "national-id-mismatch"


def test_a_wrong_check_digit_is_proposed_for_a_look() -> None:
    wrong = MOTHER[:13] + str((int(MOTHER[13]) + 1) % 10)
    assert key(patient_id=wrong, sex="F").proposal == "national-id-check-digit"


def test_keys_do_not_run_into_each_other() -> None:
    assert key(issuer="A", patient_id="B4711").value != key(issuer="AB", patient_id="4711").value


def test_a_key_needs_the_secret() -> None:
    with pytest.raises(Invalid):
        patient_key(b"", patient_id="1", issuer="A", birth_date="", sex="", study_uid="1.2")
    other = patient_key(b"t" * 32, patient_id="4711", issuer="SITE-A", birth_date="", sex="", study_uid="1.2")
    assert other.value != key().value


@given(st.text(max_size=40), st.text(min_size=1, max_size=20))
def test_every_id_gets_a_key_of_the_published_form(patient_id: str, issuer: str) -> None:
    made = key(patient_id=patient_id, issuer=issuer)
    assert made.value.startswith("k1:")
    assert len(made.value) == 46


def test_derived_ids_are_the_same_for_the_same_parts_only() -> None:
    assert derived_id("study.completed", "1.2", 7) == derived_id("study.completed", "1.2", 7)
    assert derived_id("study.completed", "1.2", 7) != derived_id("study.completed", "1.27", "")
