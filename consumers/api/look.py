"""How a rendered image is to look (PS3.18 §8.3.5, §10.4.1.1.3-5). Pure: what was asked for becomes values."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from consumers.api.accept import ANY, Accepted
from consumers.api.wado import NotAcceptable
from schemas.errors import Invalid

JPEG, PNG, GIF = "image/jpeg", "image/png", "image/gif"
MEDIA_TYPES = (JPEG, PNG, GIF)
"""Of single images (PS3.18 Table 8.7.4-1); the first is the default."""
QUALITY = 90
SIDE_MAX = 8192
"""Pixels of a viewport's side."""
THUMBNAIL_SIDE = 128
IGNORED = ("annotation", "iccprofile")
"""Parameters that are optional and not done here; an answer says so."""


class Function(Enum):
    """VOI LUT Function (PS3.3 §C.11.2.1.2)."""

    LINEAR = "linear"
    LINEAR_EXACT = "linear-exact"
    SIGMOID = "sigmoid"


@dataclass(frozen=True)
class Window:
    """Which values are shown from black to white, in the modality's units."""

    center: float
    width: float
    function: Function = Function.LINEAR


@dataclass(frozen=True)
class Viewport:
    """The image is fitted into `width` × `height`, its shape kept. Of the image a region is shown, in its own pixels:
    None is up to its edge, a negative size mirrors it.
    """

    width: int
    height: int
    left: float = 0.0
    top: float = 0.0
    region_width: float | None = None
    region_height: float | None = None


@dataclass(frozen=True)
class Look:
    """All that decides the bytes of an image besides its source."""

    media_type: str = JPEG
    quality: int = QUALITY
    window: Window | None = None
    viewport: Viewport | None = None


class OutsideImage(ValueError):
    """A region of the viewport that has nothing of the image."""


def look(option: Callable[[str], str], accepted: Sequence[Accepted], *, thumbnail: bool = False) -> tuple[Look, bool]:
    """(the look, whether it leaves as multipart/related), of the query and Accept. Raises Invalid, NotAcceptable.

    `option` gives a query parameter, empty if it is not there. A thumbnail takes no window and no quality.
    """
    media_type, multipart = _form(accepted)
    viewport = _viewport(option("viewport"))
    if thumbnail:
        return Look(media_type, viewport=viewport or Viewport(THUMBNAIL_SIDE, THUMBNAIL_SIDE)), multipart
    return Look(media_type, _quality(option("quality")), _window(option("window")), viewport), multipart


def _form(accepted: Sequence[Accepted]) -> tuple[str, bool]:
    for a in accepted:
        found = next((m for m in MEDIA_TYPES if a.takes(m)), "")
        if found:
            return found, a.multipart and a.of != ANY
    raise NotAcceptable(f"images are rendered as {', '.join(MEDIA_TYPES)}")


def _quality(text: str) -> int:
    if not text:
        return QUALITY
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 100):
        raise Invalid("quality", "quality is a whole number from 1 to 100")
    return int(text)


def _window(text: str) -> Window | None:
    """`center,width,function`; the function may be missing, as some clients have it."""
    if not text:
        return None
    parts = text.split(",")
    try:
        center, width = _number(parts[0]), _number(parts[1])
        function = Function(parts[2].strip().lower()) if len(parts) > 2 else Function.LINEAR
    except (ValueError, IndexError) as e:
        raise Invalid("window", "window is center,width,function: linear, linear-exact or sigmoid") from e
    if len(parts) > 3 or width <= 0 or (function is Function.LINEAR and width < 1):
        raise Invalid("window", "a window's width is at least 1 (linear) or more than 0")
    return Window(center, width, function)


def _viewport(text: str) -> Viewport | None:
    """`vw,vh[,sx,sy,sw,sh]`, of which the last four may be empty."""
    if not text:
        return None
    parts = [p.strip() for p in text.split(",")]
    try:
        if len(parts) not in (2, 6):
            raise ValueError("count")
        width, height = int(parts[0]), int(parts[1])
        left, top, region_width, region_height = (_number(p) if p else None for p in [*parts[2:], "", "", "", ""][:4])
        if not (0 < width <= SIDE_MAX and 0 < height <= SIDE_MAX) or region_width == 0 or region_height == 0:
            raise ValueError("size")
    except ValueError as e:
        raise Invalid("viewport", f"viewport is width,height[,x,y,width,height]; a side is 1 to {SIDE_MAX}") from e
    return Viewport(width, height, left or 0.0, top or 0.0, region_width, region_height)


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("finite")
    return value
