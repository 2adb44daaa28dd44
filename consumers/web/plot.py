"""How long things take as a picture: a bar to the median of each group, lines on to p90 and p95. SVG, pure.

Everything is said by shape and by text beside it, not by colour alone; right-to-left languages read it from the right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

WIDTH: Final = 720
ROW, TOP, BOTTOM = 34, 30, 12
NAMES, FIGURES = 130, 170
"""Widths left to the names of groups and to the figures behind the bars."""
GROUPS_MAX: Final = 24
_BAR, _LINE, _TEXT, _GRID = "#0a5f66", "#774800", "#14262e", "#d6dfe2"


@dataclass(frozen=True)
class Bar:
    """A group's figures in seconds."""

    name: str
    p50: float
    p90: float
    p95: float


Duration = Callable[[float], str]
"""Seconds as people read them."""


def bars(found: Sequence[Bar], title: str, duration: Duration, *, rtl: bool = False) -> str:
    """The picture; of more groups than GROUPS_MAX the first."""
    shown = found[:GROUPS_MAX]
    height = TOP + ROW * len(shown) + BOTTOM
    longest = max((bar.p95 for bar in shown), default=0.0) or 1.0
    scale = (WIDTH - NAMES - FIGURES) / longest

    def x(at: float) -> float:
        return round(WIDTH - at if rtl else at, 1)

    def text(at: float, y: float, said: str, size: int = 13, end: bool = False) -> str:
        # The text's own direction is the page's, so start and end are those of its line
        anchor = "end" if end else "start"
        direction = ' direction="rtl"' if rtl else ""
        return (
            f'<text x="{x(at)}" y="{y}" font-size="{size}" fill="{_TEXT}" text-anchor="{anchor}"{direction}>'
            f"{escape(said)}</text>"
        )

    def line(start: float, stop: float, y: float, width: int) -> str:
        return f'<path d="M{x(start)} {y}H{x(stop)}" stroke="{_LINE}" stroke-width="{width}"/>'

    parts = [text(8, 19, title, 14)]
    for n, bar in enumerate(shown):
        y = TOP + ROW * n + ROW / 2
        start, middle = NAMES, NAMES + bar.p50 * scale
        most, last = NAMES + bar.p90 * scale, NAMES + bar.p95 * scale
        left = min(x(start), x(middle))
        parts += [
            f'<path d="M0 {y + ROW / 2}H{WIDTH}" stroke="{_GRID}"/>',
            text(NAMES - 8, y + 4, bar.name[:18], end=True),
            f'<rect x="{left}" y="{y - 7}" width="{max(1.0, round(middle - start, 1))}" height="14" fill="{_BAR}"/>',
            line(middle, most, y, 4),
            line(most, last, y, 2),
            f'<path d="M{x(last)} {y - 6}V{y + 6}" stroke="{_LINE}" stroke-width="2"/>',
            text(last + 8, y + 4, f"{duration(bar.p50)} · {duration(bar.p95)}", 12),
        ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
        f' font-family="IBM Plex Sans Arabic, Noto Sans Arabic, sans-serif" role="img">'
        f'<title>{escape(title)}</title><rect width="{WIDTH}" height="{height}" fill="#fff"/>{"".join(parts)}</svg>'
    )
