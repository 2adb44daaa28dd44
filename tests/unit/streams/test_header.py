"""Headers cut down to a level."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import Invalid
from streams.header import ELEMENT_BYTES_MAX, date_of, instance_level, series_level, study_level

HEADER = {
    "00080005": {"vr": "CS", "Value": ["ISO_IR 192"]},
    "00080051": {"vr": "SQ", "Value": [{"00400031": {"vr": "UT", "Value": ["RIS"]}}]},
    "00080060": {"vr": "CS", "Value": ["CT"]},
    "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Wang^XiaoDong", "Ideographic": "王^小東"}]},
    "00100020": {"vr": "LO", "Value": [" A 1 \0"]},
    "00100030": {"vr": "DA"},
    "00200011": {"vr": "IS", "Value": [3]},
    "00200013": {"vr": "IS", "Value": ["12"]},
    "00280010": {"vr": "US", "Value": [512]},
    "00081030": {"vr": "LO", "Value": [None]},
    "00321060": {"vr": "LO", "Value": ["x" * ELEMENT_BYTES_MAX]},
    "00291010": {"vr": "UN", "InlineBinary": "AAAA"},
}
RAW = json.dumps(HEADER, ensure_ascii=False).encode()


def test_a_level_keeps_its_own_elements_verbatim() -> None:
    study, series, instance = (json.loads(level(RAW).json()) for level in (study_level, series_level, instance_level))
    assert study == {t: HEADER[t] for t in ("00080005", "00080051", "00100010", "00100020", "00100030", "00081030")}
    assert set(series) == {"00080005", "00080060", "00200011"}
    assert set(instance) == {"00080005", "00200013", "00280010"}


def test_values() -> None:
    level = study_level(RAW)
    assert level.text("00100020") == "A 1"
    assert level.text("00100030") == ""
    assert level.text("00081030") == ""
    assert level.person_name("00100010") == "Wang^XiaoDong=王^小東"
    assert level.item_text("00080051", "00400031") == "RIS"
    assert level.item_text("00080051", "00400032") == ""
    assert series_level(RAW).integer("00200011") == 3
    assert instance_level(RAW).integer("00200013") == 12


@pytest.mark.parametrize(
    ("value", "number"), [("-5", -5), ("2147483648", None), ("1.5", None), ("", None), ("٣", None)]
)
def test_integers_fit_or_are_none(value: str, number: int | None) -> None:
    raw = json.dumps({"00200013": {"vr": "IS", "Value": [value]}}).encode()
    assert instance_level(raw).integer("00200013") == number


@pytest.mark.parametrize("raw", [b"null", b"[]", b"{", b'{"00100020":"text"}', b'{"00100020":{"Value":"text"}}'])
def test_what_is_no_header_is_refused(raw: bytes) -> None:
    with pytest.raises(Invalid, match="manifest-header"):
        study_level(raw).text("00100020")


def test_bytes_that_are_no_utf8_are_refused() -> None:
    with pytest.raises(Invalid, match="manifest-header"):
        study_level(b'{"00100020":{"vr":"LO","Value":["\xff"]}}').json()


@given(st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_any_value_gives_text_or_is_refused(value: object) -> None:
    raw = json.dumps({t: {"vr": "LO", "Value": value} for t in ("00100010", "00100020", "00080051")}).encode()
    level = study_level(raw)
    for read in (level.text, level.person_name, level.integer):
        for tag in ("00100010", "00100020"):
            try:
                read(tag)
            except Invalid:
                continue
    try:
        level.item_text("00080051", "00400031")
    except Invalid:
        return


@pytest.mark.parametrize(
    ("text", "date"),
    [
        ("20240229", "20240229"),
        ("20230229", ""),
        ("1999.12.31", "19991231"),
        ("20241301", ""),
        ("2024", ""),
        ("00000101", ""),
        ("２０２４０１０１", ""),
    ],
)
def test_dates(text: str, date: str) -> None:
    assert date_of(text) == date
