"""A query string becomes a Query, a Query a Plan (PS3.18 §10.6.1)."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.api.attributes import ATTRIBUTES, BY_TAG, Level, find
from consumers.api.match import fuzzy_test, name_test
from consumers.api.planner import (
    ByAccession,
    ByDay,
    ByName,
    ByPatientID,
    BySop,
    ByUid,
    Source,
    explain,
    names_by,
    plan,
)
from consumers.api.qido import Kind, Query, parse
from schemas.errors import Invalid
from schemas.names import Part, name_tokens, pattern_pieces
from schemas.sounds import sound_tokens


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
        assert (condition.attribute.tag, condition.attribute.vr) == ("00400275.00400009", "SH")


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("StudyInstanceUID=1.2&PatientID=P&AccessionNumber=A", ByUid(("1.2",))),
        ("PatientID=P&AccessionNumber=A", ByAccession("A")),
        ("PatientID=P&PatientName=ABC*", ByPatientID("P")),
        ("PatientID=P*&PatientName=DOE%5EJ*", ByName("doe", Part.WHOLE)),
        ("PatientName=ABC*", ByName("abc", Part.START)),
        (f"PatientName={quote('عبد الله*')}", ByName("عبدالله", Part.START)),
        ("PatientName=A*", ByDay()),
        ("PatientName=*abc*", ByName("abc", Part.INSIDE)),
        ("PatientName=DOE%5EJohanna*", ByName("johanna", Part.START)),
        ("PatientName=DOE%5EJohanna&fuzzymatching=true", ByName("johanna", Part.START, "~ghn")),
        ("PatientName=Muhammad*&fuzzymatching=true", ByName("muhammad", Part.START, "~mhmd", Part.START)),
        ("PatientName=*ab*", ByDay()),
        ("AccessionNumber=A*", ByDay()),
        ("ModalitiesInStudy=CT", ByDay()),
        ("", ByDay()),
    ],
)
def test_the_plan_starts_from_the_most_selective_table(text: str, source: Source) -> None:
    assert plan(study(text)).source == source


def test_an_instance_alone_is_found_by_its_uid() -> None:
    assert plan(parse(b"SOPInstanceUID=1.2.3&PatientID=P", Level.INSTANCE)).source == BySop(("1.2.3",))
    assert plan(parse(b"SOPInstanceUID=1.2.3&StudyInstanceUID=1.2", Level.INSTANCE)).source == ByUid(("1.2",))


def test_the_plan_is_bounded_by_the_dates() -> None:
    found = plan(study("StudyDate=20240101-20240131&PatientName=ABC*"))
    assert (found.first_day, found.last_day) == ("20240101", "20240131")


def test_what_a_plan_leaves_to_look_at() -> None:
    found = plan(study("StudyDate=20240101-20240107&ModalitiesInStudy=CT&OtherPatientIDs=X"))
    assert [c.attribute.keyword for c in found.filters] == ["StudyDate", "ModalitiesInStudy"]
    assert [c.attribute.keyword for c in found.header_filters] == ["OtherPatientIDs"]
    assert found.shows_header
    assert found.days == tuple(f"2024010{d}" for d in range(7, 0, -1))
    assert not found.counted


def test_all_studies_are_paged_by_counts() -> None:
    assert plan(study("limit=101&offset=5000&includefield=00081030,00080060")).counted
    assert not plan(study("includefield=00081030,00080060,00080090,00100030")).shows_header
    assert plan(study("includefield=all")).shows_header
    assert not plan(parse(b"", Level.SERIES)).counted
    assert not plan(study("offset=5&cursor=20240101101500_1.2.3")).counted


def test_an_explanation_names_no_value() -> None:
    query = study("PatientName=*CANARY*&StudyDate=20240101-&OtherPatientIDs=CANARY")
    told = explain(query, plan(query))
    assert told["vocabulary"] == "name_trigrams"
    assert told["table"] == "studies_by_name_token"
    assert "CANARY" not in str(told).upper()


def test_a_cursor_is_read() -> None:
    assert study("cursor=20240101101500_1.2.3").cursor == ("20240101101500", "1.2.3")
    with pytest.raises(Invalid):
        study("cursor=x")


def test_attributes_are_named_once() -> None:
    assert len(BY_TAG) == len(ATTRIBUTES) == len({a.keyword for a in ATTRIBUTES})


@pytest.mark.parametrize("name", ["00400275.00400009", "RequestAttributesSequence.ScheduledProcedureStepID"])
def test_paths_lead_to_attributes_with_values(name: str) -> None:
    assert find(name).tag == "00400275.00400009"
    for wrong in ("RequestAttributesSequence", "Modality.CodeValue", "00400275.00400008", "00400275.PixelData.Rows"):
        with pytest.raises(Invalid):
            find(wrong)


WORDS = ["عبد", "الله", "عبدالله", "أحمد", "احمد", "ab", "AL", "O'Neil", "Émile", "^", "=", " ", "-", "d", "٣"]
WORDS += ["Ahmad", "Abdel", "Rahman", "الرحمن", "Mohamed", "محمود", "Noureldin", "الدين", "El", "Abdallah"]


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
    tokens = set(name_tokens(name))
    holds = {
        Part.WHOLE: lambda piece: piece in tokens,
        Part.START: lambda piece: any(t.startswith(piece) for t in tokens),
        Part.INSIDE: lambda piece: any(piece in t for t in tokens),
    }
    if name_test(pattern)(name):
        assert all(holds[part](piece) for part, piece in pattern_pieces(pattern))
    tokens |= set(sound_tokens(name))
    for source in names_by(pattern, fuzzy=True) if fuzzy_test(pattern)(name) else ():
        heard = bool(source.sound) and holds[source.sound_part](source.sound)
        assert heard or holds[source.part](source.piece)
