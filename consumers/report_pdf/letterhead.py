"""The letterhead of a site: a TOML file for each, which the operator writes. Pure.

    [name]
    ar = "مستشفى قنا العام"
    en = "Qena General Hospital"
    [address]
    ar = "قسم الأشعة، شارع المستشفى، قنا"
    phone = "+20 96 333 0000"
    logo = "QENA.png"          # PNG or JPEG beside this file

A site without one has its identifier as its name: a report is never kept back for want of a letterhead.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from typing import Any, Literal

from schemas.errors import Invalid

Lang = Literal["ar", "en"]
LOGO_BYTES_MAX = 1 << 20


@dataclass(frozen=True)
class Letterhead:
    """What stands at the head of a site's reports."""

    name: dict[Lang, str] = field(default_factory=dict)
    address: dict[Lang, str] = field(default_factory=dict)
    phone: str = ""
    logo_name: str = ""
    logo: bytes = b""

    def said(self, what: dict[Lang, str], lang: Lang, default: str = "") -> str:
        """In a language, else in the other."""
        return what.get(lang) or next(iter(what.values()), default)


def parse(text: str) -> Letterhead:
    """Raises Invalid(`letterhead`), which names the entry."""
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        raise Invalid("letterhead", f"the letterhead is no TOML: {e}") from e
    unknown = set(found) - {"name", "address", "phone", "logo"}
    if unknown:
        raise Invalid("letterhead", f"a letterhead has name, address, phone and logo, not {', '.join(sorted(unknown))}")
    logo = _text(found, "logo")
    if "/" in logo or "\\" in logo:
        raise Invalid("letterhead", "logo is the name of a file beside the letterhead")
    return Letterhead(_spoken(found, "name"), _spoken(found, "address"), _text(found, "phone"), logo)


def _text(found: dict[str, Any], name: str) -> str:
    value = found.get(name, "")
    if not isinstance(value, str):
        raise Invalid("letterhead", f"{name} is a text")
    return value


def _spoken(found: dict[str, Any], name: str) -> dict[Lang, str]:
    value = found.get(name, {})
    if not isinstance(value, dict) or set(value) - {"ar", "en"} or not all(isinstance(v, str) for v in value.values()):
        raise Invalid("letterhead", f"[{name}] has ar and en, both texts")
    return dict(value)
