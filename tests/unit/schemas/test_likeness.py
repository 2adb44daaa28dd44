"""Who looks like one person, and who only shares a family."""

from __future__ import annotations

import pytest

from schemas.likeness import Person, likeness, name_likeness

MONA = Person("Hassan^Mona Ali=حسن^منى علي", "19800101", "F", "01001234567")


@pytest.mark.parametrize(
    ("one", "other", "least", "most"),
    [
        ("حسن^منى علي", "منى علي حسن", 100, 100),
        ("عبد الله^أحمد", "أحمد عبدالله", 100, 100),
        ("Mohamed^Ahmed Ali", "Mohammed^Ahmed Aly", 80, 99),
        ("Hassan^Mona=حسن^منى", "=حسن^منى", 100, 100),
        ("Hassan^Mona Ali Ibrahim", "Hassan^Mona", 100, 100),
        ("Hassan^Mona", "Hassan", 0, 74),
        ("Hassan^Mona", "Ibrahim^Samir", 0, 60),
        ("UNKNOWN", "UNKNOWN", 0, 0),
        ("", "Hassan", 0, 0),
    ],
)
def test_names(one: str, other: str, least: int, most: int) -> None:
    assert least <= name_likeness(one, other) <= most
    assert name_likeness(one, other) == name_likeness(other, one)


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (Person("حسن^منى علي", "19800101", "F", "01001234567"), ("name", "birth-date", "phone")),
        (Person("Hasan^Muna Aly", "19800101", "F"), ("name-alike", "birth-date")),
        (Person("Hassan^Mona", "19800110", "", "01001234567"), ("name", "birth-date-alike", "phone")),
        (Person("Hassan^Mona", "19810101", "F", "01001234567"), ("name", "birth-date-alike", "phone")),
    ],
)
def test_one_person_written_otherwise(other: Person, why: tuple[str, ...]) -> None:
    found = likeness(MONA, other)
    assert found is not None
    assert found.why == why
    assert likeness(other, MONA) == found


@pytest.mark.parametrize(
    "other",
    [
        Person("Hassan^Mona Ali", "19800101", "M", "01001234567"),  # a brother of that name is another
        Person("Hassan^Samir Ali", "19800101", "", "01009999999"),
        Person("Hassan^Mona Ali", "20050712", "F", "01001234567"),  # her niece, on the same telephone
        Person("Ibrahim^Fatma", "19800101", "F", "01001234567"),
        Person("", "19800101", "F"),
    ],
)
def test_others(other: Person) -> None:
    assert likeness(MONA, other) is None


def test_day_and_month_that_changed_places_are_a_slip() -> None:
    one, other = Person("Hassan^Mona", "19800212", "F"), Person("Hassan^Mona", "19801202", "F")
    found = likeness(one, other)
    assert found is not None
    assert found.why == ("name", "birth-date-alike")
