"""Whether a dataset fits the conditions of a search (PS3.4 §C.2.2.2). Pure.

Datasets are DICOM JSON: a study's answer, or the header of a level. Names match without regard to case, as a whole or
in any component group, as written or folded: أحمد finds احمد. Other text is folded alike; codes, numbers and
identifiers match exactly; a pattern matches without regard to case.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from consumers.api.attributes import IDENTIFIERS, Attribute
from consumers.api.qido import Condition, Kind
from schemas.dicom_json import name_text
from schemas.names import fold, fold_group, fold_tokens, name_tokens
from schemas.sounds import alike, asked, spoken

Test = Callable[[Mapping[str, Any]], bool]
ValueTest = Callable[[str], bool]

_WILDCARDS = re.compile(r"([*?])")
_SPACES = re.compile(r"[\s,;،؛/\\|()\[\]\"'`._-]+")
_STARS = re.compile(r"\*+")
_SERVANT = re.compile(r"(?<!\w)عبد ")
_ZONE = re.compile(r"[+-][0-9]{4}\Z")
_FIRST, _LAST = "0", "9"

MOMENTS: tuple[tuple[str, str], ...] = (
    ("00080020", "00080030"),
    ("00080021", "00080031"),
    ("00080022", "00080032"),
    ("00080023", "00080033"),
    ("00080012", "00080013"),
    ("00400244", "00400245"),
    ("00400100.00400002", "00400100.00400003"),
)
"""Dates and their times, which two ranges mean together (PS3.4 §C.2.2.2.5.3)."""


def checks_of(conditions: Iterable[Condition], *, fuzzy: bool = False, combined: bool = True) -> tuple[Test, ...]:
    """A test for each condition; one for a date and its time where both are ranges and go together."""
    left = {c.attribute.tag: c for c in conditions}
    found: list[Test] = []
    for date, time in MOMENTS if combined else ():
        if date in left and time in left and _are_ranges(left[date], left[time]):
            found.append(_moment_test(left.pop(date), left.pop(time)))
    return (*(_test(c, fuzzy) for c in left.values()), *found)


def fits(dataset: Mapping[str, Any], of: Sequence[Test]) -> bool:
    """Whether a dataset passes all."""
    return all(test(dataset) for test in of)


# ------------------------------------------------------------------------------------------------ reading


@lru_cache(maxsize=256)
def _decoder(tags: frozenset[str]) -> msgspec.json.Decoder[Any]:
    fields = [(f"t{tag}", Any, None) for tag in tags]
    struct = msgspec.defstruct("Dataset", fields, rename={f"t{tag}": tag for tag in tags}, gc=False)
    return msgspec.json.Decoder(struct)


def reader(conditions: Iterable[Condition]) -> Callable[[str], Mapping[str, Any]]:
    """What reads of a dataset's text only the elements that its tests look at."""
    tags = frozenset(c.attribute.top for c in conditions)
    decoder = _decoder(tags)
    names = [(tag, f"t{tag}") for tag in tags]

    def read(text: str) -> Mapping[str, Any]:
        found = decoder.decode(text)
        return {tag: getattr(found, name) for tag, name in names}

    return read


def values_of(dataset: Mapping[str, Any], tag: str) -> list[str]:
    """Values of an attribute; of a path, those of every item."""
    *sequences, last = tag.split(".")
    items: list[Mapping[str, Any]] = [dataset]
    for sequence in sequences:
        items = [v for i in items for v in _values(i, sequence) if isinstance(v, dict)]
    return [name_text(v) for i in items for v in _values(i, last)]


def _values(item: Mapping[str, Any], tag: str) -> list[Any]:
    element = item.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return values if isinstance(values, list) else []


# ------------------------------------------------------------------------------------------------ one condition


def _test(condition: Condition, fuzzy: bool) -> Test:
    tag = condition.attribute.tag
    if condition.kind is Kind.EMPTY:
        return lambda dataset: not any(values_of(dataset, tag))
    one = _value_test(condition, fuzzy)
    return lambda dataset: any(one(v) for v in values_of(dataset, tag))


def _value_test(condition: Condition, fuzzy: bool) -> ValueTest:
    values, attribute = condition.values, condition.attribute
    match condition.kind:
        case Kind.UIDS | Kind.ANY:
            allowed = frozenset(values)
            return lambda v: v in allowed
        case Kind.NUMBER:
            number = float(values[0])
            return lambda v: _number(v) == number
        case Kind.RANGE:
            return _range_test(values[0], values[1], attribute)
        case Kind.NAME:
            return fuzzy_test(values[0]) if fuzzy else name_test(values[0])
        case Kind.PATTERN if attribute.keyword in IDENTIFIERS:
            exact = _compiled(values[0])
            return lambda v: exact.match(v.strip()) is not None
        case Kind.PATTERN:
            pattern, folded = _compiled(values[0].casefold()), _compiled(_folded(values[0]))
            return lambda v: pattern.match(v.casefold()) is not None or folded.match(_fold_text(v)) is not None
        case _:
            return _text_test(values[0], attribute)


def _text_test(text: str, attribute: Attribute) -> ValueTest:
    if attribute.keyword in IDENTIFIERS:
        return lambda v: v.strip() == text
    folded = _fold_text(text)
    return lambda v: _fold_text(v) == folded


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


# ------------------------------------------------------------------------------------------------ dates and times


def _range_test(first: str, last: str, attribute: Attribute) -> ValueTest:
    """Inclusive. A moment of lower precision means all of its hour, minute or second (PS3.4 §C.2.2.2.5)."""
    if attribute.vr == "DA":
        return lambda v: bool(v) and (not first or first <= v) and (not last or v <= last)
    low, high = _digits(first, _FIRST), _digits(last, _LAST)
    return lambda v: bool(v) and low <= _digits(v, _FIRST) <= high


def _are_ranges(date: Condition, time: Condition) -> bool:
    both = date.kind is Kind.RANGE and time.kind is Kind.RANGE
    return both and date.values[0] != date.values[1] and time.values[0] != time.values[1]


def _moment_test(date: Condition, time: Condition) -> Test:
    """From the first date's first time to the last date's last time."""
    low = _digits(date.values[0] and date.values[0] + _time(time.values[0]), _FIRST)
    high = _digits(date.values[1] and date.values[1] + _time(time.values[1]), _LAST)
    date_tag, time_tag = date.attribute.tag, time.attribute.tag

    def test(dataset: Mapping[str, Any]) -> bool:
        day, clock = next(iter(values_of(dataset, date_tag)), ""), next(iter(values_of(dataset, time_tag)), "")
        return bool(day) and low <= _digits(day + _time(clock), _FIRST) <= high

    return test


def _time(text: str) -> str:
    return text.replace(":", "")


def _digits(text: str, fill: str) -> str:
    """As many digits as a DT can have, with six of a fraction."""
    whole, _, fraction = _ZONE.sub("", text).replace(":", "").partition(".")
    return (whole + fraction if fraction else whole).ljust(20, fill)


# ------------------------------------------------------------------------------------------------ person names


def name_test(pattern: str) -> ValueTest:
    """The test of a PN value."""
    plain = _compiled(_trimmed(pattern).casefold())
    folded = _compiled(_folded(pattern))
    components = "^" in pattern

    def test(value: str) -> bool:
        groups = value.split("=")
        candidates = [value, *groups] if len(groups) > 1 else groups
        if any(plain.match(_trimmed(c).casefold()) for c in candidates):
            return True
        if any(folded.match(_fold_group(g)) for g in groups):
            return True
        # `DOE^*` also means a DOE without a given name: the empty component was left out.
        return components and any(plain.match(_trimmed(c).casefold() + "^") for c in candidates)

    return test


def fuzzy_test(pattern: str) -> ValueTest:
    """The test with `fuzzymatching` (PS3.18 §8.3.4.2): literally, or every word begins a word of the name or sounds
    like one, also in the other script.
    """
    literal = name_test(pattern)
    words = [w for group in pattern.split("=") for w in fold_tokens(_WILDCARDS.sub(" ", group))]
    spoken_words = asked(pattern)

    def test(value: str) -> bool:
        if literal(value):
            return True
        tokens = _name_tokens(value)

        def begins(words: Iterable[str]) -> bool:
            return all(any(t.startswith(w) for t in tokens) for w in words)

        if words and begins(words):
            return True
        heard = [s for group in value.split("=") for s in spoken(group)] if spoken_words else []
        return bool(heard) and all(
            begins(a.heard.words) or any(alike(a.heard, s, begins=a.begins) for s in heard) for a in spoken_words
        )

    return test


def _trimmed(name: str) -> str:
    """Without padding and the empty components at the end, which mean nothing (PS3.5 §6.2.1.1)."""
    return name.strip().rstrip("^= ")


_name_tokens = lru_cache(maxsize=1 << 14)(name_tokens)
_fold_group = lru_cache(maxsize=1 << 16)(fold_group)
"""A walk over many studies meets the same names again and again."""


@lru_cache(maxsize=1 << 14)
def _fold_text(text: str) -> str:
    return " ".join(fold_tokens(text))


def _folded(pattern: str) -> str:
    """A pattern as `fold_group` would spell what it stands for: wild cards and `^` kept."""
    pieces = _WILDCARDS.split(_trimmed(pattern))
    text = "".join(p if p in ("*", "?") else _SPACES.sub(" ", fold(p)) for p in pieces)
    return _SERVANT.sub("عبد", text).strip()


def _compiled(pattern: str) -> re.Pattern[str]:
    """The expression of a pattern. Atomic groups keep it linear: `*a*a*a*a*b` must not stop the process."""
    first, *rest = (re.escape(p).replace(r"\?", ".") for p in _STARS.split(pattern))
    middle = "".join(f"(?>.*?{p})" for p in rest[:-1] if p)
    last = f".*{rest[-1]}" if rest else ""
    return re.compile(rf"{first}{middle}{last}\Z", re.DOTALL)
