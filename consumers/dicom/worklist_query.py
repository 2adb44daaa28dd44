"""Modality Worklist identifiers (PS3.4 §K.4.1): what a device asks for, and the item it is answered with. Pure.

Matching is that of C-FIND and QIDO-RS (`consumers.api.match`). Which days are read follows from the start dates that
are asked for; a query without any is about now.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any, Final

from pydicom import DataElement, Dataset
from pydicom.datadict import keyword_for_tag

from consumers.api.attributes import Attribute, Level, vr_of
from consumers.api.match import Test, checks_of, values_of
from consumers.api.qido import Condition, Kind, condition_of
from consumers.dicom.identifier import (
    CHARACTER_SET,
    TIMEZONE,
    asked_of,
    character_set,
    element_of,
    plain,
    text_of,
    texts,
)
from consumers.dicom.worklist_item import START_DATE, STATION_AE, STEP, STEP_STATUS
from schemas.dicom_json import Dataset as Json
from schemas.errors import Invalid

MODALITY_WORKLIST: Final = "1.2.840.10008.5.1.4.31"
DAYS_BACK, DAYS_AHEAD = 1, 14
"""Of a query without a start date; and how far an open range goes beyond its one end, or today if that is further."""
DAYS_MAX = 62
"""Days that one query may be about."""

_DATE, _STATION, _STATUS = (f"{STEP}.{tag}" for tag in (START_DATE, STATION_AE, STEP_STATUS))
_MATCHED: Final = frozenset(
    "00080050 00080090 00100010 00100020 00100021 00100030 00100040 0020000D 00321032 00321060 00401001 00401003"
    " 00402016".split()
) | {f"{STEP}.{tag}" for tag in "00080060 00400001 00400002 00400003 00400007 00400009 00400020".split()}
"""What a query may ask for; of other keys the values are given and not matched (status FF01)."""


@dataclass(frozen=True)
class Asked:
    """A query, read."""

    keys: Dataset
    """As it came: what an answer has."""
    conditions: tuple[Condition, ...]
    unsupported: bool
    days: tuple[str, ...]
    """YYYYMMDD, where the site is."""
    accession: str
    """The one accession number that is asked for; then every day counts."""
    station_ae: str
    """The one station that is asked for."""

    @property
    def criteria(self) -> dict[str, tuple[str, ...]]:
        """For the access event."""
        return {
            c.attribute.keyword: ("-".join(c.values),) if c.kind is Kind.RANGE else c.values for c in self.conditions
        }

    def without_status(self) -> Asked:
        """The same for an item of which nobody knows yet how far the devices are."""
        return replace(self, conditions=tuple(c for c in self.conditions if c.attribute.tag != _STATUS))

    def checks(self) -> tuple[Test, ...]:
        """All that an item must pass. An order that any station may do is nobody's alone, so it fits every station."""
        station = tuple(c for c in self.conditions if c.attribute.tag == _STATION)
        rest = checks_of(c for c in self.conditions if c.attribute.tag != _STATION)
        named = checks_of(station)
        return (*rest, lambda found: not any(values_of(found, _STATION)) or all(test(found) for test in named))


def read(identifier: Dataset, today: date) -> Asked:
    """Raises Invalid(`value-…`, `worklist-days`): status A900."""
    conditions: list[Condition] = []
    unsupported = False
    for key in identifier:
        if key.tag in (CHARACTER_SET, TIMEZONE) or key.tag.element == 0:
            continue
        for path, text in asked_of(key, f"{key.tag:08X}"):
            if not text:
                continue
            if path not in _MATCHED:
                unsupported = True
                continue
            condition = condition_of(_attribute(path), text)
            if condition is not None:
                conditions.append(condition)
    by_path = {c.attribute.tag: c for c in conditions}
    accession = _one(by_path.get("00080050"))
    days = () if accession and _DATE not in by_path else _days(by_path.get(_DATE), today)
    return Asked(identifier, tuple(conditions), unsupported, days, accession, _one(by_path.get(_STATION)))


def _attribute(path: str) -> Attribute:
    last = path.rpartition(".")[2]
    return Attribute(keyword_for_tag(int(last, 16)), path, vr_of(last), Level.STUDY)


def _one(condition: Condition | None) -> str:
    return condition.values[0] if condition is not None and condition.kind is Kind.TEXT else ""


def _days(condition: Condition | None, today: date) -> tuple[str, ...]:
    first, last = today - timedelta(DAYS_BACK), today + timedelta(DAYS_AHEAD)
    if condition is not None and condition.kind is Kind.RANGE:
        start, end = (_date(v) if v else None for v in condition.values)
        last = end or max(last, (start or today) + timedelta(DAYS_AHEAD))
        first = start or min(first, last - timedelta(DAYS_BACK))
    count = (last - first).days + 1
    if count > DAYS_MAX:
        raise Invalid("worklist-days", f"at most {DAYS_MAX} days in one query")
    return tuple((first + timedelta(n)).strftime("%Y%m%d") for n in range(max(0, count)))


def _date(text: str) -> date:
    digits = text.replace(".", "")
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:8]))
    except ValueError as error:
        raise Invalid("value-range", "a start date is no date") from error


# ------------------------------------------------------------------------------------------------ answers


def written(keys: Dataset, found: Json) -> Dataset:
    """The identifier of a pending response: the keys that were asked for, in the query's character set if that has
    every character of it, else in UTF-8.
    """
    answer = Dataset()
    for key in _keys(keys):
        tag = f"{key.tag:08X}"
        answer.add(element_of(tag, found.get(tag), key))
    if charset := character_set(text_of(keys.get("SpecificCharacterSet")), texts(answer)):
        answer.add(plain(CHARACTER_SET, "CS", charset))
    return answer


def _keys(keys: Dataset) -> Iterator[DataElement]:
    yield from (key for key in keys if key.tag != CHARACTER_SET and key.tag.element != 0)


def of_station(found: Mapping[str, Any], station_ae: str) -> Json:
    """The item as told to a device: an order that any station may do is that station's."""
    (step,) = found[STEP]["Value"]
    if step[STATION_AE].get("Value"):
        return dict(found)
    mine = {**step, STATION_AE: {"vr": "AE", "Value": [station_ae]}}
    return {**found, STEP: {"vr": "SQ", "Value": [mine]}}
