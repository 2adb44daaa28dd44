"""Where notifications may go: addresses that begin with what an administrator approved. Pure.

Scheme, host and port are those of the approved address exactly, its path is the beginning, whole segments of it, of the
endpoint's. So what is approved is never more than it looks like.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import SplitResult, urlsplit

from schemas.errors import Invalid

PORTS: Final = {"https": 443, "http": 80}
_PLAIN: Final = re.compile(r"[A-Za-z0-9:/?#\[\]@!$&'()*+,;=._~%-]{1,2000}\Z")
_HOST: Final = re.compile(r"[a-z0-9.:_-]{1,253}\Z")
_DOTS: Final = re.compile(r"(^|/)(\.|%2e){1,2}(/|$)", re.IGNORECASE)


def checked(url: str, *, prefix: bool = False) -> str:
    """An address that can be one; as `prefix` in its one form (lower-case host, no default port, no slash at the end).

    Raises Invalid.
    """
    told = "the beginning of" if prefix else ""
    why = Invalid("endpoint-url", f"an endpoint is {told} an https or http address without user, fragment and dots")
    try:
        parts = urlsplit(url) if _PLAIN.match(url) else SplitResult("", "", "", "", "")
        host, port = parts.hostname or "", parts.port
    except ValueError as e:
        raise why from e
    if parts.scheme not in PORTS or not _HOST.match(host) or "@" in parts.netloc or "#" in url or port == 0:
        raise why
    if _DOTS.search(parts.path) or (prefix and "?" in url):
        raise why
    if not prefix:
        return url
    shown = f"[{host}]" if ":" in host else host
    return (
        f"{parts.scheme}://{shown}{f':{port}' if port and port != PORTS[parts.scheme] else ''}{parts.path.rstrip('/')}"
    )


def approved(url: str, prefixes: Iterable[str]) -> bool:
    """Whether an endpoint is under one of the approved addresses."""
    try:
        origin, path = _parts(checked(url))
    except Invalid:
        return False
    return any(
        origin == begin and (path == under or path.startswith(f"{under}/"))
        for begin, under in map(_parts, prefixes)
    )  # fmt: skip


def _parts(url: str) -> tuple[tuple[str, str, int], str]:
    """(scheme, host, port), path without a slash at its end."""
    parts = urlsplit(url)
    return (parts.scheme, parts.hostname or "", parts.port or PORTS[parts.scheme]), parts.path.rstrip("/")
