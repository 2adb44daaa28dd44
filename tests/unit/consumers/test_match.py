"""Whether a row fits (PS3.4 §C.2.2.2)."""

from __future__ import annotations

import time
from typing import Any

import pytest

from consumers.api.attributes import Level, find
from consumers.api.match import fits, name_test, needs_attributes, row_tests
from consumers.api.qido import condition_of

ROW: dict[str, Any] = {
    "study_uid": "1.2.3",
    "patient_id": "P-77",
    "patient_name": "Al-Harbi^Ahmed^^Dr=الحربي^أحمد",
    "study_date": "20250228",
    "study_time": "101530.5",
    "modalities": frozenset({"CT", "SR"}),
    "description": "CT Chest",
    "instance_count": 120,
    "sex": "",
    "attributes": '{"00101000":{"vr":"LO","Value":["OLD-1","OLD-2"]},"00400275":{"vr":"SQ","Value":'
    '[{"00400009":{"vr":"SH","Value":["STEP1"]}},{"00400009":{"vr":"SH"}}]}}',
}


def matches(keyword: str, value: str) -> bool:
    condition = condition_of(find(keyword), value)
    assert condition is not None
    return fits(ROW, row_tests([condition], condition.attribute.level))


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("StudyInstanceUID", "1.2.9,1.2.3"),
        ("PatientID", "P-77"),
        ("PatientID", "p-*"),
        ("PatientID", "P?77"),
        ("StudyDate", "20250228"),
        ("StudyDate", "20250101-"),
        ("StudyDate", "-20250228"),
        ("StudyTime", "10"),
        ("StudyTime", "1015-1016"),
        ("StudyTime", "101530.5-"),
        ("ModalitiesInStudy", "MR,CT"),
        ("StudyDescription", "*chest*"),
        ("NumberOfStudyRelatedInstances", "120"),
        ("OtherPatientIDs", "OLD-2"),
        ("00400275.00400009", "STEP*"),
    ],
)
def test_it_fits(keyword: str, value: str) -> None:
    assert matches(keyword, value)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("StudyInstanceUID", "1.2"),
        ("PatientID", "p-77"),
        ("PatientID", "P-7"),
        ("StudyDate", "20250301-"),
        ("StudyTime", "1016-"),
        ("StudyTime", "-1014"),
        ("ModalitiesInStudy", "C"),
        ("StudyDescription", "chest"),
        ("PatientSex", "F"),
        ("PatientBirthDate", "19800101"),
        ("OtherPatientIDs", "OLD"),
        ("00400275.00401001", "STEP1"),
    ],
)
def test_it_does_not_fit(keyword: str, value: str) -> None:
    assert not matches(keyword, value)


@pytest.mark.parametrize(
    "pattern",
    [
        "Al-Harbi^Ahmed^^Dr",
        "al-harbi^*",
        "AL HARBI*",
        "*ahmed*",
        "?l-h*",
        "الحربي*",
        "الحربي^احمد",
        "*احمد",
        "Al-Harbi^Ahmed^^Dr=الحربي^أحمد",
        "*^Ahmed^*",
    ],
)
def test_a_name_matches(pattern: str) -> None:
    assert name_test(pattern)(ROW["patient_name"])


@pytest.mark.parametrize("pattern", ["Harbi*", "ahmed*", "Al-Harbi", "احمد*", "*mohammed*", "?"])
def test_a_name_does_not_match(pattern: str) -> None:
    assert not name_test(pattern)(ROW["patient_name"])


def test_empty_components_mean_nothing() -> None:
    assert name_test("DOE^JOHN")("DOE^JOHN^^^")
    assert name_test("DOE^^")("DOE")
    assert name_test("DOE^*")("DOE")
    assert not name_test("DOE^J*")("DOE")


@pytest.mark.parametrize("spelling", ["عبد الله", "عبدالله", "عبدالله "])
def test_the_servant_is_joined(spelling: str) -> None:
    assert name_test("عبد الله*")(f"{spelling}^علي")
    assert name_test("عبدالله*")(f"{spelling}^علي")


def test_a_pattern_of_many_stars_is_linear() -> None:
    started = time.perf_counter()
    assert not name_test("*a" * 60 + "b")("a" * 900)
    assert time.perf_counter() - started < 1.0


def test_which_conditions_need_the_header() -> None:
    columns = [c for c in (condition_of(find("PatientID"), "1"), condition_of(find("Rows"), "1")) if c]
    assert not needs_attributes(columns, Level.STUDY)
    assert needs_attributes(columns, Level.INSTANCE)
