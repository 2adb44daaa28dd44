"""What an X-Ray Radiation Dose SR says of an examination (PS3.16 TID 10001, TID 10011), as figures of a report. Pure.

The header is the manifest's DICOM JSON. Figures are those that a report is expected to name; what each irradiation
event gave stays in the SR.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from schemas.report_content import Dose

XRAY_DOSE: Final = "1.2.840.10008.5.1.4.1.1.88.67"
"""X-Ray Radiation Dose SR Storage."""
DEPTH_MAX, ITEMS_MAX = 12, 50_000

FIGURES: Final[Mapping[str, tuple[str, str]]] = {
    "113830": ("Mean CTDIvol", "most"),  # TID 10013: of each event; CTDIvol of several is never added up
    "113813": ("CT Dose Length Product Total", "sum"),  # TID 10012
    "113722": ("Dose Area Product Total", "sum"),  # TID 10002: of each plane
    "113725": ("Dose (RP) Total", "most"),  # of each plane, whose fields are not the same skin
    "113730": ("Total Fluoro Time", "sum"),
    "111637": ("Accumulated Average Glandular Dose", "most"),  # TID 10005: of each breast
}
"""DCM code of a NUM → its meaning, and what several are: `sum`, or `most` of them."""
EVENT_UID: Final = "113769"

Item = Mapping[str, Any]


@dataclass(frozen=True)
class Report:
    """A dose SR."""

    figures: tuple[Dose, ...]
    events: frozenset[str]
    """UIDs of its irradiation events."""
    written: str = ""
    """Content date and time, as they sort."""


def read(header: Item) -> Report:
    """A dose SR's figures; none where it says nothing that is known."""
    found: list[Dose] = []
    events: set[str] = set()
    for item in _walk(header, [ITEMS_MAX]):
        code = _code(item, "0040A043")
        if code == EVENT_UID and (uid := str(_value(item, "0040A124"))):
            events.add(uid)
        elif code in FIGURES and (figure := _figure(item, code)) is not None:
            found.append(figure)
    moment = f"{_value(header, '00080023')}{_value(header, '00080033')}"
    return Report(tuple(_together(found)), frozenset(events), moment)


def of_study(reports: Sequence[Report]) -> tuple[Dose, ...]:
    """Figures of a study. A device that sends its report again after each series says the same events in the next: of
    two reports the one whose events are all in the other is left out, of two with the same the later one stays.
    """
    kept: list[Report] = []
    for report in sorted(reports, key=lambda r: (len(r.events), r.written), reverse=True):
        if report.figures and not any(report.events <= other.events for other in kept):
            kept.append(report)
    return tuple(_together(figure for report in kept for figure in report.figures))


def _together(figures: Iterable[Dose]) -> Iterator[Dose]:
    """One of each code and unit, in the order of FIGURES."""
    by_code: dict[tuple[str, str], list[Dose]] = {}
    for figure in figures:
        by_code.setdefault((figure.code, figure.unit), []).append(figure)
    order = list(FIGURES)
    for (code, _), several in sorted(by_code.items(), key=lambda e: order.index(e[0][0])):
        values = [d.value for d in several]
        yield replace(several[0], value=sum(values, Decimal()) if FIGURES[code][1] == "sum" else max(values))


def _figure(item: Item, code: str) -> Dose | None:
    measured = next(iter(_items(item, "0040A300")), {})
    unit = str(_value(next(iter(_items(measured, "004008EA")), {}), "00080100"))
    try:
        value = Decimal(str(_value(measured, "0040A30A")))
    except InvalidOperation:
        return None
    return Dose(code=code, meaning=FIGURES[code][0], value=value, unit=unit) if value.is_finite() else None


def _walk(item: Item, left: list[int], depth: int = 0) -> Iterator[Item]:
    """All content items below one, at most as many as are `left`."""
    if depth > DEPTH_MAX:
        return
    for child in _items(item, "0040A730"):
        left[0] -= 1
        if left[0] < 0:
            return
        yield child
        yield from _walk(child, left, depth + 1)


def _code(item: Item, tag: str) -> str:
    """Code value of DICOM's own scheme; "" for any other."""
    code = next(iter(_items(item, tag)), {})
    return str(_value(code, "00080100")) if _value(code, "00080102") == "DCM" else ""


def _items(item: Item, tag: str) -> list[Item]:
    found = item.get(tag)
    values = found.get("Value") if isinstance(found, Mapping) else None
    return [v for v in values if isinstance(v, Mapping)] if isinstance(values, list) else []


def _value(item: Item, tag: str) -> Any:
    found = item.get(tag)
    values = found.get("Value") if isinstance(found, Mapping) else None
    return values[0] if isinstance(values, list) and values else ""
