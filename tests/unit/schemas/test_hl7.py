"""HL7 v2 messages: cutting, escapes, groups, writing."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import Invalid
from schemas.hl7 import Separators, escape, joined, parse, segment, unescape

ORU = joined(
    [
        segment("MSH", "RIS", "H1", "SIJIL", "MOH", "20260102110000+0200", "", ["ORU", "R01"], "M|1", "P", "2.5"),
        "PID|1||P1^^^H1^MR~29001011234567^^^EG^NI||سامي^ليلى",
        "ORC|RE",
        "OBR|1|||CT^Head & neck",
        "OBX|1|TX",
        "ORC|RE",
        "TQ1|1",
        "OBR|2",
        "OBX|1|TX",
        "OBR|3",
        "OBX|1|TX",
        "NTE|1",
    ]
)


def test_values_are_found_by_their_numbers() -> None:
    message = parse(ORU)
    assert message.header.text(1) == "|"
    assert message.header.field(2) == "^~\\&"
    assert message.header.text(9, 2) == "R01"
    assert message.header.text(10) == "M|1"
    pid = message.first("PID")
    assert (pid.repetitions(3), pid.text(3, 5, repetition=2), pid.text(5, 2)) == (2, "NI", "ليلى")
    assert pid.text(40) == pid.text(3, 1, repetition=9) == message.first("ZZZ").text(1) == ""
    assert message.groups("ORC", "OBR")[0][1].text(4, 2, subcomponent=2) == "neck"


def test_groups_begin_with_their_leaders() -> None:
    names = [[s.name for s in g] for g in parse(ORU).groups("ORC", "OBR")]
    assert names == [["ORC", "OBR", "OBX"], ["ORC", "TQ1", "OBR", "OBX"], ["OBR", "OBX", "NTE"]]


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
def test_segments_end_as_they_do_in_the_field(end: str) -> None:
    assert parse(ORU.replace("\r", end)) == parse(ORU)


def test_a_null_is_no_value_and_says_so() -> None:
    pid = parse('MSH|^~\\&|A\rPID|""|x^""').first("PID")
    assert (pid.text(1), pid.is_null(1), pid.text(2, 2), pid.is_null(2), pid.is_null(9)) == ("", True, "", False, False)


@pytest.mark.parametrize(
    ("raw", "meant"),
    [
        (r"a\F\b\S\c\T\d\R\e\E\f", "a|b^c&d~e\\f"),
        ("one\\.br\\two\\.sp2\\three\\.in4\\", "one\ntwo\n\nthree"),
        (r"\H\bold\N\ \X0D\x", "bold \nx"),
        (r"C:\path\file", r"C:\path\file"),
        (r"50\% of", r"50\% of"),
        ("no end \\", "no end \\"),
    ],
)
def test_escapes(raw: str, meant: str) -> None:
    assert unescape(raw, Separators()) == meant


@given(st.text(alphabet=st.characters(exclude_characters="\r"), max_size=60))
def test_what_is_escaped_comes_back(text: str) -> None:
    assert unescape(escape(text), Separators()) == text
    assert not set(escape(text)) & set("|^&~\n")


@given(st.text(max_size=200))
def test_whatever_comes_is_a_message_or_invalid(text: str) -> None:
    for candidate in (text, "MSH|^~\\&|" + text):
        with suppress(Invalid):
            message = parse(candidate)
            assert message.header.name == "MSH"
            assert all(len(s.name) == 3 for s in message.segments)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "hl7-header"),
        ("PID|1", "hl7-header"),
        ("MSH|^^\\&|x", "hl7-header"),
        ("MSHabcdefg", "hl7-header"),
        ("MSH|^~\\&|x\rMSH|^~\\&|y", "hl7-header"),
        ("MSH|^~\\&|x\rpid|1", "hl7-segment"),
        ("MSH|^~\\&|x\r" + "NTE|\r" * 20_001, "hl7-too-long"),
    ],
)
def test_what_is_none_is_refused(text: str, reason: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse(text)
    assert refused.value.reason == reason
