"""Names that sound alike across scripts: which spellings find each other, and which other names they find too."""

from __future__ import annotations

import sys
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.likeness import Person, likeness
from schemas.names import fold_tokens
from schemas.sounds import SOUND, alike, asked, sound_tokens, spoken
from tests.unit.schemas.egyptian_names import NAMES

MISSED = {("رغدة", "Ragda"), ("Raghda", "Ragda")}
MISTAKEN = {
    ("أسامة", "عصام"),
    ("إيمان", "أمين"),
    ("إيمان", "أيمن"),
    ("السيد", "سعاد"),
    ("السيد", "سعد"),
    ("السيد", "سعيد"),
    ("حمدي", "حمادة"),
    ("سارة", "ثريا"),
    ("سعد", "سعاد"),
    ("سعيد", "سعاد"),
    ("سعيد", "سعد"),
    ("سمير", "سمر"),
    ("سميرة", "سمر"),
    ("سميرة", "سمير"),
    ("ضياء", "دعاء"),
    ("عمر", "أميرة"),
    ("عمر", "عمرو"),
    ("عمرو", "أميرة"),
    ("فتحي", "فتحية"),
    ("مجدي", "ماجد"),
    ("منى", "مينا"),
}
"""Names of which some spelling is also one of the other: a person sees both."""


def same(one: str, other: str) -> bool:
    if fold_tokens(one) == fold_tokens(other):
        return True
    a, b = spoken(one), spoken(other)
    return len(a) == len(b) and all(alike(x, y) or x.words == y.words for x, y in zip(a, b, strict=True))


def test_spellings_of_a_name_find_each_other() -> None:
    pairs = [pair for names in NAMES for pair in combinations(names, 2)]
    missed = {pair for pair in pairs if not (same(*pair) and same(*reversed(pair)))}
    sys.stdout.write(
        f"{len(NAMES)} names, {len(pairs)} pairs of spellings, recall {1 - len(missed) / len(pairs):.3f}\n"
    )
    assert len(NAMES) >= 100
    assert missed == MISSED


def test_names_that_are_not_the_same_rarely_do() -> None:
    pairs = [(a, b) for a, b in combinations(NAMES, 2) if not set(a) & set(b)]
    mistaken = {(a[0], b[0]) for a, b in pairs if any(same(x, y) for x in a for y in b)}
    sys.stdout.write(f"{len(pairs)} pairs of names, {len(mistaken)} mistaken: {len(mistaken) / len(pairs):.4f}\n")
    assert mistaken == MISTAKEN


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("محمد", "Mahmoud"),
        ("محمود", "Mohamed"),
        ("حسن", "Hussein"),
        ("حسين", "Hassan"),
        ("Ali", "عبد الله"),
        ("علي", "Allah"),
    ],
)
def test_the_commonest_names_stay_apart(one: str, other: str) -> None:
    assert not same(one, other)
    assert not same(other, one)


def test_two_arabic_words_are_compared_as_they_are_written() -> None:
    assert not same("سعيد", "سيد")


@pytest.mark.parametrize("pattern", ["محمد", "Mohamed", "Muhammad*"])
def test_a_pattern_finds_both_scripts(pattern: str) -> None:
    (word,) = asked(pattern)
    assert word.begins == pattern.endswith("*")
    found = [n for n in ("Mohammed", "Mahmoud", "Hamada") if alike(word.heard, spoken(n)[0], begins=word.begins)]
    assert found == ["Mohammed"]
    assert word.token == SOUND + word.heard.key


@pytest.mark.parametrize("pattern", ["*hamed", "Moh?med", "Mo*med Ali", ""])
def test_a_wild_card_elsewhere_has_no_sound(pattern: str) -> None:
    assert asked(pattern) == ()


def test_a_beginning_of_one_consonant_is_no_beginning() -> None:
    assert [a.begins for a in asked("Mo* Sam*")] == [False, True]


def test_tokens_are_one_for_both_groups() -> None:
    assert sound_tokens("Hassan^Mona Abd El-Rahman=حسن^منى عبد الرحمن") == ("~abdlrhmn", "~hsn", "~mn")
    assert sound_tokens("王^小東=12 345") == ()


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=30))
def test_any_text_has_a_sound_or_none(text: str) -> None:
    assert sound_tokens(text) == sound_tokens(text.upper().lower())
    for word in (w for group in text.split("=") for w in spoken(group)):
        assert (word.key == "") == (word.gaps == ())


def test_files_of_two_scripts_are_proposed() -> None:
    arabic = Person("محمد^محمود إبراهيم", "19800101", "M")
    found = likeness(arabic, Person("Mohamed^Mahmoud Ibrahim", "19800101", "M"))
    assert found is not None
    assert found.why == ("name-alike", "birth-date")
    assert likeness(arabic, Person("Ahmed^Mahmoud Hassan", "19800101", "M")) is None
