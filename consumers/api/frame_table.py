"""Where the frames of an instance lie, as its manifest's line tells. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec


@dataclass(frozen=True)
class Spans:
    """The frames of an instance: native ones by arithmetic, encapsulated ones by their fragments.

    Offsets count from the start of the dataset.
    """

    count: int = 0
    pixel_offset: int = 0
    bits: int = 0
    """Of a native frame."""
    fragments: tuple[tuple[tuple[int, int], ...], ...] = ()

    @property
    def first(self) -> int:
        """Where the first byte of pixel data lies."""
        return min((at for frame in self.fragments for at, _ in frame), default=self.pixel_offset)

    def of(self, number: int) -> tuple[tuple[int, int], ...]:
        """(offset, length) of the pieces of a frame, from 0. One of single bits may share its first and last byte."""
        if self.fragments:
            return self.fragments[number]
        start, stop = number * self.bits // 8, ((number + 1) * self.bits + 7) // 8
        return ((self.pixel_offset + start, stop - start),)

    def aligned(self, data: bytes, number: int) -> bytes:
        """A frame's bytes, from those of its pieces: single bits begin where the last frame ended (PS3.5 §8.1.1)."""
        if self.fragments or not self.bits % 8:
            return data
        packed = int.from_bytes(data, "little")
        frame = packed >> number * self.bits % 8 & (1 << self.bits) - 1
        return frame.to_bytes((self.bits + 7) // 8, "little")


class _Table(msgspec.Struct):
    """As `frames` of a manifest's line."""

    native: tuple[int, int, int] | None = None
    encapsulated: list[list[int]] | None = None


_table: msgspec.json.Decoder[_Table | None] = msgspec.json.Decoder(_Table | None)


def frame_spans(table: bytes) -> Spans:
    """The frames that a manifest's line knows."""
    found = _table.decode(table or b"null")
    if found is None:
        return Spans()
    if found.native is not None:
        offset, bits, count = found.native
        return Spans(count, offset, bits)
    frames = tuple(tuple(zip(f[::2], f[1::2], strict=True)) for f in found.encapsulated or ())
    return Spans(len(frames), fragments=frames)
