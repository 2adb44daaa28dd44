"""Character sets of messages: stated, told by their bytes, and stated wrongly."""

from __future__ import annotations

import pytest

from producers.hl7.charset import decode

TEXTS = [
    "أشعة مقطعية على الدماغ: لا يوجد نزف داخل القحف",
    "سامي^ليلى",
    "محمد^أحمد^علي",
    "عبد الرحمن",
    "نور",
    "Chest X-ray: الرئتان سليمتان، القلب بحجم طبيعي",
    "رنين مغناطيسي على العمود الفقري القطني",
    "كسر في عظمة الفخذ",
    "مستشفى القصر العيني",
    "فاطمة",
]


def message(text: str, stated: str = "") -> str:
    return f"MSH|^~\\&|RIS|H1|SIJIL|MOH|20260102||ORU^R01|1|P|2.4||||||{stated}\rPID|1||P1||{text}\rOBX|1|TX|||{text}"


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("codec", ["utf-8", "cp1256", "iso-8859-6"])
@pytest.mark.parametrize("stated", ["", "ASCII", "8859/1"])
def test_what_nobody_states_is_told_by_the_bytes(text: str, codec: str, stated: str) -> None:
    if codec == "iso-8859-6":
        text = text.replace("،", ",")
    whole = message(text, stated)
    found, said = decode(whole.encode(codec))
    assert found == whole
    assert said == codec or found.encode(codec) == whole.encode(said)


@pytest.mark.parametrize(
    ("stated", "codec"),
    [("UNICODE UTF-8", "utf-8"), ("8859/6", "iso-8859-6"), ("WINDOWS-1256", "cp1256"), ("8859/6~ASCII", "iso-8859-6")],
)
def test_what_is_stated_counts(stated: str, codec: str) -> None:
    whole = message("سلس", stated)  # the same bytes mean other letters in each set
    assert decode(whole.encode(codec)) == (whole, codec)


def test_what_is_stated_wrongly_is_read_as_what_it_is() -> None:
    whole = message(TEXTS[0], "UNICODE UTF-8")
    assert decode(whole.encode("cp1256")) == (whole, "cp1256")


def test_latin_stays_latin_where_it_is_stated() -> None:
    whole = message("Müller^Renée, façade", "8859/1")
    assert decode(whole.encode("iso-8859-1")) == (whole, "iso-8859-1")


def test_a_byte_order_mark_is_no_part_of_the_message() -> None:
    assert decode(b"\xef\xbb\xbf" + message("x").encode())[0] == message("x")


def test_anything_decodes() -> None:
    assert decode(bytes(range(256)))[0]
    assert decode(b"") == ("", "utf-8")
