"""A plain reader of multipart/related answers (RFC 2046 §5.1.1), for tests."""

from __future__ import annotations

import re
from dataclasses import dataclass

import httpx


@dataclass(frozen=True)
class Part:
    """One part."""

    headers: dict[str, str]
    body: bytes

    @property
    def transfer_syntax(self) -> str:
        """Of its Content-Type."""
        return self.headers["content-type"].partition("transfer-syntax=")[2]


def parts_of(answer: httpx.Response) -> list[Part]:
    """The parts; a cut body is an error."""
    found = re.search(r'boundary="?([^";]+)', answer.headers["content-type"])
    assert found, answer.headers["content-type"]
    delimiter = b"\r\n--" + found[1].encode()
    first, *pieces = (b"\r\n" + answer.content).split(delimiter)
    assert first in (b"", b"\r\n"), "a preamble"
    assert pieces.pop() == b"--\r\n", "no closing boundary"
    parts = []
    for piece in pieces:
        head, _, body = piece.partition(b"\r\n\r\n")
        lines = (line.partition(":") for line in head.decode("ascii").strip().split("\r\n"))
        headers = {name.lower(): value.strip() for name, _, value in lines}
        assert int(headers["content-length"]) == len(body)
        parts.append(Part(headers, body))
    return parts
