"""A body in gzip or deflate (RFC 9110 §8.4.1) as it was before: some at a time, and not more than it may become. Pure.

A few kilobytes can become gigabytes. Beyond FREE_BYTES a body may inflate to RATIO_MAX times what came of it, which
images do not reach unless they are blank; what it becomes lies in the spool like any other body, under its watermarks.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

from schemas.errors import Invalid

PIECE_BYTES: Final = 1 << 18
"""Of one step: what is in memory at once."""
FREE_BYTES: Final = 64 << 20
RATIO_MAX: Final = 200


class InflatesTooLarge(Invalid):
    """More comes out than a body of this length may hold."""


class Inflater:
    """Undoes one coding of one body. Raises Invalid(`content-coding-damaged`, `content-coding-truncated`)."""

    def __init__(self, coding: str) -> None:
        self._gzip = coding == "gzip"
        self._inflate = zlib.decompressobj(31 if self._gzip else zlib.MAX_WBITS)
        self._head = b""
        """The first bytes of a deflated body, until they tell its form."""
        self._told = self._gzip
        self._in = 0
        self._out = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Pieces of at most PIECE_BYTES."""
        self._in += len(data)
        if not self._told:
            data, self._head = self._head + data, b""
            if len(data) < 2:
                self._head = data
                return
            if not _is_zlib(data):
                # `deflate` means zlib's format; some send the raw stream instead.
                self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
            self._told = True
        while data:
            if self._inflate.eof:
                data = self._next_member(data)
                continue
            try:
                piece = self._inflate.decompress(data, PIECE_BYTES)
            except zlib.error as e:
                raise Invalid("content-coding-damaged", "the body is not what its Content-Encoding says") from e
            self._out += len(piece)
            if self._out > FREE_BYTES and self._out > RATIO_MAX * self._in:
                raise InflatesTooLarge("content-coding-too-large", "the body inflates to more than it may")
            data = self._inflate.unconsumed_tail or (self._inflate.unused_data if self._inflate.eof else b"")
            if piece:
                yield piece

    def close(self) -> None:
        """The body has ended; its stream must have ended too. A body without a byte is no stream and none too few."""
        if self._in and not self._inflate.eof:
            raise Invalid("content-coding-truncated", "the body ends before its Content-Encoding says")

    def _next_member(self, data: bytes) -> bytes:
        """A gzip file may be several, one behind the other (RFC 1952 §2.2); zeros pad it."""
        if not data.strip(b"\0"):
            return b""
        if not self._gzip:
            raise Invalid("content-coding-damaged", "the body goes on behind its end")
        self._inflate = zlib.decompressobj(31)
        return data


def _is_zlib(data: bytes) -> bool:
    """Whether a stream begins as RFC 1950 §2.2 has it."""
    return data[0] & 0x0F == 8 and int.from_bytes(data[:2], "big") % 31 == 0
