"""What a client accepts (RFC 9110 §12.5.1 with PS3.18 §8.7.4 and §8.7.5). Pure.

Clients in the field leave quotes out (`type=application/octet-stream`) or send `type="*/*"`; both are read as meant.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from schemas.errors import Invalid

ACCEPT_LENGTH_MAX = 4096
MULTIPART = "multipart/related"
ANY = "*/*"

_PIECE = re.compile(r'\s*;\s*([A-Za-z0-9_-]+)\s*=\s*(?:"([^"]*)"|([^;,"\s]+))')
_TYPE = re.compile(r"\s*([A-Za-z0-9!#$&^_.+*-]+/[A-Za-z0-9!#$&^_.+*-]+)")
_EMPTY = re.compile(r"\s*,|\s+$")
_COMMA = re.compile(r"\s*(,|$)")


@dataclass(frozen=True)
class Accepted:
    """One media range. For multipart/related `of` is the type of its parts, which may be `*/*`."""

    multipart: bool
    of: str
    """Lower case; `*/*` for anything."""
    transfer_syntax: str = ""
    """Empty: not said; `*`: as stored; else a UID."""

    def takes(self, media_type: str) -> bool:
        """Whether a media type falls into the range."""
        kind, _, sub = self.of.partition("/")
        return self.of == ANY or self.of == media_type or (sub == "*" and media_type.startswith(kind + "/"))


def parse(header: str) -> tuple[Accepted, ...]:
    """The ranges, best first (by q, then as written). No header at all accepts anything. Raises Invalid(`accept`)."""
    if not header.strip():
        return (Accepted(False, ANY),)
    if len(header) > ACCEPT_LENGTH_MAX:
        raise Invalid("accept", "the Accept header is too long")
    found: list[tuple[float, int, Accepted]] = []
    at = 0
    while at < len(header):
        if empty := _EMPTY.match(header, at):
            at = empty.end()  # RFC 9110 §5.6.1.2
            continue
        head = _TYPE.match(header, at)
        if head is None:
            raise Invalid("accept", "the Accept header cannot be read")
        at = head.end()
        parameters: dict[str, str] = {}
        while piece := _PIECE.match(header, at):
            parameters[piece[1].lower()] = (piece[2] if piece[2] is not None else piece[3]).strip()
            at = piece.end()
        comma = _COMMA.match(header, at)
        if comma is None:
            raise Invalid("accept", "the Accept header cannot be read")
        at = comma.end()
        quality = _quality(parameters.get("q", "1"))
        if quality > 0:
            found.append((-quality, len(found), _accepted(head[1].lower(), parameters)))
    return tuple(a for _, _, a in sorted(found, key=lambda f: f[:2]))


def single_part(accepted: Sequence[Accepted], media_types: Sequence[str]) -> str:
    """The first of our media types that a client takes as a body of one part; empty if it takes none."""
    return next((t for a in accepted for t in media_types if not a.multipart and a.takes(t)), "")


def _accepted(media_type: str, parameters: dict[str, str]) -> Accepted:
    syntax = parameters.get("transfer-syntax", "")
    if media_type != MULTIPART:
        return Accepted(False, media_type, syntax)
    # `type="application/dicom; transfer-syntax=…"`: the parameter inside the quotes, as some clients have it.
    of, _, inner = parameters.get("type", ANY).partition(";")
    name, _, value = inner.strip().partition("=")
    if name == "transfer-syntax" and not syntax:
        syntax = value.strip()
    return Accepted(True, of.strip().lower() or ANY, syntax)


def _quality(text: str) -> float:
    try:
        return min(1.0, max(0.0, float(text)))
    except ValueError as e:
        raise Invalid("accept", "the Accept header cannot be read") from e
