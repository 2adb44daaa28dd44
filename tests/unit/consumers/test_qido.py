"""A query string becomes a Query, a Query a Plan (PS3.18 §10.6.1)."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from consumers.api.attributes import ATTRIBUTES, BY_TAG, Level
from consumers.api.match import name_test
from consumers.api.qido import (
    ByAccession,
    ByDay,
    ByNameToken,
    ByPatientID,
    ByUid,
    Kind,
    Query,
    Source,
    parse,
    plan,
)
from schemas.errors import Invalid
from schemas.names import name_tokens, pattern_words
from schemas.tables import BY_NAME


def study(text: str) -> Query:
    return parse(text.encode(), Level.STUDY)


def one(text: str) -> tuple[Kind, tuple[str, ...]]:
    (condition,) = study(text).conditions
    return condition.kind, condition.values


@pytest.mark.parametrize(
    ("text", "kind", "values"),
    [
        ("StudyInstanceUID=1.2.3", Kind.UIDS, ("1.2.3",)),
        ("0020000D=1.2.3", Kind.UIDS, ("1.2.3",)),
        ("0020000d=1.2.3,1.2.4", Kind.UIDS, ("1.2.3", "1.2.4")),
        ("StudyInstanceUID=1.2.3%5C1.2.4", Kind.UIDS, ("1.2.3", "1.2.4")),
        ("StudyInstanceUID=1.2.3&StudyInstanceUID=1.2.4", Kind.UIDS, ("1.2.3", "1.2.4")),
        ("StudyDate=20240101", Kind.RANGE, ("20240101", "20240101")),
        ("StudyDate=20240101-", Kind.RANGE, ("20240101", "")),
        ("StudyDate=-20240131", Kind.RANGE, ("", "20240131")),
        ("StudyDate=20240101-20240131", Kind.RANGE, ("20240101", "20240131")),
        ("StudyTime=10-1130", Kind.RANGE, ("10", "1130")),
        ("PatientName=ABC*", Kind.NAME, ("ABC*",)),
        (f"PatientName={quote('أحمد')}", Kind.NAME, ("أحمد",)),
        ("PatientID=%20P%201%20", Kind.TEXT, ("P 1",)),
        ("PatientID=P*", Kind.PATTERN, ("P*",)),
        ("ModalitiesInStudy=CT", Kind.ANY, ("CT",)),
        ("ModalitiesInStudy=CT,MR&ModalitiesInStudy=US", Kind.ANY, ("CT", "MR", "US")),
        ("NumberOfStudyRelatedInstances=120", Kind.NUMBER, ("120",)),
    ],
)
def test_what_a_value_asks_for(text: str, kind: Kind, values: tuple[str, ...]) -> None:
    assert one(text) == (kind, values)


@pytest.mark.parametrize("text", ["", "PatientName=", "PatientName=*", "StudyDate=", "accept=application/json"])
def test_nothing_is_asked_for(text: str) -> None:
    assert study(text).conditions == ()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Foo=1", "unknown-attribute"),
        ("0008FFFF=1", "unknown-attribute"),
        ("PixelData=1", "attribute-not-searchable"),
        ("00091001=1", "attribute-not-searchable"),
        ("Modality=CT", "attribute-level"),
        ("PatientID=1&PatientID=2", "attribute-repeated"),
        ("StudyInstanceUID=1.2.a", "uid-invalid"),
        ("StudyInstanceUID=" + "1." * 40 + "1", "uid-invalid"),
        ("StudyInstanceUID=" + ",".join(f"1.{n}" for n in range(300)), "value-count"),
        ("StudyDate=2024", "value-range"),
        ("StudyDate=2024-01-01", "value-range"),
        ("StudyDate=-", "value-range"),
        ("StudyTime=1", "value-range"),
        ("NumberOfStudyRelatedSeries=x", "value-number"),
        ("PatientID=" + "x" * 400, "value-length"),
        ("PatientID=a%00b", "value-character"),
        ("PatientName=%FF", "query-encoding"),
        ("limit=0", "option-limit"),
        ("limit=-1", "option-limit"),
        ("limit=1&limit=2", "option-limit"),
        ("offset=-1", "option-offset"),
        ("offset=x", "option-offset"),
        ("fuzzymatching=maybe", "option-fuzzymatching"),
        ("includefield=Foo", "unknown-attribute"),
    ],
)
def test_what_is_refused(text: str, reason: str) -> None:
    with pytest.raises(Invalid) as refused:
        study(text)
    assert refused.value.reason == reason


def test_a_refusal_does_not_repeat_what_was_sent() -> None:
    for text in ("CANARY^NAME=1", "StudyDate=CANARY", "PatientID=CANARY%00", "StudyInstanceUID=CANARY"):
        with pytest.raises(Invalid) as refused:
            study(text)
        assert "CANARY" not in str(refused.value)


def test_options() -> None:
    query = study("limit=101&offset=202&fuzzymatching=true&includefield=00081030%2CPatientAge&includefield=all")
    assert (query.limit, query.offset, query.fuzzy, query.include_all) == (101, 202, True, True)
    assert query.include == {"00081030", "00101010"}


def test_the_address_narrows_the_query() -> None:
    query = parse(b"Modality=CT", Level.INSTANCE, study_uid="1.2.3", series_uid="1.2.3.4")
    assert {c.attribute.keyword: c.values for c in query.conditions} == {
        "Modality": ("CT",),
        "StudyInstanceUID": ("1.2.3",),
        "SeriesInstanceUID": ("1.2.3.4",),
    }
    other = parse(b"StudyInstanceUID=1.2.9", Level.SERIES, study_uid="1.2.3")
    assert other.conditions[0].values == ()


def test_a_path_into_a_sequence() -> None:
    for name in ("00400275.00400009", "RequestAttributesSequence.ScheduledProcedureStepID"):
        (condition,) = parse(f"{name}=X".encode(), Level.SERIES).conditions
        assert condition.attribute is BY_TAG["00400275.00400009"]


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("StudyInstanceUID=1.2&PatientID=P&AccessionNumber=A", ByUid(("1.2",))),
        ("PatientID=P&AccessionNumber=A", ByAccession("A")),
        ("PatientID=P&PatientName=ABC*", ByPatientID("P")),
        ("PatientID=P*&PatientName=DOE%5EJ*", ByNameToken("doe", start=False)),
        ("PatientName=ABC*", ByNameToken("abc", start=True)),
        (f"PatientName={quote('عبد الله*')}", ByNameToken("عبدالله", start=True)),
        ("PatientName=A*", ByDay()),
        ("PatientName=*abc*", ByDay()),
        ("AccessionNumber=A*", ByDay()),
        ("ModalitiesInStudy=CT", ByDay()),
        ("", ByDay()),
    ],
)
def test_the_plan_starts_from_the_most_selective_table(text: str, source: Source) -> None:
    assert plan(study(text)).source == source


def test_the_plan_is_bounded_by_the_dates() -> None:
    found = plan(study("StudyDate=20240101-20240131&PatientName=ABC*"))
    assert (found.first_day, found.last_day) == ("20240101", "20240131")


def test_attributes_are_named_once_and_their_columns_exist() -> None:
    assert len(BY_TAG) == len(ATTRIBUTES) == len({a.keyword for a in ATTRIBUTES})
    tables = {Level.STUDY: "studies", Level.SERIES: "series", Level.INSTANCE: "instances"}
    for attribute in ATTRIBUTES:
        assert not attribute.column or attribute.column in BY_NAME[tables[attribute.level]].columns, attribute


WORDS = ["عبد", "الله", "عبدالله", "أحمد", "احمد", "ab", "AL", "O'Neil", "Émile", "^", "=", " ", "-", "d", "٣"]


@st.composite
def name_and_pattern(draw: st.DrawFn) -> tuple[str, str]:
    """A name, and one of its groups with pieces of it replaced by wild cards."""
    name = "".join(draw(st.lists(st.sampled_from(WORDS), max_size=7)))
    pattern = draw(st.sampled_from([name, *name.split("=")]))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(pattern)))
        if draw(st.booleans()):
            pattern = pattern[:at] + "*" + pattern[at + draw(st.integers(0, 4)) :]
        else:
            pattern = pattern[:at] + "?" + pattern[at + 1 :]
    return name, pattern


@settings(max_examples=500)
@given(name_and_pattern())
def test_every_name_that_matches_is_among_the_candidates(case: tuple[str, str]) -> None:
    """What the index of tokens gives must hold whatever the pattern matches."""
    name, pattern = case
    assume(name_test(pattern)(name))
    tokens = set(name_tokens(name))
    whole, starts = pattern_words(pattern)
    assert set(whole) <= tokens
    assert all(any(t.startswith(s) for t in tokens) for s in starts)
