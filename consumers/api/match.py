"""Whether a row fits the conditions of a search (PS3.4 §C.2.2.2). Pure.

Names match without regard to case, as a whole or in any component group, as written or folded: أحمد finds احمد. Codes,
numbers and identifiers match exactly; a pattern matches without regard to case.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

import msgspec

from consumers.api.attributes import Attribute, Level
from consumers.api.qido import Condition, Kind
from schemas.names import fold, fold_group

Row = Mapping[str, Any]
Test = Callable[[Row], bool]

_WILDCARDS = re.compile(r"([*?])")
_SPACES = re.compile(r"[\s,;،؛/\\|()\[\]\"'`._-]+")
_STARS = re.compile(r"\*+")
_SERVANT = re.compile(r"(?<!\w)عبد ")
_attributes = msgspec.json.Decoder(dict[str, Any])


def row_tests(conditions: Iterable[Condition], level: Level) -> tuple[Test, ...]:
    """The tests of a level's rows."""
    return tuple(_test(c) for c in conditions if c.attribute.level is level)


def fits(row: Row, of: tuple[Test, ...]) -> bool:
    """Whether a row passes all."""
    return all(test(row) for test in of)


def needs_attributes(conditions: Iterable[Condition], level: Level) -> bool:
    """Whether a level's tests look into the header."""
    return any(c.attribute.level is level and not c.attribute.column for c in conditions)


def _test(condition: Condition) -> Test:
    one = _value_test(condition)
    attribute = condition.attribute
    if attribute.column:
        column = attribute.column

        def by_column(row: Row) -> bool:
            value = row.get(column)
            if isinstance(value, frozenset | list | tuple):
                return any(one(v) for v in value)
            return value is not None and one(str(value))

        return by_column
    return lambda row: any(one(v) for v in header_values(row, attribute))


def header_values(row: Row, attribute: Attribute) -> list[str]:
    """Values of an attribute in a row's header; of a path, those of every item."""
    *sequences, tag = attribute.tag.split(".")
    items = [_attributes.decode(row.get("attributes") or "{}")]
    for sequence in sequences:
        items = [v for i in items for v in _values(i, sequence) if isinstance(v, dict)]
    return [_text(v) for i in items for v in _values(i, tag)]


def _values(item: Mapping[str, Any], tag: str) -> list[Any]:
    element = item.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return values if isinstance(values, list) else []


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "=".join(str(value.get(g) or "") for g in ("Alphabetic", "Ideographic", "Phonetic")).rstrip("=")
    return "" if value is None else str(value).strip()


def _value_test(condition: Condition) -> Callable[[str], bool]:
    values = condition.values
    match condition.kind:
        case Kind.UIDS | Kind.ANY:
            allowed = frozenset(values)
            return lambda v: v in allowed
        case Kind.NUMBER:
            number = int(values[0])
            return lambda v: v.strip().lstrip("+-").isdecimal() and int(v) == number
        case Kind.RANGE:
            return _range_test(values[0], values[1], time=condition.attribute.vr == "TM")
        case Kind.NAME:
            return name_test(values[0])
        case Kind.PATTERN:
            pattern = _compiled(values[0].casefold())
            return lambda v: pattern.match(v.casefold()) is not None
        case Kind.TEXT:
            text = values[0]
            return lambda v: v.strip() == text


def _range_test(first: str, last: str, *, time: bool) -> Callable[[str], bool]:
    """Inclusive. A time of lower precision means all of its hour, minute or second (PS3.4 §C.2.2.2.5)."""
    if not time:
        return lambda v: bool(v) and (not first or first <= v) and (not last or v <= last)
    low, high = _time(first, "0"), _time(last, "9")
    return lambda v: bool(v) and low <= _time(v, "0") <= high


def _time(text: str, fill: str) -> str:
    """HHMMSSFFFFFF."""
    return text.replace(":", "").replace(".", "").ljust(12, fill)


# ------------------------------------------------------------------------------------------------ person names


def name_test(pattern: str) -> Callable[[str], bool]:
    """The test of a PN value."""
    plain = _compiled(_trimmed(pattern).casefold())
    folded = _compiled(_folded(pattern))
    components = "^" in pattern

    def test(value: str) -> bool:
        groups = value.split("=")
        candidates = (value, *groups) if len(groups) > 1 else (value,)
        if any(plain.match(_trimmed(c).casefold()) for c in candidates):
            return True
        if any(folded.match(_fold_group(g)) for g in groups):
            return True
        # `DOE^*` also means a DOE without a given name: the empty component was left out.
        return components and any(plain.match(_trimmed(c).casefold() + "^") for c in candidates)

    return test


def _trimmed(name: str) -> str:
    """Without padding and the empty components at the end, which mean nothing (PS3.5 §6.2.1.1)."""
    return name.strip().rstrip("^= ")


@lru_cache(maxsize=1 << 16)
def _fold_group(group: str) -> str:
    """A walk over many studies meets the same names again and again."""
    return fold_group(group)


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
