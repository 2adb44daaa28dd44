"""multipart/related (RFC 2387, RFC 2046 §5.1) as a stream: bytes in, parts out, memory bounded. Pure.

`feed` gives events in their order: `Begin` with a part's headers, pieces of its content as memoryviews (good until the
next `feed`), `End`. Content is looked at once, for the boundary, and not copied.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from schemas.errors import Invalid

HEADERS_BYTES_MAX = 16 * 1024
"""Of one part."""
PADDING_BYTES_MAX = 256
"""White space behind a boundary."""
BOUNDARY_LENGTH_MAX = 70  # RFC 2046 §5.1.1

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # noqa: S105 (RFC 9110's token, no secret)
_MEDIA_TYPE = re.compile(rf"\s*({_TOKEN}/{_TOKEN})\s*")
_PARAMETER = re.compile(rf';\s*(?:({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+)))?\s*')


@dataclass(frozen=True, slots=True)
class Begin:
    """A part begins. Names of headers are in lower case."""

    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class End:
    """The part is complete."""


Event = Begin | memoryview | End
_END = End()


def media_type(text: str) -> tuple[str, dict[str, str]]:
    """A Content-Type as (type in lower case, parameters with names in lower case). Raises Invalid(`media-type`)."""
    match = _MEDIA_TYPE.match(text)
    if match is None:
        raise Invalid("media-type")
    parameters: dict[str, str] = {}
    at = match.end()
    while at < len(text):
        found = _PARAMETER.match(text, at)
        if found is None:
            raise Invalid("media-type")
        name, quoted, plain = found.groups()
        if name:
            value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain
            parameters.setdefault(name.lower(), value)
        at = found.end()
    return match[1].lower(), parameters


class _State(enum.Enum):
    PREAMBLE = enum.auto()
    BOUNDARY = enum.auto()
    HEADERS = enum.auto()
    CONTENT = enum.auto()
    EPILOGUE = enum.auto()


class Parser:
    """One request's body. Raises Invalid: `multipart-boundary`, `multipart-headers`, `multipart-truncated`."""

    def __init__(self, boundary: str) -> None:
        if not 0 < len(boundary) <= BOUNDARY_LENGTH_MAX or not boundary.isascii():
            raise Invalid("multipart-boundary")
        self._delimiter = b"\r\n--" + boundary.encode()
        self._state = _State.PREAMBLE
        self._inside = False
        # The first boundary needs no line break in front of it, so one is put there.
        self._held = b"\r\n"

    def feed(self, data: bytes) -> Iterator[Event]:
        """Events of the next bytes; to be taken to the end before the next call."""
        if self._held:
            data, self._held = self._held + data, b""
        view, at = memoryview(data), 0
        while at < len(data):
            match self._state:
                case _State.CONTENT | _State.PREAMBLE:
                    found = data.find(self._delimiter, at)
                    stop = found if found >= 0 else self._certain(data, at)
                    if self._inside and stop > at:
                        yield view[at:stop]
                    if found < 0:
                        self._held = data[stop:]
                        return
                    at = found + len(self._delimiter)
                    self._state = _State.BOUNDARY
                case _State.BOUNDARY:
                    after, state = self._boundary(data, at)
                    if state is _State.BOUNDARY:
                        self._held = data[at:]
                        return
                    at, self._state = after, state
                    if self._inside and state is _State.CONTENT:  # it only began like one
                        yield memoryview(self._delimiter)
                    elif self._inside:
                        self._inside = False
                        yield _END
                case _State.HEADERS:
                    after, headers = self._headers(data, at)
                    if headers is None:
                        self._held = data[at:]
                        return
                    at = after
                    self._state, self._inside = _State.CONTENT, True
                    yield Begin(headers)
                case _State.EPILOGUE:
                    return

    def close(self) -> None:
        """The body has ended; it must have said so itself."""
        if self._state is not _State.EPILOGUE:
            raise Invalid("multipart-truncated")

    def _certain(self, data: bytes, at: int) -> int:
        """Up to where `data`, in which the delimiter is not, cannot be the delimiter's beginning."""
        tail = max(at, len(data) - len(self._delimiter) + 1)
        while (tail := data.find(b"\r", tail)) >= 0:
            if self._delimiter.startswith(data[tail:]):
                return tail
            tail += 1
        return len(data)

    def _boundary(self, data: bytes, at: int) -> tuple[int, _State]:
        """What stands behind a delimiter: where to go on and as what; BOUNDARY when more is needed to tell."""
        if data.startswith(b"--", at):
            return len(data), _State.EPILOGUE
        end = at
        while end < len(data) and data[end] in b" \t":
            end += 1
        rest = data[end : end + 2]
        if end - at > PADDING_BYTES_MAX or not (b"\r\n".startswith(rest) or (end == at and b"--".startswith(rest))):
            return at, _State.CONTENT if self._inside else _State.PREAMBLE
        return (end + 2, _State.HEADERS) if rest == b"\r\n" else (at, _State.BOUNDARY)

    def _headers(self, data: bytes, at: int) -> tuple[int, dict[str, str] | None]:
        if data.startswith(b"\r\n", at):
            return at + 2, {}
        end = data.find(b"\r\n\r\n", at, at + HEADERS_BYTES_MAX)
        if end < 0:
            if len(data) - at >= HEADERS_BYTES_MAX:
                raise Invalid("multipart-headers")
            return at, None
        headers: dict[str, str] = {}
        for line in data[at:end].decode("latin-1").split("\r\n"):
            name, colon, value = line.partition(":")
            if not colon:
                raise Invalid("multipart-headers")
            headers.setdefault(name.strip().lower(), value.strip())
        return end + 4, headers
