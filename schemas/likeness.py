"""How much two files look like one person's: 0 to 100, and why. Pure.

Names never decide, they propose (design, Patients). Compared are folded names (`schemas.names`), group by group, so
that Arabic is compared with Arabic; words that sound alike (`schemas.sounds`) count nearly as the same. A name of two
words at least that is part of a longer one counts as the same: registers shorten names. Sexes that differ, and birth
dates that are not even alike, are two people; parents and children share telephones, brothers share fathers' names.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from zlib import crc32

from rapidfuzz import fuzz
from rapidfuzz.distance import DamerauLevenshtein

from schemas.identity import is_placeholder
from schemas.sounds import Spoken, alike, spoken

PROPOSED_FROM = 80
"""Below it two files are not shown to anybody."""
SHARDS = 16
"""Partitions of the proposals, by the lesser key of each pair."""
MIRROR = SHARDS
"""Added to a shard: the same rows by the greater key, where a file that has changed finds all of its own."""
NAME_FROM = 75
WORDS_LEAST = 2
HEARD_MOST = 95
"""Of names that are alike by their sound."""
NAME, BORN, PHONE = "name", "birth-date", "phone"
NAME_SHARE, BORN_SHARE, BORN_ALIKE_SHARE, PHONE_SHARE = 70, 20, 12, 10


@dataclass(frozen=True)
class Person:
    """What two files are compared by; text that is not known is empty."""

    name: str
    """DICOM PN."""
    birth_date: str
    """YYYYMMDD."""
    sex: str
    phone: str = ""


@dataclass(frozen=True)
class Likeness:
    """`score` of 100, and what agrees: `name`, `name-alike`, `birth-date`, `birth-date-alike`, `phone`."""

    score: int
    why: tuple[str, ...]


def shard_of(patient_key: str) -> int:
    """Which part of the proposals those that begin with a patient key are in."""
    return crc32(patient_key.encode()) % SHARDS


def likeness(one: Person, other: Person) -> Likeness | None:
    """None where a person need not look."""
    if one.sex and other.sex and one.sex != other.sex:
        return None
    name = name_likeness(one.name, other.name)
    if name < NAME_FROM:
        return None
    why = [NAME if name == 100 else f"{NAME}-alike"]
    score = name * NAME_SHARE / 100
    if one.birth_date and one.birth_date == other.birth_date:
        score += BORN_SHARE
        why.append(BORN)
    elif _slip(one.birth_date, other.birth_date):
        score += BORN_ALIKE_SHARE
        why.append(f"{BORN}-alike")
    elif one.birth_date and other.birth_date:
        return None
    same_phone = bool(one.phone) and one.phone == other.phone
    if same_phone:
        why.append(PHONE)
    # Where one of them has no telephone, its share is not held against the others
    total = NAME_SHARE + BORN_SHARE + (PHONE_SHARE if one.phone and other.phone else 0)
    found = round(100 * (score + (PHONE_SHARE if same_phone else 0)) / total)
    return Likeness(found, tuple(why)) if found >= PROPOSED_FROM else None


def name_likeness(one: str, other: str) -> int:
    """0 to 100, of the component groups that are most alike."""
    return max((_group(a, b) for a, b in product(_groups(one), _groups(other))), default=0)


def _groups(name: str) -> list[tuple[Spoken, ...]]:
    return [words for group in name.split("=") if (words := spoken(group)) and not is_placeholder(group)]


def _group(one: tuple[Spoken, ...], other: tuple[Spoken, ...]) -> int:
    written = _ratio(_written(one), _written(other))
    # Each word as the other group spells it, where it has one that sounds so
    spelt = [next((a for a in one if alike(a, b)), b) for b in other]
    heard = min(HEARD_MOST, _ratio(_written(one), _written(spelt))) if tuple(spelt) != other else 0
    return max(written, heard)


def _written(words: Iterable[Spoken]) -> list[str]:
    """Their folded words; one that was read as two stands there once."""
    return [w for words_of_one in dict.fromkeys(s.words for s in words) for w in words_of_one]


def _ratio(one: list[str], other: list[str]) -> int:
    a, b = " ".join(one), " ".join(other)
    best = fuzz.token_sort_ratio(a, b)
    if min(len(one), len(other)) >= WORDS_LEAST:
        best = max(best, fuzz.token_set_ratio(a, b))
    return round(best)


def _slip(one: str, other: str) -> bool:
    """Whether two dates differ by one slip of the hand: a digit, two digits swapped, or day and month."""
    if len(one) != 8 or len(other) != 8:
        return False
    return DamerauLevenshtein.distance(one, other) == 1 or one == other[:4] + other[6:] + other[4:6]
