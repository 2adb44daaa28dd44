"""A printed report: which way its lines run, what it says, and that another's reader finds it so."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pypdfium2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from consumers import direction
from consumers.report_pdf import page, words
from consumers.report_pdf.letterhead import Letterhead, parse
from consumers.report_pdf.page import render
from consumers.report_pdf.sheet import About, Section, Sheet, plain, prior, sheet_of
from schemas.errors import Invalid
from schemas.lifecycle import REPORT_TRANSITIONS
from schemas.report_content import Coded, Content, Dose, Signature, attributed, document_of

LRI, PDI, NBSP = direction.LRI, direction.PDI, direction.NO_BREAK
CAIRO = ZoneInfo("Africa/Cairo")
ABOUT = About(
    "0198f0aa-0000-7000-8000-000000000001",
    2,
    2,
    "final",
    "QENA",
    "2026-01-02T10:40:00Z",
    hashlib.sha256(b"").hexdigest(),
)
STUDY = {
    "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Abdallah^Laila", "Ideographic": "عبد الله^ليلى"}]},
    "00100020": {"vr": "LO", "Value": ["28001010100123"]},
    "00100030": {"vr": "DA", "Value": ["19800101"]},
    "00100040": {"vr": "CS", "Value": ["F"]},
    "00080020": {"vr": "DA", "Value": ["20260102"]},
    "00080030": {"vr": "TM", "Value": ["101100.5"]},
    "00080050": {"vr": "SH"},
    "00080061": {"vr": "CS", "Value": ["CT"]},
}
FINDING = "يُلاحظ كيس صغير قياسه 12 × 9 mm في الفص الجبهي الأيسر عند L4-L5، ≥ 3 mm."
DOCUMENT = {
    "code": {"text": "تصوير مقطعي للدماغ"},
    "text": {"div": f'<div xmlns="http://www.w3.org/1999/xhtml"><p>{FINDING}</p><p>a &lt; b</p></div>'},
    "conclusion": "فحص ضمن الحدود الطبيعية.",
}
HEAD = Letterhead({"ar": "مستشفى قنا العام", "en": "Qena General Hospital"}, {"ar": "شارع المستشفى"}, "+20 96 333 0000")


def sheet(lang: str = "ar", **about: object) -> Sheet:
    return sheet_of(
        DOCUMENT,
        STUDY,
        replace(ABOUT, **about),  # type: ignore[arg-type]
        HEAD,
        base_url="https://sijil.example/",
        lang="en" if lang == "en" else "ar",
        zone=CAIRO,
    )


# ------------------------------------------------------------------------------------------------ direction


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("قياسه 12 × 9 mm في", f"قياسه {LRI}12{NBSP}×{NBSP}9{NBSP}mm{PDI} في"),
        ("الجدار ≥ 3 mm.", f"الجدار {LRI}≥{NBSP}3{NBSP}mm{PDI}."),
        ("عند L4-L5، بنسبة 30%", f"عند {LRI}L4-L5{PDI}، بنسبة {LRI}30%{PDI}"),
        ("بتاريخ 2026-01-02.", f"بتاريخ {LRI}2026-01-02{PDI}."),
        ("(Series 1, Image 7)", f"({LRI}Series{NBSP}1,{NBSP}Image{NBSP}7{PDI})"),
        ("الصور 3, 4, 5", f"الصور {LRI}3{PDI}, {LRI}4{PDI}, {LRI}5{PDI}"),
        ("SUVmax 4.2 طبيعي", f"{LRI}SUVmax{NBSP}4.2{PDI} طبيعي"),
        ("حرارة 37.5°C", f"حرارة {LRI}37.5°C{PDI}"),
        ("بين 3–5 cm", f"بين {LRI}3–5{NBSP}cm{PDI}"),
        ("٦ أشهر", "٦ أشهر"),
        ("", ""),
    ],
)
def test_latin_words_and_numbers_stand_by_themselves(text: str, expected: str) -> None:
    assert direction.isolated(text) == expected


def test_directions_that_came_with_a_text_are_left_out() -> None:
    assert direction.isolated("\u202eلا\u2066\u200f نزف\u061c") == "لا نزف"


@given(st.text(alphabet="ابج ١٢ abcXY 0123456789 ×≥<>-–.,:/()%°µ\u2066\u2069\u202e\n", max_size=60))
def test_isolating_adds_nothing_and_every_isolate_ends(text: str) -> None:
    found = direction.isolated(text)
    kept = [c for c in found if c not in (LRI, PDI)]
    assert [" " if c == NBSP else c for c in kept] == [c for c in text if not direction._CONTROLS.match(c)]
    depth = 0
    for c in found:
        depth += (c == LRI) - (c == PDI)
        assert depth in (0, 1)
    assert depth == 0


@pytest.mark.parametrize(
    ("text", "expected"), [("CT دماغ", "ltr"), ("12 × 9 مم", "rtl"), ("12 × 9", "rtl"), ("(a)", "ltr")]
)
def test_a_paragraph_runs_as_its_first_letter_says(text: str, expected: str) -> None:
    assert direction.of(text, "rtl") == expected


# ------------------------------------------------------------------------------------------------ what it says


def test_what_is_printed_of_a_report() -> None:
    found = sheet()
    assert found.title == "تصوير مقطعي للدماغ"
    assert found.notices == ()
    facts = dict(found.facts)
    assert facts["اسم المريض"] == "ليلى عبد الله"
    assert facts["تاريخ الفحص"] == "2026-01-02 10:11"
    assert facts["تاريخ التقرير"] == "2026-01-02 12:40"
    assert "رقم الطلب" not in facts, "what is not known is not printed"
    assert [(s.heading, s.weighty) for s in found.sections] == [("التقرير", False), ("الخلاصة", True)]
    assert found.sections[0].text == f"{FINDING}\na < b"
    assert found.verify_url == f"https://sijil.example/verify/{ABOUT.report_id}/2/{ABOUT.sha256[:16]}"
    english = sheet("en")
    assert dict(english.facts)["Patient"] == "Laila Abdallah"


@pytest.mark.parametrize(
    ("about", "notice"),
    [
        ({"status": "preliminary"}, "Preliminary report, not yet approved: it may change"),
        ({"status": "entered-in-error"}, "This report was issued in error: do not act on it"),
        ({"current_version": 3}, "This is an old version: a newer one has been issued"),
    ],
)
def test_what_is_not_the_last_word_says_so(about: dict[str, object], notice: str) -> None:
    assert sheet("en", **about).notices == (notice,)


def test_every_status_of_a_report_has_a_word() -> None:
    assert {f"status.{s}" for s in REPORT_TRANSITIONS if s} <= words.WORDS.keys()


def test_a_document_that_says_little_is_printed_all_the_same() -> None:
    found = sheet_of({}, {}, ABOUT, Letterhead(), base_url="http://a", lang="ar", zone=CAIRO)
    assert (found.title, found.sections) == ("تقرير الأشعة", ())
    assert render(found).startswith(b"%PDF-")


def test_the_parts_of_a_report_that_was_written_here() -> None:
    content = Content(
        status="final",
        study_uids=("1.2.3",),
        question="صداع",
        technique="بدون صبغة",
        findings=FINDING,
        impression="طبيعي",
        conclusions=(Coded(code="G93.0", text="Cerebral cysts"),),
        category=Coded(text="BI-RADS 2"),
        dose=(Dose(code="113830", meaning="Mean CTDIvol", value=Decimal("12.50"), unit="mGy"),),
    )
    signed = attributed(document_of(content), "", Signature(who="person:7", when="2026-01-02T10:39:00Z"))
    document = signed | {"text": DOCUMENT["text"]}
    found = sheet_of(
        document,
        STUDY,
        ABOUT,
        HEAD,
        base_url="http://a",
        lang="en",
        zone=CAIRO,
        priors=[prior(STUDY)],
        signer="Dr Ahmed",
    )
    assert [(s.heading, s.text) for s in found.sections] == [
        ("Clinical question", "صداع"),
        ("Technique", "بدون صبغة"),
        ("Comparison", "2026-01-02 · CT"),
        ("Findings", FINDING),
        ("Impression", "طبيعي"),
        ("Category", "BI-RADS 2"),
        ("Coded conclusion", "G93.0 · Cerebral cysts"),
        ("Radiation dose", "Mean CTDIvol: 12.50 mGy"),
    ]
    assert found.signatures == ("Dr Ahmed · 2026-01-02 12:39",)


def test_a_narrative_is_read_as_text() -> None:
    assert plain("<div><p>one <b>two</b></p><ul><li>a&amp;b</li></ul>x<br/>y</div>") == "one two\na&b\nx\ny"


# ------------------------------------------------------------------------------------------------ letterhead


def test_a_letterhead_as_an_operator_writes_it() -> None:
    found = parse('phone = "1"\nlogo = "a.png"\n[name]\nar = "مستشفى"\n')
    assert (found.said(found.name, "en", "QENA"), found.phone, found.logo_name) == ("مستشفى", "1", "a.png")
    assert Letterhead().said({}, "ar", "QENA") == "QENA"


@pytest.mark.parametrize("text", ["x", 'nam = "a"', 'logo = "../a.png"', 'name = "a"', "phone = 1", "[name]\nfr = 'a'"])
def test_a_letterhead_that_is_none(text: str) -> None:
    with pytest.raises(Invalid):
        parse(text)


# ------------------------------------------------------------------------------------------------ the file


@pytest.fixture(scope="module")
def printed() -> pypdfium2.PdfDocument:
    return pypdfium2.PdfDocument(render(sheet()))


def test_another_reader_finds_the_words(printed: pypdfium2.PdfDocument) -> None:
    text = printed[0].get_textpage().get_text_bounded()
    for wanted in ("مستشفى قنا العام", "يُلاحظ كيس صغير قياسه", "فحص ضمن الحدود الطبيعية", "28001010100123", "صفحة"):
        assert wanted in text, wanted
    assert (printed.get_metadata_value("Producer"), len(printed)) == ("Sijil", 1)


def test_arabic_runs_right_to_left_and_a_measure_left_to_right(printed: pypdfium2.PdfDocument) -> None:
    """By where the letters stand, of the line that holds both."""
    text = printed[0].get_textpage()
    letters = [(text.get_text_range(n, 1), text.get_charbox(n)) for n in range(text.count_chars())]
    joined = "".join(c for c, _ in letters)
    start = joined.index("يُلاحظ")
    lefts = {c: box[0] for c, box in letters[start : start + 6]}
    assert lefts["ي"] > lefts["ل"] > lefts["ح"], "the first letter is at the right"
    height = letters[start][1][1]
    line = sorted((box[0], c) for c, box in letters if abs(box[1] - height) < 6)
    shown = "".join(c for _, c in line if c.isprintable() and not c.isspace())
    assert "12×9mm" in shown
    assert "≥3mm" in shown, "a sign of comparison is not mirrored"


def components(image: Image.Image) -> int:
    """Pieces of connected ink."""
    ink = np.asarray(image.convert("L")) < 128
    seen, found = np.zeros_like(ink), 0
    for start in zip(*np.nonzero(ink), strict=True):
        if seen[start]:
            continue
        found += 1
        todo = [start]
        while todo:
            y, x = todo.pop()
            if not (0 <= y < ink.shape[0] and 0 <= x < ink.shape[1]) or seen[y, x] or not ink[y, x]:
                continue
            seen[y, x] = True
            todo += [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    return found


@pytest.mark.parametrize(("word", "pieces"), [("محمد", 1), ("م\u200cح\u200cم\u200cد", 4)])
def test_letters_join(word: str, pieces: int) -> None:
    empty = Sheet("ar", Letterhead(), "", "", (), (), (Section("", word),), (" ",), 1, "0" * 16, "http://a", "")
    document = pypdfium2.PdfDocument(render(empty))
    text = document[0].get_textpage()
    at = text.get_text_bounded().index("م")
    boxes = [text.get_charbox(n) for n in range(at, at + len(word))]
    left, bottom = min(b[0] for b in boxes) - 4, min(b[1] for b in boxes) - 4
    right, top = max(b[2] for b in boxes) + 4, max(b[3] for b in boxes) + 4
    scale = 4
    height = document[0].get_height()
    shown = document[0].render(scale=scale).to_pil()
    area = (left * scale, (height - top) * scale, right * scale, (height - bottom) * scale)
    assert components(shown.crop(tuple(round(v) for v in area))) == pieces


def test_a_long_report_has_its_head_and_foot_on_every_page() -> None:
    long = replace(sheet(current_version=3), sections=(Section("النتائج", "\n".join([FINDING * 3] * 16)),))
    document = pypdfium2.PdfDocument(render(long))
    assert len(document) > 1
    for number in range(len(document)):
        text = document[number].get_textpage().get_text_bounded()
        assert "مستشفى قنا العام" in text
        assert "هذا إصدار قديم" in text
        assert long.mark in text
        assert "28001010100123" in text
        assert f"{number + 1}" in text.splitlines()[-1]


def test_the_same_report_gives_the_same_bytes() -> None:
    assert render(sheet("en")) == render(sheet("en"))


@pytest.mark.parametrize("logo", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_a_logo_that_is_none_keeps_no_report_back(logo: bytes) -> None:
    assert page._logo(logo) is None


def test_a_logo_is_shown() -> None:
    out = io.BytesIO()
    Image.new("RGB", (40, 40), "#0a5f66").save(out, "PNG")
    shown = pypdfium2.PdfDocument(render(replace(sheet(), letterhead=replace(HEAD, logo=out.getvalue()))))[0]
    image = np.asarray(shown.render(scale=1).to_pil().convert("RGB"))
    assert (np.abs(image.astype(int) - (10, 95, 102)).sum(axis=2) < 12).sum() > 1000


def test_the_fonts_are_those_that_were_made() -> None:
    folder = Path(page.__file__).with_name("fonts")
    about = json.loads((folder / "fonts.json").read_text(encoding="utf-8"))
    for name, digest in about["files"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, name
    licences = {p["licence_file"] for p in about["packages"]}
    assert {p.name for p in folder.iterdir()} == {*about["files"], *licences, "fonts.json"}
