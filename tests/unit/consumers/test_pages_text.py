"""What pages say, show and count: two languages with the same keys, names, days, looks, exports."""

from __future__ import annotations

import csv
import io
import re
from datetime import UTC, date, datetime
from pathlib import Path
from string import Formatter
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.api import plain_words
from consumers.web import app as web
from consumers.web import frame, show
from consumers.web.language import LANGUAGES, chosen, other
from consumers.web.looks import looks
from consumers.web.routes import arrivals, officer
from consumers.web.routes.studies import query_of
from producers.refusals import REFUSALS
from schemas.roles import Permission, Role

WEB = Path(web.__file__).parent
AR, EN = LANGUAGES["ar"], LANGUAGES["en"]
CAIRO = ZoneInfo("Africa/Cairo")
_ARABIC = re.compile(r"[\u0600-\u06ff]")


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name}


# ------------------------------------------------------------------------------------------------ messages


def test_both_languages_have_the_same_messages_with_the_same_values() -> None:
    assert AR.messages.keys() == EN.messages.keys()
    for key in EN.messages:
        assert fields(AR.messages[key]) == fields(EN.messages[key]), key
        assert AR.messages[key].strip(), key
        assert EN.messages[key].strip(), key


def test_each_is_in_its_own_script() -> None:
    names = {"ae-role.pacs"}  # a name, the same in both
    assert [k for k, v in EN.messages.items() if _ARABIC.search(v)] == []
    assert [k for k, v in AR.messages.items() if not _ARABIC.search(v) and not fields(v) and k not in names] == []


def used() -> tuple[set[str], set[str]]:
    """(keys, beginnings of keys) that templates and code ask for."""
    keys, starts = set[str](), set[str]()
    code = (p for p in WEB.glob("**/*.py") if p.name != "show.py")  # it reads DICOM elements by their tags
    for path in (*WEB.glob("templates/*.html"), *code):
        source = path.read_text(encoding="utf-8")
        keys |= set(re.findall(r"""\b(?:t|text)\(["']([a-z0-9.-]+)["'](?!\s*~)""", source))
        starts |= set(re.findall(r"""\bt\(["']([a-z0-9.-]+\.)["']\s*~""", source))
        starts |= {f"{s}." for s in re.findall(r"""or_code\(["']([a-z-]+)["']""", source)}
        starts |= set(re.findall(r"""\b(?:t|text)\(f["']([a-z0-9.-]+\.)\{""", source))
        keys |= set(re.findall(r"""["']([a-z]+\.[a-z.]+)["'] if """, source)) & EN.messages.keys()
        keys |= set(re.findall(r""" else ["']([a-z]+\.[a-z.]+)["']""", source)) & EN.messages.keys()
    return keys, starts


def test_what_is_asked_for_is_there_and_nothing_else() -> None:
    keys, starts = used()
    assert keys - EN.messages.keys() == set()
    assert {s for s in starts if not any(k.startswith(s) for k in EN.messages)} == set()
    assert {k for k in EN.messages if k not in keys and not any(k.startswith(s) for s in starts)} == set()


def test_every_role_place_and_reason_has_its_words() -> None:
    for role in Role:
        assert {f"role.{role}", f"role-of.{role}"} <= EN.messages.keys()
    for action in (*plain_words.ACTIONS, *(str(p).replace(".", "-") for p in Permission)):
        assert f"action.{action}" in EN.messages
    for entry in frame.MENU:
        assert {f"nav.{entry.key}", f"nav.{entry.key}.about"} <= EN.messages.keys()
    for key in frame.NOTICES:
        assert f"notice.{key}" in EN.messages
    for reason in REFUSALS:
        assert f"todo.{arrivals.refusal_todo(reason)}" in EN.messages


def test_an_unknown_code_is_shown_as_it_is() -> None:
    assert EN.or_code("refusal", "newer-reason") == "newer-reason"


# ------------------------------------------------------------------------------------------------ language


@pytest.mark.parametrize(
    ("option", "cookie", "accept", "code"),
    [
        ("en", "ar", "ar", "en"),
        ("", "en", "ar", "en"),
        ("", "", "fr, en-GB;q=0.8, ar;q=0.5", "en"),
        ("", "", "ar-EG, en", "ar"),
        ("xx", "yy", "zz", "ar"),
        ("", "", "", "ar"),
    ],
)
def test_which_language(option: str, cookie: str, accept: str, code: str) -> None:
    found = chosen(option, cookie, accept)
    assert found.code == code
    assert other(found).code != code


def test_numbers_days_and_times() -> None:
    moment = datetime(2026, 11, 22, 22, 30, tzinfo=UTC)
    assert EN.moment(moment, CAIRO, date(2026, 11, 23)) == "Today, 00:30"
    assert AR.moment(moment, CAIRO, date(2026, 11, 24)) == "٢٣ نوفمبر ٢٠٢٦، ٠٠:٣٠"
    assert (EN.number(1234567), AR.number(1234567), EN.number(None)) == ("1,234,567", "١٬٢٣٤٬٥٦٧", "")
    assert (EN.bytes(63_200_000), AR.bytes(1500), EN.bytes(0)) == ("63 MB", "١٫٥ ك.ب", "0 B")


@given(st.integers(0, 10**15))
def test_a_size_has_at_most_four_digits(size: int) -> None:
    assert len(re.findall(r"\d", EN.bytes(size))) <= 4


def test_what_is_put_into_a_sentence_is_isolated() -> None:
    assert AR.text("home.hello", name="Mona") == "أهلًا، \u2068Mona\u2069"


# ------------------------------------------------------------------------------------------------ values


@pytest.mark.parametrize(
    ("name", "code", "first", "second"),
    [
        ("Hassan^Mona=منى حسن", "ar", "منى حسن", "Hassan, Mona"),
        ("Hassan^Mona=منى حسن", "en", "Hassan, Mona", "منى حسن"),
        ("حسن^منى", "en", "منى حسن", ""),
        ("Doe^John^^Dr^Jr", "en", "Dr Doe, John Jr", ""),
        ("^^^^", "ar", "", ""),
        ("", "ar", "", ""),
    ],
)
def test_names(name: str, code: str, first: str, second: str) -> None:
    assert show.person_text(name, code) == show.Name(first, second)


@given(st.text(max_size=40), st.sampled_from(["ar", "en"]))
def test_any_text_is_shown_somehow(text: str, code: str) -> None:
    found = show.person_text(text, code)
    assert "^" not in found.first
    show.day(text)
    show.clock(text)
    show.moment(text)


def test_ages() -> None:
    assert show.age(date(1990, 11, 24), date(2026, 11, 23)) == 35
    assert show.age(date(1990, 11, 23), date(2026, 11, 23)) == 36
    assert show.age(date(2027, 1, 1), date(2026, 11, 23)) is None
    assert show.age(None, date(2026, 11, 23)) is None


def test_what_a_form_asks() -> None:
    blank = dict.fromkeys(("name", "id", "accession", "from", "to", "modality"), "")
    assert query_of(blank) == {}
    assert query_of(blank | {"name": "منى"}) == {"PatientName": "منى", "fuzzymatching": "true"}
    assert query_of(blank | {"from": "2026-11-01", "to": "2026-11-01"}) == {"StudyDate": "20261101"}
    assert query_of(blank | {"from": "2026-11-01"}) == {"StudyDate": "20261101-"}


def row(minute: int, **changed: str) -> dict[str, str]:
    usual = {"actor": "person:1", "role": "doctor", "purpose": "TREAT", "outcome": "granted", "action": "search"}
    return {**usual, "occurred": f"2026-11-23T10:{minute:02}:00Z", "study_uid": "1.2", **changed}


def test_what_one_person_did_within_minutes_is_one_line() -> None:
    rows = [row(50), row(45, action="retrieve-frames"), row(40, actor="person:2"), row(36, study_uid="1.3"), row(5)]
    found = looks(rows, EN)
    assert [f.occurred[14:16] for f in found] == ["50", "40", "05"]
    assert "search, images" in found[0].detail
    assert "2\u2069 studies" in found[0].detail
    assert "doctor" in found[0].sentence


def test_a_refusal_is_told_apart() -> None:
    found = looks([row(50), row(49, outcome="denied", reason="no-relation")], AR)
    assert [f.outcome for f in found] == ["granted", "denied"]
    assert "ومُنع" in found[1].sentence
    assert "علاقة" in found[1].detail


def test_refusals_of_a_device_stand_together() -> None:
    rows = [
        {"calling_ae": ae, "door": "dimse", "reason": reason, "received": f"2026-11-23T10:0{n}:00Z"}
        for n, (ae, reason) in enumerate([("CT1", "truncated"), ("CT1", "truncated"), ("US1", "dicomdir")])
    ]
    found = arrivals.together(rows)
    assert [(f["calling_ae"], f["count"], f["todo"]) for f in found] == [
        ("US1", 1, "not-an-image"),
        ("CT1", 2, "send-again"),
    ]


@given(st.lists(st.text(max_size=20), min_size=len(officer.COLUMNS), max_size=len(officer.COLUMNS)))
def test_an_export_is_read_back_and_holds_no_formula(cells: list[str]) -> None:
    text = officer.csv_of([dict(zip(officer.COLUMNS, cells, strict=True))])
    assert text.startswith("\ufeff")
    head, line = csv.reader(io.StringIO(text[1:], newline=""))
    assert tuple(head) == officer.COLUMNS
    for cell, read in zip(cells, line, strict=True):
        assert read.removeprefix("'") == cell.removeprefix("'")
        assert not read.startswith(("=", "+", "-", "@", "\t", "\r"))
