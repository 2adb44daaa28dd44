"""Value fields to DICOM JSON, one VR after the other."""

import json
import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom._private_dict import private_dictionaries
from pydicom.valuerep import AMBIGUOUS_VR, STANDARD_VR

from producers.dicom.charsets import character_set
from producers.dicom.values import BIG, BINARY_VRS, BULK_VRS, LITTLE, NotOfThisVR, Text
from producers.dicom.walk import _private_vr


def value(vr: str, raw: bytes, *, big: bool = False, charset: bytes = b"") -> tuple[Any, set[str]]:
    """The attribute object without its VR, and the marks."""
    marks: set[str] = set()
    text = Text(marks, character_set(charset))
    return json.loads(f'{{"vr":"{vr}"{(BIG if big else LITTLE)[vr](raw, text)}}}'), marks


def values(vr: str, raw: bytes, *, big: bool = False, charset: bytes = b"") -> Any:
    found, marks = value(vr, raw, big=big, charset=charset)
    assert not marks
    return found.get("Value")


def test_every_vr_of_the_standard_is_there() -> None:
    assert LITTLE.keys() == BIG.keys() == {str(vr) for vr in STANDARD_VR} - {"SQ"}
    assert BINARY_VRS < BULK_VRS < LITTLE.keys()


def test_every_vr_of_the_private_dictionary_is_there() -> None:
    known = {
        _private_vr(int(tag.replace("x", "0"), 16), creator)
        for creator, entries in private_dictionaries.items()
        for tag in entries
    }
    assert known <= LITTLE.keys() | {str(vr) for vr in AMBIGUOUS_VR} | {"SQ", ""}
    assert "OB or OW" in known


@pytest.mark.parametrize("vr", sorted(LITTLE))
def test_an_empty_value_has_no_value(vr: str) -> None:
    assert value(vr, b"") == ({"vr": vr}, set())
    assert value(vr, b"", big=True) == ({"vr": vr}, set())


@pytest.mark.parametrize("vr", ["AE", "AS", "CS", "DA", "DT", "LO", "SH", "TM", "UI"])
def test_strings(vr: str) -> None:
    assert values(vr, b"1.2\0") == ["1.2"]
    assert values(vr, b" A B  ") == ["A B"]
    assert values(vr, b"A \\ B\\\\C\0 ") == ["A", "B", None, "C"]
    assert values(vr, b"  \0") is None
    assert values(vr, b"\\") == [None, None]
    assert values(vr, b'"\x01\x7f/') == ['"\x01\x7f/']


@pytest.mark.parametrize("vr", ["LT", "ST", "UR", "UT"])
def test_paragraphs_keep_backslashes_and_leading_spaces(vr: str) -> None:
    assert values(vr, b" a\\b\r\nc \0") == [" a\\b\r\nc"]
    assert values(vr, b"   ") is None


def test_unlimited_characters_keep_leading_spaces() -> None:
    assert values("UC", b" a \\ b\\\\c ") == [" a", " b", None, "c"]


@pytest.mark.parametrize(
    ("raw", "names"),
    [
        (b"Mohamed^Ali ", [{"Alphabetic": "Mohamed^Ali"}]),
        (b"^^^^", [{"Alphabetic": "^^^^"}]),
        (b"A=B=C", [{"Alphabetic": "A", "Ideographic": "B", "Phonetic": "C"}]),
        (b"=B=", [{"Ideographic": "B"}]),
        (b"==C", [{"Phonetic": "C"}]),
        (b"==", [None]),
        (b"A =\\ B\\", [{"Alphabetic": "A"}, {"Alphabetic": "B"}, None]),
        (b"A=B=C=D", [{"Alphabetic": "A", "Ideographic": "B", "Phonetic": "C=D"}]),
        (b" ", None),
    ],
)
def test_person_names(raw: bytes, names: list[Any] | None) -> None:
    assert values("PN", raw) == names


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("1.500", "1.500"),
        ("-0", "-0"),
        ("+1", "1"),
        (".5", "0.5"),
        ("-.5", "-0.5"),
        ("5.", "5"),
        ("007", "7"),
        ("-00.10", "-0.10"),
        ("1E5", "1E5"),
        ("+1.e-05", "1e-05"),
        ("0", "0"),
        ("000", "0"),
        ("12345678901234567890", "12345678901234567890"),
        ("1" * 60, "1" * 60),
    ],
)
def test_decimals_keep_their_digits(raw: str, text: str) -> None:
    fragment = LITTLE["DS"](raw.encode(), Text(set()))
    assert fragment == f',"Value":[{text}]'
    assert json.loads(text) == pytest.approx(float(raw))


@pytest.mark.parametrize("raw", ["", ".", "-", "+", "e5", "NaN", "inf", "1E400", "1,5", "1 5", "0x1", "1" * 100, "١"])
def test_what_is_no_decimal_stays_text(raw: str) -> None:
    found, marks = value("DS", f"1\\{raw}\\2".encode(), charset=b"ISO_IR 192")
    assert found["Value"] == [1, raw or None, 2]
    assert marks == ({"bad-number"} if raw else set())


@pytest.mark.parametrize(
    ("raw", "number"),
    [("1", 1), ("-0", 0), ("+12", 12), ("007", 7), ("-2147483648", -(1 << 31)), ("9007199254740991", (1 << 53) - 1)],
)
def test_integers(raw: str, number: int) -> None:
    assert values("IS", f" {raw} \\{raw}".encode()) == [number, number]


@pytest.mark.parametrize("raw", ["1.0", "1.5", "1A", "--1", "", "9007199254740992", "1e2", "9" * 80])
def test_what_is_no_integer_stays_text(raw: str) -> None:
    found, marks = value("IS", f"1\\{raw}".encode())
    assert found["Value"] == [1, raw or None]
    assert marks == ({"bad-number"} if raw else set())


INTEGERS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "UV": "Q", "SV": "q"}


@given(st.sampled_from(sorted(INTEGERS)), st.booleans(), st.data())
def test_binary_integers(vr: str, big: bool, data: st.DataObject) -> None:
    code = INTEGERS[vr]
    bits = 8 * struct.calcsize("<" + code)
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if code.islower() else (0, (1 << bits) - 1)
    numbers = data.draw(st.lists(st.integers(low, high), min_size=1, max_size=5))
    raw = struct.pack(f"{'>' if big else '<'}{len(numbers)}{code}", *numbers)
    assert values(vr, raw, big=big) == [number if abs(number) < 1 << 53 else str(number) for number in numbers]


@given(st.booleans(), st.lists(st.floats(width=32), min_size=1, max_size=5))
def test_binary_floats(big: bool, numbers: list[float]) -> None:
    for vr, code in (("FL", "f"), ("FD", "d")):
        raw = struct.pack(f"{'>' if big else '<'}{len(numbers)}{code}", *numbers)
        found = values(vr, raw, big=big)
        assert all(
            isinstance(number, float if math.isfinite(sent) else str)
            for number, sent in zip(found, numbers, strict=True)
        )
        assert struct.pack(f"{len(numbers)}{code}", *map(float, found)) == struct.pack(
            f"{len(numbers)}{code}", *[math.nan if math.isnan(number) else number for number in numbers]
        )


def test_non_finite_floats_have_the_names_that_json_readers_know() -> None:
    raw = struct.pack("<3d", math.nan, math.inf, -math.inf)
    assert values("FD", raw) == ["NaN", "Infinity", "-Infinity"]


def test_tags_are_eight_digits() -> None:
    assert values("AT", b"\x10\x00\x20\x00\xfe\x7f\x0a\x00") == ["00100020", "7FFE000A"]
    assert values("AT", b"\x00\x10\x00\x20", big=True) == ["00100020"]


@pytest.mark.parametrize("vr", ["US", "SS", "UL", "SL", "UV", "SV", "FL", "FD", "AT"])
@pytest.mark.parametrize("big", [False, True])
def test_a_length_that_is_no_multiple_is_not_of_the_vr(vr: str, big: bool) -> None:
    with pytest.raises(NotOfThisVR):
        value(vr, b"\1\2\3", big=big)


def test_words_are_little_endian() -> None:
    raw = bytes(range(8))
    assert value("OB", raw, big=True)[0]["InlineBinary"] == value("OB", raw)[0]["InlineBinary"] == "AAECAwQFBgc="
    for vr, size in (("OW", 2), ("OL", 4), ("OF", 4), ("OD", 8), ("OV", 8)):
        swapped = b"".join(raw[at : at + size][::-1] for at in range(0, 8, size))
        assert value(vr, swapped, big=True) == value(vr, raw)
        with pytest.raises(NotOfThisVR):
            value(vr, b"\1", big=True)


@given(st.sampled_from(sorted(LITTLE)), st.binary(max_size=40), st.booleans(), st.binary(max_size=20))
def test_any_bytes_are_json_or_not_of_the_vr(vr: str, raw: bytes, big: bool, charset: bytes) -> None:
    try:
        found, _ = value(vr, raw, big=big, charset=charset)
    except NotOfThisVR:
        return
    assert found.keys() <= {"vr", "Value", "InlineBinary"}
    json.dumps(found).encode("utf-8")


@given(st.sampled_from(["LO", "UT", "PN"]), st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=30))
def test_utf_8_text_comes_back(vr: str, text: str) -> None:
    text = text.replace("\\", "/").replace("=", "-").strip(" \0")
    found = values(vr, text.encode(), charset=b"ISO_IR 192")
    assert found == ([{"Alphabetic": text} if vr == "PN" else text] if text else None)
