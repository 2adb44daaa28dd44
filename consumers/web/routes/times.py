"""How long things take: a table of percentiles by group, and a picture of one of them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from starlette.responses import Response

from consumers.web.frame import Frame, View
from consumers.web.language import Language
from consumers.web.plot import Bar, bars
from infra import clock
from schemas.roles import Permission

BY: Final = ("site", "modality", "priority", "hour")
INTERVALS: Final = (
    "arrived-final", "complete-final", "ordered-arrived", "arrived-complete", "complete-opened",
    "complete-preliminary", "ordered-final", "final-delivered", "final-read",
)  # fmt: skip
DAYS: Final = 7
_UNITS: Final = (("d", 86_400), ("h", 3600), ("min", 60))
SVG_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'",
    "Cache-Control": "private, no-store",
    "X-Content-Type-Options": "nosniff",
}


def add(frame: Frame) -> None:
    """Register the page and its picture."""
    frame.get("/web/times", times, Permission.TIMES_READ)
    frame.get("/web/times.svg", picture, Permission.TIMES_READ)


async def times(view: View) -> Response:
    """Of sites, in a time, by what is chosen."""
    asked, interval = _asked(view)
    found = await view.get("/times", **asked)
    shown = [name for name in INTERVALS if any(name in g["intervals"] for g in found["groups"])]
    rows = [
        {"name": _named(view.language, asked["by"], g["group"]), "studies": g["studies"], "steps": g["steps"],
         "cells": [_cell(view.language, g["intervals"].get(name)) for name in shown]}
        for g in found["groups"]
    ]  # fmt: skip
    return view.render(
        "times.html",
        asked=asked,
        sites=[("", view.language.text("any")), *((s, s) for s in found["known"])] if len(found["known"]) > 1 else [],
        interval=interval,
        intervals=[(name, view.language.text(f"times.{name}")) for name in INTERVALS],
        groupings=[(name, view.language.text(f"times.by.{name}")) for name in BY],
        shown=shown,
        rows=rows,
        studies=found["studies"],
        error=view.language.number(round(100 * found["error"])),
        picture=view.here().replace("/web/times", "/web/times.svg", 1),
        drawn=any(interval in g["intervals"] for g in found["groups"]),
    )


async def picture(view: View) -> Response:
    """The same of one interval, drawn."""
    asked, interval = _asked(view)
    found = await view.get("/times", **asked)
    language = view.language
    drawn = [
        Bar(_named(language, asked["by"], g["group"]), told["p50"], told["p90"], told["p95"])
        for g in found["groups"]
        if (told := g["intervals"].get(interval))
    ]
    title = f"{language.text(f'times.{interval}')}: {language.text('times.legend')}"
    svg = bars(drawn, title, lambda s: duration(language, s), rtl=language.dir == "rtl")
    return Response(svg, headers=SVG_HEADERS, media_type="image/svg+xml")


def _asked(view: View) -> tuple[dict[str, str], str]:
    """Options for the API, and which interval is drawn."""
    by, interval = view.option("by", 16), view.option("interval", 32)
    today = clock.now().astimezone(view.frame.zone).date()
    asked = {
        "by": by if by in BY else BY[0],
        "site": view.option("site", 64),
        "since": view.option("since", 10) or (today - timedelta(days=DAYS - 1)).isoformat(),
        "until": view.option("until", 10) or today.isoformat(),
    }
    return asked, interval if interval in INTERVALS else INTERVALS[0]


def _named(language: Language, by: str, group: str) -> str:
    if by == "hour" and group:
        return language.digits(f"{group}:00")
    if not group:
        return language.text("times.unknown")
    return language.or_code("priority", group) if by == "priority" else group


def _cell(language: Language, told: Mapping[str, Any] | None) -> dict[str, str] | None:
    return {p: duration(language, told[p]) for p in ("p50", "p90", "p95")} if told else None


def duration(language: Language, seconds: float) -> str:
    """In the largest unit of which it has one: `42 s`, `3.5 h`."""
    unit, size = next(((u, size) for u, size in _UNITS if seconds >= size), ("s", 1))
    value = f"{seconds / size:.{int(size > 1)}f}".removesuffix(".0")
    point = "٫" if language.arabic_digits else "."
    return f"{language.digits(value.replace('.', point))} {language.text(f'times.unit.{unit}')}"
