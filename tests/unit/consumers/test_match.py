"""Whether a row fits (PS3.4 §C.2.2.2)."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from consumers.api.attributes import find
from consumers.api.match import checks_of, fits, fuzzy_test, name_test, reader
from consumers.api.qido import condition_of
from schemas.dicom_json import person_name

NAME = "Al-Harbi^Ahmed^^Dr=الحربي^أحمد"
DATASET: dict[str, Any] = {
    "0020000D": {"vr": "UI", "Value": ["1.2.3"]},
    "00100020": {"vr": "LO", "Value": ["P-77"]},
    "00100010": person_name(NAME),
    "00080020": {"vr": "DA", "Value": ["20250228"]},
    "00080030": {"vr": "TM", "Value": ["101530.5"]},
    "00080061": {"vr": "CS", "Value": ["CT", "SR"]},
    "00081030": {"vr": "LO", "Value": ["CT Chest أحمد"]},
    "00201208": {"vr": "IS", "Value": [120]},
    "00100040": {"vr": "CS"},
    "00101000": {"vr": "LO", "Value": ["OLD-1", "OLD-2"]},
    "00101030": {"vr": "DS", "Value": [72.5]},
    "0008002A": {"vr": "DT", "Value": ["20250228101530.5+0200"]},
    "00400275": {"vr": "SQ", "Value": [{"00400009": {"vr": "SH", "Value": ["STEP1"]}}, {"00400009": {"vr": "SH"}}]},
}


def matches(*asked: tuple[str, str], combined: bool = True) -> bool:
    conditions = [c for c in (condition_of(find(k), v) for k, v in asked) if c is not None]
    assert len(conditions) == len(asked)
    read = reader(conditions)(json.dumps(DATASET))
    return fits(read, checks_of(conditions, combined=combined))


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("StudyInstanceUID", "1.2.9,1.2.3"),
        ("PatientID", "P-77"),
        ("PatientID", "P-*"),
        ("PatientID", "P?77"),
        ("StudyDate", "20250228"),
        ("StudyDate", "20250101-"),
        ("StudyDate", "-20250228"),
        ("StudyTime", "10"),
        ("StudyTime", "1015-1016"),
        ("StudyTime", "101530.5-"),
        ("ModalitiesInStudy", "MR,CT"),
        ("StudyDescription", "*chest*"),
        ("StudyDescription", "ct chest احمد"),
        ("StudyDescription", "*احمد"),
        ("PatientSex", '""'),
        ("PatientWeight", "72.50"),
        ("AcquisitionDateTime", "20250228"),
        ("AcquisitionDateTime", "2025022810-2025022811"),
        ("AcquisitionDateTime", "20250228101530+0200-"),
        ("NumberOfStudyRelatedInstances", "120"),
        ("OtherPatientIDs", "OLD-2"),
        ("00400275.00400009", "STEP*"),
    ],
)
def test_it_fits(keyword: str, value: str) -> None:
    assert matches((keyword, value))


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("StudyInstanceUID", "1.2"),
        ("PatientID", "p-77"),
        ("PatientID", "p-*"),
        ("PatientID", "P-7"),
        ("StudyDate", "20250301-"),
        ("StudyTime", "1016-"),
        ("StudyTime", "-1014"),
        ("ModalitiesInStudy", "C"),
        ("StudyDescription", "chest"),
        ("PatientSex", "F"),
        ("PatientID", '""'),
        ("PatientWeight", "72"),
        ("AcquisitionDateTime", "-2025022809"),
        ("PatientBirthDate", "19800101"),
        ("OtherPatientIDs", "OLD"),
        ("00400275.00401001", "STEP1"),
    ],
)
def test_it_does_not_fit(keyword: str, value: str) -> None:
    assert not matches((keyword, value))


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
    assert name_test(pattern)(NAME)


@pytest.mark.parametrize("pattern", ["Harbi*", "ahmed*", "Al-Harbi", "احمد*", "*mohammed*", "?"])
def test_a_name_does_not_match(pattern: str) -> None:
    assert not name_test(pattern)(NAME)


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


@pytest.mark.parametrize("pattern", ["ahmed har", "harbi", "احمد الحر", "*AHM*", "Ahmed^Al-Harbi"])
def test_a_name_matches_by_its_words(pattern: str) -> None:
    assert fuzzy_test(pattern)(NAME)


@pytest.mark.parametrize("pattern", ["ahmed x", "hmed^x", "mohammed"])
def test_a_name_does_not_match_by_other_words(pattern: str) -> None:
    assert not fuzzy_test(pattern)(NAME)


def test_a_range_of_dates_and_one_of_times_are_one_of_moments() -> None:
    asked = ("StudyDate", "20250227-20250301"), ("StudyTime", "1100-0900")
    assert matches(*asked)
    assert not matches(*asked, combined=False)
    assert not matches(("StudyDate", "20250228-20250301"), ("StudyTime", "1100-0900"))
    assert matches(("StudyDate", "20250227-"), ("StudyTime", "1100-"))
    assert not matches(("StudyDate", "-20250228"), ("StudyTime", "-0900"))
