"""Secrets that are replaced: a number finds the same file before, during and after."""

from __future__ import annotations

import pytest

from schemas.errors import Invalid
from schemas.identity import KEY_LOCAL, KEY_STUDY, PatientKey, generation_of, is_patient_key, patient_key
from schemas.patient_keys import Keys, PatientSecret, PatientSecrets

FIRST, SECOND, THIRD = (PatientSecret(n, bytes([n]) * 32) for n in (1, 2, 3))


def of(keys: Keys, number: str) -> PatientKey:
    return keys.of(patient_id=number, issuer="S", birth_date="", sex="", study_uid="1.2.3")


def under(secret: PatientSecret, number: str) -> str:
    found = patient_key(
        secret.value, secret.generation, patient_id=number, issuer="S", birth_date="", sex="", study_uid="1.2.3"
    )
    return found.value


def test_the_setting_is_read_and_written() -> None:
    one = PatientSecrets.parse("0a" * 32)
    assert (one.newest, one.previous) == (PatientSecret(1, b"\n" * 32), None)
    two = one.replaced(b"\x0b" * 32)
    assert str(two) == f"k2:{'0b' * 32},k1:{'0a' * 32}"
    assert PatientSecrets.parse(str(two)) == two
    assert PatientSecrets.parse(f"k2:{'0b' * 32}, {'0a' * 32}") == two
    with pytest.raises(Invalid, match="retire-patient-secret"):
        two.replaced(b"x")


@pytest.mark.parametrize(
    "text", ["", "xyz", "abc", "k0:aa", "k1:", "k1:aa,k2:bb", "aa,bb", "k3:aa,k2:bb,k1:cc", "kx:aa"]
)
def test_another_setting_is_refused_without_saying_it(text: str) -> None:
    with pytest.raises(Invalid) as refused:
        PatientSecrets.parse(text)
    assert refused.value.reason == "patient-secret"
    assert "bb" not in str(refused.value)


def test_a_fingerprint_tells_secrets_apart_and_does_not_show_them() -> None:
    prints = {s.fingerprint for s in (FIRST, SECOND, PatientSecret(2, FIRST.value))}
    assert len(prints) == 3
    assert FIRST.fingerprint.startswith("k1:")
    assert FIRST.value.hex() not in repr(PatientSecrets(SECOND, FIRST)) + FIRST.fingerprint


def test_a_secret_that_was_never_replaced_asks_for_nothing() -> None:
    keys = Keys(PatientSecrets(FIRST), {})
    assert of(keys, "P-1") == PatientKey(under(FIRST, "P-1"), KEY_LOCAL)
    assert (keys.missing, keys.aliases) == (set(), {})


@pytest.mark.parametrize(("number", "basis"), [("P-1", KEY_LOCAL), ("0", KEY_STUDY)])
def test_a_number_keeps_its_file_through_two_replacements(number: str, basis: str) -> None:
    file, second, third = under(FIRST, number), under(SECOND, number), under(THIRD, number)
    asked = Keys(PatientSecrets(SECOND, FIRST), {})
    of(asked, number)
    assert asked.missing == {second}
    during = Keys(PatientSecrets(SECOND, FIRST), {second: ""})
    assert of(during, number) == PatientKey(file, basis)
    assert (during.missing, during.aliases) == (set(), {second: file})
    again = Keys(PatientSecrets(SECOND, FIRST), {second: file})
    assert (of(again, number).value, again.aliases) == (file, {})
    after = Keys(PatientSecrets(SECOND), {second: file})
    assert of(after, number) == PatientKey(file, basis)
    next_one = Keys(PatientSecrets(THIRD, SECOND), {second: file, third: ""})
    assert (of(next_one, number).value, next_one.aliases) == (file, {third: file})
    last = Keys(PatientSecrets(THIRD), {third: file})
    assert of(last, number).value == file


def test_a_number_that_nobody_knew_before_has_a_file_of_the_newest() -> None:
    keys = Keys(PatientSecrets(SECOND), {under(SECOND, "P-9"): ""})
    found = of(keys, "P-9").value
    assert found == under(SECOND, "P-9")
    assert is_patient_key(found)
    assert generation_of(found) == 2
